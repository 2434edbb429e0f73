"""Partitions are there ahead of time, and idempotency keys go when their days are over."""

from datetime import UTC, date, datetime, timedelta

from picopay_api.database_url import DatabaseUrl
from picopay_api.metrics import DEFAULT_PARTITION_ROWS
from picopay_api.store.database import Database
from picopay_api.worker import partitions as keeping
from picopay_api.worker.partitions import Partitions
from support.journal import Book, tamper
from support.key_days import DAYS_OF_KEYS, first_day_of_keys, key_partition, key_partitions

RETENTION_DAYS = 3


async def names(database: Database) -> set[str]:
    rows = await database.rows(
        "SELECT c.relname FROM pg_inherits AS i JOIN pg_class AS c ON c.oid = i.inhrelid"
        " WHERE i.inhparent = ANY ($1::regclass[])",
        ["picopay.journal", "picopay.entry", "picopay.idempotency_key"],
    )
    return {row["relname"] for row in rows}


async def add_keys(url: DatabaseUrl, first: date, days: int) -> str:
    """Make a partition of keys, unless there is one of this name."""
    name = f"idempotency_key_{first:%Y%m%d}"
    await tamper(
        url,
        f"CREATE TABLE IF NOT EXISTS picopay.{name} PARTITION OF picopay.idempotency_key"
        f" FOR VALUES FROM ('{first}') TO ('{first + timedelta(days=days)}')",
    )
    return name


async def test_ten_days_of_keys_share_a_partition(database: Database) -> None:
    days = [date(1999, 12, 31) + timedelta(days=n) for n in range(15_000)]
    found = await database.rows(
        "SELECT day, picopay.first_day_of_keys(day) AS first FROM unnest($1::date[]) AS day", days
    )
    assert {row["day"]: row["first"] for row in found} == {
        day: first_day_of_keys(day) for day in days
    }


async def test_a_week_of_keys_and_three_months_of_money_are_made_ahead(database: Database) -> None:
    await Partitions(database, RETENTION_DAYS).step()
    found = await names(database)
    today = datetime.now(UTC).date()
    assert key_partitions(today, range(-1, 7)) <= found
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
    oldest = first_day_of_keys(datetime.now(UTC).date() - timedelta(days=RETENTION_DAYS))
    kept = await add_keys(database_url, oldest, DAYS_OF_KEYS)
    old = await add_keys(database_url, oldest - timedelta(days=DAYS_OF_KEYS), DAYS_OF_KEYS)
    await Partitions(database, RETENTION_DAYS).step()
    found = await names(database)
    assert old not in found
    assert kept in found


async def test_a_partition_with_other_bounds_is_in_the_way_of_its_own_days_only(
    database: Database, database_url: DatabaseUrl
) -> None:
    today = datetime.now(UTC).date()
    ahead = key_partitions(today, range(-1, 8))
    await tamper(
        database_url, "DROP TABLE " + ", ".join(f"picopay.{name}" for name in sorted(ahead))
    )
    # Not the first of its ten, whose name would be that of the partition.
    other = first_day_of_keys(today) + timedelta(days=1)
    single = await add_keys(database_url, other, 1)
    assert await Partitions(database, RETENTION_DAYS).step() == keeping.INTERVAL_S
    found = await names(database)
    assert {single, *ahead} - {key_partition(today)} <= found
    assert key_partition(today) not in found
    book = await Book.make(database)
    await book.funded()  # its key goes to the default partition


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
