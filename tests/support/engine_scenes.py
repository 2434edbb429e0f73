"""For each condition and reason of an engine a scene in which it comes about, played on the plan alone.

Used by `test_condition_reasons.py`, which fails for a reason that has none.
"""

from collections.abc import Callable
from datetime import timedelta
from typing import Any, NamedTuple

from picopay_operator.conditions import Reason, Type
from picopay_operator.plan.outcome import SecretSeen
from support.world import World, report, secret

EXTERNAL: dict[str, Any] = {"database": {"secretRef": {"name": "db"}}, "version": "1.4.0"}
POSTGRES: dict[str, Any] = {"database": {"postgres": {}}}
CNPG: dict[str, Any] = {"database": {"cloudNativePG": {"instances": 1}}}
BLUE_GREEN: dict[str, Any] = EXTERNAL | {"rollout": {"strategy": "BlueGreen"}}
PROMOTED_BY_HAND = {"strategy": "BlueGreen", "blueGreen": {"autoPromote": False}}
STUCK = {"type": "Progressing", "status": "False", "reason": "ProgressDeadlineExceeded"}


def begun(spec: dict[str, Any] = EXTERNAL) -> World:
    """An engine that was just applied."""
    world = World(spec)
    world.settle()
    return world


def served(spec: dict[str, Any] = EXTERNAL, **said: Any) -> World:
    world = World(spec)
    world.run(**said)
    return world


def ended(said: str, code: int) -> World:
    """An engine that serves, and whose migration to the next version has ended so."""
    world = served()
    world.change(version="1.5.0")
    world.settle()
    world.end_job(world.jobs()[-1], said, code)
    world.settle()
    return world


def migrated(spec: dict[str, Any] = EXTERNAL) -> World:
    """An engine that serves, and whose next version was migrated and not yet rolled out."""
    world = served(spec)
    world.change(version="1.5.0")
    world.settle()
    world.end_job(world.jobs()[-1], report(release="1.5.0"))
    world.settle()
    return world


def contracting() -> World:
    """An engine of which a pod of the version before is still there, while steps wait for that to end."""
    world = served()
    world.start_pod("payments-api-1")
    world.change(version="1.5.0")
    world.later(seconds=5)
    waits = {"revision": "0003", "title": "Forget", "destructive": True}
    world.run(release="1.5.0", head="0003", current="0002", waiting=[waits])
    return world


def checked(code: int) -> World:
    world = migrated()
    (job,) = world.jobs("check")
    world.end_job(job, f'{{"ok": false, "exit_code": {code}, "findings": []}}', code)
    world.settle()
    return world


def without_secret(seen: SecretSeen | None) -> World:
    world = World(EXTERNAL)
    world.secrets["db"] = seen
    world.settle()
    return world


def with_config_map(data: dict[str, str] | None) -> World:
    """An engine with a variable whose value is in a ConfigMap."""
    reference = {"name": "flags", "key": "level"}
    variable = {"name": "PICOPAY_LEVEL", "valueFrom": {"configMapKeyRef": reference}}
    world = World(EXTERNAL | {"env": [variable]})
    world.config_maps["flags"] = data
    world.settle()
    return world


def lost() -> World:
    world = served(POSTGRES)
    world.secrets["payments-postgres"] = None
    world.settle()
    return world


def foreign() -> World:
    world = World(EXTERNAL)
    world.secrets["payments-admin-key"] = secret(api_key="theirs")
    world.settle()
    return world


def key_pending() -> World:
    world = begun()
    world.end_job(world.jobs()[0], report())
    world.settle()
    return world


def key_failed() -> World:
    world = key_pending()
    world.end_job(world.jobs("key")[0], "no such role", 5)
    world.settle()
    return world


def changed(**spec: Any) -> World:
    world = served()
    world.change(**spec)
    world.run()
    return world


def resumed() -> World:
    world = changed(paused=True)
    world.change(paused=False)
    world.run()
    return world


def lacking(spec: dict[str, Any], *, serves: bool = True) -> World:
    """An engine in a cluster without any optional kind."""
    world = World(spec)
    world.apis = frozenset()
    if serves:
        world.run()
    else:
        world.settle()
    return world


