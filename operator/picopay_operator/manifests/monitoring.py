"""What watches an engine: ServiceMonitor, alerts, dashboard.

Used by the plan, where an engine wants them. Prometheus finds the pods by their Services, whose labels tell
engines apart: `alerts.py` and `dashboard.py` ask for these.
"""

import re
from collections.abc import Mapping
from functools import partial
from typing import Any

import msgspec

from picopay_operator import contract, names
from picopay_operator.manifests import worker
from picopay_operator.manifests.alerts import ALERTS, NOT_SERVING, WORKER_GONE, Alert
from picopay_operator.manifests.api import replicas
from picopay_operator.manifests.context import Context, Manifest
from picopay_operator.manifests.dashboard import dashboard
from picopay_operator.manifests.metadata import metadata
from picopay_operator.names import Component

DASHBOARD_LABEL = "grafana_dashboard"
"""By which Grafana's sidecar finds dashboards, unless it is told otherwise."""

_ENGINE_LABEL = re.sub(r"\W", "_", names.ENGINE_LABEL)
"""What Prometheus makes of the label of a Service."""


def service_monitor(context: Context) -> Manifest | None:
    """Return the ServiceMonitor."""
    wanted = context.engine.spec.monitoring.service_monitor
    if not wanted.enabled:
        return None
    scrape = {"path": contract.METRICS_PATH, "interval": f"{wanted.interval_seconds}s"}
    components = [Component.API.value, Component.WORKER.value]
    return {
        "apiVersion": "monitoring.coreos.com/v1",
        "kind": "ServiceMonitor",
        "metadata": _metadata(context, wanted.labels),
        "spec": {
            "selector": {
                "matchLabels": {names.ENGINE_LABEL: context.name},
                "matchExpressions": [
                    {"key": names.COMPONENT_LABEL, "operator": "In", "values": components}
                ],
            },
            "targetLabels": [names.ENGINE_LABEL],
            "endpoints": [{"port": port, **scrape} for port in ("http", worker.PORT)],
        },
    }


def prometheus_rule(context: Context) -> Manifest | None:
    """Return the alerts."""
    wanted = context.engine.spec.monitoring.prometheus_rule
    if not wanted.enabled:
        return None
    group = {
        "name": f"picopay-{context.name}",
        "rules": [_rule(context, alert) for alert in ALERTS if _applies(context, alert)],
    }
    return {
        "apiVersion": "monitoring.coreos.com/v1",
        "kind": "PrometheusRule",
        "metadata": _metadata(context, wanted.labels),
        "spec": {"groups": [group]},
    }


def dashboard_map(context: Context) -> Manifest | None:
    """Return the ConfigMap with the dashboard."""
    wanted = context.engine.spec.monitoring.dashboard
    if not wanted.enabled:
        return None
    place = context.engine.metadata
    title = f"PicoPay: {place.namespace}/{place.name}"
    made = dashboard(title, place.uid, partial(_for_engine, context))
    text = msgspec.json.format(msgspec.json.encode(made)).decode()
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": _metadata(context, {DASHBOARD_LABEL: "1", **wanted.labels}),
        # The sidecar puts the files of all namespaces into one folder.
        "data": {f"picopay-{place.namespace}-{place.name}.json": text},
    }


def _metadata(context: Context, labels: Mapping[str, str]) -> Manifest:
    return metadata(
        context.engine,
        names.monitoring(context.name),
        Component.API,
        context.version,
        labels=labels,
    )


def _applies(context: Context, alert: Alert) -> bool:
    """Tell whether something that is missing is missed."""
    spec = context.engine.spec
    if alert is NOT_SERVING:
        return replicas(context) != 0
    if alert is WORKER_GONE:
        return not spec.suspended and spec.worker.replicas > 0
    return True


def _rule(context: Context, alert: Alert) -> dict[str, Any]:
    place = context.engine.metadata
    return {
        "alert": alert.name,
        "expr": _for_engine(context, alert.expression),
        "for": alert.lasting,
        "labels": {
            "severity": alert.severity.value,
            "namespace": place.namespace,
            "engine": place.name,
        },
        "annotations": {
            "summary": alert.summary,
            "description": f"PicoPayEngine {place.namespace}/{place.name}: {alert.summary}",
            "runbook_url": alert.runbook,
        },
    }


def _for_engine(context: Context, expression: str) -> str:
    """Put the labels of an engine's pods into an expression."""
    place = context.engine.metadata

    def pods(**labels: str) -> str:
        return ", ".join(f'{name}="{value}"' for name, value in labels.items())

    engine = {"namespace": place.namespace, _ENGINE_LABEL: place.name}
    return (
        expression.replace("$engine", pods(**engine))
        .replace("$api", pods(**engine, service=names.api(place.name)))
        .replace("$worker", pods(**engine, service=names.worker(place.name)))
    )
