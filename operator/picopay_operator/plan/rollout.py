"""The rollout: Deployments of the API and the worker, and the Service that leads to them. Pure.

A change of the API's pods either happens within one Deployment, pod by pod, or beside it (blue-green): a
second Deployment is made, and when it is complete, checked and promoted, the Service switches to it; the
first stays for a while, to go back to. Which one the Service leads to is written on the Service itself.
"""

from datetime import timedelta

import msgspec

from picopay_operator import drift, names
from picopay_operator.conditions import FALSE, TRUE, Finding, Reason, Type
from picopay_operator.manifests import api, worker
from picopay_operator.manifests.context import Context, Manifest
from picopay_operator.names import Component
from picopay_operator.plan import admitted, jobs, running, upkeep
from picopay_operator.plan.admitted import Admitted, Cleared
from picopay_operator.plan.jobs import Live
from picopay_operator.plan.outcome import Observed, Step
from picopay_operator.plan.upkeep import Verdict
from picopay_operator.resources import Ref
from picopay_operator.spec.pods import Strategy


def step(observed: Observed, wanted: Admitted, cleared: Cleared | None) -> Step:
    """Roll out pods that are made from what is wanted; the schema goes with them."""
    spec, context = observed.engine.spec, wanted.context(observed.engine)
    target, revision = _target(observed, wanted)
    active = running.active_deployment(observed) or target
    made = _deployment(observed, wanted, target, revision, cleared)
    # Until the Service leads to them, pods of another image do nothing beside those that serve.
    before = running.serving(observed)
    beside = before if before and active != target else wanted
    others = Step(
        wanted=[_worker(observed, beside), worker.service(beside.context(observed.engine))]
    )
    if spec.pod_disruption_budget.enabled and not spec.suspended:
        others |= Step(wanted=[api.disruption_budget(context)])
    if not spec.suspended and (autoscaler := api.autoscaler(context)):
        others |= Step(wanted=[autoscaler])
    if active == target:
        taken = _in_place(observed, wanted, made, revision)
    else:
        taken = _take_over(observed, context, made, active, revision)
    found = Step(findings=[running.available(observed, active)])
    return others | taken | _retire(observed, active, target) | found


def goes_beside(observed: Observed, wanted: Admitted) -> bool:
    """Tell whether what is wanted comes up in a Deployment of its own, and is checked before it serves."""
    active = running.active_deployment(observed)
    return active is not None and _target(observed, wanted)[0] != active


def kept(observed: Observed) -> Step:
    """Leave everything as it is: what should be there instead is not known (yet)."""
    found = [ref for ref in observed.children if ref.kind != "Job"]
    active = running.active_deployment(observed)
    return Step(kept=found, findings=[running.available(observed, active)] if active else [])


def _target(observed: Observed, wanted: Admitted) -> tuple[str, str | None]:
    """Return the Deployment of what is wanted, and its revision where the rollout is a blue-green one."""
    if observed.engine.spec.rollout.strategy is not Strategy.BLUE_GREEN:
        return names.api(observed.name), None
    for one in running.api_deployments(observed):
        # Another release of the operator may have made its template, and may have named it otherwise.
        revision = one["metadata"]["labels"].get(names.REVISION_LABEL)
        if revision and admitted.read(one) == wanted:
            return str(one["metadata"]["name"]), str(revision)
    revision = drift.digest(msgspec.to_builtins(wanted), 8)
    return names.api_revision(observed.name, revision), revision


def _deployment(
    observed: Observed,
    wanted: Admitted,
    target: str,
    revision: str | None,
    cleared: Cleared | None,
) -> Manifest:
    live = observed.child("Deployment", target)
    made = api.deployment(wanted.context(observed.engine), revision)
    return admitted.clear(admitted.write(made, wanted, live, observed.release), cleared)


def _worker(observed: Observed, wanted: Admitted) -> Manifest:
    live = observed.child("Deployment", names.worker(observed.name))
    made = worker.deployment(wanted.context(observed.engine))
    return admitted.write(made, wanted, live, observed.release)


def _in_place(observed: Observed, wanted: Admitted, made: Manifest, revision: str | None) -> Step:
    """Replace pods within the Deployment that serves, and look at the money while old and new ones do."""
    context = wanted.context(observed.engine)
    verdict, looked = _checked_meanwhile(observed, context, made)
    if verdict is Verdict.UNSOUND:
        made["spec"]["paused"] = True
    progress = _progress(observed, context, made, _worker(observed, wanted))
    service = _service(observed, context, revision, made["metadata"]["name"])
    return looked | Step(wanted=[made, service], findings=[progress])


def _checked_meanwhile(
    observed: Observed, context: Context, made: Manifest
) -> tuple[Verdict, Step]:
    occasion = f"rollout of {drift.digest(made['spec']['template'])}"
    live = observed.child("Deployment", made["metadata"]["name"]) or {}
    status = live.get("status", {})
    both_serve = 0 < status.get("updatedReplicas", 0) < status.get("replicas", 0)
    is_it = live.get("metadata", {}).get("annotations", {}).get(names.ADMITTED)
    if both_serve and is_it == made["metadata"]["annotations"][names.ADMITTED]:
        return upkeep.check(observed, context, occasion)
    if upkeep.is_open(observed, context, occasion):  # it has outlasted the rollout
        return upkeep.check(observed, context, occasion)
    return Verdict.UNKNOWN, Step()


