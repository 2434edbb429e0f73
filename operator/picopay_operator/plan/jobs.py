"""What became of a Job, and of pods: read from their status. Pure.

A pod of a Job leaves its report in its termination message (`contract.py`); where it left none, the last
lines of its log are there, because the template asks for that.
"""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from enum import Enum
from typing import Any, NamedTuple

from picopay_operator import names
from picopay_operator.conditions import Reason
from picopay_operator.plan.outcome import Observed

type Live = Mapping[str, Any]

_JOB_LABEL = "batch.kubernetes.io/job-name"
_UID_LABEL = "batch.kubernetes.io/controller-uid"
_TAIL_CHARACTERS = 1_000
_PULL_FAILURES = {"ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull"}
_START_FAILURES = {"CreateContainerConfigError", "CreateContainerError", "RunContainerError"}


class JobState(Enum):
    """How far a Job is."""

    RUNNING = 1
    COMPLETE = 2
    FAILED = 3


class Ending(NamedTuple):
    """How the last pod of a Job has ended; what is not known is None or empty."""

    exit_code: int | None
    message: str


class Trouble(NamedTuple):
    """Why a pod does not run."""

    reason: Reason
    message: str


def state(job: Live) -> JobState:
    """Return how far a Job is."""
    if _condition(job, "Complete"):
        return JobState.COMPLETE
    return JobState.FAILED if _condition(job, "Failed") else JobState.RUNNING


def ended_at(job: Live) -> datetime | None:
    """Return when a Job has failed or was completed."""
    condition = _condition(job, "Failed") or _condition(job, "Complete")
    return datetime.fromisoformat(condition["lastTransitionTime"]) if condition else None


def argument(job: Live, option: str) -> str | None:
    """Return the value with which a Job was given an option; None without it."""
    arguments = job["spec"]["template"]["spec"]["containers"][0]["args"]
    return arguments[arguments.index(option) + 1] if option in arguments else None


def image(job: Live) -> str:
    """Return the image of a Job."""
    return str(job["spec"]["template"]["spec"]["containers"][0]["image"])


def failures(job: Live) -> int:
    """Return how many pods of a Job have failed."""
    return int(job.get("status", {}).get("failed") or 0)


def pods_of(observed: Observed, job: str) -> list[Live]:
    """Return the pods of a Job, the newest last; not those that an earlier one of its name has left."""
    live = observed.child("Job", job)
    uid = live["metadata"].get("uid") if live else None
    pods = [
        pod
        for pod in observed.of_kind("Pod")
        if (labels := pod["metadata"].get("labels", {})).get(_JOB_LABEL) == job
        and labels.get(_UID_LABEL, uid) == uid
    ]
    return sorted(pods, key=lambda pod: str(pod["metadata"].get("creationTimestamp", "")))


def ending(pods: Sequence[Live]) -> Ending:
    """Return how the newest pod that has ended did."""
    for pod in reversed(pods):
        for container in pod.get("status", {}).get("containerStatuses", ()):
            if terminated := container.get("state", {}).get("terminated"):
                return Ending(terminated.get("exitCode"), str(terminated.get("message") or ""))
    return Ending(None, "")


def tail(message: str) -> str:
    """Return the end of a log, so that a condition stays readable."""
    return message.strip()[-_TAIL_CHARACTERS:]


def trouble(pods: Iterable[Live]) -> Trouble | None:
    """Return why the first pod that does not run does not; None when nothing is known to be wrong."""
    for pod in pods:
        if pod["metadata"].get("deletionTimestamp"):
            continue
        if found := _trouble(pod):
            return found
    return None


def cannot_begin(job: Live, pods: Sequence[Live]) -> bool:
    """Tell whether nothing of a Job has run, and why is known: there is no such image, say."""
    if failures(job) or state(job) is not JobState.RUNNING:
        return False
    states = [
        one.get(which, {})
        for pod in pods
        for one in pod.get("status", {}).get("containerStatuses", ())
        for which in ("state", "lastState")
    ]
    return trouble(pods) is not None and not any(
        {"running", "terminated"} & one.keys() for one in states
    )


def of_component(observed: Observed, component: names.Component) -> list[Live]:
    """Return the pods of a component."""
    return [
        pod
        for pod in observed.of_kind("Pod")
        if pod["metadata"].get("labels", {}).get(names.COMPONENT_LABEL) == component
    ]


def _trouble(pod: Live) -> Trouble | None:
    name, status = pod["metadata"]["name"], pod.get("status", {})
    for container in status.get("containerStatuses", ()):
        waiting = container.get("state", {}).get("waiting") or {}
        why, message = waiting.get("reason", ""), waiting.get("message", "")
        if why in _PULL_FAILURES:
            text = f"pod {name} cannot pull {container.get('image', 'its image')}: {message or why}"
            return Trouble(Reason.IMAGE_PULL_FAILED, text)
        if why == "CrashLoopBackOff":
            last = container.get("lastState", {}).get("terminated") or {}
            text = (
                f"pod {name} ends again and again with exit code {last.get('exitCode', 'unknown')}"
            )
            said = tail(str(last.get("message") or ""))
            return Trouble(Reason.CRASH_LOOPING, f"{text}: {said}" if said else text)
        if why in _START_FAILURES:
            return Trouble(Reason.POD_PENDING, f"pod {name} cannot start: {message or why}")
    for condition in status.get("conditions", ()):
        if condition.get("type") == "PodScheduled" and condition.get("status") == "False":
            return Trouble(
                Reason.POD_PENDING, f"pod {name} has no node: {condition.get('message', '')}"
            )
    return None


def _condition(job: Live, kind: str) -> Live | None:
    for condition in job.get("status", {}).get("conditions", ()):
        if condition.get("type") == kind and condition.get("status") == "True":
            found: Live = condition
            return found
    return None
