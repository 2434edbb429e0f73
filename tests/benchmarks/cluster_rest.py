"""How long it takes from nothing to a payment, and what an operator needs where nothing happens.

Used by `cluster_bench.py`.
"""

import json
import time
from datetime import datetime
from typing import Any, NamedTuple

from benchmarks.cluster_ground import room, shop_in
from benchmarks.cluster_results import Plan, Values
from benchmarks.ground import Tell
from benchmarks.servers import BenchmarkError
from support.e2e.installation import Installation
from support.e2e.plugin import Options
from support.e2e.shop import PAYMENT, SMALLEST

_SETTLED_S = 15.0
_MB = 1_000_000


def install(plan: Plan, options: Options, tell: Tell) -> Values:
    """Install the operator on a cluster without it, then an engine, and pay; remove all of it each time."""
    values: Values = {"install_operator": [], "install_engine": [], "install_payment": []}
    for number in range(1, plan.rounds + 1):
        with room(options) as installation, shop_in(installation, "install") as shop:
            shop.customers_come()
            began_s = time.monotonic()
            installation.install()
            values["install_operator"].append(time.monotonic() - began_s)
            shop.apply(SMALLEST)
            shop.ready()
            values["install_engine"].append(time.monotonic() - began_s)
            shop.open_account()
            status, answer = shop.ask("POST", "/v1/payments", PAYMENT, "first")
            if status != 201:
                raise BenchmarkError(f"the first payment was answered {status} {answer}")
            values["install_payment"].append(time.monotonic() - began_s)
        tell(f"  {number} of {plan.rounds}: {values['install_payment'][-1]:.1f} s")
    return values


class Usage(NamedTuple):
    """What a container has used of a processor so far, and its memory, as a kubelet has seen it at a time."""

    at: datetime
    cpu_ns: int
    resident_bytes: int
    working_set_bytes: int


def rest(plan: Plan, installation: Installation, tell: Tell) -> Values:
    """Watch the operator's two pods, with one engine to look after and nothing to do."""
    with shop_in(installation, "rest") as shop:
        shop.apply(SMALLEST)
        shop.ready()
        time.sleep(_SETTLED_S)
        tell(f"  nothing, for {plan.rest_s} s")
        before = _usages(installation)
        time.sleep(plan.rest_s)
        after = _usages(installation)
        leader = installation.leader()
    values: Values = {}
    for pod, usage in after.items():
        role = "leader" if pod == leader else "standby"
        values.setdefault(f"{role}_cpu", []).append(millicores(before[pod], usage))
        values.setdefault(f"{role}_rss", []).append(usage.resident_bytes / _MB)
        values.setdefault(f"{role}_working_set", []).append(usage.working_set_bytes / _MB)
    return values


def millicores(before: Usage, after: Usage) -> float:
    """Return which part of a processor was used between two looks, in thousandths.

    Raises:
        BenchmarkError: the kubelet has not looked in between.
    """
    seconds = (after.at - before.at).total_seconds()
    if seconds <= 0:
        raise BenchmarkError("the kubelet has not looked at the operator: watch it for longer")
    return (after.cpu_ns - before.cpu_ns) / seconds / 1e6


def usage_in(summary: Any, namespace: str, pod: str) -> Usage:
    """Find a pod of one container in what a kubelet tells of its pods (`/stats/summary`)."""
    (container,) = next(
        one["containers"]
        for one in summary["pods"]
        if (one["podRef"]["namespace"], one["podRef"]["name"]) == (namespace, pod)
    )
    cpu, memory = container["cpu"], container["memory"]
    return Usage(
        datetime.fromisoformat(cpu["time"]),
        cpu["usageCoreNanoSeconds"],
        memory["rssBytes"],
        memory["workingSetBytes"],
    )


def _usages(installation: Installation) -> dict[str, Usage]:
    kube = installation.kube
    found = {}
    for pod in installation.pods():
        path = f"/api/v1/nodes/{pod['spec']['nodeName']}/proxy/stats/summary"
        name = pod["metadata"]["name"]
        found[name] = usage_in(json.loads(kube("get", "--raw", path)), kube.namespace, name)
    return found
