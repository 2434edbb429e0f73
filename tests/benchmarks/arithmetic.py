"""What is made of measurements: percentiles, medians, quotients within a round. Pure.

Used by everything here that measures or reports. A machine that others use, too, is faster in one minute
than in the next. So two figures are only ever divided when they were measured in the same round, and
what is reported is the median of those quotients.
"""

import math
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from enum import StrEnum

import msgspec


class Contender(StrEnum):
    """What is measured."""

    PGBENCH_STATEMENTS = "pgbench_statements"
    PGBENCH_FUNCTION = "pgbench_function"
    PICOPAY = "picopay"
    NOOP = "noop"


class Workload(StrEnum):
    """Between which accounts payments go."""

    UNIFORM = "uniform"
    HOT = "hot"


class Cell(msgspec.Struct, frozen=True, omit_defaults=True):
    """One thing that is measured once in every round.

    `concurrency` counts connections of an HTTP server, sessions of a database; `workers` its processes.
    `offered` is a constant rate of arrivals as a part of the peak; 0: each connection asks again as soon as
    it has its answer. `beside` counts the connections of another ledger that is busy meanwhile,
    `commit_delay_ms` is what each commit is slowed by, `history` the payments that were there before.
    """

    contender: Contender
    workload: Workload
    concurrency: int
    workers: int = 1
    offered: float = 0
    beside: int = 0
    commit_delay_ms: int = 0
    history: int = 0


class Figures(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a measurement came to; None is what does not apply, or what its tool does not tell.

    `per_s` counts payments that were made (answers 201). CPU time is that of one of them: of the server's
    processes, of all of PostgreSQL's, and of the client that asked. `refused` is the part of all answers
    that was 503, `unsent` the part of all arrivals for which no connection became free; memory is that of
    the largest server process, before, at its largest, and afterwards.
    """

    per_s: float
    average_ms: float
    p50_ms: float | None = None
    p99_ms: float | None = None
    max_ms: float | None = None
    server_cpu_ms: float | None = None
    database_cpu_ms: float | None = None
    client_cpu_ms: float | None = None
    offered_per_s: float | None = None
    refused: float | None = None
    unsent: float | None = None
    beside_per_s: float | None = None
    memory_before_mb: float | None = None
    memory_peak_mb: float | None = None
    memory_after_mb: float | None = None


class Measurement(msgspec.Struct, frozen=True, kw_only=True):
    """One cell in one round; rounds are numbered from 1."""

    round: int
    cell: Cell
    count: int
    figures: Figures


class Spread(msgspec.Struct, frozen=True):
    """A value of several rounds: the median, and how far the rounds lay apart."""

    median: float
    lowest: float
    highest: float


type Quantity = Callable[[Figures], float | None]
type Medians = Mapping[Cell, Figures]


def percentile(ascending: Sequence[float], fraction: float) -> float:
    """Return the smallest value that at least `fraction` of the values do not exceed."""
    if not ascending or not 0 < fraction <= 1:
        raise ValueError("a percentile is of at least one value, and of a part of them")
    return ascending[math.ceil(fraction * len(ascending)) - 1]


def per_s(figures: Figures) -> float:
    """Return payments (requests) per second."""
    return figures.per_s


def average_ms(figures: Figures) -> float:
    """Return the average latency."""
    return figures.average_ms


def p99_ms(figures: Figures) -> float | None:
    """Return the latency that one request in a hundred exceeds."""
    return figures.p99_ms


def cpu_ms(figures: Figures) -> float:
    """Return the CPU time that server and database spend on one payment (request)."""
    return (figures.server_cpu_ms or 0) + (figures.database_cpu_ms or 0)


def spread(values: Sequence[float]) -> Spread:
    """Return the median of values, of which there is at least one, and their extremes."""
    return Spread(statistics.median(values), min(values), max(values))


def medians(measurements: Iterable[Measurement]) -> dict[Cell, Figures]:
    """Return the median of each figure over the rounds, cell by cell, in order of appearance."""
    by_cell: dict[Cell, list[Figures]] = {}
    for measurement in measurements:
        by_cell.setdefault(measurement.cell, []).append(measurement.figures)
    return {cell: _median_figures(rounds) for cell, rounds in by_cell.items()}


def _median_figures(rounds: Sequence[Figures]) -> Figures:
    def median(name: str) -> float | None:
        values = [value for one in rounds if (value := getattr(one, name)) is not None]
        return statistics.median(values) if values else None

    return msgspec.convert({name: median(name) for name in Figures.__struct_fields__}, Figures)


def best_cell(
    figures: Medians,
    contender: Contender,
    workload: Workload,
    *,
    workers: int = 1,
    commit_delay_ms: int = 0,
) -> Cell | None:
    """Return the number of connections at which a contender does most per second, if it was measured.

    Only cells count in which every connection asks as often as it can, and nobody else does.
    """
    base = Cell(contender, workload, 0, workers=workers, commit_delay_ms=commit_delay_ms)
    cells = [
        cell
        for cell in figures
        if msgspec.structs.replace(base, concurrency=cell.concurrency) == cell
    ]
    return max(cells, key=lambda cell: figures[cell].per_s, default=None)


def quotient(
    measurements: Iterable[Measurement],
    above: Cell,
    below: Cell,
    of: Quantity = per_s,
    by: Quantity | None = None,
) -> Spread | None:
    """Divide a quantity of one cell by one of another (the same, unless `by` says), round by round.

    None when there is no round in which both were measured.
    """
    rounds: dict[int, dict[Cell, Figures]] = {}
    for one in measurements:
        rounds.setdefault(one.round, {})[one.cell] = one.figures
    quotients = []
    for figures in rounds.values():
        if above in figures and below in figures:
            dividend, divisor = of(figures[above]), (by or of)(figures[below])
            if dividend is not None and divisor:
                quotients.append(dividend / divisor)
    return spread(quotients) if quotients else None
