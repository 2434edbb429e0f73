"""`make bench`: measures PicoPay beside pgbench and a server that does nothing, in one run.

Called by `run.py`. Reads the options, runs what they ask for, prints tables and writes all there is to a
file of JSON, with plots beside it. It judges nothing: how fast a machine is, is no reason to fail.
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

from benchmarks import growth, machine, report, rounds, soak
from benchmarks.arithmetic import Measurement
from benchmarks.ground import Ground
from benchmarks.plan import Plan
from benchmarks.processes import allow_many_files
from benchmarks.results import Result
from benchmarks.servers import CHECKOUT, BenchmarkError
from picopay_api.cli.lifetime import interrupt_on_stop, survive_repeated_signals
from picopay_api.embedded import EmbeddedError

RESULTS = CHECKOUT / ".cache" / "bench"


class Size(NamedTuple):
    """How much is measured, unless it is said."""

    rounds: int
    seconds: int
    connections: tuple[int, ...]
    paired_connections: tuple[int, ...]


_QUICK = Size(rounds=1, seconds=1, connections=(16, 256), paired_connections=(256,))
_ALL = (1, 16, 64, 256, 1_024)
_FULL = Size(rounds=5, seconds=3, connections=_ALL, paired_connections=_ALL)


class Options(NamedTuple):
    """What was asked for: the normal run, unless one of the last three is given."""

    plan: Plan
    output: Path | None
    growth: tuple[int, ...]
    soak_minutes: int | None
    cold_start: bool


def read_options(arguments: Sequence[str]) -> Options:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        prog="tests/benchmarks/run.py",
        description="Measure PicoPay beside pgbench and a server that does nothing, in one run.",
        epilog='With make: make bench ARGS="--full --output result.json"',
    )
    add = parser.add_argument
    length = parser.add_mutually_exclusive_group()
    for name, size, text in (
        (
            "--quick",
            _QUICK,
            "one round of one second each, about two minutes in all (the default)",
        ),
        ("--full", _FULL, "five rounds of three seconds each, in less than half an hour"),
    ):
        length.add_argument(name, dest="size", action="store_const", const=size, help=text)
    mode = parser.add_mutually_exclusive_group()
    mode.add_argument(
        "--growth",
        type=_numbers,
        default=(),
        metavar="N,N,…",
        help="instead: fill ledgers with so many payments and compare them with an empty one",
    )
    mode.add_argument(
        "--soak",
        type=_number_from(1),
        metavar="MINUTES",
        help="instead: keep one server busy for so long, and look at its memory",
    )
    mode.add_argument("--cold-start", action="store_true", help="instead: only start servers")
    add("--rounds", type=_number_from(1), help="how often everything is measured")
    add("--seconds", type=_number_from(1), help="how long each measurement takes")
    add(
        "--connections",
        type=_numbers,
        metavar="N,N,…",
        help="connections over HTTP; 256 always is one",
    )
    sessions = "sessions of pgbench; its best counts (default: 4,16,64)"
    add("--clients", type=_numbers, default=(4, 16, 64), metavar="N,N,…", help=sessions)
    accounts = "accounts that pay each other (default: 100000)"
    add("--accounts", type=_number_from(2), default=100_000, help=accounts)
    add("--output", type=Path, help="the file of JSON (default: one in .cache/bench/)")
    given = parser.parse_args(arguments)
    size = given.size or _QUICK
    plan = Plan(
        rounds=given.rounds or size.rounds,
        seconds=given.seconds or size.seconds,
        clients=given.clients,
        connections=given.connections or size.connections,
        paired_connections=size.paired_connections,
        accounts=given.accounts,
    )
    return Options(plan, given.output, given.growth, given.soak, given.cold_start)


def _number_from(minimum: int) -> Callable[[str], int]:
    def read(text: str) -> int:
        if not text.isdecimal() or int(text) < minimum:
            raise argparse.ArgumentTypeError(f"{text!r} is not a number from {minimum} on")
        return int(text)

    return read


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(sorted({_number_from(1)(part) for part in text.split(",")}))


def measure(options: Options, work: Path) -> Result:
    """Measure what was asked for; say on stderr how far it is."""
    began_at, began_s = datetime.now(UTC), time.monotonic()
    plan = options.plan
    measurements: list[Measurement] = []

    def note(measurement: Measurement) -> None:
        measurements.append(measurement)
        cell, figures = measurement.cell, measurement.figures
        _tell(
            f"  {report.name_of(cell)}, {cell.workload}, {cell.concurrency}: {figures.per_s:,.0f}/s"
        )

    with Ground.prepared(work / "server", plan.accounts, _tell) as ground:
        result = Result(
            began_at=began_at, took_s=0, machine=machine.describe(work, ground.version), plan=plan
        )
        found: dict[str, object] = {}
        if options.growth:
            found["fillings"] = growth.run(plan, options.growth, ground, work, _tell, note)
        elif options.soak_minutes:
            found["soak"] = soak.run(options.soak_minutes, ground, work, _tell)
        else:
            found["cold_starts_s"] = rounds.cold_starts(plan.cold_starts, ground, work, _tell)
            if not options.cold_start:
                rounds.run(plan, ground, work, _tell, note)
    took_s = round(time.monotonic() - began_s, 1)
    return msgspec.structs.replace(result, took_s=took_s, measurements=measurements, **found)


def main(arguments: Sequence[str]) -> int:
    """Run the benchmark; return the exit code."""
    options = read_options(arguments)
    interrupt_on_stop()
    allow_many_files()
    RESULTS.mkdir(parents=True, exist_ok=True)
    # Beside the results, not in the system's temporary directory, which may be no disk at all.
    work = Path(tempfile.mkdtemp(prefix="data-", dir=RESULTS))
    try:
        result = measure(options, work)
    except (BenchmarkError, EmbeddedError) as error:
        _tell(f"error: {error}")
        return 1
    except KeyboardInterrupt:
        _tell("stopped")
        return 130
    finally:
        survive_repeated_signals()
        shutil.rmtree(work, ignore_errors=True)
    output = options.output or RESULTS / f"{result.began_at:%Y%m%dT%H%M%SZ}" / "result.json"
    output.parent.mkdir(parents=True, exist_ok=True)
    result.write(output)
    files = report.write([result], output.parent)
    print(f"{report.text(result)}\n\nAll of it is in {output}, with {len(files)} files beside it")
    return 0


def _tell(text: str) -> None:
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()
