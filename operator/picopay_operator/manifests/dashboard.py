"""The dashboard of an engine for Grafana: what its panels are called, and what they ask Prometheus. Data.

Used by `monitoring.py`. Panels name metrics of docs/reference/metrics.md only; a test holds them to it.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from picopay_operator.manifests.context import Manifest

_WIDTH, _HEIGHT, _COLUMNS = 8, 8, 3
_SCHEMA = 39
"""The version of Grafana's format that this is: that of Grafana 10.4; newer ones bring it up to theirs."""

_DATA_SOURCE = {"type": "prometheus", "uid": "${datasource}"}


class Query(NamedTuple):
    """What a panel asks; $engine, $api and $worker stand for the labels of their pods."""

    expression: str
    legend: str


class Panel(NamedTuple):
    """A panel. `alarming` is the figure from which on a single value is shown in red."""

    title: str
    unit: str
    queries: Sequence[Query]
    alarming: float | None = None


def _quantiles(metric: str) -> tuple[Query, ...]:
    return tuple(
        Query(
            f"histogram_quantile({share}, sum by (le) (rate({metric}_bucket{{$api}}[$__rate_interval])))",
            legend,
        )
        for share, legend in ((0.5, "half"), (0.99, "99 of 100"))
    )


def _rate(metric: str, by: str | None = None) -> Query:
    """Return how often something happens, for each value of a label, or named after the metric."""
    rate = f"(rate({metric}{{$api}}[$__rate_interval]))"
    if by is None:
        words = metric.removeprefix("picopay_").removesuffix("_total").replace("_", " ")
        return Query(f"sum{rate}", words)
    return Query(f"sum by ({by}) {rate}", f"{{{{{by}}}}}")


PANELS = (
    Panel("Ready API processes", "none", [Query("sum(picopay_ready{$api})", "ready")]),
    Panel(
        "Findings of the auditor",
        "none",
        [Query("max(picopay_audit_findings{$engine})", "findings")],
        alarming=1,
    ),
    Panel(
        "Rows in default partitions",
        "none",
        [Query("max(picopay_default_partition_rows{$engine})", "rows")],
        alarming=1,
    ),
    Panel("Payments by outcome", "reqps", [_rate("picopay_payments_total", "outcome")]),
    Panel("Transactions by outcome", "reqps", [_rate("picopay_transactions_total", "outcome")]),
    Panel("Requests by status", "reqps", [_rate("picopay_http_requests_total", "status")]),
    Panel("Time of requests", "s", _quantiles("picopay_http_request_seconds")),
    Panel("Time of commits", "s", _quantiles("picopay_commit_seconds")),
    Panel("Wait for a batch", "s", _quantiles("picopay_queue_delay_seconds")),
    Panel(
        "Payments in a batch",
        "none",
        [
            Query(
                "sum(rate(picopay_batch_commands_sum{$api}[$__rate_interval]))"
                " / sum(rate(picopay_batch_commands_count{$api}[$__rate_interval]))",
                "mean",
            )
        ],
    ),
    Panel("Payments that wait", "none", [Query("sum(picopay_queue_commands{$api})", "waiting")]),
    Panel("Batches sent again", "reqps", [_rate("picopay_batch_retries_total", "reason")]),
    Panel(
        "Turned away",
        "reqps",
        [
            _rate("picopay_queue_refusals_total"),
            _rate("picopay_rate_limited_total"),
            _rate("picopay_authentication_failures_total"),
            _rate("picopay_insufficient_funds_total"),
        ],
    ),
    Panel("Repeated requests", "reqps", [_rate("picopay_idempotency_replays_total")]),
    Panel(
        "Sessions with the database",
        "none",
        [Query("sum by (pool, state) (picopay_pool_connections{$engine})", "{{pool}}, {{state}}")],
    ),
    Panel("Lag of the event feed", "s", [Query("max(picopay_seal_lag_seconds{$worker})", "lag")]),
    Panel("Connections of clients", "none", [Query("sum(picopay_http_connections{$api})", "open")]),
    Panel("Memory", "bytes", [Query("process_resident_memory_bytes{$engine}", "{{pod}}")]),
)


def dashboard(title: str, uid: str, fill: Callable[[str], str]) -> Manifest:
    """Return the dashboard, in which Prometheus can be chosen; `fill` puts labels into expressions."""
    return {
        "title": title,
        "uid": uid,
        "tags": ["picopay"],
        "schemaVersion": _SCHEMA,
        "editable": False,
        "refresh": "30s",
        "time": {"from": "now-1h", "to": "now"},
        "templating": {
            "list": [
                {
                    "name": "datasource",
                    "label": "Data source",
                    "type": "datasource",
                    "query": "prometheus",
                }
            ]
        },
        "panels": list(_panels(fill)),
    }


def _panels(fill: Callable[[str], str]) -> Iterator[Manifest]:
    for number, panel in enumerate(PANELS):
        row, column = divmod(number, _COLUMNS)
        yield {
            "id": number + 1,
            "title": panel.title,
            "type": "timeseries" if panel.alarming is None else "stat",
            "datasource": _DATA_SOURCE,
            "gridPos": {
                "x": column * _WIDTH,
                "y": row * _HEIGHT,
                "w": _WIDTH,
                "h": _HEIGHT,
            },
            "fieldConfig": {
                "defaults": {"unit": panel.unit, "min": 0, **_thresholds(panel.alarming)},
                "overrides": [],
            },
            "targets": [
                {
                    "refId": chr(ord("A") + place),
                    "datasource": _DATA_SOURCE,
                    "expr": fill(query.expression),
                    "legendFormat": query.legend,
                }
                for place, query in enumerate(panel.queries)
            ],
        }


def _thresholds(alarming: float | None) -> Manifest:
    if alarming is None:
        return {}
    steps = [{"color": "green", "value": None}, {"color": "red", "value": alarming}]
    return {"thresholds": {"mode": "absolute", "steps": steps}}
