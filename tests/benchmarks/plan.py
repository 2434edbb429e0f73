"""What a run measures, and in which order. Pure.

Made by `command.py`, followed by `rounds.py`. A round goes through the cells of a closed loop first, every
other round backwards, then offers PicoPay parts of the peak that it has just reached, and then more than
that, which comes last in every round because it may leave traces.
"""

from collections.abc import Iterator, Sequence

import msgspec

from benchmarks.arithmetic import Cell, Contender, Workload

CONNECTIONS = 256
"""The connections at which PicoPay is compared."""

OVERLOAD_CONNECTIONS = 12_000
"""More than a process lets wait (PICOPAY_QUEUE_COMMANDS_MAX), where the system allows so many."""

QUIET_CONNECTIONS = 4
COMMIT_DELAY_MS = 2
HALF_OF_PEAK = 0.5
OVERLOAD = 3.0
OFFERED = (HALF_OF_PEAK, 0.8)
"""Constant rates of arrivals, as parts of the peak."""


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """How much is measured: `paired_connections` are those at which two workers are."""

    rounds: int
    seconds: int
    clients: Sequence[int]
    connections: Sequence[int]
    paired_connections: Sequence[int]
    accounts: int
    cold_starts: int = 5


def closed_loop(plan: Plan) -> Iterator[Cell]:
    """Return the cells in which everybody asks as fast as they can, in the order of the odd rounds."""
    statements, function = Contender.PGBENCH_STATEMENTS, Contender.PGBENCH_FUNCTION
    connections = sorted({*plan.connections, CONNECTIONS})
    for workload in Workload:
        for clients in plan.clients:
            yield Cell(statements, workload, clients)
            yield Cell(function, workload, clients)
        for count in connections:
            yield Cell(Contender.PICOPAY, workload, count)
        for count in sorted({*plan.paired_connections, CONNECTIONS}):
            yield Cell(Contender.PICOPAY, workload, count, workers=2)
    for count in connections:
        yield Cell(Contender.NOOP, Workload.UNIFORM, count)  # the same for any account
    for clients in plan.clients:
        yield Cell(statements, Workload.HOT, clients, commit_delay_ms=COMMIT_DELAY_MS)
    yield Cell(Contender.PICOPAY, Workload.HOT, CONNECTIONS, commit_delay_ms=COMMIT_DELAY_MS)
    # A quiet ledger, by itself and beside a busy one.
    yield Cell(Contender.PICOPAY, Workload.UNIFORM, QUIET_CONNECTIONS)
    yield Cell(Contender.PICOPAY, Workload.UNIFORM, QUIET_CONNECTIONS, beside=CONNECTIONS)


def open_loop(connections_max: int) -> Iterator[Cell]:
    """Return the cells with a constant rate of arrivals, on the hot account; the overload is the last."""
    for offered in OFFERED:
        yield Cell(Contender.PICOPAY, Workload.HOT, CONNECTIONS, offered=offered)
    many = min(OVERLOAD_CONNECTIONS, connections_max)
    yield Cell(Contender.PICOPAY, Workload.HOT, many, offered=OVERLOAD)


def is_quiet(cell: Cell) -> bool:
    """Tell whether a cell is one of the quiet ledger."""
    return cell.contender is Contender.PICOPAY and cell.concurrency == QUIET_CONNECTIONS
