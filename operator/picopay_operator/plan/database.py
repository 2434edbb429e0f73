"""The database of an engine: where its address is, and the objects of a database in the cluster. Pure."""

from collections.abc import Mapping
from typing import Any

from picopay_operator import drift, names
from picopay_operator.conditions import FALSE, UNKNOWN, Finding, Reason, Type
from picopay_operator.manifests import cnpg, postgres
from picopay_operator.manifests.access import access
from picopay_operator.manifests.context import Access
from picopay_operator.plan import admitted, secrets
from picopay_operator.plan.outcome import Generated, Observed, Step
from picopay_operator.resources import Ref
from picopay_operator.spec.database import CloudNativePG, Database, Postgres
from picopay_operator.spec.engine import EngineSpec


def step(observed: Observed) -> tuple[Access | None, Step]:
    """Return how to reach the database, once that is possible, and what it takes."""
    database = observed.engine.spec.database
    if database.postgres:
        ready, made = _in_the_cluster(observed, database.postgres)
    elif database.cloud_native_pg:
        ready, made = _of_cloud_native_pg(observed, database.cloud_native_pg)
    else:
        ready, made = True, Step()
    found = access(observed.engine, _ports(observed))
    used = (found.url, found.migration_url, found.ca)
    if not ready or any(key and secrets.value_digest(observed, key) is None for key in used):
        return None, made
    return found, made


def _ports(observed: Observed) -> tuple[int, ...]:
    """Return the ports in the addresses of the database; none when one of them is not known."""
    way = access(observed.engine)
    found: list[int] = []
    for key in (way.url, way.migration_url):
        if key is None:
            continue
        seen = observed.secrets.get(key.secret)
        ports = seen.ports.get(key.key, ()) if seen else ()
        if not ports:
            return ()
        found += ports
    return tuple(sorted(set(found)))


def _in_the_cluster(observed: Observed, wanted: Postgres) -> tuple[bool, Step]:
    engine, name = observed.engine, names.postgres(observed.name)
    seen, server = observed.secrets.get(name), observed.child("StatefulSet", name)
    as_it_is = [Ref("StatefulSet", name), Ref("Service", name)]
    if seen is not None and not seen.ours:
        message = f"the Secret {name} is there and was not made by the operator: it is left alone"
        return False, Step(findings=[_stalled(Reason.ADOPTION_REFUSED, message)], kept=as_it_is)
    volume = observed.child("PersistentVolumeClaim", postgres.claim_name(engine))
    if seen is None and (server or volume):
        # A new password would not be the one that its volume knows.
        message = (
            f"the Secret {name} with the password of the database is gone, and its volume is not:"
            " bring the Secret back from a backup, or delete StatefulSet and volume to begin anew"
        )
        return False, Step(findings=[_stalled(Reason.SECRET_LOST, message)], kept=as_it_is)
    repository = observed.release.postgres_image
    made = postgres.stateful_set(engine, wanted, repository, _created_size(server))
    objects = [
        postgres.service(engine, wanted),
        admitted.write(made, _spec_of_server(engine.spec), server, observed.release),
    ]
    if volume and drift.quantity(_size_of(volume)) < drift.quantity(wanted.storage.size):
        # Only ever more: it may have grown by other hands, and could not shrink again.
        objects.append(postgres.claim(engine, wanted))
    password = Generated("postgres", name, secrets.is_owned(engine))
    all_of_it = Step(generated=[password], wanted=objects)
    if server and server.get("status", {}).get("readyReplicas"):
        return True, all_of_it
    return False, all_of_it | Step(findings=[_starting("the database in the cluster is starting")])


def _size_of(claim: Mapping[str, Any]) -> str:
    return str(claim["spec"]["resources"]["requests"]["storage"])


def _spec_of_server(spec: EngineSpec) -> EngineSpec:
    """Return the part of a spec that the server's pod is made from: another release leaves it as it is."""
    return EngineSpec(
        database=Database(postgres=spec.database.postgres),
        image_pull_secrets=spec.image_pull_secrets,
        node_selector=spec.node_selector,
        tolerations=spec.tolerations,
        affinity=spec.affinity,
        priority_class_name=spec.priority_class_name,
        pod_labels=spec.pod_labels,
        pod_annotations=spec.pod_annotations,
    )


def _created_size(server: Mapping[str, Any] | None) -> str | None:
    """Return the size that the template of the claim was made with, which cannot be changed."""
    for claim in (server or {}).get("spec", {}).get("volumeClaimTemplates", ()):
        return _size_of(claim)
    return None


def _of_cloud_native_pg(observed: Observed, wanted: CloudNativePG) -> tuple[bool, Step]:
    engine, secret = observed.engine, access(observed.engine).url
    made, starting = Step(), False
    if wanted.cluster_ref is None:
        if "Cluster" not in observed.apis:
            message = "CloudNativePG is not installed: the API postgresql.cnpg.io is missing"
            return False, Step(findings=[_away(Reason.OPTIONAL_API_MISSING, message)])
        version = engine.spec.version or observed.release.version
        made = Step(wanted=[cnpg.cluster(engine, wanted, version)])
        # The Secret with the address is there long before anybody answers at it.
        cluster = observed.child("Cluster", names.postgres(observed.name)) or {}
        starting = not cluster.get("status", {}).get("readyInstances")
    if not starting and secrets.value_digest(observed, secret) is not None:
        return True, made
    if wanted.cluster_ref is None:
        return False, made | Step(findings=[_starting("CloudNativePG is making the database")])
    message = (
        f"the Secret {secret.secret} of the Cluster {wanted.cluster_ref.name} is not there:"
        " is there such a Cluster in the engine's namespace?"
    )
    return False, Step(findings=[_away(Reason.CLUSTER_NOT_FOUND, message)])


def _starting(message: str) -> Finding:
    return Finding(Type.DATABASE_REACHABLE, UNKNOWN, Reason.DATABASE_STARTING, message)


def _away(reason: Reason, message: str) -> Finding:
    return Finding(Type.DATABASE_REACHABLE, FALSE, reason, message)


def _stalled(reason: Reason, message: str) -> Finding:
    return Finding(Type.SECRETS_READY, FALSE, reason, message, stalled=True)
