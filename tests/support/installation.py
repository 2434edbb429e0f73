"""A whole `picopay up` as a user runs it, in processes of its own, for tests that kill them.

Used by tests of crashes and of the command line. Whatever happens, no process is left behind.
"""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import httpx
import msgspec
import psutil

from support.postgres import CHECKOUT

READY_TIMEOUT_S = 90
STOP_TIMEOUT_S = 60


class Ready(msgspec.Struct, frozen=True):
    """The line that `picopay up --json` prints."""

    url: str
    api_key: str
    pid: int
    database_url: str


class Installation:
    """A running `picopay up`; `ready` is what it printed."""

    def __init__(self, process: "subprocess.Popen[str]", ready: Ready) -> None:
        self.process = process
        self.ready = ready

    @property
    def headers(self) -> dict[str, str]:
        """Headers that authenticate as the administrator."""
        return {"Authorization": f"Bearer {self.ready.api_key}"}

    def client(self, **options: int) -> httpx.AsyncClient:
        """Make a client with the administrator's key."""
        limits = httpx.Limits(max_connections=options.get("connections", 100))
        return httpx.AsyncClient(
            base_url=self.ready.url, headers=self.headers, timeout=30, limits=limits
        )

    def processes(self) -> list[psutil.Process]:
        """Return every process of the installation, PostgreSQL's included."""
        return tree(self.ready.pid)

    def kill_everything(self) -> None:
        """Kill every process at once, as a power cut does."""
        kill(self.processes())
        self.process.wait(STOP_TIMEOUT_S)

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Ask it to end; return the exit code."""
        os.kill(self.ready.pid, number)
        return self.process.wait(STOP_TIMEOUT_S)


@contextmanager
def installed(directory: Path, *options: str) -> Iterator[Installation]:
    """Start `picopay up --json` on a directory and wait until it is ready; kill what is left."""
    with (directory.parent / f"{directory.name}.log").open("a+", encoding="utf-8") as log:
        process = subprocess.Popen(
            [
                *(sys.executable, "-m", "picopay_api", "up", "--json"),
                *("--data", str(directory), "--port", "0", *options),
            ],
            stdout=subprocess.PIPE,
            stderr=log,
            stdin=subprocess.DEVNULL,
            text=True,
            env=environment(),
            start_new_session=True,  # a test can send what Ctrl-C sends, to its process group
        )
        family: list[psutil.Process] = []
        try:
            installation = Installation(process, _read_ready(process, log))
            family = installation.processes()
            yield installation
        finally:
            kill([*family, *tree(process.pid)])
            process.wait(STOP_TIMEOUT_S)
            assert process.stdout is not None
            process.stdout.close()


def environment() -> dict[str, str]:
    """Return an environment in which `python -m picopay_api` finds this checkout and no settings."""
    kept = {
        name: os.environ[name] for name in ("PATH", "HOME", "LANG", "TMPDIR") if name in os.environ
    }
    return {**kept, "PYTHONPATH": str(CHECKOUT / "api")}


def tree(pid: int) -> list[psutil.Process]:
    """Return a process and all below it; none when it has ended."""
    try:
        process = psutil.Process(pid)
        return [process, *process.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def command_of(process: psutil.Process) -> list[str]:
    """Return the command line of a process; nothing of one that has ended since it was seen."""
    try:
        return process.cmdline()
    except psutil.NoSuchProcess:  # who is dead and not yet buried is one, too
        return []


def kill(processes: list[psutil.Process]) -> None:
    """Stop them all first, so that none sees another one die; then kill them."""
    for number in (signal.SIGSTOP, signal.SIGKILL):
        for process in processes:
            try:
                process.send_signal(number)
            except psutil.NoSuchProcess:
                continue
    psutil.wait_procs(processes, timeout=STOP_TIMEOUT_S)


def _read_ready(process: "subprocess.Popen[str]", log: IO[str]) -> Ready:
    assert process.stdout is not None
    line = process.stdout.readline()
    if not line:
        process.wait(READY_TIMEOUT_S)
        log.seek(0)
        raise AssertionError(f"it ended with {process.returncode}: {log.read()[-4000:]}")
    return msgspec.convert(json.loads(line), Ready)
