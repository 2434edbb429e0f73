"""The plan: from what was seen of an engine to what is to be done now. Pure, and the order in one place.

secrets -> database -> migration (with its preflight) -> check of the money -> rollout -> exposure. Called by
`reconcile.py`; every step has a module of its own here. A step that cannot go on does not stop those behind
it: they keep what is there, and repair it to what it was admitted with.
"""

from collections.abc import Sequence

from msgspec import structs

from picopay_operator import drift, names
from picopay_operator.conditions import (
    FALSE,
    TRUE,
    Finding,
    Notice,
    Reason,
    Type,
    merge,
    notices,
    summary,
    worst,
)
from picopay_operator.manifests.context import Access, Context, Manifest
from picopay_operator.names import Component
from picopay_operator.plan import (
    budget,
    database,
    deletion,
    exposure,
    jobs,
    migration,
    rollout,
    running,
    secrets,
    upkeep,
)
from picopay_operator.plan.admitted import Admitted, Cleared, image_of
from picopay_operator.plan.jobs import JobState
from picopay_operator.plan.outcome import Observed, Plan, Step
from picopay_operator.plan.schema import Schema
from picopay_operator.plan.upkeep import Verdict
from picopay_operator.resources import OPTIONAL, Ref
from picopay_operator.spec.status import EngineStatus, Secrets

_PRUNED = frozenset(
    {
        "Deployment",
        "Service",
        "ConfigMap",
        "Ingress",
        "NetworkPolicy",
        "PodDisruptionBudget",
        "HorizontalPodAutoscaler",
        "HTTPRoute",
        "ServiceMonitor",
        "PrometheusRule",
    }
)
"""Kinds that are deleted when nobody wants them any more: none of them holds data."""


def plan(observed: Observed) -> Plan:
    """Return what to do now for an engine."""
    if observed.engine.metadata.deletion_timestamp:
        return deletion.plan(observed)
    access, to_database = database.step(observed)
    cleared, schema, to_migrate = migration.step(observed, access)
    made = secrets.step(observed) | to_database | to_migrate | _run(observed, access, cleared)
    made |= Step(
        findings=[
            _paused(observed),
            budget.finding(observed.engine.spec, schema.connections_max),
            upkeep.not_needed(),  # unless something above has looked
        ]
    )
    return _concluded(observed, made, schema)


def _run(observed: Observed, access: Access | None, cleared: Cleared | None) -> Step:
    """Run what may run: what is wanted where it was cleared and checked, else what runs already."""
    engine, serving = observed.engine, running.serving(observed)
    version = (serving and serving.version) or image_of(engine.spec, observed.release, None)[1]
    verdict = Verdict.UNKNOWN
    made = exposure.policies(engine, version, access, serving.access if serving else None)
    if cleared and access:
        data_hash = secrets.data_hash(observed, access)
        if serving and not secrets.are_there(observed):
            data_hash = serving.data_hash  # new pods could not start
        context = Context(engine, cleared.image, cleared.version, access, data_hash)
        verdict, looked = _checked(observed, context, cleared)
        made |= looked | upkeep.admin_key(observed, context)
        if verdict is Verdict.SOUND:
            return made | _rolled_out(observed, Admitted.of(context), cleared)
    if serving is None:
        return made | rollout.kept(observed)
    job = migration.excluding(observed, serving)
    if job and verdict is Verdict.UNKNOWN:
        message = f"pods come back after the Job {job}, which has begun while there were none"
        made |= Step(findings=[Finding(Type.AVAILABLE, FALSE, Reason.PODS_UNAVAILABLE, message)])
        spec = structs.replace(engine.spec, suspended=True)
        observed = structs.replace(observed, engine=structs.replace(engine, spec=spec))
    return made | _rolled_out(observed, serving, running.cleared(observed))


def _checked(observed: Observed, context: Context, cleared: Cleared) -> tuple[Verdict, Step]:
    """Check the money after each migration beside which payments were made, before anything goes on."""
    before = running.cleared(observed)
    is_done = before is not None and before.job == cleared.job
    if running.active(observed) is None or (
        is_done and not upkeep.is_open(observed, context, cleared.job)
    ):
        return Verdict.SOUND, Step()
    if rollout.goes_beside(observed, Admitted.of(context)):
        # It is checked before the Service switches, which is later and better.
        return Verdict.SOUND, Step()
    return upkeep.check(observed, context, cleared.job)


def _rolled_out(observed: Observed, wanted: Admitted, cleared: Cleared | None) -> Step:
    context = wanted.context(observed.engine)
    made = rollout.step(observed, wanted, cleared) | exposure.step(observed, context)
    since = running.unavailable_since(observed)
    return made | upkeep.reach(observed, context, since) if since else made


