"""The order in which an engine comes to life, and what holds it up; pure, with a cluster in memory."""

import pytest

from picopay_operator import names
from picopay_operator.conditions import Type
from picopay_operator.plan import plan
from picopay_operator.resources import Ref
from support.world import World, report, secret


def test_everything_comes_in_its_order() -> None:
    world = World()
    world.settle()
    (migration,) = world.jobs()
    # Nothing runs before the migration has succeeded.
    assert {ref.kind for ref in world.children} == {"Job"}
    assert world.reason(Type.SCHEMA_MIGRATED) == ("False", "MigrationRunning")
    assert world.reason(Type.READY)[0] == "False"
    assert world.reason(Type.RECONCILING)[0] == "True"
    world.end_job(migration, report(applied=["0001"]))
    world.settle()
    assert world.image() == world.image("payments-worker") == "picopay/picopay-api:1.4.0"
    assert world.reason(Type.ROLLOUT_COMPLETE) == ("False", "Progressing")
    world.run()
    ready = [world.reason(kind) for kind in (Type.READY, Type.RECONCILING, Type.STALLED)]
    assert ready == [("True", "Applied"), ("False", "Applied"), ("False", "Applied")]
    status = world.engine().status
    assert (status.version, status.replicas, status.ready_replicas) == ("1.4.0", 2, 2)
    assert (status.schema.current, status.connections_max) == ("0001", 97)
    assert status.endpoint == "http://payments-api.shop.svc"


def test_what_is_as_it_should_be_is_left_alone() -> None:
    world = World()
    world.run()
    world.applied.clear()
    for _ in range(3):
        made = world.step()
        assert (made.apply, made.delete, made.notices) == ([], [], [])
    assert world.applied == []


def test_a_new_image_comes_in_only_after_its_migration() -> None:
    world = World()
    world.run()
    world.change(version="1.5.0")
    world.settle()
    assert world.image() == "picopay/picopay-api:1.4.0"
    assert world.reason(Type.READY) == ("False", "MigrationRunning")
    assert world.condition(Type.READY).observed_generation == 2
    world.end_job(world.jobs()[-1], report(release="1.5.0"))
    world.settle()
    world.end_job(world.jobs("check")[0])
    world.settle()
    assert world.image() == "picopay/picopay-api:1.5.0"
    world.run(release="1.5.0")
    assert world.reason(Type.READY) == ("True", "Applied")
    assert len(world.jobs()) == 1  # that of the version before is gone


def test_a_migration_that_fails_leaves_the_old_version_serving() -> None:
    world = World()
    world.run()
    world.change(version="1.5.0", replicas=3)
    world.settle()
    failed = world.jobs()[-1]
    world.end_job(failed, report(ok=False, exit_code=5, detail="relation is locked"), 5, attempts=4)
    world.settle()
    world.come_up()
    world.settle()
    assert world.reason(Type.STALLED) == ("True", "MigrationFailed")
    assert "after 4 attempts: relation is locked" in world.condition(Type.READY).message
    assert world.reason(Type.AVAILABLE) == ("True", "PodsAvailable")
    # It goes on as it was, is repaired, and can be scaled.
    assert world.image() == "picopay/picopay-api:1.4.0"
    assert world.deployment()["spec"]["replicas"] == 3
    del world.children[Ref("Deployment", "payments-worker")]
    world.settle()
    assert world.image("payments-worker") == "picopay/picopay-api:1.4.0"
    world.annotations[names.RETRY] = "again"
    world.settle()
    assert world.jobs()[-1] != failed
    world.run(release="1.5.0")
    assert world.reason(Type.READY) == ("True", "Applied")


def test_a_migration_without_a_report_shows_the_end_of_its_log() -> None:
    world = World()
    world.settle()
    world.end_job(world.jobs()[0], "Traceback …\nKeyError: 'amount'", 70)
    world.settle()
    assert "KeyError: 'amount'" in world.condition(Type.STALLED).message


