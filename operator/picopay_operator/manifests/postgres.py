"""A small PostgreSQL in the cluster, for development and staging: StatefulSet, Service, claim for a volume.

Used by the plan. It is made before anything is known of a migration, so it depends on the engine alone: a new
release of PicoPay never starts it again. The official image needs no root and no writable root file system,
if it is given its folders.
"""

from picopay_operator import names
from picopay_operator.manifests import pods
from picopay_operator.manifests.context import Manifest
from picopay_operator.manifests.metadata import metadata
from picopay_operator.manifests.pods import Volume
from picopay_operator.names import Component
from picopay_operator.spec.database import Postgres
from picopay_operator.spec.engine import DeletionPolicy, Engine
from picopay_operator.spec.kinds import Quantity

PORT = 5432
USER = DATABASE = "picopay"
PASSWORD_KEY = "password"  # noqa: S105  # the name of a key

_UID = 999
"""The user of the official image."""

_DATA = "data"
_DATA_PATH = "/var/lib/picopay"
_SECRET_PATH = "/var/run/picopay/postgres"  # noqa: S105  # a folder
_PORT_NAME = "postgres"

_START = """\
exec 9>>"$0"
flock -n 9 || {
  echo 'Waiting until the server before has let go of the data.'
  trap 'exit 143' INT TERM
  flock 9 &
  wait $! || exit 1
  trap - INT TERM
}
exec docker-entrypoint.sh postgres
"""
"""Begins only when no other server works on the data: the lock is held for as long as this one lives.

A pod that is deleted by force is replaced while its server still runs. PostgreSQL knows other servers by
their process, and each of the two is process 1 of its container: both would write, and payments be lost. Pods
with a volume of blocks are on one node, where a lock of the kernel parts them. It belongs to the open file,
which the server inherits, whoever took it. A shell that waits as process 1 ends only if it was told how.
"""


def host(engine: Engine) -> str:
    """Return the name under which pods reach the server."""
    return f"{names.postgres(engine.metadata.name)}.{engine.metadata.namespace}.svc"


def claim_name(engine: Engine) -> str:
    """Return the name that Kubernetes gives to the claim of the server's volume."""
    return f"{_DATA}-{names.postgres(engine.metadata.name)}-0"


def stateful_set(
    engine: Engine, wanted: Postgres, repository: str, created_size: Quantity | None = None
) -> Manifest:
    """Return the server.

    The template of its claim cannot be changed: `created_size` is what a StatefulSet that is there has in it.
    """
    name = engine.metadata.name
    policy = "Delete" if engine.spec.deletion_policy is DeletionPolicy.DELETE else "Retain"
    return {
        "apiVersion": "apps/v1",
        "kind": "StatefulSet",
        "metadata": _metadata(engine, wanted),
        "spec": {
            "replicas": 1,
            "serviceName": names.postgres(name),
            "selector": {"matchLabels": names.selector(name, Component.DATABASE)},
            "persistentVolumeClaimRetentionPolicy": {
                "whenDeleted": policy,
                "whenScaled": "Retain",
            },
            "template": _template(engine, wanted, repository),
            "volumeClaimTemplates": [
                _claim_template(engine, wanted, created_size or wanted.storage.size)
            ],
        },
    }


def service(engine: Engine, wanted: Postgres) -> Manifest:
    """Return the Service, whose name leads to the pod itself."""
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": _metadata(engine, wanted),
        "spec": {
            "type": "ClusterIP",
            "clusterIP": "None",
            "selector": names.selector(engine.metadata.name, Component.DATABASE),
            "ports": [
                {"name": _PORT_NAME, "port": PORT, "targetPort": _PORT_NAME, "protocol": "TCP"}
            ],
        },
    }


def claim(engine: Engine, wanted: Postgres) -> Manifest:
    """Return the size of the claim: it grows where it is, as the StatefulSet cannot be changed."""
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": claim_name(engine), "namespace": engine.metadata.namespace},
        "spec": {"resources": {"requests": {"storage": wanted.storage.size}}},
    }


