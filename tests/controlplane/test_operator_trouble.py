"""What an engine cannot take of people and clusters: it is named, and got over when it is put right."""

import asyncio

import pytest

from picopay_operator import reconcile
from picopay_operator.conditions import Type
from picopay_operator.plan import plan
from picopay_operator.plan.outcome import Observed, Plan
from support.controlplane.api_server import Manifest
from support.controlplane.operating import NAME, Case
from support.controlplane.plays import CannotPull, Crashes, Exits, Play, Runs
from support.waiting import eventually
from support.world import report

pytestmark = pytest.mark.usefixtures("definition", "operator")

_UNEVEN = [{"maxSkew": 0, "topologyKey": "zone", "whenUnsatisfiable": "DoNotSchedule"}]
_TOO_MUCH = {"resources": {"requests": {"cpu": "5000"}, "limits": {"memory": "1Gi"}}}


@pytest.fixture
async def case(case: Case) -> Case:
    await case.secret()
    return case


async def served(case: Case, **spec: object) -> None:
    await case.apply({"version": "1.0.0", **spec})
    await case.ready()


async def test_what_the_api_server_refuses_stalls_until_the_spec_is_another(case: Case) -> None:
    await served(case)
    await case.apply({"version": "1.0.0", "topologySpreadConstraints": _UNEVEN, "replicas": 3})
    stalled = await case.until(Type.STALLED, "True", "InvalidSpec")
    assert "maxSkew" in stalled["message"]
    # The pods that there are go on, and nobody takes the engine for ready.
    await case.until(Type.READY, "False", "InvalidSpec")
    found = await case.api.get("Deployment", f"{NAME}-api")
    assert found["status"]["availableReplicas"] == 2
    path = await case.api.path("PicoPayEngine")
    listed = await case.api.request("GET", path)
    watched = case.api.watch(path, listed["metadata"]["resourceVersion"])
    for number in range(3):
        await case.api.merge("PicoPayEngine", NAME, {"metadata": {"labels": {"n": str(number)}}})
        await asyncio.sleep(0.5)
    await case.apply({"version": "1.0.0", "replicas": 3})
    async for kind, seen in watched:
        if kind == "BOOKMARK":
            continue
        # With each look at it the same is said: it never seems to move in between.
        if seen["metadata"]["generation"] != listed["items"][0]["metadata"]["generation"]:
            break
        said = {one["type"]: one["status"] for one in seen["status"]["conditions"]}
        assert (said["Stalled"], said["Reconciling"]) == ("True", "False")
    await case.ready()
    assert (await case.events()).count("InvalidSpec") == 1


async def test_a_defect_of_the_operator_is_shown_and_disturbs_nobody(
    case: Case, monkeypatch: pytest.MonkeyPatch
) -> None:

    def wrong(observed: Observed) -> Plan:
        if observed.name == "unlucky":
            raise RuntimeError("with something secret in it")
        return plan(observed)

    monkeypatch.setattr(reconcile, "plan", wrong)
    await case.apply(name="unlucky")
    failed = await case.until(Type.READY, "False", "InternalError", "unlucky")
    assert failed["message"] == "RuntimeError"
    await served(case)
    monkeypatch.undo()
    await case.ready("unlucky")


async def test_a_service_of_somebody_else_is_told_of_once(case: Case) -> None:
    name = f"{NAME}-api"
    theirs = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": name}}
    before = await case.api.create(theirs | {"spec": {"ports": [{"port": 80}]}})
    await case.apply()
    await case.until(Type.STALLED, "True", "AdoptionRefused")
    await case.annotate(retry="now")

    async def is_told() -> bool:
        return "AdoptionRefused" in await case.events()

    await eventually(is_told)
    assert await case.api.get("Service", name) == before
    assert (await case.events()).count("AdoptionRefused") == 1


async def test_from_good_to_bad_to_worse_and_to_good(case: Case) -> None:
    impatient = {"rollout": {"progressDeadlineSeconds": 2}}
    bad: dict[str, tuple[Play, Manifest, str, str]] = {
        "1.1.0": (CannotPull("no such tag"), {}, "ImagePullFailed", "no such tag"),
        "1.2.0": (Crashes(3, "not a number"), {}, "CrashLooping", "exit code 3: not a number"),
        "1.3.0": (Runs(), _TOO_MUCH, "PodPending", "Insufficient cpu"),
    }
    case.player.plays(Exits(0, report(release="1.0.0")), argument="migrate", image="1.0.0")
    await served(case, **impatient)
    for version, (play, spec, reason, told) in bad.items():
        case.player.plays(Exits(0, report(release=version)), argument="migrate", image=version)
        case.player.plays(play, argument="serve", image=version)
        await case.apply({"version": version, **impatient, **spec})
        stalled = await case.until(Type.STALLED, "True", reason)
        assert told in stalled["message"]
        assert "has not moved for 2 s" in stalled["message"]
        await case.until(Type.READY, "False", reason)
        # The pods of the good version take all requests, and nobody takes the bad one for what serves.
        await case.until(Type.AVAILABLE, "True")
        status = (await case.api.get("PicoPayEngine", NAME))["status"]
        assert (status["readyReplicas"], status["version"]) == (2, "1.0.0")
        assert (await case.events()).count(reason) == (reason != "PodPending")
    await case.apply({"version": "1.4.0", **impatient})
    await case.ready()
    assert (await case.image()).endswith(":1.4.0")


async def test_what_ails_the_worker_is_said_as_well(case: Case) -> None:
    case.player.plays(Crashes(3, "not a number"), argument="worker")
    await case.apply()
    failed = await case.until(Type.READY, "False", "CrashLooping")
    assert f"pod {NAME}-worker-" in failed["message"]
    await case.until(Type.AVAILABLE, "True")
    case.player.plays(Runs(), argument="worker")
    await case.ready()


async def test_what_ails_a_migration_is_said_while_it_goes_on_trying(case: Case) -> None:
    case.player.plays(CannotPull("no such tag"), argument="migrate")
    await case.apply()
    waits = await case.until(Type.SCHEMA_MIGRATED, "False", "ImagePullFailed")
    assert "no such tag" in waits["message"]
    assert not await case.api.find("Deployment", f"{NAME}-api")
    case.player.plays(Exits(0, report()), argument="migrate")
    await case.ready()
