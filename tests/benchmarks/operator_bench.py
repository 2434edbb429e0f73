"""`make bench-operator`: measures the operator with many engines on a real control plane.

Run as a program (`python tests/benchmarks/operator_bench.py --help`). Engines are made, first one at a time
and then all others at once; an operator starts beside them, several times; and one goes through a proxy that
counts what it asks while nothing happens. It judges nothing: how fast a machine is, is no reason to fail.
"""

import argparse
import asyncio
import os
import platform
import shutil
import sys
import tempfile
import time
from asyncio.subprocess import DEVNULL
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path

if __name__ == "__main__":  # as in run.py
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import psutil

from benchmarks import operator_player
from benchmarks.operator_fleet import Engine, Moment, fleet, patience, prepare, watched
from benchmarks.operator_results import Ground, Plan, Result, text, write
from benchmarks.processes import MemoryWatch, allow_many_files, cpu_s, memory_mb
from benchmarks.servers import CHECKOUT, BenchmarkError
from picopay_api import __version__
from picopay_api.cli.lifetime import interrupt_on_stop, survive_repeated_signals
from support.controlplane import launch
from support.controlplane.api_proxy import ApiProxy, proxied_api
from support.controlplane.api_server import ApiServer, connected
from support.controlplane.operator_process import OperatorProcess, operator_process, total
from support.controlplane.programs import NAMES, programs
from support.controlplane.servers import ControlPlane, control_plane
from support.waiting import eventually

RESULTS = CHECKOUT / ".cache" / "bench"
_ALONE = 5
_MEMORY_EVERY_S = 0.2
_LOOK_S = 0.5
_REST_S = 10.0
_PASSES = 5
_PASS_S = 2.0
_REQUESTS = "picopay_operator_api_requests"
_RECONCILES = "picopay_operator_reconciles_total"

type Values = dict[str, list[float]]


def read_options(arguments: Sequence[str]) -> tuple[Plan, Path | None]:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        prog="tests/benchmarks/operator_bench.py",
        description="Measure the operator with many engines on a real control plane.",
        epilog='With make: make bench-operator ARGS="--engines 30"',
    )
    for name, default, said in (
        ("--engines", 300, "how many engines there are"),
        ("--namespaces", 10, "over how many namespaces they are spread"),
        ("--starts", 3, "how often an operator is started beside them"),
        ("--idle-s", 60, "how long requests are counted while nothing happens"),
    ):
        shown = f"{said} (default: {default})"
        parser.add_argument(name, type=_from_one, default=default, help=shown)
    parser.add_argument("--output", type=Path, help="the file of JSON (default: in .cache/bench/)")
    given = parser.parse_args(arguments)
    plan = Plan(
        engines=given.engines,
        namespaces=given.namespaces,
        starts=given.starts,
        idle_s=given.idle_s,
    )
    return plan, given.output


def _from_one(said: str) -> int:
    if not said.isdecimal() or int(said) < 1:
        raise argparse.ArgumentTypeError(f"{said!r} is not a number from 1 on")
    return int(said)


async def measure(plan: Plan, plane: ControlPlane, work: Path) -> Result:
    """Measure everything; say on stderr how far it is."""
    began_at, began_s = datetime.now(UTC), time.monotonic()
    load_before = round(psutil.getloadavg()[0], 2)
    engines = fleet(plan.engines, plan.namespaces)
    async with connected(plane) as api:
        version = (await api.request("GET", "/version"))["gitVersion"]
        await prepare(api, engines)
        async with _kubelet(plane, work) as kubelet:
            values = await _make(engines, api, plane, work, kubelet)
            values |= await _start(plan, plane, work)
            values |= await _rest(plan, engines, api, plane, work)
    return Result(
        began_at=began_at,
        took_s=round(time.monotonic() - began_s, 1),
        ground=Ground(
            cpus=os.cpu_count(),
            python=platform.python_version(),
            kubernetes=version.removeprefix("v"),
            picopay=__version__,
            load_before=load_before,
        ),
        plan=plan,
        values=values,
    )


