"""Upgrades of an engine and of the operator: who stays, what waits, when the money is looked at."""

import copy
from typing import Any

import pytest

from picopay_operator import names
from picopay_operator.conditions import Type
from picopay_operator.manifests import api, postgres, worker
from picopay_operator.manifests.context import Manifest
from picopay_operator.plan.outcome import Release
from picopay_operator.resources import Ref
from support.world import World, report

SPEC: dict[str, Any] = {"database": {"secretRef": {"name": "db"}}, "version": "1.4.0"}
NEXT = Release("1.5.0", "picopay/picopay-api:1.5.0", "docker.io/library/postgres-next")
CONTRACTING = {"revision": "0003", "title": "Forget the old column", "destructive": True}


def arguments(world: World, job: str) -> list[str]:
    container = world.children[Ref("Job", job)]["spec"]["template"]["spec"]["containers"][0]
    return list(container["args"])


def template(world: World, kind: str, name: str) -> Manifest:
    return copy.deepcopy(world.children[Ref(kind, name)]["spec"]["template"])


# An operator of another release ---------------------------------------------------------------------


@pytest.fixture
def other_templates(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the manifests what those of another release may be: more in every pod."""

    def more(made: Manifest) -> Manifest:
        made["spec"]["template"]["metadata"]["annotations"]["picopay.io/more"] = "of it"
        return made

    of_api, of_worker, of_server = api.deployment, worker.deployment, postgres.stateful_set
    monkeypatch.setattr(api, "deployment", lambda *given: more(of_api(*given)))
    monkeypatch.setattr(worker, "deployment", lambda *given: more(of_worker(*given)))
    monkeypatch.setattr(postgres, "stateful_set", lambda *given: more(of_server(*given)))


WORKLOADS = [("Deployment", "payments-api"), ("Deployment", "payments-worker")]
SERVER = ("StatefulSet", "payments-postgres")


@pytest.mark.parametrize("strategy", ["RollingUpdate", "BlueGreen"])
def test_an_operator_of_another_release_replaces_no_pod(
    strategy: str, request: pytest.FixtureRequest
) -> None:
    world = World({"database": {"postgres": {}}, "rollout": {"strategy": strategy}})
    world.run()
    workloads = [ref for ref in world.children if ref.kind in {"Deployment", "StatefulSet"}]
    assert len(workloads) == 3
    before, jobs = [template(world, *ref) for ref in workloads], world.jobs()
    world.release = NEXT
    request.getfixturevalue("other_templates")
    world.run(release="1.5.0")
    assert [ref for ref in world.children if ref.kind in {"Deployment", "StatefulSet"}] == workloads
    assert [template(world, *ref) for ref in workloads] == before
    assert world.jobs() == jobs
    assert world.reason(Type.READY)[0] == "True"
    # What somebody else does to them is undone as ever.
    for ref in workloads:
        changed = world.children[ref]["spec"]["template"]["spec"]["containers"][0]
        changed["image"] = "somebody/elses:1"
    world.run(release="1.5.0")
    assert [template(world, *ref) for ref in workloads] == before


@pytest.mark.usefixtures("other_templates")
def test_what_the_engine_asks_for_is_made_by_the_operator_of_now() -> None:
    world = World({"database": {"postgres": {}}})
    world.run()
    world.release = NEXT
    world.change(version="1.5.0")
    world.run(release="1.5.0")
    assert world.image() == "picopay/picopay-api:1.5.0"
    for kind, name in WORKLOADS:
        assert "picopay.io/more" in template(world, kind, name)["metadata"]["annotations"]
    server = template(world, *SERVER)["spec"]["containers"][0]
    assert server["image"].startswith("docker.io/library/postgres:")


def test_an_engine_that_names_no_version_stays_with_the_one_it_has() -> None:
    world = World({"database": {"secretRef": {"name": "db"}}})
    world.run()
    assert world.image() == "picopay/picopay-api:1.4.0"
    world.release = NEXT
    world.change(replicas=5, logLevel="DEBUG")
    world.run()
    assert world.image() == "picopay/picopay-api:1.4.0"
    assert "brings picopay/picopay-api:1.5.0" in world.condition(Type.ROLLOUT_COMPLETE).message
    # A mirror has the same version.
    world.change(image={"repository": "mirror.example/picopay"})
    world.run()
    assert world.image() == "mirror.example/picopay:1.4.0"


# Expand, roll out, contract ---------------------------------------------------------------------------


def upgraded(**changes: Any) -> World:
    """An engine whose Service leads to 1.5.0, while a pod of 1.4.0 still answers its last requests."""
    world = World(SPEC)
    world.run(head="0001", current="0001")
    old = world.start_pod("payments-api-old")
    world.change(version="1.5.0")
    world.later(seconds=5)
    said = {"release": "1.5.0", "head": "0003", "current": "0002", "waiting": [CONTRACTING]}
    world.run(**(said | changes))
    old["metadata"]["deletionTimestamp"] = world.now.isoformat()
    return world


def test_what_turns_earlier_releases_away_waits_for_their_last_pod() -> None:
    world = upgraded()
    (expand,) = world.jobs()
    asked = arguments(world, expand)
    assert asked[asked.index("--admit") + 1] == "0001"
    assert world.reason(Type.READY)[0] == "True"
    assert world.reason(Type.SCHEMA_MIGRATED) == ("True", "ContractPending")
    assert "0003" in world.condition(Type.SCHEMA_MIGRATED).message
    assert world.status["schema"]["waiting"] == ["0003 Forget the old column (destructive)"]
    world.later(minutes=1)
    world.settle()
    assert world.jobs() == [expand]
    del world.children[Ref("Pod", "payments-api-old")]
    world.settle()
    (_, contract) = world.jobs()
    assert "--admit" not in arguments(world, contract)
    world.end_job(contract, report(release="1.5.0", head="0003", current="0003", applied=["0003"]))
    world.settle()
    # A migration it was: the money is looked at, and payments go on meanwhile.
    assert world.reason(Type.LEDGER_SOUND) == ("False", "CheckRunning")
    assert world.reason(Type.AVAILABLE)[0] == "True"
    world.run()
    assert world.reason(Type.SCHEMA_MIGRATED) == ("True", "Migrated")
    assert world.status["schema"]["current"] == "0003"
    assert "waiting" not in world.status["schema"]
    assert world.jobs() == [expand, contract]


def test_a_destructive_contract_waits_for_its_approval_and_the_engine_is_ready() -> None:
    world = upgraded()
    del world.children[Ref("Pod", "payments-api-old")]
    world.settle()
    (_, contract) = world.jobs()
    held = report(
        ok=False, exit_code=8, plan_hash="abc", release="1.5.0", head="0003", current="0002"
    )
    world.end_job(contract, held, 8)
    world.settle()
    assert world.reason(Type.SCHEMA_MIGRATED) == ("True", "ApprovalPending")
    assert world.reason(Type.READY)[0] == "True"
    assert world.status["schema"]["planHash"] == "abc"
    assert "ApprovalRequired" in [one.reason for one in world.notices]
    world.annotations[names.APPROVE_PLAN] = "abc"
    said = {"release": "1.5.0", "head": "0003", "current": "0002", "waiting": [CONTRACTING]}
    world.settle()
    world.end_job(world.jobs()[-1], report(**said))
    world.settle()
    assert arguments(world, world.jobs()[-1])[-2:] == ["--approve", "abc"]
    world.run(release="1.5.0", head="0003", current="0003")
    assert world.reason(Type.SCHEMA_MIGRATED) == ("True", "Migrated")


def test_a_contract_that_fails_is_shown_and_the_release_serves() -> None:
    world = upgraded()
    del world.children[Ref("Pod", "payments-api-old")]
    world.settle()
    failed = report(ok=False, exit_code=1, detail="the table is no more", head="0003")
    world.end_job(world.jobs()[-1], failed, 1)
    world.settle()
    assert world.reason(Type.STALLED) == ("True", "MigrationFailed")
    assert world.reason(Type.AVAILABLE)[0] == "True"
    assert world.image() == "picopay/picopay-api:1.5.0"


def test_what_an_expand_has_told_outlasts_its_pod() -> None:
    world = upgraded()
    for ref in [ref for ref in world.children if ref.kind == "Pod" and "-migrate-" in ref.name]:
        del world.children[ref]
    world.settle()
    assert world.reason(Type.SCHEMA_MIGRATED) == ("True", "ContractPending")
    del world.children[Ref("Pod", "payments-api-old")]
    world.settle()
    assert len(world.jobs()) == 2


def test_releases_that_cannot_serve_side_by_side() -> None:
    world = World(SPEC)
    world.run()
    world.start_pod("payments-api-1")
    world.change(version="2.0.0")
    world.later(seconds=5)
    world.settle()
    gap = report(ok=False, exit_code=5, code="schema_gap", detail="2.0.0 needs schema 0009")
    world.end_job(world.jobs()[-1], gap, 5)
    world.settle()
    assert world.reason(Type.STALLED) == ("True", "UpgradeRefused")
    assert world.image() == "picopay/picopay-api:1.4.0"
    job = world.jobs()[-1]
    world.change(suspended=True)
    world.later(seconds=5)
    del world.children[Ref("Pod", "payments-api-1")]
    world.settle()
    assert world.jobs()[-1] == job
    assert "--admit" not in arguments(world, job)
    world.run(release="2.0.0", head="0009", current="0009")
    assert world.image() == "picopay/picopay-api:2.0.0"


def test_a_release_of_which_nothing_is_known_admits_no_change() -> None:
    world = World(SPEC)
    world.run()
    del world.deployment()["metadata"]["annotations"][names.CLEARED]
    world.status = {}
    world.change(version="1.5.0")
    world.settle()
    asked = arguments(world, world.jobs()[-1])
    assert asked[asked.index("--admit") + 1] == ""


def test_a_context_is_what_was_admitted() -> None:
    """What pods are made from is all that they are made from: no other field of a spec reaches a template."""
    world = World(SPEC)
    world.run()
    before = template(world, *WORKLOADS[0]), template(world, *WORKLOADS[1])
    world.change(
        replicas=7,
        podDisruptionBudget={"enabled": False},
        networkPolicy={"enabled": True},
        ingress={"host": "pay.example.com"},
        monitoring={"dashboard": {"enabled": True}},
        rollout={"maxSurge": 3, "progressDeadlineSeconds": 90},
        auth={"overlapSeconds": 60},
        migrations={"timeoutSeconds": 60},
        deletionPolicy="Delete",
    )
    world.run()
    assert (template(world, *WORKLOADS[0]), template(world, *WORKLOADS[1])) == before
