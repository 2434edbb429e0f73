"""One manifest in, a payment out: real migrations, servers and workers, and what may happen to them."""

import asyncio
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path

import pytest

from picopay_api.database_url import DatabaseUrl
from picopay_api.store import schema
from picopay_api.worker.audit_all import audit_everything
from picopay_operator.conditions import Type
from picopay_operator.plan import upkeep
from support.api import as_key
from support.controlplane.api_server import ApiServer
from support.controlplane.kubelet import Kubelet
from support.controlplane.operating import NAME, operating
from support.controlplane.player import playing
from support.controlplane.servers import ControlPlane
from support.customers import Customers
from support.journal import opened
from support.nodeless import RELEASE, Nodeless, image_of, make_shop, own_image, pay
from support.own_server import own_server
from support.releases import Release
from support.sql import value
from support.waiting import eventually

pytestmark = [pytest.mark.usefixtures("definition"), pytest.mark.timeout(300)]

NEXT = "9.0.0"
BOOKED = "SELECT count(*) FROM picopay.journal"
REVISION = "SELECT version_num FROM picopay.alembic_version"
TWO = {
    "worker": {"replicas": 0},
    "probes": {"startup": {"periodSeconds": 1}, "readiness": {"periodSeconds": 1}},
}
"""An engine of two pods, whose state is soon known."""

SMALL = {**TWO, "replicas": 1}


@pytest.fixture
async def case(
    control_plane: ControlPlane, api_server: ApiServer, tmp_path: Path
) -> AsyncIterator[Nodeless]:
    pods = tmp_path / "pods"
    pods.mkdir()
    kubelet = Kubelet(api_server, RELEASE.image, pods, {RELEASE.version: own_image()})
    async with (
        playing(api_server, kubelet) as player,
        operating(control_plane, api_server.namespace),
    ):
        yield Nodeless(api_server, player, kubelet)


async def audited(url: DatabaseUrl) -> None:
    async with opened(url) as database:
        assert await audit_everything(database, lambda _: None) == []


async def open_shop(case: Nodeless, url: DatabaseUrl) -> str:
    """Have an engine of two pods serve, with an account to pay to; return its administrator's key."""
    await case.database(url)
    await case.apply(TWO)
    await case.ready()
    secret = await case.admin_key()
    async with case.client(secret) as client:
        await make_shop(client)
    return secret


@asynccontextmanager
async def payments_going_on(case: Nodeless, secret: str) -> AsyncIterator[Customers]:
    """Have customers pay through the Service until the end of the block; not one request is refused."""
    async with case.service() as service, asyncio.TaskGroup() as group:
        customers = Customers(service.url, as_key(secret))
        for number in range(6):
            group.create_task(customers.pay_on(0.1 + 0.3 * (number % 3)))
        await customers.paid(10)
        yield customers
        customers.done.set()
    assert set(customers.answers) == {"201"}
    assert service.refused == 0


async def test_one_manifest_in_a_payment_out(
    case: Nodeless, empty_database_url: DatabaseUrl
) -> None:
    await case.database(empty_database_url)
    await case.apply()
    await case.ready()
    async with case.client(await case.admin_key()) as client:
        await make_shop(client)
        await pay(client, "first")
        for port in await case.ports():
            seen = await client.get(f"http://127.0.0.1:{port}/v1/accounts/@shop")
            assert int(seen.json()["balance"]["available"]) == 1
    assert await value(empty_database_url, BOOKED) == 1
    await audited(empty_database_url)


async def test_a_new_version_comes_in_and_nobody_notices(
    case: Nodeless, empty_database_url: DatabaseUrl
) -> None:
    case.kubelet.images[NEXT] = image_of(NEXT, schema.FOLDER)
    secret = await open_shop(case, empty_database_url)
    async with payments_going_on(case, secret) as customers:
        await case.apply({**TWO, "version": NEXT})
        await case.ready()
        await case.only_pods_of(NEXT)
        await customers.paid(20)
    async with case.client(secret) as client:
        assert (await client.get("/openapi.json")).json()["info"]["version"] == NEXT
    assert await value(empty_database_url, BOOKED) == customers.answers["201"]
    await audited(empty_database_url)


