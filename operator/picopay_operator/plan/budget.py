"""Whether all sessions that pods may open fit into what the database admits. Pure arithmetic."""

import math

from picopay_operator.conditions import FALSE, TRUE, UNKNOWN, Finding, Reason, Type
from picopay_operator.spec.engine import EngineSpec
from picopay_operator.spec.pods import Strategy

_MIGRATION_SESSIONS = 2
"""Of a Job: the one that migrates and, for a moment, the one that looks."""


def sessions_max(spec: EngineSpec) -> int:
    """Return how many sessions there may be at once: while all pods are there and others take over."""
    pods = spec.autoscaling.max_replicas if spec.autoscaling else spec.replicas
    blue_green = spec.rollout.strategy is Strategy.BLUE_GREEN
    surge = pods if blue_green else _of(spec.rollout.max_surge, pods)
    workers = spec.worker.replicas + 1 if spec.worker.replicas else 0
    return (pods + surge + workers) * spec.database.pool.size + _MIGRATION_SESSIONS


def finding(spec: EngineSpec, connections_max: int | None) -> Finding:
    """Hold the sessions against what the database admits."""
    needed = sessions_max(spec)
    if connections_max is None:
        message = f"up to {needed} sessions are opened; what the database admits is not known yet"
        return Finding(Type.CONNECTION_BUDGET, UNKNOWN, Reason.WAITING, message)
    message = f"up to {needed} sessions are opened, and the database admits {connections_max}"
    if needed > connections_max:
        hint = "lower database.pool.size or the number of pods, or raise max_connections"
        return Finding(Type.CONNECTION_BUDGET, FALSE, Reason.BUDGET_EXCEEDED, f"{message}: {hint}")
    return Finding(Type.CONNECTION_BUDGET, TRUE, Reason.WITHIN_BUDGET, message)


def _of(part: int | str, pods: int) -> int:
    """Return a number of pods, which may be given in percent of them; Kubernetes rounds a surge up."""
    return math.ceil(pods * int(part[:-1]) / 100) if isinstance(part, str) else part