def _take_over(
    observed: Observed, context: Context, wanted: Manifest, active: str, revision: str | None
) -> Step:
    """Bring the wanted Deployment up beside the active one, and switch when it may."""
    target = wanted["metadata"]["name"]
    live = observed.child("Deployment", active) or {"metadata": {}}
    served = live["metadata"].get("labels", {}).get(names.REVISION_LABEL)
    beside = Step(wanted=[wanted], kept=[Ref("Deployment", active)]) | _looked_after(
        observed, served
    )
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
    promoted = revision and observed.engine.metadata.annotations.get(names.PROMOTE) == revision
    # A promotion may come days after the revision was ready: the money is checked again then.
    occasion = f"switch to {target}{', promoted' if promoted else ''}"
    verdict, checked = upkeep.check(observed, context, occasion)
    if verdict is not Verdict.SOUND:
        waits = _waits(f"{target} is ready and waits for the check of the money")
        return beside | still | checked | Step(findings=[waits])
    if revision and not (promoted or observed.engine.spec.rollout.blue_green.auto_promote):
        message = f"{target} is ready: promote it with the annotation {names.PROMOTE}={revision}"
        pending = Finding(Type.ROLLOUT_COMPLETE, FALSE, Reason.PROMOTION_PENDING, message)
        return beside | still | checked | Step(findings=[pending])
    service = _service(observed, context, revision, target)
    found = _waits(f"the Service leads to {target} now")
    return beside | checked | Step(wanted=[service], findings=[found])


def _looked_after(observed: Observed, revision: str | None) -> Step:
    """Repair the Deployment that still serves, maybe for days, and give it as many pods as are asked for."""
    live, before = running.active(observed), running.serving(observed)
    if live is None or before is None:
        return Step()
    name = live["metadata"]["name"]
    made = _deployment(observed, before, name, revision, running.cleared(observed))
    if live["spec"].get("paused"):  # a rollout within it that was stopped does not go on by itself
        made["spec"]["paused"] = True
    return Step(wanted=[made] if made["metadata"]["name"] == name else [])


def _service(observed: Observed, context: Context, revision: str | None, target: str) -> Manifest:
    """Return the Service, with a note of where it leads and since when."""
    service = api.service(context, revision)
    live = observed.child("Service", names.api(observed.name))
    annotations = (live or {}).get("metadata", {}).get("annotations", {})
    since = annotations.get(names.SWITCHED_AT) if annotations.get(names.ACTIVE) == target else None
    if running.moment(since) is None:
        since = observed.now.isoformat(timespec="seconds")
    service["metadata"]["annotations"] = {names.ACTIVE: target, names.SWITCHED_AT: since}
    return service


def _retire(observed: Observed, active: str, target: str) -> Step:
    """Delete Deployments that nothing leads to any more, once nobody is likely to go back to them."""
    service = observed.child("Service", names.api(observed.name))
    annotations = (service or {}).get("metadata", {}).get("annotations", {})
    spec = observed.engine.spec
    delay = timedelta(seconds=spec.rollout.blue_green.scale_down_delay_seconds)
    if spec.suspended:  # no pods are to run, and so there is nothing to go back to in a hurry
        delay = timedelta()
    retired = Step()
    for one in running.api_deployments(observed):
        name = one["metadata"]["name"]
        if name in {active, target}:
            continue
        if active != target:
            # A takeover that something newer has overtaken: it never served.
            retired |= Step(deleted=[Ref("Deployment", name)])
            continue
        since = annotations.get(names.SWITCHED_AT)
        left = (running.moment(since) or observed.now) + delay - observed.now
        if left > timedelta():
            kept = [Ref("Deployment", name)]
            retired |= Step(kept=kept, look_again_s=left.total_seconds())
        else:
            retired |= Step(deleted=[Ref("Deployment", name)])
    return retired


def _progress(observed: Observed, context: Context, *wanted: Manifest) -> Finding:
    """Tell how far Deployments are."""
    found = [one for each in wanted if (one := _missing(observed, context, each))]
    if found:
        # What ails a pod says more than that there are not enough of them.
        return next((one for one in found if one.reason is not Reason.PROGRESSING), found[0])
    message = f"all pods run {context.image}"
    spec = observed.engine.spec
    brings = admitted.image_of(spec, observed.release, None)[0]
    if not (spec.version or spec.image.tag) and brings != context.image:
        message += f"; this operator brings {brings}, and spec.version asks for it"
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
    revision = live["spec"]["template"]["metadata"]["labels"].get(names.REVISION_LABEL)
    trouble = jobs.trouble(
        pod
        for pod in jobs.of_component(observed, component)
        if pod["metadata"]["labels"].get(names.REVISION_LABEL) == revision
    )
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


def _waits(message: str) -> Finding:
    return Finding(Type.ROLLOUT_COMPLETE, FALSE, Reason.PROGRESSING, message)
