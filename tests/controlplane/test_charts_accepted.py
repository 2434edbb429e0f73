"""What the charts and k8s/ bring is taken by a real API server, without a remark, under Pod Security.

Values are those of `ci` in each chart: together they set everything. The server only says what it would do,
but for k8s/ and its samples, which are applied.
"""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import yaml

from support.chart_files import ENGINE, OPERATOR, PLAIN
from support.controlplane.api_server import ApiServer
from support.controlplane.servers import ControlPlane
from support.controlplane.tools import ToolError, Tools
from support.waiting import eventually

pytestmark = pytest.mark.usefixtures("definition")

SERVER_SAYS = (
    "apply",
    "--server-side",
    "--force-conflicts",
    "--dry-run=server",
    "--validate=strict",
)
RESTRICTED = "pod-security.kubernetes.io/warn"
SAMPLES = sorted((PLAIN / "samples").glob("*.yaml"))


@pytest.fixture
async def tools(control_plane: ControlPlane, api_server: ApiServer, tmp_path: Path) -> Tools:
    """Return helm and kubectl, for a namespace which also remarks on templates of pods."""
    label = {"metadata": {"labels": {RESTRICTED: "restricted"}}}
    await api_server.merge("Namespace", api_server.namespace, label)
    return Tools(control_plane, api_server.namespace, tmp_path)


@pytest.fixture
async def second(api_server: ApiServer) -> AsyncIterator[str]:
    """Return the name of another namespace."""
    name = f"{api_server.namespace}-second"
    metadata = {"name": name, "labels": {RESTRICTED: "restricted"}}
    await api_server.create({"apiVersion": "v1", "kind": "Namespace", "metadata": metadata})
    yield name
    await api_server.delete("Namespace", name)


async def taken(tools: Tools, chart: Path, *options: str | Path) -> list[str]:
    """Render a chart with its tests, and return what the server would make of it."""
    release = ("template", "picopay-operator" if chart == OPERATOR else "ledger", chart)
    text = await tools.helm(*release, *options)
    said = await tools.kubectl(*SERVER_SAYS, "--filename", "-", given=text)
    assert tools.warnings == []
    documents = [one for one in yaml.safe_load_all(text) if one]
    assert len(said.splitlines()) == len(documents)
    return [one["kind"] for one in documents]


@pytest.mark.usefixtures("foreign_kinds")
async def test_the_operators_chart_is_taken(
    tools: Tools, api_server: ApiServer, second: str
) -> None:
    kinds = await taken(tools, OPERATOR)
    assert {"CustomResourceDefinition", "Deployment", "ClusterRole", "Pod"} <= set(kinds)
    (everything,) = sorted((OPERATOR / "ci").glob("*.yaml"))
    listed = f"watchNamespaces={{{api_server.namespace},{second}}}"
    kinds = await taken(tools, OPERATOR, "--values", everything, "--set", listed)
    assert {"ServiceMonitor", "PrometheusRule", "NetworkPolicy", "PodDisruptionBudget"} <= set(
        kinds
    )
    assert "ClusterRole" not in kinds


@pytest.mark.parametrize("path", sorted((ENGINE / "ci").glob("*.yaml")), ids=lambda path: path.stem)
async def test_an_engines_chart_is_taken(tools: Tools, path: Path) -> None:
    assert await taken(tools, ENGINE, "--values", path) == ["PicoPayEngine", "Pod"]


@pytest.mark.parametrize("path", SAMPLES, ids=lambda path: path.stem)
async def test_a_sample_is_applied(tools: Tools, path: Path) -> None:
    try:
        await tools.kubectl("apply", "--validate=strict", "--filename", path)
        again = await tools.kubectl("apply", "--validate=strict", "--filename", path)
        assert [line for line in again.splitlines() if not line.endswith(" unchanged")] == []
    finally:
        await tools.kubectl("delete", "--filename", path, "--ignore-not-found")
    assert tools.warnings == []


async def test_the_policy_of_the_samples_refuses_what_is_not_for_production(
    tools: Tools, api_server: ApiServer
) -> None:
    label = {"metadata": {"labels": {"environment": "production"}}}
    await api_server.merge("Namespace", api_server.namespace, label)
    policy = PLAIN / "samples" / "admission-policy.yaml"
    await tools.kubectl("apply", "--filename", policy)
    try:
        told = ""

        async def is_refused() -> bool:
            nonlocal told
            try:
                await tools.kubectl(*SERVER_SAYS, "--filename", PLAIN / "samples" / "postgres.yaml")
            except ToolError as error:
                told = str(error)
            return bool(told)

        await eventually(is_refused)
        assert "has no standby and no backups" in told
        await tools.kubectl(*SERVER_SAYS, "--filename", PLAIN / "samples" / "production.yaml")
        found = await api_server.request(
            "GET",
            "/apis/admissionregistration.k8s.io/v1/validatingadmissionpolicies/picopay-production",
        )
        assert not found.get("status", {}).get("typeChecking", {}).get("expressionWarnings")
    finally:
        await tools.kubectl("delete", "--filename", policy)
