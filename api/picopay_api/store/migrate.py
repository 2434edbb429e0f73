"""Brings a database to a revision of the schema, and says where it is.

Called by `picopay migrate`, by `picopay up` and by the tests; `state` is read by every process before
it writes. Migrations go forward only, under a session advisory lock on a direct connection of the
owner's role, each in a transaction of its own with a `lock_timeout`. The functions (`*.sql`) are put
in place with every upgrade to head, so that each has one readable source (decision 0004).
"""

import asyncio
import hashlib
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any, cast

import asyncpg
import msgspec
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import NullPool

from picopay_api.database_url import DatabaseUrl
from picopay_api.store.tables import SCHEMA, metadata

MIN_COMPATIBLE_SCHEMA = "0001"
"""The oldest schema that this release can work with."""

_MIGRATION_LOCK = 0x7069636F706179  # "picopay": the advisory lock of whoever migrates
_LOCK_WAIT_S = 120
_LOCK_TIMEOUT_MS = 5_000
_FIRST_RETENTION_DAYS = 30  # a migration only creates partitions; it forgets no key that matters
_FUNCTIONS = ("history.sql", "partitions.sql", "decide.sql")

Report = Callable[[str], None]


class MigrationError(Exception):
    """The migration cannot start or go on; the message says what to do."""


class MigrationBusy(MigrationError):
    """Another migration holds the lock: the same command will do later."""


class Step(msgspec.Struct, frozen=True):
    """One revision that is still to come."""

    revision: str
    title: str
    min_compatible: str


class SchemaState(msgspec.Struct, frozen=True):
    """Where a database is, beside what this release wants.

    `current` is null before the first migration. `min_compatible` is the oldest schema this release
    works with; `oldest_release` is the oldest release head that the database admits.
    """

    current: str | None
    head: str
    min_compatible: str
    oldest_release: str | None = None
    functions_current: bool = False

    def problem(self) -> str | None:
        """Say in a sentence why this release must not write to the database; None when it may."""
        if self.current is None:
            return "the schema does not exist yet: run `picopay migrate`"
        if self.current < self.min_compatible:
            return (
                f"the schema is at {self.current}, this release needs at least "
                f"{self.min_compatible}: run `picopay migrate`"
            )
        if self.oldest_release is not None and self.head < self.oldest_release:
            return (
                f"the schema is at {self.current} and admits releases from {self.oldest_release} "
                f"on, this one is {self.head}: deploy a newer release"
            )
        return None

    def is_head(self) -> bool:
        """Tell whether nothing is left to migrate."""
        return self.functions_current and self.current is not None and self.current >= self.head


def head() -> str:
    """Return the revision this release wants."""
    return cast(str, _scripts().get_current_head())


async def state(connection: "asyncpg.Connection[Any]") -> SchemaState:
    """Read where the database of a connection is; any role that may use the schema can."""
    row = None
    if await connection.fetchval("SELECT to_regclass('picopay.schema_version') IS NOT NULL"):
        row = await connection.fetchrow(
            "SELECT a.version_num, s.min_compatible, s.functions_digest"
            "  FROM picopay.alembic_version AS a, picopay.schema_version AS s"
        )
    return SchemaState(
        current=row["version_num"] if row else None,
        head=head(),
        min_compatible=MIN_COMPATIBLE_SCHEMA,
        oldest_release=row["min_compatible"] if row else None,
        functions_current=row is not None and row["functions_digest"] == _functions_digest(),
    )


async def read_state(database_url: DatabaseUrl) -> SchemaState:
    """Connect, read the state of the schema, disconnect."""
    connection = await asyncpg.connect(**database_url.connect_arguments())
    try:
        return await state(connection)
    finally:
        await connection.close()


async def plan(database_url: DatabaseUrl, revision: str = "head") -> list[Step]:
    """List the revisions that an upgrade would run, in order."""
    current = (await read_state(database_url)).current
    return list(_steps(current, revision))


def upgrade(database_url: str, revision: str = "head", report: Report = lambda _: None) -> None:
    """Migrate a database forward to `revision`; runs its own event loop.

    Raises:
        MigrationBusy: another migration holds the lock.
        MigrationError: the revision is behind or unknown.
    """
    asyncio.run(upgrade_async(DatabaseUrl.parse(database_url), revision, report))


