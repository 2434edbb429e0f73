"""Events in another order than one thinks, objects that are gone, specs that change meanwhile."""

from typing import Any

import pytest

from picopay_operator import names
from picopay_operator.conditions import Type
from picopay_operator.drift import differences
from picopay_operator.plan.admitted import image_of
from picopay_operator.plan.outcome import Release
from picopay_operator.resources import Ref
from support.world import World, report, secret

SPEC: dict[str, Any] = {"database": {"secretRef": {"name": "db"}}, "version": "1.4.0"}


def upgrading() -> World:
    """An engine that serves 1.4.0 and whose next version is being migrated."""
    world = World(SPEC)
    world.run()
    world.change(version="1.5.0", env=[{"name": "PICOPAY_NEW", "value": "1"}])
    world.later(seconds=5)
    world.settle()
    return world


def variables(world: World) -> set[str]:
    container = world.deployment()["spec"]["template"]["spec"]["containers"][0]
    return {one["name"] for one in container["env"]}


def lose_pods(world: World) -> None:
    """Let the pods of Jobs go, as when their node does."""
    for ref in [ref for ref in world.children if ref.kind == "Pod"]:
        del world.children[ref]


def test_what_is_new_for_pods_comes_with_the_new_image() -> None:
    world = upgrading()
    assert "PICOPAY_NEW" not in variables(world)
    world.end_job(world.jobs()[-1], report(ok=False, exit_code=5), 5)
    world.later(seconds=60)
    world.settle()
    assert "PICOPAY_NEW" not in variables(world)
    world.annotations[names.RETRY] = "now"
    world.run(release="1.5.0")
    assert "PICOPAY_NEW" in variables(world)


def test_an_older_success_counts_for_nothing_after_a_newer_migration() -> None:
    world = upgrading()
    (old, new) = world.jobs()
    world.change(version="1.4.0", env=[])
    world.settle()
    assert world.reason(Type.READY) == ("False", "MigrationRunning")
    world.end_job(new, report(release="1.5.0", current="0009", applied=["0009"]))
    world.settle()
    assert world.children[Ref("Job", old)]["status"] == {}  # made anew, and running
    refusal = report(
        ok=False, exit_code=5, code="schema_ahead", current="0009", oldest_release="0009"
    )
    world.end_job(old, refusal, 5)
    world.settle()
    assert world.reason(Type.STALLED) == ("True", "RollbackRefused")


def test_pods_are_not_replaced_because_a_finished_job_has_lost_its_own() -> None:
    world = World(SPEC | {"image": {"tag": "main-123"}})
    world.run()
    template = world.deployment()["spec"]["template"]
    lose_pods(world)
    world.later(seconds=60)
    world.settle()
    assert world.deployment()["spec"]["template"] == template


def test_a_job_that_ends_before_its_pod_is_seen_is_waited_for() -> None:
    world = World(SPEC)
    world.settle()
    (job,) = world.jobs()
    world.end_job(job, "", 5)
    lose_pods(world)
    made = world.settle()
    assert world.reason(Type.READY) == ("False", "MigrationRunning")
    assert made.look_again_s == 1
    # It never comes: nobody knows how it has ended, and it is tried again.
    world.later(seconds=11)
    world.settle()
    assert world.reason(Type.STALLED)[0] == "False"
    world.later(seconds=30)
    assert Ref("Job", job) in world.step().delete


def test_how_a_migration_has_ended_is_remembered() -> None:
    world = upgrading()
    held = report(ok=False, exit_code=8, plan_hash="abc", release="1.5.0")
    world.end_job(world.jobs()[-1], held, 8)
    world.settle()
    lose_pods(world)
    world.later(seconds=600)
    world.settle()
    assert world.reason(Type.READY) == ("False", "ApprovalPending")
    assert "abc" in world.condition(Type.READY).message


def test_a_kind_that_is_not_listed_for_a_moment_is_not_taken_away() -> None:
    world = World(SPEC | {"httpRoute": {"parentRefs": [{"name": "web"}]}})
    world.run()
    world.apis = frozenset()
    world.settle()
    assert Ref("HTTPRoute", "payments-api") in world.children


def test_nothing_is_taken_away_while_it_is_not_known_what_serves() -> None:
    world = World(SPEC | {"ingress": {"host": "pay.example.com"}})
    world.run()
    del world.deployment()["metadata"]["annotations"][names.ADMITTED]
    world.secrets["db"] = None
    before = set(world.children)
    world.settle()
    assert set(world.children) == before


def test_pods_that_are_not_there_take_no_payments() -> None:
    world = World(SPEC | {"replicas": 0})
    world.run()
    assert world.reason(Type.AVAILABLE) == ("False", "PodsUnavailable")
    assert world.reason(Type.READY)[0] == "False"


