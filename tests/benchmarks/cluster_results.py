"""What a run of the cluster's benchmark found, beside its goals: as JSON, as a table, and as a page.

Used by `cluster_bench.py` and by what measures for it, and run by itself with a file of results: `python
tests/benchmarks/cluster_results.py RESULT.json --into docs/explanation` writes the page.
"""

import sys
from collections.abc import Sequence
from pathlib import Path

if __name__ == "__main__":  # as in run.py
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import msgspec

from benchmarks import measures
from benchmarks.measures import COLUMNS, Measure, Run, rows
from benchmarks.tables import table

PAGE = "cluster-performance.md"

type Values = dict[str, list[float]]
"""What was measured, by the names of `MEASURES`."""

MEASURES = {
    "install_operator": Measure("helm install → operator ready", "s"),
    "install_engine": Measure("helm install → engine ready", "s"),
    "install_payment": Measure("helm install → first payment acknowledged", "s"),
    "inside": Measure("as fast as it goes, from a pod through the Service", "payments/s"),
    "outside": Measure("as fast as it goes, the same API outside the cluster", "payments/s"),
    "ratio": Measure("through the Service / outside", ""),
    "inside_p99": Measure("p99 of a payment through the Service", "ms"),
    "outside_p99": Measure("p99 of a payment outside the cluster", "ms"),
    "update": Measure("rolling updates of two pods: change → the old pods are gone", "s"),
    "update_peak": Measure("before them, as fast as it goes", "payments/s"),
    "update_rate": Measure("meanwhile, where half of that was asked", "payments/s"),
    "update_p99": Measure("meanwhile, p99 of a payment", "ms"),
    "update_sent": Measure("meanwhile, requests, all updates together", ""),
    "update_failed": Measure("meanwhile, requests that failed, all updates together", "", 0),
    "api_gap": Measure("API pod killed: longest time without a payment", "s"),
    "api_wait": Measure("API pod killed: longest wait for a payment, tried again", "s"),
    "api_failed": Measure("API pod killed: requests that failed", ""),
    "postgres_gap": Measure("PostgreSQL killed: longest time without a payment", "s"),
    "postgres_wait": Measure("PostgreSQL killed: longest wait for a payment, tried again", "s"),
    "postgres_failed": Measure("PostgreSQL killed: requests that failed", ""),
    "leader": Measure("leader of the operator killed → another has acted on a change", "s"),
    "leader_cpu": Measure("operator at rest, leader: processor time", "millicores"),
    "leader_rss": Measure("operator at rest, leader: resident memory", "MB", 200),
    "leader_working_set": Measure("operator at rest, leader: working set", "MB"),
    "standby_cpu": Measure("operator at rest, standby: processor time", "millicores"),
    "standby_rss": Measure("operator at rest, standby: resident memory", "MB", 200),
    "standby_working_set": Measure("operator at rest, standby: working set", "MB"),
}
"""In the order in which they are shown."""

_TOLD = """\
# How fast it is on a cluster

Operator and engines run from their images on a real cluster, each engine with a small PostgreSQL beside it,
and the customers are pods, too. Where the cluster has one node, everything shares it: control plane,
database, API, customers, and what measures. How it is measured stands in
[Measure how fast it is](../how-to/measure.md#on-a-cluster)."""


class Ground(msgspec.Struct, frozen=True, kw_only=True):
    """The cluster, and the programs on it and outside; `cpus` are those of each node."""

    cpus: list[str]
    kubernetes: str
    python: str
    image_python: str
    picopay: str
    load_before: float


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """What is measured, how often, and for how long."""

    parts: list[str]
    rounds: int
    seconds: int
    rest_s: int


class Result(Run, frozen=True, kw_only=True):
    """One run; `values` are by the names of `MEASURES`."""

    ground: Ground
    plan: Plan


def _heading(result: Result) -> str:
    on, plan = result.ground, result.plan
    return (
        f"Rounds: {plan.rounds}, of {plan.seconds} s where something is paid as fast as it goes."
        f" Nodes: {len(on.cpus)}, with {' + '.join(on.cpus)} CPUs. Kubernetes {on.kubernetes},"
        f" PicoPay {on.picopay}, Python {on.image_python} in the images and {on.python} outside,"
        f" load before {on.load_before:g}."
    )


def text(result: Result) -> str:
    """Return a run as a table for a terminal."""
    return f"{_heading(result)}\n\n{table(COLUMNS, rows(MEASURES, result))}"


def page(result: Result) -> str:
    """Return a run as a page of Markdown."""
    lines = rows(MEASURES, result)
    return measures.page(result, "cluster_results.py", _TOLD, _heading(result), lines)


def write(result: Result, folder: Path) -> Path:
    """Write the page into a folder; return the file."""
    return measures.write_page(page(result), folder / PAGE)


def main(arguments: Sequence[str]) -> int:
    """Read a file of results, write what it says."""
    return measures.pages(
        "cluster_results.py", __doc__, arguments, lambda file, into: write(Result.read(file), into)
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
