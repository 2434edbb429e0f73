"""A process whose schema does not fit says so, writes nothing, and serves by itself once it fits."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractContextManager, asynccontextmanager, nullcontext
from pathlib import Path
from typing import NamedTuple

import httpx
import pytest
import uvicorn

from picopay_api.app import create_app
from picopay_api.cli.serving import listen, url_of
from picopay_api.database_url import DatabaseUrl
from picopay_api.engine.engine import Engine
from picopay_api.engine.keys import ADMIN, new_secret
from picopay_api.engine.readiness import Readiness
from picopay_api.settings import Settings
from picopay_api.store import migrate, schema
from picopay_api.worker import run as worker
from picopay_api.worker.audit_all import audit_everything
from support.api import as_key, served
from support.journal import Book, opened
from support.releases import Release
from support.sql import contents, execute
from support.waiting import PROMPT_S, eventually

HEAD = schema.head()
MORE = "ALTER TABLE picopay.journal ADD COLUMN note text"
PAYMENT = {"source": "@world", "destination": "@alice", "amount": 5, "asset": "USD"}


class Situation(NamedTuple):
    """A database that does not fit; within `release` this process is of the release that sees it so."""

    release: AbstractContextManager[None]
    sentence: str
    mend: str | None  # None: a migration does


async def missing(url: DatabaseUrl, _: Release) -> Situation:
    await execute(url, "DROP SCHEMA picopay CASCADE")
    return Situation(nullcontext(), "the schema does not exist yet: run `picopay migrate`", None)


async def behind(_: DatabaseUrl, release: Release) -> Situation:
    wanted = release.add(MORE)
    return Situation(
        release.in_force(min_compatible=wanted),
        f"the schema is at {HEAD}, this release needs at least {wanted}: run `picopay migrate`",
        None,
    )


async def ahead(url: DatabaseUrl, release: Release) -> Situation:
    found = release.add(MORE, admits_older=False)
    with release.in_force():
        await migrate.upgrade_async(url)
    return Situation(
        nullcontext(),
        f"the schema is at {found} and admits releases from {found} on, this one is {HEAD}:"
        " deploy a newer release",
        f"UPDATE picopay.schema_version SET min_compatible = '{HEAD}'",
    )


async def unreadable(url: DatabaseUrl, _: Release) -> Situation:
    await execute(url, "REVOKE USAGE ON SCHEMA picopay FROM picopay_app")
    return Situation(
        nullcontext(),
        "the schema cannot be read: permission denied for schema picopay",
        "GRANT USAGE ON SCHEMA picopay TO picopay_app",
    )


Spoil = Callable[[DatabaseUrl, Release], Awaitable[Situation]]


@pytest.fixture
def release(tmp_path: Path) -> Release:
    return Release(tmp_path / "next")


@asynccontextmanager
async def serving(settings: Settings) -> AsyncIterator[httpx.AsyncClient]:
    """Serve a database as it is, with a worker beside."""
    listener = listen("127.0.0.1", 0)
    server = uvicorn.Server(uvicorn.Config(create_app(settings), ws="none", log_config=None))
    stop = asyncio.Event()
    tasks = [
        asyncio.create_task(server.serve([listener])),
        asyncio.create_task(worker.run(settings, stop)),
    ]
    try:
        async with httpx.AsyncClient(base_url=url_of(listener), timeout=30) as client:
            yield client
    finally:
        server.should_exit = True
        stop.set()
        await asyncio.wait_for(asyncio.gather(*tasks), PROMPT_S)


async def make_key(settings: Settings) -> dict[str, str]:
    """Make a ledger; return the headers of its administrator, to pay there with."""
    async with Engine.open(settings) as engine:
        ledger = await engine.ledgers.create("main", {})
        secret = new_secret()
        await engine.keys.create(ledger.id, "administrator", [ADMIN], secret=secret)
    return {**as_key(secret), "Idempotency-Key": "once"}


async def become_ready(client: httpx.AsyncClient) -> None:
    async def ready() -> bool:
        return (await client.get("/readyz")).status_code == 200

    await eventually(ready)


@pytest.fixture
def looks(monkeypatch: pytest.MonkeyPatch) -> Counter[Readiness]:
    """How often each process has looked at the schema."""
    counted: Counter[Readiness] = Counter()
    check = Readiness.check

    async def counting(readiness: Readiness) -> None:
        await check(readiness)
        counted[readiness] += 1

    monkeypatch.setattr(Readiness, "check", counting)
    return counted


@pytest.mark.parametrize("spoil", [missing, behind, ahead, unreadable])
async def test_a_process_waits_for_a_schema_that_fits(
    database_url: DatabaseUrl, release: Release, looks: Counter[Readiness], spoil: Spoil
) -> None:
    settings = Settings(database_url=database_url, audit_interval_s=1)
    headers = await make_key(settings)
    async with opened(database_url) as database:
        await (await Book.make(database)).funded()  # something that a worker would seal
    situation = await spoil(database_url, release)
    before = await contents(database_url)
    looks.clear()

    async def both_have_looked_twice() -> bool:
        return [times >= 2 for times in looks.values()] == [True, True]

    with situation.release:
        async with serving(settings) as client:
            await eventually(both_have_looked_twice)
            for path, status in (("/readyz", "not_ready"), ("/health", "unhealthy")):
                answer = await client.get(path)
                assert answer.status_code == 503
                assert answer.json() == {"status": status, "reason": situation.sentence}
            assert (await client.get("/livez")).status_code == 200
            for answer in (
                await client.post("/v1/payments", json=PAYMENT, headers=headers),
                await client.post("/v1/accounts", json={"asset": "USD"}, headers=headers),
                await client.get("/v1/payments", headers=headers),
            ):
                assert answer.status_code == 503
                assert answer.json()["code"] == "schema_out_of_range"
                assert answer.json()["detail"] == situation.sentence
                assert int(answer.headers["Retry-After"]) > 0
            assert await contents(database_url) == before

            if situation.mend is None:
                await migrate.upgrade_async(database_url)
            else:
                await execute(database_url, situation.mend)
            await become_ready(client)
            if spoil is missing:
                headers = await make_key(settings)
            account = {"reference": "alice", "asset": "USD"}
            made = await client.post("/v1/accounts", json=account, headers=headers)
            assert made.status_code == 201
            paid = await client.post("/v1/payments", json=PAYMENT, headers=headers)
            assert paid.status_code == 201
            assert "Idempotent-Replayed" not in paid.headers

            async def sealed() -> bool:
                return bool((await client.get("/v1/events", headers=headers)).json()["data"])

            await eventually(sealed)


async def test_a_later_release_that_shuts_this_one_out_stops_it_at_once(
    database_url: DatabaseUrl, release: Release
) -> None:
    release.add(MORE, admits_older=False)
    async with served(database_url) as api:
        await api.account("alice", 1_000)
        await api.account("bob")
        answers: list[int] = []

        async def pay_until_refused() -> None:
            async with asyncio.timeout(PROMPT_S):
                while (answer := await api.pay("@alice", "@bob", 1)).status_code == 201:
                    answers.append(201)
            assert answer.status_code == 503
            assert answer.json()["code"] == "schema_out_of_range"

        async def shut_out() -> None:
            with release.in_force():
                await migrate.upgrade_async(database_url)

        await asyncio.gather(pay_until_refused(), pay_until_refused(), shut_out())
        before = await contents(database_url)
        for _ in range(10):
            assert (await api.pay("@alice", "@bob", 1)).status_code == 503
        assert await contents(database_url) == before
        await execute(database_url, f"UPDATE picopay.schema_version SET min_compatible = '{HEAD}'")
        await become_ready(api.client)
        assert await api.available("bob") == len(answers)
        async with opened(database_url) as database:
            assert await audit_everything(database, lambda _: None) == []


async def test_a_schema_within_the_range_serves_whoever_is_ahead(
    database_url: DatabaseUrl, release: Release
) -> None:
    release.add(MORE)
    with release.in_force(min_compatible=HEAD):  # the release is ahead of the schema
        async with served(database_url) as api:
            assert (await api.client.get("/readyz")).status_code == 200
            await api.account("alice", 5)
        await migrate.upgrade_async(database_url)
    async with served(database_url) as api:  # the schema is ahead of the release
        assert (await api.client.get("/readyz")).status_code == 200
        await api.account("bob", 5)