def _paused(observed: Observed) -> Finding:
    if observed.engine.spec.paused:
        message = "nothing is applied or repaired until spec.paused is off"
        return Finding(Type.PAUSED, TRUE, Reason.PAUSED, message)
    return Finding(
        Type.PAUSED, FALSE, Reason.NOT_PAUSED, "changes are applied, and what is broken is repaired"
    )


def _concluded(observed: Observed, made: Step, schema: Schema) -> Plan:
    """Turn the steps into a plan: only what differs is applied, only what nobody wants is deleted."""
    engine = observed.engine
    apply, repairs = _to_apply(observed, made.wanted)
    if engine.spec.paused and apply:
        message = (
            f"{len(apply)} objects would be changed, the first is {' '.join(Ref.of(apply[0]))}"
        )
        waits = Finding(Type.ROLLOUT_COMPLETE, FALSE, Reason.PAUSED, message)
        made |= Step(findings=[waits])
    status = _status(observed, made, schema)
    told = list(notices(engine.status.conditions, status.conditions))
    if engine.spec.paused:
        return Plan(status=status, notices=told, look_again_s=made.look_again_s)
    return Plan(
        status=status,
        apply=apply,
        delete=_to_delete(observed, made),
        generated=made.generated,
        notices=[*told, *repairs],
        finalizer=True,
        look_again_s=made.look_again_s,
    )


def _to_apply(
    observed: Observed, wanted: Sequence[Manifest]
) -> tuple[list[Manifest], list[Notice]]:
    apply, told = [], []
    for manifest in map(drift.marked, wanted):
        ref = Ref.of(manifest)
        live = observed.children.get(ref)
        if live is None:
            apply.append(manifest)
            continue
        differences = drift.differences(manifest, live)
        if differences:
            apply.append(manifest)
        applied = live["metadata"].get("annotations", {}).get(names.APPLIED)
        if differences and applied == manifest["metadata"]["annotations"][names.APPLIED]:
            # The same was wanted before: somebody else has changed it since.
            fields = ", ".join(differences[:5])
            told.append(Notice("DriftCorrected", f"{ref.kind} {ref.name} was changed: {fields}"))
    return apply, told


def _to_delete(observed: Observed, made: Step) -> list[Ref]:
    stays = {*map(Ref.of, made.wanted), *made.kept}
    unwanted = [
        ref
        for ref in observed.children
        # A kind that the server does not list at the moment is wanted by nobody, and may be back in the next.
        if ref.kind in _PRUNED - (OPTIONAL - observed.apis) and ref not in stays
    ]
    unwanted += _finished_jobs(observed, stays)
    return [ref for ref in dict.fromkeys((*made.deleted, *unwanted)) if ref in observed.children]


def _finished_jobs(observed: Observed, stays: set[Ref]) -> list[Ref]:
    """Return Jobs of keys and checks whose time is over; `migration.py` looks after its own.

    That of a key stays until there is another one: that it has succeeded is known from nowhere else.
    """
    finished: dict[str, list[Ref]] = {Component.ADMIN_KEY: [], Component.CHECK: []}
    has_newer_key = False
    for job in observed.of_kind("Job"):
        ref = Ref("Job", job["metadata"]["name"])
        component = job["metadata"].get("labels", {}).get(names.COMPONENT_LABEL)
        if ref in stays:
            has_newer_key |= component == Component.ADMIN_KEY
        elif component in finished and jobs.state(job) is not JobState.RUNNING:
            finished[component].append(ref)
    return finished[Component.CHECK] + (finished[Component.ADMIN_KEY] if has_newer_key else [])


def _status(observed: Observed, made: Step, schema: Schema) -> EngineStatus:
    engine, before = observed.engine, observed.engine.status
    findings = worst(made.findings)
    serving, pods = running.serving(observed), running.pods(observed)
    complete = findings.get(Type.ROLLOUT_COMPLETE)
    # What the Deployment is made from, serves once its pods do.
    serves = serving if before.image is None or (complete and complete.status is TRUE) else None
    selector = names.selector(observed.name, Component.API)
    in_cluster = engine.spec.database.postgres is not None
    now = observed.now.isoformat(timespec="seconds")
    generation = engine.metadata.generation
    return structs.replace(
        before,
        observed_generation=generation,
        conditions=merge(
            [*summary(findings), *findings.values()], before.conditions, generation, now
        ),
        replicas=pods.replicas,
        ready_replicas=pods.ready,
        selector=",".join(f"{key}={value}" for key, value in selector.items()),
        version=serves.version if serves else before.version,
        image=serves.image if serves else before.image,
        schema=schema.revisions,
        releases=schema.releases,
        connections_max=schema.connections_max,
        endpoint=exposure.endpoint(engine),
        secrets=Secrets(
            admin_key=secrets.admin_key_name(engine),
            database=names.postgres(observed.name) if in_cluster else None,
        ),
    )
