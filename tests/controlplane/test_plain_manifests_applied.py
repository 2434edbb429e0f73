"""k8s/ by kubectl alone, as its README says: to an engine that is ready, and away again."""

import os
import sys
from asyncio import create_subprocess_exec
from asyncio.subprocess import PIPE, STDOUT
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path

import pytest

from picopay_operator import install, names
from support.chart_files import NAMESPACE, PLAIN
from support.controlplane.api_server import ApiServer
from support.controlplane.operating import Case, steady
from support.controlplane.player import Player
from support.controlplane.rights import limited, token_of
from support.controlplane.servers import ControlPlane
from support.controlplane.tools import Tools
from support.waiting import eventually

ENGINE = "picopay"
INSTALLER = "picopay-install"
APPLY = ("apply", "--filename", PLAIN)


@pytest.fixture
async def case(no_definition: None, api_server: ApiServer, player: Player) -> AsyncIterator[Case]:
    """Return the namespace of k8s/, in which Pod Security refuses, and remarks on, what is not restricted."""
    del no_definition  # it was there, and is not now
    case = Case(api_server.of(NAMESPACE), player)
    modes = {f"pod-security.kubernetes.io/{mode}": "restricted" for mode in ("enforce", "warn")}
    metadata = {"name": NAMESPACE, "labels": modes}
    await api_server.create({"apiVersion": "v1", "kind": "Namespace", "metadata": metadata})
    yield case
    await api_server.delete("Namespace", NAMESPACE)


async def run_installer(plane: ControlPlane, case: Case, folder: Path) -> None:
    """Do what the Job does, as its account: its pod does not run here."""
    found = await case.api.get("ConfigMap", INSTALLER)
    engines = folder / "engines"
    engines.mkdir(exist_ok=True)
    for name, text in found["data"].items():
        (engines / name).write_text(text, encoding="utf-8")
    kubeconfig = folder / "installer.kubeconfig"
    plane.kubeconfig(kubeconfig, await token_of(case.api, INSTALLER))
    process = await create_subprocess_exec(
        *(sys.executable, "-m", install.__name__, engines),
        env=os.environ | {"KUBECONFIG": str(kubeconfig)},
        stdout=PIPE,
        stderr=STDOUT,
    )
    said, _ = await process.communicate()
    assert process.returncode == 0, said.decode()


async def version(case: Case) -> str:
    found = await case.api.get(names.KIND, ENGINE)
    return str(found["metadata"]["resourceVersion"])


async def test_the_commands_of_its_readme(
    control_plane: ControlPlane, case: Case, tmp_path: Path
) -> None:
    tools = Tools(control_plane, "default", tmp_path)
    here = ("--namespace", NAMESPACE)
    literal = "--from-literal=database-url=postgresql://picopay@db/picopay"
    await tools.kubectl(*here, "create", "secret", "generic", "picopay-secrets", literal)
    await tools.kubectl(*APPLY)
    async with limited(control_plane, case.api) as operator:
        await run_installer(control_plane, case, tmp_path)
        await tools.kubectl(*here, "wait", "--for=create", f"ppe/{ENGINE}", "--timeout=2m")
        wait = ("wait", "--for=condition=Ready", f"ppe/{ENGINE}", "--timeout=1m")
        await tools.kubectl(*here, *wait)
        before = await steady(partial(version, case))
        # Again: nothing is changed, the engine and what the operator has made of it included.
        again = await tools.kubectl(*APPLY)
        changed = [line for line in again.splitlines() if not line.endswith(" unchanged")]
        assert changed == []
        await run_installer(control_plane, case, tmp_path)
        assert await steady(partial(version, case)) == before

        # Away with it, while the Job is there and when it has removed itself.
        await tools.kubectl(*here, "delete", "ppe", "--all")
        await eventually(partial(case.is_gone, ENGINE))
        assert all("/secrets" in one for one in operator.refused(NAMESPACE))
    await case.api.delete("Job", INSTALLER)

    async def has_no_job() -> bool:
        return await case.api.find("Job", INSTALLER) is None

    await eventually(has_no_job)
    await tools.kubectl("delete", "--filename", PLAIN, "--ignore-not-found")
    assert not await case.api.list("Deployment")
    assert await case.api.find("ClusterRole", "picopay-operator") is None
    assert tools.warnings == []
