"""Rounds: everything is measured once, one after the other, on one fresh ledger, which is then audited.

Used by `command.py`. Contenders take turns within a round, and every other round goes backwards, so that
whatever else the machine does in the meantime befalls all of them.
"""

import asyncio
import itertools
import secrets
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import msgspec

from benchmarks import load
from benchmarks.arithmetic import Cell, Contender, Figures, Measurement, Workload
from benchmarks.client import Job
from benchmarks.ground import Ground, Tell, audit, introduce_accounts
from benchmarks.pgbench import Pgbench
from benchmarks.servers import Server, serving_noop, serving_picopay

WARM_UP_S = 0.3
"""How long an HTTP server is asked before it is measured."""

_PGBENCH_WARM_UP_S = 1  # pgbench knows whole seconds only


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """How much is measured."""

    rounds: int
    seconds: int
    clients: Sequence[int]
    connections: Sequence[int]
    accounts: int


def cells(plan: Plan) -> Iterator[Cell]:
    """Return what a round measures, in the order of the odd ones."""
    for workload in Workload:
        for clients, connections in itertools.zip_longest(plan.clients, plan.connections):
            if clients is not None:
                yield Cell(Contender.PGBENCH_STATEMENTS, workload, clients)
            if connections is not None:
                yield Cell(Contender.PICOPAY, workload, connections)
    # To do nothing is the same for any account; and it is compared at the most connections only.
    yield Cell(Contender.NOOP, Workload.UNIFORM, max(plan.connections))


class Round:
    """One round; `acknowledged` counts the payments that PicoPay has answered 201."""

    def __init__(self, plan: Plan, pgbench: Pgbench, ground: Ground, work: Path) -> None:
        self._plan = plan
        self._pgbench = pgbench
        self._ground = ground
        self._accounts_file = work / "accounts"
        self._accounts_file.write_text("\n".join(ground.accounts), encoding="ascii")
        self.acknowledged = 0

    def measure(self, cell: Cell, picopay: Server, noop: Server) -> tuple[int, Figures]:
        """Measure a cell; return how many payments (requests) that took, and what it came to."""
        if cell.contender is Contender.PGBENCH_STATEMENTS:
            return self._pgbench.run(
                cell.workload.value, "statements", cell.concurrency, self._plan.seconds
            )
        if cell.contender is Contender.NOOP:
            report, figures = load.ask(self._job(cell, noop), noop.pid, None)
        else:
            postgres = self._ground.postgres.pid
            report, figures = load.ask(self._job(cell, picopay), picopay.pid, postgres)
            self.acknowledged += sum(report.statuses.values())
        return report.count, figures

    def warm_up(self, picopay: Server) -> None:
        """Fill the caches of the database and of the server."""
        introduce_accounts(picopay, self._ground)
        self._pgbench.run("uniform", "statements", min(self._plan.clients), _PGBENCH_WARM_UP_S)

    def _job(self, cell: Cell, server: Server) -> Job:
        return Job(
            port=server.port,
            connections=cell.concurrency,
            warm_up_s=WARM_UP_S,
            seconds=self._plan.seconds,
            api_key=self._ground.api_key,
            accounts_file=str(self._accounts_file),
            hot=cell.workload is Workload.HOT,
            run=secrets.token_hex(8),
        )


def run(
    plan: Plan, ground: Ground, work: Path, tell: Tell, note: Callable[[Measurement], None]
) -> None:
    """Run all rounds; `note` is told each measurement as it is made.

    Raises:
        BenchmarkError: an answer was not 201, a payment of pgbench failed, or the ledger is not sound.
    """
    log = work / "servers.log"
    with serving_noop(log) as noop:
        for number in range(1, plan.rounds + 1):
            with ground.database() as database:
                pgbench = Pgbench(
                    ground.programs, database, ground.postgres.pid, plan.accounts, work
                )
                one = Round(plan, pgbench, ground, work)
                with serving_picopay(database, log) as picopay:
                    tell(f"round {number} of {plan.rounds}: warming up")
                    one.warm_up(picopay)
                    order = list(cells(plan))
                    for cell in order if number % 2 else reversed(order):
                        count, figures = one.measure(cell, picopay, noop)
                        note(Measurement(round=number, cell=cell, count=count, figures=figures))
                tell(f"round {number} of {plan.rounds}: auditing {one.acknowledged:,} payments")
                asyncio.run(audit(database, one.acknowledged))
