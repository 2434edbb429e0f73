"""Releases of the charts come, change and go by helm on a real API server; engines and their data stay.

The operator's pods do not run here: the player says that they do, and an operator works beside them, as the
account that the chart has made.
"""

import shutil
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import yaml

from picopay_operator import crd, names
from support.chart_files import ENGINE, OPERATOR
from support.controlplane.api_server import ApiServer, Manifest
from support.controlplane.operating import Case, steady
from support.controlplane.player import Player
from support.controlplane.plays import Exits
from support.controlplane.rights import ACCOUNT, limited
from support.controlplane.servers import ControlPlane
from support.controlplane.tools import ToolError, Tools
from support.waiting import eventually
from support.world import report

DEFINITION = crd.definition()["metadata"]["name"]
KINDS = ("Deployment", "StatefulSet", "Service", "Secret", "PersistentVolumeClaim", names.KIND)
INSTALL = ("install", ACCOUNT, OPERATOR, "--wait", "--timeout=60s")


@pytest.fixture
async def case(no_definition: None, api_server: ApiServer, player: Player) -> Case:
    del no_definition  # it was there, and is not now
    return Case(api_server, player)


@pytest.fixture
async def tools(control_plane: ControlPlane, case: Case, tmp_path: Path) -> AsyncIterator[Tools]:
    tools = Tools(control_plane, case.api.namespace, tmp_path)
    yield tools
    for one in (await tools.helm("list", "--short")).split():
        await tools.helm("uninstall", one)


async def objects(case: Case) -> dict[str, dict[str, Any]]:
    """Return what belongs to engines, without what is the operator's release."""
    return {
        f"{kind}/{one['metadata']['name']}": one["metadata"]
        for kind in KINDS
        for one in await case.api.list(kind)
        if one["metadata"].get("labels", {}).get("app.kubernetes.io/name") != ACCOUNT
        and one.get("type") != "helm.sh/release.v1"
    }


async def versions(case: Case) -> dict[str, str]:
    return {name: one["resourceVersion"] for name, one in (await objects(case)).items()}


async def generations(case: Case) -> dict[str, tuple[str, int]]:
    """Return what changes when an object is made anew, or its spec is changed."""
    found = await objects(case)
    return {name: (one["uid"], one.get("generation", 0)) for name, one in found.items()}


def with_version(chart: Path, folder: Path, version: str) -> Path:
    """Return a copy of a chart that has another version."""
    copy: Path = shutil.copytree(chart, folder / f"{chart.name}-{version}")
    about = copy / "Chart.yaml"
    told = yaml.safe_load(about.read_text(encoding="utf-8"))
    about.write_text(yaml.safe_dump(told | {"version": version}), encoding="utf-8")
    return copy


def without_field(chart: Path, field: str) -> None:
    """Have the definition in a chart not know a field of the spec yet."""
    template = chart / "templates" / "crds" / "picopayengines.yaml"
    head, mark, spec = template.read_text(encoding="utf-8").partition("\nspec:\n")
    body, end, rest = spec.rpartition("{{- end }}")
    read = yaml.safe_load(f"spec:\n{body}")
    (version,) = read["spec"]["versions"]
    known = version["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"]
    assert known.pop(field)
    template.write_text(f"{head}\n{yaml.safe_dump(read)}{end}{rest}", encoding="utf-8")
    assert mark


async def test_engines_outlive_the_release_of_the_operator(
    control_plane: ControlPlane, tools: Tools, case: Case, tmp_path: Path
) -> None:
    await case.secret()
    await tools.helm(*INSTALL)
    await tools.helm("test", ACCOUNT)
    async with limited(control_plane, case.api):
        await tools.helm("install", "ledger", ENGINE, "--values", ENGINE / "ci/minimal-values.yaml")
        await tools.helm("install", "small", ENGINE, "--set", "database.postgres.storage.size=1Gi")
        await case.ready("ledger")
        await case.ready("small")
        before = await steady(partial(generations, case))
        assert "PersistentVolumeClaim/data-small-postgres-0" in before
        # Another release of the operator, other values, and back: no engine notices.
        newer = with_version(OPERATOR, tmp_path, "0.2.0")
        await tools.helm("upgrade", ACCOUNT, newer, "--set", "resyncSeconds=120", "--wait")
        deployment = await case.api.get("Deployment", ACCOUNT)
        assert deployment["metadata"]["labels"]["helm.sh/chart"] == "picopay-operator-0.2.0"
        await tools.helm("rollback", ACCOUNT, "1", "--wait")
        deployment = await case.api.get("Deployment", ACCOUNT)
        assert deployment["metadata"]["labels"]["helm.sh/chart"].endswith("-0.1.0")
        assert await steady(partial(generations, case)) == before

    at_rest = await steady(partial(versions, case))
    await tools.helm("uninstall", ACCOUNT, "--wait")
    assert await case.api.find("Deployment", ACCOUNT) is None
    assert await case.api.find("ClusterRole", ACCOUNT) is None
    assert await steady(partial(versions, case)) == at_rest
    assert "deletionTimestamp" not in (await definition(case))["metadata"]

    # The same release finds them again.
    await tools.helm(*INSTALL)
    async with limited(control_plane, case.api):
        for name in ("ledger", "small"):
            await case.api.merge(names.KIND, name, {"metadata": {"annotations": {"a": "b"}}})
            await case.ready(name)
        assert await steady(partial(generations, case)) == before
        # An engine goes with its own release, and its data does not.
        await tools.helm("uninstall", "ledger", "small")
        await eventually(partial(case.is_gone, "ledger"))
        await eventually(partial(case.is_gone, "small"))
    kept = {"Secret/ledger-admin-key", "Secret/small-admin-key", "Secret/small-postgres"}
    assert set(await objects(case)) == kept | {
        "PersistentVolumeClaim/data-small-postgres-0",
        "Secret/picopay-secrets",
    }
    # The right to Secrets has gone with the last engine. The rest goes by the commands of the chart's README.
    assert await case.api.find("RoleBinding", names.SECRETS_ROLE) is None
    await tools.helm("uninstall", ACCOUNT)
    ours = ("--selector", f"{names.MANAGED_BY_LABEL}={names.FIELD_MANAGER}")
    await tools.kubectl("delete", "rolebindings", "--all-namespaces", *ours)
    await tools.kubectl("delete", "crd", DEFINITION)
    assert tools.warnings == []


