"""What the player of the kubelet writes into the status of a pod."""

from typing import Any

import pytest

from support.controlplane.plays import (
    CannotPull,
    Circumstances,
    Crashes,
    Exits,
    Hangs,
    Play,
    Runs,
    statuses,
)

POD = {
    "spec": {"containers": [{"name": "api", "image": "picopay:1"}, {"name": "b", "image": "b:2"}]}
}
WHERE = Circumstances("10.244.0.2", "2026-01-01T00:00:00Z")


def last(play: Play) -> dict[str, Any]:
    return statuses(POD, play, WHERE)[-1]


def ready(status: dict[str, Any]) -> str:
    (found,) = (one["status"] for one in status["conditions"] if one["type"] == "Ready")
    return str(found)


@pytest.mark.parametrize(
    ("play", "phase", "is_ready"),
    [
        (Runs(), "Running", "True"),
        (Runs(ready=False), "Running", "False"),
        (Exits(), "Succeeded", "False"),
        (Exits(5), "Failed", "False"),
        (Crashes(), "Running", "False"),
        (CannotPull(), "Pending", "False"),
        (Hangs(), "Pending", "False"),
    ],
)
def test_phase_and_readiness(play: Play, phase: str, is_ready: str) -> None:
    status = last(play)
    assert (status["phase"], ready(status)) == (phase, is_ready)
    assert {one["name"]: one["ready"] for one in status["containerStatuses"]} == {
        "api": is_ready == "True",
        "b": is_ready == "True",
    }


def test_a_program_runs_before_it_exits() -> None:
    assert [one["phase"] for one in statuses(POD, Exits(7, "busy"), WHERE)] == ["Running", "Failed"]
    state = last(Exits(7, "busy"))["containerStatuses"][0]["state"]["terminated"]
    assert (state["exitCode"], state["reason"], state["message"]) == (7, "Error", "busy")


def test_a_container_that_crashes_waits_and_tells_how_it_ended() -> None:
    container = last(Crashes(3, "no settings", restarts=4))["containerStatuses"][0]
    assert container["state"]["waiting"]["reason"] == "CrashLoopBackOff"
    assert container["lastState"]["terminated"]["exitCode"] == 3
    assert container["lastState"]["terminated"]["message"] == "no settings"
    assert container["restartCount"] == 4


def test_an_image_that_cannot_be_pulled_is_waited_for() -> None:
    container = last(CannotPull("not found"))["containerStatuses"][0]
    assert container["state"]["waiting"]["reason"] == "ImagePullBackOff"
    assert "not found" in container["state"]["waiting"]["message"]
