"""What is saved of a cluster when an end-to-end test has failed: all that a person would ask it for.

Used by the fixtures in tests/e2e. It goes on when a part cannot be had.
"""

import subprocess
from pathlib import Path

from support.e2e.kube import CommandError, Kube

_OBJECTS = (
    "ppe,deployment,statefulset,job,pod,service,endpointslice,persistentvolumeclaim,"
    "horizontalpodautoscaler,poddisruptionbudget,ingress,networkpolicy,lease"
)
_LOG_LINES = "5000"


def save(kubes: list[Kube], folder: Path) -> None:
    """Write events, objects, descriptions and logs of namespaces into a folder; nothing of Secrets."""
    for kube in kubes:
        place = folder / kube.namespace
        place.mkdir(parents=True, exist_ok=True)
        asked = {
            "events.txt": ("get", "events", "--sort-by=.lastTimestamp"),
            "overview.txt": ("get", _OBJECTS, "--output=wide"),
            "objects.yaml": ("get", _OBJECTS, "--output=yaml"),
            "descriptions.txt": ("describe", "ppe,deployment,statefulset,job,pod"),
        }
        for name, words in asked.items():
            _write(place / name, kube, *words)
        for pod in _names(kube):
            options = ("--all-containers", "--timestamps", f"--tail={_LOG_LINES}")
            _write(place / f"{pod}.log", kube, "logs", pod, *options)
            _write(place / f"{pod}.previous.log", kube, "logs", pod, "--previous", *options)
    _write(folder / "nodes.txt", kubes[0], "describe", "node")


def _names(kube: Kube) -> list[str]:
    try:
        return [one["metadata"]["name"] for one in kube.list("pod")]
    except (CommandError, subprocess.TimeoutExpired):
        return []


def _write(file: Path, kube: Kube, *words: str) -> None:
    try:
        told = kube(*words)
    except (CommandError, subprocess.TimeoutExpired) as error:
        if "--previous" in words:
            return  # most containers have no life before this one
        told = str(error)
    file.write_text(told, encoding="utf-8")
