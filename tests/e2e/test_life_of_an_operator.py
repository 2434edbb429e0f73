"""The operator is upgraded, loses its leader, goes and comes back; engines and their data outlive it."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from picopay_api import __version__
from picopay_operator import names
from support.e2e.installation import DEFINITION, Installation
from support.e2e.kube import until
from support.e2e.releases import OPERATOR
from support.e2e.shop import NAME, SMALLEST, Shop, small

SPEC = small({**SMALLEST, "version": __version__})


@contextmanager
def as_before(operator: Installation) -> Iterator[None]:
    """Have the operator in the end that all tests begin with."""
    try:
        yield
    finally:
        operator.install("replicaCount=2")


def test_an_operator_of_another_release_restarts_nothing(
    shop: Shop, operator: Installation
) -> None:
    shop.open(SPEC)
    before = shop.lives()
    with shop.customer() as customer, as_before(operator):
        operator.install("replicaCount=2", f"image.tag={OPERATOR}")
        until(lambda: all(image.endswith(f":{OPERATOR}") for image in images(operator)), "it runs")
        shop.change({"podDisruptionBudget": {"maxUnavailable": 2}})
        until(lambda: budget(shop) == 2, "what the new operator has applied")
        shop.ready()
    assert shop.lives() == before
    assert customer.leave().troubles == []
    shop.sound()


def images(operator: Installation) -> set[str]:
    return {pod["spec"]["containers"][0]["image"] for pod in operator.pods()}


def budget(shop: Shop) -> int:
    return int(shop.kube.get("poddisruptionbudget", names.api(NAME))["spec"]["maxUnavailable"])


@pytest.mark.smoke
def test_the_leader_is_killed_and_the_one_that_stood_by_takes_over(
    shop: Shop, operator: Installation
) -> None:
    shop.open(SPEC)
    before = shop.lives()
    leader = operator.leader()
    operator.kube("delete", "pod", leader, "--grace-period=0", "--force")
    shop.change({"replicas": 3})
    until(lambda: shop.engine()["status"]["readyReplicas"] == 3, "what the next leader has done")
    assert operator.leader() != leader
    assert before < shop.lives()


@pytest.mark.smoke
def test_an_operator_that_was_away_finds_engines_and_their_money(
    shop: Shop, operator: Installation
) -> None:
    shop.open(SPEC)
    before = shop.lives()
    with shop.customer() as customer, as_before(operator):
        operator.uninstall()
        until(lambda: not operator.pods(), "no operator")
        assert operator.kube.exists("customresourcedefinition", DEFINITION)
        shop.change({"replicas": 3})
        shop.kube("delete", "poddisruptionbudget", names.api(NAME))
    shop.ready()
    assert shop.kube.exists("poddisruptionbudget", names.api(NAME))
    assert before < shop.lives()
    assert customer.leave().troubles == []
    shop.sound()


def test_an_engine_that_is_deleted_leaves_its_data_and_finds_them_again(shop: Shop) -> None:
    shop.open(SPEC)
    with shop.customer():
        until(lambda: shop.ask("GET", "/v1/accounts/@shop")[1]["balance"]["posted"] > 20, "money")
    shop.sound()
    secret = shop.admin_key()
    shop.kube("delete", f"ppe/{NAME}", "--timeout=2m")
    until(lambda: not shop.pods(), "no pods")
    assert claims(shop)
    shop.apply(SPEC)
    shop.ready()
    assert shop.admin_key() == secret
    shop.sound()


def test_an_engine_that_shall_take_its_data_along_leaves_nothing(shop: Shop) -> None:
    shop.open({**SPEC, "deletionPolicy": "Delete"})
    assert claims(shop)
    shop.kube("delete", f"ppe/{NAME}", "--timeout=2m")

    def left() -> list[str]:
        kinds = "deployment,statefulset,job,service,secret,persistentvolumeclaim,configmap"
        found = shop.kube.list(kinds, f"{names.ENGINE_LABEL}={NAME}")
        return [f"{one['kind']}/{one['metadata']['name']}" for one in found]

    until(lambda: not left(), "nothing is left")
    until(lambda: not claims(shop), "no volume")


def claims(shop: Shop) -> list[str]:
    return [one["metadata"]["name"] for one in shop.kube.list("persistentvolumeclaim")]
