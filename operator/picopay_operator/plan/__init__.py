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
    secrets,
    upkeep,
)
from picopay_operator.plan.jobs import JobState
from picopay_operator.plan.migration import Cleared, Schema
from picopay_operator.plan.outcome import Observed, Plan, Step
from picopay_operator.resources import OPTIONAL, Ref
from picopay_operator.spec.pods import Strategy
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
        findings=[_paused(observed), budget.finding(observed.engine.spec, schema.connections_max)]
    )
    return _concluded(observed, made, schema)


def _run(observed: Observed, access: Access | None, cleared: Cleared | None) -> Step:
    """Run what may run: what is wanted where it was cleared and checked, else what runs already."""
    engine, serving = observed.engine, rollout.serving(observed)
    version = serving.version if serving else migration.image_of(engine.spec, observed.release)[1]
    checked = Step(findings=[upkeep.not_needed()])
    checked |= exposure.policies(engine, version, access, serving.access if serving else None)
    if cleared and access:
        data_hash = secrets.data_hash(observed, access)
        if serving and not secrets.are_there(observed):
            data_hash = serving.data_hash  # new pods could not start
        wanted = Context(engine, cleared.image, cleared.version, access, data_hash)
        sound = True
        in_place = engine.spec.rollout.strategy is Strategy.ROLLING_UPDATE
        if in_place and serving and serving.image != cleared.image:
            # Blue-green checks before it switches, which is later and better.
            sound, looked = upkeep.check(observed, wanted, cleared.job)
            checked |= looked
        checked |= upkeep.admin_key(observed, wanted)
        if sound:
            return checked | _rolled_out(observed, wanted)
    if serving is None:
        return checked | rollout.kept(observed)
    return checked | _rolled_out(observed, serving.context(engine))


def _rolled_out(observed: Observed, context: Context) -> Step:
    return rollout.step(observed, context) | exposure.step(observed, context)


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
    serving, pods = rollout.serving(observed), rollout.pods(observed)
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
