"""Brings a database to a revision of the schema, and says where it is.

Called by `picopay migrate`, by `picopay up` and by the tests. Migrations go forward only, on one direct
connection of the owner's role that holds an advisory lock, each in a transaction of its own with a
`lock_timeout`. The functions and grants (`*.sql`) have one readable source each (decision 0004): they come
with the last step, in its transaction.
"""

import asyncio
import hashlib
import re
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from functools import cache, partial
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
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection, create_async_engine
from sqlalchemy.pool import NullPool

from picopay_api.database_url import DatabaseUrl
from picopay_api.logs import Event, get_logger
from picopay_api.store import partitions, schema
from picopay_api.store.migrations import run_statements
from picopay_api.store.plan import Hold, Step, is_held, parted, plan_hash
from picopay_api.store.schema import SchemaState
from picopay_api.store.tables import SCHEMA, metadata

_MIGRATION_LOCK = 0x7069636F706179  # "picopay": the advisory lock of whoever migrates
_LOCK_WAIT_S = 120
_KEEP_DAYS = 36_500  # a migration makes partitions; it drops none, whatever retention is set
_REVISION = re.compile(r"[0-9]{4}")
_FUNCTIONS = ("history.sql", "partitions.sql", "decide.sql", "grants.sql")

# A role called like the schema would have it as its default one, whose tables Alembic compares without
# their schema's name: hence the search path. Every name here is qualified.
_SESSION = """
SET search_path = pg_catalog;
SET statement_timeout = 0;
SET lock_timeout = '5s'
"""

# What stands in the database, in one digest: a function changed by hand is not the release's any more.
_STANDING_FUNCTIONS = """
SELECT encode(sha256(convert_to(
           string_agg(definition, '' ORDER BY definition COLLATE "C"), 'UTF8')), 'hex')
  FROM pg_proc AS p CROSS JOIN LATERAL pg_get_functiondef(p.oid) AS definition
 WHERE p.pronamespace = to_regnamespace('picopay') AND p.prokind = 'f'
"""

_FUNCTIONS_CURRENT = f"""
SELECT functions_digest = $1 || ' ' || ({_STANDING_FUNCTIONS}) FROM picopay.schema_version
"""  # noqa: S608  # composed of constants

_NOTE_STEP = """
INSERT INTO picopay.schema_version (min_compatible, functions_digest) VALUES ($1, '')
    ON CONFLICT (one) DO UPDATE SET min_compatible = excluded.min_compatible
"""

_NOTE_FUNCTIONS = f"""
UPDATE picopay.schema_version SET functions_digest = $1 || ' ' || ({_STANDING_FUNCTIONS})
"""  # noqa: S608  # composed of constants

_PARTITIONS = """
SELECT relname FROM pg_class WHERE relispartition AND relnamespace = to_regnamespace('picopay')
"""

# Sessions for which there is room. PostgreSQL has `reserved_connections` from 16 on.
_CONNECTIONS_MAX = """
SELECT sum(setting::integer * CASE name WHEN 'max_connections' THEN 1 ELSE -1 END)::integer
  FROM pg_settings
 WHERE name IN ('max_connections', 'superuser_reserved_connections', 'reserved_connections')
"""

Report = Callable[[str], None]

_log = get_logger(__name__)


class MigrationError(Exception):
    """The migration cannot start or go on; the message says what to do, `code` what it is."""

    code = "migration_refused"


class MigrationBusy(MigrationError):
    """Another migration holds the lock: the same command will do later."""

    code = "migration_busy"


class MigrationHeld(MigrationError):
    """The plan waits for its approval."""

    code = "migration_held"


class SchemaAhead(MigrationError):
    """A later release has migrated the database, and it admits this one no more."""

    code = "schema_ahead"


class SchemaGap(MigrationError):
    """This release needs a step that turns away a release which still serves."""

    code = "schema_gap"


class Course(msgspec.Struct):
    """What a migration has found before it began, and done since; kept up while it runs.

    `steps` are those it takes, `waiting` those it leaves to a later one. `connections_max` is how many
    sessions the server has room for, without those it reserves.
    """

    found: SchemaState | None = None
    connections_max: int | None = None
    steps: list[Step] = []
    waiting: list[Step] = []
    applied: list[Step] = []


async def read_state(database_url: DatabaseUrl) -> SchemaState:
    """Connect, read the state of the schema and of the functions, disconnect."""
    connection = await asyncpg.connect(**database_url.connect_arguments())
    try:
        found = await schema.state(connection)
        if found.current is None:
            return found
        are_current = await connection.fetchval(_FUNCTIONS_CURRENT, _functions_digest())
        return msgspec.structs.replace(found, functions_current=bool(are_current))
    finally:
        await connection.close()


async def plan(
    database_url: DatabaseUrl, revision: str = "head", admit: str | None = None
) -> list[Step]:
    """List the revisions that an upgrade would run, in order."""
    current = (await read_state(database_url)).current
    return _parted(current, revision, admit)[0]


