"""What happens to pods, nodes, the operator and the database, at moments nobody chose: no money is lost."""

import random
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from picopay_operator.names import Component
from support.e2e.installation import Installation
from support.e2e.kube import CommandError, until
from support.e2e.outside import SECRET, Outside
from support.e2e.shop import SMALLEST, Shop, small

KILLED = 4 * (Component.API,) + 2 * (Component.WORKER, Component.DATABASE)
OPERATOR = None
CONNECTIONS = 8
SETTLED_S = 2.0
"""How long things are left alone between two kills, at most."""


@pytest.mark.smoke
def test_pods_and_operators_are_killed_at_random_and_the_money_is_there(
    shop: Shop, operator: Installation
) -> None:
    shop.open(small({**SMALLEST, "replicas": 3}))
    seed = random.randrange(1_000_000)
    print(f"the seed is {seed}")  # shown when the test fails
    chance = random.Random(seed)
    kinds: list[Component | None] = [*KILLED, OPERATOR]
    chance.shuffle(kinds)
    with shop.customer() as customer:
        for kind in kinds:
            kube, of_kind = (
                (shop.kube, shop.pods(kind)) if kind else (operator.kube, operator.pods())
            )
            for pod in chance.sample(of_kind, min(1, len(of_kind))):
                print(f"killed: {pod['metadata']['name']}")
                kill = ("delete", "pod", pod["metadata"]["name"], "--grace-period=0", "--force")
                kube(*kill, "--ignore-not-found", "--wait=false")
            time.sleep(chance.uniform(0, SETTLED_S))
        shop.kube("rollout", "status", "statefulset", "--timeout=3m")
        shop.ready()
    assert len(customer.leave().ids) > 100
    shop.sound()


def test_an_api_pod_that_is_killed_costs_those_it_was_answering_a_retry_at_most(shop: Shop) -> None:
    shop.open(small({**SMALLEST, "replicas": 2}))
    with shop.customer(connections=CONNECTIONS) as customer:
        for _ in range(3):
            name = shop.pods()[0]["metadata"]["name"]
            shop.kube("delete", "pod", name, "--grace-period=0", "--force")
            until(lambda: ready_pods(shop) == 2, "two pods again")
    takings = customer.leave()
    # A kill cuts off what its pod was answering, and those who come before the
    # Service knows of it; nobody is refused.
    assert {failure["what"].partition(":")[0] for failure in takings.failures} <= {"no answer"}
    tried_again = Counter(failure["key"] for failure in takings.failures)
    assert len(tried_again) <= 3 * CONNECTIONS
    assert takings.ids
    shop.sound()


def test_a_node_is_drained_as_far_as_the_budget_lets_it(shop: Shop) -> None:
    shop.open(small({**SMALLEST, "replicas": 3}))
    (node,) = {pod["spec"]["nodeName"] for pod in shop.pods()}
    with shop.customer() as customer, cordoned(shop, node):
        drain = ("drain", node, "--ignore-daemonsets", "--delete-emptydir-data")
        labels = "app.kubernetes.io/component=api"
        with pytest.raises(CommandError, match=r"disruption budget|global timeout"):
            shop.kube(*drain, f"--pod-selector={labels}", "--timeout=20s")
        # There is no other node: one pod has gone and waits for room, and the others may not follow it.
        assert ready_pods(shop) == 2
    shop.ready()
    until(lambda: ready_pods(shop) == 3, "all pods again")
    assert customer.leave().troubles == []
    shop.sound()


def test_a_database_outside_crashes_and_what_was_acknowledged_is_there(
    shop: Shop, operator: Installation
) -> None:
    outside = Outside(shop.kube, operator.options.postgres_image)
    outside.start()
    shop.open(small({"database": {"secretRef": {"name": SECRET}}}))
    with shop.customer() as customer:
        for _ in range(2):
            paid = count(outside)
            outside.crash()
            paid_more(outside, paid)
    takings = customer.leave()
    assert takings.lost == []
    shop.ready()
    shop.sound()


def test_a_server_in_the_cluster_never_works_beside_the_one_before_it(shop: Shop) -> None:
    shop.open(small(SMALLEST))
    with shop.customer(per_s=100) as customer:
        for _ in range(4):
            (server,) = shop.pods(Component.DATABASE)
            # The next pod is made at once, whether the server of this one has ended or not.
            name = server["metadata"]["name"]
            shop.kube("delete", "pod", name, "--grace-period=0", "--force")
            replaced(shop, server["metadata"]["uid"])
    takings = customer.leave()
    assert takings.lost == []
    assert len(takings.ids) > 100
    shop.ready()
    shop.sound()


def replaced(shop: Shop, uid: str) -> None:
    """Wait for another pod of the database that is ready."""

    def is_ready() -> bool:
        return any(
            one["metadata"]["uid"] != uid and status["ready"]
            for one in shop.pods(Component.DATABASE)
            for status in one["status"].get("containerStatuses", ())
        )

    until(is_ready, "another server")


def paid_more(outside: Outside, before: int) -> None:
    until(lambda: count(outside) > before, "payments again")


def count(outside: Outside) -> int:
    try:
        return int(outside.run("SELECT count(*) FROM picopay.journal"))
    except CommandError:
        return 0  # it is starting


def ready_pods(shop: Shop) -> int:
    return sum(
        condition["status"] == "True"
        for pod in shop.pods()
        for condition in pod["status"].get("conditions", ())
        if condition["type"] == "Ready"
    )


@contextmanager
def cordoned(shop: Shop, node: str) -> Iterator[None]:
    """Give the node back at the end, however it was drained."""
    try:
        yield
    finally:
        shop.kube("uncordon", node)
