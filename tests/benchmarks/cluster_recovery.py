"""What customers notice when something is killed on a cluster, and how soon another operator leads.

Used by `cluster_bench.py`. Customers pay at a modest pace, and try each payment again until it is
acknowledged.
"""

import time
from collections.abc import Callable

from benchmarks.cluster_ground import is_ready, shop_in
from benchmarks.cluster_results import Plan, Values
from benchmarks.ground import Tell
from picopay_operator import names
from picopay_operator.names import Component
from support.e2e.installation import RELEASE, Installation
from support.e2e.kube import PATIENCE_S, until
from support.e2e.shop import NAME, SMALLEST, Shop

_KILL = ("delete", "pod", "--grace-period=0", "--force")
_BEFORE_S, _AFTER_S = 2.0, 2.0
"""How long customers pay before something is killed, and when it is there again."""

_PODS = 2


def recovery(plan: Plan, installation: Installation, tell: Tell) -> Values:
    """Kill pods of the API, PostgreSQL, and the operator's leader."""
    values: Values = {}
    with shop_in(installation, "recovery") as shop:
        shop.open({**SMALLEST, "replicas": _PODS})
        for name, kill in (("api", _kill_api), ("postgres", _kill_postgres)):
            for number in range(1, plan.rounds + 1):
                tell(f"  {name}, {number} of {plan.rounds}")
                for what, value in _noticed(shop, kill).items():
                    values.setdefault(f"{name}_{what}", []).append(value)
        shop.sound()
        values["leader"] = []
        for number in range(1, plan.rounds + 1):
            tell(f"  leader, {number} of {plan.rounds}")
            values["leader"].append(_replace_leader(shop, installation, number))
    return values


def _noticed(shop: Shop, kill: Callable[[Shop], None]) -> dict[str, float]:
    """Return what customers noticed of something that was killed and has come back."""
    with shop.customer() as customer:
        time.sleep(_BEFORE_S)
        kill(shop)
        time.sleep(_AFTER_S)
    takings = customer.leave()
    return {
        "gap": takings.longest_gap_s or 0.0,
        "wait": takings.longest_wait_s,
        "failed": takings.failed,
    }


def _kill_api(shop: Shop) -> None:
    victim = shop.pods()[0]["metadata"]
    shop.kube(*_KILL, victim["name"])

    def others() -> bool:
        ready = {pod["metadata"]["uid"] for pod in shop.pods() if is_ready(pod)}
        return len(ready - {victim["uid"]}) == _PODS

    until(others, "as many pods as before")


def _kill_postgres(shop: Shop) -> None:
    (victim,) = shop.pods(Component.DATABASE)
    name, uid = victim["metadata"]["name"], victim["metadata"]["uid"]
    shop.kube(*_KILL, name)

    def another() -> bool:
        return any(
            pod["metadata"]["uid"] != uid and is_ready(pod) for pod in shop.pods(Component.DATABASE)
        )

    until(another, "PostgreSQL is back")
    shop.kube(
        "rollout", "status", f"deployment/{shop.deployment()}", f"--timeout={PATIENCE_S:.0f}s"
    )


def _replace_leader(shop: Shop, installation: Installation, number: int) -> float:
    """Kill the leader, change something, and return after how many seconds another has acted on it."""
    leader = installation.leader()
    wanted = 1 + number % _PODS
    began_s = time.monotonic()
    installation.kube(*_KILL, leader, "--wait=false")
    shop.change({"podDisruptionBudget": {"maxUnavailable": wanted}})
    until(lambda: _budget(shop) == wanted, "what another leader has done")
    took_s = time.monotonic() - began_s
    patience = f"--timeout={PATIENCE_S:.0f}s"
    installation.kube("rollout", "status", f"deployment/{RELEASE}", patience)
    return took_s


def _budget(shop: Shop) -> object:
    return shop.kube.get("poddisruptionbudget", names.api(NAME))["spec"]["maxUnavailable"]