def upgrade(database_url: str, revision: str = "head", report: Report = lambda _: None) -> None:
    """Migrate a database forward to `revision`; runs its own event loop.

    Raises:
        MigrationBusy: another migration holds the lock.
        MigrationError: the revision is behind or unknown.
    """
    asyncio.run(upgrade_async(DatabaseUrl.parse(database_url), revision, report))


async def upgrade_async(
    database_url: DatabaseUrl,
    revision: str = "head",
    report: Report = lambda _: None,
    *,
    hold: Hold | None = None,
    approved: str | None = None,
    admit: str | None = None,
    course: Course | None = None,
) -> list[Step]:
    """Migrate a database forward to `revision`, telling `report` of each step; return the steps.

    What a newer release has migrated is left alone: its functions and what it admits are its own. What would
    turn away releases of schema `admit`, which still serve, is left to a later migration.
    Whether the plan may run is decided under the lock: nothing can change it after that.

    Raises:
        MigrationBusy: another migration holds the lock.
        MigrationHeld: `hold` has the plan wait, and `approved` is not its hash.
        SchemaAhead: this release is too old for the database.
        SchemaGap: this release and those of schema `admit` cannot work with the same schema.
        MigrationError: the revision is behind or unknown, or `admit` is none.
    """
    course = course or Course()
    async with _connected(database_url) as connection:
        driver: asyncpg.Connection[Any]
        driver = (await connection.get_raw_connection()).driver_connection  # type: ignore[assignment]  # what `connect` below gave it
        course.connections_max = await driver.fetchval(_CONNECTIONS_MAX)
        course.found = await schema.state(driver)
        await _take_lock(driver, report)
        found = course.found = await schema.state(driver)
        steps, course.waiting = _parted(found.current, revision, admit)
        course.steps = steps
        if found.is_ahead():
            if problem := found.problem():
                raise SchemaAhead(problem)
            return []
        if course.waiting:
            _require_no_gap(found.current, steps, course.waiting[0])
        if is_held(steps, hold, approved):
            raise MigrationHeld(_held(steps, approved))
        await _make_schema(driver)
        target = steps[-1].revision if steps else cast(str, found.current)
        # Where this release cannot work, the functions of an older one may still be at work.
        functions = _functions(schema.FOLDER) if target >= schema.MIN_COMPATIBLE_SCHEMA else None
        for step in steps:
            report(f"{step.revision} {step.title}")
            await connection.run_sync(_take_step, step, functions if step is steps[-1] else None)
            course.applied.append(step)
            _log.info(Event.MIGRATION_APPLIED, revision=step.revision)
        if not steps:
            await connection.run_sync(_conclude, _step(target), functions)
            await connection.commit()
        if functions is not None:
            await _make_partitions(driver, report)
    return steps


async def drift(database_url: DatabaseUrl) -> list[str]:
    """Compare the migrated database with `tables.py`; an empty list when they agree.

    Alembic does not look at checks, storage parameters and triggers; a test compares the catalogues.
    """
    found: list[str] = []

    def compare(connection: Connection) -> None:
        parts = set(connection.exec_driver_sql(_PARTITIONS).scalars())
        context = MigrationContext.configure(
            connection,
            opts={
                "include_schemas": True,
                "version_table_schema": SCHEMA,
                "include_name": lambda name, kind, _: kind != "schema" or name == SCHEMA,
                "include_object": lambda _, name, kind, reflected, __: (
                    not (kind == "table" and reflected and name in parts)
                ),
                "compare_server_default": True,
            },
        )
        found.extend(str(difference) for difference in compare_metadata(context, metadata))

    async with _connected(database_url) as connection:
        await connection.run_sync(compare)
    return found


@asynccontextmanager
async def _connected(database_url: DatabaseUrl) -> AsyncIterator[AsyncConnection]:
    """Connect for what Alembic does; its errors are the driver's own, as everywhere else."""

    async def connect() -> "asyncpg.Connection[Any]":
        connection: asyncpg.Connection[Any]
        connection = await asyncpg.connect(**database_url.connect_arguments())
        await connection.execute(_SESSION)
        return connection

    engine = create_async_engine("postgresql+asyncpg://", async_creator=connect, poolclass=NullPool)
    try:
        async with engine.connect() as connection:
            yield connection
    except DBAPIError as error:
        if error.connection_invalidated:
            raise ConnectionError("the connection was lost; run it again to go on") from error
        raise (error.orig and error.orig.__cause__) or error from error
    finally:
        await engine.dispose()


def _require_no_gap(current: str | None, steps: list[Step], waiting: Step) -> None:
    reached = steps[-1].revision if steps else current
    if reached is None or reached < schema.MIN_COMPATIBLE_SCHEMA:
        raise SchemaGap(
            f"this release needs schema {schema.MIN_COMPATIBLE_SCHEMA}, and {waiting.revision} on the way"
            f" there admits releases from {waiting.min_compatible} on: an older one still serves; end it"
            " first, or go by a release between the two"
        )


