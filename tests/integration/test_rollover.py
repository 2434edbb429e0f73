"""Months and days go by: payments cross each boundary, partitions are there before, keys go by the day."""

import asyncio
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest

from picopay_api.database_url import DatabaseUrl
from picopay_api.engine.commands import Command
from picopay_api.metrics import DEFAULT_PARTITION_ROWS
from picopay_api.store.database import Database
from picopay_api.worker.audit_all import audit_everything
from picopay_api.worker.partitions import Partitions
from picopay_api.worker.sealer import Sealer
from support.clock import Clock
from support.journal import Book
from support.scene import RETENTION_DAYS, ask
from support.sql import rows, value

NEW_YEAR = datetime(2036, 1, 1, tzinfo=UTC)
DAYS_AHEAD = 7
MONEY = ("journal", "entry")


@pytest.fixture
async def clock(database_url: DatabaseUrl, monkeypatch: pytest.MonkeyPatch) -> Clock:
    return await Clock.of(database_url, monkeypatch)


async def paid(clock: Clock, book: Book, source: UUID, destination: UUID) -> Command:
    payment = await clock.timed(book.payment(source, destination, 1))
    await book.decide(payment)
    return payment


async def places(url: DatabaseUrl, table: str) -> dict[str, int]:
    """Return how many rows each partition holds, of those that hold any."""
    counted = await rows(
        url, f"SELECT tableoid::regclass::text, count(*) FROM picopay.{table} GROUP BY 1"
    )
    return {name.removeprefix("picopay."): count for name, count in counted}


async def partitions_of(url: DatabaseUrl, table: str) -> set[str]:
    found = await rows(
        url,
        "SELECT c.relname FROM pg_inherits AS i JOIN pg_class AS c ON c.oid = i.inhrelid"
        " WHERE i.inhparent = $1::regclass",
        f"picopay.{table}",
    )
    return {name for (name,) in found}


async def sound(database: Database, book: Book) -> None:
    """Seal what is there; all of it adds up, in one order without gaps."""
    while (await Sealer(database).seal(book.ledger)).events:
        pass
    assert await audit_everything(database, lambda _: None) == []
    journal = "SELECT count(*) FROM picopay.journal WHERE ledger_id = $1"
    sealed = "SELECT sum(count) FROM picopay.block WHERE ledger_id = $1"
    assert await database.value(journal, book.ledger) == await database.value(sealed, book.ledger)


async def test_payments_go_on_while_a_year_begins(
    clock: Clock, database: Database, database_url: DatabaseUrl, book: Book
) -> None:
    await clock.set(NEW_YEAR - timedelta(days=1))
    worker = Partitions(database, RETENTION_DAYS)
    await worker.step()
    await clock.set(NEW_YEAR - timedelta(seconds=0.5))
    accounts = [await book.account() for _ in range(4)]

    async def pay_on(number: int) -> list[Command]:
        made = []
        while await clock.now() < NEW_YEAR + timedelta(seconds=0.5):
            made.append(await paid(clock, book, book.world, accounts[number]))
        return made

    async with asyncio.TaskGroup() as group:
        paying = [group.create_task(pay_on(number)) for number in range(4)]
        group.create_task(worker.step())
    first = paying[0].result()
    for payment in (first[0], first[-1]):  # of both years, whoever asks from the later one
        [again] = await ask(book, await clock.timed(payment))
        assert (again.replayed, again.id) == (True, payment.id)
    made = sum(len(task.result()) for task in paying)
    assert set(await places(database_url, "journal")) == {"journal_203512", "journal_203601"}
    assert sum((await places(database_url, "journal")).values()) == made
    assert set(await places(database_url, "entry")) == {"entry_203512", "entry_203601"}
    # In the first minute of the day a key is written to the day before as well.
    in_days = await places(database_url, "idempotency_key")
    assert set(in_days) == {"idempotency_key_20351231", "idempotency_key_20360101"}
    assert in_days["idempotency_key_20351231"] == made
    await sound(database, book)