def rolling(status: dict[str, Any], spec: dict[str, Any] = EXTERNAL, **pod: Any) -> World:
    """An engine whose new Deployment has a status, and a pod that is not well."""
    world = migrated(spec)
    if world.jobs("check"):
        world.end_job(world.jobs("check")[0])
        world.settle()
    name = [ref.name for ref in world.children if ref.kind == "Deployment" and "-api" in ref.name][
        -1
    ]
    live = world.deployment(name)
    live["status"] = {"observedGeneration": live["metadata"]["generation"], **status}
    if pod:
        world.start_pod("payments-api-1", name)["status"] = pod
    world.settle()
    return world


def waiting(reason: str) -> World:
    return rolling({}, containerStatuses=[{"state": {"waiting": {"reason": reason}}}])


def unavailable() -> World:
    world = served()
    world.deployment()["status"]["conditions"] = [{"type": "Available", "status": "False"}]
    world.settle()
    return world


def deleted() -> World:
    world = served(POSTGRES)
    world.deleted_at = world.now
    world.settle()
    return world


def let_go() -> World:
    world = served()
    world.deleted_at = world.now + timedelta(seconds=1)
    world.step()
    return world


def broken_by_hand() -> World:
    world = served()
    world.deployment()["spec"]["template"]["spec"]["containers"][0]["image"] = "evil:1"
    world.settle()
    return world


def promoted_by_hand() -> World:
    world = migrated(EXTERNAL | {"rollout": PROMOTED_BY_HAND})
    world.run(release="1.5.0")
    return world


class Scene(NamedTuple):
    """What is played, and what an engine says then."""

    play: Callable[[], World]
    type: Type
    status: str
    reason: Reason


AHEAD = report(ok=False, exit_code=5, code="schema_ahead", oldest_release="0002")
GAP = report(ok=False, exit_code=5, code="schema_gap", detail="1.5.0 needs schema 0003")
HELD = report(ok=False, exit_code=8, plan_hash="abc")
AWAY = report(ok=False, exit_code=4, current=None)
WATCHED = EXTERNAL | {"monitoring": {"dashboard": {"enabled": True}}}
MONITORED = EXTERNAL | {"monitoring": {"prometheusRule": {"enabled": True}}}
ROUTED = EXTERNAL | {"httpRoute": {"parentRefs": [{"name": "web"}]}}
ENTERED = EXTERNAL | {"ingress": {"host": "pay.example.com"}}
REFERRED = {"database": {"cloudNativePG": {"clusterRef": {"name": "bank"}}}}

