"""What `kubectl picopay` shows of an engine, to people and to programs."""

from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest

from picopay_operator import names
from picopay_operator.plugin import overview, text
from picopay_operator.plugin.text import Paint
from picopay_operator.resources import Ref
from support.world import World, report

PLAIN = Paint(enabled=False)
BLUE_GREEN = {"strategy": "BlueGreen", "blueGreen": {"autoPromote": False}}


def serving(**spec: Any) -> World:
    world = World({"database": {"secretRef": {"name": "db"}}, "version": "1.4.0"} | spec)
    world.run(release="1.4.0")
    return world


def held() -> World:
    """An engine that serves, and whose next version waits for an approval."""
    world = serving()
    world.later(hours=3)
    world.change(version="1.5.0")
    world.settle()
    steps = [
        {"revision": "0002", "title": "Add a column", "destructive": False},
        {"revision": "0003", "title": "Drop the old keys", "destructive": True},
    ]
    said = report(exit_code=8, release="1.5.0", head="0003", steps=steps, plan_hash="abc123")
    world.end_job(world.jobs()[-1], said, 8)
    world.settle()
    world.later(minutes=5)
    return world


def pod(world: World, workload: str, **status: Any) -> str:
    """Add a pod of a Deployment, through its ReplicaSet."""
    name = f"{workload}-6f7-{len(world.children)}"
    world.children[Ref("Pod", name)] = {
        "metadata": {
            "name": name,
            "labels": {"pod-template-hash": "6f7"},
            "ownerReferences": [{"kind": "ReplicaSet", "name": f"{workload}-6f7"}],
            "creationTimestamp": world.now.isoformat(),
        },
        "status": {"phase": "Running"} | status,
    }
    return name


def written(world: World) -> str:
    return text.overview(overview.overview(world.observed()), world.now, PLAIN)


def test_an_engine_that_waits_as_a_person_sees_it() -> None:
    assert (
        written(held())
        == """\
Name      shop/payments
State     ✗ not ready: ApprovalPending
          the plan abc123 waits: approve it with the annotation picopay.io/approve-plan=abc123, \
or with `kubectl picopay approve payments`
Version   1.4.0 → 1.5.0
Image     picopay/picopay-api:1.4.0
Schema    0001 → 0003
Pods      2 of 2 ready
Endpoint  http://payments-api.shop.svc

Conditions
  ✓  Available          PodsAvailable    3h  2 pods take requests
  ✓  SecretsReady       SecretsFound     3h  all Secrets are there
  ✓  DatabaseReachable  Reachable        3h  a migration Job has reached it
  ✓  ConnectionBudget   WithinBudget     3h  up to 42 sessions are opened, and the database admits 97
  ✗  SchemaMigrated     ApprovalPending  5m  the plan abc123 waits: approve it with the annotation \
picopay.io/approve-plan=abc123, or with `kubectl picopay approve …
  ✓  SchemaCompatible   Compatible       3h  the image goes with the schema
  ✓  LedgerSound        LedgerSound      3h  nothing has asked for a check since the ledger was last in use
  ✓  RolloutComplete    RolledOut        3h  all pods run picopay/picopay-api:1.4.0
  ✓  Exposed            ClusterOnly      3h  the API is reached inside the cluster, at http://payments-api.shop.svc
  ✓  Monitored          NotWanted        3h  spec.monitoring asks for nothing
  -  Paused             NotPaused        3h  changes are applied, and what is broken is repaired

Workloads
  ✓  Deployment payments-api     api, serves  2/2 ready  picopay/picopay-api:1.4.0
  ✓  Deployment payments-worker  worker       1/1 ready  picopay/picopay-api:1.4.0

Jobs
  ✗  payments-migrate-0cb61f3f  migration  Failed    1 failed  5m
  ✓  payments-migrate-e1064bcd  migration  Complete            3h
  ✓  payments-key-6bcc3dcb      admin-key  Complete            3h

Next
  kubectl picopay plan payments --namespace shop
  kubectl picopay approve payments --namespace shop"""
    )


def test_a_plan_that_waits_as_a_person_sees_it() -> None:
    shown = overview.schema_plan(held().observed())
    assert (
        text.schema_plan(shown, PLAIN)
        == """\
Name      shop/payments
Plan      waits for an approval
Policy    Approval
Schema    0001 → 0003
Hash      abc123

Steps
  0002 Add a column
  0003 Drop the old keys (destructive)

Next
  kubectl picopay approve payments --namespace shop --plan-hash abc123"""
    )


