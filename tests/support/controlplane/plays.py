"""What may become of a pod, and the status that a kubelet would write for it. Pure.

Used by `player.py`, and by tests that say what shall happen.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

type Status = dict[str, Any]


class Runs(NamedTuple):
    """It runs, and its probes succeed, unless it is not `ready`."""

    ready: bool = True
    restarts: int = 0


class Exits(NamedTuple):
    """Its containers run and end; `message` is what they leave in the termination log."""

    code: int = 0
    message: str = ""


class Crashes(NamedTuple):
    """Its containers end again and again, and wait for the next start."""

    code: int = 1
    message: str = ""
    restarts: int = 3


class CannotPull(NamedTuple):
    """The registry does not give the image."""

    message: str = "manifest unknown"


class Hangs(NamedTuple):
    """Its containers are not created: a volume cannot be mounted, for example."""


type Play = Runs | Exits | Crashes | CannotPull | Hangs


class Circumstances(NamedTuple):
    """What a kubelet knows beside the pod: the pod's address, and the time."""

    ip: str
    now: str


def statuses(pod: Mapping[str, Any], play: Play, where: Circumstances) -> list[Status]:
    """Return what a kubelet writes, one after the other."""
    running = _status(pod, where, "Running", {"running": {"startedAt": where.now}}, ready=False)
    match play:
        case Runs(ready, restarts):
            state = {"running": {"startedAt": where.now}}
            status = _status(pod, where, "Running", state, ready=ready)
            for container in status["containerStatuses"]:
                container["restartCount"] = restarts
            return [status]
        case Exits(code, message):
            phase = "Failed" if code else "Succeeded"
            return [running, _status(pod, where, phase, _ended(code, message, where), ready=False)]
        case Crashes(code, message, restarts):
            waiting = _waiting("CrashLoopBackOff", "back-off restarting failed container")
            status = _status(pod, where, "Running", waiting, ready=False)
            for container in status["containerStatuses"]:
                container["lastState"] = _ended(code, message, where)
                container["restartCount"] = restarts
            return [running, status]
        case CannotPull(message):
            waiting = _waiting("ImagePullBackOff", f"Back-off pulling image: {message}")
            return [_status(pod, where, "Pending", waiting, ready=False)]
        case Hangs():
            waiting = _waiting("ContainerCreating", "")
            return [_status(pod, where, "Pending", waiting, ready=False)]


def _waiting(reason: str, message: str) -> dict[str, Any]:
    return {"waiting": {"reason": reason, "message": message}}


def _ended(code: int, message: str, where: Circumstances) -> dict[str, Any]:
    terminated = {
        "exitCode": code,
        "reason": "Error" if code else "Completed",
        "startedAt": where.now,
        "finishedAt": where.now,
    }
    return {"terminated": terminated | ({"message": message} if message else {})}


def _status(
    pod: Mapping[str, Any],
    where: Circumstances,
    phase: str,
    state: Mapping[str, Any],
    *,
    ready: bool,
) -> Status:
    ended = "terminated" in state
    reason = (
        {"reason": "PodCompleted"} if ended else {} if ready else {"reason": "ContainersNotReady"}
    )
    holds = {"PodScheduled": True, "Initialized": True, "ContainersReady": ready, "Ready": ready}
    conditions = [
        {"type": kind, "status": str(held), "lastTransitionTime": where.now}
        | ({} if held else reason)
        for kind, held in holds.items()
    ]
    containers = [
        {
            "name": container["name"],
            "image": container["image"],
            "imageID": container["image"] if "running" in state or ended else "",
            "ready": ready,
            "started": "running" in state,
            "restartCount": 0,
            "state": state,
            "lastState": {},
        }
        for container in pod["spec"]["containers"]
    ]
    return {
        "phase": phase,
        "conditions": conditions,
        "containerStatuses": containers,
        "hostIP": "10.0.0.1",
        "podIP": where.ip,
        "podIPs": [{"ip": where.ip}],
        "startTime": where.now,
    }
