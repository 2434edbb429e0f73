"""What serves now: the Deployment to which the Service leads, and what its pods were made from. Pure.

Read by `migration.py`, which has to know which releases are still there, by `rollout.py`, which goes on from
here, and for the status.
"""

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import NamedTuple

from picopay_operator import names
from picopay_operator.conditions import FALSE, TRUE, Finding, Reason, Type
from picopay_operator.names import Component
from picopay_operator.plan import admitted, jobs
from picopay_operator.plan.admitted import Admitted, Cleared
from picopay_operator.plan.jobs import Live
from picopay_operator.plan.outcome import Observed

_SERVING = (Component.API, Component.WORKER)


class Pods(NamedTuple):
    """How many API pods there are, and how many of them take requests: for the status."""

    replicas: int
    ready: int


def active_deployment(observed: Observed) -> str | None:
    """Return the name of the Deployment to which the Service leads; None before there is one."""
    service = observed.child("Service", names.api(observed.name))
    written = (service or {}).get("metadata", {}).get("annotations", {}).get(names.ACTIVE)
    if written:  # even when it is gone: what takes its place must be ready, checked and promoted
        return str(written)
    there = sorted(api_deployments(observed), key=lambda one: -_pods(one).ready)
    return str(there[0]["metadata"]["name"]) if there else None


def active(observed: Observed) -> Live | None:
    """Return the Deployment to which the Service leads, if it is there."""
    name = active_deployment(observed)
    return observed.child("Deployment", name) if name else None


def serving(observed: Observed) -> Admitted | None:
    """Return what the pods to which the Service leads were admitted with."""
    return admitted.read(active(observed))


def pods(observed: Observed) -> Pods:
    """Return the number of API pods of the Deployment to which the Service leads."""
    live = active(observed)
    return _pods(live) if live else Pods(0, 0)


def unavailable_since(observed: Observed) -> datetime | None:
    """Return since when too few pods take requests although there should be some."""
    live = active(observed)
    if live is None or observed.engine.spec.suspended:
        return None
    for condition in live.get("status", {}).get("conditions", ()):
        if condition.get("type") == "Available" and condition.get("status") == "False":
            return moment(condition.get("lastTransitionTime"))
    return None


def cleared(observed: Observed) -> Cleared | None:
    """Return what has cleared the pods to which the Service leads."""
    return admitted.cleared(active(observed))


def runs_only(observed: Observed, image: str) -> bool:
    """Tell whether all pods are of an image: no others are on their way in or out."""
    return all(one == image for one in _images(observed))


def oldest_head(observed: Observed) -> str | None:
    """Return the oldest schema that a release wants whose pods serve; None when none do.

    Of a release of which nothing is known it is assumed that it admits no change at all.
    """
    is_empty = is_scaled_down(observed) and not any(_pods_that_serve(observed))
    if observed.engine.spec.suspended and is_empty:
        return None
    heads = {one.image: one.head for one in observed.engine.status.releases}
    for one in api_deployments(observed):
        if (found := admitted.cleared(one)) and found.head:
            heads[found.image] = found.head
    return min((heads.get(image, "") for image in _images(observed)), default=None)


def is_scaled_down(observed: Observed) -> bool:
    """Tell whether no Deployment is to have pods."""
    return not any(one["spec"].get("replicas", 1) for one in _deployments(observed))


def _deployments(observed: Observed) -> list[Live]:
    there = api_deployments(observed)
    if server := observed.child("Deployment", names.worker(observed.name)):
        there.append(server)
    return there


def _images(observed: Observed) -> Iterator[str]:
    there = [one["spec"]["template"] for one in _deployments(observed)]
    for one in (*there, *_pods_that_serve(observed)):
        yield one["metadata"].get("annotations", {}).get(names.IMAGE, "")


def _pods_that_serve(observed: Observed) -> Iterator[Live]:
    for component in _SERVING:
        for pod in jobs.of_component(observed, component):
            if pod.get("status", {}).get("phase") not in {"Succeeded", "Failed"}:
                yield pod


def available(observed: Observed, active: str) -> Finding:
    """Tell whether enough pods of a Deployment take requests."""
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


def moment(text: str | None) -> datetime | None:
    """Return a time that we have written; None where somebody has changed it."""
    try:
        return datetime.fromisoformat(text).astimezone(UTC) if text else None
    except ValueError:
        return None


def api_deployments(observed: Observed) -> list[Live]:
    """Return the API's Deployments: several while one takes over from another."""
    return [
        one
        for one in observed.of_kind("Deployment")
        if one["metadata"].get("labels", {}).get(names.COMPONENT_LABEL) == Component.API
    ]


def _pods(live: Live) -> Pods:
    status = live.get("status", {})
    return Pods(status.get("replicas") or 0, status.get("readyReplicas") or 0)
