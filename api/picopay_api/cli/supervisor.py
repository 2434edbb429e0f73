"""Keeps child processes running until it is told to stop, and then ends them in good order.

Used by `picopay up` (servers and a worker) and by `picopay serve` with several workers. A child that
dies is started again after a growing pause; one that keeps dying ends the supervisor. Children run in
sessions of their own, so that Ctrl-C reaches the supervisor alone, and end when it dies (`lifetime.py`).
"""

import asyncio
import os
import signal
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import msgspec

from picopay_api.cli.exits import CommandFailed, ExitCode
from picopay_api.environment import replaced
from picopay_api.logs import Event, get_logger

_QUICK_DEATHS_MAX = 5
_QUICK_S = 30.0
_PAUSE_FIRST_S = 0.5
_PAUSE_MAX_S = 8.0
_HOPELESS = (ExitCode.USAGE, ExitCode.CONFIGURATION)

_log = get_logger(__name__)


class Patience:
    """How soon something that dies is started again: later each time, and at some point not at all."""

    def __init__(self) -> None:
        self._quick_deaths = 0

    def pause_s(self, lived_s: float) -> float | None:
        """Return how long to wait after one more death; None when there were too many of late."""
        self._quick_deaths = self._quick_deaths + 1 if lived_s < _QUICK_S else 0
        if self._quick_deaths > _QUICK_DEATHS_MAX:
            return None
        return min(_PAUSE_FIRST_S * 2.0**self._quick_deaths, _PAUSE_MAX_S)


def tell_restart(name: str, reason: str, pause_s: float) -> None:
    """Log that something has ended by itself and is started again."""
    _log.warning(Event.PROCESS_RESTARTED, process=name, reason=reason, pause_s=pause_s)


class Child(msgspec.Struct, frozen=True, kw_only=True):
    """A `picopay` subcommand to run: its arguments, its environment and what it inherits open."""

    name: str
    arguments: tuple[str, ...]
    environment: dict[str, str]
    descriptors: tuple[int, ...] = ()


class Supervisor:
    """Runs children.

    `stdout` is the file descriptor that their stdout goes to; `ended` is told the process id of each
    one that has ended.
    """

    def __init__(
        self,
        children: Sequence[Child],
        *,
        grace_s: float,
        report: Callable[[str], None],
        ended: Callable[[int], None],
        stdout: int,
    ) -> None:
        self._children = children
        self._grace_s = grace_s
        self._report = report
        self._ended = ended
        self._stdout = stdout
        self._running: dict[str, asyncio.subprocess.Process] = {}
        self._stopping = asyncio.Event()

    async def run(self) -> None:
        """Keep every child running until `stop`.

        Raises:
            CommandFailed: a child cannot be kept running; the others have been stopped.
        """
        try:
            async with asyncio.TaskGroup() as group:
                for child in self._children:
                    group.create_task(self._keep(child))
        except* CommandFailed as failures:
            await self.stop(asyncio.Event())
            raise failures.exceptions[0] from None

    async def stop(self, hurry: asyncio.Event) -> None:
        """Ask the children to drain, and kill those left after the grace or at once in a hurry."""
        self._stopping.set()
        self._report("stopping, as soon as what was accepted is answered")
        self._signal(signal.SIGTERM)
        ends = asyncio.ensure_future(self._all_ended())
        hurried = asyncio.ensure_future(hurry.wait())
        try:
            await asyncio.wait(
                [ends, hurried], timeout=self._grace_s, return_when=asyncio.FIRST_COMPLETED
            )
            self._signal(signal.SIGKILL)
            await ends
        finally:
            ends.cancel()
            hurried.cancel()

    async def _keep(self, child: Child) -> None:
        patience = Patience()
        while not self._stopping.is_set():
            process = await self._start(child)
            started = time.monotonic()
            exit_code = await process.wait()
            self._running.pop(child.name, None)
            self._ended(process.pid)
            if self._stopping.is_set():
                return
            pause_s = patience.pause_s(time.monotonic() - started)
            if exit_code in _HOPELESS or pause_s is None:
                raise CommandFailed(f"{child.name} cannot be kept running: exit code {exit_code}")
            tell_restart(child.name, f"it ended with {exit_code}", pause_s)
            await self._pause(pause_s)

    async def _start(self, child: Child) -> asyncio.subprocess.Process:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "picopay_api",
            *child.arguments,
            stdin=asyncio.subprocess.PIPE,
            stdout=self._stdout,
            env=child.environment,
            pass_fds=child.descriptors,
            start_new_session=True,
        )
        self._running[child.name] = process
        if self._stopping.is_set():
            process.terminate()  # it came up while the others were being told
        return process

    async def _pause(self, seconds: float) -> None:
        try:
            await asyncio.wait_for(self._stopping.wait(), timeout=seconds)
        except TimeoutError:
            return

    async def _all_ended(self) -> None:
        for process in list(self._running.values()):
            await process.wait()

    def _signal(self, number: signal.Signals) -> None:
        for process in self._running.values():
            try:
                process.send_signal(number)
            except ProcessLookupError:
                continue  # it has just ended by itself


def environment_for_children(
    base: Mapping[str, str], settings: Mapping[str, str]
) -> dict[str, str]:
    """Return an environment with these settings, whatever the base says about them.

    Children must find this package even where it is not installed, as in a source tree.
    """
    source = str(Path(__file__).resolve().parents[2])
    path = os.pathsep.join(filter(None, (source, base.get("PYTHONPATH"))))
    return {**replaced(base, settings), "PYTHONPATH": path}
