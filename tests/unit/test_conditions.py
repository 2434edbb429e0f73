"""What conditions sum up to, and the Events that their changes are worth."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from picopay_operator.conditions import (
    FALSE,
    TRUE,
    UNKNOWN,
    Finding,
    Reason,
    Type,
    merge,
    notices,
    summary,
    worst,
)

NEEDED = (
    Type.SECRETS_READY,
    Type.DATABASE_REACHABLE,
    Type.SCHEMA_COMPATIBLE,
    Type.SCHEMA_MIGRATED,
    Type.LEDGER_SOUND,
    Type.ROLLOUT_COMPLETE,
    Type.AVAILABLE,
    Type.EXPOSED,
)
FINDINGS = st.builds(
    Finding,
    st.sampled_from(
        [kind for kind in Type if kind not in {Type.READY, Type.RECONCILING, Type.STALLED}]
    ),
    st.sampled_from([TRUE, FALSE, UNKNOWN]),
    st.sampled_from(list(Reason)),
    st.text(max_size=5),
).map(lambda one: Finding(one.type, one.status, one.reason, one.message, one.status is FALSE))


def good(**others: Finding) -> dict[Type, Finding]:
    found = {kind: Finding(kind, TRUE, Reason.APPLIED, "") for kind in NEEDED}
    return found | {one.type: one for one in others.values()}


def summed_up(findings: dict[Type, Finding]) -> dict[str, tuple[str, str]]:
    return {one.type.value: (one.status.value, one.reason.value) for one in summary(findings)}


@given(st.lists(FINDINGS))
def test_the_three_never_contradict_each_other(findings: list[Finding]) -> None:
    found = worst(findings)
    told = {kind: status for kind, (status, _) in summed_up(found).items()}
    ready = all(kind in found and found[kind].status is TRUE for kind in NEEDED)
    assert (told["Ready"] == "True") == ready
    # kstatus: an engine is ready, or moves, or stands still; at rest by order it is none of these.
    assert [told["Ready"], told["Reconciling"], told["Stalled"]].count("True") <= 1


@given(st.lists(FINDINGS, min_size=1))
def test_of_several_findings_the_most_serious_one_counts(findings: list[Finding]) -> None:
    for kind, finding in worst(findings).items():
        same = [one for one in findings if one.type is kind]
        assert finding in same
        if any(one.stalled for one in same):
            assert finding.stalled
        if all(one.status is TRUE for one in same):
            assert finding.status is TRUE


def test_what_is_not_known_is_not_ready() -> None:
    assert summed_up({})["Ready"] == ("False", "Waiting")
    assert summed_up(good())["Ready"] == ("True", "Applied")


@pytest.mark.parametrize("kind", [Type.CONNECTION_BUDGET, Type.MONITORED])
def test_a_warning_keeps_no_engine_from_being_ready(kind: Type) -> None:
    warning = Finding(kind, FALSE, Reason.BUDGET_EXCEEDED, "")
    assert summed_up(good(one=warning))["Ready"][0] == "True"


def test_what_stands_still_is_told_first() -> None:
    waits = Finding(Type.SECRETS_READY, FALSE, Reason.SECRET_NOT_FOUND, "")
    stuck = Finding(Type.SCHEMA_MIGRATED, FALSE, Reason.MIGRATION_FAILED, "", stalled=True)
    told = summed_up(good(one=waits, two=stuck))
    assert told["Ready"] == ("False", "MigrationFailed")
    assert told["Stalled"] == ("True", "MigrationFailed")


def test_the_time_is_that_of_the_last_change_of_status() -> None:
    def merged(before: Any, status: Any, reason: Reason, now: str) -> Any:
        found = merge([Finding(Type.AVAILABLE, status, reason, "")], before, 1, now)
        return found, next(one for one in found if one.type == "Available")

    first, one = merged([], FALSE, Reason.WAITING, "t1")
    second, other = merged(first, FALSE, Reason.PROGRESSING, "t2")
    _, last = merged(second, TRUE, Reason.PODS_AVAILABLE, "t3")
    times = [each.last_transition_time for each in (one, other, last)]
    assert times == ["t1", "t1", "t3"]
    assert [each.type for each in first] == [
        kind.value for kind in Type
    ]  # all from the first visit


def test_a_change_is_told_once() -> None:
    failed = [Finding(Type.SCHEMA_MIGRATED, FALSE, Reason.MIGRATION_FAILED, "because")]
    first = merge([], [], 1, "t")
    second = merge(failed, first, 1, "t")
    told = list(notices(first, second))
    assert [(one.reason, one.message, one.warning) for one in told] == [
        ("MigrationFailed", "because", True)
    ]
    assert list(notices(second, merge(failed, second, 2, "t"))) == []
