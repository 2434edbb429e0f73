"""What is shown of an engine: shapes, and how they come from what was seen. Pure.

The same shapes are written as JSON for programs and, by `text.py`, as text for people. Called by
`commands.py`.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from msgspec import Struct

from picopay_operator import contract, names
from picopay_operator.conditions import TRUE, Reason, Type
from picopay_operator.contract import MigrationReport
from picopay_operator.names import Component
from picopay_operator.plan import jobs, running, secrets
from picopay_operator.plan.jobs import Live
from picopay_operator.plan.outcome import Observed
from picopay_operator.plugin.changes import beside, condition
from picopay_operator.spec.status import Condition, Revisions, ServedRelease

_JOBS_MAX = 5
_EVENTS_MAX = 30


class Shown(Struct, frozen=True, rename="camel"):
    """Something that is shown; its fields are those of the JSON."""


class Pod(Shown, frozen=True):
    """A pod of a Deployment or StatefulSet."""

    name: str
    state: str
    ready: bool
    restarts: int
    created_at: str | None


class Workload(Shown, frozen=True):
    """A Deployment or StatefulSet; `serves` where the API's Service leads to it."""

    kind: str
    name: str
    component: str
    serves: bool
    image: str
    replicas: int
    updated: int
    ready: int
    pods: list[Pod]


class Job(Shown, frozen=True):
    """A Job, and what it has said in the end."""

    name: str
    component: str
    state: str
    failures: int
    created_at: str | None
    message: str


class Overview(Shown, frozen=True):
    """An engine. `ready` is about the spec as it is now; `next` are commands that may be wanted now."""

    name: str
    namespace: str
    ready: bool
    reason: str
    message: str
    paused: bool
    suspended: bool
    version: str | None
    wanted_version: str | None
    image: str | None
    schema: Revisions
    replicas: int
    ready_replicas: int
    endpoint: str | None
    conditions: list[Condition]
    workloads: list[Workload]
    jobs: list[Job]
    releases: list[ServedRelease]
    next: list[str]


class SchemaPlan(Shown, frozen=True):
    """What a migration would do that waits for its approval; `applied` is what the last one has done.

    `waiting` is what waits until the pods of earlier releases are gone.
    """

    name: str
    namespace: str
    policy: str
    current: str | None
    target: str | None
    waits: bool
    plan_hash: str | None
    steps: list[str]
    applied: list[str]
    waiting: list[str]
    message: str


class AdminKey(Shown, frozen=True):
    """Where the administrator's key is, and how far its replacement is. Never its value."""

    name: str
    namespace: str
    secret: str
    key: str
    previous_key: str
    overlap_seconds: int
    rotation: str | None
    message: str
    read: str


class Event(Shown, frozen=True):
    """Something that has happened to an engine, or to what belongs to it."""

    at: str
    type: str
    reason: str
    object: str
    message: str


class LeftOut(Shown, frozen=True):
    """Something that is not in a bundle for support, and why."""

    what: str
    why: str


class SupportBundle(Shown, frozen=True):
    """A bundle that was written: where it is, what is in it, what it lacks, and what to do with it."""

    file: str
    bytes: int
    files: list[str]
    left_out: list[LeftOut]
    next: list[str]


_NEXT: Mapping[str, Sequence[str]] = {
    Reason.APPROVAL_PENDING: ("plan", "approve"),
    Reason.PROMOTION_PENDING: ("promote",),
    Reason.MIGRATION_FAILED: ("logs --component migration", "retry", "rollback"),
    Reason.ROLLBACK_REFUSED: ("rollback",),
    Reason.FINDINGS: ("logs --component check", "retry"),
    Reason.CHECK_FAILED: ("logs --component check", "retry"),
    Reason.KEY_FAILED: ("logs --component admin-key", "retry"),
    Reason.DATABASE_UNREACHABLE: ("logs --component migration",),
    Reason.CRASH_LOOPING: ("logs --previous", "rollback"),
    Reason.IMAGE_PULL_FAILED: ("events", "rollback"),
    Reason.DEADLINE_EXCEEDED: ("events", "rollback"),
    Reason.ROLLOUT_ABORTED: ("events", "rollback"),
    Reason.POD_PENDING: ("events",),
}
"""For a reason: commands that help to understand it, and those by which it goes on."""


