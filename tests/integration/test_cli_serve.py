"""`picopay serve` and `picopay worker` as a platform runs them: processes over a given database."""

import json
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import httpx
import psutil
import pytest

from picopay_api.cli.exits import ExitCode
from picopay_api.database_url import DatabaseUrl
from support.console import Console
from support.installation import STOP_TIMEOUT_S, environment, kill, tree
from support.waiting import eventually

pytestmark = pytest.mark.timeout(180)


@contextmanager
def running(
    url: DatabaseUrl, *arguments: str, **variables: str
) -> "Iterator[subprocess.Popen[str]]":
    """Run a command that stays; whatever happens, nothing of it is left."""
    process = subprocess.Popen(
        [sys.executable, "-m", "picopay_api", *arguments],
        env=environment() | {"DATABASE_URL": url.text} | variables,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    family: list[psutil.Process] = []
    try:
        yield process
        family = tree(process.pid)
    finally:
        kill([*family, *tree(process.pid)])
        process.communicate(timeout=STOP_TIMEOUT_S)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


async def until_ready(port: int) -> None:
    async def ready() -> bool:
        async with httpx.AsyncClient(trust_env=False) as client:
            try:
                return (await client.get(f"http://127.0.0.1:{port}/readyz")).is_success
            except httpx.TransportError:
                return False

    await eventually(ready)


@pytest.mark.parametrize("workers", ["1", "2"])
async def test_serve_migrates_serves_and_drains(
    empty_database_url: DatabaseUrl, workers: str
) -> None:
    port = free_port()
    arguments = ("serve", "--host", "127.0.0.1", "--port", str(port), "--workers", workers)
    with running(empty_database_url, *arguments, PICOPAY_MIGRATE_ON_START="true") as process:
        await until_ready(port)
        with socket.create_connection(("127.0.0.1", port)):  # idle: it does not hold the stop up
            process.send_signal(signal.SIGTERM)
            out, _ = process.communicate(timeout=STOP_TIMEOUT_S)
    assert process.returncode == ExitCode.OK
    events = [json.loads(line)["event"] for line in out.splitlines()]
    assert events[0] == "migration applied"
    # The second of two may have been told before it had begun.
    assert 1 <= events.count("server started") == events.count("server stopped") <= int(workers), (
        out
    )


async def test_serve_without_a_database_says_that_it_is_not_ready(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    port = free_port()
    away = DatabaseUrl.parse("postgresql://nobody@127.0.0.1:1/nothing")
    with running(away, "serve", "--host", "127.0.0.1", "--port", str(port)):

        async def answers() -> bool:
            async with httpx.AsyncClient(trust_env=False) as client:
                try:
                    return (await client.get(f"http://127.0.0.1:{port}/livez")).is_success
                except httpx.TransportError:
                    return False

        await eventually(answers)
        monkeypatch.setenv("DATABASE_URL", away.text)
        monkeypatch.setenv("API_PORT", str(port))
        refusal = Console(capsys).refusal("healthcheck")
        assert (refusal["exit_code"], refusal["code"]) == (ExitCode.FAILED, "not_ready")


def test_a_port_that_is_taken(database_url: DatabaseUrl) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        with running(database_url, "serve", "--host", "127.0.0.1", "--port", port) as process:
            out, error = process.communicate(timeout=STOP_TIMEOUT_S)
    assert (process.returncode, out) == (ExitCode.BUSY, "")
    assert "--port 0" in error


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_worker_stops_when_told(database_url: DatabaseUrl, number: signal.Signals) -> None:
    with running(database_url, "worker") as process:
        assert process.stdout is not None
        assert json.loads(process.stdout.readline())["event"] == "worker started"
        process.send_signal(number)
        out, _ = process.communicate(timeout=STOP_TIMEOUT_S)
    assert process.returncode == ExitCode.OK
    assert json.loads(out.splitlines()[-1])["event"] == "worker stopped"


async def test_a_worker_answers_with_its_metrics_on_a_port_of_its_own(
    database_url: DatabaseUrl,
) -> None:
    port = free_port()
    variables = {"API_HOST": "127.0.0.1", "PICOPAY_WORKER_METRICS_PORT": str(port)}
    with running(database_url, "worker", **variables):

        async def ready() -> bool:
            async with httpx.AsyncClient(trust_env=False) as client:
                try:
                    answer = await client.get(f"http://127.0.0.1:{port}/metrics")
                except httpx.TransportError:
                    return False
                return "picopay_ready 1.0" in answer.text and "picopay_seal_lag" in answer.text

        await eventually(ready)
        with running(database_url, "worker", **variables) as second:
            _, said = second.communicate(timeout=STOP_TIMEOUT_S)
            assert (second.returncode, "port_in_use" in said) == (ExitCode.BUSY, True)
