"""What a run of the operator's benchmark found, against its goals: as JSON, as a table, and as a page.

Used by `operator_bench.py`, and run by itself with a file of results: `python
tests/benchmarks/operator_results.py RESULT.json --into docs/explanation` writes the page.
"""

import sys
from collections.abc import Sequence
from pathlib import Path

if __name__ == "__main__":  # as in run.py
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import msgspec

from benchmarks import measures
from benchmarks.measures import COLUMNS, Measure, Run, rows
from benchmarks.tables import shown, table

PAGE = "operator-performance.md"


MEASURES = {
    "alone_job": Measure("one at a time: applied → migration Job", "s", 1),
    "alone_deployment": Measure("one at a time: Job's success → Deployment", "s", 1),
    "alone_ready": Measure("one at a time: applied → ready", "s"),
    "fleet_job": Measure("all others at once: applied → migration Job", "s"),
    "fleet_deployment": Measure("all others at once: Job's success → Deployment", "s"),
    "fleet_ready": Measure("all others at once: first applied → last ready", "s"),
    "kubelet": Measure("meanwhile, played kubelet: pod on a node → first status", "s"),
    "cpu_operator": Measure("meanwhile, processor time: operator", "s"),
    "cpu_kubelet": Measure("meanwhile, processor time: played kubelet", "s"),
    "cpu_control_plane": Measure("meanwhile, processor time: control plane", "s"),
    "cpu_bench": Measure("meanwhile, processor time: what measures", "s"),
    "making_peak": Measure("memory of the operator, while engines are made: peak", "MB", 200),
    "making_rest": Measure("memory of the operator, after that", "MB", 200),
    "start": Measure("start of an operator → all engines observed", "s", 30),
    "start_peak": Measure("memory of the operator, while it starts: peak", "MB", 200),
    "start_rest": Measure("memory of the operator, after that", "MB", 200),
    "idle": Measure("requests for an engine at rest, at a proxy", "per minute", 0),
    "idle_told": Measure("requests for an engine at rest, as the operator counts", "per minute", 0),
    "election": Measure("requests of the election", "per minute"),
    "reads": Measure("a pass over an unchanged engine: reads", "", 5),
    "writes": Measure("a pass over an unchanged engine: writes", "", 0),
}
"""In the order in which they are shown."""

_TOLD = """\
# How fast the operator is

One operator, in a process of its own, looks after engines in several namespaces of a real control plane:
etcd, API server, controller manager and scheduler. There is no node: a player stands for the kubelet and says
that pods run and that Jobs succeed. So what is measured is the operator and the control plane, not images or
databases. All of them share one machine. How it is measured stands in
[Measure how fast it is](../how-to/measure.md#the-operator)."""


class Ground(msgspec.Struct, frozen=True, kw_only=True):
    """The machine, and the programs on it."""

    cpus: int | None
    python: str
    kubernetes: str
    picopay: str
    load_before: float


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """How much is measured."""

    engines: int
    namespaces: int
    starts: int
    idle_s: int


class Result(Run, frozen=True, kw_only=True):
    """One run; `values` are by the names of `MEASURES`."""

    ground: Ground
    plan: Plan


def _heading(result: Result) -> str:
    on, plan = result.ground, result.plan
    return (
        f"{plan.engines:,} engines in {plan.namespaces:,} namespaces. {shown(on.cpus)} CPUs,"
        f" Kubernetes {on.kubernetes}, Python {on.python}, PicoPay {on.picopay},"
        f" load before {on.load_before:g}."
    )


def text(result: Result) -> str:
    """Return a run as a table for a terminal."""
    return f"{_heading(result)}\n\n{table(COLUMNS, rows(MEASURES, result))}"


def page(result: Result) -> str:
    """Return a run as a page of Markdown."""
    lines = rows(MEASURES, result)
    return measures.page(result, "operator_results.py", _TOLD, _heading(result), lines)


def write(result: Result, folder: Path) -> Path:
    """Write the page into a folder; return the file."""
    return measures.write_page(page(result), folder / PAGE)


def main(arguments: Sequence[str]) -> int:
    """Read a file of results, write what it says."""
    return measures.pages(
        "operator_results.py", __doc__, arguments, lambda file, into: write(Result.read(file), into)
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
