"""Alerts and the dashboard: every metric that they name exists, and every alert tells what to do."""

import json
import re
from typing import Any

import pytest

from picopay_api import metrics
from picopay_operator.manifests import monitoring
from picopay_operator.manifests.alerts import ALERTS, RUNBOOKS
from picopay_operator.manifests.context import Manifest
from picopay_operator.manifests.dashboard import PANELS
from support.engines import context, known
from support.postgres import CHECKOUT

EVERYTHING = context(known("everything"))
RUNBOOK = CHECKOUT / "docs" / "how-to" / "answer-an-alert.md"
ENGINE = 'namespace="production", picopay_io_engine="payments"'
FUNCTIONS = {"sum", "max", "rate", "by", "le", "or", "vector", "absent", "histogram_quantile"}


def samples() -> set[str]:
    """Return the names under which Prometheus stores what a process answers."""
    found = set()
    for line in metrics.render()[0].decode().splitlines():
        if line.startswith("# TYPE "):
            _, _, name, kind = line.split()
            parts = ("_bucket", "_sum", "_count") if kind == "histogram" else ("",)
            found |= {name + part for part in parts}
    return found


def rules(made: Manifest | None) -> list[dict[str, Any]]:
    assert made
    (group,) = made["spec"]["groups"]
    found: list[dict[str, Any]] = group["rules"]
    return found


def panels() -> list[dict[str, Any]]:
    made = monitoring.dashboard_map(EVERYTHING)
    assert made
    assert made["metadata"]["labels"]["grafana_dashboard"] == "1"
    ((name, text),) = made["data"].items()
    assert name == "picopay-production-payments.json"
    dashboard = json.loads(text)
    assert dashboard["uid"] == EVERYTHING.engine.metadata.uid
    found: list[dict[str, Any]] = dashboard["panels"]
    return found


def expressions() -> list[str]:
    alerts = rules(monitoring.prometheus_rule(EVERYTHING))
    return [
        *(rule["expr"] for rule in alerts),
        *(target["expr"] for panel in panels() for target in panel["targets"]),
    ]


@pytest.mark.parametrize("expression", expressions())
def test_every_metric_exists_and_is_that_of_the_engine(expression: str) -> None:
    selected = re.findall(r"(\w+)\{([^}]*)\}", expression)
    assert {name for name, _ in selected} <= samples()
    for _, labels in selected:
        assert labels.startswith(ENGINE)
    outside = re.sub(r"\w+\{[^}]*\}|\[[^]]*\]", "", expression)
    by = {
        label for labels in re.findall(r"by \(([^)]*)\)", outside) for label in labels.split(", ")
    }
    assert set(re.findall(r"[a-z_]+", outside)) <= FUNCTIONS | by
    known_labels = {label for metric in metrics.catalogue() for label in metrics.labels(metric)}
    assert by <= known_labels | {"le"}
    for opening, closing in ("()", "{}", "[]"):
        assert expression.count(opening) == expression.count(closing)


def test_panels_stand_beside_each_other() -> None:
    places = [(panel["gridPos"]["x"], panel["gridPos"]["y"]) for panel in panels()]
    assert len(set(places)) == len(places) == len(PANELS)
    assert len({panel["id"] for panel in panels()}) == len(places)
    assert {x for x, _ in places} == {0, 8, 16}


def test_every_alert_has_its_section_in_the_page_that_it_names() -> None:
    sections = re.findall(r"^## (PicoPay\w+)$", RUNBOOK.read_text(encoding="utf-8"), re.MULTILINE)
    assert sections == [alert.name for alert in ALERTS]
    assert RUNBOOKS.endswith(f"docs/how-to/{RUNBOOK.stem}")
    for rule in rules(monitoring.prometheus_rule(EVERYTHING)):
        assert rule["annotations"]["runbook_url"] == f"{RUNBOOKS}#{rule['alert'].lower()}"
        assert rule["labels"]["severity"] in {"critical", "warning"}


@pytest.mark.parametrize(
    ("spec", "missed"),
    [
        ({}, {"PicoPayNotServing", "PicoPayWorkerGone"}),
        ({"suspended": True}, set()),
        ({"worker": {"replicas": 0}}, {"PicoPayNotServing"}),
        ({"autoscaling": None, "replicas": 0}, {"PicoPayWorkerGone"}),
    ],
)
def test_pods_are_missed_only_where_there_should_be_some(
    spec: dict[str, Any], missed: set[str]
) -> None:
    made = rules(monitoring.prometheus_rule(context(known("everything", **spec))))
    found = {rule["alert"] for rule in made}
    assert found & {"PicoPayNotServing", "PicoPayWorkerGone"} == missed
    assert len(found) == len(ALERTS) - 2 + len(missed)


def test_the_monitor_finds_the_services_of_api_and_worker() -> None:
    made = monitoring.service_monitor(EVERYTHING)
    assert made
    assert made["metadata"]["labels"]["release"] == "prometheus"
    assert [one["port"] for one in made["spec"]["endpoints"]] == ["http", "metrics"]
    assert made["spec"]["targetLabels"] == ["picopay.io/engine"]
