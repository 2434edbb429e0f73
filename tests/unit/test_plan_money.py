"""When the money is looked at, what comes of that, and how it is found out that the database is away."""

import json
from typing import Any

import msgspec
import pytest

from picopay_operator import names
from picopay_operator.conditions import Type
from picopay_operator.resources import Ref
from support.world import World, report

SPEC: dict[str, Any] = {"database": {"secretRef": {"name": "db"}}, "version": "1.4.0"}


def findings() -> str:
    found = {"ledger": "main", "kind": "unbalanced", "subject": "tx_1", "detail": "1 cent"}
    said = {"ok": False, "exit_code": 1, "findings": [found], "checked": {}}
    return msgspec.json.encode(said).decode()


def migrated_again(cause: str) -> World:
    world = World(SPEC)
    world.run()
    if cause == "retry":
        world.annotations[names.RETRY] = "now"
    elif cause == "version":
        world.change(version="1.5.0")
    else:
        del world.deployment()["metadata"]["annotations"][names.ADMITTED]
        world.annotations[names.RETRY] = "now"
    world.later(seconds=5)
    world.settle()
    world.end_job(world.jobs()[-1], report())
    world.settle()
    return world


@pytest.mark.parametrize("cause", ["retry", "version", "annotation"])
def test_the_money_is_checked_after_each_migration(cause: str) -> None:
    world = migrated_again(cause)
    (job,) = world.jobs("check")
    assert world.reason(Type.LEDGER_SOUND) == ("False", "CheckRunning")
    world.end_job(job, findings(), 1)
    world.settle()
    assert world.reason(Type.STALLED) == ("True", "LedgerFindings")
    assert "tx_1: 1 cent" in world.condition(Type.READY).message
    assert world.image() == "picopay/picopay-api:1.4.0"
    # A person may know better.
    world.annotations[names.ACCEPT_FINDINGS] = job
    world.run()
    assert world.reason(Type.LEDGER_SOUND) == ("False", "LedgerFindings")
    assert world.reason(Type.STALLED)[0] == "False"
    assert world.reason(Type.ROLLOUT_COMPLETE)[0] == "True"


def half_way() -> World:
    """An upgrade of which the first of two pods is new."""
    world = migrated_again("version")
    world.end_job(world.jobs("check")[0])
    world.settle()
    assert world.image() == "picopay/picopay-api:1.5.0"
    live = world.deployment()
    live["status"] |= {
        "observedGeneration": live["metadata"]["generation"],
        "replicas": 3,
        "updatedReplicas": 1,
        "readyReplicas": 3,
        "availableReplicas": 3,
    }
    world.settle()
    return world


def test_what_is_found_during_a_rollout_stops_it() -> None:
    world = half_way()
    job = world.jobs("check")[-1]
    world.end_job(job, findings(), 1)
    world.settle()
    assert world.deployment()["spec"]["paused"] is True
    assert world.reason(Type.STALLED) == ("True", "LedgerFindings")
    del world.children[Ref("Job", job)]
    world.settle()
    assert "paused" not in world.deployment()["spec"]
    world.end_job(world.jobs("check")[-1])
    world.settle()
    assert world.condition(Type.LEDGER_SOUND).message == "every ledger adds up"
    world.run()
    assert world.reason(Type.READY)[0] == "True"
    assert world.jobs("check") == []


def test_a_check_that_outlasts_its_rollout_is_waited_for() -> None:
    world = half_way()
    job = world.jobs("check")[-1]
    world.come_up()
    world.settle()
    assert world.jobs("check") == [job]
    world.end_job(job, findings(), 1)
    world.settle()
    assert world.reason(Type.STALLED) == ("True", "LedgerFindings")
    # To delete it is to have it made again, and not to have it forgotten.
    del world.children[Ref("Job", job)]
    world.settle()
    assert world.jobs("check") == [job]
    world.end_job(job, json.dumps({"ok": False, "exit_code": 4, "detail": "refused"}), 4)
    world.settle()
    world.later(seconds=31)
    world.settle()
    assert world.children[Ref("Job", job)]["status"] == {}
    world.end_job(job)
    world.run()
    assert world.reason(Type.READY)[0] == "True"
    assert world.jobs("check") == []


# A database that goes away --------------------------------------------------------------------------------


def test_why_pods_take_no_requests_is_found_out() -> None:
    world = World(SPEC)
    world.run()
    world.lose()
    made = world.settle()
    assert world.reason(Type.AVAILABLE) == ("False", "PodsUnavailable")
    assert made.look_again_s == 20
    assert world.jobs("check") == []
    world.later(seconds=20)
    world.settle()
    (job,) = world.jobs("check")
    away = json.dumps({"ok": False, "exit_code": 4, "detail": "connection refused"})
    world.end_job(job, away, 4)
    world.settle()
    assert world.reason(Type.READY) == ("False", "DatabaseUnreachable")
    assert "connection refused" in world.condition(Type.DATABASE_REACHABLE).message
    assert world.reason(Type.LEDGER_SOUND)[0] == "True"
    # It is asked again as long as it lasts; then all is as before.
    world.later(seconds=30)
    world.settle()
    assert world.children[Ref("Job", job)]["status"] == {}
    world.end_job(job)
    world.settle()
    assert world.reason(Type.READY) == ("False", "PodsUnavailable")
    world.come_up()
    world.settle()
    assert world.reason(Type.READY)[0] == "True"
    assert world.jobs("check") == []


def test_it_is_asked_again_while_pods_stay_away() -> None:
    world = World(SPEC)
    world.run()
    world.lose()
    world.later(seconds=20)
    world.settle()
    (job,) = world.jobs("check")
    world.end_job(job)
    world.settle()
    world.later(minutes=5)
    world.settle()
    assert world.children[Ref("Job", job)]["status"] == {}


def test_pods_of_a_suspended_engine_are_missed_by_nobody() -> None:
    world = World(SPEC)
    world.run()
    world.change(suspended=True)
    world.lose()
    world.later(minutes=10)
    world.settle()
    assert world.jobs("check") == []
