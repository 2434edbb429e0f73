"""One server process under load for a long time: does it grow, does it slow down, does `balance` bloat?

Used by `command.py`. All pay the same account, over as many connections as PicoPay is compared at; the
table of balances, whose one row is updated by every payment, is left to PostgreSQL's autovacuum.
"""

import asyncio
import statistics
from pathlib import Path
from typing import Any

import asyncpg
import msgspec

from benchmarks import load
from benchmarks.arithmetic import Cell, Contender, Workload
from benchmarks.client import Report
from benchmarks.ground import Ground, Tell, introduce_accounts
from benchmarks.plan import CONNECTIONS
from benchmarks.processes import MemoryWatch, memory_mb
from benchmarks.results import Minute, Sample, Soak
from benchmarks.rounds import job
from benchmarks.servers import serving_picopay
from benchmarks.soundness import Tally, check
from picopay_api.database_url import DatabaseUrl
from support.postgres import on_connection

_MINUTE_S = 60
_SAMPLE_EVERY_S = 1.0
_BALANCE = """
SELECT pg_table_size('picopay.balance') / 1e6::float8 AS size_mb,
       (SELECT n_dead_tup FROM pg_stat_all_tables WHERE relid = 'picopay.balance'::regclass) AS dead
"""


def run(minutes: int, ground: Ground, work: Path, tell: Tell) -> Soak:
    """Keep a server busy for some minutes, and look.

    Raises:
        BenchmarkError: an answer was not 201, or the ledger is not sound.
    """
    cell = Cell(Contender.PICOPAY, Workload.HOT, CONNECTIONS)
    tally = Tally()
    told: list[Minute] = []
    with ground.database() as database:
        with serving_picopay(database, work / "servers.log") as server:
            introduce_accounts(server, ground.busy)
            before_mb = memory_mb(server.pids[0])
            with MemoryWatch(server.pids[:1], _SAMPLE_EVERY_S) as watch:
                for number in range(1, minutes + 1):
                    asked = job(ground.busy, cell, server.port, _MINUTE_S)
                    # Without a pause: what is not measured would be a rest.
                    asked = msgspec.structs.replace(asked, warm_up_s=0.0)
                    began = len(watch.samples)
                    report, _ = load.ask(asked, server.pids, ground.postgres.pid)
                    tally.add(report)
                    told.append(_minute(report, watch.samples[began:], database))
                    tell(
                        f"  minute {number}: {told[-1].per_s:,.0f}/s, p99 {told[-1].p99_ms:.1f} ms,"
                        f" {told[-1].memory_mb:.1f} MB"
                    )
        tell(f"checking {tally.acknowledged:,} payments")
        asyncio.run(check(database, tally))
    return Soak(
        connections=CONNECTIONS, memory_before_mb=before_mb, minutes=told, samples=watch.samples
    )


def _minute(report: Report, samples: list[Sample], database: DatabaseUrl) -> Minute:
    async def look(connection: "asyncpg.Connection[Any]") -> "asyncpg.Record | None":
        return await connection.fetchrow(_BALANCE)

    balance = asyncio.run(on_connection(database, look))
    assert balance is not None  # it has no WHERE clause
    values = [sample.memory_mb for sample in samples]
    return Minute(
        per_s=report.count / report.seconds,
        p50_ms=report.p50_ms,
        p99_ms=report.p99_ms,
        max_ms=report.max_ms,
        memory_mb=statistics.median(values),
        memory_peak_mb=max(values),
        balance_mb=balance["size_mb"],
        balance_dead_rows=balance["dead"],
    )