def test_policies_let_the_migration_of_another_database_through() -> None:
    world = World(SPEC | {"networkPolicy": {"enabled": True}})
    seen = secret(database_url="postgresql://one")
    world.secrets["db"] = type(seen)(seen.digests, {"database-url": (5432,)})
    world.settle()
    assert Ref("NetworkPolicy", "payments-worker") in world.children  # before the first Job runs
    world.run()
    seen = secret(database_url="postgresql://two")
    world.secrets["db"] = type(seen)(seen.digests, {"database-url": (6432,)})
    world.settle()
    egress = world.children[Ref("NetworkPolicy", "payments-worker")]["spec"]["egress"]
    ports = {one["port"] for rule in egress for one in rule["ports"]}
    assert {5432, 6432} <= ports


def test_the_worker_stays_with_the_pods_that_serve() -> None:
    world = World(SPEC | {"rollout": {"strategy": "BlueGreen"}})
    world.run()
    world.change(version="1.5.0")
    world.settle()
    world.end_job(world.jobs()[-1], report(release="1.5.0"))
    world.settle()
    assert world.image("payments-worker").endswith("1.4.0")
    world.run(release="1.5.0")
    assert world.image("payments-worker").endswith("1.5.0")


def test_a_new_revision_does_not_take_over_because_the_old_one_was_deleted() -> None:
    world = World(
        SPEC | {"rollout": {"strategy": "BlueGreen", "blueGreen": {"autoPromote": False}}}
    )
    world.run()
    service = world.children[Ref("Service", "payments-api")]
    blue = service["metadata"]["annotations"][names.ACTIVE]
    world.change(version="1.5.0")
    world.settle()
    world.end_job(world.jobs()[-1], report(release="1.5.0"))
    world.settle()
    del world.children[Ref("Deployment", blue)]
    world.run(release="1.5.0")
    assert world.reason(Type.ROLLOUT_COMPLETE) == ("False", "PromotionPending")
    service = world.children[Ref("Service", "payments-api")]
    assert service["metadata"]["annotations"][names.ACTIVE] == blue


def test_a_check_that_could_not_reach_the_database_is_made_again() -> None:
    world = upgrading()
    world.end_job(world.jobs()[-1], report(release="1.5.0"))
    world.settle()
    (check,) = world.jobs("check")
    world.end_job(check, '{"ok": false, "exit_code": 4, "findings": []}', 4)
    world.settle()
    assert world.reason(Type.LEDGER_SOUND) == ("False", "CheckRunning")
    world.later(seconds=31)
    world.run(release="1.5.0")
    assert world.reason(Type.READY)[0] == "True"


def test_a_paused_engine_does_not_say_that_it_is_as_its_spec() -> None:
    world = World(SPEC | {"ingress": {"host": "a.example.com"}})
    world.run()
    world.change(paused=True, ingress={"host": "b.example.com"})
    world.settle()
    assert world.reason(Type.READY) == ("False", "Paused")
    assert "Ingress payments-api" in world.condition(Type.READY).message


def test_a_time_that_somebody_has_changed_does_no_harm() -> None:
    world = World(SPEC | {"rollout": {"strategy": "BlueGreen"}})
    world.run()
    world.children[Ref("Service", "payments-api")]["metadata"]["annotations"][names.SWITCHED_AT] = (
        "yesterday"
    )
    world.change(version="1.5.0")
    world.run(release="1.5.0")
    assert world.reason(Type.READY)[0] == "True"


def test_a_volume_that_still_has_an_owner_is_waited_for() -> None:
    world = World({"database": {"postgres": {}}})
    world.secrets = {}
    world.run()
    claim = Ref("PersistentVolumeClaim", "data-payments-postgres-0")
    world.children[claim] = {
        "metadata": {"name": claim.name, "ownerReferences": [{"name": "payments-postgres"}]},
        "spec": {"resources": {"requests": {"storage": "5Gi"}}},
    }
    world.deleted_at = world.now
    world.settle()
    assert not world.gone
    del world.children[claim]["metadata"]["ownerReferences"]
    world.settle()
    assert world.gone


def test_an_empty_value_is_the_same_as_none() -> None:
    wanted = {"env": [{"name": "X", "value": ""}], "stdin": False}
    assert differences(wanted, {"env": [{"name": "X"}]}) == []


@pytest.mark.parametrize(
    ("ours", "spec", "image", "version"),
    [
        ("picopay/api", {}, "picopay/api:1.4.0", "1.4.0"),
        ("picopay/api:1.2.0", {}, "picopay/api:1.2.0", "1.2.0"),
        ("reg.local:5000/picopay/api", {}, "reg.local:5000/picopay/api:1.4.0", "1.4.0"),
        ("reg.local:5000/api:2.0.0", {"version": "2.1.0"}, "reg.local:5000/api:2.1.0", "2.1.0"),
        ("reg/api@sha256:abc", {}, "reg/api:1.4.0", "1.4.0"),
        ("reg/api", {"image": {"tag": "x" * 100}}, f"reg/api:{'x' * 100}", "x" * 63),
    ],
)
def test_images_may_come_from_anywhere(
    ours: str, spec: dict[str, Any], image: str, version: str
) -> None:
    world = World({"database": {"secretRef": {"name": "db"}}} | spec)
    found = image_of(world.engine().spec, Release("1.4.0", ours, "postgres"), None)
    assert found == (image, version)


