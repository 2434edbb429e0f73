"""Every condition, reason and Event comes about: each has a scene in which it does, or a test that has it.

What only errors of the API server, or a defect, bring about is shown on the control plane; tables say where.
"""

import pytest

from picopay_operator import conditions
from picopay_operator.conditions import Reason, Type
from support.engine_scenes import SCENES, Scene, broken_by_hand, deleted, resumed
from support.postgres import CHECKOUT

ELSEWHERE = {
    Reason.INVALID_SPEC: "test_operator_trouble.py",
    Reason.INTERNAL_ERROR: "test_operator_trouble.py",
    Reason.API_ERROR: "test_operator_faults.py",
    Reason.PERMISSION_DENIED: "test_operator_rbac.py",
    Reason.ADMISSION_DENIED: "test_operator_surroundings.py",
    Reason.CHANGES_UNDONE: "test_operator_surroundings.py",
    Reason.DEFINITION_OUTDATED: "test_operator_surroundings.py",
}
"""Reasons that no plan gives, and the file of `tests/controlplane` that waits for each."""

TOLD_ELSEWHERE = {
    "InvalidSpec": "test_operator_trouble.py",
    "AdoptionRefused": "test_operator_trouble.py",
    "AdmissionDenied": "test_operator_surroundings.py",
    "ChangesUndone": "test_operator_surroundings.py",
    "DefinitionOutdated": "test_operator_surroundings.py",
}
"""Events that go with them."""


@pytest.mark.parametrize("scene", SCENES, ids=lambda scene: f"{scene.type}-{scene.reason}")
def test_a_reason_comes_about(scene: Scene) -> None:
    world = scene.play()
    assert world.reason(scene.type) == (scene.status, scene.reason)
    condition = world.condition(scene.type)
    assert condition.message
    assert condition.observed_generation == world.generation


def test_every_condition_is_true_once_and_false_once() -> None:
    seen = {(scene.type, scene.status) for scene in SCENES}
    assert seen >= {(kind, status) for kind in Type for status in ("True", "False")}


def test_every_reason_has_its_scene() -> None:
    played = {scene.reason for scene in SCENES}
    assert played | set(ELSEWHERE) == set(Reason)
    assert not played & set(ELSEWHERE)


def test_every_event_is_told() -> None:
    plays = {scene.play for scene in SCENES} | {broken_by_hand, deleted, resumed}
    told = {notice.reason for play in plays for notice in play().notices}
    assert told | set(TOLD_ELSEWHERE) == {name for name, _ in conditions.events()}


@pytest.mark.parametrize(("said", "file"), (ELSEWHERE | TOLD_ELSEWHERE).items(), ids=str)
def test_what_is_shown_elsewhere_is_waited_for_there(said: str, file: str) -> None:
    text = (CHECKOUT / "tests" / "controlplane" / file).read_text(encoding="utf-8")
    assert f'"{said}"' in text
