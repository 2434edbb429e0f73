"""What was measured, told: for a terminal, and as pages and pictures for the documentation.

Used by `command.py`, and run by itself with the files of one or several runs: `python
tests/benchmarks/report.py --into FOLDER RESULT.json …` writes a table of the goals and the plots into
a folder. Of what several files have, the last one counts.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

if __name__ == "__main__":  # as in run.py
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import msgspec

from benchmarks import plots
from benchmarks.arithmetic import Cell, Contender, Figures, medians
from benchmarks.goals import Verdict, verdicts
from benchmarks.results import Result
from benchmarks.tables import Value, markdown, shown, table

PAGE = "measured.md"

SHOWN = {
    Contender.PGBENCH_STATEMENTS: "pgbench, 7 statements",
    Contender.PGBENCH_FUNCTION: "pgbench, one function call",
    Contender.PICOPAY: "PicoPay over HTTP",
    Contender.NOOP: "no-op over HTTP",
}

_GOALS = ("goal", "", "", "median", "lowest", "highest", "reached", "by")
_CELLS = (
    *("", "accounts", "at once", "per s", "avg ms", "p50 ms", "p99 ms", "max ms"),
    *("server CPU ms", "database CPU ms", "client CPU ms"),
)
_OPEN = (
    *("offered", "at once", "offered per s", "paid per s", "503", "unsent", "p50 ms", "p99 ms"),
    *("max ms", "MB before", "MB peak", "MB after"),
)
_SOAK = (
    *("minute", "per s", "p50 ms", "p99 ms", "max ms", "MB", "MB peak"),
    *("balance MB", "balance dead rows"),
)


def name_of(cell: Cell) -> str:
    """Name a cell but for its workload and concurrency."""
    name = SHOWN[cell.contender]
    if cell.workers > 1:
        name += f", {cell.workers} workers"
    if cell.commit_delay_ms:
        name += f", commits {cell.commit_delay_ms} ms slower"
    if cell.offered:
        name += f", {cell.offered:.0%} of the peak"
    if cell.beside:
        name += f", beside {cell.beside} of another ledger"
    if cell.history:
        name += f", after {cell.history:,} payments"
    return name


def _heading(result: Result) -> str:
    on, plan = result.machine, result.plan
    made_on = (
        f"{on.cpus} CPUs, Python {on.python}, PostgreSQL {on.postgresql}, fsync {on.fsync_ms:.2f} ms,"
        f" load before {on.load_before:g}, {plan.accounts:,} accounts"
    )
    lines = [made_on]
    if result.measurements:
        lines.append(f"Medians of {plan.rounds} rounds, {plan.seconds} s for each measurement")
    return "\n".join(lines)


def goal_rows(found: Sequence[Verdict]) -> list[tuple[Value, ...]]:
    """Return the rows of the table of goals."""
    rows: list[tuple[Value, ...]] = []
    for one in found:
        measured = one.measured
        values = (None,) * 3 if measured is None else msgspec.structs.astuple(measured)
        reached = "not measured" if one.reached is None else "yes" if one.reached else "no"
        by = "" if one.by is None else f"{one.by:+.0%}"
        goal = f"{shown(one.goal)} {one.unit}".strip()
        rows.append((one.what, one.bound.value, goal, *values, reached, by))
    return rows


def _closed_rows(figures: dict[Cell, Figures]) -> list[tuple[Value, ...]]:
    ordered = sorted(
        (cell for cell in figures if not cell.offered),
        key=lambda cell: list(Contender).index(cell.contender),
    )  # within a contender as measured
    return [
        (
            name_of(cell),
            cell.workload.value,
            cell.concurrency,
            *(
                getattr(figures[cell], name)
                for name in (
                    *("per_s", "average_ms", "p50_ms", "p99_ms", "max_ms"),
                    *("server_cpu_ms", "database_cpu_ms", "client_cpu_ms"),
                )
            ),
        )
        for cell in ordered
    ]


def _open_rows(figures: dict[Cell, Figures]) -> list[tuple[Value, ...]]:
    return [
        (
            f"{cell.offered:.0%} of the peak",
            cell.concurrency,
            one.offered_per_s,
            one.per_s,
            f"{one.refused or 0:.1%}",
            f"{one.unsent or 0:.1%}",
            *(one.p50_ms, one.p99_ms, one.max_ms),
            *(one.memory_before_mb, one.memory_peak_mb, one.memory_after_mb),
        )
        for cell, one in figures.items()
        if cell.offered
    ]


def _tables(result: Result) -> list[tuple[Sequence[str], list[tuple[Value, ...]]]]:
    figures = medians(result.measurements)
    found: list[tuple[Sequence[str], list[tuple[Value, ...]]]] = [
        (_CELLS, _closed_rows(figures)),
        (_OPEN, _open_rows(figures)),
    ]
    if result.soak:
        found.append(
            (
                _SOAK,
                [
                    (number, *msgspec.structs.astuple(minute))
                    for number, minute in enumerate(result.soak.minutes, 1)
                ],
            )
        )
    if result.fillings:
        steps = list(result.fillings[0].steps_s)
        found.append(
            (
                ("filled in", "per s", "MB", *(f"{step} s" for step in steps)),
                [
                    (one.rows, one.per_s, one.database_mb, *(one.steps_s[step] for step in steps))
                    for one in result.fillings
                ],
            )
        )
    return [(names, rows) for names, rows in found if rows]


def text(result: Result) -> str:
    """Return a run as tables for a terminal."""
    parts = [table(names, rows) for names, rows in _tables(result)]
    judged = [one for one in verdicts([result]) if one.measured]
    return "\n\n".join([_heading(result), *parts, table(_GOALS, goal_rows(judged))])


def page(results: Sequence[Result]) -> str:
    """Return runs as a page of Markdown."""
    parts = [
        "<!-- Written by tests/benchmarks/report.py: do not edit. -->",
        "# What was measured",
        "## Goals",
        markdown(_GOALS, goal_rows(verdicts(results))),
    ]
    for result in results:
        parts += [
            f"## Measured {result.began_at:%d %B %Y, %H:%M} UTC",
            _heading(result).replace("\n", ". ") + ".",
        ]
        parts += [markdown(names, rows) for names, rows in _tables(result)]
    return "\n\n".join(parts) + "\n"


def write(results: Sequence[Result], folder: Path) -> list[Path]:
    """Write the page and the plots into a folder; return the files."""
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / PAGE
    file.write_text(page(results), encoding="utf-8")
    return [file, *plots.write(results, folder)]


def main(arguments: Sequence[str]) -> int:
    """Read files of results, write what they say."""
    parser = argparse.ArgumentParser(prog="tests/benchmarks/report.py", description=__doc__)
    parser.add_argument("results", type=Path, nargs="+", metavar="RESULT.json")
    parser.add_argument("--into", type=Path, required=True, metavar="FOLDER")
    given = parser.parse_args(arguments)
    for file in write([Result.read(one) for one in given.results], given.into):
        print(file)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
