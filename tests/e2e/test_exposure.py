"""Payments from outside, by a real controller: through an Ingress, and an HTTPRoute of the Gateway API."""

import pytest

from picopay_api import __version__
from picopay_operator import names
from support.e2e.kube import Manifest, until
from support.e2e.releases import SAME
from support.e2e.shop import NAME, SMALLEST, Shop, small

pytestmark = pytest.mark.ingress

DOOR = "http://traefik.ingress"
"""Where clients reach traefik, which sends them on by the host that they ask for."""

HOST = "pay.example.com"
CLASS = "traefik"
EXPOSURES: dict[str, Manifest] = {
    "ingress": {"ingress": {"host": HOST, "className": CLASS}},
    "route": {
        "httpRoute": {
            "parentRefs": [{"name": "traefik", "namespace": "ingress"}],
            "hostnames": [HOST],
        }
    },
}


@pytest.mark.parametrize("way", EXPOSURES)
def test_customers_from_outside_pay_while_pods_are_replaced(shop: Shop, way: str) -> None:
    shop.open(small({**SMALLEST, **EXPOSURES[way]}))
    shop.until("Exposed", "True", "Exposed")
    until(lambda: is_reached(shop), "traefik leads to the API")
    with shop.customer(url=DOOR, host=HOST) as customer:
        for version in (SAME, __version__):
            shop.change({"version": version})
            shop.kube("rollout", "status", f"deployment/{names.api(NAME)}", "--timeout=3m")
            shop.ready()
    assert customer.leave().troubles == []
    shop.sound()
    assert HOST in shop.engine()["status"]["endpoint"]


def test_an_engine_is_reached_by_its_own_host_only(shop: Shop) -> None:
    shop.open(small({**SMALLEST, **EXPOSURES["ingress"]}))
    until(lambda: is_reached(shop), "traefik leads to the API")
    status, _ = shop.ask("GET", "/v1/accounts", url=DOOR, host="other.example.com")
    assert status == 404


def is_reached(shop: Shop) -> bool:
    return shop.ask("GET", "/v1/accounts", url=DOOR, host=HOST)[0] == 200
