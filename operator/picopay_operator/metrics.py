"""The operator's metrics, and what counts them. Served by `health.py` under `/metrics`."""

from collections.abc import Sequence
from contextlib import suppress

from prometheus_client import Counter, Gauge, Histogram

from picopay_operator.cache import Key
from picopay_operator.spec.status import Condition, ConditionStatus

RECONCILES = Counter(
    "picopay_operator_reconciles",
    "Passes over engines, by how they ended: done, again, invalid, failed.",
    ["result"],
)
RECONCILE_SECONDS = Histogram(
    "picopay_operator_reconcile_seconds",
    "How long a pass takes.",
    buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30),
)
APPLIED = Counter("picopay_operator_applied", "Objects that were applied.", ["kind"])
QUEUE_DEPTH = Gauge("picopay_operator_queue_depth", "Engines that wait to be looked at.")
QUEUE_OLDEST_SECONDS = Gauge(
    "picopay_operator_queue_oldest_seconds", "How long the first of them has waited."
)
EVENT_AGE_SECONDS = Gauge(
    "picopay_operator_last_event_age_seconds",
    "How long ago the watches have told of anything; the operator's own Lease sees to it that they do.",
)
LEADER = Gauge("picopay_operator_leader", "1 in the process that works, 0 in those that stand by.")
ENGINES = Gauge("picopay_operator_engines", "Engines that there are.")
CONDITION = Gauge(
    "picopay_operator_engine_condition",
    "The conditions of an engine: 1 true, 0 false, -1 unknown.",
    ["namespace", "engine", "type"],
)
MIGRATION_SECONDS = Gauge(
    "picopay_operator_migration_seconds",
    "How long the last migration of an engine took, with all its attempts.",
    ["namespace", "engine"],
)
REQUESTS = Gauge("picopay_operator_api_requests", "Requests to the API server so far.")

_NUMBERS = {ConditionStatus.TRUE: 1, ConditionStatus.FALSE: 0, ConditionStatus.UNKNOWN: -1}


def reconciled(result: str, seconds: float) -> None:
    """Count a pass."""
    RECONCILES.labels(result=result).inc()
    RECONCILE_SECONDS.observe(seconds)


def note_conditions(key: Key, conditions: Sequence[Condition]) -> None:
    """Show the conditions of an engine."""
    for condition in conditions:
        CONDITION.labels(key.namespace, key.name, condition.type).set(_NUMBERS[condition.status])


def note_migration(key: Key, seconds: float) -> None:
    """Show how long the last migration of an engine took."""
    MIGRATION_SECONDS.labels(*key).set(seconds)


def forget_engine(key: Key, types: Sequence[str]) -> None:
    """Show an engine no more."""
    for kind in types:
        with suppress(KeyError):  # it was never shown
            CONDITION.remove(*key, kind)
    with suppress(KeyError):
        MIGRATION_SECONDS.remove(*key)
