"""`picopay migrate` goes forward only, leaves a newer release's work alone and puts functions right."""

import asyncio
import json
import subprocess
import sys
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from picopay_api.cli.exits import ExitCode
from picopay_api.database_url import DatabaseUrl
from picopay_api.logs import Event
from picopay_api.store import migrate, schema
from support.console import Console
from support.installation import environment
from support.key_days import DAYS_OF_KEYS, first_day_of_keys, key_partitions
from support.releases import Release
from support.sql import execute, rows, value

HEAD = schema.head()

FUNCTIONS = """
SELECT pg_get_functiondef(oid) FROM pg_proc
 WHERE pronamespace = 'picopay'::regnamespace ORDER BY proname
"""


@pytest.fixture
def console(capsys: pytest.CaptureFixture[str]) -> Console:
    return Console(capsys)


@pytest.fixture
def release(tmp_path: Path) -> Release:
    """A release with one more revision, which this one can live with, and another function."""
    release = Release(tmp_path / "next")
    release.add("ALTER TABLE picopay.journal ADD COLUMN note text")
    release.change_function("history.sql", "rows are only inserted", "it is only added to")
    return release


def given(monkeypatch: pytest.MonkeyPatch, url: DatabaseUrl) -> None:
    monkeypatch.setenv("DATABASE_URL", url.text)


def noted(url: DatabaseUrl) -> list[Any]:
    """Read all that a migration writes down, and the functions."""
    version = (
        "SELECT a.version_num, s.* FROM picopay.alembic_version AS a, picopay.schema_version AS s"
    )
    return [tuple(row) for query in (version, FUNCTIONS) for row in asyncio.run(rows(url, query))]


def test_a_schema_that_is_ahead_and_admits_this_release_is_left_alone(
    database_url: DatabaseUrl, release: Release, console: Console, monkeypatch: pytest.MonkeyPatch
) -> None:
    given(monkeypatch, database_url)
    with release.in_force():
        ahead = console.json("migrate")["current"]
    assert ahead > HEAD
    before = noted(database_url)
    assert console.json("migrate") == {
        "current": ahead,
        "head": HEAD,
        "min_compatible": schema.MIN_COMPATIBLE_SCHEMA,
        "up_to_date": True,
    }
    assert console.json("migrate", "--check")["up_to_date"] is True
    assert console.json("migrate", "--plan") == {"steps": [], "plan_hash": None}
    assert console.json("schema", "info")["current"] == ahead
    for arguments in (("--to", HEAD), ("--plan", "--to", HEAD)):
        refusal = console.refusal("migrate", *arguments)
        assert (refusal["exit_code"], refusal["code"]) == (ExitCode.SCHEMA, "migration_refused")
        assert f"{HEAD} is behind it" in refusal["detail"]
    assert noted(database_url) == before


