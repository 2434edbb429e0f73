"""An operator in a process of its own, as it runs in a pod: for tests in which one is killed or told to end.

Used by the tests of high availability and by the operator's benchmark. It ends with the process that has
started it, however that one ends.
"""

import asyncio
import os
import re
import signal
import socket
import sys
from asyncio.subprocess import DEVNULL, Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx

from picopay_api.embedded import launch
from support.controlplane.servers import ControlPlane
from support.postgres import CHECKOUT
from support.waiting import eventually

_LEADER = "picopay_operator_leader"


class OperatorProcess:
    """One replica. Make it with `operator_process`."""

    def __init__(self, name: str, process: Process, port: int) -> None:
        self.name = name
        self.pid = process.pid
        self._process = process
        self._url = f"http://127.0.0.1:{port}"

    async def status(self, path: str) -> int:
        """Return the status with which it answers; 0 when it does not."""
        try:
            async with httpx.AsyncClient() as http:
                return (await http.get(self._url + path)).status_code
        except httpx.TransportError:
            return 0

    async def leads(self) -> bool:
        """Tell whether it says that it works; the others stand by."""
        return total(await self.metrics(), _LEADER) == 1

    async def metrics(self) -> str:
        """Return what it tells of itself."""
        async with httpx.AsyncClient() as http:
            return (await http.get(f"{self._url}/metrics")).text

    async def kill(self) -> None:
        """End it without a warning."""
        self._process.kill()
        await self._process.wait()

    async def stop(self) -> int:
        """Ask it to end; return its exit code."""
        self._process.send_signal(signal.SIGTERM)
        return await self._process.wait()


@asynccontextmanager
async def operator_process(
    plane: ControlPlane, namespace: str, name: str, folder: Path, kubeconfig: Path | None = None
) -> AsyncIterator[OperatorProcess]:
    """Run a replica for a namespace, in which it also is, until the end of the block.

    An empty namespace stands for all of them; `kubeconfig` leads to the control plane on another way.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
    variables = {
        "KUBECONFIG": str(kubeconfig or plane.admin_kubeconfig),
        "PICOPAY_OPERATOR_NAMESPACES": namespace,
        "PICOPAY_OPERATOR_PORT": str(port),
        "POD_NAME": name,
        "POD_NAMESPACE": namespace,
        "PYTHONPATH": str(CHECKOUT / "operator"),
    }
    identity = [str(os.getpid()), str(os.geteuid()), str(os.getegid())]
    command = [sys.executable, "-m", "picopay_operator"]
    with (folder / f"{name}.log").open("wb") as log:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-I", "-S", str(launch.__file__), *identity, *command),
            env=os.environ | variables,
            stdin=DEVNULL,
            stdout=log,
            stderr=log,
        )
    made = OperatorProcess(name, process, port)
    try:

        async def answers() -> bool:
            assert process.returncode is None, (folder / f"{name}.log").read_text()[-2_000:]
            return await made.status("/readyz") == httpx.codes.OK

        await eventually(answers)
        yield made
    finally:
        if process.returncode is None:
            await made.kill()


def total(metrics: str, name: str) -> float:
    """Return a metric, summed over its labels."""
    found = re.findall(rf"^{name}(?:{{.*}})? (\S+)$", metrics, re.MULTILINE)
    assert found, f"no metric {name}"
    return sum(map(float, found))
