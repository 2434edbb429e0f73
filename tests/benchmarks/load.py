"""Has the client ask a server, and looks at the processor time of everybody meanwhile.

Used by `rounds.py`, for PicoPay and for the no-op alike.
"""

import subprocess
import sys
from typing import IO

import msgspec

from benchmarks.arithmetic import Figures
from benchmarks.client import Job, Report
from benchmarks.processor_time import cpu_s
from benchmarks.servers import BenchmarkError, environment


def ask(job: Job, server_pid: int, postgres_pid: int | None) -> tuple[Report, Figures]:
    """Run the client once.

    Raises:
        BenchmarkError: an answer was not what it should be.
    """
    pids = [server_pid, *([] if postgres_pid is None else [postgres_pid])]
    with subprocess.Popen(
        [sys.executable, "-m", "benchmarks.client"],
        env=environment(),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    ) as client:
        try:
            assert client.stdin is not None
            assert client.stdout is not None
            assert client.stderr is not None
            client.stdin.write(msgspec.json.encode(job))
            client.stdin.close()
            _expect(client.stdout, client.stderr, b"measuring\n")
            before_s = [cpu_s(pid) for pid in pids]
            _expect(client.stdout, client.stderr, b"measured\n")
            after_s = [cpu_s(pid) for pid in pids]
            line = client.stdout.readline()
            if not line:
                raise _failure(client.stderr)
        finally:
            client.kill()  # it has ended, unless this was interrupted
    report = msgspec.json.decode(line, type=Report)
    used_ms = [
        1000 * (after - before) / report.count
        for before, after in zip(before_s, after_s, strict=True)
    ]
    figures = Figures(
        per_s=report.count / report.seconds,
        average_ms=report.average_ms,
        p50_ms=report.p50_ms,
        p99_ms=report.p99_ms,
        server_cpu_ms=used_ms[0],
        database_cpu_ms=None if postgres_pid is None else used_ms[1],
        client_cpu_ms=1000 * report.cpu_s / report.count,
    )
    return report, figures


def _expect(output: IO[bytes], errors: IO[bytes], line: bytes) -> None:
    if output.readline() != line:
        raise _failure(errors)


def _failure(errors: IO[bytes]) -> BenchmarkError:
    text = errors.read().decode("utf-8", "replace").strip()
    return BenchmarkError(f"the client gave up: {text[-2_000:] or 'it took too long'}")
