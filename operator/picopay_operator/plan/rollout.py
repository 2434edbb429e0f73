"""The rollout: Deployments of the API and the worker, and the Service that leads to them. Pure.

A change of the API's pods either happens within one Deployment, pod by pod, or beside it (blue-green): a
second Deployment is made, and when it is complete, checked and promoted, the Service switches to it; the
first stays for a while, to go back to. Which one the Service leads to is written on the Service itself.
"""

from datetime import UTC, datetime, timedelta
from typing import NamedTuple

from picopay_operator import drift, names
from picopay_operator.conditions import FALSE, TRUE, Finding, Reason, Type
from picopay_operator.manifests import api, worker
from picopay_operator.manifests.context import Context, Manifest
from picopay_operator.names import Component
from picopay_operator.plan import admitted, jobs, upkeep
from picopay_operator.plan.jobs import Live
from picopay_operator.plan.outcome import Observed, Step
from picopay_operator.resources import Ref
from picopay_operator.spec.pods import Strategy


class Pods(NamedTuple):
    """How many API pods there are, and how many of them take requests: for the status."""

    replicas: int
    ready: int


def step(observed: Observed, context: Context) -> Step:
    """Roll out what the context says; the schema goes with it."""
    spec = observed.engine.spec
    revision = _revision(context) if spec.rollout.strategy is Strategy.BLUE_GREEN else None
    target = names.api_revision(context.name, revision) if revision else names.api(context.name)
    wanted = api.deployment(context, revision)
    wanted["metadata"]["annotations"] = {names.ADMITTED: admitted.written(context)}
    active = active_deployment(observed) or target
    # Until the Service leads to them, pods of another image do nothing beside those that serve.
    before = serving(observed)
    beside = before.context(observed.engine) if before and active != target else context
    made = Step(wanted=[worker.deployment(beside), worker.service(beside)])
    if spec.pod_disruption_budget.enabled and not spec.suspended:
        made |= Step(wanted=[api.disruption_budget(context)])
    if not spec.suspended and (autoscaler := api.autoscaler(context)):
        made |= Step(wanted=[autoscaler])
    if active == target:
        service = _service(observed, context, revision, target)
        progress = _progress(observed, context, wanted, worker.deployment(context))
        made |= Step(wanted=[wanted, service], findings=[progress])
    else:
        made |= _take_over(observed, context, wanted, active, revision)
    return made | _retire(observed, active, target) | Step(findings=[_available(observed, active)])


def active_deployment(observed: Observed) -> str | None:
    """Return the name of the Deployment to which the Service leads; None before there is one."""
    service = observed.child("Service", names.api(observed.name))
    written = (service or {}).get("metadata", {}).get("annotations", {}).get(names.ACTIVE)
    if written:  # even when it is gone: what takes its place must be ready, checked and promoted
        return str(written)
    there = sorted(_api_deployments(observed), key=lambda one: -_pods(one).ready)
    return str(there[0]["metadata"]["name"]) if there else None


def serving(observed: Observed) -> admitted.Admitted | None:
    """Return what the pods to which the Service leads were admitted with."""
    active = active_deployment(observed)
    live = observed.child("Deployment", active) if active else None
    return admitted.read(live) if live else None


def pods(observed: Observed) -> Pods:
    """Return the number of API pods of the Deployment to which the Service leads."""
    active = active_deployment(observed)
    live = observed.child("Deployment", active) if active else None
    return _pods(live) if live else Pods(0, 0)


def kept(observed: Observed) -> Step:
    """Leave everything as it is: what should be there instead is not known (yet)."""
    found = [ref for ref in observed.children if ref.kind != "Job"]
    active = active_deployment(observed)
    return Step(kept=found, findings=[_available(observed, active)] if active else [])


def _revision(context: Context) -> str:
    return drift.digest(api.template(context), 8)


