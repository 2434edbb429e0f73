"""Engines for tests of the operator: from YAML as people write it to everything that is made of them.

`python -m support.engines` writes the manifests of `unit/golden/engines` to `unit/golden`, to be read and
compared by eye. Used by the unit tests of manifests.
"""

from pathlib import Path
from typing import Any

import msgspec
import yaml

from picopay_operator.manifests import api, cnpg, jobs, monitoring, network, postgres, worker
from picopay_operator.manifests.access import access
from picopay_operator.manifests.context import Context, Manifest
from picopay_operator.spec.engine import Engine
from support.postgres import CHECKOUT

GOLDEN = CHECKOUT / "tests" / "unit" / "golden"
ENGINES = sorted((GOLDEN / "engines").glob("*.yaml"))
REPOSITORY = "docker.io/library/postgres"
DIGEST = "d1ce57ed"


def engine(text: str, **spec: Any) -> Engine:
    """Read an engine; fields of its `spec` are replaced by those given, in the names of the API."""
    document = yaml.safe_load(text)
    document["spec"].update(spec)
    return msgspec.convert(document, Engine)


def known(name: str, **spec: Any) -> Engine:
    """Read one of the engines of the golden files."""
    return engine(source(name), **spec)


def source(name: str) -> str:
    """Return what somebody has written for one of them."""
    return (GOLDEN / "engines" / f"{name}.yaml").read_text(encoding="utf-8")


def context(made: Engine, version: str = "1.2.3", data_hash: str = "da7aha54") -> Context:
    """Return what the plan would have decided for an engine."""
    image = made.spec.image
    repository = image.repository or "picopay/picopay-api"
    return Context(
        engine=made,
        image=f"{repository}@{image.digest}" if image.digest else f"{repository}:{version}",
        version=version,
        access=access(made, (5432, 6432)),
        data_hash=data_hash,
    )


def manifests(decided: Context) -> list[Manifest]:
    """Return everything that is ever applied for an engine, without Secrets."""
    wanted = decided.engine.spec
    revision = DIGEST if wanted.rollout.strategy.value == "BlueGreen" else None
    found = [
        *_database(decided),
        jobs.migration(decided, DIGEST, approved="a99409ed"),
        jobs.admin_key(decided, DIGEST, "key", overlap_s=decided.engine.spec.auth.overlap_seconds),
        jobs.check(decided, DIGEST),
        api.deployment(decided, revision),
        api.service(decided, revision),
        api.disruption_budget(decided),
        api.autoscaler(decided),
        worker.deployment(decided),
        worker.service(decided),
        network.ingress(decided),
        network.http_route(decided),
        *network.policies(decided),
        monitoring.service_monitor(decided),
        monitoring.prometheus_rule(decided),
        monitoring.dashboard_map(decided),
    ]
    return [manifest for manifest in found if manifest is not None]


def _database(decided: Context) -> list[Manifest]:
    made, database = decided.engine, decided.engine.spec.database
    if database.postgres:
        return [
            postgres.stateful_set(made, database.postgres, REPOSITORY),
            postgres.service(made, database.postgres),
        ]
    if database.cloud_native_pg and not database.cloud_native_pg.cluster_ref:
        return [cnpg.cluster(made, database.cloud_native_pg, decided.version)]
    return []


def templates(found: list[Manifest]) -> list[Manifest]:
    """Return the templates of pods among manifests."""
    return [one["spec"]["template"] for one in found if "template" in one.get("spec", {})]


class _Plain(yaml.SafeDumper):
    """Writes what stands in two places twice."""

    def ignore_aliases(self, data: Any) -> bool:  # noqa: ARG002  # the library's signature
        return True


def golden(path: Path) -> str:
    """Return the golden file of an engine; a dashboard is left out, for nobody could read it there."""
    found = manifests(context(known(path.stem)))
    shown = [one for one in found if one["kind"] != "ConfigMap"]
    return yaml.dump_all(shown, Dumper=_Plain, sort_keys=False, width=110)


if __name__ == "__main__":
    for path in ENGINES:
        (GOLDEN / path.name).write_text(golden(path), encoding="utf-8")