def overview(observed: Observed) -> Overview:
    """Return what there is to see of an engine."""
    engine = observed.engine
    spec, status = engine.spec, engine.status
    ready = condition(observed, Type.READY)
    seen = ready is not None and ready.observed_generation == engine.metadata.generation
    reason, message = (
        (ready.reason, ready.message) if ready else ("", "no operator has seen it yet")
    )
    if ready and not seen:
        reason, message = Reason.WAITING.value, "the operator has not seen the last change yet"
    return Overview(
        name=observed.name,
        namespace=engine.metadata.namespace,
        ready=ready is not None and seen and ready.status is TRUE,
        reason=reason,
        message=message,
        paused=spec.paused,
        suspended=spec.suspended,
        version=status.version,
        wanted_version=spec.version or spec.image.tag,
        image=status.image,
        schema=status.schema,
        replicas=status.replicas,
        ready_replicas=status.ready_replicas,
        endpoint=status.endpoint,
        conditions=list(status.conditions),
        workloads=list(_workloads(observed)),
        jobs=[_job(observed, job) for job in _newest(observed.of_kind("Job"))[:_JOBS_MAX]],
        releases=list(status.releases),
        next=list(_next(observed)),
    )


def schema_plan(observed: Observed) -> SchemaPlan:
    """Return what is known of the migration that is wanted."""
    schema = observed.engine.status.schema
    report = None
    if schema.job:
        ending = jobs.ending(jobs.pods_of(observed, schema.job))
        report = contract.read_report(MigrationReport, ending.message)
    told = [condition(observed, kind) for kind in (Type.SCHEMA_MIGRATED, Type.SCHEMA_COMPATIBLE)]
    wrong = [one for one in told if one and one.status is not TRUE]
    return SchemaPlan(
        name=observed.name,
        namespace=observed.engine.metadata.namespace,
        policy=observed.engine.spec.migrations.policy.value,
        current=schema.current,
        target=schema.target,
        waits=schema.plan_hash is not None,
        plan_hash=schema.plan_hash,
        steps=list(schema.plan),
        applied=list(report.applied) if report else [],
        waiting=list(schema.waiting),
        message=next((one.message for one in (*wrong, *told) if one), "nothing is known yet"),
    )


def admin_key(observed: Observed) -> AdminKey:
    """Return where the administrator's key is."""
    engine = observed.engine
    secret, namespace = secrets.admin_key_name(engine), engine.metadata.namespace
    told = condition(observed, Type.SECRETS_READY)
    read = (
        f"kubectl get secret {secret} --namespace {namespace}"
        f" --output jsonpath='{{.data.{contract.ADMIN_KEY}}}' | base64 --decode"
    )
    return AdminKey(
        name=observed.name,
        namespace=namespace,
        secret=secret,
        key=contract.ADMIN_KEY,
        previous_key=contract.PREVIOUS_ADMIN_KEY,
        overlap_seconds=engine.spec.auth.overlap_seconds,
        rotation=engine.metadata.annotations.get(names.ROTATE_KEY),
        message=told.message if told else "nothing is known yet",
        read=read,
    )


def events(observed: Observed, bodies: Sequence[Live]) -> list[Event]:
    """Return the newest Events of a namespace that are about an engine or what belongs to it, in order."""
    belong = {(ref.kind, ref.name) for ref in observed.children} | {(names.KIND, observed.name)}
    found = []
    for body in bodies:
        about = body.get("regarding", {})
        if (about.get("kind"), about.get("name")) in belong:
            found.append(_event(body, f"{about['kind']}/{about['name']}"))
    return sorted(found, key=lambda one: one.at)[-_EVENTS_MAX:]


def _event(body: Live, about: str) -> Event:
    at = (
        (body.get("series") or {}).get("lastObservedTime")
        or body.get("deprecatedLastTimestamp")  # of those that the older API has made
        or body.get("eventTime")
        or body["metadata"].get("creationTimestamp", "")
    )
    return Event(at, body.get("type", ""), body.get("reason", ""), about, body.get("note", ""))


