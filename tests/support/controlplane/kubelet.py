"""Runs pods as processes: an executor for the player, which does of a kubelet's work what PicoPay counts on.

Used by the tests of the whole chain. A pod's program is started with the environment of its manifest, asked
by its probes, started again when it ends or does not answer, and told to end as its manifest says. There are
no containers: neither are limits kept nor is anything hidden from a process.
"""

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx

from picopay_api.embedded import launch
from support.controlplane.api_server import ApiServer, Manifest
from support.controlplane.container import Container, prepared
from support.controlplane.player import Show
from support.controlplane.plays import CannotPull, Crashes, Exits, Runs

_PROBES = ("startupProbe", "readinessProbe", "livenessProbe")
_RESTART_S = 1.0

type Ending = asyncio.Future[int]


class Kubelet:
    """Runs the pods of one namespace whose image has a program here: the command for it, by image."""

    def __init__(
        self,
        api_server: ApiServer,
        repository: str,
        folder: Path,
        images: Mapping[str, Sequence[str]],
    ) -> None:
        self.images = dict(images)
        """By tag, the command of an image. Others of the repository cannot be pulled."""
        self._api_server = api_server
        self._repository = repository
        self._folder = folder
        self._containers: dict[str, Container] = {}

    def concerns(self, pod: Manifest) -> bool:
        """Tell whether it runs a pod."""
        image = pod["spec"]["containers"][0]["image"]
        is_here = pod["metadata"]["namespace"] == self._api_server.namespace
        return bool(is_here and image.rpartition(":")[0] == self._repository)

    def port(self, pod: str, port: int) -> int:
        """Return the port of this machine at which a port of a pod is."""
        return self._containers[pod].ports[port]

    async def run(self, pod: Manifest, ending: Ending, show: Show) -> Exits:
        """Run a pod until it has ended, or was ended."""
        container = pod["spec"]["containers"][0]
        command = self.images.get(container["image"].rpartition(":")[2])
        if command is None:
            await show(CannotPull())
            await ending
            return Exits()
        name = pod["metadata"]["name"]
        made = await prepared(self._api_server, pod, self._folder / name)
        self._containers[name] = made
        restarts = 0
        while True:
            last = await _Process(made, command, ending, show, restarts).run()
            if ending.done() or pod["spec"]["restartPolicy"] == "Never":
                return last
            restarts += 1
            await show(Crashes(last.code, last.message, restarts))
            await asyncio.wait({ending}, timeout=_RESTART_S * restarts)
            if ending.done():
                return last


class _Process:
    """The program of a container, from its start to its end."""

    def __init__(
        self,
        container: Container,
        command: Sequence[str],
        ending: Ending,
        show: Show,
        restarts: int,
    ) -> None:
        self._container = container
        self._command = command
        self._ending = ending
        self._show = show
        self._restarts = restarts

    async def run(self) -> Exits:
        """Run it; whatever happens, no process is left behind."""
        self._container.begin()
        process = await self._start()
        exited = asyncio.ensure_future(process.wait())
        failing = asyncio.ensure_future(self._probe())
        events: set[asyncio.Future[Any]] = {exited, failing, self._ending}
        try:
            await asyncio.wait(events, return_when=asyncio.FIRST_COMPLETED)
            if failing.done():
                failing.result()  # the probes have failed, or who asks them
            if not exited.done():
                await self._end(process, exited)
            code = await exited
        finally:
            with suppress(ProcessLookupError):
                process.kill()
            failing.cancel()
            await asyncio.gather(exited, failing, return_exceptions=True)
        code = 128 - code if code < 0 else code  # as a shell tells of signals
        return Exits(code, self._container.message(code))

    async def _start(self) -> asyncio.subprocess.Process:
        # It ends with this process, however this one ends.
        identity = [str(os.getpid()), str(os.geteuid()), str(os.getegid())]
        launcher = [sys.executable, "-I", "-S", str(launch.__file__), *identity]
        with self._container.log.open("ab") as log:
            return await asyncio.create_subprocess_exec(
                *launcher,
                *self._command,
                *self._container.arguments,
                env=self._container.environment,
                cwd=self._container.folder,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )

    async def _end(
        self, process: asyncio.subprocess.Process, exited: "asyncio.Future[int]"
    ) -> None:
        """Let it hear of its end as its manifest says, and wait as long as it has."""
        grace_s = self._ending.result() if self._ending.done() else self._container.grace_s
        hook = self._container.spec.get("lifecycle", {}).get("preStop", {"sleep": {"seconds": 0}})
        before_s = min(hook["sleep"]["seconds"], grace_s)
        await asyncio.wait({exited}, timeout=before_s)
        if not exited.done() and grace_s:
            process.send_signal(signal.SIGTERM)
            await asyncio.wait({exited}, timeout=grace_s - before_s)
        if not exited.done():
            process.kill()

    async def _probe(self) -> None:
        """Ask the probes and show whether it is ready; return when it must be started again."""
        if "livenessProbe" not in self._container.spec:  # a Job's: nobody asks it
            await self._show(Runs(restarts=self._restarts))
            await asyncio.get_running_loop().create_future()
        startup, readiness, liveness = (_Probe(self._container, kind) for kind in _PROBES)
        await self._show(Runs(ready=False, restarts=self._restarts))
        if not await startup.is_answered():
            return
        asking = {
            asyncio.ensure_future(one) for one in (self._follow(readiness), liveness.has_failed())
        }
        try:
            done, _ = await asyncio.wait(asking, return_when=asyncio.FIRST_COMPLETED)
            for one in done:
                one.result()
        finally:
            for one in asking:
                one.cancel()
            await asyncio.gather(*asking, return_exceptions=True)

    async def _follow(self, readiness: "_Probe") -> None:
        shown = False
        async for failures in readiness.failures():
            ready = shown if 0 < failures < readiness.failures_max else failures == 0
            if ready != shown:
                shown = ready
                await self._show(Runs(ready, self._restarts))


class _Probe:
    """A probe of a container, over HTTP, on a connection of its own each time."""

    def __init__(self, container: Container, kind: str) -> None:
        spec = container.spec[kind]
        request = spec["httpGet"]
        self.failures_max: int = spec["failureThreshold"]
        self._url = f"http://127.0.0.1:{container.port_of(request)}{request['path']}"
        self._period_s: int = spec["periodSeconds"]
        self._timeout_s: int = spec["timeoutSeconds"]

    async def failures(self) -> AsyncIterator[int]:
        """Ask again and again, and yield how many have failed one after the other."""
        failures = 0
        async with httpx.AsyncClient(
            timeout=self._timeout_s,
            limits=httpx.Limits(max_keepalive_connections=0),
            trust_env=False,
        ) as client:
            while True:
                failures = 0 if await self._answers(client) else failures + 1
                yield failures
                await asyncio.sleep(self._period_s)

    async def is_answered(self) -> bool:
        """Ask until it is answered; return whether that was before too many have failed."""
        async for failures in self.failures():
            if failures in {0, self.failures_max}:
                return failures == 0
        return False

    async def has_failed(self) -> None:
        """Ask until too many have failed."""
        async for failures in self.failures():
            if failures == self.failures_max:
                return

    async def _answers(self, client: httpx.AsyncClient) -> bool:
        try:
            answer = await client.get(self._url)
        except httpx.TransportError:
            return False
        return answer.status_code < httpx.codes.BAD_REQUEST
