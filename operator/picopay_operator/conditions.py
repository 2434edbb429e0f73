"""Conditions of an engine: which there are, why, what they sum up to, and the Events they cause. Pure.

Steps of the plan make findings, one for each condition that they know about. `merge` turns them into the
list in `status`, where the time of a change is kept; `summary` makes Ready, Reconciling and Stalled out of
the rest, as kstatus, Argo CD and `kubectl wait` understand them.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from enum import StrEnum
from typing import Self

from msgspec import Struct

from picopay_operator.spec.status import Condition, ConditionStatus

TRUE, FALSE, UNKNOWN = ConditionStatus.TRUE, ConditionStatus.FALSE, ConditionStatus.UNKNOWN


class _Documented(StrEnum):
    """A member carries what it means, for the reference."""

    meaning: str

    def __new__(cls, name: str, meaning: str = "") -> Self:
        """Make a member; its name is also its value, by which it is found again."""
        member = str.__new__(cls, name)
        member._value_ = name
        member.meaning = meaning
        return member


class Type(_Documented):
    """The conditions, in the order in which they are shown; the first three sum up the others."""

    READY = "Ready", "The engine takes payments, and is as its spec says."
    RECONCILING = "Reconciling", "The operator is bringing the engine there."
    STALLED = "Stalled", "The operator cannot go on: somebody has to do something."
    AVAILABLE = "Available", "Enough API pods take requests."
    SECRETS_READY = (
        "SecretsReady",
        "Secrets and ConfigMaps are there, and the administrator's key is valid.",
    )
    DATABASE_REACHABLE = "DatabaseReachable", "A Job has reached the database."
    CONNECTION_BUDGET = (
        "ConnectionBudget",
        "All sessions that pods may open fit into what the database admits. Ready without it.",
    )
    SCHEMA_MIGRATED = "SchemaMigrated", "The schema is as the version wants it."
    SCHEMA_COMPATIBLE = "SchemaCompatible", "The database admits the version."
    LEDGER_SOUND = "LedgerSound", "The money added up when it was last checked."
    ROLLOUT_COMPLETE = "RolloutComplete", "All pods are of the version and the spec."
    EXPOSED = "Exposed", "The API is reached from where the spec says."
    MONITORED = "Monitored", "What spec.monitoring asks for is there. Ready without it."
    PAUSED = "Paused", "spec.paused is on: nothing is applied or repaired."


class Reason(_Documented):
    """Why a condition is as it is. `Stalled` takes over the reason of what stands still."""

    APPLIED = "Applied", "All is as it should be."
    PROGRESSING = "Progressing", "It is under way."
    WAITING = "Waiting", "It is not known yet: something before it is not done."
    INVALID_SPEC = "InvalidSpec", "The spec, or what follows from it, cannot be: change it."
    INTERNAL_ERROR = "InternalError", "A defect of the operator: its log has it."
    API_ERROR = "KubernetesApiError", "The API server has refused or not answered; tried again."
    PERMISSION_DENIED = "PermissionDenied", "The operator's roles are not those of its release."
    ADMISSION_DENIED = (
        "AdmissionDenied",
        "A quota, Pod Security, a policy or a webhook of the cluster is against an object; tried again.",
    )
    DEFINITION_OUTDATED = (
        "DefinitionOutdated",
        "The definition of PicoPayEngine is older than the operator: apply that of its release.",
    )
    CHANGES_UNDONE = (
        "ChangesUndone",
        "A webhook or another controller undoes what the operator applies; tried again now and then.",
    )
    ADOPTION_REFUSED = (
        "AdoptionRefused",
        "An object of a needed name is there and belongs to somebody else.",
    )
    PAUSED = "Paused", "spec.paused is on."
    NOT_PAUSED = "NotPaused", "spec.paused is off."
    SUSPENDED = "Suspended", "spec.suspended is on: no pods run, data stays."
    DELETING = "Deleting", "The engine is being deleted."
    # Secrets
    SECRETS_FOUND = "SecretsFound", "All Secrets are there."
    SECRET_NOT_FOUND = "SecretNotFound", "A Secret that the spec names is not there."
    SECRET_KEY_MISSING = "SecretKeyMissing", "A Secret lacks the key that the spec names."
    CONFIG_MAP_NOT_FOUND = "ConfigMapNotFound", "A ConfigMap that the spec names is not there."
    CONFIG_MAP_KEY_MISSING = (
        "ConfigMapKeyMissing",
        "A ConfigMap lacks the key that the spec names.",
    )
    SECRET_LOST = (
        "SecretLost",
        "The password of the database in the cluster is gone, and its volume is not.",
    )
    KEY_PENDING = "AdminKeyPending", "The administrator's key is being made valid."
    KEY_FAILED = "AdminKeyFailed", "The administrator's key could not be made valid."
    # Database
    REACHABLE = "Reachable", "A Job has reached the database."
    DATABASE_STARTING = "DatabaseStarting", "The database in the cluster is not ready yet."
    DATABASE_UNREACHABLE = "DatabaseUnreachable", "No Job reaches the database; tried again."
    CLUSTER_NOT_FOUND = "ClusterNotFound", "There is no such Cluster of CloudNativePG."
    OPTIONAL_API_MISSING = (
        "OptionalAPIMissing",
        "The cluster lacks a kind that the spec asks for; it is used as soon as it is installed.",
    )
    WITHIN_BUDGET = "WithinBudget", "All sessions fit."
    BUDGET_EXCEEDED = "ConnectionBudgetExceeded", "Pods may open more sessions than there can be."
    # Schema
    MIGRATED = "Migrated", "The migration has succeeded, or nothing was to be migrated."
    MIGRATION_PENDING = "MigrationPending", "A migration is about to begin."
    MIGRATION_RUNNING = "MigrationRunning", "A migration is running."
    MIGRATION_FAILED = "MigrationFailed", "A migration has failed; the version before serves."
    CONTRACT_PENDING = (
        "ContractPending",
        "Steps that turn earlier releases away wait until the last pod of those is gone.",
    )
    APPROVAL_PENDING = "ApprovalPending", "A plan waits for the annotation that approves of it."
    COMPATIBLE = "Compatible", "The database admits the version."
    ROLLBACK_REFUSED = "RollbackRefused", "The version is older than the database admits."
    UPGRADE_REFUSED = (
        "UpgradeRefused",
        "The version and the one that serves cannot work with the same schema.",
    )
    # The ledger
    SOUND = "LedgerSound", "The money adds up."
    CHECK_RUNNING = "CheckRunning", "The money is being checked."
    CHECK_FAILED = "CheckFailed", "The check could not be made."
    FINDINGS = "LedgerFindings", "The money does not add up; nothing is rolled out."
    # Pods
    PODS_AVAILABLE = "PodsAvailable", "Enough pods take requests."
    PODS_UNAVAILABLE = "PodsUnavailable", "Fewer pods take requests than there should be."
    ROLLED_OUT = "RolledOut", "All pods are of the version and the spec."
    PROMOTION_PENDING = "PromotionPending", "A revision waits for the annotation that promotes it."
    DEADLINE_EXCEEDED = "ProgressDeadlineExceeded", "The rollout has not moved for too long."
    ROLLOUT_ABORTED = "RolloutAborted", "A blue-green revision did not come up; the other serves."
    IMAGE_PULL_FAILED = "ImagePullFailed", "A pod cannot pull its image."
    CRASH_LOOPING = "CrashLooping", "A pod ends again and again."
    POD_PENDING = "PodPending", "A pod has no node, or cannot start."
    # Exposure
    EXPOSED = "Exposed", "The API is reached from outside."
    CLUSTER_ONLY = (
        "ClusterOnly",
        "The API is reached inside the cluster, as nothing else was asked.",
    )
    NOT_WANTED = "NotWanted", "The spec asks for nothing of the kind."


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
    (Type.SCHEMA_COMPATIBLE, Reason.UPGRADE_REFUSED): ("UpgradeRefused", True),
    (Type.LEDGER_SOUND, Reason.FINDINGS): ("LedgerFindings", True),
    (Type.SECRETS_READY, Reason.SECRET_NOT_FOUND): ("SecretNotFound", True),
    (Type.SECRETS_READY, Reason.SECRET_KEY_MISSING): ("SecretKeyMissing", True),
    (Type.SECRETS_READY, Reason.CONFIG_MAP_NOT_FOUND): ("ConfigMapNotFound", True),
    (Type.SECRETS_READY, Reason.CONFIG_MAP_KEY_MISSING): ("ConfigMapKeyMissing", True),
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
    (Type.STALLED, Reason.CHANGES_UNDONE): ("ChangesUndone", True),
    (Type.STALLED, Reason.DEFINITION_OUTDATED): ("DefinitionOutdated", True),
    (Type.STALLED, Reason.ADMISSION_DENIED): ("AdmissionDenied", True),
    (Type.PAUSED, Reason.PAUSED): ("Paused", False),
    (Type.PAUSED, Reason.NOT_PAUSED): ("Resumed", False),
}

_TOLD_BY_DEEDS = ("DriftCorrected", "DataReleased")
"""Events of the plan that no condition goes with."""


def events() -> list[tuple[str, str]]:
    """Return the reason of every Event and its type, for the reference."""
    told = dict(_TOLD.values()) | dict.fromkeys(_TOLD_BY_DEEDS, False)
    return [(name, "Warning" if warns else "Normal") for name, warns in sorted(told.items())]


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
