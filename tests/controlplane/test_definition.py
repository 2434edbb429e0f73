"""The definition of a `PicoPayEngine` on a real API server: taken, explained, filled in, shown, scaled."""

import copy
import json
import re
import subprocess
from typing import Any

import msgspec
import pytest

from picopay_operator import crd
from picopay_operator.spec.database import Database, DatabaseSecret
from picopay_operator.spec.engine import Engine, EngineSpec
from support.controlplane.api_server import ApiServer, Manifest, RefusedError
from support.controlplane.engine import SMALLEST, created, engine, overlaid, refusal
from support.controlplane.servers import ControlPlane
from support.kube_tools import program
from support.waiting import eventually

BYTES_MAX = 200_000  # a definition that `kubectl apply` can keep in an annotation beside itself
NOW = "2026-01-01T00:00:00Z"


class Kubectl:
    """kubectl in a namespace."""

    def __init__(self, plane: ControlPlane, namespace: str) -> None:
        self._command = [
            str(program("kubectl")),
            f"--kubeconfig={plane.admin_kubeconfig}",
            f"--cache-dir={plane.folder / 'kubectl'}",
            f"--namespace={namespace}",
        ]

    def __call__(self, *words: str, given: str = "") -> str:
        """Return what it prints."""
        ended = subprocess.run(
            [*self._command, *words],
            input=given,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert ended.returncode == 0, ended.stderr
        return ended.stdout

    def table(self, *words: str) -> list[list[str]]:
        """Return the cells of a table that it prints, with its head."""
        return [re.split(r"\s{2,}", line.strip()) for line in self(*words).splitlines()]


@pytest.fixture
def kubectl(control_plane: ControlPlane, api_server: ApiServer, definition: Manifest) -> Kubectl:
    assert definition
    return Kubectl(control_plane, api_server.namespace)


def condition(**fields: Any) -> Manifest:
    return {"observedGeneration": 1, "lastTransitionTime": NOW, **fields}


async def with_status(api_server: ApiServer, **fields: Any) -> None:
    """Create an engine that serves, and tells so."""
    await api_server.create(engine())
    ready = condition(type="Ready", status="True", reason="Applied", message="It takes payments.")
    status = {
        "observedGeneration": 1,
        "conditions": [ready],
        "replicas": 2,
        "readyReplicas": 1,
        "version": "0.1.0",
        "image": "picopay/picopay-api:0.1.0",
        "schema": {"current": "0001"},
        **fields,
    }
    whole = {key: value for key, value in engine().items() if key != "spec"}
    await api_server.apply({**whole, "status": status}, "picopay-operator", subresource="/status")


async def test_the_api_server_takes_it_as_it_is(definition: Manifest) -> None:
    conditions = {one["type"]: one["status"] for one in definition["status"]["conditions"]}
    assert conditions["NamesAccepted"] == "True"
    assert conditions["Established"] == "True"
    assert "NonStructuralSchema" not in conditions
    assert len(json.dumps(crd.definition())) < BYTES_MAX


async def test_nothing_of_it_is_left_out(definition: Manifest) -> None:
    wanted = crd.definition()["spec"]["versions"][0]
    assert definition["spec"]["versions"][0]["schema"] == wanted["schema"]


@pytest.mark.usefixtures("definition")
async def test_the_smallest_engine_is_filled_in_as_the_operator_would(
    api_server: ApiServer,
) -> None:
    kept = await api_server.create(engine())
    assert api_server.warnings == []
    read = msgspec.convert(kept, Engine)
    expected = EngineSpec(database=Database(secret_ref=DatabaseSecret(name="picopay-secrets")))
    assert read.spec == expected
    assert read.metadata.generation == 1
    assert kept["spec"]["database"]["secretRef"]["key"] == "database-url"
    assert kept["spec"]["rollout"]["strategy"] == "RollingUpdate"
    assert kept["spec"]["deletionPolicy"] == "Retain"
    assert kept["spec"]["replicas"] == 2  # without it, nobody could scale it


@pytest.mark.usefixtures("definition")
async def test_an_engine_needs_a_database(api_server: ApiServer) -> None:
    assert "spec.database: Required value" in await refusal(api_server, engine({}))


@pytest.mark.usefixtures("definition")
async def test_a_misspelt_field_is_told_and_not_kept(api_server: ApiServer) -> None:
    misspelt = engine(overlaid(SMALLEST, {"replica": 3}))
    assert 'unknown field "spec.replica"' in await refusal(api_server, misspelt)
    kept = await api_server.create(misspelt)
    assert "replica" not in kept["spec"]
    assert any('unknown field \\"spec.replica\\"' in warning for warning in api_server.warnings)


@pytest.mark.usefixtures("definition")
async def test_parts_of_pods_are_handed_on_as_they_are(api_server: ApiServer) -> None:
    term = {
        "weight": 1,
        "preference": {"matchExpressions": [{"key": "disk", "operator": "Exists"}]},
    }
    parts = {
        "affinity": {"nodeAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [term]}},
        "tolerations": [{"key": "payments", "operator": "Exists"}],
    }
    kept = await created(api_server, engine(overlaid(SMALLEST, parts)))
    assert {name: kept["spec"][name] for name in parts} == parts


@pytest.mark.usefixtures("definition")
async def test_a_change_of_the_status_is_no_new_generation(api_server: ApiServer) -> None:
    await with_status(api_server)
    kept = await api_server.get("PicoPayEngine", "demo")
    assert kept["metadata"]["generation"] == 1
    assert msgspec.convert(kept, Engine).status.conditions[0].reason == "Applied"
    changed = await api_server.merge("PicoPayEngine", "demo", {"spec": {"paused": True}})
    assert changed["metadata"]["generation"] == 2


@pytest.mark.usefixtures("definition")
async def test_the_spec_and_the_status_do_not_come_in_one(api_server: ApiServer) -> None:
    kept = await api_server.create({**engine(), "status": {"version": "9.9.9"}})
    assert "status" not in kept


async def test_it_is_shown_as_a_table(api_server: ApiServer, kubectl: Kubectl) -> None:
    await with_status(api_server)
    head, row = kubectl.table("get", "ppe")
    assert head == [
        "NAME", "READY", "REASON", "VERSION", "SCHEMA", "REPLICAS", "AVAILABLE", "AGE",
    ]  # fmt: skip
    assert row[:7] == ["demo", "True", "Applied", "0.1.0", "0001", "2", "1"]
    head, row = kubectl.table("get", "picopay", "-o", "wide")
    assert head[8:] == ["IMAGE", "MESSAGE"]
    assert row[8:] == ["picopay/picopay-api:0.1.0", "It takes payments."]


async def test_it_can_be_waited_for(api_server: ApiServer, kubectl: Kubectl) -> None:
    await with_status(api_server)
    said = kubectl("wait", "--for=condition=Ready", "--timeout=30s", "ppe/demo")
    assert "condition met" in said


async def test_it_can_be_scaled(api_server: ApiServer, kubectl: Kubectl) -> None:
    await with_status(api_server, selector="app.kubernetes.io/instance=demo")
    path = await api_server.path("PicoPayEngine", "demo")
    scale = await api_server.request("GET", f"{path}/scale")
    assert scale["status"] == {"replicas": 2, "selector": "app.kubernetes.io/instance=demo"}
    kubectl("scale", "ppe/demo", "--replicas=5")
    kept = await api_server.get("PicoPayEngine", "demo")
    assert kept["spec"]["replicas"] == 5


async def test_it_can_be_applied_by_whatever_people_have(
    api_server: ApiServer, kubectl: Kubectl
) -> None:
    text = json.dumps(engine())
    assert "created" in kubectl("apply", "-f", "-", given=text)
    assert "unchanged" in kubectl("apply", "-f", "-", given=text)
    assert "serverside-applied" in kubectl(
        "apply", "--server-side", "--force-conflicts", "-f", "-", given=text
    )
    assert (await api_server.get("PicoPayEngine", "demo"))["metadata"]["generation"] == 1


def test_every_field_is_explained(kubectl: Kubectl) -> None:
    for part in ("ppe", "ppe.spec", "ppe.status"):
        said = kubectl("explain", part)
        assert "<no description>" not in said
        assert "<empty>" not in said
    said = kubectl("explain", "ppe.spec.database")
    assert "exactly one of" in said
    assert "RDS, Cloud SQL" in said
    said = kubectl("explain", "ppe.spec.deletionPolicy")
    assert re.search(r"ENUM:\s+Retain\s+Delete", said)


def test_no_field_is_without_a_description() -> None:
    schema = crd.definition()["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    assert list(_undescribed(schema["properties"]["spec"], "spec")) == []
    assert list(_undescribed(schema["properties"]["status"], "status")) == []


def _undescribed(schema: Manifest, path: str) -> list[str]:
    found = []
    for name, part in schema.get("properties", {}).items():
        if not part.get("description", "").rstrip("`").endswith("."):
            found.append(f"{path}.{name}")
        found += _undescribed(part, f"{path}.{name}")
    return found + (_undescribed(schema["items"], f"{path}[]") if "items" in schema else [])


@pytest.mark.usefixtures("definition")
async def test_conditions_are_one_of_a_type(api_server: ApiServer) -> None:
    ready = condition(type="Ready", status="True", reason="Applied", message="")
    with pytest.raises(RefusedError, match="duplicate entries"):
        await with_status(api_server, conditions=[ready, ready])


async def test_engines_outlive_another_release_of_the_definition(
    api_server: ApiServer, definition: Manifest
) -> None:
    whole = {"metadata": {"name": definition["metadata"]["name"]}}
    whole |= {key: definition[key] for key in ("apiVersion", "kind", "spec")}
    older = copy.deepcopy(whole)
    fields = older["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]
    del fields["properties"]["monitoring"]

    async def knows(*, monitoring: bool) -> None:
        async def is_served() -> bool:
            kept = await created(api_server, engine(name="probe"))
            return ("monitoring" in kept["spec"]) is monitoring

        await eventually(is_served)

    await api_server.apply(older)
    await knows(monitoring=False)
    before = await api_server.create(engine(overlaid(SMALLEST, {"replicas": 3})))
    await api_server.apply(whole)
    await knows(monitoring=True)
    after = await api_server.get("PicoPayEngine", "demo")
    assert after["metadata"]["uid"] == before["metadata"]["uid"]
    assert after["metadata"]["generation"] == 1
    # What is new has its default, and nothing else has changed.
    assert after["spec"].pop("monitoring")["serviceMonitor"]["enabled"] is False
    assert after["spec"] == before["spec"]
    # And back: what the older one does not know goes, and the engine stays.
    await api_server.apply(older)
    await knows(monitoring=False)
    kept = await api_server.get("PicoPayEngine", "demo")
    assert (kept["metadata"]["uid"], kept["spec"]) == (before["metadata"]["uid"], before["spec"])
    await api_server.apply(whole)
    await knows(monitoring=True)
