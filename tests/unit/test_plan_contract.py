"""Upgrades that something comes between: what waits is never forgotten, and keeps nothing else waiting."""

from typing import Any

import pytest

from picopay_operator import names
from picopay_operator.conditions import Type
from picopay_operator.plan.outcome import Release
from picopay_operator.resources import Ref
from support.world import World, report, secret

SPEC: dict[str, Any] = {"database": {"secretRef": {"name": "db"}}, "version": "1.4.0"}
NEXT = Release("1.5.0", "picopay/picopay-api:1.5.0", "docker.io/library/postgres")
CONTRACTING = {"revision": "0003", "title": "Forget the old column", "destructive": True}
EXPANDED: dict[str, Any] = {
    "release": "1.5.0",
    "head": "0003",
    "current": "0002",
    "oldest_release": "0001",
    "waiting": [CONTRACTING],
}
CONTRACTED: dict[str, Any] = {
    "release": "1.5.0",
    "head": "0003",
    "current": "0003",
    "oldest_release": "0003",
}
HELD: dict[str, Any] = EXPANDED | {"ok": False, "exit_code": 8, "plan_hash": "abc", "waiting": []}


def arguments(world: World, job: str) -> list[str]:
    container = world.children[Ref("Job", job)]["spec"]["template"]["spec"]["containers"][0]
    return list(container["args"])


def admitted(world: World, job: str) -> str | None:
    """Return the schema of the releases beside which a Job migrates."""
    asked = arguments(world, job)
    return asked[asked.index("--admit") + 1] if "--admit" in asked else None


def lose_pods(world: World, part: str = "migrate") -> None:
    """Let the pods of Jobs go, as when their node does."""
    for ref in [ref for ref in world.children if ref.kind == "Pod" and f"-{part}-" in ref.name]:
        del world.children[ref]


def contracting() -> tuple[World, str, str]:
    """An engine of 1.5.0 whose second Job runs, with the names of both."""
    world = World(SPEC)
    world.run(head="0001", current="0001")
    world.change(version="1.5.0")
    world.later(seconds=5)
    old = world.start_pod("payments-api-old")
    world.run(**EXPANDED)
    assert old["metadata"]["name"] in {ref.name for ref in world.children}
    del world.children[Ref("Pod", "payments-api-old")]
    world.settle()
    expand, contract = world.jobs()
    return world, expand, contract


def test_a_contract_that_waits_for_its_approval_keeps_nothing_else_waiting() -> None:
    world, _, contract = contracting()
    world.end_job(contract, report(**HELD), 8)
    world.settle()
    assert world.reason(Type.READY)[0] == "True"
    # The password of the database is another one: pods need it now.
    before = world.deployment()["spec"]["template"]["metadata"]["annotations"][names.DATA_HASH]
    world.secrets["db"] = secret(database_url="postgresql://two")
    world.later(seconds=5)
    world.settle()
    again = world.jobs()[-1]
    assert admitted(world, again) == "0001"
    world.end_job(again, report(**EXPANDED))
    world.settle()
    for job in world.jobs("check"):
        world.end_job(job)
    world.settle()
    template = world.deployment()["spec"]["template"]
    assert template["metadata"]["annotations"][names.DATA_HASH] != before


def test_a_database_that_is_away_meanwhile_is_not_forgotten() -> None:
    world, expand, contract = contracting()
    world.end_job(contract, report(ok=False, exit_code=4, connections_max=None, current=None), 4)
    lose_pods(world)
    world.settle()
    world.later(seconds=31)
    world.settle()
    assert world.jobs() == [expand, contract]
    assert world.children[Ref("Job", contract)]["status"] == {}


@pytest.mark.parametrize("ending", [{}, HELD, {"ok": False, "exit_code": 5, "detail": "no"}])
def test_a_contract_that_is_deleted_by_hand_is_made_again(ending: dict[str, Any]) -> None:
    world, expand, contract = contracting()
    if ending:
        world.end_job(contract, report(**ending), ending["exit_code"])
        world.settle()
    lose_pods(world)
    world.settle()
    del world.children[Ref("Job", contract)]
    world.settle()
    assert world.jobs() == [expand, contract]