def _workloads(observed: Observed) -> Iterator[Workload]:
    """Yield Deployments and StatefulSets: first the one that serves, then the others of the API."""
    active, order = running.active_deployment(observed), [one.value for one in Component]
    waiting = {one["metadata"]["name"] for one in beside(observed)}
    found = [("Deployment", one) for one in observed.of_kind("Deployment")]
    found += [("StatefulSet", one) for one in observed.of_kind("StatefulSet")]

    def place(one: tuple[str, Live]) -> tuple[int, bool, str]:
        component, name = _component(one[1]), str(one[1]["metadata"]["name"])
        return order.index(component) if component in order else len(order), name in waiting, name

    for kind, live in sorted(found, key=place):
        name, status = live["metadata"]["name"], live.get("status", {})
        yield Workload(
            kind=kind,
            name=name,
            component=_component(live),
            serves=name == active,
            image=str(live["spec"]["template"]["spec"]["containers"][0]["image"]),
            replicas=live["spec"].get("replicas", 1),
            updated=status.get("updatedReplicas") or 0,
            ready=status.get("readyReplicas") or 0,
            pods=[_pod(pod) for pod in observed.of_kind("Pod") if _belongs(pod, name)],
        )


def _belongs(pod: Live, workload: str) -> bool:
    """Tell whether a pod is of a Deployment, through its ReplicaSet, or of a StatefulSet."""
    template = pod["metadata"].get("labels", {}).get("pod-template-hash")
    owners = {one["name"] for one in pod["metadata"].get("ownerReferences", ())}
    return not owners.isdisjoint({workload, f"{workload}-{template}"})


def _pod(pod: Live) -> Pod:
    status = pod.get("status", {})
    containers = status.get("containerStatuses") or ()
    ready = [one for one in status.get("conditions", ()) if one.get("type") == "Ready"]
    return Pod(
        name=pod["metadata"]["name"],
        state=_state(pod, containers),
        ready=any(one.get("status") == "True" for one in ready),
        restarts=sum(int(one.get("restartCount") or 0) for one in containers),
        created_at=pod["metadata"].get("creationTimestamp"),
    )


def _state(pod: Live, containers: Sequence[Mapping[str, Any]]) -> str:
    if pod["metadata"].get("deletionTimestamp"):
        return "Terminating"
    for container in containers:
        state = container.get("state", {})
        for kind in ("waiting", "terminated"):
            if reason := state.get(kind, {}).get("reason"):
                return str(reason)
    return str(pod.get("status", {}).get("phase", "Unknown"))


def _job(observed: Observed, job: Live) -> Job:
    name = job["metadata"]["name"]
    ending = jobs.ending(jobs.pods_of(observed, name))
    report = contract.read_report(MigrationReport, ending.message)
    said = (report.detail or "") if report else jobs.tail(ending.message)
    return Job(
        name=name,
        component=_component(job),
        state=jobs.state(job).name.capitalize(),
        failures=jobs.failures(job),
        created_at=job["metadata"].get("creationTimestamp"),
        message=said,
    )


def _newest(found: Sequence[Live]) -> list[Live]:
    return sorted(
        found, key=lambda one: str(one["metadata"].get("creationTimestamp", "")), reverse=True
    )


def _component(child: Live) -> str:
    return str(child["metadata"].get("labels", {}).get(names.COMPONENT_LABEL, ""))


def _next(observed: Observed) -> Iterator[str]:
    namespace = observed.engine.metadata.namespace
    reasons = [
        one.reason
        for one in observed.engine.status.conditions
        # An engine is ready while what comes after its rollout waits for an approval.
        if one.status is not TRUE or one.reason == Reason.APPROVAL_PENDING
    ]
    wanted = [command for reason in reasons for command in _NEXT.get(reason, ())]
    for command in dict.fromkeys(wanted):
        verb, _, options = command.partition(" ")
        line = f"kubectl picopay {verb} {observed.name} --namespace {namespace} {options}"
        yield line.rstrip()