def test_a_schema_that_is_ahead_and_does_not_admit_this_release_is_left_alone(
    database_url: DatabaseUrl, tmp_path: Path, console: Console, monkeypatch: pytest.MonkeyPatch
) -> None:
    given(monkeypatch, database_url)
    release = Release(tmp_path / "next")
    ahead = release.add("DROP TABLE picopay.metadata_item", admits_older=False)
    with release.in_force():
        console.json("migrate")
    before = noted(database_url)
    sentence = f"the schema is at {ahead} and admits releases from {ahead} on, this one is {HEAD}"
    refusal = console.refusal("migrate")
    assert (refusal["exit_code"], refusal["code"]) == (ExitCode.SCHEMA, "schema_ahead")
    assert sentence in refusal["detail"]
    console.json("migrate", "--check", exit_code=ExitCode.SCHEMA)
    assert sentence in console.error
    ended = subprocess.run(
        [sys.executable, "-m", "picopay_api", "serve", "--host", "127.0.0.1", "--port", "0"],
        env=environment() | {"DATABASE_URL": database_url.text, "PICOPAY_MIGRATE_ON_START": "true"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ended.returncode == ExitCode.SCHEMA
    assert sentence in ended.stderr
    assert noted(database_url) == before


def test_a_migration_stops_where_it_is_told_and_never_goes_back(
    database_url: DatabaseUrl, release: Release, console: Console, monkeypatch: pytest.MonkeyPatch
) -> None:
    given(monkeypatch, database_url)
    middle = release.revisions()[-1]
    last = release.add("ALTER TABLE picopay.account ADD COLUMN note text")
    with release.in_force():
        steps = console.json("migrate", "--plan")["steps"]
        assert [step["revision"] for step in steps] == [middle, last]
        assert steps[0]["title"] == "Something more."
        assert [
            step["revision"] for step in console.json("migrate", "--plan", "--to", middle)["steps"]
        ] == [middle]
        assert console.json("migrate", "--to", middle)["current"] == middle
        applied = [json.loads(line) for line in console.error.splitlines()]
        assert [line.get("revision") for line in applied] == [middle]
        assert console.json("migrate", "--check", exit_code=ExitCode.SCHEMA)["up_to_date"] is False
        assert f"at {middle}, this release wants {last}" in console.error
        assert "go forward only" in console.refusal("migrate", "--to", HEAD)["detail"]
        refusal = console.refusal("migrate", "--to", "9999")["detail"]
        assert refusal.endswith(", ".join(release.revisions()))
        assert console.json("migrate")["current"] == last
        assert console.json("migrate", "--check")["up_to_date"] is True


def test_what_was_applied_before_a_failure_is_kept_and_told(
    database_url: DatabaseUrl, release: Release, console: Console, monkeypatch: pytest.MonkeyPatch
) -> None:
    given(monkeypatch, database_url)
    middle = release.revisions()[-1]
    functions = asyncio.run(rows(database_url, FUNCTIONS))
    release.add(
        "CREATE TABLE picopay.half (id uuid)",
        "ALTER TABLE picopay.nowhere ADD COLUMN note text",
        admits_older=False,
    )
    with release.in_force():
        exit_code, out = console.run("migrate", "--json")
        assert (exit_code, out) == (ExitCode.SCHEMA, "")
        applied, error = map(json.loads, console.error.splitlines())
        assert (applied["event"], applied["revision"]) == (Event.MIGRATION_APPLIED, middle)
        assert error["error"]["code"] == "sqlstate_42P01"
        assert "picopay.nowhere" in error["error"]["detail"]
        assert console.json("migrate", "--check", exit_code=ExitCode.SCHEMA)["current"] == middle
    assert asyncio.run(value(database_url, "SELECT to_regclass('picopay.half')")) is None
    # The functions belong to the last step, and so does what it would have refused.
    assert asyncio.run(rows(database_url, FUNCTIONS)) == functions
    admitted = "SELECT min_compatible FROM picopay.schema_version"
    assert asyncio.run(value(database_url, admitted)) == HEAD
    assert console.json("migrate", "--check")["up_to_date"] is True


CHANGES = {
    "another body": (
        "CREATE OR REPLACE FUNCTION picopay.refuse_change() RETURNS trigger LANGUAGE plpgsql"
        " AS $$ BEGIN RETURN NEW; END $$"
    ),
    "an attribute": (
        "ALTER FUNCTION picopay.maintain_partitions(integer) SECURITY INVOKER RESET ALL"
    ),
    "none": "DROP FUNCTION picopay.uuid_at(timestamptz)",
    "an older release's": "UPDATE picopay.schema_version SET functions_digest = 'older'",
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_functions_that_are_not_this_releases_are_put_right(
    change: str, database_url: DatabaseUrl, console: Console, monkeypatch: pytest.MonkeyPatch
) -> None:
    given(monkeypatch, database_url)
    before = noted(database_url)
    asyncio.run(execute(database_url, change))
    state = console.json("migrate", "--check", exit_code=ExitCode.SCHEMA)
    assert (state["current"], state["up_to_date"]) == (HEAD, False)
    assert "the functions in the database are not those of this release" in console.error
    assert console.json("migrate", "--plan") == {"steps": [], "plan_hash": None}
    assert console.json("migrate")["up_to_date"] is True
    assert noted(database_url) == before


def test_functions_stay_where_this_release_cannot_work_with_the_tables(
    database_url: DatabaseUrl, release: Release
) -> None:
    middle = release.revisions()[-1]
    last = release.add("ALTER TABLE picopay.account ADD COLUMN note text")
    before = asyncio.run(rows(database_url, FUNCTIONS))
    with release.in_force(min_compatible=last):
        migrate.upgrade(database_url.text, middle)
        assert asyncio.run(rows(database_url, FUNCTIONS)) == before
        migrate.upgrade(database_url.text)
    assert asyncio.run(rows(database_url, FUNCTIONS)) != before


async def parts(url: DatabaseUrl, parent: str) -> dict[str, int]:
    """Return the partitions of a table, each with the number of its rows."""
    names = await rows(
        url,
        "SELECT relname FROM pg_inherits JOIN pg_class ON pg_class.oid = inhrelid"
        " WHERE inhparent = $1::text::regclass",
        f"picopay.{parent}",
    )
    return {
        name.removeprefix(f"{parent}_"): await value(url, f"SELECT count(*) FROM picopay.{name}")
        for (name,) in names
    }


def months_on(day: date, months: int) -> str:
    years, month = divmod(day.month - 1 + months, 12)
    return f"{day.year + years}{month + 1:02}"


async def test_partitions_are_there_ahead_of_time(empty_database_url: DatabaseUrl) -> None:
    today = datetime.now(UTC).date()
    await migrate.upgrade_async(empty_database_url)
    months = {"default": 0, **{months_on(today, ahead): 0 for ahead in range(4)}}
    assert await parts(empty_database_url, "journal") == months
    assert await parts(empty_database_url, "entry") == months
    keys = key_partitions(today, range(-1, 8)) | {"idempotency_key_default"}
    assert await parts(empty_database_url, "idempotency_key") == {
        name.removeprefix("idempotency_key_"): 0 for name in keys
    }


async def test_a_migration_forgets_no_key_whatever_the_retention(database_url: DatabaseUrl) -> None:
    """The longest retention that can be set is 90 days; a migration does not know which is."""
    day = first_day_of_keys(datetime.now(UTC).date() - timedelta(days=90))
    await execute(
        database_url,
        f"CREATE TABLE picopay.idempotency_key_{day:%Y%m%d} PARTITION OF picopay.idempotency_key"
        f" FOR VALUES FROM ('{day}') TO ('{day + timedelta(days=DAYS_OF_KEYS)}')",
    )
    await migrate.upgrade_async(database_url)
    assert f"{day:%Y%m%d}" in await parts(database_url, "idempotency_key")
