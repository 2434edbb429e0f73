"""What `kubectl picopay` makes of a person's decision: what is written, and what is refused."""

from typing import Any

import pytest

from picopay_operator import names
from picopay_operator.conditions import Type
from picopay_operator.plugin import changes
from picopay_operator.plugin.changes import Change, Refused
from picopay_operator.resources import Ref
from support.world import World, report, secret

OLD, NEW = "1.4.0", "1.5.0"
HELD: dict[str, Any] = {
    "ok": False,
    "exit_code": 8,
    "head": "0002",
    "steps": [{"revision": "0002", "title": "Drop the old keys", "destructive": True}],
    "plan_hash": "abc123",
}


def serving(**spec: Any) -> World:
    """An engine that serves at the old version."""
    world = World({"database": {"secretRef": {"name": "db"}}, "version": OLD} | spec)
    world.run(release=OLD)
    return world


def upgraded(world: World | None = None, **said: Any) -> World:
    """The same, asked for the new version, whose migration has ended in some way."""
    world = world or serving()
    world.change(version=NEW)
    world.settle()
    world.end_job(world.jobs()[-1], report(release=NEW, **said), said.get("exit_code", 0))
    world.settle()
    return world


def carried_out(world: World, change: Change) -> None:
    """Do what a change says, and let the operator see it."""
    written = change.patch.get("metadata", {}).get("annotations", {})
    world.annotations |= written
    for job in change.deleted_jobs:
        del world.children[Ref("Job", job)]
    if spec := change.patch.get("spec"):
        image = {**world.spec.get("image", {}), **spec.get("image", {})}
        given = {key: value for key, value in image.items() if value is not None}
        world.change(**spec | {"image": given})
        world.spec = {key: value for key, value in world.spec.items() if value is not None}
    world.settle()


def test_the_plan_that_waits_is_approved_by_its_hash() -> None:
    world = upgraded(**HELD)
    change = changes.approve(world.observed())
    assert change.patch == {"metadata": {"annotations": {names.APPROVE_PLAN: "abc123"}}}
    assert change.notes == ()
    carried_out(world, change)
    with pytest.raises(Refused, match="no plan of payments waits"):
        changes.approve(world.observed())
    world.run(release=NEW)
    assert world.image().endswith(NEW)


def test_a_plan_that_somebody_has_looked_at_is_approved_and_no_other() -> None:
    observed = upgraded(**HELD).observed()
    assert changes.approve(observed, "abc123").patch
    with pytest.raises(Refused, match="the plan that waits is abc123, not abc124"):
        changes.approve(observed, "abc124")


def test_a_failed_migration_is_tried_again() -> None:
    world = upgraded(ok=False, exit_code=5, detail="no such column")
    change = changes.retry(world.observed())
    (name,) = change.patch["metadata"]["annotations"]
    assert name == names.RETRY
    before = world.jobs()
    carried_out(world, change)
    assert len(set(world.jobs()) - set(before)) == 1


def test_two_retries_are_two() -> None:
    world = upgraded(ok=False, exit_code=5)
    first = changes.retry(world.observed())
    world.later(milliseconds=1)
    assert changes.retry(world.observed()).patch != first.patch


def test_what_is_ready_is_not_tried_again() -> None:
    world = serving()
    with pytest.raises(Refused, match="ready: nothing has failed"):
        changes.retry(world.observed())
    # Unless what is ready is what was wanted before.
    world.generation += 1
    assert changes.retry(world.observed()).patch


@pytest.mark.parametrize("exit_code", [1, 70])
def test_the_money_is_checked_again_and_the_check_is_not_passed_over(exit_code: int) -> None:
    world = upgraded(applied=["0002"], current="0002", head="0002")
    (check,) = world.jobs("check")
    world.end_job(check, "", exit_code)
    world.settle()
    change = changes.retry(world.observed())
    assert change.deleted_jobs == (check,)
    assert change.patch == {}
    carried_out(world, change)
    assert world.jobs("check") == [check]
    assert world.image().endswith(OLD)


def test_a_retry_of_something_else_does_not_pass_over_the_check() -> None:
    world = upgraded(applied=["0002"], current="0002", head="0002")
    (check,) = world.jobs("check")
    world.end_job(check, "", 1)
    world.secrets["payments-admin-key"] = secret(api_key="somebody else's")
    world.settle()
    assert world.reason(Type.STALLED) == ("True", "AdoptionRefused")
    change = changes.retry(world.observed())
    assert (change.patch, change.deleted_jobs) == ({}, (check,))


def test_the_job_of_a_key_is_made_again() -> None:
    world = World()
    world.settle()
    world.end_job(world.jobs()[0], report())
    world.settle()
    (job,) = world.jobs("key")
    world.end_job(job, "no", 6)
    world.settle()
    assert changes.retry(world.observed()).deleted_jobs == (job,)


def test_the_new_version_of_a_blue_green_rollout_is_promoted() -> None:
    rollout = {"strategy": "BlueGreen", "blueGreen": {"autoPromote": False}}
    world = serving(rollout=rollout)
    with pytest.raises(Refused, match="nothing of payments waits to be promoted"):
        changes.promote(world.observed())
    upgraded(world)
    world.come_up()
    world.settle()
    for job in world.jobs("check"):
        world.end_job(job)
    world.settle()
    assert world.reason(Type.ROLLOUT_COMPLETE) == ("False", "PromotionPending")
    carried_out(world, changes.promote(world.observed()))
    world.run(release=NEW)
    assert world.condition(Type.READY).status.value == "True"
    assert world.engine().status.version == NEW


