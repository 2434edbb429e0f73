"""helm and kubectl as an administrator uses them on the control plane, in a namespace of a test.

Used by the tests of the charts and of k8s/. They run beside the test, for the operator and the player run in
its own process. What they keep is kept in a folder of the test.
"""

import asyncio
import os
from asyncio.subprocess import PIPE
from pathlib import Path

from support.controlplane.servers import ControlPlane
from support.kube_tools import program

_TIMEOUT_S = 100


class ToolError(Exception):
    """What a program says that ends with an error."""


class Tools:
    """The two programs. `warnings` has what they and the API server have remarked on, so far."""

    def __init__(self, plane: ControlPlane, namespace: str, folder: Path) -> None:
        self.warnings: list[str] = []
        kubeconfig = folder / f"{namespace}.kubeconfig"
        plane.kubeconfig(kubeconfig, plane.admin_token, namespace=namespace)
        self._environment = os.environ | {
            "KUBECONFIG": str(kubeconfig),
            "HELM_CACHE_HOME": str(folder / "helm-cache"),
            "HELM_CONFIG_HOME": str(folder / "helm-config"),
            "HELM_DATA_HOME": str(folder / "helm-data"),
            "KUBECACHEDIR": str(folder / "kube-cache"),
        }

    async def helm(self, *words: str | Path) -> str:
        """Run helm; return what it prints.

        Raises:
            ToolError: it ends with an error.
        """
        return await self._run("helm", *words)

    async def kubectl(self, *words: str | Path, given: str = "") -> str:
        """Run kubectl with some input; return what it prints.

        Raises:
            ToolError: it ends with an error.
        """
        return await self._run("kubectl", *words, given=given)

    async def _run(self, name: str, *words: str | Path, given: str = "") -> str:
        process = await asyncio.create_subprocess_exec(
            *(program(name), *words),
            env=self._environment,
            stdin=PIPE,
            stdout=PIPE,
            stderr=PIPE,
        )
        try:
            async with asyncio.timeout(_TIMEOUT_S):
                printed, remarked = await process.communicate(given.encode())
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
        if process.returncode:
            raise ToolError(f"{name} {' '.join(map(str, words))}: {remarked.decode()}")
        self.warnings += remarked.decode().splitlines()
        return printed.decode()
