"""Blue-green: a second Deployment comes up beside the first, is checked, and takes over."""

import copy
from typing import Any

import pytest

from picopay_operator import names
from picopay_operator.conditions import Type
from picopay_operator.resources import Ref
from support.world import World, report

SERVICE = Ref("Service", "payments-api")
SPEC = {
    "database": {"secretRef": {"name": "db"}},
    "version": "1.4.0",
    "rollout": {"strategy": "BlueGreen"},
}


def deployments(world: World) -> set[str]:
    return {
        ref.name
        for ref, live in world.children.items()
        if ref.kind == "Deployment"
        and live["metadata"]["labels"][names.COMPONENT_LABEL] == names.Component.API
    }


def leads_to(world: World) -> str:
    """Return the Deployment whose pods the Service selects."""
    selector = world.children[SERVICE]["spec"]["selector"]
    (found,) = [
        name
        for name in deployments(world)
        if selector.items()
        <= world.deployment(name)["spec"]["template"]["metadata"]["labels"].items()
    ]
    assert world.children[SERVICE]["metadata"]["annotations"][names.ACTIVE] == found
    return found


def migrated(version: str, **rollout: Any) -> World:
    """An engine at 1.4.0 whose next version was migrated and not yet rolled out."""
    world = World(SPEC | {"rollout": {"strategy": "BlueGreen"} | rollout})
    world.run()
    world.change(version=version)
    world.settle()
    world.end_job(world.jobs()[-1], report(release=version))
    world.settle()
    return world


def test_the_second_deployment_takes_over_when_it_is_ready_and_checked() -> None:
    world = migrated("1.5.0")
    blue = leads_to(world)
    (green,) = deployments(world) - {blue}
    assert world.image(blue).endswith("1.4.0")
    assert world.image(green).endswith("1.5.0")
    assert world.jobs("check") == []
    world.come_up()
    world.settle()
    assert leads_to(world) == blue
    (check,) = world.jobs("check")
    world.end_job(check)
    world.settle()
    assert leads_to(world) == green
    # The first one stays for a while, to go back to.
    assert deployments(world) == {blue, green}
    world.come_up()
    made = world.settle()
    assert made.look_again_s == 30
    assert world.reason(Type.READY) == ("True", "Applied")
    world.later(seconds=31)
    world.settle()
    assert deployments(world) == {green}


def test_who_goes_back_in_time_finds_the_first_one_still_there() -> None:
    world = migrated("1.5.0")
    blue = leads_to(world)
    world.run(release="1.5.0")
    assert leads_to(world) != blue
    world.change(version="1.4.0")
    world.run(release="1.4.0")
    assert leads_to(world) == blue


def test_findings_keep_the_first_one_serving() -> None:
    world = migrated("1.5.0")
    blue = leads_to(world)
    world.come_up()
    world.settle()
    (check,) = world.jobs("check")
    finding = '{"ok": false, "exit_code": 1, "findings": [{"ledger": "main", "detail": "a cent"}]}'
    world.end_job(check, finding, 1)
    world.settle()
    assert leads_to(world) == blue
    assert world.reason(Type.STALLED) == ("True", "LedgerFindings")
    assert "a cent" in world.condition(Type.STALLED).message


def test_one_that_does_not_come_up_is_given_up_and_the_next_one_may_come() -> None:
    world = migrated("1.5.0")
    blue = leads_to(world)
    (green,) = deployments(world) - {blue}
    live = world.deployment(green)
    stuck = {"type": "Progressing", "status": "False", "reason": "ProgressDeadlineExceeded"}
    live["status"] = {
        "observedGeneration": live["metadata"]["generation"],
        "conditions": [stuck],
    }
    world.settle()
    assert leads_to(world) == blue
    assert world.reason(Type.STALLED) == ("True", "RolloutAborted")
    assert world.reason(Type.AVAILABLE)[0] == "True"
    world.change(version="1.6.0")
    world.run(release="1.6.0")
    assert world.image(leads_to(world)).endswith("1.6.0")
    assert green not in deployments(world)


def test_without_automatic_promotion_somebody_has_to_say_so() -> None:
    world = migrated("1.5.0", blueGreen={"autoPromote": False})
    blue = leads_to(world)
    (green,) = deployments(world) - {blue}
    world.run(release="1.5.0")
    assert leads_to(world) == blue
    assert world.reason(Type.ROLLOUT_COMPLETE) == ("False", "PromotionPending")
    revision = green.rpartition("-")[2]
    assert f"{names.PROMOTE}={revision}" in world.condition(Type.READY).message
    world.annotations[names.PROMOTE] = revision
    world.run(release="1.5.0")
    assert leads_to(world) == green


def test_a_change_of_strategy_takes_over_as_well() -> None:
    world = World({"database": {"secretRef": {"name": "db"}}, "version": "1.4.0"})
    world.run()
    assert leads_to(world) == "payments-api"
    world.change(rollout={"strategy": "BlueGreen"})
    world.run()
    world.later(seconds=31)
    world.run()
    (green,) = deployments(world)
    assert leads_to(world) == green != "payments-api"
    world.change(rollout={"strategy": "RollingUpdate"})
    world.run()
    world.later(seconds=31)
    world.run()
    assert deployments(world) == {"payments-api"}
    assert world.reason(Type.READY) == ("True", "Applied")


def test_a_service_that_is_deleted_leads_to_pods_that_are_ready_again() -> None:
    world = migrated("1.5.0")
    blue = leads_to(world)
    del world.children[SERVICE]
    world.settle()
    # The new one is not ready: who made the Service anew must not lead there.
    assert leads_to(world) == blue


@pytest.mark.parametrize("promotes", [True, False])
def test_a_suspended_engine_has_no_pods_on_either_side(promotes: bool) -> None:
    world = migrated("1.5.0", blueGreen={"autoPromote": promotes})
    both = deployments(world)
    assert len(both) == 2
    world.change(suspended=True)
    world.settle()
    assert {world.deployment(name)["spec"]["replicas"] for name in deployments(world)} == {0}
    world.run(release="1.5.0")
    assert {world.deployment(name)["spec"]["replicas"] for name in deployments(world)} == {0}
    assert world.reason(Type.READY) == ("False", "Suspended")


def test_no_pods_of_a_suspended_engine_are_kept_to_go_back_to() -> None:
    world = migrated("1.5.0", blueGreen={"scaleDownDelaySeconds": 86_400})
    world.run(release="1.5.0")
    assert len(deployments(world)) == 2
    world.change(suspended=True)
    world.settle()
    assert deployments(world) == {leads_to(world)}


def test_what_serves_is_looked_after_while_a_revision_waits() -> None:
    world = migrated("1.5.0", blueGreen={"autoPromote": False})
    blue = leads_to(world)
    world.run(release="1.5.0")
    assert world.reason(Type.ROLLOUT_COMPLETE) == ("False", "PromotionPending")
    template = copy.deepcopy(world.deployment(blue)["spec"]["template"])
    world.change(replicas=7)
    world.deployment(blue)["spec"]["template"]["spec"]["containers"][0]["image"] = "other:1"
    world.settle()
    assert world.deployment(blue)["spec"]["replicas"] == 7
    assert world.deployment(blue)["spec"]["template"] == template
    world.deployment(blue)["spec"]["paused"] = True
    world.change(replicas=8)
    world.settle()
    assert world.deployment(blue)["spec"]["replicas"] == 8
    assert world.deployment(blue)["spec"]["paused"] is True
