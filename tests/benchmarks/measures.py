"""What a benchmark measures beside its goals, and a run of it as a table and as a page. Pure, but for files.

Used by `operator_results.py` and `cluster_results.py`: each has a table of measures, by whose names a run
keeps its values.
"""

import argparse
import statistics
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import NamedTuple, Self

import msgspec

from benchmarks.tables import Value, markdown

COLUMNS = ("", "unit", "at most", "median", "lowest", "highest", "reached")


class Measure(NamedTuple):
    """What is measured, and what it is to be at most."""

    what: str
    unit: str
    at_most: float | None = None


class Run(msgspec.Struct, frozen=True, kw_only=True):
    """One run; `values` are by the names of measures."""

    began_at: datetime
    took_s: float
    values: dict[str, list[float]]

    def write(self, file: Path) -> None:
        """Keep it."""
        file.write_bytes(msgspec.json.format(msgspec.json.encode(self)) + b"\n")

    @classmethod
    def read(cls, file: Path) -> Self:
        """Read one back."""
        return msgspec.json.decode(file.read_bytes(), type=cls)


def rows(measures: Mapping[str, Measure], run: Run) -> list[tuple[Value, ...]]:
    """Return a line for each measure of which there are values: the median is what is judged."""
    found: list[tuple[Value, ...]] = []
    for name, measure in measures.items():
        values = run.values.get(name)
        if not values:
            continue
        median = statistics.median(values)
        goal, reached = "", ""
        if measure.at_most is not None:
            goal, reached = f"{measure.at_most:g}", "yes" if median <= measure.at_most else "no"
        spread = median, min(values), max(values)
        found.append((measure.what, measure.unit, goal, *map(float, spread), reached))
    return found


def page(run: Run, made_by: str, told: str, heading: str, lines: list[tuple[Value, ...]]) -> str:
    """Return a run as a page of Markdown; `told` begins with the page's title."""
    parts = (
        f"<!-- Written by tests/benchmarks/{made_by}: do not edit. -->",
        told,
        f"## Measured {run.began_at:%d %B %Y, %H:%M} UTC",
        heading,
        markdown(COLUMNS, lines),
    )
    return "\n\n".join(parts) + "\n"


def write_page(content: str, file: Path) -> Path:
    """Write a page, whose folder need not be there; return the file."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(content, encoding="utf-8")
    return file


def pages(
    program: str, what: str | None, arguments: Sequence[str], write: Callable[[Path, Path], Path]
) -> int:
    """Be a program that reads a file of results and has `write` put its page into a folder."""
    parser = argparse.ArgumentParser(prog=f"tests/benchmarks/{program}", description=what)
    parser.add_argument("result", type=Path, metavar="RESULT.json")
    parser.add_argument("--into", type=Path, required=True, metavar="FOLDER")
    given = parser.parse_args(arguments)
    print(write(given.result, given.into))
    return 0
