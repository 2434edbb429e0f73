"""What `picopay migrate` tells an operator: its report, however it ends, and plans that wait for approval."""

import asyncio
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from picopay_api import __version__
from picopay_api.cli.exits import ExitCode
from picopay_api.cli.report import BYTES_MAX
from picopay_api.database_url import DatabaseUrl
from picopay_api.store import migrate, schema
from picopay_api.store.plan import plan_hash
from support.console import Console
from support.installation import environment
from support.releases import Release
from support.sql import value
from support.waiting import eventually

HEAD = schema.head()


@pytest.fixture
def console(capsys: pytest.CaptureFixture[str]) -> Console:
    return Console(capsys)


@pytest.fixture
def release(tmp_path: Path) -> Release:
    """A release with two more revisions, of which the second takes something away."""
    release = Release(tmp_path / "next")
    release.add("CREATE TABLE picopay.more (id uuid)")
    release.add("DROP TABLE picopay.more", destructive=True, admits_older=False)
    return release


@pytest.fixture
def given(database_url: DatabaseUrl, monkeypatch: pytest.MonkeyPatch) -> DatabaseUrl:
    monkeypatch.setenv("DATABASE_URL", database_url.text)
    return database_url


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A report of an earlier run, to be replaced as a whole."""
    path = tmp_path / "report.json"
    path.write_text("x" * 10_000, encoding="utf-8")
    return path


def reported(console: Console, file: Path, exit_code: ExitCode, *arguments: str) -> dict[str, Any]:
    """Migrate, and return the report; it never holds a password."""
    ended, _ = console.run("migrate", "--report", str(file), *arguments)
    text = file.read_text(encoding="utf-8")
    report: dict[str, Any] = json.loads(text)
    assert ended == exit_code, text
    assert (report["ok"], report["exit_code"]) == (exit_code == ExitCode.OK, exit_code)
    assert len(text.encode()) <= BYTES_MAX
    for name in ("DATABASE_URL", "PICOPAY_MIGRATION_DATABASE_URL"):
        if url := os.environ.get(name):
            assert str(DatabaseUrl.parse(url).password) not in text
    return report


def test_the_first_migration(
    empty_database_url: DatabaseUrl,
    console: Console,
    file: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("DATABASE_URL", empty_database_url.text)
    plan = console.json("migrate", "--plan")
    revisions = [step["revision"] for step in plan["steps"]]
    report = reported(console, file, ExitCode.OK)
    assert report == {
        "ok": True,
        "exit_code": 0,
        "code": None,
        "detail": None,
        "release": __version__,
        "current": HEAD,
        "head": HEAD,
        "min_compatible": schema.MIN_COMPATIBLE_SCHEMA,
        "oldest_release": plan["steps"][-1]["min_compatible"],
        "steps": [
            {name: step[name] for name in ("revision", "title", "destructive")}
            for step in plan["steps"]
        ],
        "waiting": [],
        "plan_hash": plan["plan_hash"],
        "applied": revisions,
        "connections_max": report["connections_max"],
    }
    shown = "SELECT sum(setting::int) FROM pg_settings WHERE name = ANY ($1)"
    reserved = ["superuser_reserved_connections", "reserved_connections"]
    assert report["connections_max"] == asyncio.run(
        value(empty_database_url, shown, ["max_connections"])
    ) - asyncio.run(value(empty_database_url, shown, reserved))
    again = reported(console, file, ExitCode.OK)
    nothing: dict[str, Any] = {"steps": [], "plan_hash": None, "applied": []}
    assert again == {**report, **nothing}


@pytest.mark.usefixtures("given")
def test_a_destructive_plan_waits_until_exactly_it_is_approved(
    console: Console, file: Path, release: Release
) -> None:
    hold = ("--hold", "destructive")
    with release.in_force():
        first, second = release.revisions()[-2:]
        held = reported(console, file, ExitCode.HELD, *hold)
        plan = console.json("migrate", "--plan")
        assert [step["destructive"] for step in plan["steps"]] == [False, True]
        assert (held["code"], held["plan_hash"]) == ("migration_held", plan["plan_hash"])
        assert [step["revision"] for step in held["steps"]] == [first, second]
        assert (held["current"], held["applied"]) == (HEAD, [])
        assert held["plan_hash"] in held["detail"]
        other = reported(console, file, ExitCode.HELD, *hold, "--approve", "0" * 64)
        assert "another one" in other["detail"]
        # Up to what destroys nothing, nobody is asked. It makes the plan another one.
        assert reported(console, file, ExitCode.OK, *hold, "--to", first)["applied"] == [first]
        approve = (*hold, "--approve")
        rest = reported(console, file, ExitCode.HELD, *approve, held["plan_hash"])
        assert rest["plan_hash"] not in {held["plan_hash"], None}
        done = reported(console, file, ExitCode.OK, *approve, rest["plan_hash"])
        assert (done["applied"], done["current"]) == ([second], second)
        assert done["oldest_release"] == second
        assert reported(console, file, ExitCode.OK, *hold)["plan_hash"] is None


@pytest.mark.usefixtures("given")
def test_every_plan_waits_where_every_one_shall(
    console: Console, file: Path, release: Release, tmp_path: Path
) -> None:
    harmless = Release(tmp_path / "harmless")
    harmless.add("CREATE TABLE picopay.more (id uuid)")
    with harmless.in_force():
        held = reported(console, file, ExitCode.HELD, "--hold", "always")
    # Another release has the same numbers and other files: the approval does not hold for it.
    with release.in_force():
        approved = ("--hold", "always", "--approve", held["plan_hash"])
        assert reported(console, file, ExitCode.HELD, *approved)["plan_hash"] != held["plan_hash"]
    with harmless.in_force():
        assert reported(console, file, ExitCode.OK, *approved)["current"] == held["head"]
        assert reported(console, file, ExitCode.OK, "--hold", "always")["steps"] == []


def test_the_hash_is_that_of_the_files_and_of_nothing_else(tmp_path: Path) -> None:
    hashes = set()
    for name, sql in (("one", "SELECT 1"), ("same", "SELECT 1"), ("other", "SELECT 2")):
        release = Release(tmp_path / name)
        release.add(sql)
        release.change_function("history.sql", "rows are only inserted", name)
        with release.in_force():
            hashes.add(plan_hash(list(migrate._steps(HEAD, "head"))))
    assert len(hashes) == 2


def test_a_release_that_the_database_admits_no_more(
    given: DatabaseUrl, console: Console, file: Path, release: Release
) -> None:
    with release.in_force():
        asyncio.run(migrate.upgrade_async(given))
    report = reported(console, file, ExitCode.SCHEMA, "--hold", "always")
    newest = release.revisions()[-1]
    assert report["code"] == "schema_ahead"
    assert (report["current"], report["oldest_release"], report["head"]) == (newest, newest, HEAD)
    assert (report["steps"], report["applied"]) == ([], [])


@pytest.mark.usefixtures("given")
def test_what_turns_away_releases_that_serve_waits_until_they_are_gone(
    console: Console, file: Path, release: Release
) -> None:
    first, second = release.revisions()[-2:]
    hold = ("--hold", "destructive")
    with release.in_force():
        expand = reported(console, file, ExitCode.OK, *hold, "--admit", HEAD)
        assert (expand["applied"], expand["current"]) == ([first], first)
        assert [step["revision"] for step in expand["waiting"]] == [second]
        assert expand["oldest_release"] == HEAD
        assert console.json("migrate", "--plan", "--admit", HEAD)["steps"] == []
        again = reported(console, file, ExitCode.OK, *hold, "--admit", HEAD)
        assert (again["applied"], again["waiting"]) == ([], expand["waiting"])
    # The older release goes on, and migrates nothing back.
    assert reported(console, file, ExitCode.OK)["current"] == first
    with release.in_force():
        # Once nobody needs what it takes away, it is asked for as ever.
        held = reported(console, file, ExitCode.HELD, *hold)
        assert [step["revision"] for step in held["steps"]] == [second]
        done = reported(console, file, ExitCode.OK, *hold, "--approve", held["plan_hash"])
        assert (done["applied"], done["waiting"]) == ([second], [])
    assert reported(console, file, ExitCode.SCHEMA)["code"] == "schema_ahead"


@pytest.mark.usefixtures("given")
@pytest.mark.parametrize("admit", ["1", "v0001", "00001", "head", " 0001"])
def test_what_is_no_schema_admits_nothing(
    admit: str, console: Console, file: Path, release: Release
) -> None:
    with release.in_force():
        report = reported(console, file, ExitCode.SCHEMA, "--admit", admit)
        assert (report["code"], report["applied"]) == ("migration_refused", [])
        assert console.run("migrate", "--plan", "--admit", admit)[0] == ExitCode.SCHEMA


@pytest.mark.usefixtures("given")
def test_which_releases_still_serve_may_be_said_in_any_way(
    console: Console, file: Path, release: Release
) -> None:
    first, second = release.revisions()[-2:]
    assert console.run("migrate", "--check", "--admit", "")[0] == ExitCode.USAGE
    with release.in_force():
        unknown = reported(console, file, ExitCode.OK, "--admit", "")
        assert unknown["applied"] == []
        assert [step["revision"] for step in unknown["waiting"]] == [first, second]
        to = reported(console, file, ExitCode.OK, "--admit", HEAD, "--to", first)
        assert (to["applied"], to["waiting"]) == ([first], [])
        # That of a later release than this one knows.
        later = reported(console, file, ExitCode.OK, "--admit", f"{int(second) + 1:04}")
        assert (later["applied"], later["waiting"]) == ([second], [])


@pytest.mark.usefixtures("given")
def test_releases_that_cannot_serve_side_by_side(
    console: Console, file: Path, release: Release
) -> None:
    second = release.revisions()[-1]
    with release.in_force(min_compatible=second):
        gap = reported(console, file, ExitCode.SCHEMA, "--admit", HEAD)
        assert (gap["code"], gap["applied"]) == ("schema_gap", [])
        assert second in gap["detail"]
        assert reported(console, file, ExitCode.OK)["current"] == second


@pytest.mark.usefixtures("given")
def test_a_step_that_fails_is_told_beside_those_that_are_done(
    console: Console, file: Path, tmp_path: Path
) -> None:
    release = Release(tmp_path / "next")
    good = release.add("CREATE TABLE picopay.more (id uuid)")
    bad = release.add("SELECT 1 / 0")
    with release.in_force():
        report = reported(console, file, ExitCode.SCHEMA)
    assert (report["code"], report["current"]) == ("sqlstate_22012", good)
    assert [step["revision"] for step in report["steps"]] == [good, bad]
    assert report["applied"] == [good]
    assert "division by zero" in report["detail"]


@pytest.mark.usefixtures("given")
def test_another_migration_is_at_it(
    given: DatabaseUrl, console: Console, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(migrate, "_LOCK_WAIT_S", 1)

    async def busy() -> dict[str, Any]:
        async with migrate._connected(given) as connection:
            driver: Any = (await connection.get_raw_connection()).driver_connection
            await driver.execute(f"SELECT pg_advisory_lock({migrate._MIGRATION_LOCK})")
            return await asyncio.to_thread(reported, console, file, ExitCode.BUSY)

    report = asyncio.run(busy())
    assert (report["code"], report["current"]) == ("migration_busy", HEAD)
    assert report["connections_max"] > 0


@pytest.mark.parametrize("name", ["DATABASE_URL", "PICOPAY_MIGRATION_DATABASE_URL"])
def test_a_database_that_is_away(
    given: DatabaseUrl, name: str, console: Console, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, given.replace(ports=(1,)).text)
    report = reported(console, file, ExitCode.UNAVAILABLE)
    assert report["code"] == "database_unavailable"
    known = {"release": __version__, "head": HEAD, "min_compatible": schema.MIN_COMPATIBLE_SCHEMA}
    unknown = dict.fromkeys(("current", "oldest_release", "plan_hash", "connections_max"))
    expected: dict[str, Any] = {**known, **unknown, "steps": [], "applied": []}
    assert {key: report[key] for key in expected} == expected


@pytest.mark.usefixtures("given")
def test_settings_that_are_wrong(
    console: Console, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PICOPAY_POOL_SIZE", "many")
    report = reported(console, file, ExitCode.CONFIGURATION)
    assert report["code"] == "settings_invalid"
    assert "PICOPAY_POOL_SIZE" in report["detail"]


@pytest.mark.usefixtures("given")
def test_a_defect_is_reported_without_the_password(
    given: DatabaseUrl, console: Console, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(*_: object, **__: object) -> None:
        raise RuntimeError(f"cannot use {given.text} " + "ä" * 5_000)

    monkeypatch.setattr(migrate, "upgrade_async", fail)
    with pytest.raises(AssertionError, match="Traceback"):  # which is for people, on stderr
        console.run("migrate", "--report", str(file))
    report = json.loads(file.read_bytes())
    assert (report["exit_code"], report["code"]) == (ExitCode.INTERNAL, "internal_error")
    assert "RuntimeError: cannot use" in report["detail"]
    assert str(given.password) not in report["detail"]


@pytest.mark.usefixtures("given")
def test_a_report_of_many_steps_is_cut(console: Console, file: Path, tmp_path: Path) -> None:
    release = Release(tmp_path / "next")
    for _ in range(60):
        release.add("SELECT 1")
    with release.in_force():
        report = reported(console, file, ExitCode.HELD, "--hold", "always")
        plan = console.json("migrate", "--plan")
    assert 20 < len(report["steps"]) < 60
    assert [step["revision"] for step in report["steps"]] == [
        step["revision"] for step in plan["steps"][: len(report["steps"])]
    ]
    assert report["plan_hash"] == plan["plan_hash"]


@pytest.mark.usefixtures("given")
def test_nothing_is_begun_whose_report_cannot_be_written(
    console: Console, tmp_path: Path, release: Release
) -> None:
    with release.in_force():
        refusal = console.refusal("migrate", "--report", str(tmp_path / "none" / "report.json"))
        assert refusal["exit_code"] == ExitCode.CONFIGURATION
        assert console.json("migrate", "--check", exit_code=ExitCode.SCHEMA)["current"] == HEAD


async def test_a_migration_that_is_told_to_stop_says_so(
    database_url: DatabaseUrl, file: Path
) -> None:
    """As a pod is that has taken too long; here, because somebody else has the lock."""
    asking = (
        "SELECT count(*) > 0 FROM pg_stat_activity WHERE datname = current_database()"
        " AND query ~ 'pg_try_advisory_lock' AND pid <> pg_backend_pid()"
    )
    async with migrate._connected(database_url) as connection:
        driver: Any = (await connection.get_raw_connection()).driver_connection
        await driver.execute(f"SELECT pg_advisory_lock({migrate._MIGRATION_LOCK})")
        child = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "picopay_api", "migrate", "--report", str(file)),
            env=environment() | {"DATABASE_URL": database_url.text},
            stderr=subprocess.DEVNULL,
        )
        try:

            async def waiting() -> bool:
                return bool(await driver.fetchval(asking))

            await eventually(waiting)
            child.send_signal(signal.SIGTERM)
            assert await child.wait() == ExitCode.INTERRUPTED
        finally:
            if child.returncode is None:
                child.kill()
                await child.wait()
    report = json.loads(await asyncio.to_thread(file.read_bytes))
    assert (report["ok"], report["exit_code"]) == (False, ExitCode.INTERRUPTED)
    assert report["current"] == HEAD
