"""Kinds of objects that the operator makes or looks at, and where the API server has them. Data.

Used by `cluster.py` and `handlers.py`; the plan asks it which kinds a cluster may lack.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

from picopay_operator import names


class Ref(NamedTuple):
    """An object in the namespace of the engine it belongs to."""

    kind: str
    name: str

    @classmethod
    def of(cls, manifest: Mapping[str, Any]) -> "Ref":
        """Return what an object is called."""
        return cls(manifest["kind"], manifest["metadata"]["name"])


class Resource(NamedTuple):
    """A kind; `optional` where a cluster may lack it; `watched` where its events wake the engine."""

    api_version: str
    kind: str
    plural: str
    optional: bool = False
    watched: bool = True

    @property
    def group(self) -> str:
        """The group of its API; empty for the core."""
        return self.api_version.rpartition("/")[0]

    @property
    def version(self) -> str:
        """The version of its API."""
        return self.api_version.rpartition("/")[2]

    def path(self, namespace: str, name: str = "") -> str:
        """Return the path of an object, or of all in a namespace; in all of them when none is named."""
        root = f"/apis/{self.api_version}" if self.group else f"/api/{self.api_version}"
        place = (
            f"{root}/namespaces/{namespace}/{self.plural}" if namespace else f"{root}/{self.plural}"
        )
        return f"{place}/{name}" if name else place


_ALL = (
    Resource(names.API_VERSION, names.KIND, names.PLURAL),
    Resource("apps/v1", "Deployment", "deployments"),
    Resource("apps/v1", "StatefulSet", "statefulsets"),
    Resource("batch/v1", "Job", "jobs"),
    Resource("v1", "Pod", "pods"),
    Resource("v1", "Service", "services"),
    Resource("v1", "ConfigMap", "configmaps"),
    Resource("v1", "Secret", "secrets", watched=False),  # by namespace: see referred_watch.py
    Resource("v1", "PersistentVolumeClaim", "persistentvolumeclaims"),
    Resource("networking.k8s.io/v1", "Ingress", "ingresses"),
    Resource("networking.k8s.io/v1", "NetworkPolicy", "networkpolicies"),
    Resource("policy/v1", "PodDisruptionBudget", "poddisruptionbudgets"),
    Resource("autoscaling/v2", "HorizontalPodAutoscaler", "horizontalpodautoscalers"),
    Resource("gateway.networking.k8s.io/v1", "HTTPRoute", "httproutes", optional=True),
    Resource("monitoring.coreos.com/v1", "ServiceMonitor", "servicemonitors", optional=True),
    Resource("monitoring.coreos.com/v1", "PrometheusRule", "prometheusrules", optional=True),
    Resource("postgresql.cnpg.io/v1", "Cluster", "clusters", optional=True),
    Resource("rbac.authorization.k8s.io/v1", "RoleBinding", "rolebindings", watched=False),
    Resource("events.k8s.io/v1", "Event", "events", watched=False),
)

RESOURCES = {resource.kind: resource for resource in _ALL}
"""Every kind by its name."""

OPTIONAL = frozenset(resource.kind for resource in _ALL if resource.optional)

REFERRED = ("Secret", "ConfigMap")
"""Kinds of somebody else's objects to which engines refer."""

CHILDREN = tuple(resource for resource in _ALL if resource.watched and resource.kind != names.KIND)
"""What is watched by the label of those that the operator has made."""
