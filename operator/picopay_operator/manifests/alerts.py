"""The alerts on an engine: which figures need a person, how soon, and where to read what to do. Data.

Used by `monitoring.py`. Each has its section in docs/how-to/answer-an-alert.md, and names metrics of
docs/reference/metrics.md only; tests hold both to it.
"""

from enum import StrEnum
from typing import NamedTuple

RUNBOOKS = "https://picopay.io/docs/how-to/answer-an-alert"
"""The page with a section for each alert."""


class Severity(StrEnum):
    """How soon somebody has to look."""

    CRITICAL = "critical"
    WARNING = "warning"


class Alert(NamedTuple):
    """An alert. In its expression $engine, $api and $worker stand for the labels of their pods."""

    name: str
    severity: Severity
    expression: str
    lasting: str
    summary: str

    @property
    def runbook(self) -> str:
        """The address of its section."""
        return f"{RUNBOOKS}#{self.name.lower()}"


NOT_SERVING = Alert(
    "PicoPayNotServing",
    Severity.CRITICAL,
    "(sum(picopay_ready{$api}) or vector(0)) == 0",
    "1m",
    "No API pod is ready: no payment is taken.",
)
WORKER_GONE = Alert(
    "PicoPayWorkerGone",
    Severity.WARNING,
    "absent(picopay_seal_lag_seconds{$worker})",
    "5m",
    "No worker is running: payments go on, but the event feed and the audit stand still.",
)
ALERTS = (
    Alert(
        "PicoPayAuditFindings",
        Severity.CRITICAL,
        "max(picopay_audit_findings{$engine}) > 0",
        "0m",
        "The auditor has found something in the ledger that must never be.",
    ),
    NOT_SERVING,
    Alert(
        "PicoPayServerErrors",
        Severity.CRITICAL,
        'sum(rate(picopay_http_requests_total{$api, status=~"5.."}[5m]))'
        " / sum(rate(picopay_http_requests_total{$api}[5m])) > 0.01",
        "5m",
        "More than one request in a hundred ends with an error of the server.",
    ),
    Alert(
        "PicoPayPodNotReady",
        Severity.WARNING,
        "picopay_ready{$api} < 1",
        "5m",
        "An API pod runs and cannot serve.",
    ),
    WORKER_GONE,
    Alert(
        "PicoPaySealingLate",
        Severity.WARNING,
        "max(picopay_seal_lag_seconds{$worker}) > 60",
        "5m",
        "Events appear in the feed more than a minute late.",
    ),
    Alert(
        "PicoPayPartitionsLate",
        Severity.WARNING,
        "max(picopay_default_partition_rows{$engine}) > 0",
        "0m",
        "Partitions were created too late: rows are where they do not belong.",
    ),
    Alert(
        "PicoPayOverloaded",
        Severity.WARNING,
        "sum(rate(picopay_queue_refusals_total{$api}[5m])) > 0",
        "5m",
        "Payments are refused because too many are waiting.",
    ),
    Alert(
        "PicoPayCommitsSlow",
        Severity.WARNING,
        "histogram_quantile(0.99, sum by (le) (rate(picopay_commit_seconds_bucket{$api}[5m]))) > 0.25",
        "10m",
        "The database takes long to commit.",
    ),
    Alert(
        "PicoPayKeysRefused",
        Severity.WARNING,
        "sum(rate(picopay_authentication_failures_total{$api}[5m])) > 10",
        "10m",
        "Many requests come without a valid API key.",
    ),
)
"""All alerts, the urgent ones first."""
