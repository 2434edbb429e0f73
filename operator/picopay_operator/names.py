"""Names, labels and annotations: everything by which the operator knows its objects again. Constants.

Used by all modules that make or find objects. None of it may change once there are engines: objects would be
orphaned, and selectors of Deployments cannot change.
"""

from enum import StrEnum

GROUP = "picopay.io"
VERSION = "v1beta1"
KIND = "PicoPayEngine"
PLURAL = "picopayengines"
SINGULAR = "picopayengine"
SHORT_NAME = "ppe"
CATEGORY = "picopay"
API_VERSION = f"{GROUP}/{VERSION}"

FIELD_MANAGER = "picopay-operator"
"""Whose fields those are that the operator applies; nobody else's are touched."""

FINALIZER = f"{GROUP}/data"
"""Holds an engine back until its `deletionPolicy` has been carried out."""

SECRETS_ROLE = "picopay-operator-secrets"
"""The ClusterRole that the operator binds to itself in namespaces that have engines, and the RoleBinding."""


class Component(StrEnum):
    """What a pod of an engine does: the value of `app.kubernetes.io/component`."""

    API = "api"
    WORKER = "worker"
    MIGRATION = "migration"
    ADMIN_KEY = "admin-key"
    CHECK = "check"
    DATABASE = "database"


NAME_LABEL = "app.kubernetes.io/name"
INSTANCE_LABEL = "app.kubernetes.io/instance"
COMPONENT_LABEL = "app.kubernetes.io/component"
VERSION_LABEL = "app.kubernetes.io/version"
PART_OF_LABEL = "app.kubernetes.io/part-of"
MANAGED_BY_LABEL = "app.kubernetes.io/managed-by"
ENGINE_LABEL = f"{GROUP}/engine"
REVISION_LABEL = f"{GROUP}/revision"
"""Which of two Deployments a pod of the API belongs to: the Service goes by it."""

IN_PLACE = "in-place"
"""The revision of pods that are replaced within one Deployment."""

MANAGED = f"{MANAGED_BY_LABEL}={FIELD_MANAGER}"
"""The selector of everything that the operator has made."""

APPLIED = f"{GROUP}/applied"
"""The digest of what the operator has applied: what it no longer wants would not be seen otherwise."""

DATA_HASH = f"{GROUP}/data-hash"
"""In a pod's template: the digest of the Secrets it uses, so that new data replaces the pods."""

IMAGE = f"{GROUP}/image"
"""In a pod's template: its image as it was wanted. A cluster may put that of a mirror in its place."""

APPROVE_PLAN = f"{GROUP}/approve-plan"
"""On an engine: the hash of the plan of a migration that may run."""

RETRY = f"{GROUP}/retry"
"""On an engine: any new value has a failed migration, and what follows from it, tried again."""

PROMOTE = f"{GROUP}/promote"
"""On an engine: the revision of a blue-green rollout that may take over."""

ROTATE_KEY = f"{GROUP}/rotate-admin-key"
"""On an engine: any new value has the administrator's key replaced; the old one stays valid for a while."""

ADMITTED = f"{GROUP}/admitted"
"""On what has pods that serve: what these were made from, and the template that was made of it."""

CLEARED = f"{GROUP}/cleared"
"""On the API's Deployments: the migration that has cleared their image for the database."""

ACCEPT_FINDINGS = f"{GROUP}/accept-findings"
"""On an engine: the Job of a check whose findings, or failure, shall not stop a rollout."""

ACTIVE = f"{GROUP}/active"
"""On the API's Service: the Deployment to which it leads."""

SWITCHED_AT = f"{GROUP}/switched-at"
"""On the API's Service: since when."""

RESTARTED_AT = "kubectl.kubernetes.io/restartedAt"
"""In a pod's template: what `kubectl rollout restart` writes there, which is left alone."""

HTTP_PORT = 8000
METRICS_PORT = 9464
"""The ports of the API's and the worker's containers."""

SERVICE_PORT = 80


def api(engine: str) -> str:
    """Return the name of the API's Deployment, Service, autoscaler, budget and policy."""
    return f"{engine}-api"


def worker(engine: str) -> str:
    """Return the name of the worker's Deployment and Service, and of its policy, which is the Jobs', too."""
    return f"{engine}-worker"


def postgres(engine: str) -> str:
    """Return the name of the database's StatefulSet, Service, Cluster and Secret."""
    return f"{engine}-postgres"


def admin_key(engine: str) -> str:
    """Return the name of the Secret of the first administrator's key, unless another one is wanted."""
    return f"{engine}-admin-key"


def monitoring(engine: str) -> str:
    """Return the name of the ServiceMonitor, the alerts and the dashboard."""
    return f"{engine}-monitoring"


def migration(engine: str, digest: str) -> str:
    """Return the name of a migration's Job."""
    return f"{engine}-migrate-{digest}"


def admin_key_job(engine: str, digest: str) -> str:
    """Return the name of the Job that makes the administrator's key valid."""
    return f"{engine}-key-{digest}"


def check(engine: str, digest: str) -> str:
    """Return the name of the Job that checks the money."""
    return f"{engine}-check-{digest}"


def api_revision(engine: str, revision: str) -> str:
    """Return the name of one of the Deployments of a blue-green rollout."""
    return f"{engine}-api-{revision}"


def selector(engine: str, component: Component) -> dict[str, str]:
    """Return the labels by which pods are selected: those that never change."""
    return {NAME_LABEL: "picopay", INSTANCE_LABEL: engine, COMPONENT_LABEL: component.value}


def labels(engine: str, component: Component, version: str) -> dict[str, str]:
    """Return the labels of an object."""
    return {
        **selector(engine, component),
        VERSION_LABEL: version,
        PART_OF_LABEL: "picopay",
        MANAGED_BY_LABEL: FIELD_MANAGER,
        ENGINE_LABEL: engine,
    }
