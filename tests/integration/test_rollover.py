"""Months and days go by: payments cross each boundary, partitions are there before, and old keys go."""

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
from support.key_days import DAYS_OF_KEYS, first_day_of_keys, key_partition, key_partitions
from support.scene import RETENTION_DAYS, ask
from support.sql import execute, rows, value

NEW_YEAR = datetime(2036, 1, 1, tzinfo=UTC)
NEW_KEYS = datetime(2036, 1, 2, tzinfo=UTC)  # ten days of keys begin
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


@pytest.mark.parametrize("turn", [NEW_YEAR, NEW_KEYS], ids=["a year", "ten days of keys"])
async def test_payments_go_on_while_it_begins(
    turn: datetime, clock: Clock, database: Database, database_url: DatabaseUrl, book: Book
) -> None:
    before = turn - timedelta(days=1)
    await clock.set(before)
    worker = Partitions(database, RETENTION_DAYS)
    await worker.step()
    await clock.set(turn - timedelta(seconds=0.5))
    accounts = [await book.account() for _ in range(4)]

    async def pay_on(number: int) -> list[Command]:
        made = []
        while await clock.now() < turn + timedelta(seconds=0.5):
            made.append(await paid(clock, book, book.world, accounts[number]))
        return made

    async with asyncio.TaskGroup() as group:
        paying = [group.create_task(pay_on(number)) for number in range(4)]
        group.create_task(worker.step())
    first = paying[0].result()
    for payment in (first[0], first[-1]):  # of both days, whoever asks from the later one
        [again] = await ask(book, await clock.timed(payment))
        assert (again.replayed, again.id) == (True, payment.id)
    made = sum(len(task.result()) for task in paying)
    for table in MONEY:
        months = {f"{table}_{day:%Y%m}" for day in (before, turn)}
        assert set(await places(database_url, table)) == months
    assert sum((await places(database_url, "journal")).values()) == made
    keys = {key_partition(day.date()) for day in (before, turn)}
    assert len(keys) == (2 if turn is NEW_KEYS else 1)
    assert set(await places(database_url, "idempotency_key")) == keys
    # In the first minute of the day a key is written to the day before as well.
    in_day = "SELECT count(*) FROM picopay.idempotency_key WHERE day = $1"
    assert await value(database_url, in_day, before.date()) == made
    assert 0 < await value(database_url, in_day, turn.date()) < made
    await sound(database, book)


async def test_day_after_day_partitions_are_made_and_keys_of_old_days_are_forgotten(
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
        window = range(max(-1, day - RETENTION_DAYS), day + DAYS_AHEAD + 1)
        names = key_partitions(NEW_YEAR.date(), window)
        names.add("idempotency_key_default")
        assert await partitions_of(database_url, "idempotency_key") == names
    for table in MONEY:
        assert sum((await places(database_url, table)).values()) == days * (1 + (table == "entry"))
        assert f"{table}_default" not in await places(database_url, table)
        # The month in which all began is still there; three more lie ahead.
        assert {f"{table}_2036{n:02}" for n in range(1, 6)} <= await partitions_of(
            database_url, table
        )
    # Forgotten to the day, though the partition may still be there: a new payment, but for a reference.
    late = days - RETENTION_DAYS - 2
    there = await partitions_of(database_url, "idempotency_key")
    assert key_partition((NEW_YEAR + timedelta(days=late)).date()) in there
    for payment in (payments[0], payments[late]):
        [forgotten] = await ask(book, await clock.timed(payment))
        assert (forgotten.code, forgotten.replayed) == ("ok", False)
    await sound(database, book)
    # Forgotten is not gone: what is taken out of a partition that is still there is missed.
    taken_out = "DELETE FROM picopay.idempotency_key WHERE object_id = $1"
    await execute(database_url, taken_out, payments[late].id)
    [finding] = await audit_everything(database, lambda _: None)
    assert finding.kind == "idempotency_key_differs"


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
    await worker.step()  # this month and these ten days are in the way; the coming ones are not
    assert shown() == 3 + 6 + 3
    assert {"journal_203602", "entry_203602"} <= await found_ahead(database_url)
    assert "journal_203601" not in await found_ahead(database_url)
    [again] = await ask(book, await clock.timed(before[0]))
    assert again.replayed
    await sound(database, book)
    keys = key_partition((NEW_YEAR + timedelta(days=14)).date())
    assert keys not in await partitions_of(database_url, "idempotency_key")
    # The next month has a partition: what came before is whole, and keys are kept.
    await clock.set(NEW_YEAR + timedelta(days=14 + RETENTION_DAYS, hours=12))
    await worker.step()
    [again] = await ask(book, await clock.timed(before[0]))
    assert again.replayed
    # No key is of use any more, and the partition of their days is not made without them.
    await clock.set(NEW_YEAR + timedelta(days=15 + RETENTION_DAYS, hours=12))
    for _ in range(2):
        await worker.step()
    assert keys not in await partitions_of(database_url, "idempotency_key")
    await sound(database, book)
    await clock.set(NEW_YEAR + timedelta(days=31, hours=12))
    await worker.step()
    await paid(clock, book, book.world, account)
    assert (await places(database_url, "journal"))["journal_203602"] == 1
    # Keys are dropped from there when their partition would have been; money never is.
    assert "idempotency_key_default" not in await places(database_url, "idempotency_key")
    assert (await places(database_url, "journal"))["journal_default"] == 3
    assert shown() == 3 + 6
    await sound(database, book)


def shown() -> float:
    [family] = DEFAULT_PARTITION_ROWS.collect()
    return family.samples[0].value


async def found_ahead(url: DatabaseUrl) -> set[str]:
    return {name for table in MONEY for name in await partitions_of(url, table)}


async def test_keys_in_the_default_partition_stay_as_long_as_their_partitions_would(
    clock: Clock, database: Database, database_url: DatabaseUrl, book: Book
) -> None:
    account = await book.account()
    worker = Partitions(database, RETENTION_DAYS)
    days = (NEW_YEAR, NEW_YEAR + timedelta(days=RETENTION_DAYS))  # both without a partition
    for day in days:
        await clock.set(day + timedelta(hours=12))
        await paid(clock, book, book.world, account)
    end = first_day_of_keys(days[-1].date()) + timedelta(days=DAYS_OF_KEYS + RETENTION_DAYS)
    assert key_partition(days[0].date()) != key_partition(days[-1].date())
    over = datetime(end.year, end.month, end.day, tzinfo=UTC)
    count = "SELECT count(*) FROM picopay.idempotency_key_default"
    for moment, kept in ((over - timedelta(minutes=1), 2), (over, 0)):
        await clock.set(moment)
        await worker.step()
        assert await value(database_url, count) == kept
