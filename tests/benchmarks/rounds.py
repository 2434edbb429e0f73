"""Rounds: everything is measured once, one after the other, on one fresh ledger, which is then audited.

Used by `command.py`. Contenders take turns within a round, and every other round goes backwards, so that
whatever else the machine does in the meantime befalls all of them.
"""

import asyncio
import secrets
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path

import msgspec

from benchmarks import load, plan
from benchmarks.arithmetic import Cell, Contender, Figures, Measurement, Workload
from benchmarks.client import Job
from benchmarks.ground import Ground, Tell, Tenant, introduce_accounts
from benchmarks.pgbench import Pgbench
from benchmarks.plan import Plan
from benchmarks.processes import allow_many_files
from benchmarks.servers import Server, cold_start_s, serving_noop, serving_picopay
from benchmarks.soundness import Tally, check

WARM_UP_S = 0.3
"""How long an HTTP server is asked before it is measured."""

_OVERLOAD_WARM_UP_S = 2.0
_OVERLOAD_S = 3.0
"""Until all connections have been accepted and the queues are full; and to see what is then."""

_PGBENCH_WARM_UP_S = 1  # pgbench knows whole seconds only
_FILES_SPARE = 500  # what a process opens beside connections
_BESIDE_S = 2.0
"""How much longer a busy ledger is kept busy than the quiet one beside it is measured."""

_PGBENCH = {Contender.PGBENCH_STATEMENTS: "statements", Contender.PGBENCH_FUNCTION: "function"}


def job(tenant: Tenant, cell: Cell, port: int, seconds: float) -> Job:
    """Say what a client is to do for a cell, as fast as it can."""
    return Job(
        port=port,
        connections=cell.concurrency,
        warm_up_s=WARM_UP_S,
        seconds=seconds,
        api_key=tenant.api_key,
        accounts_file=str(tenant.accounts_file),
        hot=cell.workload is Workload.HOT,
        run=secrets.token_hex(8),
    )


class Round:
    """One round: `servers` are those of PicoPay by the number of their processes."""

    def __init__(
        self,
        number: int,
        ground: Ground,
        pgbench: Pgbench,
        servers: Mapping[int, Server],
        noop: Server,
        seconds: int,
    ) -> None:
        self._number = number
        self._ground = ground
        self._pgbench = pgbench
        self._servers = servers
        self._noop = noop
        self._seconds = seconds
        self.tally = Tally()

    def warm_up(self, clients: int) -> None:
        """Fill the caches of the database and of the servers."""
        for server in self._servers.values():
            introduce_accounts(server, self._ground.busy)
        self._pgbench.run("uniform", "statements", clients, _PGBENCH_WARM_UP_S)

    def measure(self, cell: Cell, peak_per_s: float = 0) -> Measurement:
        """Measure a cell."""
        with ExitStack() as stack:
            if cell.commit_delay_ms:
                stack.enter_context(self._ground.slow_commits(cell.commit_delay_ms))
            count, figures = self._measure(cell, peak_per_s)
        return Measurement(round=self._number, cell=cell, count=count, figures=figures)

    def _measure(self, cell: Cell, peak_per_s: float) -> tuple[int, Figures]:
        if cell.contender in _PGBENCH:
            payment = _PGBENCH[cell.contender]
            return self._pgbench.run(cell.workload.value, payment, cell.concurrency, self._seconds)
        if cell.contender is Contender.NOOP:
            asked = job(self._ground.busy, cell, self._noop.port, self._seconds)
            report, figures = load.ask(asked, self._noop.pids, None)
            return report.count, figures
        if cell.beside:
            return self._measure_beside(cell)
        server = self._servers[cell.workers]
        tenant = self._ground.quiet if plan.is_quiet(cell) else self._ground.busy
        asked = job(tenant, cell, server.port, self._seconds)
        if cell.offered:
            asked = msgspec.structs.replace(asked, per_s=cell.offered * peak_per_s)
        if cell.offered > 1:
            asked = msgspec.structs.replace(
                asked,
                refusals_expected=True,
                warm_up_s=_OVERLOAD_WARM_UP_S,
                seconds=max(_OVERLOAD_S, asked.seconds),
            )
        report, figures = load.ask(asked, server.pids, self._ground.postgres.pid)
        self.tally.add(report)
        return report.count, figures

    def _measure_beside(self, cell: Cell) -> tuple[int, Figures]:
        """Measure the quiet ledger while the other one is asked as fast as can be."""
        server = self._servers[cell.workers]
        others = msgspec.structs.replace(cell, concurrency=cell.beside)
        asked = job(self._ground.busy, others, server.port, self._seconds + _BESIDE_S)
        with load.asking(asked) as busy:
            busy.expect("measuring")
            asked = job(self._ground.quiet, cell, server.port, self._seconds)
            report, figures = load.ask(asked, server.pids, self._ground.postgres.pid)
            busy.expect("measured")
            beside = busy.report()
        self.tally.add(report)
        self.tally.add(beside)
        beside_per_s = beside.count / beside.seconds
        # What the processes have used was for the payments of both.
        return report.count, msgspec.structs.replace(
            figures, beside_per_s=beside_per_s, server_cpu_ms=None, database_cpu_ms=None
        )


def run(
    planned: Plan, ground: Ground, work: Path, tell: Tell, note: Callable[[Measurement], None]
) -> None:
    """Run all rounds; `note` is told each measurement as it is made.

    Raises:
        BenchmarkError: an answer was not as expected, a payment of pgbench failed, or the ledger is not
            sound.
    """
    log = work / "servers.log"
    with serving_noop(log) as noop:
        for number in range(1, planned.rounds + 1):
            with ground.database() as database, ExitStack() as stack:
                pgbench = Pgbench(
                    ground.programs, database, ground.postgres.pid, planned.accounts, work
                )
                servers = {
                    workers: stack.enter_context(serving_picopay(database, log, workers))
                    for workers in (1, 2)
                }
                one = Round(number, ground, pgbench, servers, noop, planned.seconds)
                tell(f"round {number} of {planned.rounds}: warming up")
                one.warm_up(min(planned.clients))
                _go_round(one, planned, backwards=number % 2 == 0, note=note)
                stack.close()  # the servers end before their payments are counted
                tell(
                    f"round {number} of {planned.rounds}: auditing {one.tally.acknowledged:,} payments"
                )
                asyncio.run(check(database, one.tally))


def _go_round(
    one: Round, planned: Plan, *, backwards: bool, note: Callable[[Measurement], None]
) -> None:
    order = list(plan.closed_loop(planned))
    peak_per_s = 0.0
    for cell in reversed(order) if backwards else order:
        measurement = one.measure(cell)
        note(measurement)
        if _can_be_peak(cell):
            peak_per_s = max(peak_per_s, measurement.figures.per_s)
    for cell in plan.open_loop(allow_many_files() - _FILES_SPARE):
        note(one.measure(cell, peak_per_s))


def _can_be_peak(cell: Cell) -> bool:
    """Tell whether a cell is what open loops are parts of: on the hot account, like them."""
    return cell == Cell(Contender.PICOPAY, Workload.HOT, cell.concurrency)


def cold_starts(times: int, ground: Ground, work: Path, tell: Tell) -> list[float]:
    """Start a server several times on a fresh database; return the seconds each took to be ready."""
    with ground.database() as database:
        taken_s = [cold_start_s(database, work / "servers.log") for _ in range(times)]
    tell(f"cold start: {', '.join(f'{one:.2f}' for one in taken_s)} s")
    return taken_s
