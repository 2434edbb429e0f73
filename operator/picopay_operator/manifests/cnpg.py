"""A cluster of CloudNativePG: the resource from which its operator makes servers, standbys and their Secrets.

Used by the plan, for engines that do not name an existing cluster.
"""

from picopay_operator import names
from picopay_operator.manifests.context import Manifest
from picopay_operator.manifests.metadata import metadata
from picopay_operator.names import Component
from picopay_operator.spec.database import CloudNativePG, Storage
from picopay_operator.spec.engine import DeletionPolicy, Engine

INSTANCES = 3
"""Servers where an engine says nothing: after a failure there is still a standby."""

OWNER = DATABASE = "picopay"
RUNTIME_ROLE = "picopay_app"
"""What PicoPay's sessions become. The migration would make it, if the owner could make roles."""


SYNCHRONOUS: Manifest = {
    "method": "any",
    "number": 1,
    "dataDurability": "required",
    "failoverQuorum": True,
}
"""A payment is answered when a standby has it, too, and only one that has all payments takes over.

CloudNativePG's own default is asynchronous: with it, a primary that is lost takes answered payments along.
Without any standby that follows, payments wait, for the same reason."""


def cluster(engine: Engine, wanted: CloudNativePG, version: str) -> Manifest:
    """Return the cluster. It owns the data: with `Retain` it does not belong to the engine."""
    storage = wanted.storage or Storage()
    volume: Manifest = {"size": str(storage.size)}
    if storage.class_name:
        volume["storageClass"] = storage.class_name
    instances = wanted.instances or INSTANCES
    replication: Manifest = (
        {"postgresql": {"synchronous": dict(SYNCHRONOUS)}} if instances > 1 else {}
    )
    return {
        "apiVersion": "postgresql.cnpg.io/v1",
        "kind": "Cluster",
        "metadata": metadata(
            engine,
            names.postgres(engine.metadata.name),
            Component.DATABASE,
            version,
            owned=engine.spec.deletion_policy is DeletionPolicy.DELETE,
        ),
        "spec": {
            "instances": instances,
            "storage": volume,
            **replication,
            "bootstrap": {
                "initdb": {
                    "database": DATABASE,
                    "owner": OWNER,
                    "dataChecksums": True,
                    "encoding": "UTF8",
                    "postInitApplicationSQL": [
                        f"CREATE ROLE {RUNTIME_ROLE} NOLOGIN",
                        f"GRANT {RUNTIME_ROLE} TO {OWNER}",
                    ],
                }
            },
        },
    }