async def upgrade_async(
    database_url: DatabaseUrl, revision: str = "head", report: Report = lambda _: None
) -> list[Step]:
    """Migrate a database forward to `revision`, telling `report` of each step; return the steps."""
    guard = await asyncpg.connect(**database_url.connect_arguments())
    try:
        await _take_lock(guard, report)
        steps = list(_steps((await state(guard)).current, revision))
        await guard.execute(f"CREATE SCHEMA IF NOT EXISTS {SCHEMA}")
        to_head = revision == "head" or revision == head()
        if to_head:
            await guard.execute(_functions())
        for step in steps:
            report(f"{step.revision} {step.title}")
            await _run_on(database_url, lambda c, r=step.revision: _alembic_upgrade(c, r))  # type: ignore[misc]  # mypy cannot type a lambda's default
            await _note(guard, step.min_compatible, "")
        if to_head:
            await _note(guard, _module(head()).min_compatible, _functions_digest())
            await guard.execute(f"SET lock_timeout = {_LOCK_TIMEOUT_MS}")
            await guard.execute(f"SELECT picopay.maintain_partitions({_FIRST_RETENTION_DAYS})")
    finally:
        await guard.close()  # which also gives the lock back
    return steps


async def drift(database_url: DatabaseUrl) -> list[str]:
    """Compare the migrated database with `tables.py`; an empty list when they agree."""
    found: list[str] = []

    def compare(connection: Connection) -> None:
        context = MigrationContext.configure(
            connection,
            opts={
                "include_schemas": True,
                "version_table_schema": SCHEMA,
                "include_name": lambda name, kind, _: kind != "schema" or name == SCHEMA,
                "include_object": lambda _, name, kind, reflected, __: (
                    not (kind == "table" and reflected and _is_partition(name))
                ),
                "compare_server_default": True,
            },
        )
        found.extend(str(difference) for difference in compare_metadata(context, metadata))

    await _run_on(database_url, compare)
    return found


def _is_partition(name: str) -> bool:
    parent = name.rpartition("_")[0]
    table = metadata.tables.get(f"{SCHEMA}.{parent}")
    return table is not None and bool(table.dialect_options["postgresql"]["partition_by"])


async def _take_lock(guard: "asyncpg.Connection[Any]", report: Report) -> None:
    for waited_s in range(_LOCK_WAIT_S):
        if await guard.fetchval("SELECT pg_try_advisory_lock($1)", _MIGRATION_LOCK):
            return
        if waited_s == 0:
            report("waiting for another migration to end")
        await asyncio.sleep(1)
    raise MigrationBusy(f"another migration has held the lock for {_LOCK_WAIT_S} seconds")


async def _run_on(database_url: DatabaseUrl, work: Callable[[Connection], None]) -> None:
    async def connect() -> "asyncpg.Connection[Any]":
        connection: asyncpg.Connection[Any] = await asyncpg.connect(
            **database_url.connect_arguments()
        )
        # A role called like the schema would have it as its default one, whose tables Alembic
        # compares without their schema's name. Every name here is qualified.
        await connection.execute("SET search_path = pg_catalog")
        return connection

    engine = create_async_engine("postgresql+asyncpg://", async_creator=connect, poolclass=NullPool)
    try:
        async with engine.connect() as connection:
            await connection.run_sync(work)
    finally:
        await engine.dispose()


def _alembic_upgrade(connection: Connection, revision: str) -> None:
    connection.exec_driver_sql(f"SET lock_timeout = {_LOCK_TIMEOUT_MS}")
    connection.commit()
    config = _config()
    config.attributes["connection"] = connection
    command.upgrade(config, revision)
    connection.commit()


async def _note(guard: "asyncpg.Connection[Any]", min_compatible: str, digest: str) -> None:
    await guard.execute(
        "INSERT INTO picopay.schema_version (min_compatible, functions_digest) VALUES ($1, $2)"
        " ON CONFLICT (one) DO UPDATE SET min_compatible = $1, functions_digest = $2",
        min_compatible,
        digest,
    )


def _steps(current: str | None, revision: str) -> Iterator[Step]:
    target = head() if revision == "head" else revision
    revisions = sorted(script.revision for script in _scripts().walk_revisions())
    if target not in revisions:
        raise MigrationError(f"there is no revision {target}; known are {', '.join(revisions)}")
    if current is not None and target < current and revision != "head":
        raise MigrationError(
            f"the schema is at {current} and migrations go forward only; {target} is behind it"
        )
    for name in revisions:
        if (current is None or name > current) and name <= target:
            script = _module(name)
            yield Step(name, (script.__doc__ or "").strip().splitlines()[0], script.min_compatible)


def _module(revision: str) -> Any:
    return _scripts().get_revision(revision).module


@cache
def _scripts() -> ScriptDirectory:
    return ScriptDirectory.from_config(_config())


def _config() -> Config:
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    config.set_main_option("path_separator", "os")
    return config


@cache
def _functions() -> str:
    folder = Path(__file__).parent
    return "\n".join((folder / name).read_text(encoding="utf-8") for name in _FUNCTIONS)


def _functions_digest() -> str:
    return hashlib.sha256(_functions().encode()).hexdigest()
