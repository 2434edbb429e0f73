"""`make bench-cluster`: measures operator and engines from their images, on a real cluster.

Run as a program (`python tests/benchmarks/cluster_bench.py --help`). It wants a cluster for tests, that of
the current kube context, which has the images and nothing of PicoPay; and leaves it so. It judges nothing:
how fast a machine is, is no reason to fail.
"""

import argparse
import platform
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

if __name__ == "__main__":  # as in run.py
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import msgspec
import psutil

from benchmarks.cluster_ground import processors_of, room, version_of
from benchmarks.cluster_recovery import recovery
from benchmarks.cluster_rest import install, rest
from benchmarks.cluster_results import Ground, Plan, Result, Values, text, write
from benchmarks.cluster_speed import speed, updates
from benchmarks.servers import CHECKOUT, BenchmarkError
from picopay_api import __version__
from picopay_api.cli.lifetime import interrupt_on_stop, survive_repeated_signals
from support.e2e.context import objection
from support.e2e.installation import RELEASE, Installation, OccupiedError
from support.e2e.kube import CommandError, Kube
from support.e2e.plugin import Options, current_context

RESULTS = CHECKOUT / ".cache" / "bench"
PARTS = ("install", "speed", "updates", "recovery", "rest")

_FULL = Plan(parts=list(PARTS), rounds=5, seconds=10, rest_s=60)
_QUICK = Plan(parts=list(PARTS), rounds=1, seconds=3, rest_s=30)
_REST_S_MIN = 20
_IMAGE_PYTHON = ("python", "-c", "import platform; print(platform.python_version())")


class Asked(NamedTuple):
    """What was asked for on the command line; `permitted` is a kube context."""

    plan: Plan
    permitted: str | None
    repository: str
    postgres_image: str
    output: Path | None


def read_options(arguments: Sequence[str]) -> Asked:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        prog="tests/benchmarks/cluster_bench.py",
        description="Measure operator and engines on the cluster of the current kube context.",
        epilog='With make: make bench-cluster ARGS="--quick --only speed"',
    )
    add = parser.add_argument
    add("--quick", action="store_true", help="one round of three seconds: a look")
    add("--only", action="append", choices=PARTS, help="one part; several times: several of them")
    add("--rounds", type=_from(1), help="how often each part does what it does (default: 5)")
    add("--seconds", type=_from(1), help="how long is paid as fast as it goes (default: 10)")
    add("--rest-s", type=_from(_REST_S_MIN), help="how long the operator rests (default: 60)")
    add("--context", metavar="NAME", help="a kube context that is not known as local")
    add("--repository", metavar="NAME", default="docker.io/picopay", help="of PicoPay's images")
    postgres = "the image of PostgreSQL, without a tag"
    add("--postgres", metavar="IMAGE", default="docker.io/library/postgres", help=postgres)
    add("--output", type=Path, help="the file of JSON (default: in .cache/bench/)")
    given = parser.parse_args(arguments)
    size = _QUICK if given.quick else _FULL
    plan = Plan(
        parts=[part for part in PARTS if part in (given.only or PARTS)],
        rounds=given.rounds or size.rounds,
        seconds=given.seconds or size.seconds,
        rest_s=given.rest_s or size.rest_s,
    )
    return Asked(plan, given.context, given.repository, given.postgres, given.output)


def _from(least: int) -> Callable[[str], int]:
    def read(said: str) -> int:
        if not said.isdecimal() or int(said) < least:
            raise argparse.ArgumentTypeError(f"{said!r} is not a number from {least} on")
        return int(said)

    return read


def measure(plan: Plan, options: Options, work: Path) -> Result:
    """Measure what is asked for; say on stderr how far it is."""
    began_at, began_s = datetime.now(UTC), time.monotonic()
    kube = Kube(options.context, "default")
    ground = Ground(
        cpus=processors_of(kube),
        kubernetes=version_of(kube),
        python=platform.python_version(),
        image_python="",
        picopay=__version__,
        load_before=round(psutil.getloadavg()[0], 2),
    )
    values: Values = {}
    if "install" in plan.parts:
        _tell("install")
        values |= install(plan, options, _tell)
    with room(options) as installation:
        installation.install("replicaCount=2")
        told = installation.kube("exec", f"deployment/{RELEASE}", "--", *_IMAGE_PYTHON)
        ground = msgspec.structs.replace(ground, image_python=told.strip())
        for part in plan.parts:
            if part in _PARTS_BESIDE_IT:
                _tell(part)
                values |= _PARTS_BESIDE_IT[part](plan, installation, work)
    return Result(
        began_at=began_at,
        took_s=round(time.monotonic() - began_s, 1),
        ground=ground,
        plan=plan,
        values=values,
    )


def _tell(line: str) -> None:
    sys.stderr.write(f"{line}\n")
    sys.stderr.flush()


_PARTS_BESIDE_IT: dict[str, Callable[[Plan, Installation, Path], Values]] = {
    "speed": lambda plan, installation, work: speed(plan, installation, work, _tell),
    "updates": lambda plan, installation, work: updates(plan, installation, work, _tell),
    "recovery": lambda plan, installation, _: recovery(plan, installation, _tell),
    "rest": lambda plan, installation, _: rest(plan, installation, _tell),
}
"""The parts for which the operator is there already."""


def main(arguments: Sequence[str]) -> int:
    """Run the benchmark; return the exit code."""
    asked = read_options(arguments)
    context = current_context()
    if problem := objection(context, asked.permitted, "--context"):
        _tell(f"error: {problem}")
        return 1
    interrupt_on_stop()
    RESULTS.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(prefix="cluster-", dir=RESULTS))
    options = Options(context, asked.repository, asked.postgres_image, work)
    try:
        result = measure(asked.plan, options, work)
    except (BenchmarkError, OccupiedError, CommandError, TimeoutError) as error:
        _tell("\n".join([f"error: {error}", *getattr(error, "__notes__", ())]))
        return 1
    except KeyboardInterrupt:
        _tell("stopped")
        return 130
    finally:
        survive_repeated_signals()
        shutil.rmtree(work, ignore_errors=True)
    output = asked.output or RESULTS / f"cluster-{result.began_at:%Y%m%dT%H%M%SZ}" / "result.json"
    output.parent.mkdir(parents=True, exist_ok=True)
    result.write(output)
    page = write(result, output.parent)
    print(f"{text(result)}\n\nAll of it is in {output}, and as a page in {page}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
