"""Has the client ask a server, and looks at processor time and memory of the others meanwhile.

Used by `rounds.py` and by the modes beside it, for PicoPay and for the no-op alike.
"""

import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import msgspec

from benchmarks.arithmetic import Figures
from benchmarks.client import Job, Report
from benchmarks.processes import MemoryWatch, cpu_s, memory_mb
from benchmarks.servers import BenchmarkError, environment

_MEMORY_EVERY_S = 0.1


class Client:
    """A client at work; made by `asking`."""

    def __init__(self, process: "subprocess.Popen[bytes]") -> None:
        assert process.stdout is not None
        assert process.stderr is not None
        self._output: IO[bytes] = process.stdout
        self._errors: IO[bytes] = process.stderr

    def expect(self, word: str) -> None:
        """Wait for a word of the client: `measuring` or `measured`.

        Raises:
            BenchmarkError: it gave up.
        """
        if self._output.readline() != f"{word}\n".encode():
            raise self._failure()

    def report(self) -> Report:
        """Wait for what it has to report.

        Raises:
            BenchmarkError: it gave up.
        """
        line = self._output.readline()
        if not line:
            raise self._failure()
        return msgspec.json.decode(line, type=Report)

    def _failure(self) -> BenchmarkError:
        text = self._errors.read().decode("utf-8", "replace").strip()
        return BenchmarkError(f"the client gave up: {text[-2_000:] or 'it took too long'}")


@contextmanager
def asking(job: Job, command: Sequence[str | Path] = (), **variables: str) -> Iterator[Client]:
    """Start a client; it is ended at the end of the block.

    `command` starts it somewhere else than here, with `variables` in the environment of the command.
    """
    with subprocess.Popen(
        command or [sys.executable, "-m", "benchmarks.client"],
        env=environment(variables),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    ) as process:
        try:
            assert process.stdin is not None
            process.stdin.write(msgspec.json.encode(job))
            process.stdin.close()
            yield Client(process)
        finally:
            process.kill()  # it has ended, unless this was interrupted


def ask(job: Job, server_pids: Sequence[int], postgres_pid: int | None) -> tuple[Report, Figures]:
    """Run the client once.

    Raises:
        BenchmarkError: an answer was not what it should be.
    """
    before_mb = max(map(memory_mb, server_pids))
    with asking(job) as client:
        client.expect("measuring")
        with MemoryWatch(server_pids, _MEMORY_EVERY_S) as watch:
            servers_s, postgres_s = _used_s(server_pids, postgres_pid)
            client.expect("measured")
            servers_after_s, postgres_after_s = _used_s(server_pids, postgres_pid)
        report = client.report()
    answers = report.count + report.refused
    figures = Figures(
        per_s=report.count / report.seconds,
        average_ms=report.average_ms,
        p50_ms=report.p50_ms,
        p99_ms=report.p99_ms,
        max_ms=report.max_ms,
        server_cpu_ms=1000 * (servers_after_s - servers_s) / report.count,
        database_cpu_ms=None
        if postgres_pid is None
        else 1000 * (postgres_after_s - postgres_s) / report.count,
        client_cpu_ms=1000 * report.cpu_s / answers,
        offered_per_s=job.per_s,
        refused=None if job.per_s is None else report.refused / answers,
        unsent=None if job.per_s is None else report.unsent / (report.unsent + report.sent),
        memory_before_mb=before_mb,
        memory_peak_mb=watch.peak_mb,
        memory_after_mb=max(map(memory_mb, server_pids)),
    )
    return report, figures


def _used_s(server_pids: Sequence[int], postgres_pid: int | None) -> tuple[float, float]:
    return sum(map(cpu_s, server_pids)), 0.0 if postgres_pid is None else cpu_s(postgres_pid)
