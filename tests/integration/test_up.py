"""`picopay up` as a user runs it: from an empty directory to a payment, through every way to end.

Real processes with their own PostgreSQL. A start costs seconds, so each test goes a long way.
"""

import asyncio
import json
import os
import re
import signal
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from picopay_api.cli import supervisor
from picopay_api.cli.bootstrap import SAMPLE_FUNDS_MINOR
from picopay_api.cli.exits import CommandFailed, ExitCode
from picopay_api.cli.stack import keep_database
from picopay_api.embedded import EmbeddedPostgres
from support.installation import (
    READY_TIMEOUT_S,
    STOP_TIMEOUT_S,
    Installation,
    command_of,
    environment,
    installed,
    kill,
    tree,
)
from support.waiting import eventually

pytestmark = pytest.mark.timeout(240)

COMMAND = (sys.executable, "-m", "picopay_api", "up", "--port", "0")


def pay(installation: Installation, amount_minor: int, key: str) -> httpx.Response:
    body = {"source": "@alice", "destination": "@bob", "amount": amount_minor, "asset": "USD"}
    return httpx.post(
        f"{installation.ready.url}/v1/payments",
        headers={**installation.headers, "Idempotency-Key": key},
        json=body,
        timeout=30,
    )


def posted_minor(installation: Installation, account: str) -> int:
    answer = httpx.get(
        f"{installation.ready.url}/v1/accounts/{account}/balance",
        headers=installation.headers,
        timeout=30,
    )
    assert answer.status_code == 200, answer.text
    return int(answer.json()["balance"]["posted"])


def refused(directory: Path, *options: str, **variables: str) -> tuple[int, str]:
    """Start `picopay up` where it must not start; return its exit code and the code it tells."""
    ended = subprocess.run(
        [*COMMAND, "--json", "--data", str(directory), *options],
        env=environment() | variables,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=READY_TIMEOUT_S,
        check=False,
    )
    assert ended.stdout == ""
    assert "Traceback" not in ended.stderr
    return ended.returncode, json.loads(ended.stderr.splitlines()[-1])["error"]["code"]


def children(installation: Installation, command: str) -> list[psutil.Process]:
    supervisor = psutil.Process(installation.ready.pid)
    return [one for one in supervisor.children() if command in command_of(one)]


def assert_gone(processes: list[psutil.Process]) -> None:
    _, alive = psutil.wait_procs(processes, timeout=STOP_TIMEOUT_S)
    assert alive == []


def rest_of_stdout(installation: Installation) -> str:
    assert installation.process.stdout is not None
    return installation.process.stdout.read()


def test_data_and_key_are_there_again_however_the_run_before_ended(tmp_path: Path) -> None:
    directory = tmp_path / "data"
    with installed(directory) as first:
        key = first.ready.api_key
        assert stat.S_IMODE((directory / "api_key").stat().st_mode) == 0o600
        assert (directory / "api_key").read_text().strip() == key
        assert posted_minor(first, "@alice") == posted_minor(first, "@bob") == SAMPLE_FUNDS_MINOR
        made = pay(first, 1_250, "one")
        assert made.status_code == 201, made.text
        family = first.processes()
        assert refused(directory) == (ExitCode.BUSY, "data_directory_in_use")
        assert first.stop() == ExitCode.OK
        assert_gone(family)
        assert rest_of_stdout(first) == ""

    with installed(directory, "--workers", "2") as second:
        assert second.ready.api_key == key
        assert posted_minor(second, "@bob") == SAMPLE_FUNDS_MINOR + 1_250
        again = pay(second, 1_250, "one")
        assert again.json() == made.json()
        assert again.headers["Idempotent-Replayed"] == "true"
        assert len(children(second, "serve")) == 2
        assert pay(second, 500, "two").status_code == 201
        second.kill_everything()

    with installed(directory) as third:
        assert third.ready.api_key == key
        assert posted_minor(third, "@alice") == SAMPLE_FUNDS_MINOR - 1_750
        family = third.processes()
        os.kill(third.ready.pid, signal.SIGKILL)
        assert_gone(family)

    with installed(directory) as fourth:
        assert fourth.ready.api_key == key
        assert posted_minor(fourth, "@bob") == SAMPLE_FUNDS_MINOR + 1_750
        family = fourth.processes()
        os.killpg(os.getpgid(fourth.ready.pid), signal.SIGINT)
        os.killpg(os.getpgid(fourth.ready.pid), signal.SIGINT)
        assert fourth.process.wait(STOP_TIMEOUT_S) == ExitCode.OK
        assert_gone(family)
        assert "database system is shut down" in last_line(directory / "postgres.log")