def test_an_image_that_the_database_does_not_admit_is_refused() -> None:
    world = World({"database": {"secretRef": {"name": "db"}}, "version": "1.3.0"})
    world.run(release="1.3.0", head="0003", current="0003", oldest_release="0002")
    world.change(version="1.4.0")
    world.run(release="1.4.0", head="0005", current="0005", oldest_release="0004")
    world.change(version="1.2.0")
    world.settle()
    refusal = report(
        ok=False,
        exit_code=5,
        code="schema_ahead",
        release="1.2.0",
        head="0002",
        current="0005",
        oldest_release="0004",
    )
    world.end_job(world.jobs()[-1], refusal, 5)
    world.settle()
    assert world.reason(Type.STALLED) == ("True", "RollbackRefused")
    message = world.condition(Type.READY).message
    assert "admits releases from schema 0004 on" in message
    assert "is 1.4.0" in message
    assert world.image() == "picopay/picopay-api:1.4.0"


def test_a_destructive_plan_waits_for_its_approval() -> None:
    world = World()
    world.run()
    world.change(version="2.0.0")
    world.settle()
    steps = [{"revision": "0002", "title": "Drop what is old", "destructive": True}]
    held = report(ok=False, exit_code=8, steps=steps, plan_hash="abc", release="2.0.0")
    world.end_job(world.jobs()[-1], held, 8)
    world.settle()
    assert world.reason(Type.READY) == ("False", "ApprovalPending")
    assert world.reason(Type.STALLED)[0] == "False"
    schema = world.engine().status.schema
    assert (schema.plan, schema.plan_hash) == (["0002 Drop what is old (destructive)"], "abc")
    world.annotations[names.APPROVE_PLAN] = "abc"
    world.settle()
    arguments = world.children[Ref("Job", world.jobs()[-1])]["spec"]["template"]["spec"][
        "containers"
    ][0]["args"]
    assert arguments[-2:] == ["--approve", "abc"]
    world.run(release="2.0.0")
    assert world.image() == "picopay/picopay-api:2.0.0"


def test_a_running_migration_is_never_deleted_nor_joined_by_another() -> None:
    world = World()
    world.settle()
    (first,) = world.jobs()
    world.change(version="1.5.0")
    world.settle()
    assert world.jobs() == [first]
    assert first in world.condition(Type.SCHEMA_MIGRATED).message
    world.end_job(first, report())
    world.settle()
    assert len(world.jobs()) == 2


def test_a_database_that_is_away_is_tried_again_after_a_while() -> None:
    world = World()
    world.settle()
    (first,) = world.jobs()
    away = report(ok=False, exit_code=4, detail="no answer", current=None, connections_max=None)
    world.end_job(first, away, 4)
    made = world.settle()
    assert world.reason(Type.READY) == ("False", "DatabaseUnreachable")
    assert "no answer" in world.condition(Type.READY).message
    assert made.look_again_s == 30
    assert world.jobs() == [first]
    world.later(seconds=31)
    assert Ref("Job", first) in world.step().delete
    world.run()
    assert world.reason(Type.READY) == ("True", "Applied")


def test_a_missing_secret_is_named_and_recovers_when_it_comes() -> None:
    world = World()
    world.secrets["db"] = None
    world.settle()
    assert world.reason(Type.READY) == ("False", "SecretNotFound")
    assert world.reason(Type.STALLED)[0] == "False"
    world.secrets["db"] = secret(something="else")
    world.settle()
    assert world.reason(Type.READY) == ("False", "SecretKeyMissing")
    assert "database-url" in world.condition(Type.READY).message
    world.secrets["db"] = secret(database_url="postgresql://one")
    world.run()
    assert world.reason(Type.READY) == ("True", "Applied")


