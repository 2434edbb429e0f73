"""Conditions of an engine: which there are, why, what they sum up to, and the Events they cause. Pure.

Steps of the plan make findings, one for each condition that they know about. `merge` turns them into the
list in `status`, where the time of a change is kept; `summary` makes Ready, Reconciling and Stalled out of
the rest, as kstatus, Argo CD and `kubectl wait` understand them.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from enum import StrEnum

from msgspec import Struct

from picopay_operator.spec.status import Condition, ConditionStatus

TRUE, FALSE, UNKNOWN = ConditionStatus.TRUE, ConditionStatus.FALSE, ConditionStatus.UNKNOWN


class Type(StrEnum):
    """The conditions, in the order in which they are shown; the first three sum up the others."""

    READY = "Ready"
    RECONCILING = "Reconciling"
    STALLED = "Stalled"
    AVAILABLE = "Available"
    SECRETS_READY = "SecretsReady"
    DATABASE_REACHABLE = "DatabaseReachable"
    CONNECTION_BUDGET = "ConnectionBudget"
    SCHEMA_MIGRATED = "SchemaMigrated"
    SCHEMA_COMPATIBLE = "SchemaCompatible"
    LEDGER_SOUND = "LedgerSound"
    ROLLOUT_COMPLETE = "RolloutComplete"
    EXPOSED = "Exposed"
    MONITORED = "Monitored"
    PAUSED = "Paused"


class Reason(StrEnum):
    """Why a condition is as it is. `Stalled` takes over the reason of what stands still."""

    APPLIED = "Applied"
    RECONCILING = "Reconciling"
    PROGRESSING = "Progressing"
    WAITING = "Waiting"
    INVALID_SPEC = "InvalidSpec"
    INTERNAL_ERROR = "InternalError"
    API_ERROR = "KubernetesApiError"
    PERMISSION_DENIED = "PermissionDenied"
    ADOPTION_REFUSED = "AdoptionRefused"
    PAUSED = "Paused"
    NOT_PAUSED = "NotPaused"
    SUSPENDED = "Suspended"
    DELETING = "Deleting"
    # Secrets
    SECRETS_FOUND = "SecretsFound"
    SECRET_NOT_FOUND = "SecretNotFound"  # noqa: S105  # a reason
    SECRET_KEY_MISSING = "SecretKeyMissing"  # noqa: S105  # a reason
    SECRET_LOST = "SecretLost"  # noqa: S105  # a reason
    KEY_PENDING = "AdminKeyPending"
    KEY_FAILED = "AdminKeyFailed"
    # Database
    REACHABLE = "Reachable"
    DATABASE_STARTING = "DatabaseStarting"
    DATABASE_UNREACHABLE = "DatabaseUnreachable"
    CLUSTER_NOT_FOUND = "ClusterNotFound"
    OPTIONAL_API_MISSING = "OptionalAPIMissing"
    WITHIN_BUDGET = "WithinBudget"
    BUDGET_EXCEEDED = "ConnectionBudgetExceeded"
    # Schema
    MIGRATED = "Migrated"
    MIGRATION_PENDING = "MigrationPending"
    MIGRATION_RUNNING = "MigrationRunning"
    MIGRATION_FAILED = "MigrationFailed"
    APPROVAL_PENDING = "ApprovalPending"
    COMPATIBLE = "Compatible"
    ROLLBACK_REFUSED = "RollbackRefused"
    # The ledger
    SOUND = "LedgerSound"
    CHECK_RUNNING = "CheckRunning"
    CHECK_FAILED = "CheckFailed"
    FINDINGS = "LedgerFindings"
    # Pods
    PODS_AVAILABLE = "PodsAvailable"
    PODS_UNAVAILABLE = "PodsUnavailable"
    ROLLED_OUT = "RolledOut"
    PROMOTION_PENDING = "PromotionPending"
    DEADLINE_EXCEEDED = "ProgressDeadlineExceeded"
    ROLLOUT_ABORTED = "RolloutAborted"
    IMAGE_PULL_FAILED = "ImagePullFailed"
    CRASH_LOOPING = "CrashLooping"
    POD_PENDING = "PodPending"
    # Exposure
    EXPOSED = "Exposed"
    CLUSTER_ONLY = "ClusterOnly"
    NOT_WANTED = "NotWanted"


class Finding(Struct, frozen=True):
    """What a step of the plan says about a condition; `stalled` when only a person can go on."""

    type: Type
    status: ConditionStatus
    reason: Reason
    message: str
    stalled: bool = False


class Notice(Struct, frozen=True):
    """An Event to be posted: `warning` or normal, a reason in CamelCase, a sentence."""

    reason: str
    message: str
    warning: bool = False


_NEEDED = (
    # Of these, Ready takes over what is not true: the first one is what a person should look at.
    Type.SECRETS_READY,
    Type.DATABASE_REACHABLE,
    Type.SCHEMA_COMPATIBLE,
    Type.SCHEMA_MIGRATED,
    Type.LEDGER_SOUND,
    Type.ROLLOUT_COMPLETE,
    Type.AVAILABLE,
    Type.EXPOSED,
)
_AT_REST = {Reason.SUSPENDED, Reason.PAUSED}
"""Reasons for which an engine is not ready, and nothing is being done about it, as was asked for."""


def worst(findings: Iterable[Finding]) -> dict[Type, Finding]:
    """Return one finding for each condition that any is about: of several, the most serious one."""
    found: dict[Type, Finding] = {}
    for finding in findings:
        other = found.get(finding.type)
        if other is None or _seriousness(finding) > _seriousness(other):
            found[finding.type] = finding
    return found


def _seriousness(finding: Finding) -> int:
    return 3 if finding.stalled else {TRUE: 0, UNKNOWN: 1, FALSE: 2}[finding.status]


def summary(findings: Mapping[Type, Finding]) -> list[Finding]:
    """Return Ready, Reconciling and Stalled for all other findings."""
    missing = sorted(_missing(findings), key=_rank)
    if not missing:
        return [
            Finding(Type.READY, TRUE, Reason.APPLIED, "the engine takes payments"),
            Finding(Type.RECONCILING, FALSE, Reason.APPLIED, "nothing is left to do"),
            Finding(Type.STALLED, FALSE, Reason.APPLIED, "nothing stands still"),
        ]
    first = missing[0]
    paused = findings.get(Type.PAUSED)
    if paused and paused.status is TRUE:
        first = Finding(Type.PAUSED, FALSE, Reason.PAUSED, f"paused; {first.message}")
    ready = Finding(Type.READY, FALSE, first.reason, first.message)
    if first.stalled:
        return [
            ready,
            Finding(Type.RECONCILING, FALSE, first.reason, "it waits for somebody"),
            Finding(Type.STALLED, TRUE, first.reason, first.message),
        ]
    moves = FALSE if first.reason in _AT_REST else TRUE
    return [
        ready,
        Finding(Type.RECONCILING, moves, first.reason, first.message),
        Finding(Type.STALLED, FALSE, first.reason, "nothing stands still"),
    ]


def _missing(findings: Mapping[Type, Finding]) -> Iterator[Finding]:
    for kind in _NEEDED:
        finding = findings.get(kind) or Finding(kind, UNKNOWN, Reason.WAITING, "not known yet")
        if finding.status is not TRUE:
            yield finding


def _rank(finding: Finding) -> int:
    """Put first what stands still, last what is only not known yet or of no consequence for payments."""
    if finding.stalled or finding.reason is Reason.SUSPENDED:
        return 0
    return {Reason.KEY_PENDING: 2, Reason.WAITING: 3}.get(finding.reason, 1)


def merge(
    findings: Iterable[Finding], before: Sequence[Condition], generation: int, now: str
) -> list[Condition]:
    """Return the conditions of a status, all of them, in their order.

    What no step has said anything about stays as it was; the time is that of the last change of status.
    """
    known = {condition.type: condition for condition in before}
    found = {finding.type: finding for finding in findings}
    return [_condition(kind, found.get(kind), known.get(kind), generation, now) for kind in Type]


def _condition(
    kind: Type, finding: Finding | None, old: Condition | None, generation: int, now: str
) -> Condition:
    if finding is None:
        if old is not None:
            return old
        finding = Finding(kind, UNKNOWN, Reason.WAITING, "not known yet")
    same = old is not None and old.status is finding.status
    return Condition(
        type=kind.value,
        status=finding.status,
        reason=finding.reason.value,
        message=finding.message,
        last_transition_time=old.last_transition_time if same and old is not None else now,
        observed_generation=generation,
    )


# What is told by an Event when a condition takes on a reason: what it is called, and whether it warns.
_TOLD: dict[tuple[Type, Reason], tuple[str, bool]] = {
    (Type.SCHEMA_MIGRATED, Reason.MIGRATION_RUNNING): ("MigrationStarted", False),
    (Type.SCHEMA_MIGRATED, Reason.MIGRATED): ("MigrationSucceeded", False),
    (Type.SCHEMA_MIGRATED, Reason.MIGRATION_FAILED): ("MigrationFailed", True),
    (Type.SCHEMA_MIGRATED, Reason.APPROVAL_PENDING): ("ApprovalRequired", False),
    (Type.SCHEMA_COMPATIBLE, Reason.ROLLBACK_REFUSED): ("RollbackRefused", True),
    (Type.LEDGER_SOUND, Reason.FINDINGS): ("LedgerFindings", True),
    (Type.SECRETS_READY, Reason.SECRET_NOT_FOUND): ("SecretNotFound", True),
    (Type.SECRETS_READY, Reason.SECRET_KEY_MISSING): ("SecretKeyMissing", True),
    (Type.SECRETS_READY, Reason.SECRET_LOST): ("SecretLost", True),
    (Type.SECRETS_READY, Reason.KEY_FAILED): ("AdminKeyFailed", True),
    (Type.DATABASE_REACHABLE, Reason.DATABASE_UNREACHABLE): ("DatabaseUnreachable", True),
    (Type.CONNECTION_BUDGET, Reason.BUDGET_EXCEEDED): ("ConnectionBudgetExceeded", True),
    (Type.ROLLOUT_COMPLETE, Reason.PROGRESSING): ("RolloutStarted", False),
    (Type.ROLLOUT_COMPLETE, Reason.ROLLED_OUT): ("RolloutCompleted", False),
    (Type.ROLLOUT_COMPLETE, Reason.ROLLOUT_ABORTED): ("RolloutAborted", True),
    (Type.ROLLOUT_COMPLETE, Reason.DEADLINE_EXCEEDED): ("ProgressDeadlineExceeded", True),
    (Type.ROLLOUT_COMPLETE, Reason.IMAGE_PULL_FAILED): ("ImagePullFailed", True),
    (Type.ROLLOUT_COMPLETE, Reason.CRASH_LOOPING): ("CrashLooping", True),
    (Type.ROLLOUT_COMPLETE, Reason.PROMOTION_PENDING): ("PromotionRequired", False),
    (Type.EXPOSED, Reason.OPTIONAL_API_MISSING): ("OptionalAPIMissing", True),
    (Type.MONITORED, Reason.OPTIONAL_API_MISSING): ("OptionalAPIMissing", True),
    (Type.STALLED, Reason.INVALID_SPEC): ("InvalidSpec", True),
    (Type.STALLED, Reason.ADOPTION_REFUSED): ("AdoptionRefused", True),
    (Type.PAUSED, Reason.PAUSED): ("Paused", False),
    (Type.PAUSED, Reason.NOT_PAUSED): ("Resumed", False),
}

EVENTS = tuple(
    sorted(
        {reason for reason, _ in _TOLD.values()}
        | {"ChildRecreated", "DriftCorrected", "SecretGenerated", "SecretRotated", "DataReleased"}
    )
)
"""The reasons of every Event that the operator posts, for the reference."""


def notices(before: Sequence[Condition], after: Sequence[Condition]) -> Iterator[Notice]:
    """Return the Events that a change of conditions is worth."""
    known = {condition.type: condition for condition in before}
    for condition in after:
        old = known.get(condition.type)
        if old is not None and (old.status, old.reason) == (condition.status, condition.reason):
            continue
        if old is None and condition.reason in {Reason.NOT_PAUSED, Reason.MIGRATED}:
            continue  # a beginning is no change
        told = _TOLD.get((Type(condition.type), Reason(condition.reason)))
        if told is not None:
            yield Notice(told[0], condition.message, told[1])