def _metadata(engine: Engine, wanted: Postgres) -> Manifest:
    name = names.postgres(engine.metadata.name)
    return metadata(engine, name, Component.DATABASE, str(wanted.version))


def _claim_template(engine: Engine, wanted: Postgres, size: Quantity) -> Manifest:
    storage = {"storageClassName": wanted.storage.class_name} if wanted.storage.class_name else {}
    # Nothing here can ever be changed, so only labels that are for ever.
    name = engine.metadata.name
    labels = {
        **names.selector(name, Component.DATABASE),
        names.MANAGED_BY_LABEL: names.FIELD_MANAGER,
        names.ENGINE_LABEL: name,
    }
    return {
        "metadata": {"name": _DATA, "labels": labels},
        "spec": {
            "accessModes": ["ReadWriteOnce"],
            "resources": {"requests": {"storage": size}},
            **storage,
        },
    }


def _template(engine: Engine, wanted: Postgres, repository: str) -> Manifest:
    spec = engine.spec
    ours = names.labels(engine.metadata.name, Component.DATABASE, str(wanted.version))
    volumes = [
        pods.scratch("tmp", "/tmp"),  # noqa: S108  # a pod's own
        pods.scratch("socket", "/var/run/postgresql"),
        pods.from_secret(
            "password",
            _SECRET_PATH,
            names.postgres(engine.metadata.name),
            [(PASSWORD_KEY, PASSWORD_KEY)],
        ),
    ]
    return {
        "metadata": {
            "labels": {**spec.pod_labels, **ours},
            "annotations": {
                **spec.pod_annotations,
                "kubectl.kubernetes.io/default-container": Component.DATABASE.value,
            },
        },
        "spec": {
            "enableServiceLinks": False,
            "automountServiceAccountToken": False,
            # A server that was told to stop ends its sessions and writes a checkpoint.
            "terminationGracePeriodSeconds": 60,
            "securityContext": pods.pod_security(_UID),
            "containers": [_container(wanted, repository, volumes)],
            "volumes": [volume.volume for volume in volumes],
            **pods.placement(spec),
        },
    }


def _container(wanted: Postgres, repository: str, volumes: list[Volume]) -> Manifest:
    environment = {
        "POSTGRES_USER": USER,
        "POSTGRES_DB": DATABASE,
        "POSTGRES_PASSWORD_FILE": f"{_SECRET_PATH}/{PASSWORD_KEY}",
        "POSTGRES_INITDB_ARGS": "--data-checksums --encoding=UTF8",
        # A folder of the volume, not its root: there may be a lost+found.
        "PGDATA": f"{_DATA_PATH}/pgdata",
    }
    # Over TCP: the server that the image starts for its own preparations answers on its socket only.
    ready = ["pg_isready", "-h", "127.0.0.1", "-p", str(PORT), "-U", USER, "-d", DATABASE]
    listens = {"tcpSocket": {"port": _PORT_NAME}, "periodSeconds": 10, "timeoutSeconds": 5}
    return {
        "name": Component.DATABASE.value,
        "image": wanted.image or f"{repository}:{wanted.version}",
        "imagePullPolicy": "IfNotPresent",
        "command": ["sh", "-c", _START, f"{_DATA_PATH}/server.lock"],
        "env": [{"name": name, "value": value} for name, value in environment.items()],
        "ports": [{"name": _PORT_NAME, "containerPort": PORT, "protocol": "TCP"}],
        **pods.resources(wanted.resources),
        "securityContext": pods.container_security(),
        # While it recovers from a crash it listens and is not ready: to start it again would not help.
        "startupProbe": {**listens, "failureThreshold": 60},
        "livenessProbe": {**listens, "failureThreshold": 6},
        "readinessProbe": {
            "exec": {"command": ready},
            "periodSeconds": 5,
            "timeoutSeconds": 5,
            "failureThreshold": 3,
        },
        "volumeMounts": [
            {"name": _DATA, "mountPath": _DATA_PATH},
            *(volume.mount for volume in volumes),
        ],
    }