SCENES = [
    Scene(served, Type.READY, "True", Reason.APPLIED),
    Scene(served, Type.RECONCILING, "False", Reason.APPLIED),
    Scene(served, Type.STALLED, "False", Reason.APPLIED),
    Scene(served, Type.SECRETS_READY, "True", Reason.SECRETS_FOUND),
    Scene(served, Type.DATABASE_REACHABLE, "True", Reason.REACHABLE),
    Scene(served, Type.CONNECTION_BUDGET, "True", Reason.WITHIN_BUDGET),
    Scene(served, Type.SCHEMA_MIGRATED, "True", Reason.MIGRATED),
    Scene(served, Type.SCHEMA_COMPATIBLE, "True", Reason.COMPATIBLE),
    Scene(served, Type.LEDGER_SOUND, "True", Reason.SOUND),
    Scene(served, Type.AVAILABLE, "True", Reason.PODS_AVAILABLE),
    Scene(served, Type.ROLLOUT_COMPLETE, "True", Reason.ROLLED_OUT),
    Scene(served, Type.EXPOSED, "True", Reason.CLUSTER_ONLY),
    Scene(served, Type.MONITORED, "True", Reason.NOT_WANTED),
    Scene(served, Type.PAUSED, "False", Reason.NOT_PAUSED),
    Scene(begun, Type.SCHEMA_COMPATIBLE, "Unknown", Reason.WAITING),
    Scene(begun, Type.SCHEMA_MIGRATED, "False", Reason.MIGRATION_RUNNING),
    Scene(resumed, Type.PAUSED, "False", Reason.NOT_PAUSED),
    Scene(lambda: changed(paused=True), Type.PAUSED, "True", Reason.PAUSED),
    Scene(lambda: changed(suspended=True), Type.AVAILABLE, "False", Reason.SUSPENDED),
    Scene(deleted, Type.READY, "False", Reason.DELETING),
    Scene(let_go, Type.RECONCILING, "True", Reason.DELETING),
    Scene(lambda: without_secret(None), Type.SECRETS_READY, "False", Reason.SECRET_NOT_FOUND),
    Scene(
        lambda: without_secret(secret(other="x")),
        Type.SECRETS_READY,
        "False",
        Reason.SECRET_KEY_MISSING,
    ),
    Scene(lambda: with_config_map(None), Type.SECRETS_READY, "False", Reason.CONFIG_MAP_NOT_FOUND),
    Scene(
        lambda: with_config_map({"other": "x"}),
        Type.SECRETS_READY,
        "False",
        Reason.CONFIG_MAP_KEY_MISSING,
    ),
    Scene(lost, Type.STALLED, "True", Reason.SECRET_LOST),
    Scene(foreign, Type.SECRETS_READY, "False", Reason.ADOPTION_REFUSED),
    Scene(lambda: ended(report(), 0), Type.LEDGER_SOUND, "False", Reason.CHECK_RUNNING),
    Scene(key_pending, Type.SECRETS_READY, "False", Reason.KEY_PENDING),
    Scene(key_failed, Type.SECRETS_READY, "False", Reason.KEY_FAILED),
    Scene(lambda: begun(POSTGRES), Type.DATABASE_REACHABLE, "Unknown", Reason.DATABASE_STARTING),
    Scene(lambda: ended(AWAY, 4), Type.DATABASE_REACHABLE, "False", Reason.DATABASE_UNREACHABLE),
    Scene(lambda: begun(REFERRED), Type.DATABASE_REACHABLE, "False", Reason.CLUSTER_NOT_FOUND),
    Scene(
        lambda: lacking(CNPG, serves=False),
        Type.DATABASE_REACHABLE,
        "False",
        Reason.OPTIONAL_API_MISSING,
    ),
    Scene(lambda: lacking(ROUTED), Type.EXPOSED, "False", Reason.OPTIONAL_API_MISSING),
    Scene(lambda: lacking(MONITORED), Type.MONITORED, "False", Reason.OPTIONAL_API_MISSING),
    Scene(lambda: served(WATCHED), Type.MONITORED, "True", Reason.APPLIED),
    Scene(
        lambda: served(connections_max=20),
        Type.CONNECTION_BUDGET,
        "False",
        Reason.BUDGET_EXCEEDED,
    ),
    Scene(lambda: ended("boom", 1), Type.STALLED, "True", Reason.MIGRATION_FAILED),
    Scene(lambda: ended(AWAY, 4), Type.SCHEMA_MIGRATED, "False", Reason.MIGRATION_PENDING),
    Scene(lambda: ended(HELD, 8), Type.SCHEMA_MIGRATED, "False", Reason.APPROVAL_PENDING),
    Scene(lambda: ended(AHEAD, 5), Type.SCHEMA_COMPATIBLE, "False", Reason.ROLLBACK_REFUSED),
    Scene(lambda: ended(GAP, 5), Type.SCHEMA_COMPATIBLE, "False", Reason.UPGRADE_REFUSED),
    Scene(contracting, Type.SCHEMA_MIGRATED, "True", Reason.CONTRACT_PENDING),
    Scene(lambda: checked(1), Type.LEDGER_SOUND, "False", Reason.FINDINGS),
    Scene(lambda: checked(6), Type.LEDGER_SOUND, "False", Reason.CHECK_FAILED),
    Scene(unavailable, Type.AVAILABLE, "False", Reason.PODS_UNAVAILABLE),
    Scene(lambda: rolling({}), Type.ROLLOUT_COMPLETE, "False", Reason.PROGRESSING),
    Scene(promoted_by_hand, Type.ROLLOUT_COMPLETE, "False", Reason.PROMOTION_PENDING),
    Scene(
        lambda: rolling({"conditions": [STUCK]}),
        Type.STALLED,
        "True",
        Reason.DEADLINE_EXCEEDED,
    ),
    Scene(
        lambda: rolling({"conditions": [STUCK]}, BLUE_GREEN),
        Type.STALLED,
        "True",
        Reason.ROLLOUT_ABORTED,
    ),
    Scene(
        lambda: waiting("ErrImagePull"), Type.ROLLOUT_COMPLETE, "False", Reason.IMAGE_PULL_FAILED
    ),
    Scene(
        lambda: waiting("CrashLoopBackOff"), Type.ROLLOUT_COMPLETE, "False", Reason.CRASH_LOOPING
    ),
    Scene(
        lambda: waiting("CreateContainerError"), Type.ROLLOUT_COMPLETE, "False", Reason.POD_PENDING
    ),
    Scene(lambda: served(ENTERED), Type.EXPOSED, "True", Reason.EXPOSED),
]
