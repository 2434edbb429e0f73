"""Payments per second on a cluster: through the Service, beside the same API outside, and during updates.

Used by `cluster_bench.py`.
"""

import time
from pathlib import Path

from benchmarks.client import Report
from benchmarks.cluster_ground import engine, shop_in
from benchmarks.cluster_load import Payers
from benchmarks.cluster_results import Plan, Values
from benchmarks.ground import Tell
from benchmarks.servers import serving_picopay
from picopay_operator import names
from picopay_operator.names import Component
from support.e2e.installation import Installation
from support.e2e.kube import until
from support.e2e.shop import NAME, Shop

_PODS = 2
_CREATED = 201
_API = ",".join("=".join(label) for label in names.selector(NAME, Component.API).items())


def speed(plan: Plan, installation: Installation, work: Path, tell: Tell) -> Values:
    """Pay through the Service from a pod, and on this machine at the same API, in turns."""
    values: Values = {}
    with shop_in(installation, "speed") as shop:
        shop.apply(engine(1))
        shop.ready()
        payers = Payers(shop, work)
        with serving_picopay(payers.url, work / "outside.log") as server:
            turns = {
                "inside": lambda: payers.from_pod(plan.seconds),
                "outside": lambda: payers.from_here(server, plan.seconds),
            }
            for number in range(1, plan.rounds + 1):
                # Every other round the other way round: neither always comes first.
                order = list(turns) if number % 2 else list(reversed(turns))
                reports = {name: turns[name]() for name in order}
                for name, value in compared(reports["inside"], reports["outside"]).items():
                    values.setdefault(name, []).append(value)
                tell(f"  round {number}: {values['ratio'][-1]:.2f}")
        payers.demand_soundness()
    return values


def compared(inside: Report, outside: Report) -> dict[str, float]:
    """Return what the two reports of a round say, by the names of measures."""
    return {
        "inside": per_s(inside),
        "outside": per_s(outside),
        "ratio": per_s(inside) / per_s(outside),
        "inside_p99": inside.p99_ms,
        "outside_p99": outside.p99_ms,
    }


def updates(plan: Plan, installation: Installation, work: Path, tell: Tell) -> Values:
    """Replace all pods of the API again and again, while half of what is possible is paid."""
    values: Values = {"update": []}
    with shop_in(installation, "updates") as shop:
        shop.apply(engine(_PODS))
        shop.ready()
        payers = Payers(shop, work)
        peak = per_s(payers.from_pod(plan.seconds))
        tell(f"  {peak / 2:,.0f}/s are half of the peak")

        def update() -> None:
            for number in range(1, plan.rounds + 1):
                values["update"].append(_update(shop, number))
                tell(f"  update {number}: {values['update'][-1]:.1f} s")

        report = payers.from_pod_during(update, peak / 2)
        failed = failures(report)
        for told, count in failed.items():
            tell(f"  {count}: {told}")
        payers.demand_soundness()
    return values | {
        "update_peak": [peak],
        "update_rate": [per_s(report)],
        "update_p99": [report.p99_ms],
        "update_sent": [report.sent + report.lost],
        "update_failed": [sum(failed.values())],
    }


def _update(shop: Shop, number: int) -> float:
    """Replace all pods of the API; return how long it took, in seconds."""
    began_s = time.monotonic()
    # What the API's pods are made from changes, and nothing that they do; those of the database stay.
    shop.change({"probes": {"liveness": {"timeoutSeconds": 5 + number % 2}}})
    shop.ready()
    until(lambda: len(shop.kube.list("pod", _API)) == _PODS, "the old pods are gone")
    return time.monotonic() - began_s


def per_s(report: Report) -> float:
    """Return payments that were made in a second."""
    return report.count / report.seconds


def failures(report: Report) -> dict[str, int]:
    """Return how many requests failed, by how."""
    refused = {
        f"answers {status}": count
        for status, count in report.statuses.items()
        if status != _CREATED
    }
    return refused | ({"no answer": report.lost} if report.lost else {})
