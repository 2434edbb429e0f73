"""More pods when they are asked for, and when there is more to do."""

import pytest

from picopay_operator import names
from support.e2e.kube import until
from support.e2e.shop import NAME, SMALLEST, Shop, small


@pytest.mark.smoke
def test_an_engine_is_scaled_to_three_and_back_while_customers_pay(shop: Shop) -> None:
    shop.open(small({**SMALLEST, "replicas": 1}))
    with shop.customer() as customer:
        for replicas in (3, 1):
            shop.kube("scale", f"ppe/{NAME}", f"--replicas={replicas}")
            has_pods(shop, replicas)
    assert customer.leave().troubles == []
    shop.sound()


@pytest.mark.metrics
def test_an_autoscaler_adds_pods_under_load_and_takes_them_away(shop: Shop) -> None:
    autoscaling = {
        "minReplicas": 1,
        "maxReplicas": 3,
        "cpuUtilizationPercent": 50,
        "scaleDownStabilizationSeconds": 0,
    }
    shop.open(small({**SMALLEST, "autoscaling": autoscaling}))
    deployment = names.api(NAME)
    with shop.customer(per_s=200, connections=16) as customer:
        until(lambda: replicas(shop, deployment) == 3, "three pods", within_s=300)
        shop.ready()  # the operator leaves their number to the autoscaler
        assert replicas(shop, deployment) == 3
    assert customer.leave().troubles == []
    until(lambda: replicas(shop, deployment) == 1, "one pod", within_s=600)
    shop.sound()


def has_pods(shop: Shop, count: int) -> None:
    until(lambda: shop.engine()["status"]["readyReplicas"] == count, f"{count} pods")
    shop.ready()
    until(lambda: len(shop.pods()) == count, f"no more than {count} pods")


def replicas(shop: Shop, deployment: str) -> int:
    return int(shop.kube.get("deployment", deployment)["spec"]["replicas"])
