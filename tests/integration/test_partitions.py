"""Partitions are there ahead of time, and idempotency keys go when their day is over."""

from datetime import UTC, datetime, timedelta

from picopay_api.database_url import DatabaseUrl
from picopay_api.metrics import DEFAULT_PARTITION_ROWS
from picopay_api.store.database import Database
from picopay_api.worker import partitions as keeping
from picopay_api.worker.partitions import Partitions
from support.journal import Book, tamper

RETENTION_DAYS = 3


async def names(database: Database) -> set[str]:
    rows = await database.rows(
        "SELECT c.relname FROM pg_inherits AS i JOIN pg_class AS c ON c.oid = i.inhrelid"
        " WHERE i.inhparent = ANY ($1::regclass[])",
        ["picopay.journal", "picopay.entry", "picopay.idempotency_key"],
    )
    return {row["relname"] for row in rows}


async def add_key_day(url: DatabaseUrl, days: int) -> str:
    """Make the partition of a day, counted from today."""
    day = datetime.now(UTC).date() + timedelta(days=days)
    name = f"idempotency_key_{day:%Y%m%d}"
    await tamper(
        url,
        f"CREATE TABLE picopay.{name} PARTITION OF picopay.idempotency_key"
        f" FOR VALUES FROM ('{day}') TO ('{day + timedelta(days=1)}')",
    )
    return name


async def test_a_week_of_keys_and_three_months_of_money_are_made_ahead(database: Database) -> None:
    await Partitions(database, RETENTION_DAYS).step()
    found = await names(database)
    today = datetime.now(UTC).date()
    for ahead in range(-1, 7):
        assert f"idempotency_key_{today + timedelta(days=ahead):%Y%m%d}" in found
    for table in ("journal", "entry"):
        assert sum(name.startswith(f"{table}_2") for name in found) >= 4
        assert f"{table}_default" in found


async def test_a_second_look_changes_nothing(database: Database) -> None:
    partitions = Partitions(database, RETENTION_DAYS)
    assert await partitions.step() == keeping.INTERVAL_S
    before = await names(database)
    await partitions.step()
    assert await names(database) == before


async def test_what_is_missing_is_made_again(database: Database, database_url: DatabaseUrl) -> None:
    await Partitions(database, RETENTION_DAYS).step()
    before = await names(database)
    today = datetime.now(UTC).date()
    await tamper(database_url, f"DROP TABLE picopay.journal_{today:%Y%m}")
    await Partitions(database, RETENTION_DAYS).step()
    assert await names(database) == before


async def test_keys_are_forgotten_after_the_retention_and_not_before(
    database: Database, database_url: DatabaseUrl
) -> None:
    old = await add_key_day(database_url, -RETENTION_DAYS - 1)
    kept = await add_key_day(database_url, -RETENTION_DAYS)
    await Partitions(database, RETENTION_DAYS).step()
    found = await names(database)
    assert old not in found
    assert kept in found


async def test_rows_that_slipped_through_are_counted(
    database: Database, database_url: DatabaseUrl
) -> None:
    today = datetime.now(UTC).date()
    await tamper(database_url, f"DROP TABLE picopay.journal_{today:%Y%m}")
    book = await Book.make(database)
    await book.funded()
    await Partitions(database, RETENTION_DAYS).step()
    [rows] = [metric.samples[0].value for metric in DEFAULT_PARTITION_ROWS.collect()]
    assert rows == 1
    # The month stays in the default partition; everything else is kept going.
    await tamper(database_url, f"DROP TABLE picopay.entry_{today + timedelta(days=40):%Y%m}")
    await Partitions(database, RETENTION_DAYS).step()
    assert f"entry_{today + timedelta(days=40):%Y%m}" in await names(database)


async def test_a_long_transaction_delays_and_does_not_fail(
    database: Database, database_url: DatabaseUrl
) -> None:
    today = datetime.now(UTC).date()
    await tamper(database_url, f"DROP TABLE picopay.journal_{today:%Y%m}")
    partitions = Partitions(database, RETENTION_DAYS)
    async with database.transaction() as connection:
        await connection.execute("SELECT FROM picopay.journal LIMIT 1")
        assert await partitions.step() < keeping.INTERVAL_S
    assert await partitions.step() == keeping.INTERVAL_S
