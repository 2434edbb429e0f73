"""An engine on a cluster of CloudNativePG's own operator, whose primary is killed while customers pay."""

import pytest

from picopay_operator import names
from support.e2e.kube import until
from support.e2e.shop import NAME, Shop, small

pytestmark = pytest.mark.cloudnativepg

CLUSTER = names.postgres(NAME)


def test_the_primary_is_killed_and_the_standby_has_every_payment(shop: Shop) -> None:
    shop.open(small({"database": {"cloudNativePG": {"instances": 2, "storage": {"size": "1Gi"}}}}))
    with shop.customer() as customer:
        before = primary(shop)
        shop.kube("delete", "pod", before, "--grace-period=0", "--force")
        until(lambda: primary(shop) != before, "another primary", within_s=300)
        until(lambda: healthy(shop), "both of them", within_s=300)
    takings = customer.leave()
    assert takings.lost == []
    shop.ready()
    shop.sound()


def primary(shop: Shop) -> str:
    return str(shop.kube.get("clusters.postgresql.cnpg.io", CLUSTER)["status"]["currentPrimary"])


def healthy(shop: Shop) -> bool:
    status = shop.kube.get("clusters.postgresql.cnpg.io", CLUSTER)["status"]
    return bool(status.get("readyInstances") == 2)
