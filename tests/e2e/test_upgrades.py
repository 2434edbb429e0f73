"""Versions come and go while customers pay: no request fails, and what went wrong is not noticed outside."""

from picopay_api import __version__
from picopay_operator import names
from picopay_operator.names import Component
from support.e2e.kube import until
from support.e2e.releases import BROKEN, LAST, MORE, PERMIT, SAME, UNSURE
from support.e2e.shop import SMALLEST, Shop, small

SPEC = small({**SMALLEST, "version": __version__})
BLUE_GREEN = {"strategy": "BlueGreen", "blueGreen": {"scaleDownDelaySeconds": 5}}


def serves(shop: Shop, version: str) -> None:
    """Wait until the engine is ready, with pods of one version alone."""
    shop.ready()
    assert shop.engine()["status"]["version"] == version

    def only_these() -> bool:
        images = {pod["spec"]["containers"][0]["image"] for pod in shop.pods()}
        return all(image.endswith(f":{version}") for image in images)

    until(only_these, f"only pods of {version}")


def test_pods_are_replaced_one_by_one_and_no_request_fails(shop: Shop) -> None:
    shop.open(SPEC)
    with shop.customer() as customer:
        for version in (SAME, __version__):
            shop.change({"version": version})
            serves(shop, version)
    assert customer.leave().troubles == []
    shop.sound()


def test_the_service_switches_between_two_colours_and_no_request_fails(shop: Shop) -> None:
    shop.open(small({**SMALLEST, "version": __version__, "rollout": BLUE_GREEN}))
    with shop.customer() as customer:
        for version in (SAME, MORE):
            before = shop.deployment()
            shop.change({"version": version})
            serves(shop, version)
            assert shop.deployment() != before
    assert customer.leave().troubles == []
    shop.sound()


def test_a_migration_that_fails_leaves_the_old_version_serving_and_is_retried(shop: Shop) -> None:
    shop.open(SPEC)
    shop.change({"migrations": {"backoffLimit": 0}})
    shop.ready()
    with shop.customer() as customer:
        before = shop.lives()
        shop.change({"version": UNSURE})
        message = shop.until("Stalled", "True", "MigrationFailed")
        assert PERMIT in message
        assert shop.condition("Available")["status"] == "True"
        assert shop.lives() == before
        # The version that serves is good for more than to wait: it makes what the migration misses.
        status, _ = shop.ask("POST", "/v1/accounts", {"reference": PERMIT, "asset": "USD"}, PERMIT)
        assert status == 201
        shop.annotate(names.RETRY, "now that it is there")
        serves(shop, UNSURE)
    assert customer.leave().troubles == []
    shop.sound()


def test_an_image_that_does_not_start_takes_nobodys_place(shop: Shop) -> None:
    shop.open(SPEC)
    with shop.customer() as customer:
        before = shop.lives(Component.API)
        shop.change({"version": BROKEN})
        shop.until("RolloutComplete", "False", "CrashLooping")
        assert shop.lives(Component.API) >= before
        shop.change({"version": __version__})
        serves(shop, __version__)
        assert shop.lives(Component.API) == before
    assert customer.leave().troubles == []
    shop.sound()


def test_an_image_that_cannot_be_pulled_changes_nothing(shop: Shop) -> None:
    shop.open(SPEC)
    with shop.customer() as customer:
        before = shop.lives()
        shop.change({"image": {"repository": "localhost/there-is-no-such-image"}})
        message = until(lambda: pull_failure(shop), "a message about the image")
        assert "there-is-no-such-image" in message
        assert shop.lives() == before
        shop.change({"image": None})
        serves(shop, __version__)
        assert shop.lives() == before
    assert customer.leave().troubles == []
    shop.sound()


def pull_failure(shop: Shop) -> str:
    for one in shop.engine()["status"]["conditions"]:
        if one["reason"] == "ImagePullFailed":
            return str(one["message"])
    return ""


def test_what_the_schema_admits_can_go_back_and_what_it_does_not_is_refused(shop: Shop) -> None:
    shop.open(SPEC)
    with shop.customer() as customer:
        shop.change({"version": MORE})
        serves(shop, MORE)
        shop.change({"version": __version__})  # the table more disturbs nobody
        serves(shop, __version__)
        shop.ask("POST", "/v1/accounts", {"reference": PERMIT, "asset": "USD"}, PERMIT)
        shop.change({"version": LAST})
        serves(shop, LAST)
        until(lambda: contracted(shop), "the step that turns earlier releases away")
        shop.change({"version": MORE})
        message = shop.until("Stalled", "True", "RollbackRefused")
        assert LAST in message
        before = shop.lives()
        shop.change({"version": LAST})
        serves(shop, LAST)
        assert shop.lives() == before
    assert customer.leave().troubles == []
    shop.sound()


def contracted(shop: Shop) -> bool:
    schema = shop.engine()["status"]["schema"]
    return bool(schema["current"] == schema["target"] == schema["oldestRelease"])