def test_what_a_contract_has_told_outlasts_its_pod() -> None:
    world, expand, contract = contracting()
    world.end_job(contract, report(**CONTRACTED))
    world.settle()
    del world.children[next(r for r in world.children if r.kind == "Pod" and contract in r.name)]
    world.settle()
    assert world.status["schema"]["current"] == "0003"
    assert "waiting" not in world.status["schema"]
    assert world.jobs() == [expand, contract]


def test_what_waits_is_found_out_when_the_report_of_an_expand_is_lost() -> None:
    world = World(SPEC)
    world.run(head="0001", current="0001")
    world.start_pod("payments-api-old")
    world.change(version="1.5.0")
    world.later(seconds=5)
    world.settle()
    expand = world.jobs()[-1]
    world.end_job(expand)
    lose_pods(world)
    world.later(seconds=11)
    world.run()
    assert world.image() == "picopay/picopay-api:1.5.0"
    assert world.jobs() == [expand]
    del world.children[Ref("Pod", "payments-api-old")]
    world.settle()
    assert len(world.jobs()) == 2
    world.run(**CONTRACTED)
    assert world.status["schema"]["current"] == "0003"


def test_what_is_known_of_a_schema_outlasts_that_its_database_is_away() -> None:
    world = World(SPEC)
    world.run(head="0001", current="0001")
    world.secrets["db"] = secret(database_url="postgresql://two")
    world.later(seconds=5)
    world.settle()
    away = report(ok=False, exit_code=4, connections_max=None, current=None, oldest_release=None)
    world.end_job(world.jobs()[-1], away, 4)
    world.settle()
    assert world.status["schema"]["current"] == "0001"
    assert world.status["schema"]["oldestRelease"] == "0001"


def test_releases_that_can_serve_side_by_side_by_now() -> None:
    world = World(SPEC)
    world.run(head="0001", current="0001")
    world.start_pod("payments-api-old")
    world.change(version="1.5.0")
    world.later(seconds=5)
    world.run(release="1.5.0", head="0002", current="0002")
    world.change(version="2.0.0")
    world.later(seconds=5)
    world.settle()
    job = world.jobs()[-1]
    assert admitted(world, job) == "0001"
    world.end_job(job, report(ok=False, exit_code=5, code="schema_gap", detail="0009"), 5)
    world.settle()
    assert world.reason(Type.STALLED) == ("True", "UpgradeRefused")
    del world.children[Ref("Pod", "payments-api-old")]
    world.settle()
    assert world.jobs()[-1] == job
    assert admitted(world, job) == "0002"
    world.run(release="2.0.0", head="0009", current="0008")
    assert world.image() == "picopay/picopay-api:2.0.0"


def test_an_engine_without_version_stays_with_it_when_its_deployment_is_deleted() -> None:
    world = World({"database": {"secretRef": {"name": "db"}}})
    world.run()
    world.release = NEXT
    del world.children[Ref("Deployment", "payments-api")]
    world.run()
    assert world.image() == "picopay/picopay-api:1.4.0"


def test_pods_do_not_come_back_into_a_migration_that_counts_on_none() -> None:
    world = World(SPEC)
    world.run(head="0001", current="0001")
    world.change(suspended=True, version="2.0.0")
    world.later(seconds=5)
    world.step()
    (_, job) = world.jobs()
    assert admitted(world, job) == "0001"  # pods may be on their way, until there are to be none
    world.end_job(job, report(ok=False, exit_code=5, code="schema_gap", detail="0009"), 5)
    world.settle()
    assert admitted(world, job) is None
    world.change(suspended=False)
    world.settle()
    assert [
        world.deployment(f"payments-{one}")["spec"]["replicas"] for one in ("api", "worker")
    ] == [0, 0]
    assert world.reason(Type.AVAILABLE) == ("False", "PodsUnavailable")
    assert job in world.condition(Type.AVAILABLE).message
    assert world.reason(Type.READY)[1] == "MigrationRunning"
    world.end_job(job, report(release="2.0.0", head="0009", current="0009", oldest_release="0009"))
    world.settle()
    assert world.reason(Type.LEDGER_SOUND) == ("False", "CheckRunning")
    assert world.deployment()["spec"]["replicas"] == 0
    world.run(release="2.0.0", head="0009", current="0009")
    assert world.image() == "picopay/picopay-api:2.0.0"
    assert world.deployment()["spec"]["replicas"] == 2
    assert world.reason(Type.READY)[0] == "True"