def test_a_secret_that_vanishes_leaves_the_pods_alone() -> None:
    world = World()
    world.run()
    before = dict(world.children)
    world.secrets["db"] = None
    world.settle()
    assert world.reason(Type.READY) == ("False", "SecretNotFound")
    assert world.reason(Type.AVAILABLE)[0] == "True"
    assert set(before) == set(world.children)


def test_another_value_rolls_the_pods_after_a_migration_and_other_keys_do_not() -> None:
    world = World()
    world.run()

    def data_hash() -> str:
        template = world.deployment()["spec"]["template"]["metadata"]
        return str(template["annotations"][names.DATA_HASH])

    before = data_hash()
    world.secrets["db"] = secret(database_url="postgresql://one", comment="new")
    world.settle()
    assert len(world.jobs()) == 1
    assert data_hash() == before
    world.secrets["db"] = secret(database_url="postgresql://two")
    world.settle()
    # The pods stay with what they were admitted with, until the new database is migrated.
    assert len(world.jobs()) == 2
    assert data_hash() == before
    world.run()
    assert data_hash() != before


def test_what_is_broken_is_repaired_and_told() -> None:
    world = World()
    world.run()
    world.notices.clear()
    world.deployment()["spec"]["template"]["spec"]["containers"][0]["image"] = "evil:latest"
    del world.children[Ref("Service", "payments-api")]
    world.settle()
    assert world.image() == "picopay/picopay-api:1.4.0"
    assert Ref("Service", "payments-api") in world.children
    (told,) = [notice for notice in world.notices if notice.reason == "DriftCorrected"]
    assert "Deployment payments-api" in told.message
    assert "image" in told.message


def test_what_others_add_is_theirs() -> None:
    world = World({"database": {"secretRef": {"name": "db"}}, "autoscaling": {"maxReplicas": 9}})
    world.run()
    live = world.deployment()
    live["spec"]["replicas"] = 7
    live["metadata"]["annotations"]["deployment.kubernetes.io/revision"] = "4"
    live["spec"]["template"]["spec"]["containers"].append({"name": "sidecar", "image": "mesh"})
    live["spec"]["template"]["metadata"]["annotations"]["kubectl.kubernetes.io/restartedAt"] = "now"
    world.come_up()
    world.applied.clear()
    world.settle()
    assert world.applied == []


def test_what_is_wanted_no_more_is_deleted() -> None:
    world = World()
    world.change(ingress={"host": "pay.example.com"}, networkPolicy={"enabled": True})
    world.run()
    assert Ref("Ingress", "payments-api") in world.children
    world.change(ingress=None, networkPolicy={"enabled": False})
    world.run()
    assert not [ref for ref in world.children if ref.kind in {"Ingress", "NetworkPolicy"}]


def test_an_optional_kind_that_is_missing_is_told_and_comes_later() -> None:
    world = World()
    world.change(
        httpRoute={"parentRefs": [{"name": "web"}]},
        monitoring={"serviceMonitor": {"enabled": True}},
    )
    world.apis = frozenset()
    world.run()
    assert world.reason(Type.EXPOSED) == ("False", "OptionalAPIMissing")
    assert world.reason(Type.MONITORED) == ("False", "OptionalAPIMissing")
    assert world.reason(Type.AVAILABLE)[0] == "True"
    world.apis = frozenset({"HTTPRoute", "ServiceMonitor"})
    world.run()
    assert world.reason(Type.READY) == ("True", "Applied")
    assert {"HTTPRoute", "ServiceMonitor"} <= {ref.kind for ref in world.children}


def test_a_paused_engine_is_only_looked_at() -> None:
    world = World()
    world.run()
    world.change(paused=True, replicas=5)
    before = dict(world.children)
    world.settle()
    assert world.children == before
    assert world.reason(Type.PAUSED)[0] == "True"
    assert world.reason(Type.READY) == ("False", "Paused")
    assert world.reason(Type.RECONCILING)[0] == "False"
    world.change(paused=False)
    world.run()
    assert world.deployment()["spec"]["replicas"] == 5