def _take_over(
    observed: Observed, context: Context, wanted: Manifest, active: str, revision: str | None
) -> Step:
    """Bring the wanted Deployment up beside the active one, and switch when it may."""
    target = wanted["metadata"]["name"]
    old = Ref("Deployment", active)
    beside = Step(wanted=[wanted], kept=[old])
    live = observed.child("Deployment", active) or {"metadata": {}}
    served = live["metadata"].get("labels", {}).get(names.REVISION_LABEL)
    still = Step(wanted=[_service(observed, context, served, active)])
    progress = _progress(observed, context, wanted)
    if progress.reason is Reason.DEADLINE_EXCEEDED or progress.stalled:
        message = f"{active} still serves, and {target} does not come up: {progress.message}"
        aborted = Finding(
            Type.ROLLOUT_COMPLETE, FALSE, Reason.ROLLOUT_ABORTED, message, stalled=True
        )
        return beside | still | Step(findings=[aborted])
    if progress.status is not TRUE:
        return beside | still | Step(findings=[progress])
    checked = Step()
    if revision:
        promoted = observed.engine.metadata.annotations.get(names.PROMOTE) == revision
        # A promotion may come days after the revision was ready: the money is checked again then.
        occasion = f"switch to {target}{', promoted' if promoted else ''}"
        sound, checked = upkeep.check(observed, context, occasion)
        if not sound:
            waits = _waits(f"{target} is ready and waits for the check of the money")
            return beside | still | checked | Step(findings=[waits])
        if not (promoted or observed.engine.spec.rollout.blue_green.auto_promote):
            message = (
                f"{target} is ready: promote it with the annotation {names.PROMOTE}={revision}"
            )
            pending = Finding(Type.ROLLOUT_COMPLETE, FALSE, Reason.PROMOTION_PENDING, message)
            return beside | still | checked | Step(findings=[pending])
    service = _service(observed, context, revision, target)
    return (
        beside
        | checked
        | Step(wanted=[service], findings=[_waits(f"the Service leads to {target} now")])
    )


def _service(observed: Observed, context: Context, revision: str | None, target: str) -> Manifest:
    """Return the Service, with a note of where it leads and since when."""
    service = api.service(context, revision)
    live = observed.child("Service", names.api(observed.name))
    annotations = (live or {}).get("metadata", {}).get("annotations", {})
    since = annotations.get(names.SWITCHED_AT) if annotations.get(names.ACTIVE) == target else None
    if _moment(since) is None:
        since = observed.now.isoformat(timespec="seconds")
    service["metadata"]["annotations"] = {names.ACTIVE: target, names.SWITCHED_AT: since}
    return service


def _retire(observed: Observed, active: str, target: str) -> Step:
    """Delete Deployments that nothing leads to any more, once nobody is likely to go back to them."""
    service = observed.child("Service", names.api(observed.name))
    annotations = (service or {}).get("metadata", {}).get("annotations", {})
    delay = timedelta(seconds=observed.engine.spec.rollout.blue_green.scale_down_delay_seconds)
    retired = Step()
    for one in _api_deployments(observed):
        name = one["metadata"]["name"]
        if name in {active, target}:
            continue
        if active != target:
            # A takeover that something newer has overtaken: it never served.
            retired |= Step(deleted=[Ref("Deployment", name)])
            continue
        since = annotations.get(names.SWITCHED_AT)
        left = (_moment(since) or observed.now) + delay - observed.now
        if left > timedelta():
            kept = [Ref("Deployment", name)]
            retired |= Step(kept=kept, look_again_s=left.total_seconds())
        else:
            retired |= Step(deleted=[Ref("Deployment", name)])
    return retired


def _moment(text: str | None) -> datetime | None:
    """Return a time that we have written; None where somebody has changed it."""
    try:
        return datetime.fromisoformat(text).astimezone(UTC) if text else None
    except ValueError:
        return None


def _api_deployments(observed: Observed) -> list[Live]:
    return [
        one
        for one in observed.of_kind("Deployment")
        if one["metadata"].get("labels", {}).get(names.COMPONENT_LABEL) == Component.API
    ]