async def test_an_engine_is_upgraded_and_rolled_back_by_its_release(
    control_plane: ControlPlane, tools: Tools, case: Case, tmp_path: Path
) -> None:
    await case.secret()
    for version in ("1.0.0", "1.1.0"):
        play = Exits(0, report(release=version))
        case.player.plays(play, argument="migrate", image=version)
    await tools.helm(
        "install", ACCOUNT, OPERATOR, "--set", f"watchNamespaces={{{case.api.namespace}}}"
    )
    minimal = ("--values", ENGINE / "ci/minimal-values.yaml")
    async with limited(control_plane, case.api, case.api.namespace) as operator:
        await tools.helm("install", "ledger", ENGINE, *minimal, "--set", "version=1.0.0")
        await case.ready("ledger")
        await tools.helm("test", "ledger")
        newer = with_version(ENGINE, tmp_path, "0.2.0")
        options = ("--reuse-values", "--set", "version=1.1.0", "--set", "worker.replicas=2")
        await tools.helm("upgrade", "ledger", newer, *options)
        await case.ready("ledger")
        assert (await case.image("ledger-api")).endswith(":1.1.0")
        worker = await case.api.get("Deployment", "ledger-worker")
        assert worker["spec"]["replicas"] == 2
        # A value that is taken back is the operator's default again.
        await tools.helm("rollback", "ledger", "1")
        await case.ready("ledger")
        assert (await case.image("ledger-api")).endswith(":1.0.0")
        worker = await case.api.get("Deployment", "ledger-worker")
        assert worker["spec"]["replicas"] == 1
        assert operator.refused() == []


async def test_the_definition_is_upgraded_with_the_chart(
    tools: Tools, case: Case, tmp_path: Path
) -> None:
    older = with_version(OPERATOR, tmp_path, "0.0.9")
    without_field(older, "suspended")
    await tools.helm("install", ACCOUNT, older)

    async def is_known(is_wanted: bool) -> bool:
        try:
            fields = await tools.kubectl("explain", "ppe.spec")
        except ToolError:  # the kind is not served yet
            return False
        return ("suspended" in fields) is is_wanted

    await eventually(partial(is_known, False))
    await case.apply({"replicas": 3})
    before = await case.api.get(names.KIND, "demo")
    await tools.helm("upgrade", ACCOUNT, OPERATOR)
    await eventually(partial(is_known, True))
    after = await case.api.get(names.KIND, "demo")
    assert after["metadata"]["uid"] == before["metadata"]["uid"]
    assert after["spec"].items() >= before["spec"].items()
    await case.apply({"replicas": 3, "suspended": True})
    # And back: what is newer is kept for whoever knows it, as no engine is written.
    await tools.helm("rollback", ACCOUNT, "1")
    await eventually(partial(is_known, False))
    # A release of another name takes the definition over when it is told to.
    await tools.helm("uninstall", ACCOUNT)
    with pytest.raises(ToolError, match="invalid ownership metadata"):
        await tools.helm("install", "other", OPERATOR)
    await tools.helm("install", "other", OPERATOR, "--take-ownership")
    await eventually(partial(is_known, True))
    assert (await case.api.get(names.KIND, "demo"))["metadata"]["uid"] == before["metadata"]["uid"]


async def test_a_release_without_the_definition_leaves_it_alone(tools: Tools, case: Case) -> None:
    await case.api.apply(crd.definition())
    before = await steady(partial(definition, case))
    listed = f"watchNamespaces={{{case.api.namespace}}}"
    await tools.helm("install", "second", OPERATOR, "--set", f"crds.enabled=false,{listed}")
    notes = await tools.helm("get", "notes", "second")
    assert "crds.enabled is off" in notes
    await tools.helm("upgrade", "second", OPERATOR, "--reuse-values", "--set", "replicaCount=2")
    await tools.helm("uninstall", "second")
    assert (await definition(case))["metadata"] == before["metadata"]


async def definition(case: Case) -> Manifest:
    return await case.api.get("CustomResourceDefinition", DEFINITION)