def _held(steps: list[Step], approved: str | None) -> str:
    names = ", ".join(step.revision + " (destructive)" * step.destructive for step in steps)
    other = "" if approved is None else "; what was approved is another one"
    return f"the plan {names} waits for approval by its hash, {plan_hash(steps)}{other}"


async def _take_lock(driver: "asyncpg.Connection[Any]", report: Report) -> None:
    """Take the lock, which goes with the connection: what it protects cannot outlive it."""
    for waited_s in range(_LOCK_WAIT_S):
        if await driver.fetchval("SELECT pg_try_advisory_lock($1)", _MIGRATION_LOCK):
            return
        if waited_s == 0:
            report("waiting for another migration to end")
        await asyncio.sleep(1)
    raise MigrationBusy(f"another migration has held the lock for {_LOCK_WAIT_S} seconds")


async def _make_schema(driver: "asyncpg.Connection[Any]") -> None:
    """Make the schema; an owner without the right to it may be given one that is there."""
    encoding = await driver.fetchval("SHOW server_encoding")
    if encoding != "UTF8":
        raise MigrationError(
            f"the database is encoded in {encoding}, which cannot hold every text; make one with"
            " CREATE DATABASE … ENCODING 'UTF8' TEMPLATE template0"
        )
    if await driver.fetchval("SELECT to_regnamespace('picopay') IS NULL"):
        await driver.execute(f"CREATE SCHEMA {SCHEMA}")


def _take_step(connection: Connection, step: Step, functions: str | None) -> None:
    config = _config(schema.FOLDER)
    config.attributes["connection"] = connection
    config.attributes["conclude"] = partial(_conclude, connection, step, functions)
    command.upgrade(config, step.revision)
    connection.commit()


def _conclude(connection: Connection, step: Step, functions: str | None) -> None:
    """Note what the database admits from now on; in the step's transaction, so never too late."""
    connection.exec_driver_sql(_NOTE_STEP, (step.min_compatible,))
    if functions is not None:
        run_statements(connection, functions)
        connection.exec_driver_sql(_NOTE_FUNCTIONS, (_functions_digest(),))


async def _make_partitions(driver: "asyncpg.Connection[Any]", report: Report) -> None:
    try:
        async with driver.transaction():
            await driver.execute(partitions.SHORT_LOCKS)
            await driver.execute(partitions.MAINTAIN, _KEEP_DAYS)
    except (asyncpg.LockNotAvailableError, asyncpg.DuplicateTableError):
        report("partitions are left to the worker: a long transaction or the worker is in the way")


def _steps(current: str | None, revision: str) -> Iterator[Step]:
    target = schema.head() if revision == "head" else revision
    revisions = sorted(script.revision for script in _scripts().walk_revisions())
    if target not in revisions:
        raise MigrationError(f"there is no revision {target}; known are {', '.join(revisions)}")
    if current is not None and target < current and revision != "head":
        raise MigrationError(
            f"the schema is at {current} and migrations go forward only; {target} is behind it"
        )
    for name in revisions:
        if (current is None or name > current) and name <= target:
            yield _step(name)


def _parted(current: str | None, revision: str, admit: str | None) -> tuple[list[Step], list[Step]]:
    # A later release may have a schema that is not known here; anything else would compare as it likes.
    if admit and _REVISION.fullmatch(admit) is None:
        raise MigrationError(f"{admit} is no revision of a schema, such as {schema.head()}")
    return parted(list(_steps(current, revision)), admit)


def _step(revision: str) -> Step:
    script: Any = _scripts().get_revision(revision).module
    title = (script.__doc__ or "").strip().splitlines()[0]
    return Step(
        revision, title, script.min_compatible, script.destructive, _digest(schema.FOLDER, revision)
    )


def _scripts() -> ScriptDirectory:
    return _scripts_in(schema.FOLDER)


@cache
def _scripts_in(folder: Path) -> ScriptDirectory:
    return ScriptDirectory.from_config(_config(folder))


def _config(folder: Path) -> Config:
    config = Config()
    config.set_main_option("script_location", str(folder / "migrations"))
    config.set_main_option("path_separator", "os")
    return config


@cache
def _digest(folder: Path, revision: str) -> str:
    """Return the digest of a revision's files: the module and, beside it, its statements."""
    whole = hashlib.sha256()
    for path in sorted((folder / "migrations" / "versions").glob(f"{revision}_*.*")):
        content = hashlib.sha256(path.read_bytes()).hexdigest()
        whole.update(f"{path.name} {content}\n".encode())
    return whole.hexdigest()


@cache
def _functions(folder: Path) -> str:
    return "\n".join((folder / name).read_text(encoding="utf-8") for name in _FUNCTIONS)


def _functions_digest() -> str:
    return hashlib.sha256(_functions(schema.FOLDER).encode()).hexdigest()
