"""What is made of measurements: percentiles, medians, ratios within a round, tables. Pure.

Used by `command.py` and, for latencies, by `client.py`. A machine that others use, too, is faster in one
minute than in the next. So two figures are only ever divided when they were measured in the same
round, and what is reported is the median of those quotients.
"""

import math
import statistics
from collections.abc import Callable, Iterable, Sequence
from enum import StrEnum

import msgspec


class Contender(StrEnum):
    """What is measured."""

    PGBENCH_STATEMENTS = "pgbench_statements"
    PICOPAY = "picopay"
    NOOP = "noop"


class Workload(StrEnum):
    """Between which accounts payments go."""

    UNIFORM = "uniform"
    HOT = "hot"


class Cell(msgspec.Struct, frozen=True):
    """One thing that is measured once in every round.

    `concurrency` counts connections of an HTTP server, sessions of a database.
    """

    contender: Contender
    workload: Workload
    concurrency: int


class Figures(msgspec.Struct, frozen=True, kw_only=True):
    """What a measurement came to; None is what its tool does not tell.

    CPU time is that of one payment (of one request): of the server's processes, of all of PostgreSQL's,
    and of the client that asked.
    """

    per_s: float
    average_ms: float
    p50_ms: float | None = None
    p99_ms: float | None = None
    server_cpu_ms: float | None = None
    database_cpu_ms: float | None = None
    client_cpu_ms: float | None = None


class Measurement(msgspec.Struct, frozen=True, kw_only=True):
    """One cell in one round; rounds are numbered from 1."""

    round: int
    cell: Cell
    count: int
    figures: Figures


class Ratio(msgspec.Struct, frozen=True, kw_only=True):
    """A quotient of two cells: the median over the rounds, and how far the rounds lay apart."""

    name: str
    median: float
    lowest: float
    highest: float


Quantity = Callable[[Figures], float]


def percentile(ascending: Sequence[float], fraction: float) -> float:
    """Return the smallest value that at least `fraction` of the values do not exceed."""
    if not ascending or not 0 < fraction <= 1:
        raise ValueError("a percentile is of at least one value, and of a part of them")
    return ascending[math.ceil(fraction * len(ascending)) - 1]


def per_s(figures: Figures) -> float:
    """Return payments (requests) per second."""
    return figures.per_s


def cpu_ms(figures: Figures) -> float:
    """Return the CPU time that server and database spend on one payment (request)."""
    return (figures.server_cpu_ms or 0) + (figures.database_cpu_ms or 0)


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


def best_cell(figures: dict[Cell, Figures], contender: Contender, workload: Workload) -> Cell:
    """Return the number of connections at which a contender does most per second."""
    cells = [c for c in figures if (c.contender, c.workload) == (contender, workload)]
    return max(cells, key=lambda cell: figures[cell].per_s)


def largest_cell(figures: dict[Cell, Figures], contender: Contender, workload: Workload) -> Cell:
    """Return the cell of a contender with the most connections."""
    cells = [c for c in figures if (c.contender, c.workload) == (contender, workload)]
    return max(cells, key=lambda cell: cell.concurrency)


def ratio(
    name: str, measurements: Iterable[Measurement], above: Cell, below: Cell, of: Quantity = per_s
) -> Ratio:
    """Divide two cells, round by round."""
    values = {(one.cell, one.round): of(one.figures) for one in measurements}
    quotients = [
        values[above, number] / values[below, number] for cell, number in values if cell == above
    ]
    return Ratio(
        name=name,
        median=statistics.median(quotients),
        lowest=min(quotients),
        highest=max(quotients),
    )


def ratios(measurements: Sequence[Measurement]) -> list[Ratio]:
    """Compare PicoPay at its most connections with pgbench at its best and with the no-op."""
    figures = medians(measurements)
    uniform = largest_cell(figures, Contender.PICOPAY, Workload.UNIFORM)
    hot = largest_cell(figures, Contender.PICOPAY, Workload.HOT)
    noop = largest_cell(figures, Contender.NOOP, Workload.UNIFORM)
    statements, hot_statements = (
        best_cell(figures, Contender.PGBENCH_STATEMENTS, workload)
        for workload in (Workload.UNIFORM, Workload.HOT)
    )
    return [
        ratio("PicoPay / pgbench at its best, uniform", measurements, uniform, statements),
        ratio("PicoPay / pgbench at its best, hot", measurements, hot, hot_statements),
        ratio("PicoPay hot / PicoPay uniform", measurements, hot, uniform),
        ratio("PicoPay uniform / no-op", measurements, uniform, noop),
        ratio("CPU of PicoPay uniform / CPU of no-op", measurements, uniform, noop, cpu_ms),
    ]


def table(columns: Sequence[str], rows: Iterable[Sequence[str | float | None]]) -> str:
    """Lay out a table for a terminal: texts to the left, numbers to the right."""
    body = [tuple(_shown(value) for value in row) for row in rows]
    lines = [tuple(columns), *(tuple(text for text, _ in row) for row in body)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    numeric = [any(number for _, number in column) for column in zip(*body, strict=True)]
    numeric = numeric or [False] * len(widths)
    return "\n".join(
        "  ".join(
            text.rjust(width) if right else text.ljust(width)
            for text, width, right in zip(line, widths, numeric, strict=True)
        ).rstrip()
        for line in lines
    )


def _shown(value: str | float | None) -> tuple[str, bool]:
    """Return a value as text, and whether it is a number: about three digits of it are shown."""
    if value is None:
        return "-", False
    if isinstance(value, str):
        return value, False
    if isinstance(value, int) or abs(value) >= 100:
        return f"{value:,.0f}", True
    return f"{value:.{2 if abs(value) >= 1 else 3}f}", True
