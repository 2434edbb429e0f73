"""Every metric of PicoPay, in one place: a name is a promise to whoever draws or alerts on it.

The engine, the worker and the edge count here; `http/system.py` answers `/metrics` with `render`.
docs/reference/metrics.md is made from `catalogue`. With `PROMETHEUS_MULTIPROC_DIR` set before this
module is loaded, several processes count into one directory and any of them answers for all.
Labels have few values, all known beforehand: never an id, a path or a text of a client.
"""

import os
from collections.abc import Iterator
from functools import cache

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    GCCollector,
    Histogram,
    PlatformCollector,
    ProcessCollector,
    generate_latest,
    multiprocess,
    start_http_server,
)
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4
from prometheus_client.metrics import MetricWrapperBase

REGISTRY = CollectorRegistry()

SECONDS_BUCKETS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
BATCH_COMMANDS_BUCKETS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)

PAYMENTS = Counter(
    "picopay_payments",
    "Payments answered, by outcome: captured, or the code of the refusal.",
    ["outcome"],
    registry=REGISTRY,
)
TRANSACTIONS = Counter(
    "picopay_transactions",
    "Transactions and reversals answered, by outcome: ok, or the code of the refusal.",
    ["outcome"],
    registry=REGISTRY,
)
IDEMPOTENCY_REPLAYS = Counter(
    "picopay_idempotency_replays",
    "Requests that were answered from what their Idempotency-Key had been answered before.",
    registry=REGISTRY,
)
INSUFFICIENT_FUNDS = Counter(
    "picopay_insufficient_funds",
    "Payments and transactions refused because an account would have fallen below its floor.",
    registry=REGISTRY,
)
BATCH_COMMANDS = Histogram(
    "picopay_batch_commands",
    "Commands in a batch, that is, payments that share one commit.",
    buckets=BATCH_COMMANDS_BUCKETS,
    registry=REGISTRY,
)
QUEUE_DELAY_SECONDS = Histogram(
    "picopay_queue_delay_seconds",
    "How long the first command of a batch has waited before the batch was sent.",
    buckets=SECONDS_BUCKETS,
    registry=REGISTRY,
)
COMMIT_SECONDS = Histogram(
    "picopay_commit_seconds",
    "How long the database took to decide and commit a batch, each attempt by itself.",
    buckets=SECONDS_BUCKETS,
    registry=REGISTRY,
)
QUEUE_COMMANDS = Gauge(
    "picopay_queue_commands",
    "Commands that wait for their batch now.",
    multiprocess_mode="livesum",
    registry=REGISTRY,
)
QUEUE_REFUSALS = Counter(
    "picopay_queue_refusals",
    "Commands refused with 503 overloaded because the queue was full.",
    registry=REGISTRY,
)
BATCH_RETRIES = Counter(
    "picopay_batch_retries",
    "Batches to be sent again, by reason: the name of the database's error, unreachable or clock_skew.",
    ["reason"],
    registry=REGISTRY,
)
HTTP_REQUESTS = Counter(
    "picopay_http_requests",
    "Requests answered, by route (its pattern, never a path), method and status.",
    ["route", "method", "status"],
    registry=REGISTRY,
)
HTTP_REQUEST_SECONDS = Histogram(
    "picopay_http_request_seconds",
    "How long requests took, by route.",
    ["route"],
    buckets=SECONDS_BUCKETS,
    registry=REGISTRY,
)
CONNECTIONS = Gauge(
    "picopay_http_connections",
    "Connections of clients that are open now, idle ones included.",
    multiprocess_mode="livesum",
    registry=REGISTRY,
)
SLOW_CONNECTIONS = Counter(
    "picopay_http_slow_connections",
    "Connections closed because the client was too slow, by what it was slow at: sending or reading.",
    ["at"],
    registry=REGISTRY,
)
UNREADABLE_REQUESTS = Counter(
    "picopay_http_unreadable_requests",
    "Requests that ended their connection, by what was wrong: the syntax, a head beyond its bounds, or too"
    " many waiting for their turn.",
    ["fault"],
    registry=REGISTRY,
)
POOL_CONNECTIONS = Gauge(
    "picopay_pool_connections",
    "Sessions with the database, by pool (what they are for) and state: used or idle.",
    ["pool", "state"],
    multiprocess_mode="livesum",
    registry=REGISTRY,
)
RATE_LIMITED = Counter(
    "picopay_rate_limited",
    "Requests refused with 429: their API key had used up its window, or too many others were invalid.",
    registry=REGISTRY,
)
AUTHENTICATION_FAILURES = Counter(
    "picopay_authentication_failures",
    "Requests refused with 401: no API key, or none that is valid.",
    registry=REGISTRY,
)
SEAL_LAG_SECONDS = Gauge(
    "picopay_seal_lag_seconds",
    "Age of the oldest commit not sealed yet: how late events appear in the feed.",
    multiprocess_mode="livemax",
    registry=REGISTRY,
)
SEALED_EVENTS = Counter(
    "picopay_sealed_events",
    "Journal rows that the worker has given their position in the feed.",
    registry=REGISTRY,
)
AUDIT_FINDINGS = Gauge(
    "picopay_audit_findings",
    "What the auditor has found wrong, in all ledgers. Anything but 0 needs a person at once.",
    multiprocess_mode="livemax",
    registry=REGISTRY,
)
AUDIT_CHECKED_EVENTS = Counter(
    "picopay_audit_checked_events",
    "Journal rows that the auditor has added up and compared.",
    registry=REGISTRY,
)
PARTITIONS_CREATED = Counter(
    "picopay_partitions_created",
    "Partitions that the worker has created ahead of time.",
    registry=REGISTRY,
)
DEFAULT_PARTITION_ROWS = Gauge(
    "picopay_default_partition_rows",
    "Rows in the default partitions: more than 0 means that partitions were created too late.",
    multiprocess_mode="livemax",
    registry=REGISTRY,
)
SCHEMA_REVISION = Gauge(
    "picopay_schema_revision",
    "1 for the revision of the database's schema that was seen last.",
    ["revision"],
    multiprocess_mode="livemax",
    registry=REGISTRY,
)
READY = Gauge(
    "picopay_ready",
    "Processes that share this page and are ready: servers, and the worker of `picopay up`.",
    multiprocess_mode="livesum",
    registry=REGISTRY,
)

