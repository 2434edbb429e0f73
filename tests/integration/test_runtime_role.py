"""What the role of servers and workers must not be able to do: change history, rules or tables."""

from collections.abc import AsyncIterator

import asyncpg
import pytest

from picopay_api.database_url import DatabaseUrl
from picopay_api.store.database import Database
from picopay_api.worker.sealer import Sealer
from support.journal import Book, opened
from support.sql import execute, rows, value

HISTORY = ("journal", "entry", "commit", "block", "reference", "reversal")

CHANGES_OF_HISTORY = [
    statement
    for table in HISTORY
    for statement in (
        f"UPDATE picopay.{table} SET ledger_id = ledger_id",
        f"DELETE FROM picopay.{table}",
        f"TRUNCATE picopay.{table}",
    )
]

FORBIDDEN = [
    *CHANGES_OF_HISTORY,
    "UPDATE picopay.balance SET floor_minor = NULL",
    "UPDATE picopay.balance SET asset = 'EUR'",
    "DELETE FROM picopay.balance",
    "UPDATE picopay.account SET reference = 'other'",
    "DELETE FROM picopay.account",
    "UPDATE picopay.ledger SET name = 'other'",
    "DELETE FROM picopay.ledger",
    "UPDATE picopay.api_key SET scopes = '{admin}'",
    "UPDATE picopay.api_key SET hash = ''",
    "DELETE FROM picopay.api_key",
    "UPDATE picopay.idempotency_key SET outcome = 'ok'",
    "DELETE FROM picopay.idempotency_key",
    "TRUNCATE picopay.idempotency_key",
    "UPDATE picopay.metadata_item SET value = ''",
    "UPDATE picopay.schema_version SET min_compatible = '0000'",
    "UPDATE picopay.alembic_version SET version_num = '0000'",
    "CREATE SCHEMA more",
    "CREATE TABLE picopay.more ()",
    "CREATE TABLE public.more ()",
    "CREATE INDEX more ON picopay.account (created_at)",
    "CREATE FUNCTION picopay.more() RETURNS integer LANGUAGE sql RETURN 1",
    "ALTER FUNCTION picopay.refuse_change() RENAME TO more",
    "DROP FUNCTION picopay.refuse_change() CASCADE",
    "ALTER TABLE picopay.journal DISABLE TRIGGER ALL",
    "DROP TRIGGER refuse_change ON picopay.journal",
    "ALTER TABLE picopay.journal ADD COLUMN more text",
    "ALTER TABLE picopay.balance DROP CONSTRAINT balance_floor",
    "ALTER TABLE picopay.journal DETACH PARTITION picopay.journal_default",
    "DROP TABLE picopay.journal_default",
    "TRUNCATE picopay.journal_default",
    "DROP SCHEMA picopay CASCADE",
    "LOCK TABLE picopay.journal IN ACCESS EXCLUSIVE MODE",
    "SET session_replication_role = replica",
    "ALTER ROLE picopay_app SUPERUSER",
]


@pytest.fixture
async def database(database_url: DatabaseUrl) -> AsyncIterator[Database]:
    """A database with something in each table of history."""
    async with opened(database_url) as database:
        book = await Book.make(database)
        paid = book.payment(book.world, await book.account(), 7)
        await book.decide(paid)
        await book.decide(book.reversal(paid))
        await database.run(
            "INSERT INTO picopay.reference (ledger_id, reference, journal_id) VALUES ($1, 'r', $1)",
            book.ledger,
        )
        await Sealer(database).step()
        yield database


async def test_the_runtime_role_changes_no_history_and_no_table(database: Database) -> None:
    assert await database.value("SELECT current_user") == "picopay_app"
    allowed = []
    for statement in FORBIDDEN:
        try:
            async with database.transaction() as connection:
                await connection.execute(statement)
        except asyncpg.InsufficientPrivilegeError:
            continue
        allowed.append(statement)
    assert allowed == []


@pytest.mark.usefixtures("database")
async def test_what_the_owner_does_by_mistake_is_refused_by_a_trigger(
    database_url: DatabaseUrl,
) -> None:
    parts = await rows(
        database_url,
        "SELECT DISTINCT tableoid::regclass::text FROM picopay.journal"
        " UNION SELECT DISTINCT tableoid::regclass::text FROM picopay.entry",
    )
    assert len(parts) == 2
    of_parts = [f"{verb} {name}" for (name,) in parts for verb in ("DELETE FROM", "TRUNCATE")]
    for statement in (*CHANGES_OF_HISTORY, *of_parts):
        with pytest.raises(asyncpg.PostgresError) as refused:
            await execute(database_url, statement)
        assert refused.value.sqlstate == "PP002", statement


@pytest.mark.parametrize("type_name", ["date", "uuid"])
async def test_the_owners_rights_are_not_lent_to_the_callers_code(
    database: Database, database_url: DatabaseUrl, type_name: str
) -> None:
    """Partitions are made with the owner's rights; a type of the caller's must not come in there."""
    async with database.transaction() as connection:
        await connection.execute(
            "CREATE FUNCTION pg_temp.evil() RETURNS boolean LANGUAGE plpgsql AS $$ BEGIN"
            "  IF current_user <> 'picopay_app' THEN"
            "    ALTER TABLE picopay.commit DISABLE TRIGGER USER; DELETE FROM picopay.commit;"
            "  END IF; RETURN true; END $$"
        )
        await connection.execute(
            f"CREATE DOMAIN pg_temp.{type_name} AS pg_catalog.{type_name} CHECK (pg_temp.evil())"
        )
        await connection.execute("SELECT picopay.maintain_partitions(3)")
    assert await value(database_url, "SELECT count(*) FROM picopay.commit") == 2
