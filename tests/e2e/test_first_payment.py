"""One manifest: the operator is installed, a small engine is applied, and money moves."""

import pytest

from support.e2e.installation import NAMESPACE, RELEASE, Installation
from support.e2e.kube import until
from support.e2e.outside import SECRET, Outside
from support.e2e.shop import NAME, SMALLEST, Shop, small

pytestmark = pytest.mark.smoke


def test_the_operator_works_in_a_namespace_for_restricted_pods(operator: Installation) -> None:
    labels = operator.kube.get("namespace", NAMESPACE)["metadata"]["labels"]
    assert labels["pod-security.kubernetes.io/enforce"] == "restricted"
    assert operator.leader() in {pod["metadata"]["name"] for pod in operator.pods()}
    assert "Phase:" in operator.kube.helm("test", RELEASE)


def test_three_lines_of_spec_and_a_payment(shop: Shop) -> None:
    shop.open(SMALLEST)
    with shop.customer() as customer:
        until(lambda: int(balance(shop)) >= 50, "50 payments")
    takings = customer.leave()
    assert takings.troubles == []
    shop.sound()

    heads, row = (line.split() for line in shop.kube("get", "ppe").splitlines())
    told = dict(zip(heads, row, strict=False))
    assert told["NAME"] == NAME
    assert told["READY"] == "True"
    assert shop.engine()["status"]["endpoint"].startswith(f"http://{NAME}-api.")


def test_a_database_outside_by_the_secret_of_the_guide(shop: Shop, operator: Installation) -> None:
    outside = Outside(shop.kube, operator.options.postgres_image)
    outside.start()
    shop.open(small({"database": {"secretRef": {"name": SECRET}}}))
    with shop.customer():
        until(lambda: int(balance(shop)) >= 50, "50 payments")
    shop.sound()
    assert outside.run("SELECT count(*) >= 50 FROM picopay.journal").strip() == "t"


def balance(shop: Shop) -> str:
    return str(shop.ask("GET", "/v1/accounts/@shop/balance")[1]["balance"]["posted"])
