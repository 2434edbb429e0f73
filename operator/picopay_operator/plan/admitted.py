"""What the pods of a Deployment were admitted with, written on the Deployment itself. Pure.

While a migration for something newer runs, waits or has failed, pods go on with exactly this, and are
repaired to exactly this: a new image, and a new database as well, comes in only after its migration.
"""

from collections.abc import Mapping
from typing import Any

import msgspec
from msgspec import structs

from picopay_operator import names
from picopay_operator.manifests.context import Access, Context
from picopay_operator.spec.engine import Engine, EngineSpec

_OF_PODS = (
    "image",
    "image_pull_secrets",
    "database",
    "rate_limit",
    "log_level",
    "env",
    "worker",
    "resources",
    "node_selector",
    "tolerations",
    "affinity",
    "topology_spread_constraints",
    "priority_class_name",
    "pod_labels",
    "pod_annotations",
    "probes",
    "termination_grace_period_seconds",
)
"""The fields of a spec that pods are made from: what is new in them comes in with the new image."""


class Admitted(msgspec.Struct, frozen=True):
    """What pods were made from: image, version, database, digest of the Secrets' data, and spec."""

    image: str
    version: str
    access: Access
    data_hash: str
    spec: EngineSpec

    def context(self, engine: Engine) -> Context:
        """Return what manifests are made from: the spec of now, but for what pods are made from."""
        ours = {name: getattr(self.spec, name) for name in _OF_PODS}
        engine = structs.replace(engine, spec=structs.replace(engine.spec, **ours))
        return Context(engine, self.image, self.version, self.access, self.data_hash)


def written(context: Context) -> str:
    """Return the annotation for a Deployment that is made from a context."""
    spec = context.engine.spec
    ours = {name: getattr(spec, name) for name in _OF_PODS}
    # The rest is left out: a change of it must not change the Deployment.
    admitted = Admitted(
        context.image, context.version, context.access, context.data_hash, EngineSpec(**ours)
    )
    return msgspec.json.encode(admitted, order="deterministic").decode()


def read(deployment: Mapping[str, Any]) -> Admitted | None:
    """Return what a Deployment was admitted with; None when that was not written, or is not understood."""
    text = deployment["metadata"].get("annotations", {}).get(names.ADMITTED, "")
    try:
        return msgspec.json.decode(text, type=Admitted)
    except msgspec.DecodeError:  # changed by hand, or of another release
        return None