def last_line(log: Path) -> str:
    return log.read_text(encoding="utf-8").splitlines()[-1]


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let nobody wait between two deaths."""
    monkeypatch.setattr(supervisor, "_PAUSE_FIRST_S", 0.001)


@pytest.mark.usefixtures("hasty")
async def test_a_database_that_cannot_be_kept_running_ends_it_all(tmp_path: Path) -> None:
    postgres = EmbeddedPostgres(tmp_path / "data")
    postgres.start()
    try:
        keeping = asyncio.create_task(keep_database(postgres, tmp_path / "postgres.log"))
        for _ in range(2):  # it may die, even soon, and is there again
            before = postgres.pid
            os.kill(before, signal.SIGKILL)
            await eventually(partial(restarted, postgres, before))
        (tmp_path / "data" / "postgres" / "global" / "pg_control").unlink()
        os.kill(postgres.pid, signal.SIGKILL)
        with pytest.raises(CommandFailed, match="pg_control") as failure:
            await keeping
        assert failure.value.exit_code == ExitCode.UNAVAILABLE
    finally:
        postgres.stop()


async def restarted(postgres: EmbeddedPostgres, before: int) -> bool:
    return postgres.is_running() and postgres.pid != before


def test_patience_grows_and_ends_and_comes_back() -> None:
    patience = supervisor.Patience()
    assert [patience.pause_s(1) for _ in range(6)] == [1, 2, 4, 8, 8, None]
    patience = supervisor.Patience()
    assert [patience.pause_s(lived_s) for lived_s in (1, 1, 60, 1)] == [1, 2, 0.5, 1]


@contextmanager
def told(directory: Path) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """Start `picopay up` for people and yield what it says up to its last line."""
    process = subprocess.Popen(
        [*COMMAND, "--data", str(directory)],
        env=environment(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        assert process.stdout is not None
        lines: list[str] = []
        while line := process.stdout.readline():
            lines.append(line)
            if "Ctrl-C" in line:
                break
        yield process, "".join(lines)
    finally:
        kill(tree(process.pid))
        process.communicate(timeout=STOP_TIMEOUT_S)


def test_what_is_printed_can_be_copied_and_works(tmp_path: Path) -> None:
    with told(tmp_path / "data") as (process, text):
        url = re.search(r"URL +(http://127\.0\.0\.1:\d+)$", text, re.MULTILINE)
        assert url is not None
        assert re.search(r"API key +ppk_[0-9a-f]{64}$", text, re.MULTILINE)
        assert f"{url[1]}/docs" in text
        assert httpx.get(f"{url[1]}/docs", timeout=30).status_code == 200
        payment, statement = (line for line in text.splitlines() if line.startswith("curl "))
        assert shell(payment)["status"] == "captured"
        assert shell(payment)["amount"] == 1_250  # a replay
        entries = shell(statement)["data"]
        assert [entry["amount"] for entry in entries] == [1_250, SAMPLE_FUNDS_MINOR]
        os.killpg(process.pid, signal.SIGINT)
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.wait(STOP_TIMEOUT_S) == ExitCode.OK
        assert process.stdout.read().strip() == ""
        said = process.stderr.read().splitlines()
        # What takes longer than two seconds, as anything may on a busy machine, is told with a "…".
        assert [line for line in said if "stopping" not in line and not line.endswith("…")] == []


def shell(line: str) -> dict[str, Any]:
    ended = subprocess.run(
        ["sh", "-c", line], capture_output=True, text=True, timeout=60, check=True
    )
    answer: dict[str, Any] = json.loads(ended.stdout)
    return answer


def test_a_port_that_is_taken(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        assert refused(tmp_path / "data", "--port", port) == (ExitCode.BUSY, "port_in_use")


def test_where_it_must_not_start(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").touch()
    assert refused(tmp_path) == (ExitCode.UNAVAILABLE, "embedded_failed")
    directory = tmp_path / "data"
    assert refused(directory, PICOPAY_POOL_SIZE="many") == (
        ExitCode.CONFIGURATION,
        "settings_invalid",
    )
    assert not directory.exists()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_while_it_starts(tmp_path: Path, number: signal.Signals) -> None:
    directory = tmp_path / "data"
    process = subprocess.Popen(
        [*COMMAND, "--json", "--data", str(directory)],
        env=environment(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        while process.poll() is None and not (directory / "lock").exists():
            continue  # until it has begun to make the database; the time-out of the test is the bound
        family = tree(process.pid)
        process.send_signal(number)
        out, _ = process.communicate(timeout=STOP_TIMEOUT_S)
    finally:
        kill(tree(process.pid))
    assert (process.returncode, out) == (ExitCode.INTERRUPTED, "")
    assert_gone(family)
