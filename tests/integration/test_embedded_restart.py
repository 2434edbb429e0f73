"""An embedded server that has died by itself, and is started once more for whoever was connected to it."""

import asyncio
import os
import signal
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from picopay_api.database_url import DatabaseUrl
from picopay_api.embedded import EmbeddedError
from picopay_api.embedded.processes import SystemUser, Workplace
from support.embedded import POLL_TIMEOUT_S, poll, query, run, running, server_processes
from support.sql import value
from support.waiting import eventually


def test_a_server_that_was_killed_is_started_again_where_it_was(tmp_path: Path) -> None:
    with running(tmp_path / "data") as postgres:
        run(postgres.owner_url, "CREATE TABLE kept AS SELECT 42 AS answer")
        first, url = postgres.pid, postgres.owner_url
        with pytest.raises(EmbeddedError, match="not ended"):
            postgres.restart()
        with busy_session(url):
            os.kill(first, signal.SIGKILL)
            poll(lambda: not postgres.is_running())
            assert postgres.exit_code == -signal.SIGKILL
            postgres.restart()
        assert postgres.pid != first
        assert query(url, "SELECT answer FROM kept") == 42
    log = (tmp_path / "data" / "postgres.log").read_text(encoding="utf-8")
    assert log.count("automatic recovery in progress") == 1
    with pytest.raises(EmbeddedError, match="not running"):
        postgres.restart()


@contextmanager
def busy_session(url: DatabaseUrl) -> Iterator[None]:
    """Let a session compute for ever: it does not notice that its postmaster is gone."""
    endless = "SELECT count(*) FROM generate_series(1, 1e15)"
    with asyncio.Runner() as runner:

        async def begin() -> tuple[Any, asyncio.Task[Any]]:
            connection = await asyncpg.connect(**url.connect_arguments())
            task = asyncio.create_task(connection.fetch(endless))
            active = "SELECT count(*) FROM pg_stat_activity WHERE state = 'active' AND query = $1"
            await eventually(lambda: value(url, active, endless))
            return connection, task

        connection, task = runner.run(begin())
        try:
            yield
        finally:
            connection.terminate()
            runner.run(asyncio.wait([task]))
            assert isinstance(task.exception(), asyncpg.PostgresError | OSError)


def test_a_restart_waits_for_its_port_and_makes_no_new_data(tmp_path: Path) -> None:
    with running(tmp_path / "data") as postgres:
        port, url = postgres.port, postgres.owner_url
        os.kill(postgres.pid, signal.SIGKILL)
        poll(lambda: not postgres.is_running())
        with (
            socket.create_server(("127.0.0.1", port)),
            pytest.raises(EmbeddedError, match=f"port {port}"),
        ):
            postgres.restart()
        data = tmp_path / "data" / "postgres"
        data.rename(tmp_path / "elsewhere")
        with pytest.raises(EmbeddedError, match="gone"):
            postgres.restart()
        (tmp_path / "elsewhere").rename(data)
        postgres.restart()
        assert query(url, "SELECT 1") == 1


def test_a_stop_ends_a_restart_that_is_under_way(tmp_path: Path) -> None:
    with running(tmp_path / "data") as postgres:
        os.kill(postgres.pid, signal.SIGKILL)
        poll(lambda: not postgres.is_running())
        with pytest.raises(EmbeddedError, match=r"was stopped|did not start"):
            postgres.restart(lambda said: postgres.stop() if "starting" in said else None)
        assert server_processes(tmp_path / "data") == []


def test_the_launcher_has_the_libraries_of_python_and_the_server_has_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A Python that was moved finds its own library by LD_LIBRARY_PATH, and does not start without."""
    python = tmp_path / "python"
    python.write_text(
        f'#!/bin/sh\necho "$LD_LIBRARY_PATH" >&2\nexec {sys.executable} "$@"\n', encoding="utf-8"
    )
    python.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(python))
    monkeypatch.setenv("LD_LIBRARY_PATH", "/of/python")
    with (tmp_path / "log").open("wb") as log:
        place = Workplace(tmp_path, SystemUser.for_server(tmp_path))
        place.run(["/bin/sh", "-c", 'echo "then $LD_LIBRARY_PATH"'], log, POLL_TIMEOUT_S)
    assert (tmp_path / "log").read_text().splitlines() == ["/of/python", "then "]
