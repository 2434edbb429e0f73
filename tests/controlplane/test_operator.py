"""The operator on a real API server: from a manifest to a served engine, and what disturbs that."""

import pytest

from picopay_operator.__main__ import Operator
from picopay_operator.conditions import Type
from support.controlplane.operating import NAME, Case, steady
from support.controlplane.plays import CannotPull, Exits, Runs
from support.waiting import eventually
from support.world import report

pytestmark = pytest.mark.usefixtures("definition", "operator")


async def test_from_three_lines_to_an_engine_that_serves(case: Case) -> None:
    await case.apply()
    await case.until(Type.READY, "False", "SecretNotFound")
    await case.secret()
    await case.ready()
    status = (await case.api.get("PicoPayEngine", NAME))["status"]
    assert (status["replicas"], status["readyReplicas"]) == (2, 2)
    assert status["endpoint"] == f"http://{NAME}-api.{case.api.namespace}.svc"
    assert status["schema"]["current"] == "0001"
    told = await case.events()
    for reason in ("SecretNotFound", "MigrationStarted", "RolloutCompleted"):
        assert told.count(reason) == 1, told
    assert case.api.warnings == []
    # The key is there for whoever may read it.
    secret = await case.api.get("Secret", f"{NAME}-admin-key")
    assert "api-key" in secret["data"]


async def test_an_engine_at_rest_is_not_written_and_hardly_read(
    operator: Operator, case: Case
) -> None:
    await case.secret()
    await case.apply()
    await case.ready()
    before = await steady(case.versions)
    reads = operator._client.requests
    for key in list(operator._cache.engines):
        operator._queue.wake(key)
    await steady(case.versions)
    assert await case.versions() == before
    assert operator._client.requests - reads <= 5


async def test_what_is_deleted_or_changed_is_restored(case: Case) -> None:
    await case.secret()
    await case.apply()
    await case.ready()
    await case.api.delete("Deployment", f"{NAME}-api")
    await case.api.delete("Service", f"{NAME}-api")
    worker = await case.api.get("Deployment", f"{NAME}-worker")
    worker["spec"]["template"]["spec"]["containers"][0]["image"] = "evil:1"
    await case.api.replace(worker)

    async def restored() -> bool:
        return bool(
            await case.api.find("Deployment", f"{NAME}-api")
            and await case.api.find("Service", f"{NAME}-api")
            and not (await case.image(f"{NAME}-worker")).startswith("evil")
        )

    await eventually(restored)
    await case.ready()
    assert "DriftCorrected" in await case.events()


async def test_a_new_version_comes_after_its_migration(case: Case) -> None:
    await case.secret()
    await case.apply({"version": "1.0.0"})
    await case.ready()
    case.player.plays(Runs(), argument="migrate", image="1.1.0")
    await case.apply({"version": "1.1.0"})
    await case.until(Type.READY, "False", "MigrationRunning")
    assert (await case.image()).endswith(":1.0.0")
    case.player.plays(Exits(0, report(release="1.1.0")), argument="migrate", image="1.1.0")
    await case.ready()
    assert (await case.image()).endswith(":1.1.0")
    assert len(await case.jobs("migrate")) == 1


async def test_a_failed_migration_is_shown_and_retried(case: Case) -> None:
    await case.secret()
    await case.apply({"version": "1.0.0"})
    await case.ready()
    broken = report(ok=False, exit_code=5, code="migration_refused", detail="no such column")
    case.player.plays(Exits(5, broken), argument="migrate", image="1.1.0")
    await case.apply({"version": "1.1.0"})
    stalled = await case.until(Type.STALLED, "True", "MigrationFailed")
    assert "no such column" in stalled["message"]
    assert (await case.image()).endswith(":1.0.0")
    await case.until(Type.AVAILABLE, "True")
    case.player.plays(Exits(0, report(release="1.1.0")), argument="migrate", image="1.1.0")
    await case.annotate(retry="now")
    await case.ready()
    assert (await case.image()).endswith(":1.1.0")


async def test_an_image_that_cannot_be_pulled_is_named(case: Case) -> None:
    await case.secret()
    case.player.plays(CannotPull("no such tag"), argument="serve")
    await case.apply()
    failed = await case.until(Type.ROLLOUT_COMPLETE, "False", "ImagePullFailed")
    assert "no such tag" in failed["message"]
    case.player.plays(Runs(), argument="serve")
    await case.ready()


async def test_a_secret_that_changes_rolls_the_pods(case: Case) -> None:
    await case.secret()
    await case.apply()
    await case.ready()

    async def generation() -> int:
        found = await case.api.get("Deployment", f"{NAME}-api")
        return int(found["metadata"]["generation"])

    before = await steady(generation)
    await case.api.merge("Secret", "picopay-secrets", {"metadata": {"labels": {"team": "x"}}})
    assert await steady(generation) == before
    await case.secret(database_url="postgresql://picopay@other/picopay")

    async def rolled() -> bool:
        return bool(await generation() > before)

    await eventually(rolled)
    await case.ready()


async def test_the_number_of_an_autoscaler_is_left_alone(case: Case) -> None:
    await case.secret()
    await case.apply({"autoscaling": {"maxReplicas": 9}})
    await case.ready()
    await case.api.merge("Deployment", f"{NAME}-api", {"spec": {"replicas": 5}})
    await case.annotate(retry="look")

    async def five() -> bool:
        found = await case.api.get("PicoPayEngine", NAME)
        return bool(found["status"].get("replicas") == 5)

    await eventually(five)
    await case.ready()
    found = await case.api.get("Deployment", f"{NAME}-api")
    assert found["spec"]["replicas"] == 5


async def test_what_is_somebody_elses_is_not_taken_over(case: Case) -> None:
    await case.api.create(
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": f"{NAME}-api"},
            "spec": {"ports": [{"port": 80}]},
        }
    )
    await case.secret()
    await case.apply()
    stalled = await case.until(Type.STALLED, "True", "AdoptionRefused")
    assert f"Service {NAME}-api" in stalled["message"]
    await case.api.delete("Service", f"{NAME}-api")
    await case.annotate(retry="now")
    await case.ready()


async def test_a_deleted_engine_goes_and_its_key_stays(case: Case) -> None:
    await case.secret()
    await case.apply()
    await case.ready()
    await case.api.delete("PicoPayEngine", NAME)

    async def gone() -> bool:
        return not (
            await case.api.find("PicoPayEngine", NAME)
            or await case.api.find("Deployment", f"{NAME}-api")
        )

    await eventually(gone)
    assert await case.api.find("Secret", f"{NAME}-admin-key")
    # The same engine again finds it.
    await case.apply()
    await case.ready()
