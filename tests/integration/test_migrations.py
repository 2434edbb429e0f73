"""Migrations lose nothing: from empty and from every earlier revision, to tables that are as declared.

Beside the release at hand there is an invented one with two revisions more, so that there is always
something to go forward to.
"""

import re
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from sqlalchemy import Connection

from picopay_api.database_url import DatabaseUrl
from picopay_api.store import migrate, schema
from picopay_api.store.schema import MIN_COMPATIBLE_SCHEMA
from picopay_api.store.tables import metadata
from picopay_api.worker.audit_all import audit_everything
from picopay_api.worker.sealer import Sealer
from support.journal import Book, opened
from support.postgres import VERSIONS, Server
from support.releases import Release
from support.sql import Contents, contents, execute, rows

OLDEST_AND_NEWEST = (VERSIONS[0], VERSIONS[-1])
REVISIONS = sorted(script.revision for script in migrate._scripts().walk_revisions())

STRUCTURE = """
WITH known AS (SELECT * FROM pg_class
                WHERE relnamespace = 'picopay'::regnamespace AND relkind IN ('r', 'p')
                  AND NOT relispartition AND relname <> 'alembic_version')
SELECT concat_ws(' ', relname, relkind, reloptions, pg_get_partkeydef(oid),
                 obj_description(oid, 'pg_class')) FROM known
UNION ALL
SELECT concat_ws(' ', relname, attname, format_type(atttypid, atttypmod), attnotnull,
                 (SELECT pg_get_expr(adbin, adrelid) FROM pg_attrdef
                   WHERE adrelid = attrelid AND adnum = attnum), attcollation::regcollation,
                 col_description(attrelid, attnum))
  FROM known JOIN pg_attribute ON attrelid = known.oid AND attnum > 0 AND NOT attisdropped
UNION ALL
SELECT concat_ws(' ', relname, conname, pg_get_constraintdef(c.oid))
  FROM known JOIN pg_constraint AS c ON conrelid = known.oid
UNION ALL
SELECT pg_get_indexdef(indexrelid) FROM known JOIN pg_index ON indrelid = known.oid
"""

BEHAVIOUR = """
WITH known AS (SELECT * FROM pg_class
                WHERE relnamespace = 'picopay'::regnamespace AND relkind IN ('r', 'p')
                  AND NOT relispartition)
SELECT pg_get_triggerdef(t.oid) FROM known JOIN pg_trigger AS t ON tgrelid = known.oid
UNION ALL
SELECT concat_ws(' ', relname, acl::text) FROM known CROSS JOIN unnest(relacl) AS acl
UNION ALL
SELECT concat_ws(' ', relname, attname, acl::text)
  FROM known JOIN pg_attribute ON attrelid = known.oid CROSS JOIN unnest(attacl) AS acl
UNION ALL
SELECT pg_get_functiondef(oid) FROM pg_proc WHERE pronamespace = 'picopay'::regnamespace
"""


@pytest.fixture(params=OLDEST_AND_NEWEST)
def server(request: pytest.FixtureRequest, postgres: Callable[[str], Server]) -> Server:
    return postgres(request.param)


@pytest.fixture
def another_url(server: Server) -> Iterator[DatabaseUrl]:
    with server.database(migrated=False) as url:
        yield url


@pytest.fixture
def next_release(tmp_path: Path) -> Release:
    """A release with two more revisions and another function."""
    release = Release(tmp_path / "next")
    release.add("ALTER TABLE picopay.journal ADD COLUMN note text DEFAULT 'none' NOT NULL")
    release.add(
        "ALTER TABLE picopay.account ADD COLUMN kind smallint",
        "UPDATE picopay.account SET kind = 1",
    )
    release.change_function("history.sql", "rows are only inserted", "it is only added to")
    return release


async def lines(url: DatabaseUrl, *queries: str) -> set[str]:
    return {row[0] for query in queries for row in await rows(url, query)}


def require_kept(before: Contents, after: Contents) -> None:
    """Require that every row is still there, with the same value in each column that is."""
    for name, rows_before in before.items():
        if rows_before:
            columns = sorted(rows_before[0].keys() & after[name][0].keys())
            kept, found = (
                Counter(repr([row[column] for column in columns]) for row in side)
                for side in (rows_before, after[name])
            )
            assert kept == found, name


async def fill(url: DatabaseUrl) -> None:
    """Make a ledger with some history, part of it sealed, as far as this release can."""
    async with opened(url) as database:
        book = await Book.make(database)
        alice, bob = await book.funded(), await book.account()
        paid = book.payment(alice, bob, 250)
        await book.decide(paid, book.payment(alice, bob, 50))
        await Sealer(database).step()
        await book.decide(book.reversal(paid))


async def require_sound(url: DatabaseUrl) -> None:
    async with opened(url) as database:
        book = await Book.make(database)
        await book.funded()
        await Sealer(database).step()
        assert await audit_everything(database, lambda _: None) == []


@pytest.mark.parametrize("revision", REVISIONS)
async def test_every_revision_comes_to_head_with_all_it_holds(
    empty_database_url: DatabaseUrl, another_url: DatabaseUrl, revision: str
) -> None:
    await migrate.upgrade_async(empty_database_url, revision)
    if revision >= MIN_COMPATIBLE_SCHEMA:  # an older one is filled by the releases of its time
        await fill(empty_database_url)
    before = await contents(empty_database_url)
    steps = await migrate.upgrade_async(empty_database_url)
    assert [step.revision for step in steps] == REVISIONS[REVISIONS.index(revision) + 1 :]
    require_kept(before, await contents(empty_database_url))
    assert await migrate.drift(empty_database_url) == []
    await require_sound(empty_database_url)
    await migrate.upgrade_async(another_url)
    wanted = await lines(another_url, STRUCTURE, BEHAVIOUR)
    assert await lines(empty_database_url, STRUCTURE, BEHAVIOUR) == wanted


