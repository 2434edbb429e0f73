"""Migrations that meet each other, that wait for a lock, or that are cut off in the middle."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from picopay_api.cli.exits import ExitCode
from picopay_api.database_url import DatabaseUrl
from picopay_api.store import migrate, schema
from picopay_api.store.migrate import MigrationBusy
from picopay_api.worker.audit_all import audit_everything
from support.api import served
from support.console import Console
from support.journal import opened
from support.releases import Release
from support.sql import execute, rows, value
from support.waiting import eventually

HEAD = schema.head()

NOTED = """
SELECT a.version_num, s.min_compatible, s.functions_digest, to_regclass('picopay.half') IS NULL
  FROM picopay.alembic_version AS a, picopay.schema_version AS s
"""

WAITING = """
SELECT pid FROM pg_stat_activity
 WHERE datname = current_database() AND wait_event_type = 'Lock' AND pid <> pg_backend_pid()
"""

END_WAITING = f"SELECT pg_terminate_backend(pid) FROM ({WAITING}) AS waiting"


@asynccontextmanager
async def transaction(url: DatabaseUrl) -> AsyncIterator["asyncpg.Connection[Any]"]:
    """Open a transaction that is rolled back in the end, of somebody who is in the way."""
    connection = await asyncpg.connect(**url.connect_arguments())
    try:
        await connection.execute("BEGIN")
        yield connection
    finally:
        await connection.close()


async def until_waiting(url: DatabaseUrl) -> None:
    async def waiting() -> bool:
        return bool(await rows(url, WAITING))

    await eventually(waiting)


@pytest.fixture
def release(tmp_path: Path) -> Release:
    """A release with one more revision, which admits no older one."""
    release = Release(tmp_path / "next")
    release.add(
        "CREATE TABLE picopay.half (id uuid)",
        "ALTER TABLE picopay.account ADD COLUMN note text",
        admits_older=False,
    )
    release.change_function("history.sql", "rows are only inserted", "it is only added to")
    return release


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(migrate, "_SESSION", migrate._SESSION.replace("'5s'", "'100ms'"))
    monkeypatch.setattr(migrate, "_LOCK_WAIT_S", 1)


async def test_the_second_of_two_migrations_waits_and_finds_nothing_to_do(
    empty_database_url: DatabaseUrl,
) -> None:
    reports: list[str] = []
    done = await asyncio.gather(
        *(migrate.upgrade_async(empty_database_url, report=reports.append) for _ in range(2))
    )
    assert sorted(len(steps) for steps in done) == [0, len(list(migrate._steps(None, "head")))]
    assert "waiting for another migration to end" in reports
    assert (await migrate.read_state(empty_database_url)).is_head()


@pytest.mark.usefixtures("impatient")
def test_a_migration_that_never_ends_keeps_others_out(
    empty_database_url: DatabaseUrl,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("DATABASE_URL", empty_database_url.text)

    async def busy() -> dict[str, Any]:
        async with transaction(empty_database_url) as holder:
            await holder.execute(f"SELECT pg_advisory_lock({migrate._MIGRATION_LOCK})")
            with pytest.raises(MigrationBusy):
                await migrate.upgrade_async(empty_database_url)
            return await asyncio.to_thread(Console(capsys).refusal, "migrate")

    refusal = asyncio.run(busy())
    assert (refusal["exit_code"], refusal["code"]) == (ExitCode.BUSY, "migration_busy")
    assert asyncio.run(value(empty_database_url, "SELECT to_regnamespace('picopay')")) is None
    assert asyncio.run(migrate.upgrade_async(empty_database_url))


@pytest.mark.usefixtures("impatient")
def test_a_table_that_somebody_holds_stops_a_migration_before_anything_is_done(
    database_url: DatabaseUrl,
    release: Release,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("DATABASE_URL", database_url.text)
    before = asyncio.run(rows(database_url, NOTED))

    async def held() -> dict[str, Any]:
        async with transaction(database_url) as reader:
            await reader.execute("SELECT FROM picopay.account")
            with pytest.raises(asyncpg.LockNotAvailableError):
                await migrate.upgrade_async(database_url)
            return await asyncio.to_thread(Console(capsys).refusal, "migrate")

    with release.in_force():
        refusal = asyncio.run(held())
        assert (refusal["exit_code"], refusal["code"]) == (ExitCode.BUSY, "sqlstate_55P03")
        assert asyncio.run(rows(database_url, NOTED)) == before
        assert len(asyncio.run(migrate.upgrade_async(database_url))) == 1
        assert asyncio.run(migrate.read_state(database_url)).is_head()


async def test_a_migration_whose_session_is_ended_is_done_by_the_next_one(
    database_url: DatabaseUrl, release: Release
) -> None:
    before = await rows(database_url, NOTED)
    with release.in_force():
        async with transaction(database_url) as reader:
            await reader.execute("SELECT FROM picopay.account")
            migrating = asyncio.create_task(migrate.upgrade_async(database_url))
            await until_waiting(database_url)
            await execute(database_url, END_WAITING)
            with pytest.raises(ConnectionError):
                await migrating
            assert await rows(database_url, NOTED) == before
        assert len(await migrate.upgrade_async(database_url)) == 1
        assert (await migrate.read_state(database_url)).is_head()


@pytest.mark.parametrize("cut", ["by the client", "by the server"])
async def test_the_first_migration_that_is_cut_off_is_done_by_the_next_one(
    empty_database_url: DatabaseUrl, cut: str
) -> None:
    await execute(empty_database_url, "CREATE SCHEMA picopay")
    async with transaction(empty_database_url) as other:
        await other.execute("CREATE TABLE picopay.account ()")  # the third of the tables
        migrating = asyncio.create_task(migrate.upgrade_async(empty_database_url))
        await until_waiting(empty_database_url)
        if cut == "by the client":
            migrating.cancel()
        else:
            await execute(empty_database_url, END_WAITING)
        with pytest.raises((asyncio.CancelledError, ConnectionError)):
            await migrating
    state = await migrate.read_state(empty_database_url)
    assert state.current is None
    assert await value(empty_database_url, "SELECT to_regclass('picopay.ledger')") is None
    await migrate.upgrade_async(empty_database_url)
    assert (await migrate.read_state(empty_database_url)).is_head()
    assert await migrate.drift(empty_database_url) == []


async def test_a_long_transaction_delays_partitions_and_fails_no_migration(
    database_url: DatabaseUrl,
) -> None:
    last = await value(
        database_url,
        "SELECT max(inhrelid::regclass::text) FROM pg_inherits"
        " WHERE inhparent = 'picopay.idempotency_key'::regclass AND inhrelid::regclass::text ~ '[0-9]$'",
    )
    await execute(database_url, f"DROP TABLE {last}")
    reports: list[str] = []
    async with transaction(database_url) as reader:
        await reader.execute("SELECT FROM picopay.idempotency_key")
        await migrate.upgrade_async(database_url, report=reports.append)
    assert "partitions are left to the worker" in reports[-1]
    assert await value(database_url, f"SELECT to_regclass('{last}')") is None
    await migrate.upgrade_async(database_url)
    assert await value(database_url, f"SELECT to_regclass('{last}')") is not None


async def test_payments_go_on_while_a_later_release_migrates(
    database_url: DatabaseUrl, tmp_path: Path
) -> None:
    release = Release(tmp_path / "next")
    release.add("ALTER TABLE picopay.journal ADD COLUMN note text DEFAULT 'none' NOT NULL")
    release.add("ALTER TABLE picopay.balance ADD COLUMN note text DEFAULT 'none' NOT NULL")
    release.change_function("decide.sql", "-- 1. Lock.", "-- Lock.")
    async with served(database_url) as api:
        await api.account("alice", 1_000)
        await api.account("bob")
        answers: list[int] = []
        migrated = asyncio.Event()

        async def pay() -> None:
            while not migrated.is_set():
                answers.append((await api.pay("@alice", "@bob", 1)).status_code)

        async def migrate_on() -> None:
            with release.in_force():
                await migrate.upgrade_async(database_url)
            migrated.set()

        await asyncio.gather(pay(), pay(), migrate_on())
        assert (await api.pay("@alice", "@bob", 1)).status_code == 201
        assert set(answers) == {201}
        assert await api.available("bob") == len(answers) + 1
    async with opened(database_url) as database:
        assert await audit_everything(database, lambda _: None) == []