async def _make(
    engines: Sequence[Engine], api: ApiServer, plane: ControlPlane, work: Path, kubelet: int
) -> Values:
    """Make all engines, and see how long it takes."""
    alone, others = engines[:_ALONE], engines[_ALONE:]
    async with watched(api) as seen, operator_process(plane, "", "making", work) as operator:
        await eventually(operator.leads)
        await asyncio.sleep(_PASS_S)  # its watches have begun
        with MemoryWatch([operator.pid], _MEMORY_EVERY_S) as memory:
            _tell(f"{len(alone)} engines, one at a time")
            for one in alone:
                await seen.apply([one])
            values = {
                "alone_job": seen.between(Moment.APPLIED, Moment.MIGRATES, alone),
                "alone_deployment": seen.between(Moment.MIGRATED, Moment.DEPLOYED, alone),
                "alone_ready": seen.between(Moment.APPLIED, Moment.READY, alone),
            }
            if others:
                _tell(f"{len(others)} engines at once")
                seen.shown_s.clear()
                before = _used(operator.pid, kubelet)
                await seen.apply(others)
                values |= {
                    name: [used - before[name]]
                    for name, used in _used(operator.pid, kubelet).items()
                } | {
                    "fleet_job": seen.between(Moment.APPLIED, Moment.MIGRATES, others),
                    "fleet_deployment": seen.between(Moment.MIGRATED, Moment.DEPLOYED, others),
                    "fleet_ready": [seen.lasted_s(others)],
                    "kubelet": list(seen.shown_s),
                }
            await asyncio.sleep(_REST_S)
        values |= {"making_peak": [memory.peak_mb], "making_rest": [memory_mb(operator.pid)]}
        await operator.stop()
    return values


async def _start(plan: Plan, plane: ControlPlane, work: Path) -> Values:
    """Start operators, one after the other, where all engines are there."""
    values: Values = {"start": [], "start_peak": [], "start_rest": []}
    for number in range(1, plan.starts + 1):
        _tell(f"start {number} of {plan.starts}")
        began_s = time.monotonic()
        async with operator_process(plane, "", f"start-{number}", work) as operator:
            with MemoryWatch([operator.pid], _MEMORY_EVERY_S) as memory:
                await _observed(operator, plan.engines)
                values["start"].append(time.monotonic() - began_s)
                await asyncio.sleep(_REST_S)
            values["start_peak"].append(memory.peak_mb)
            values["start_rest"].append(memory_mb(operator.pid))
            await operator.stop()
    return values


async def _rest(
    plan: Plan, engines: Sequence[Engine], api: ApiServer, plane: ControlPlane, work: Path
) -> Values:
    """Count what an operator asks while nothing happens, and for a look at an engine that is unchanged."""
    async with proxied_api(plane) as proxy:
        kubeconfig = plane.kubeconfig(
            work / "proxy.kubeconfig", plane.admin_token, server=proxy.url
        )
        async with operator_process(plane, "", "resting", work, kubeconfig) as operator:
            await _observed(operator, plan.engines)
            await asyncio.sleep(_REST_S)
            _tell(f"nothing, for {plan.idle_s} s")
            count, told = len(proxy.answered), total(await operator.metrics(), _REQUESTS)
            await asyncio.sleep(plan.idle_s)
            asked = proxy.answered[count:]
            minutes = plan.idle_s / 60
            elections = sum(one.asked.is_of_election for one in asked)
            of_all = {
                "idle": len(asked) - elections,
                "idle_told": total(await operator.metrics(), _REQUESTS) - told,
            }
            values: Values = {
                name: [number / minutes / len(engines)] for name, number in of_all.items()
            } | {"election": [elections / minutes], "reads": [], "writes": []}
            _tell("unchanged engines")
            for number in range(_PASSES):
                reads, writes = await _look(
                    engines[number % len(engines)], number, api, operator, proxy
                )
                values["reads"].append(reads)
                values["writes"].append(writes)
            await operator.stop()
    return values


