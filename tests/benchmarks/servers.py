"""Starts what is measured over HTTP, each as a process of its own that ends with this one.

Used by `rounds.py`. PicoPay runs as `picopay up` runs it: the same command on a socket that is listened
on already, with authentication, limits, metrics and logs. What it logs goes to a file.
"""

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path

import httpx
import msgspec

from picopay_api.cli.serving import listen, url_of
from picopay_api.database_url import DatabaseUrl

CHECKOUT = Path(__file__).resolve().parents[2]

_READY_TIMEOUT_S = 60
_STOP_TIMEOUT_S = 35  # longer than the grace that `picopay serve` gives itself
_POLL_S = 0.01


class BenchmarkError(Exception):
    """What was to be measured cannot be; the message says why."""


class Server(msgspec.Struct, frozen=True):
    """A running server: where it listens, and its processes."""

    url: str
    port: int
    pids: tuple[int, ...]

    @contextmanager
    def one_at_a_time(self) -> Iterator[Iterator[int]]:
        """Let one process after the other take all connections: the others stand still meanwhile."""
        try:
            yield map(self._only, self.pids)
        finally:
            for pid in self.pids:
                os.kill(pid, signal.SIGCONT)

    def _only(self, pid: int) -> int:
        for one in self.pids:
            os.kill(one, signal.SIGCONT if one == pid else signal.SIGSTOP)
        return pid


def environment(variables: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return an environment in which this checkout is found, and no settings but those given."""
    kept = {
        name: os.environ[name] for name in ("PATH", "HOME", "LANG", "TMPDIR") if name in os.environ
    }
    path = os.pathsep.join(str(CHECKOUT / folder) for folder in ("api", "tests"))
    return {**kept, "PYTHONPATH": path, **(variables or {})}


@contextmanager
def serving_picopay(database: DatabaseUrl, log: Path, workers: int = 1) -> Iterator[Server]:
    """Run a PicoPay server until the end of the block; each process has answered /readyz before."""
    variables = {
        "DATABASE_URL": database.text,
        # The limiter counts as always; the one key of the benchmark must not meet its limit.
        "PICOPAY_RATE_LIMIT_REQUESTS": "1000000000",
    }
    command = ("picopay_api", "serve", "--workers", "1", "--until-stdin-ends", "--socket")
    with tempfile.TemporaryDirectory(prefix="metrics-", dir=log.parent) as metrics:
        if workers > 1:
            variables["PROMETHEUS_MULTIPROC_DIR"] = metrics
        with _serving(command, "/readyz", variables, log, workers) as server:
            yield server


@contextmanager
def serving_noop(log: Path) -> Iterator[Server]:
    """Run the server that does nothing until the end of the block."""
    with _serving(("benchmarks.noop",), "/", {}, log, 1) as server:
        yield server


@contextmanager
def _serving(
    command: tuple[str, ...], probe: str, variables: Mapping[str, str], log: Path, workers: int
) -> Iterator[Server]:
    with ExitStack() as stack:
        listener = listen("127.0.0.1", 0)
        try:
            processes = [
                stack.enter_context(_process(command, variables, log, listener.fileno()))
                for _ in range(workers)
            ]
            url, port = url_of(listener), listener.getsockname()[1]
        finally:
            listener.close()
        server = Server(url, port, tuple(process.pid for process in processes))
        with server.one_at_a_time() as turns:
            for _, process in zip(turns, processes, strict=True):
                wait_until_ready(process, url + probe, log)
        yield server


@contextmanager
def _process(
    command: tuple[str, ...], variables: Mapping[str, str], log: Path, descriptor: int
) -> Iterator["subprocess.Popen[bytes]"]:
    """Run a process that serves on a listening socket; it drains at the end of the block."""
    with log.open("ab") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", *command, str(descriptor)],
            env=environment(variables),
            stdin=subprocess.PIPE,  # when it ends, the server does
            stdout=output,
            stderr=output,
            pass_fds=(descriptor,),
            start_new_session=True,  # Ctrl-C is for the benchmark, which then stops everything
        )
    try:
        yield process
    finally:
        assert process.stdin is not None
        process.stdin.close()
        try:
            process.wait(_STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def cold_start_s(database: DatabaseUrl, log: Path) -> float:
    """Start `picopay serve`; return the seconds from then until it has answered that it is ready."""
    began_s = time.monotonic()
    with serving_picopay(database, log):
        return time.monotonic() - began_s


def wait_until_ready(process: "subprocess.Popen[bytes]", url: str, log: Path) -> None:
    """Wait until a process answers.

    Raises:
        BenchmarkError: it does not.
    """
    deadline_s = time.monotonic() + _READY_TIMEOUT_S
    reason = "it has not answered"
    with httpx.Client(trust_env=False, timeout=5) as client:
        while time.monotonic() < deadline_s and process.poll() is None:
            try:
                answer = client.get(url)
            except httpx.TransportError as error:
                reason = str(error)
            else:
                if answer.is_success:
                    return
                reason = answer.text
            time.sleep(_POLL_S)
    said = log.read_text(encoding="utf-8", errors="replace")[-2_000:]
    raise BenchmarkError(f"a server did not become ready: {reason}; it said: {said}")
