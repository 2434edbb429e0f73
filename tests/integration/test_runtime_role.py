"""What the role of servers and workers must not be able to do: change history, rules or tables."""

from collections.abc import AsyncIterator

import asyncpg
import pytest

from picopay_api.database_url import DatabaseUrl
from picopay_api.store import migrate
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
    "SET SESSION AUTHORIZATION postgres",
    "ALTER ROLE picopay_app SUPERUSER",
    "ALTER DATABASE postgres SET session_replication_role = replica",
    "SELECT pg_read_file('PG_VERSION')",
    "COPY picopay.journal FROM PROGRAM 'true'",
    "COPY picopay.journal TO '/dev/null'",
    "DELETE FROM picopay.audit_finding",
    "UPDATE picopay.audit_finding SET detail = ''",
    "ALTER FUNCTION picopay.maintain_partitions(integer) SECURITY INVOKER",
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


RIGHTS = {
    "ledger": "INSERT",
    "api_key": "INSERT UPDATE(retires_at) UPDATE(revoked_at)",
    "account": "INSERT UPDATE(metadata)",
    "balance": "INSERT UPDATE(state) UPDATE(posted_minor) UPDATE(held_minor) UPDATE(sequence)"
    " UPDATE(changed_at)",
    "journal": "INSERT",
    "entry": "INSERT",
    "idempotency_key": "INSERT",
    "reference": "INSERT",
    "reversal": "INSERT",
    "metadata_item": "INSERT DELETE",
    "commit": "INSERT",
    "block": "INSERT",
    "audit": "INSERT UPDATE",
    "audit_finding": "INSERT",
}
"""What the role may do beside reading; nothing of the tables that are not here, partitions among them."""

_RIGHTS = """
SELECT c.relname, p.privilege
  FROM pg_class AS c,
       unnest('{INSERT,UPDATE,DELETE,TRUNCATE,REFERENCES,TRIGGER}'::text[]) AS p(privilege)
 WHERE c.relnamespace = 'picopay'::regnamespace AND c.relkind IN ('r', 'p', 'v', 'S')
   AND has_table_privilege('picopay_app', c.oid, p.privilege)
UNION ALL
SELECT c.relname, format('%s(%s)', p.privilege, a.attname)
  FROM pg_class AS c JOIN pg_attribute AS a ON a.attrelid = c.oid AND a.attnum > 0,
       unnest('{INSERT,UPDATE,REFERENCES}'::text[]) AS p(privilege)
 WHERE c.relnamespace = 'picopay'::regnamespace AND c.relkind IN ('r', 'p', 'v')
   AND NOT a.attisdropped
   AND has_column_privilege('picopay_app', c.oid, a.attnum, p.privilege)
   AND NOT has_table_privilege('picopay_app', c.oid, p.privilege)
"""


@pytest.mark.usefixtures("database")
async def test_the_rights_of_the_runtime_role_are_these(database_url: DatabaseUrl) -> None:
    # Something that somebody has given by hand goes with the next migration.
    await execute(
        database_url, "GRANT ALL ON picopay.journal, picopay.journal_default TO picopay_app"
    )
    await execute(database_url, "GRANT UPDATE (floor_minor) ON picopay.balance TO picopay_app")
    await migrate.upgrade_async(database_url)
    found: dict[str, set[str]] = {}
    for table, right in await rows(database_url, _RIGHTS):
        found.setdefault(table, set()).add(right)
    assert found == {table: set(rights.split()) for table, rights in RIGHTS.items()}


CHANGES = (
    "UPDATE {0} SET {1} = {1}",
    "DELETE FROM {0}",
    "MERGE INTO {0} AS t USING {0} AS s ON t.{1} = s.{1} WHEN MATCHED THEN DELETE",
    "INSERT INTO {0} SELECT * FROM {0} LIMIT 1 ON CONFLICT ({2}) DO UPDATE SET {1} = excluded.{1}",
    "TRUNCATE {0}",
    "DO $$ BEGIN LOCK TABLE {0} IN SHARE ROW EXCLUSIVE MODE; END $$",
    "ALTER TABLE {0} DISABLE TRIGGER ALL",
    "ALTER TABLE {0} DROP COLUMN {1}",
    "ALTER TABLE {0} ALTER COLUMN {1} DROP NOT NULL",
    "ALTER TABLE {0} OWNER TO picopay_app",
    "ALTER TABLE {0} RENAME TO other",
    "ALTER TABLE {0} SET UNLOGGED",
    "ALTER TABLE {0} ENABLE ROW LEVEL SECURITY",
    "CREATE TRIGGER more BEFORE INSERT ON {0} EXECUTE FUNCTION picopay.refuse_change()",
    "CREATE RULE more AS ON INSERT TO {0} DO INSTEAD NOTHING",
    "CREATE POLICY more ON {0}",
    "CREATE INDEX more ON {0} ({1})",
    "VACUUM FULL {0}",
    "REINDEX TABLE {0}",
    "DROP TABLE {0} CASCADE",
)


async def test_no_way_to_change_history_is_open(database: Database) -> None:
    """Each table of history and each partition, by the connection that servers have."""
    tables = await database.rows(
        "SELECT c.oid::regclass::text AS name, string_agg(a.attname, ', ') AS key"
        "  FROM pg_class AS c JOIN pg_index AS i ON i.indrelid = c.oid AND i.indisprimary"
        "  JOIN pg_attribute AS a ON a.attrelid = c.oid AND a.attnum = ANY (i.indkey)"
        " WHERE c.relnamespace = 'picopay'::regnamespace AND c.relname ~ $1 GROUP BY 1",
        f"^({'|'.join((*HISTORY, 'idempotency_key'))})(_default|_[0-9]+)?$",
    )
    assert len(tables) > 2 * len(HISTORY)
    allowed = []
    async with database.session() as connection:
        for table in tables:
            for change in CHANGES:
                statement = change.format(table["name"], "ledger_id", table["key"])
                try:
                    await connection.execute(statement)
                except asyncpg.InsufficientPrivilegeError:
                    continue
                allowed.append(statement)
    # PostgreSQL lets a statement pass that would not do anything, with a warning.
    assert [each for each in allowed if not each.startswith("VACUUM")] == []


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