def test_a_plan_that_does_not_wait() -> None:
    world = serving()
    assert not overview.schema_plan(world.observed()).waits
    world.change(version="1.5.0")
    world.settle()
    world.end_job(world.jobs()[-1], report(current="0002", head="0002", applied=["0002"]))
    world.settle()
    shown = overview.schema_plan(world.observed())
    assert (shown.waits, shown.applied, shown.message) == (False, ["0002"], "the schema is at 0002")
    assert "nothing waits" in text.schema_plan(shown, PLAIN)


def test_what_is_ready_is_ready_for_the_spec_as_it_is_now() -> None:
    world = serving()
    shown = overview.overview(world.observed())
    assert (shown.ready, shown.next) == (True, [])
    assert "State     ✓ ready\nVersion   1.4.0\n" in written(world)
    world.generation += 1
    shown = overview.overview(world.observed())
    assert (shown.ready, shown.reason) == (False, "Waiting")
    assert "has not seen the last change" in shown.message


def test_what_waits_for_the_last_pod_of_a_release() -> None:
    world = serving()
    world.start_pod("payments-api-old")
    world.change(version="1.5.0")
    world.later(seconds=5)
    later = {"revision": "0003", "title": "Drop the old keys", "destructive": True}
    said = {"release": "1.5.0", "head": "0003", "current": "0002"}
    world.run(**said, waiting=[later])
    told = text.schema_plan(overview.schema_plan(world.observed()), PLAIN)
    assert "waits until the pods of earlier releases are gone" in told
    assert "Later\n  0003 Drop the old keys (destructive)" in told
    del world.children[Ref("Pod", "payments-api-old")]
    world.settle()
    world.end_job(world.jobs()[-1], report(ok=False, exit_code=8, plan_hash="abc", **said), 8)
    world.settle()
    assert overview.overview(world.observed()).ready
    assert "kubectl picopay approve payments --namespace shop" in written(world)


def test_an_engine_that_nobody_has_seen() -> None:
    world = World()
    shown = overview.overview(world.observed())
    assert (shown.ready, shown.reason) == (False, "")
    assert "✗ not ready\n          no operator has seen it yet" in written(world)
    assert "nothing is known yet" in text.schema_plan(overview.schema_plan(world.observed()), PLAIN)


def test_pods_stand_below_what_they_belong_to() -> None:
    world = serving()
    ready = [{"type": "Ready", "status": "True"}]
    runs = pod(world, "payments-api", conditions=ready, containerStatuses=[{"restartCount": 2}])
    waiting = {"state": {"waiting": {"reason": "ImagePullBackOff"}}}
    pulls = pod(world, "payments-worker", containerStatuses=[waiting], phase="Pending")
    ends = pod(world, "payments-api")
    world.children[Ref("Pod", ends)]["metadata"]["deletionTimestamp"] = world.now.isoformat()
    pod(world, "payments-api-other")
    world.later(minutes=3)
    api, worker = overview.overview(world.observed()).workloads
    assert [(one.name, one.state, one.ready, one.restarts) for one in api.pods] == [
        (runs, "Running", True, 2),
        (ends, "Terminating", False, 0),
    ]
    assert [(one.name, one.state) for one in worker.pods] == [(pulls, "ImagePullBackOff")]
    lines = written(world).splitlines()
    assert any(line.split() == ["✓", runs, "Running", "3m,", "2", "restarts"] for line in lines)


def test_two_versions_beside_each_other() -> None:
    world = serving(rollout=BLUE_GREEN)
    blue = overview.overview(world.observed()).workloads[0].name
    world.change(version="1.5.0")
    world.settle()
    world.end_job(world.jobs()[-1], report(release="1.5.0"))
    world.settle()
    world.come_up()
    world.settle()
    for job in world.jobs("check"):
        world.end_job(job)
    world.settle()
    shown = overview.overview(world.observed())
    assert [one.serves for one in shown.workloads] == [True, False, False]
    assert shown.workloads[0].name == blue
    assert shown.workloads[1].image.endswith("1.5.0")
    assert shown.next == ["kubectl picopay promote payments --namespace shop"]
    assert "Before    1.5.0" not in written(serving())