def test_the_key_is_replaced_once_at_a_time() -> None:
    world = serving()
    change = changes.rotate(world.observed())
    assert "86400 s" in change.notes[0]
    carried_out(world, change)
    with pytest.raises(Refused, match="not valid yet"):
        changes.rotate(world.observed())
    world.run(release=OLD)
    world.later(seconds=1)
    assert changes.rotate(world.observed()).patch != change.patch


def test_going_back_asks_for_the_release_before() -> None:
    world = upgraded(head="0002", current="0002")
    world.run(release=NEW)
    change = changes.rollback(world.observed())
    assert change.patch == {"spec": {"version": OLD}}
    assert "the schema admits it: it wants 0001, and 0001" in change.notes[0]
    carried_out(world, change)
    world.run(release=OLD)
    assert world.image().endswith(OLD)


def test_an_upgrade_that_has_not_come_far_is_taken_back() -> None:
    world = upgraded(ok=False, exit_code=5)
    assert changes.rollback(world.observed()).patch == {"spec": {"version": OLD}}


def test_what_the_schema_does_not_admit_is_refused_beforehand() -> None:
    world = upgraded(head="0002", current="0002", oldest_release="0002")
    world.run(release=NEW)
    with pytest.raises(Refused, match=r"1\.4\.0 wants schema 0001, .* 0002 on; .*: none"):
        changes.rollback(world.observed())
    world.change(version="1.6.0")
    world.settle()
    said = report(release="1.6.0", head="0003", current="0003", oldest_release="0002")
    world.end_job(world.jobs()[-1], said)
    world.settle()
    with pytest.raises(Refused, match=r"1\.4\.0 wants schema 0001, .*: 1\.5\.0"):
        changes.rollback(world.observed(), OLD)
    assert changes.rollback(world.observed()).patch == {"spec": {"version": NEW}}


def test_without_a_report_the_operator_is_left_to_judge() -> None:
    world = upgraded(head="0002", current="0002", oldest_release="0002")
    for ref in [ref for ref in world.children if ref.kind == "Pod"]:
        del world.children[ref]
    del world.status["schema"]["oldestRelease"]
    change = changes.rollback(world.observed())
    assert change.patch == {"spec": {"version": OLD}}
    assert "not known here" in change.notes[0]


def test_what_the_schema_admits_is_known_from_the_status_when_the_report_is_gone() -> None:
    world = upgraded(head="0002", current="0002")
    world.run(release=NEW)
    for ref in [ref for ref in world.children if ref.kind == "Pod"]:
        del world.children[ref]
    world.status["schema"]["oldestRelease"] = "0002"
    with pytest.raises(Refused, match=r"1\.4\.0 wants schema 0001, .* 0002 on; .*: none"):
        changes.rollback(world.observed())
    world.status["schema"]["oldestRelease"] = "0001"
    assert changes.rollback(world.observed()).patch == {"spec": {"version": OLD}}


def test_only_what_has_served_is_gone_back_to() -> None:
    with pytest.raises(Refused, match=r"has no earlier release.*: none"):
        changes.rollback(serving().observed())
    with pytest.raises(Refused, match=r"1\.3\.0 is no earlier release.*: 1\.4\.0"):
        changes.rollback(upgraded().observed(), "1.3.0")


DIGEST = f"sha256:{'a' * 64}"


@pytest.mark.parametrize(
    ("before", "after", "wanted"),
    [
        ({"tag": "old"}, {"tag": "new"}, {"image": {"tag": "old"}}),
        ({"digest": DIGEST}, {}, {"image": {"digest": DIGEST}, "version": OLD}),
        ({}, {"tag": "new"}, {"image": {"tag": None}, "version": OLD}),
        ({}, {"digest": DIGEST}, {"image": {"digest": None}, "version": OLD}),
        (
            {"repository": "registry:5000/api"},
            {"repository": "other/api"},
            {"image": {"repository": "registry:5000/api"}, "version": OLD},
        ),
        (
            {},
            {"repository": "other/api"},
            {"image": {"repository": "picopay/picopay-api"}, "version": OLD},
        ),
    ],
)
def test_the_image_is_the_very_one_that_has_served(
    before: dict[str, str], after: dict[str, str], wanted: dict[str, Any]
) -> None:
    world = serving(image=before)
    image = world.image()
    world.change(image=after)
    upgraded(world)
    change = changes.rollback(world.observed())
    assert change.patch == {"spec": wanted if "tag" not in before else wanted | {"version": OLD}}
    carried_out(world, change)
    world.run(release=OLD)
    assert world.image() == image


def test_what_is_paused_or_going_is_said() -> None:
    world = upgraded(**HELD)
    world.change(paused=True)
    assert "paused" in changes.approve(world.observed()).notes[-1]
    world.deleted_at = world.now
    for decide in (changes.approve, changes.retry, changes.promote, changes.rotate):
        with pytest.raises(Refused, match="being deleted"):
            decide(world.observed())
    with pytest.raises(Refused, match="being deleted"):
        changes.rollback(world.observed())