def test_an_engine_that_is_resumed_goes_on_when_such_a_migration_fails() -> None:
    world = World(SPEC)
    world.run(head="0001", current="0001")
    world.change(suspended=True)
    world.run()
    world.change(version="2.0.0")
    world.later(seconds=5)
    world.settle()
    job = world.jobs()[-1]
    assert admitted(world, job) is None
    world.change(suspended=False)
    world.settle()
    world.end_job(job, report(ok=False, exit_code=5, detail="no"), 5)
    world.settle()
    assert world.deployment()["spec"]["replicas"] == 2
    assert world.image() == "picopay/picopay-api:1.4.0"


def test_nothing_is_taken_away_before_the_new_release_has_served() -> None:
    world = World(SPEC)
    world.run(head="0001", current="0001")
    world.start_pod("payments-api-old")
    world.change(version="1.5.0", rollout={"maxUnavailable": "100%"})
    world.later(seconds=5)
    world.settle()
    world.end_job(world.jobs()[-1], report(**EXPANDED))
    world.settle()
    world.end_job(world.jobs("check")[0])
    world.settle()
    assert world.image() == "picopay/picopay-api:1.5.0"
    # No pod is left of the release before, and none of the new one comes up.
    world.lose()
    del world.children[Ref("Pod", "payments-api-old")]
    world.settle()
    assert world.reason(Type.SCHEMA_MIGRATED) == ("True", "ContractPending")
    assert "take requests" in world.condition(Type.SCHEMA_MIGRATED).message
    assert len(world.jobs()) == 1
    world.come_up()
    world.settle()
    assert len(world.jobs()) == 2


def test_a_refusal_outlasts_the_pod_that_has_told_it() -> None:
    world = World(SPEC)
    world.run(head="0001", current="0001")
    world.start_pod("payments-api-old")
    world.change(version="2.0.0")
    world.later(seconds=5)
    world.settle()
    job = world.jobs()[-1]
    world.end_job(
        job, report(ok=False, exit_code=5, code="schema_gap", detail="2.0.0 is too new"), 5
    )
    world.settle()
    lose_pods(world)
    world.later(minutes=10)
    world.settle()
    assert world.reason(Type.STALLED) == ("True", "UpgradeRefused")
    assert "too new" in world.condition(Type.READY).message
    world.change(suspended=True)
    del world.children[Ref("Pod", "payments-api-old")]
    world.settle()
    assert admitted(world, job) is None
    world.run(release="2.0.0", head="0009", current="0009")
    assert world.reason(Type.STALLED)[0] == "False"


def test_why_a_check_does_not_begin_is_told() -> None:
    world = World(SPEC)
    world.run()
    world.annotations[names.RETRY] = "now"
    world.later(seconds=5)
    world.settle()
    world.end_job(world.jobs()[-1], report())
    world.settle()
    (check,) = world.jobs("check")
    world.end_pod(check, "", 0)
    (pod,) = [one for ref, one in world.children.items() if ref.name.startswith(f"{check}-")]
    waiting = {"reason": "ErrImagePull", "message": "the registry is away"}
    pod["status"]["containerStatuses"] = [{"state": {"waiting": waiting}}]
    world.settle()
    assert world.reason(Type.READY) == ("False", "CheckRunning")
    assert "the registry is away" in world.condition(Type.READY).message