async def test_what_turns_a_release_away_comes_after_its_last_pod(
    case: Nodeless, empty_database_url: DatabaseUrl, tmp_path: Path
) -> None:
    release = Release(tmp_path / "next")
    release.add("CREATE TABLE picopay.more (id uuid)")
    release.add("DROP TABLE picopay.more", admits_older=False)
    case.kubelet.images[NEXT] = image_of(NEXT, release.folder)
    secret = await open_shop(case, empty_database_url)
    async with payments_going_on(case, secret):
        await case.apply({**TWO, "version": NEXT})
        await case.only_pods_of(NEXT)

        async def contracted() -> bool:
            return bool(await value(empty_database_url, REVISION) == release.revisions()[-1])

        await eventually(contracted, within_s=60)
        await case.ready()
    assert len(await case.jobs_ever("migrate")) == 3  # the first one, expand and contract
    await case.apply({**TWO, "version": RELEASE.version})
    await case.until(Type.STALLED, "True", "RollbackRefused")
    await audited(empty_database_url)


async def test_a_database_that_was_away_is_found_again(
    case: Nodeless, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(upkeep, "_PATIENCE", timedelta(seconds=1))
    async with own_server(tmp_path / "database") as server:
        await case.database(server.postgres.owner_url)
        await case.apply(SMALL)
        await case.ready()
        before = await case.pods()
        await server.end(signal.SIGINT)
        await case.until(Type.AVAILABLE, "False")
        await case.until(Type.READY, "False", "DatabaseUnreachable")
        assert await case.ports() == []
        await server.restart()
        await case.ready()
        async with case.client(await case.admin_key()) as client:
            await make_shop(client)
            await pay(client, "first")
        # Whoever waits for a database is not started again: that would not bring it back.
        assert await case.pods() == before
        await audited(server.postgres.owner_url)


async def test_while_the_key_of_the_administrator_is_replaced_both_are_valid(
    case: Nodeless, empty_database_url: DatabaseUrl
) -> None:
    await case.database(empty_database_url)
    await case.apply(SMALL)
    await case.ready()
    first = await case.admin_key()
    async with case.client(first) as client:
        await case.annotate(rotate_admin_key="once")

        async def is_replaced() -> bool:
            return await case.admin_key() != first

        await eventually(is_replaced)
        second = as_key(await case.admin_key())
        assert await case.admin_key("previous-api-key") == first

        async def is_valid() -> bool:
            return (await client.get("/v1/accounts", headers=second)).is_success

        await eventually(is_valid)
        await case.ready()
        assert (await client.get("/v1/accounts")).is_success
        keys = (await client.get("/v1/api_keys", headers=second)).json()["data"]
        ends = {key["hint"]: key["expires_at"] for key in keys}
        assert [ends[first[-4:]] is None, ends[second["Authorization"][-4:]] is None] == [
            False,
            True,
        ]


async def test_what_takes_something_away_waits_for_an_approval(
    case: Nodeless, empty_database_url: DatabaseUrl, tmp_path: Path
) -> None:
    release = Release(tmp_path / "next")
    release.add("CREATE TABLE picopay.more (id uuid)")
    release.add("DROP TABLE picopay.more", destructive=True)
    case.kubelet.images[NEXT] = image_of(NEXT, release.folder)
    await case.database(empty_database_url)
    await case.apply(SMALL)
    await case.ready()
    await case.apply({**SMALL, "version": NEXT})
    await case.until(Type.SCHEMA_MIGRATED, "False", "ApprovalPending")
    async with case.client(await case.admin_key()) as client:
        await make_shop(client)
        await pay(client, "meanwhile")
    assert (await case.image()).endswith(f":{RELEASE.version}")
    assert await value(empty_database_url, REVISION) == schema.head()
    found = (await case.api.get("PicoPayEngine", NAME))["status"]["schema"]
    assert [line.endswith("(destructive)") for line in found["plan"]] == [False, True]
    await case.annotate(approve_plan=found["planHash"])
    await case.ready()
    assert await value(empty_database_url, REVISION) == release.revisions()[-1]
    # The money is looked at before pods are replaced, and mostly once more while old and new ones serve.
    assert 1 <= len(await case.jobs_ever("check")) <= 2
    await case.only_pods_of(NEXT)
    async with case.client(await case.admin_key()) as client:
        await pay(client, "afterwards")
    await audited(empty_database_url)
