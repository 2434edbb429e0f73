"""What the operator has made stays as it is wanted, whoever deletes or changes it and whatever others add."""

import copy
from collections.abc import AsyncIterator
from typing import Any

import pytest

from picopay_operator import names
from picopay_operator.__main__ import Operator
from picopay_operator.cache import Key
from picopay_operator.conditions import Type
from picopay_operator.resources import CHILDREN, OPTIONAL, RESOURCES, Ref
from support.controlplane.api_server import ApiServer, Manifest, RefusedError
from support.controlplane.engine import EVERY_KIND
from support.controlplane.operating import NAME, Case, operating
from support.controlplane.plugin import foreign_kinds_served
from support.controlplane.servers import ControlPlane
from support.waiting import eventually

pytestmark = pytest.mark.usefixtures("definition")

_EVERYTHING: Manifest = {**EVERY_KIND, "database": {"secretRef": None, "postgres": {}}}
_CHANGES: dict[str, tuple[tuple[str, ...], Any]] = {
    "Deployment": (("spec", "template", "spec", "automountServiceAccountToken"), True),
    "StatefulSet": (("spec", "template", "spec", "enableServiceLinks"), True),
    "Service": (("spec", "selector"), {"somebody": "else"}),
    "Secret": (("metadata", "labels", names.PART_OF_LABEL), "something"),
    "ConfigMap": (("data",), None),
    "Ingress": (("spec", "rules"), [{"host": "evil.example.com"}]),
    "NetworkPolicy": (("spec", "podSelector", "matchLabels"), {"somebody": "else"}),
    "PodDisruptionBudget": (("spec", "selector", "matchLabels"), {"somebody": "else"}),
    "HorizontalPodAutoscaler": (("spec", "maxReplicas"), 99),
    "HTTPRoute": (("spec", "hostnames"), ["evil.example.com"]),
    "ServiceMonitor": (("spec", "endpoints"), []),
    "PrometheusRule": (("spec", "groups"), []),
}
_NOT_CHANGED = {"Job", "PersistentVolumeClaim"}
"""Of these all that the operator cares for cannot be changed by anybody."""

_THEIRS = "example.com/theirs"


class Children:
    """All that belongs to an engine, but for its pods."""

    def __init__(self, api: ApiServer) -> None:
        self._api = api

    async def all(self) -> dict[Ref, Manifest]:
        found: dict[Ref, Manifest] = {}
        for kind in (*(one.kind for one in CHILDREN if one.kind != "Pod"), "Secret"):
            query = {"labelSelector": f"{names.ENGINE_LABEL}={NAME}"}
            path = RESOURCES[kind].path(self._api.namespace)
            try:
                listed = await self._api.request("GET", path, params=query)
            except RefusedError:  # a kind that is not there
                assert kind in OPTIONAL
                continue
            found |= {Ref(kind, one["metadata"]["name"]): one for one in listed["items"]}
        return found

    async def merge(self, ref: Ref, patch: Manifest) -> None:
        await self._api.request(
            "PATCH",
            RESOURCES[ref.kind].path(self._api.namespace, ref.name),
            json=patch,
            headers={"Content-Type": "application/merge-patch+json"},
        )

    async def delete(self, ref: Ref) -> None:
        path = RESOURCES[ref.kind].path(self._api.namespace, ref.name)
        await self._api.request("DELETE", path, json={"propagationPolicy": "Background"})


def nested(path: tuple[str, ...], value: Any) -> Manifest:
    for key in reversed(path):
        value = {key: value}
    result: Manifest = value
    return result


def at(found: Manifest, path: tuple[str, ...]) -> Any:
    value: Any = found
    for key in path:
        value = value.get(key)
    return value


@pytest.fixture
async def operator(control_plane: ControlPlane, case: Case) -> AsyncIterator[Operator]:
    async with operating(control_plane, case.api.namespace, namespaces=()) as operator:
        yield operator


@pytest.fixture
async def everything(case: Case) -> AsyncIterator[dict[Ref, Manifest]]:
    """Return what belongs to an engine that wants everything, once an operator has it serve."""
    await case.apply(_EVERYTHING)
    # Until the optional kinds are installed it serves, and says what is missing.
    await case.until(Type.EXPOSED, "False", "OptionalAPIMissing")
    await case.until(Type.MONITORED, "False", "OptionalAPIMissing")
    await case.until(Type.AVAILABLE, "True")
    async with foreign_kinds_served(case.api):
        await case.until(Type.MONITORED, "True")
        await case.ready()
        yield await Children(case.api).all()


