"""The worker: its Deployment, and the Service by which Prometheus finds its pods.

Used by the plan. Any number of workers share the work by locks in the database, so old and new ones may run
side by side.
"""

from picopay_operator import contract, names
from picopay_operator.contract import Variable
from picopay_operator.manifests import pods
from picopay_operator.manifests.api import MARGIN_S
from picopay_operator.manifests.context import Context, Manifest
from picopay_operator.manifests.metadata import metadata
from picopay_operator.names import Component

PORT = "metrics"


def deployment(context: Context) -> Manifest:
    """Return the Deployment."""
    spec = context.engine.spec
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": _metadata(context),
        "spec": {
            "replicas": 0 if spec.suspended else spec.worker.replicas,
            "selector": {"matchLabels": names.selector(context.name, Component.WORKER)},
            "progressDeadlineSeconds": spec.rollout.progress_deadline_seconds,
            "strategy": {
                "type": "RollingUpdate",
                "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0},
            },
            "template": _template(context),
        },
    }


def service(context: Context) -> Manifest:
    """Return the Service, which has no address of its own: it only lists the pods."""
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": _metadata(context),
        "spec": {
            "type": "ClusterIP",
            "clusterIP": "None",
            "selector": names.selector(context.name, Component.WORKER),
            "ports": [
                {
                    "name": PORT,
                    "port": names.METRICS_PORT,
                    "targetPort": PORT,
                    "protocol": "TCP",
                }
            ],
        },
    }


def _metadata(context: Context) -> Manifest:
    return metadata(context.engine, names.worker(context.name), Component.WORKER, context.version)


def _template(context: Context) -> Manifest:
    spec = context.engine.spec
    own = {Variable.WORKER_METRICS_PORT: names.METRICS_PORT}
    environment = pods.served_environment(context, own, not_its_own_s=MARGIN_S)
    made = pods.container(
        context, Component.WORKER, contract.WORKER, environment, spec.worker.resources
    )
    made["ports"] = [{"name": PORT, "containerPort": names.METRICS_PORT, "protocol": "TCP"}]
    # A worker waits by itself for a database that is away: its pod is ready as long as it answers at all.
    made["startupProbe"] = _probe(period_s=2, failures=30)
    made["readinessProbe"] = _probe(period_s=10, failures=3)
    made["livenessProbe"] = _probe(period_s=20, failures=3)
    return pods.served(context, Component.WORKER, made, None)


def _probe(period_s: int, failures: int) -> Manifest:
    return {
        "httpGet": {"path": contract.METRICS_PATH, "port": PORT},
        "periodSeconds": period_s,
        "timeoutSeconds": 5,
        "failureThreshold": failures,
    }