def test_a_pod_that_is_missing_for_a_while_is_no_rollout() -> None:
    world = World(SPEC)
    world.run()
    live = world.deployment()
    live["status"]["conditions"].append(
        {"type": "Progressing", "status": "True", "reason": "NewReplicaSetAvailable"}
    )
    live["status"] |= {"readyReplicas": 1, "availableReplicas": 1}
    made = world.settle()
    assert world.reason(Type.READY) == ("True", "Applied")
    assert made.notices == []


def test_a_password_that_is_lost_is_not_replaced_while_its_volume_is_there() -> None:
    world = World({"database": {"postgres": {}}})
    world.secrets = {}
    claim = Ref("PersistentVolumeClaim", "data-payments-postgres-0")
    world.children[claim] = {"metadata": {"name": claim.name}, "spec": {}}
    world.settle()
    assert world.reason(Type.STALLED) == ("True", "SecretLost")
    assert world.secrets.get("payments-postgres") is None


def test_what_serves_is_told_only_when_it_does() -> None:
    world = upgrading()
    world.end_job(world.jobs()[-1], report(release="1.5.0"))
    world.settle()
    world.end_job(world.jobs("check")[0])
    world.settle()
    assert world.image().endswith("1.5.0")
    assert world.engine().status.version == "1.4.0"
    world.run(release="1.5.0")
    assert world.engine().status.version == "1.5.0"


def test_the_money_is_checked_again_at_a_promotion() -> None:
    world = World(
        SPEC | {"rollout": {"strategy": "BlueGreen", "blueGreen": {"autoPromote": False}}}
    )
    world.run()
    world.change(version="1.5.0")
    world.run(release="1.5.0")
    before = set(world.jobs("check"))
    message = world.condition(Type.READY).message
    world.annotations[names.PROMOTE] = message.rpartition("=")[2]
    world.settle()
    assert set(world.jobs("check")) - before
    world.run(release="1.5.0")
    assert world.reason(Type.READY)[0] == "True"


def test_a_key_is_rotated_again_only_when_the_one_of_now_is_valid() -> None:
    world = World(SPEC)
    world.run()
    world.annotations[names.ROTATE_KEY] = "one"
    world.settle()
    key = world.secrets["payments-admin-key"]
    world.annotations[names.ROTATE_KEY] = "two"
    world.settle()
    assert world.secrets["payments-admin-key"] == key
    world.run()
    assert world.secrets["payments-admin-key"] != key


def test_pods_that_were_not_promoted_get_no_requests_whatever_came_before() -> None:
    world = World(SPEC)
    world.run()
    world.change(rollout={"strategy": "BlueGreen", "blueGreen": {"autoPromote": False}})
    world.run()
    service = world.children[Ref("Service", "payments-api")]
    for ref, live in world.children.items():
        if ref.kind == "Deployment" and ref.name.startswith("payments-api-"):
            labels = live["spec"]["template"]["metadata"]["labels"]
            assert not service["spec"]["selector"].items() <= labels.items()


def test_an_entry_that_somebody_has_added_to_a_rule_is_seen() -> None:
    wanted = {"egress": [{"ports": [{"port": 53}]}]}
    assert differences(wanted, {"egress": [{"ports": [{"port": 53}, {"port": 25}]}]})


@pytest.mark.parametrize("version", ["1.4.0", "1.6.0"])
def test_a_migration_that_cannot_begin_stands_in_nobodys_way(version: str) -> None:
    world = upgrading()
    job = world.jobs()[-1]
    world.end_pod(job, "", 0)
    (pod,) = [
        one for ref, one in world.children.items() if ref.kind == "Pod" and ref.name.startswith(job)
    ]
    waiting = {"reason": "ImagePullBackOff", "message": "there is no such image"}
    (container,) = pod["status"]["containerStatuses"]
    container["state"] = {"waiting": waiting}
    world.settle()
    assert world.reason(Type.READY) == ("False", "ImagePullFailed")
    assert job in world.jobs()
    world.change(version=version, env=[])
    world.settle()
    assert job not in world.jobs()
    world.run(release=version)
    assert world.image() == f"picopay/picopay-api:{version}"
    assert world.reason(Type.READY)[0] == "True"


def test_a_migration_that_has_begun_is_not_given_up() -> None:
    world = upgrading()
    job = world.jobs()[-1]
    world.end_pod(job, "", 137)
    world.children[Ref("Job", job)]["status"] = {"failed": 1}
    world.change(version="1.6.0")
    world.settle()
    assert job in world.jobs()


def test_what_the_pod_of_an_earlier_job_of_its_name_has_said_counts_for_nothing() -> None:
    world = upgrading()
    job = world.jobs()[-1]
    world.end_job(job, report(ok=False, exit_code=4, detail="connection refused"), 4)
    world.later(seconds=31)
    world.settle()
    assert world.children[Ref("Job", job)]["status"] == {}
    # The pod of the first one is still there, on its way out.
    assert world.condition(Type.SCHEMA_MIGRATED).message == f"the Job {job} is running"
    world.end_job(job, report(release="1.5.0"))
    world.run(release="1.5.0")
    assert world.reason(Type.READY)[0] == "True"
