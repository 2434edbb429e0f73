"""pgbench on the same database: what a transaction per payment comes to on this machine.

Used by `rounds.py`. pgbench is PostgreSQL's own load generator, written in C, and speaks to the database
without anything in between: no HTTP, no keys to check. Statements are prepared, as a good driver does.
"""

import os
import re
import subprocess
from pathlib import Path

import msgspec

from benchmarks.arithmetic import Figures
from benchmarks.processes import cpu_s
from benchmarks.servers import BenchmarkError, environment
from picopay_api.database_url import DatabaseUrl

_SQL = Path(__file__).with_name("sql")
_GRACE_S = 60
_FACTS = {
    "count": r"^number of transactions actually processed: (\d+)",
    "failed": r"^number of failed transactions: (\d+)",
    "average_ms": r"^latency average = ([\d.]+) ms",
    "per_s": r"^tps = ([\d.]+) \(without initial connection time\)",
}


class Said(msgspec.Struct, frozen=True):
    """What pgbench says at its end."""

    count: int
    failed: int
    average_ms: float
    per_s: float


def parse(output: str) -> Said:
    """Understand what pgbench says at its end.

    Raises:
        BenchmarkError: it does not say all that is needed.
    """
    found = {name: re.search(fact, output, re.MULTILINE) for name, fact in _FACTS.items()}
    missing = [name for name, match in found.items() if match is None]
    if missing:
        raise BenchmarkError(f"pgbench does not tell {', '.join(missing)}: {output[-2_000:]}")
    return msgspec.convert(
        {name: match[1] for name, match in found.items() if match}, Said, strict=False
    )


class Pgbench:
    """pgbench for one database; `postgres_pid` is the process whose family the work is done by."""

    def __init__(
        self, programs: Path, url: DatabaseUrl, postgres_pid: int, accounts: int, work: Path
    ) -> None:
        self._program = programs / "pgbench"
        self._url = url
        self._postgres_pid = postgres_pid
        self._accounts = accounts
        self._work = work

    def run(self, choice: str, payment: str, clients: int, seconds: int) -> tuple[int, Figures]:
        """Pay for some seconds; return the number of payments and the figures.

        `choice` and `payment` name the files of `sql/` that choose the accounts and pay.

        Raises:
            BenchmarkError: a payment failed, or pgbench did.
        """
        script = self._work / f"{payment}-{choice}.sql"
        script.write_text(
            (_SQL / f"choose_{choice}.pgbench.sql").read_text(encoding="utf-8")
            + (_SQL / f"{payment}.pgbench.sql").read_text(encoding="utf-8"),
            encoding="utf-8",
        )
        before_s = cpu_s(self._postgres_pid)
        ended = subprocess.run(
            [
                *(self._program, "--no-vacuum", "--protocol=prepared", "--exit-on-abort"),
                *(f"--define=accounts={self._accounts}", f"--file={script}"),
                *(f"--client={clients}", f"--jobs={min(clients, os.cpu_count() or 1)}"),
                f"--time={seconds}",
            ],
            env=environment({"LC_ALL": "C", **_connection(self._url)}),
            capture_output=True,
            text=True,
            check=False,
            timeout=seconds + _GRACE_S,
        )
        used_s = cpu_s(self._postgres_pid) - before_s
        if ended.returncode != 0:
            raise BenchmarkError(f"pgbench failed: {ended.stderr[-2_000:]}")
        said = parse(ended.stdout)
        if said.failed or not said.count:
            raise BenchmarkError(f"pgbench: {said.failed} payments failed, {said.count} did not")
        figures = Figures(
            per_s=said.per_s,
            average_ms=said.average_ms,
            database_cpu_ms=1000 * used_s / said.count,
        )
        return said.count, figures


def _connection(url: DatabaseUrl) -> dict[str, str]:
    """Return an address as the variables of libpq, so that no list of processes shows the password."""
    return {
        "PGHOST": url.hosts[0],
        "PGPORT": str(url.ports[0]),
        "PGDATABASE": url.database,
        "PGUSER": url.user or "",
        "PGPASSWORD": url.password or "",
        "PGSSLMODE": "disable",
    }