async def _look(
    engine: Engine, number: int, api: ApiServer, operator: OperatorProcess, proxy: ApiProxy
) -> tuple[int, int]:
    """Have an engine looked at by an annotation that means nothing; return the reads and the writes."""
    count, passes = len(proxy.answered), total(await operator.metrics(), _RECONCILES)
    change = {"metadata": {"annotations": {"benchmark": str(number)}}}
    await api.merge("PicoPayEngine", engine.name, change, engine.namespace)
    await asyncio.sleep(_PASS_S)
    if total(await operator.metrics(), _RECONCILES) == passes:
        raise BenchmarkError("an engine was changed, and nobody has looked at it")
    asked = [one.asked for one in proxy.answered[count:] if not one.asked.is_of_election]
    writes = sum(one.writes for one in asked)
    return len(asked) - writes, writes


async def _observed(operator: OperatorProcess, engines: int) -> None:
    """Wait until an operator has looked at all engines: it shows a condition of each then."""
    async with patience(engines):
        while (await operator.metrics()).count('type="Ready"') < engines:  # noqa: ASYNC110  # another process
            await asyncio.sleep(_LOOK_S)  # rarely: to tell of so many takes the operator a while


def _used(operator: int, kubelet: int) -> dict[str, float]:
    """Return the processor time that everybody has used so far."""
    servers = [one for one in psutil.Process().children() if one.name() in NAMES]
    own = psutil.Process().cpu_times()
    return {
        "cpu_operator": cpu_s(operator),
        "cpu_kubelet": cpu_s(kubelet),
        "cpu_control_plane": sum(cpu_s(one.pid) for one in servers),
        "cpu_bench": own.user + own.system,
    }


@asynccontextmanager
async def _kubelet(plane: ControlPlane, work: Path) -> AsyncIterator[int]:
    """Play the kubelet in a process of its own until the end of the block; lend its id."""
    log_file = work / "kubelet.log"
    with log_file.open("wb") as log:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-I", "-S", str(launch.__file__), str(os.getpid())),
            *(sys.executable, str(operator_player.__file__), str(plane.admin_kubeconfig)),
            stdin=DEVNULL,
            stdout=log,
            stderr=log,
        )
    try:
        yield process.pid
        if process.returncode is not None:
            raise BenchmarkError(f"the played kubelet has ended: {log_file.read_text()[-2_000:]}")
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


def main(arguments: Sequence[str]) -> int:
    """Run the benchmark; return the exit code."""
    plan, output = read_options(arguments)
    interrupt_on_stop()
    allow_many_files()
    found = programs()
    RESULTS.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(prefix="operator-", dir=RESULTS))
    try:
        with control_plane(work / "control-plane", found) as plane:
            result = asyncio.run(measure(plan, plane, work))
    except BenchmarkError as error:
        _tell(f"error: {error}")
        for log in sorted(work.glob("*.log")):  # what they have said last, often tells why
            _tell("\n".join([f"{log.name}:", *log.read_text(errors="replace").splitlines()[-1:]]))
        return 1
    except KeyboardInterrupt:
        _tell("stopped")
        return 130
    finally:
        survive_repeated_signals()
        shutil.rmtree(work, ignore_errors=True)
    output = output or RESULTS / f"operator-{result.began_at:%Y%m%dT%H%M%SZ}" / "result.json"
    output.parent.mkdir(parents=True, exist_ok=True)
    result.write(output)
    page = write(result, output.parent)
    print(f"{text(result)}\n\nAll of it is in {output}, and as a page in {page}")
    return 0


def _tell(line: str) -> None:
    sys.stderr.write(f"{line}\n")
    sys.stderr.flush()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
