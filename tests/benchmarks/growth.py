"""Does a payment cost more when there are many already? A ledger that was filled beside an empty one.

Used by `command.py`. Both are databases of one server, each with a PicoPay server of its own, and are asked
in turns; the empty one is made anew for every round.
"""

import asyncio
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path

from benchmarks import load
from benchmarks.arithmetic import Cell, Contender, Measurement, Workload
from benchmarks.fill import HASTY, fill
from benchmarks.ground import Ground, Tell, introduce_accounts
from benchmarks.history import History
from benchmarks.plan import CONNECTIONS, Plan
from benchmarks.results import Filling
from benchmarks.rounds import job
from benchmarks.servers import Server, serving_picopay
from benchmarks.soundness import Tally, check
from picopay_api.database_url import DatabaseUrl

_WARM_UP_S = (20.0, 3.0)
"""How long each ledger is paid in before it is measured: in the first round, in the others."""

_ENDED_BEFORE = timedelta(hours=1)


def run(
    planned: Plan,
    sizes: Sequence[int],
    ground: Ground,
    work: Path,
    tell: Tell,
    note: Callable[[Measurement], None],
) -> list[Filling]:
    """Fill and compare, one size after the other.

    Raises:
        BenchmarkError: an answer was not 201, or a ledger is not sound.
    """
    fillings = []
    for place, size in enumerate(sizes):
        history = History.of(size, planned.accounts, datetime.now(UTC) - _ENDED_BEFORE)
        with ExitStack() as stack:
            with ground.hasty(HASTY, tell):
                grown = stack.enter_context(ground.database("grown"))
                tell(f"filling in {history.rows:,} payments")
                fillings.append(asyncio.run(fill(grown, ground.busy, history, tell)))
            grown = ground.postgres.owner_url_of("grown")  # the server was started anew
            tell(f"  {fillings[-1].per_s:,.0f} payments/s, {fillings[-1].database_mb:,.0f} MB")
            tally = Tally(history.rows)
            asyncio.run(check(grown, tally))
            for number in range(1, planned.rounds + 1):
                tell(f"round {number} of {planned.rounds}")
                one = _Round(place * planned.rounds + number, ground, size, planned.seconds)
                one.run(grown, tally, work, note, first=number == 1)
            tell(f"checking {tally.acknowledged:,} payments")
            asyncio.run(check(grown, tally))
    return fillings


class _Round:
    def __init__(self, number: int, ground: Ground, size: int, seconds: int) -> None:
        self._number = number
        self._ground = ground
        self._size = size
        self._seconds = seconds

    def run(
        self,
        grown: DatabaseUrl,
        tally: Tally,
        work: Path,
        note: Callable[[Measurement], None],
        *,
        first: bool,
    ) -> None:
        """Measure both ledgers; `tally` is of the one that was filled."""
        log = work / "servers.log"
        with self._ground.database() as empty, ExitStack() as stack:
            tallies = {self._size: tally, 0: Tally()}
            servers = {
                history: stack.enter_context(serving_picopay(url, log))
                for history, url in ((self._size, grown), (0, empty))
            }
            for history, server in servers.items():
                introduce_accounts(server, self._ground.busy)
                self._ask(
                    Cell(Contender.PICOPAY, Workload.UNIFORM, CONNECTIONS, history=history),
                    server,
                    tallies[history],
                    _WARM_UP_S[0 if first else 1],
                )
            cells = [
                Cell(Contender.PICOPAY, workload, CONNECTIONS, history=history)
                for workload in Workload
                for history in servers
            ]
            for cell in cells if self._number % 2 else reversed(cells):
                note(self._ask(cell, servers[cell.history], tallies[cell.history], self._seconds))
            stack.close()
            asyncio.run(check(empty, tallies[0]))

    def _ask(self, cell: Cell, server: Server, tally: Tally, seconds: float) -> Measurement:
        asked = job(self._ground.busy, cell, server.port, seconds)
        report, figures = load.ask(asked, server.pids, self._ground.postgres.pid)
        tally.add(report)
        return Measurement(round=self._number, cell=cell, count=report.count, figures=figures)
