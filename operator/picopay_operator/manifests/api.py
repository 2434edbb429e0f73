"""The API: its Deployment (or one of two, for blue-green), Service, budget and autoscaler.

Used by the plan. With autoscaling the number of pods is the autoscaler's, and no manifest names it.
"""

from picopay_operator import contract, names
from picopay_operator.contract import Variable
from picopay_operator.manifests import pods
from picopay_operator.manifests.context import Context, Manifest
from picopay_operator.manifests.metadata import metadata
from picopay_operator.names import Component
from picopay_operator.spec.pods import Probe

PRE_STOP_S = 5
"""How long a pod goes on before it is told to stop: proxies hear of its end no sooner than it does."""

MARGIN_S = 2
"""Between the end that a process is given for its own and the one that Kubernetes makes."""

_PORT = "http"


def deployment(context: Context, revision: str | None = None) -> Manifest:
    """Return the Deployment; with `revision` that of a blue-green rollout, which never changes its pods."""
    spec = context.engine.spec
    labels = {names.REVISION_LABEL: revision} if revision else {}
    name = names.api_revision(context.name, revision) if revision else names.api(context.name)
    number = replicas(context)
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": _metadata(context, name, labels=labels),
        "spec": {
            **({} if number is None else {"replicas": number}),
            "selector": {"matchLabels": _selector(context, revision)},
            "progressDeadlineSeconds": spec.rollout.progress_deadline_seconds,
            "strategy": {
                "type": "RollingUpdate",
                "rollingUpdate": {
                    "maxSurge": spec.rollout.max_surge,
                    "maxUnavailable": spec.rollout.max_unavailable,
                },
            },
            "template": template(context, revision),
        },
    }


def replicas(context: Context) -> int | None:
    """Return how many pods there are to be; None where the autoscaler decides, which 0 switches off."""
    spec = context.engine.spec
    if spec.suspended:
        return 0
    if spec.autoscaling:
        return None
    return spec.replicas


def template(context: Context, revision: str | None = None) -> Manifest:
    """Return the template of the pods; a digest of the one without revision makes a good revision."""
    spec = context.engine.spec
    own = {
        Variable.API_PORT: names.HTTP_PORT,
        Variable.RATE_LIMIT_REQUESTS: spec.rate_limit.requests,
        Variable.RATE_LIMIT_WINDOW_S: spec.rate_limit.window_seconds,
    }
    environment = pods.served_environment(context, own, not_its_own_s=PRE_STOP_S + MARGIN_S)
    made = pods.container(context, Component.API, contract.SERVE, environment, spec.resources)
    made["ports"] = [{"name": _PORT, "containerPort": names.HTTP_PORT, "protocol": "TCP"}]
    made["lifecycle"] = {"preStop": {"sleep": {"seconds": PRE_STOP_S}}}
    # Only readiness asks for the database. While that is away no pod is started again: it would not help.
    made["startupProbe"] = _probe(contract.LIVE_PATH, spec.probes.startup, 2, 2, 30)
    made["readinessProbe"] = _probe(contract.READY_PATH, spec.probes.readiness, 2, 2, 2)
    made["livenessProbe"] = _probe(contract.LIVE_PATH, spec.probes.liveness, 10, 5, 6)
    return pods.served(context, Component.API, made, revision or names.IN_PLACE)


def service(context: Context, revision: str | None = None) -> Manifest:
    """Return the Service: it sends requests to the pods of one Deployment alone, that of `revision`."""
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": _metadata(context, names.api(context.name)),
        "spec": {
            "type": "ClusterIP",
            "selector": _selector(context, revision or names.IN_PLACE),
            "ports": [
                {
                    "name": _PORT,
                    "port": names.SERVICE_PORT,
                    "targetPort": _PORT,
                    "protocol": "TCP",
                    "appProtocol": "http",
                }
            ],
        },
    }


def disruption_budget(context: Context) -> Manifest:
    """Return the budget: how many pods may be away while nodes are drained."""
    return {
        "apiVersion": "policy/v1",
        "kind": "PodDisruptionBudget",
        "metadata": _metadata(context, names.api(context.name)),
        "spec": {
            "maxUnavailable": context.engine.spec.pod_disruption_budget.max_unavailable,
            "selector": {"matchLabels": _selector(context)},
            # Pods that are not ready serve nobody: they must not keep a node from being drained.
            "unhealthyPodEvictionPolicy": "AlwaysAllow",
        },
    }


def autoscaler(context: Context) -> Manifest | None:
    """Return the autoscaler, where an engine wants one."""
    wanted = context.engine.spec.autoscaling
    if wanted is None:
        return None
    # Of the API's container alone: a sidecar without a request would make the pod's share unknown.
    processor = {
        "name": "cpu",
        "container": Component.API.value,
        "target": {"type": "Utilization", "averageUtilization": wanted.cpu_utilization_percent},
    }
    return {
        "apiVersion": "autoscaling/v2",
        "kind": "HorizontalPodAutoscaler",
        "metadata": _metadata(context, names.api(context.name)),
        "spec": {
            "scaleTargetRef": {
                "apiVersion": "apps/v1",
                "kind": "Deployment",
                "name": names.api(context.name),
            },
            "minReplicas": wanted.min_replicas,
            "maxReplicas": wanted.max_replicas,
            "metrics": [{"type": "ContainerResource", "containerResource": processor}],
            "behavior": {
                "scaleDown": {"stabilizationWindowSeconds": wanted.scale_down_stabilization_seconds}
            },
        },
    }


def _metadata(context: Context, name: str, labels: dict[str, str] | None = None) -> Manifest:
    return metadata(context.engine, name, Component.API, context.version, labels=labels)


def _selector(context: Context, revision: str | None = None) -> dict[str, str]:
    own = {names.REVISION_LABEL: revision} if revision else {}
    return names.selector(context.name, Component.API) | own


def _probe(path: str, wanted: Probe, period_s: int, timeout_s: int, failures: int) -> Manifest:
    return {
        "httpGet": {"path": path, "port": _PORT},
        "periodSeconds": wanted.period_seconds or period_s,
        "timeoutSeconds": wanted.timeout_seconds or timeout_s,
        "failureThreshold": wanted.failure_threshold or failures,
    }
