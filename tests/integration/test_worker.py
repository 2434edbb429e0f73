"""The worker as a whole: it does its work, waits for what is not there, and stops at once."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from picopay_api.database_url import DatabaseUrl
from picopay_api.engine.audit import Audit
from picopay_api.engine.readiness import Readiness
from picopay_api.errors import SchemaOutOfRange
from picopay_api.settings import Settings
from picopay_api.store import migrate
from picopay_api.store.database import Database
from picopay_api.worker import run as worker
from support.journal import Book, opened
from support.waiting import PROMPT_S, eventually


@asynccontextmanager
async def running(url: DatabaseUrl) -> AsyncIterator[None]:
    """Run a worker, and stop it in the end."""
    stop = asyncio.Event()
    task = asyncio.create_task(worker.run(Settings(database_url=url, audit_interval_s=1), stop))
    try:
        yield
    finally:
        stop.set()
        await asyncio.wait_for(task, PROMPT_S)


async def test_a_worker_seals_and_audits(database_url: DatabaseUrl) -> None:
    async with opened(database_url) as database, running(database_url):
        book = await Book.make(database)
        await book.funded()

        async def audited() -> bool:
            return (await Audit(database).state(book.ledger)).position == 1

        await eventually(audited)


async def test_two_workers_share_the_work(database_url: DatabaseUrl) -> None:
    async with opened(database_url) as database, running(database_url), running(database_url):
        books = [await Book.make(database) for _ in range(3)]
        for book in books:
            account = await book.funded()
            for n in range(1, 10):
                await book.decide(book.payment(book.world, account, n))

        async def audited() -> bool:
            states = [await Audit(database).state(book.ledger) for book in books]
            return all(state.position == 10 and not state.findings for state in states)

        await eventually(audited)


async def test_a_worker_waits_for_the_schema(empty_database_url: DatabaseUrl) -> None:
    async with opened(empty_database_url) as database:
        readiness = Readiness(database)
        done: list[str] = []

        async def work() -> float:
            done.append("worked")
            return 0.0

        waiting = asyncio.create_task(worker._once_in_range(readiness, work)())
        await readiness.check()
        assert done == []
        with pytest.raises(SchemaOutOfRange):
            database.require_usable()
        await migrate.upgrade_async(empty_database_url)
        await readiness.check()
        await waiting
        assert done == ["worked"]
        database.require_usable()


async def test_a_schema_that_has_moved_on_stops_the_work(
    database_url: DatabaseUrl,
) -> None:
    async with opened(database_url) as database:
        readiness = Readiness(database)
        await readiness.check()
        owner = await Database.open(database_url, size=1)
        try:
            async with owner.session() as connection:
                await connection.execute("RESET ROLE")
                await connection.execute(
                    "UPDATE picopay.schema_version SET min_compatible = '9999'"
                )
        finally:
            await owner.close()
        await readiness.check()
        with pytest.raises(SchemaOutOfRange):
            async with database.transaction():
                raise AssertionError("it may not write")


async def test_a_loop_that_fails_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker, "_backoff_s", lambda _: 0.0)
    attempts: list[int] = []
    recovered = asyncio.Event()

    async def step() -> float:
        attempts.append(1)
        if len(attempts) < 3:
            raise ZeroDivisionError
        recovered.set()
        return 60.0

    task = asyncio.create_task(worker._repeat("test", step))
    await asyncio.wait_for(recovered.wait(), PROMPT_S)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert len(attempts) == 3


async def test_a_worker_without_a_database_waits_and_stops_at_once() -> None:
    url = DatabaseUrl.parse("postgresql://nobody:none@127.0.0.1:1/none?sslmode=disable")
    async with running(url):
        await asyncio.sleep(0)