def test_a_suspended_engine_has_no_pods_and_keeps_its_data() -> None:
    world = World({"database": {"postgres": {}}})
    world.secrets["db"] = None
    world.run()
    world.change(suspended=True)
    world.run()
    assert world.deployment()["spec"]["replicas"] == 0
    assert world.deployment("payments-worker")["spec"]["replicas"] == 0
    assert Ref("StatefulSet", "payments-postgres") in world.children
    assert world.reason(Type.READY) == ("False", "Suspended")
    assert [world.reason(kind)[0] for kind in (Type.RECONCILING, Type.STALLED)] == ["False"] * 2
    world.change(suspended=False)
    world.run()
    assert world.reason(Type.READY) == ("True", "Applied")


def test_more_sessions_than_the_database_admits_are_told() -> None:
    world = World()
    world.run(connections_max=20)
    assert world.reason(Type.CONNECTION_BUDGET) == ("False", "ConnectionBudgetExceeded")
    assert "up to 42 sessions" in world.condition(Type.CONNECTION_BUDGET).message
    assert world.reason(Type.READY)[0] == "True"  # it takes payments: it is a warning


def test_the_key_is_made_valid_and_rotated_with_both_valid() -> None:
    world = World()
    world.run()
    (first,) = world.jobs("key")
    world.annotations[names.ROTATE_KEY] = "2026-01"
    world.settle()
    (second,) = set(world.jobs("key")) - {first}
    container = world.children[Ref("Job", second)]["spec"]["template"]["spec"]["containers"][0]
    assert container["args"][-2:] == ["--overlap-s", "86400"]
    world.run()
    assert world.jobs("key") == [second]
    assert world.reason(Type.READY)[0] == "True"


def test_findings_in_the_ledger_stop_a_rollout() -> None:
    world = World()
    world.run()
    world.change(version="1.5.0")
    world.settle()
    world.end_job(world.jobs()[-1], report(release="1.5.0", applied=["0002"], current="0002"))
    world.settle()
    (check,) = world.jobs("check")
    assert world.image() == "picopay/picopay-api:1.4.0"
    world.end_job(check, '{"ok": false, "exit_code": 1, "findings": []}', 1)
    world.settle()
    assert world.reason(Type.STALLED) == ("True", "LedgerFindings")
    assert world.image() == "picopay/picopay-api:1.4.0"
    # Another migration, which finds nothing to do, is no way around it.
    world.annotations[names.RETRY] = "again"
    world.settle()
    world.end_job(world.jobs()[-1], report(release="1.5.0", current="0002"))
    world.settle()
    assert world.image() == "picopay/picopay-api:1.4.0"
    assert world.reason(Type.LEDGER_SOUND) == ("False", "CheckRunning")
    world.run(release="1.5.0")
    assert world.image() == "picopay/picopay-api:1.5.0"


@pytest.mark.parametrize(
    ("waiting", "reason"),
    [
        ({"reason": "ImagePullBackOff", "message": "not found"}, "ImagePullFailed"),
        ({"reason": "CrashLoopBackOff"}, "CrashLooping"),
        ({"reason": "CreateContainerConfigError", "message": "no secret"}, "PodPending"),
    ],
)
def test_what_ails_a_pod_is_in_the_condition(waiting: dict[str, str], reason: str) -> None:
    world = World()
    world.settle()
    world.end_job(world.jobs()[0], report())
    world.settle()
    world.start_pod("payments-api-1")["status"] = {
        "containerStatuses": [{"image": "x", "state": {"waiting": waiting}}]
    }
    world.settle()
    assert world.reason(Type.ROLLOUT_COMPLETE) == ("False", reason)
    assert "payments-api-1" in world.condition(Type.READY).message


def test_the_plan_changes_nothing_that_it_is_given() -> None:
    world = World()
    world.run()
    observed = world.observed()
    first, second = plan(observed), plan(observed)
    assert first == second
