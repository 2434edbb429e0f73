"""Blue-green on a real control plane: a second Deployment, and when it takes over or does not."""

import pytest

from picopay_operator import names
from picopay_operator.conditions import Type
from support.controlplane.api_server import Manifest
from support.controlplane.operating import Case
from support.controlplane.plays import CannotPull, Exits
from support.waiting import eventually
from support.world import report

pytestmark = pytest.mark.usefixtures("definition", "operator")


@pytest.fixture
async def case(case: Case) -> Case:
    await case.secret()
    for version in ("1.0.0", "1.1.0", "1.2.0"):
        case.player.plays(Exits(0, report(release=version)), argument="migrate", image=version)
    return case


def wanted(version: str, **rollout: object) -> Manifest:
    return {"version": version, "rollout": {"strategy": "BlueGreen", **rollout}}


async def deployments(case: Case) -> dict[str, int]:
    """Return the Deployments of the API, with the number of their pods."""
    found = await case.api.list("Deployment", f"{names.COMPONENT_LABEL}=api")
    return {one["metadata"]["name"]: one["spec"]["replicas"] for one in found}


async def served_by(case: Case) -> set[str]:
    """Return the images of the pods that requests are sent to."""
    service = await case.api.get("Service", names.api("demo"))
    labels = ",".join(f"{key}={value}" for key, value in service["spec"]["selector"].items())
    pods = await case.api.list("Pod", labels)
    return {one["spec"]["containers"][0]["image"].rpartition(":")[2] for one in pods}


async def test_one_that_does_not_come_up_is_aborted_and_its_successor_takes_over(
    case: Case,
) -> None:
    await case.apply(wanted("1.0.0"))
    await case.ready()
    blue = await case.serving()
    case.player.plays(CannotPull("no such tag"), argument="serve", image="1.1.0")
    await case.apply(wanted("1.1.0", progressDeadlineSeconds=2))
    aborted = await case.until(Type.STALLED, "True", "RolloutAborted")
    assert f"{blue} still serves" in aborted["message"]
    assert "no such tag" in aborted["message"]
    await case.until(Type.AVAILABLE, "True")
    assert await served_by(case) == {"1.0.0"}
    assert len(await deployments(case)) == 2

    await case.apply(
        wanted("1.2.0", progressDeadlineSeconds=60, blueGreen={"scaleDownDelaySeconds": 3})
    )
    await case.ready()
    assert await served_by(case) == {"1.2.0"}
    # The old pods stay for a while, to go back to; the one that never served is gone.
    green = await case.serving()
    assert await deployments(case) == {blue: 2, green: 2}

    async def is_alone() -> bool:
        return set(await deployments(case)) == {green}

    await eventually(is_alone)
    assert await served_by(case) == {"1.2.0"}
    told = await case.events()
    assert told.count("RolloutAborted") == 1


async def test_findings_keep_the_new_pods_from_taking_over(case: Case) -> None:
    await case.apply(wanted("1.0.0"))
    await case.ready()
    found = [{"ledger": "main", "subject": "acc_1", "detail": "off by 1", "kind": "balance"}]
    unsound = report(ok=False, exit_code=1, findings=found)
    case.player.plays(Exits(1, unsound), argument="audit")
    await case.apply(wanted("1.1.0"))
    stalled = await case.until(Type.STALLED, "True", "LedgerFindings")
    assert "off by 1" in stalled["message"]
    assert await served_by(case) == {"1.0.0"}
    (check,) = await case.jobs("check")
    case.player.plays(Exits(0), argument="audit")
    await case.api.delete("Job", check)
    await case.ready()
    assert await served_by(case) == {"1.1.0"}


async def test_who_goes_back_before_the_promotion_has_lost_nothing(case: Case) -> None:
    held = {"autoPromote": False, "scaleDownDelaySeconds": 0}
    await case.apply(wanted("1.0.0", blueGreen=held))
    await case.ready()
    blue = await case.serving()
    await case.apply(wanted("1.1.0", blueGreen=held))
    pending = await case.until(Type.ROLLOUT_COMPLETE, "False", "PromotionPending")
    assert await served_by(case) == {"1.0.0"}
    await case.apply(wanted("1.0.0", blueGreen=held))
    await case.ready()
    assert set(await deployments(case)) == {blue}
    # Once more, and now somebody promotes it.
    await case.apply(wanted("1.1.0", blueGreen=held))
    again = await case.until(Type.ROLLOUT_COMPLETE, "False", "PromotionPending")
    assert again["message"] == pending["message"]
    await case.annotate(promote="something-else")
    await case.until(Type.ROLLOUT_COMPLETE, "False", "PromotionPending")
    await case.annotate(promote=again["message"].rpartition("=")[2])
    await case.ready()
    assert await served_by(case) == {"1.1.0"}