def _progress(observed: Observed, context: Context, *wanted: Manifest) -> Finding:
    """Tell how far Deployments are."""
    found = [one for each in wanted if (one := _missing(observed, context, each))]
    if found:
        # What ails a pod says more than that there are not enough of them.
        return next((one for one in found if one.reason is not Reason.PROGRESSING), found[0])
    message = f"all pods run {context.image}"
    if observed.engine.spec.suspended:
        message = "no pods run, as the engine is suspended"
    return Finding(Type.ROLLOUT_COMPLETE, TRUE, Reason.ROLLED_OUT, message)


def _missing(observed: Observed, context: Context, wanted: Manifest) -> Finding | None:
    """Return what is missing until all pods of a Deployment are as they are wanted; None when nothing is."""
    name = wanted["metadata"]["name"]
    live = observed.child("Deployment", name)
    if live is None or drift.differences(drift.marked(wanted), live):
        return _waits(f"{name} is being brought up to {context.image}")
    return _unfinished(
        observed, live, Component(wanted["metadata"]["labels"][names.COMPONENT_LABEL])
    )


def _unfinished(observed: Observed, live: Live, component: Component) -> Finding | None:
    """Return what a Deployment still waits for; None when it is complete."""
    name, status = live["metadata"]["name"], live.get("status", {})
    replicas = live["spec"].get("replicas", 1)
    updated, all_pods = status.get("updatedReplicas", 0), status.get("replicas", 0)
    seen = status.get("observedGeneration", 0) >= live["metadata"].get("generation", 1)
    if seen and updated == all_pods and _is_complete(status, replicas):
        return None
    trouble = jobs.trouble(jobs.of_component(observed, component))
    for condition in status.get("conditions", ()):
        if condition.get("type") == "Progressing" and condition.get("status") == "False" and seen:
            reason = trouble.reason if trouble else Reason.DEADLINE_EXCEEDED
            message = (
                f"{name} has not moved for {live['spec'].get('progressDeadlineSeconds', 600)} s"
            )
            message = f"{message}: {trouble.message}" if trouble else message
            return Finding(Type.ROLLOUT_COMPLETE, FALSE, reason, message, stalled=True)
    if trouble:
        return Finding(Type.ROLLOUT_COMPLETE, FALSE, trouble.reason, trouble.message)
    return _waits(
        f"{updated} of {replicas} pods of {name} are new, {status.get('availableReplicas', 0)} available"
    )


def _is_complete(status: Live, replicas: int) -> bool:
    """Tell whether all pods were once there and ready: that some are missing since is another matter."""
    for condition in status.get("conditions", ()):
        if condition.get("type") == "Progressing":
            return bool(condition.get("reason") == "NewReplicaSetAvailable")
    return bool(status.get("updatedReplicas", 0) == replicas == status.get("availableReplicas", 0))


def _available(observed: Observed, active: str) -> Finding:
    live = observed.child("Deployment", active)
    if observed.engine.spec.suspended:
        message = "the engine is suspended"
        return Finding(Type.AVAILABLE, FALSE, Reason.SUSPENDED, message)
    for condition in (live or {}).get("status", {}).get("conditions", ()):
        ready = _pods(live).ready if live else 0
        if condition.get("type") == "Available" and condition.get("status") == "True" and ready:
            return Finding(
                Type.AVAILABLE, TRUE, Reason.PODS_AVAILABLE, f"{ready} pods take requests"
            )
    return Finding(
        Type.AVAILABLE,
        FALSE,
        Reason.PODS_UNAVAILABLE,
        "fewer pods take requests than there should be",
    )


def _pods(live: Live) -> Pods:
    status = live.get("status", {})
    return Pods(status.get("replicas") or 0, status.get("readyReplicas") or 0)


def _waits(message: str) -> Finding:
    return Finding(Type.ROLLOUT_COMPLETE, FALSE, Reason.PROGRESSING, message)
