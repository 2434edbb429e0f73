"""`make bench`: measures PicoPay beside pgbench and a server that does nothing, in one run.

Called by `run.py`. Reads the options, runs the rounds, prints a table and writes all there is to a file of
JSON. It judges nothing: how fast a machine is, is no reason for a test to fail.
"""

import argparse
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

import msgspec

from benchmarks import machine, rounds
from benchmarks.arithmetic import (
    Cell,
    Contender,
    Figures,
    Measurement,
    Ratio,
    medians,
    ratios,
    table,
)
from benchmarks.ground import Ground
from benchmarks.machine import Machine
from benchmarks.rounds import Plan
from benchmarks.servers import CHECKOUT, BenchmarkError
from picopay_api.cli.lifetime import interrupt_on_stop, survive_repeated_signals
from picopay_api.embedded import EmbeddedError

RESULTS = CHECKOUT / ".cache" / "bench"


class Size(NamedTuple):
    """How often and how long everything is measured, unless it is said."""

    rounds: int
    seconds: int


_QUICK = Size(rounds=3, seconds=2)
_FULL = Size(rounds=5, seconds=8)
_SHOWN = {
    Contender.PGBENCH_STATEMENTS: "pgbench, 7 statements",
    Contender.PICOPAY: "PicoPay over HTTP",
    Contender.NOOP: "no-op over HTTP",
}


class Median(msgspec.Struct, frozen=True, kw_only=True):
    """The medians of a cell over all rounds."""

    cell: Cell
    figures: Figures


class Result(msgspec.Struct, frozen=True, kw_only=True):
    """What is written to the file."""

    began_at: datetime
    took_s: float
    machine: Machine
    plan: Plan
    medians: list[Median]
    ratios: list[Ratio]
    measurements: list[Measurement]


def read_options(arguments: Sequence[str]) -> tuple[Plan, Path | None]:
    """Read the command line; return what to measure, and the file that was asked for."""
    parser = argparse.ArgumentParser(
        prog="tests/benchmarks/run.py",
        description="Measure PicoPay beside pgbench and a server that does nothing, in one run.",
        epilog='With make: make bench ARGS="--full --output result.json"',
    )
    length = parser.add_mutually_exclusive_group()
    for name, size, text in (
        ("--quick", _QUICK, "three rounds of two seconds, about two minutes in all (the default)"),
        ("--full", _FULL, "five rounds of eight seconds, about a quarter of an hour"),
    ):
        length.add_argument(name, dest="size", action="store_const", const=size, help=text)
    add = parser.add_argument
    add("--rounds", type=_number_from(1), help="how often everything is measured")
    add("--seconds", type=_number_from(1), help="how long each measurement takes")
    for name, counts, text in (
        ("--connections", (16, 64, 256), "connections over HTTP (default: 16,64,256)"),
        ("--clients", (4, 16, 64), "sessions of pgbench; its best counts (default: 4,16,64)"),
    ):
        add(name, type=_numbers, default=counts, metavar="N,N,…", help=text)
    accounts = "accounts that pay each other (default: 100000)"
    add("--accounts", type=_number_from(2), default=100_000, help=accounts)
    add("--output", type=Path, help="the file of JSON (default: one in .cache/bench/)")
    given = parser.parse_args(arguments)
    size = given.size or _QUICK
    plan = Plan(
        rounds=given.rounds or size.rounds,
        seconds=given.seconds or size.seconds,
        clients=given.clients,
        connections=given.connections,
        accounts=given.accounts,
    )
    return plan, given.output


def _number_from(minimum: int) -> Callable[[str], int]:
    def read(text: str) -> int:
        if not text.isdecimal() or int(text) < minimum:
            raise argparse.ArgumentTypeError(f"{text!r} is not a number from {minimum} on")
        return int(text)

    return read


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(sorted({_number_from(1)(part) for part in text.split(",")}))


def measure(plan: Plan, work: Path) -> Result:
    """Measure everything; say on stderr how far it is."""
    began_at, began_s = datetime.now(UTC), time.monotonic()
    measurements: list[Measurement] = []

    def note(measurement: Measurement) -> None:
        measurements.append(measurement)
        cell = measurement.cell
        _tell(
            f"  {_SHOWN[cell.contender]}, {cell.workload}, {cell.concurrency}:"
            f" {measurement.figures.per_s:,.0f}/s"
        )

    with Ground.prepared(work / "server", plan.accounts, _tell) as ground:
        described = machine.describe(work, ground.version)
        rounds.run(plan, ground, work, _tell, note)
    return Result(
        began_at=began_at,
        took_s=round(time.monotonic() - began_s, 1),
        machine=described,
        plan=plan,
        medians=[
            Median(cell=cell, figures=figures) for cell, figures in medians(measurements).items()
        ],
        ratios=ratios(measurements),
        measurements=measurements,
    )


def show(result: Result) -> str:
    """Return the result as tables for a terminal."""
    ordered = sorted(
        result.medians, key=lambda one: list(Contender).index(one.cell.contender)
    )  # within a contender as measured
    names = (
        *("", "accounts", "at once", "per s", "avg ms", "p50 ms", "p99 ms"),
        *("server CPU ms", "database CPU ms", "client CPU ms"),
    )
    rows = [
        (
            _SHOWN[one.cell.contender],
            one.cell.workload.value,
            one.cell.concurrency,
            *msgspec.structs.astuple(one.figures),
        )
        for one in ordered
    ]
    quotients = [(one.name, one.median, one.lowest, one.highest) for one in result.ratios]
    on = result.machine
    heading = (
        f"{on.cpus} CPUs, Python {on.python}, PostgreSQL {on.postgresql}, fsync {on.fsync_ms:.2f} ms,"
        f" load before {on.load_before:g}\nMedians of {result.plan.rounds} times"
        f" {result.plan.seconds} s, between {result.plan.accounts:,} accounts"
    )
    return "\n\n".join(
        [
            heading,
            table(names, rows),
            table(("within a round", "median", "lowest", "highest"), quotients),
        ]
    )


def main(arguments: Sequence[str]) -> int:
    """Run the benchmark; return the exit code."""
    plan, output = read_options(arguments)
    interrupt_on_stop()
    RESULTS.mkdir(parents=True, exist_ok=True)
    # Beside the results, not in the system's temporary directory, which may be no disk at all.
    work = Path(tempfile.mkdtemp(prefix="data-", dir=RESULTS))
    try:
        result = measure(plan, work)
    except (BenchmarkError, EmbeddedError) as error:
        _tell(f"error: {error}")
        return 1
    except KeyboardInterrupt:
        _tell("stopped")
        return 130
    finally:
        survive_repeated_signals()
        shutil.rmtree(work, ignore_errors=True)
    output = output or RESULTS / f"{result.began_at:%Y%m%dT%H%M%SZ}.json"
    output.write_bytes(msgspec.json.format(msgspec.json.encode(result)) + b"\n")
    print(f"{show(result)}\n\nAll of it is in {output}")
    return 0


def _tell(text: str) -> None:
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()