async def test_day_after_day_partitions_are_made_and_only_whole_old_days_of_keys_go(
    clock: Clock, database: Database, database_url: DatabaseUrl, book: Book
) -> None:
    await clock.set(NEW_YEAR + timedelta(hours=12))
    worker = Partitions(database, RETENTION_DAYS)
    await worker.step()
    account = await book.account()
    payments: list[Command] = []
    days = 33
    for day in range(days):
        await clock.set(NEW_YEAR + timedelta(days=day, hours=12))
        payments.append(await paid(clock, book, book.world, account))
        await worker.step()
        kept = payments[-RETENTION_DAYS - 1 :]
        for payment in kept:
            [again] = await ask(book, await clock.timed(payment))
            assert (again.replayed, again.id) == (True, payment.id)
        names = {
            f"idempotency_key_{NEW_YEAR + timedelta(days=n):%Y%m%d}"
            for n in range(max(-1, day - RETENTION_DAYS), day + DAYS_AHEAD + 1)
        }
        assert await partitions_of(database_url, "idempotency_key") - names <= {
            "idempotency_key_default"
        }
        assert names <= await partitions_of(database_url, "idempotency_key")
    for table in MONEY:
        assert sum((await places(database_url, table)).values()) == days * (1 + (table == "entry"))
        assert f"{table}_default" not in await places(database_url, table)
        # The month in which all began is still there; three more lie ahead.
        assert {f"{table}_2036{n:02}" for n in range(1, 6)} <= await partitions_of(
            database_url, table
        )
    # Forgotten with its day: a new payment, but for a reference.
    [forgotten] = await ask(book, await clock.timed(payments[0]))
    assert (forgotten.code, forgotten.replayed) == ("ok", False)
    await sound(database, book)


async def test_a_worker_that_was_away_for_a_year_finds_everything_in_its_place(
    clock: Clock, database: Database, database_url: DatabaseUrl, book: Book
) -> None:
    """Rows that came too late for a partition stay in the default one, and are as good as any."""
    account = await book.account()
    await clock.set(NEW_YEAR + timedelta(days=14, hours=12))
    before = [await paid(clock, book, book.world, account) for _ in range(3)]
    for table in MONEY:
        assert set(await places(database_url, table)) == {f"{table}_default"}
    worker = Partitions(database, RETENTION_DAYS)
    await worker.step()  # this month and this day are in the way; the coming ones are not
    assert shown() == 3 + 6 + 3
    assert {"journal_203602", "entry_203602"} <= await found_ahead(database_url)
    assert "journal_203601" not in await found_ahead(database_url)
    [again] = await ask(book, await clock.timed(before[0]))
    assert again.replayed
    await sound(database, book)
    # The next day has a partition, and the next month: what came before is whole, and keys are kept.
    await clock.set(NEW_YEAR + timedelta(days=14 + RETENTION_DAYS, hours=12))
    await worker.step()
    [again] = await ask(book, await clock.timed(before[0]))
    assert again.replayed
    await clock.set(NEW_YEAR + timedelta(days=31, hours=12))
    await worker.step()
    await paid(clock, book, book.world, account)
    assert (await places(database_url, "journal"))["journal_203602"] == 1
    # Keys are dropped from there when the last of their days is over; money never is.
    assert "idempotency_key_default" not in await places(database_url, "idempotency_key")
    assert (await places(database_url, "journal"))["journal_default"] == 3
    assert shown() == 3 + 6
    await sound(database, book)


def shown() -> float:
    [family] = DEFAULT_PARTITION_ROWS.collect()
    return family.samples[0].value


async def found_ahead(url: DatabaseUrl) -> set[str]:
    return {name for table in MONEY for name in await partitions_of(url, table)}


async def test_keys_in_the_default_partition_stay_while_one_of_them_is_of_use(
    clock: Clock, database: Database, database_url: DatabaseUrl, book: Book
) -> None:
    account = await book.account()
    worker = Partitions(database, RETENTION_DAYS)
    for day in (0, RETENTION_DAYS):  # both days without a partition
        await clock.set(NEW_YEAR + timedelta(days=day, hours=12))
        await paid(clock, book, book.world, account)
    await clock.set(NEW_YEAR + timedelta(days=2 * RETENTION_DAYS, hours=12))
    await worker.step()
    count = "SELECT count(*) FROM picopay.idempotency_key_default"
    assert await value(database_url, count) == 2
    await clock.set(NEW_YEAR + timedelta(days=2 * RETENTION_DAYS + 1, hours=12))
    await worker.step()
    assert await value(database_url, count) == 0