# What tells a leak from a load. Processes that answer for each other could only mix these up and
# leave them out.
ProcessCollector(registry=REGISTRY)
PlatformCollector(registry=REGISTRY)
GCCollector(registry=REGISTRY)


@cache
def child[M: MetricWrapperBase](metric: M, *values: str | int) -> M:
    """Return the part of a metric that has these values of its labels.

    Looked up once: the library's own way is felt on the path of every request. Values are few and
    known beforehand, so nothing grows here.
    """
    return metric.labels(*values)


def render() -> tuple[bytes, str]:
    """Return the metrics of all processes that share the directory, and their media type."""
    return generate_latest(_shared_registry()), CONTENT_TYPE_PLAIN_0_0_4


def serve(host: str, port: int) -> None:
    """Answer with the metrics on a port of their own, from a thread, for as long as the process lives.

    For processes that have no server by themselves.

    Raises:
        OSError: the port is taken, or the host is not one of this machine.
    """
    start_http_server(port, host, _shared_registry())


def _shared_registry() -> CollectorRegistry:
    # The variable belongs to prometheus_client, which reads it by itself when it is loaded.
    if not os.environ.get("PROMETHEUS_MULTIPROC_DIR"):
        return REGISTRY
    registry = CollectorRegistry()
    multiprocess.MultiProcessCollector(registry)  # type: ignore[no-untyped-call]  # the library's
    return registry


def forget_process(pid: int, directory: str | None = None) -> None:
    """Take a process that has ended out of the gauges; what it has counted stays counted.

    To be called by whoever supervises processes that share a directory, its own or another one.
    """
    directory = directory or os.environ.get("PROMETHEUS_MULTIPROC_DIR")
    if directory:
        multiprocess.mark_process_dead(pid, directory)  # type: ignore[no-untyped-call]  # the library's


def catalogue() -> Iterator[MetricWrapperBase]:
    """Every metric of PicoPay's own, by order of definition."""
    return (value for value in globals().values() if isinstance(value, MetricWrapperBase))


def labels(metric: MetricWrapperBase) -> tuple[str, ...]:
    """Return the names of a metric's labels."""
    return tuple(metric._labelnames)  # noqa: SLF001  # the library tells them nowhere else
