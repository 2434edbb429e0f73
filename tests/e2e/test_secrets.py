"""Keys and passwords are replaced while customers pay with them."""

import pytest

from picopay_operator import names
from support.e2e.installation import Installation
from support.e2e.kube import until
from support.e2e.outside import SECRET, Outside
from support.e2e.shop import SMALLEST, Shop, small


def test_the_administrators_key_is_rotated_and_the_old_one_goes_on(shop: Shop) -> None:
    shop.open(small(SMALLEST))
    old = shop.admin_key()
    with shop.customer() as customer:
        shop.annotate(names.ROTATE_KEY, "1")
        until(lambda: shop.admin_key() != old, "another key")
        shop.ready()
        for secret in (old, shop.admin_key()):
            assert shop.ask("GET", "/v1/accounts", secret=secret)[0] == 200
    assert customer.leave().troubles == []
    shop.sound()


@pytest.mark.parametrize("way", ["at once", "by turns"])
def test_the_password_of_the_database_is_changed_and_no_request_fails(
    shop: Shop, operator: Installation, way: str
) -> None:
    outside = Outside(shop.kube, operator.options.postgres_image)
    outside.start()
    shop.open(small({"database": {"secretRef": {"name": SECRET}}}))
    before = shop.lives()
    with shop.customer() as customer:
        if way == "at once":  # sessions that there are outlive the password
            outside.change_password("the second one")
        else:
            outside.take_turns("picopay_b", "the other one")
        outside.tell_engine()
        until(lambda: not shop.lives() & before, "pods that know the new password")
        shop.ready()
    assert customer.leave().troubles == []
    shop.sound()


@pytest.mark.smoke
def test_a_secret_that_is_missing_is_waited_for(shop: Shop, operator: Installation) -> None:
    shop.apply(small({"database": {"secretRef": {"name": SECRET}}}))
    assert SECRET in shop.until("SecretsReady", "False", "SecretNotFound")
    Outside(shop.kube, operator.options.postgres_image).start()
    shop.ready()