@pytest.mark.parametrize("behind", [2, 1, 0])
async def test_every_revision_comes_to_the_head_of_a_later_release(
    empty_database_url: DatabaseUrl, another_url: DatabaseUrl, next_release: Release, behind: int
) -> None:
    revisions = next_release.revisions()
    begin = len(revisions) - 1 - behind
    with next_release.in_force():
        await migrate.upgrade_async(empty_database_url, revisions[begin])
        assert (await migrate.read_state(empty_database_url)).current == revisions[begin]
        await fill(empty_database_url)
        before = await contents(empty_database_url)
        steps = await migrate.upgrade_async(empty_database_url)
        assert [step.revision for step in steps] == revisions[begin + 1 :]
        assert (await migrate.read_state(empty_database_url)).is_head()
        await migrate.upgrade_async(another_url)
    after = await contents(empty_database_url)
    require_kept(before, after)
    assert {row["note"] for row in after["journal"]} == {"none"}
    assert {row["kind"] for row in after["account"]} == {1 if behind else None}
    await require_sound(empty_database_url)  # for this release, too
    wanted = await lines(another_url, STRUCTURE, BEHAVIOUR)
    assert await lines(empty_database_url, STRUCTURE, BEHAVIOUR) == wanted
    assert len(await migrate.drift(empty_database_url)) == 2


async def test_the_migrations_build_what_the_tables_declare(
    database_url: DatabaseUrl, empty_database_url: DatabaseUrl
) -> None:
    await execute(empty_database_url, "CREATE SCHEMA picopay")

    def create(connection: Connection) -> None:
        metadata.create_all(connection)
        connection.commit()

    async with migrate._connected(empty_database_url) as connection:
        await connection.run_sync(create)
    assert await lines(database_url, STRUCTURE) == await lines(empty_database_url, STRUCTURE)


async def test_texts_in_keys_are_compared_by_their_bytes(database_url: DatabaseUrl) -> None:
    """Locales order texts as people do and change with the system; an index must not."""
    found = await lines(
        database_url,
        "SELECT DISTINCT concat_ws(' ', attrelid::regclass, attname) FROM pg_index"
        "  JOIN pg_attribute ON attrelid = indrelid AND attnum = ANY (indkey)"
        " WHERE attcollation NOT IN (0, 'pg_catalog.\"C\"'::regcollation)"
        "   AND attrelid IN (SELECT oid FROM pg_class WHERE NOT relispartition"
        "                    AND relnamespace = 'picopay'::regnamespace)",
    )
    assert found <= {"alembic_version version_num", "picopay.alembic_version version_num"}


def test_revisions_are_numbered_and_say_whom_they_admit() -> None:
    assert [f"{number:04}" for number in range(1, len(REVISIONS) + 1)] == REVISIONS
    steps = list(migrate._steps(None, "head"))
    assert [step.revision for step in steps] == REVISIONS
    admitted = [step.min_compatible for step in steps]
    assert admitted == sorted(admitted)
    for step in steps:
        assert step.title
        assert step.min_compatible in REVISIONS
        assert step.min_compatible <= step.revision
        assert isinstance(step.destructive, bool)
    assert MIN_COMPATIBLE_SCHEMA in REVISIONS
    assert schema.head() == REVISIONS[-1]


DIFFERENCES = {
    "a dropped column": ("ALTER TABLE picopay.account DROP COLUMN metadata", "add_column"),
    "an added column": ("ALTER TABLE picopay.account ADD COLUMN more text", "remove_column"),
    "an added index": ("CREATE INDEX account_more ON picopay.account (created_at)", "remove_index"),
    "a dropped index": ("DROP INDEX picopay.journal_payment", "add_index"),
    "another type": ("ALTER TABLE picopay.commit ALTER count TYPE bigint", "modify_type"),
    "another type than xid8": ("ALTER TABLE picopay.block ALTER xid_to TYPE text", "modify_type"),
    "a missing table": ("DROP TABLE picopay.audit_finding", "add_table"),
    "a table too many": ("CREATE TABLE picopay.more (id uuid)", "remove_table"),
    "a table called like a part": ("CREATE TABLE picopay.journal_2 (id uuid)", "remove_table"),
    "a dropped default": (
        "ALTER TABLE picopay.ledger ALTER metadata DROP DEFAULT",
        "modify_default",
    ),
    "another default": (
        "ALTER TABLE picopay.schema_version ALTER one SET DEFAULT 2",
        "modify_default",
    ),
    "an added default": (
        "ALTER TABLE picopay.balance ALTER held_minor SET DEFAULT 0",
        "modify_default",
    ),
    "a value that may be missing": (
        "ALTER TABLE picopay.account ALTER created_at DROP NOT NULL",
        "modify_nullable",
    ),
    "a dropped constraint": (
        "ALTER TABLE picopay.account DROP CONSTRAINT account_reference_key",
        "add_constraint",
    ),
    "a comment": ("COMMENT ON TABLE picopay.account IS 'changed'", "add_table_comment"),
}


async def test_what_differs_from_the_tables_is_found(database_url: DatabaseUrl) -> None:
    assert await migrate.drift(database_url) == []
    for sql, _ in DIFFERENCES.values():
        await execute(database_url, sql)
    found = Counter(
        re.findall(r"^\W+(\w+)", "\n".join(await migrate.drift(database_url)), re.MULTILINE)
    )
    assert found == Counter(kind for _, kind in DIFFERENCES.values())