def test_a_database_in_the_cluster_is_shown() -> None:
    world = World({"database": {"postgres": {}}})
    world.run()
    kinds = [(one.kind, one.component) for one in overview.overview(world.observed()).workloads]
    assert kinds == [
        ("Deployment", "api"),
        ("Deployment", "worker"),
        ("StatefulSet", "database"),
    ]


def test_what_a_job_has_said_is_shown_and_cannot_steer_a_terminal() -> None:
    world = serving()
    world.change(version="1.5.0")
    world.settle()
    world.end_job(world.jobs()[-1], "Traceback\n\x1b[2Jno such\x07 column", 5)
    world.settle()
    shown = written(world)
    assert "no such  column" in shown
    assert "\x1b" not in shown
    assert "\x07" not in shown
    (failed,) = [one for one in overview.overview(world.observed()).jobs if one.state == "Failed"]
    assert failed.message.startswith("Traceback")


def test_paused_and_suspended_are_told() -> None:
    world = serving(paused=True, suspended=True)
    assert "Switched  paused and suspended" in written(world)


def test_the_key_is_told_of_and_never_shown() -> None:
    world = serving(auth={"adminKeySecretName": "root", "overlapSeconds": 60})
    shown = overview.admin_key(world.observed())
    assert (shown.secret, shown.key, shown.overlap_seconds) == ("root", "api-key", 60)
    told = text.admin_key(shown, PLAIN)
    assert "kubectl get secret root --namespace shop" in told
    assert "Replaced  never" in told
    world.annotations[names.ROTATE_KEY] = "2026-01-01"
    assert "Replaced  2026-01-01" in text.admin_key(overview.admin_key(world.observed()), PLAIN)


def event(kind: str, name: str, at: str, **fields: Any) -> dict[str, Any]:
    return {
        "metadata": {"creationTimestamp": at},
        "regarding": {"kind": kind, "name": name},
        "type": "Normal",
        "reason": "Made",
        "note": "it was\nmade",
    } | fields


def test_events_of_an_engine_and_of_what_belongs_to_it() -> None:
    world = serving()
    bodies = [
        event("Deployment", "payments-api", "2025-12-31T23:58:00Z"),
        event("PicoPayEngine", "payments", "2025-12-31T23:00:00Z", type="Warning"),
        event("PicoPayEngine", "other", "2025-12-31T23:59:00Z"),
        event("Deployment", "payments-other", "2025-12-31T23:59:00Z"),
        event(
            "Job",
            world.jobs()[0],
            "2025-12-31T20:00:00Z",
            series={"lastObservedTime": "2025-12-31T23:59:59Z"},
        ),
    ]
    shown = overview.events(world.observed(), bodies)
    assert [one.object for one in shown] == [
        "PicoPayEngine/payments",
        "Deployment/payments-api",
        f"Job/{world.jobs()[0]}",
    ]
    head, first, *_ = text.events(shown, world.now, PLAIN).splitlines()
    assert head.split() == ["AGE", "TYPE", "REASON", "OBJECT", "MESSAGE"]
    assert first.split() == [
        "60m",
        "Warning",
        "Made",
        "PicoPayEngine/payments",
        "it",
        "was",
        "made",
    ]
    assert text.events([], world.now, PLAIN) == "nothing has happened lately"


def test_programs_get_the_same() -> None:
    shown = overview.overview(held().observed())
    document = msgspec.json.decode(msgspec.json.encode(shown))
    assert document["wantedVersion"] == "1.5.0"
    assert document["schema"]["planHash"] == "abc123"
    assert document["conditions"][0]["observedGeneration"] == 2
    assert document["workloads"][0]["serves"] is True


def test_colours_change_nothing_else() -> None:
    world = held()
    shown = overview.overview(world.observed())
    coloured = text.overview(shown, world.now, Paint(enabled=True))
    assert "\x1b[31m✗ not ready" in coloured
    assert text._ESCAPE.sub("", coloured) == written(world)


@pytest.mark.parametrize(
    ("ago", "shown"),
    [
        (0, "0s"),
        (119, "119s"),
        (120, "2m"),
        (7_199, "119m"),
        (7_200, "2h"),
        (172_800, "2d"),
        (-5, "0s"),
    ],
)
def test_ages(ago: int, shown: str) -> None:
    now = datetime(2026, 1, 1, tzinfo=UTC)
    assert text.age((now - timedelta(seconds=ago)).isoformat(), now) == shown


def test_an_age_that_is_not_known() -> None:
    assert text.age(None, datetime(2026, 1, 1, tzinfo=UTC)) == "-"