@pytest.mark.usefixtures("operator")
async def test_every_kind_is_repaired_and_what_others_add_stays(
    case: Case, everything: dict[Ref, Manifest]
) -> None:
    children = Children(case.api)
    kinds = {ref.kind for ref in everything}
    # Whoever teaches the operator another kind says here what could be done to it.
    assert (
        {*_CHANGES, *_NOT_CHANGED}
        == kinds
        == {one.kind for one in CHILDREN}
        - {
            "Pod",
            "Cluster",
        }
        | {"Secret"}
    )
    for ref, child in everything.items():
        theirs: Manifest = {"metadata": {"annotations": {_THEIRS: "kept"}}}
        if ref.kind == "Deployment":
            containers = copy.deepcopy(child["spec"]["template"]["spec"]["containers"])
            sidecar = {key: containers[0][key] for key in ("image", "resources", "securityContext")}
            containers.append({"name": "sidecar", **sidecar})
            theirs["spec"] = {"template": {"spec": {"containers": containers}}}
        await children.merge(ref, theirs)
        if ref.kind in _CHANGES:
            await children.merge(ref, nested(*_CHANGES[ref.kind]))

    async def unrepaired() -> list[Ref]:
        found = await children.all()
        return [
            ref
            for ref, before in everything.items()
            if ref.kind in _CHANGES
            and at(found[ref], _CHANGES[ref.kind][0]) != at(before, _CHANGES[ref.kind][0])
        ]

    async def is_repaired() -> bool:
        return not await unrepaired()

    try:
        await eventually(is_repaired)
    except TimeoutError as error:
        error.add_note(f"{await unrepaired()}")
        raise
    await case.ready()
    for ref, child in (await children.all()).items():
        assert child["metadata"].get("annotations", {}).get(_THEIRS) == "kept", ref
        if ref.kind == "Deployment":
            containers = child["spec"]["template"]["spec"]["containers"]
            assert [one["name"] for one in containers][1:] == ["sidecar"]


@pytest.mark.usefixtures("operator")
async def test_every_kind_is_made_again(case: Case, everything: dict[Ref, Manifest]) -> None:
    children = Children(case.api)
    # A volume is never made anew, nor the password that it knows.
    data = {"PersistentVolumeClaim": "data-demo-postgres-0", "Secret": names.postgres(NAME)}
    gone = {ref: one for ref, one in everything.items() if data.get(ref.kind) != ref.name}
    assert {ref.kind for ref in gone} == {ref.kind for ref in everything} - {
        "PersistentVolumeClaim"
    }
    for ref in gone:
        await children.delete(ref)

    async def are_back() -> bool:
        found = await children.all()
        return all(
            found[ref]["metadata"]["uid"] != one["metadata"]["uid"] if ref in found else False
            for ref, one in gone.items()
            if "-key-"
            not in ref.name  # the name of this Job is that of the key, which is a new one
        )

    await eventually(are_back)
    await case.ready()
    found = await children.all()
    for kind, name in data.items():
        assert (
            found[Ref(kind, name)]["metadata"]["uid"]
            == everything[Ref(kind, name)]["metadata"]["uid"]
        )
    assert "DriftCorrected" not in await case.events()


async def test_looks_leave_the_number_of_an_autoscaler_alone(
    operator: Operator, case: Case
) -> None:
    await case.secret()
    await case.apply({"autoscaling": {"minReplicas": 3, "maxReplicas": 9}})
    await case.ready()
    await case.api.merge("Deployment", f"{NAME}-api", {"spec": {"replicas": 5}})
    for _ in range(5):
        reads = operator._client.requests
        operator._queue.wake(Key(case.api.namespace, NAME))

        async def has_looked(reads: int = reads) -> bool:
            return operator._client.requests > reads and not operator._queue.depth

        await eventually(has_looked)
        found = await case.api.get("Deployment", f"{NAME}-api")
        assert found["spec"]["replicas"] == 5
    # And a change of something else, which is applied, does so, too.
    await case.apply({"autoscaling": {"minReplicas": 3, "maxReplicas": 9}, "logLevel": "DEBUG"})
    await case.ready()
    found = await case.api.get("Deployment", f"{NAME}-api")
    assert found["spec"]["replicas"] == 5
