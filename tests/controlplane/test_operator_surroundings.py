"""What is around an operator and not its own: an old definition, rules of the cluster, hands that meddle."""

import asyncio
import copy
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import pytest

from picopay_operator import names
from picopay_operator.conditions import Type
from support.controlplane.api_proxy import Refuses, proxied_api
from support.controlplane.api_server import Manifest, RefusedError
from support.controlplane.operating import NAME, Case, operating, steady
from support.controlplane.servers import ControlPlane
from support.waiting import eventually

pytestmark = pytest.mark.usefixtures("definition")

_API = names.api(NAME)
_VARIABLE = "PICOPAY_QUEUE_COMMANDS_MAX"
_BOTH = (names.ENGINE_LABEL, names.MANAGED_BY_LABEL)
_WHILE_S = 3.0
_FEW = 5


@pytest.fixture
async def case(case: Case) -> Case:
    await case.secret()
    return case


@pytest.fixture
async def older_definition(case: Case, definition: Manifest) -> AsyncIterator[Manifest]:
    """Have the API server serve a definition that lacks a field of the status; return the one of now."""
    plain = {key: definition[key] for key in ("apiVersion", "kind", "spec")}
    plain["metadata"] = {"name": definition["metadata"]["name"]}
    older = copy.deepcopy(plain)
    (version,) = older["spec"]["versions"]
    del version["schema"]["openAPIV3Schema"]["properties"]["status"]["properties"]["endpoint"]
    await case.api.apply(older)
    yield plain
    await case.api.apply(plain)


@asynccontextmanager
async def policy(
    case: Case, kind: str, resources: str, spec: Manifest, *actions: str
) -> AsyncIterator[None]:
    """Have a policy for the namespace until the end of the block; not all at once does it count."""
    name = f"{case.api.namespace}-policy"
    group = "admissionregistration.k8s.io/v1"
    rule = {"apiGroups": ["*"], "apiVersions": ["*"], "operations": ["CREATE", "UPDATE"]}
    matched = {
        "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": case.api.namespace}},
        "resourceRules": [rule | {"resources": [resources]}],
    }
    kinds = (f"{kind}AdmissionPolicy", f"{kind}AdmissionPolicyBinding")
    bound = {"policyName": name, **({"validationActions": actions} if actions else {})}
    for one, content in zip(kinds, ({"matchConstraints": matched, **spec}, bound), strict=True):
        head = {"apiVersion": group, "kind": one, "metadata": {"name": name}}
        await case.api.create(head | {"spec": content})
    try:
        yield
    finally:
        for one in kinds:
            await case.api.delete(one, name)


async def test_a_definition_that_is_older_than_the_operator_is_named(
    control_plane: ControlPlane, case: Case, older_definition: Manifest
) -> None:
    async with operating(control_plane, case.api.namespace):
        await case.apply()
        stalled = await case.until(Type.STALLED, "True", "DefinitionOutdated")
        assert "it lacks status.endpoint; apply the definition" in stalled["message"]
        assert (await case.events()).count("DefinitionOutdated") == 1
        await case.api.apply(older_definition)
        await case.ready()
        found = await case.api.get("PicoPayEngine", NAME)
        assert found["status"]["endpoint"]


async def test_an_operator_that_was_there_before_the_definition_waits_for_it(
    control_plane: ControlPlane, case: Case
) -> None:
    async with proxied_api(control_plane) as proxy:
        kinds = f"/apis/{names.API_VERSION}"
        proxy.fault = lambda asked: Refuses(404) if asked.path == kinds else None
        async with operating(control_plane, case.api.namespace, proxy.configuration()):

            async def has_asked() -> bool:
                return len(proxy.refused(404)) > 1

            await eventually(has_asked)
            proxy.heal()
            await case.apply()
            await case.ready()


@pytest.mark.usefixtures("operator")
async def test_a_quota_is_no_missing_right(case: Case) -> None:
    quota = {"metadata": {"name": "few"}, "spec": {"hard": {"count/deployments.apps": "0"}}}
    await case.api.create({"apiVersion": "v1", "kind": "ResourceQuota", **quota})

    async def counts() -> bool:
        return "hard" in (await case.api.get("ResourceQuota", "few")).get("status", {})

    await eventually(counts)
    await case.apply()
    denied = await case.until(Type.READY, "False", "AdmissionDenied")
    assert "exceeded quota: few" in denied["message"]
    await case.until(Type.STALLED, "False", "AdmissionDenied")
    await case.api.delete("ResourceQuota", "few")
    await case.ready()


@pytest.mark.usefixtures("operator")
async def test_a_policy_is_no_missing_right(case: Case) -> None:
    validation = {"expression": "false", "message": "Services are not for everybody"}
    async with policy(case, "Validating", "services", {"validations": [validation]}, "Deny"):

        async def counts() -> bool:
            service = {"metadata": {"name": "any"}, "spec": {"ports": [{"port": 80}]}}
            try:
                await case.api.create(
                    {"apiVersion": "v1", "kind": "Service", **service}, dryRun="All"
                )
            except RefusedError:
                return True
            return False

        await eventually(counts)
        await case.apply()
        denied = await case.until(Type.READY, "False", "AdmissionDenied")
        assert "Services are not for everybody" in denied["message"]
    await case.ready()


@pytest.mark.usefixtures("operator")
async def test_a_policy_that_rewrites_images_is_named_and_not_fought(
    case: Case,
) -> None:
    image = "object.spec.template.spec.containers[0].image"
    patch = f"""[JSONPatch{{op: "replace", path: "/spec/template/spec/containers/0/image",
        value: {image}.startsWith("mirror/") ? {image} : "mirror/" + {image}}}]"""
    mutations = [{"patchType": "JSONPatch", "jsonPatch": {"expression": patch}}]
    spec = {"reinvocationPolicy": "Never", "mutations": mutations}
    async with policy(case, "Mutating", "deployments", spec):

        async def counts() -> bool:
            made = await case.api.create(deployment(), dryRun="All")
            (container,) = made["spec"]["template"]["spec"]["containers"]
            return str(container["image"]).startswith("mirror/")

        await eventually(counts)
        await case.apply()
        undone = await case.until(Type.STALLED, "True", "ChangesUndone")
        assert "Deployment demo-" in undone["message"]
        assert ".image" in undone["message"]
        told = await steady(case.events)
        assert told.count("ChangesUndone") == 1
    # What is tried again now and then succeeds as soon as nobody is against it.
    await case.annotate(retry="now")
    await case.ready()
    assert not (await case.image()).startswith("mirror/")


async def test_somebody_who_edits_back_each_time_does_not_keep_the_operator_busy(
    control_plane: ControlPlane, case: Case
) -> None:
    edits = 0

    async def edit_back(path: str, version: str) -> None:
        nonlocal edits
        async for kind, service in case.api.watch(path, version):
            if kind == "MODIFIED" and service["spec"]["ports"][0]["targetPort"] != "evil":
                edits += 1
                await change_port(case, "targetPort", "evil")

    async with operating(control_plane, case.api.namespace):
        await case.apply()
        await case.ready()
        path = await case.api.path("Service")
        listed = await case.api.request("GET", path)
        editing = asyncio.create_task(edit_back(path, listed["metadata"]["resourceVersion"]))
        await change_port(case, "targetPort", "evil")
        undone = await case.until(Type.STALLED, "True", "ChangesUndone")
        assert "Service demo-api" in undone["message"]
        # From now on each edit wakes it, and yet it leaves that alone for a while.
        before = edits
        await asyncio.sleep(_WHILE_S)
        assert edits - before <= _FEW
        assert (await case.events()).count("DriftCorrected") == 1
        editing.cancel()
        with suppress(asyncio.CancelledError):
            await editing
        await case.annotate(retry="now")
        await case.ready()


@pytest.mark.usefixtures("operator")
async def test_a_port_that_got_another_number_is_put_back(case: Case) -> None:
    await case.apply()
    await case.ready()
    before = (await case.api.get("Service", _API))["spec"]["ports"]
    await change_port(case, "port", 81)

    async def is_back() -> bool:
        return bool((await case.api.get("Service", _API))["spec"]["ports"] == before)

    await eventually(is_back)
    await case.ready()


async def change_port(case: Case, field: str, value: Any) -> None:
    """Change a port of the Service by hand."""
    await case.api.request(
        "PATCH",
        await case.api.path("Service", _API),
        content=json.dumps([{"op": "replace", "path": f"/spec/ports/0/{field}", "value": value}]),
        headers={"Content-Type": "application/json-patch+json"},
    )


def deployment() -> Manifest:
    """Return a Deployment that the namespace admits."""
    labels = {"app": "any"}
    security = {
        "allowPrivilegeEscalation": False,
        "runAsNonRoot": True,
        "capabilities": {"drop": ["ALL"]},
        "seccompProfile": {"type": "RuntimeDefault"},
    }
    container = {"name": "any", "image": "any:1", "securityContext": security}
    template = {"metadata": {"labels": labels}, "spec": {"containers": [container]}}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "any"},
        "spec": {"selector": {"matchLabels": labels}, "template": template},
    }


@pytest.mark.usefixtures("operator")
@pytest.mark.parametrize("labels", [[names.ENGINE_LABEL], [names.MANAGED_BY_LABEL], list(_BOTH)])
async def test_a_label_that_was_taken_off_is_put_back(case: Case, labels: list[str]) -> None:
    await case.apply()
    await case.ready()
    kinds = {"Deployment": _API, "Service": _API, "PodDisruptionBudget": _API}
    before = {kind: await case.api.get(kind, name) for kind, name in kinds.items()}
    for kind, name in kinds.items():
        taken = {"metadata": {"labels": dict.fromkeys(labels)}}
        await case.api.merge(kind, name, taken)

    async def are_back() -> bool:
        found = [await case.api.get(kind, name) for kind, name in kinds.items()]
        return all(label in one["metadata"]["labels"] for one in found for label in labels)

    await eventually(are_back)
    await case.ready()
    for kind, name in kinds.items():
        found = await case.api.get(kind, name)
        assert found["metadata"]["uid"] == before[kind]["metadata"]["uid"]
    assert "AdoptionRefused" not in await case.events()


@pytest.mark.usefixtures("operator")
async def test_a_config_map_is_waited_for_and_rolls_the_pods(case: Case) -> None:
    reference = {"name": "tuning", "key": "commands"}
    variable = {"name": _VARIABLE, "valueFrom": {"configMapKeyRef": reference}}

    async def tune(**data: str) -> None:
        head = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "tuning"}}
        await case.api.apply(head | {"data": data})

    async def data_hash() -> str:
        found = await case.api.get("Deployment", _API)
        template = found["spec"]["template"]["metadata"]
        return str(template["annotations"][names.DATA_HASH])

    await case.apply({"env": [variable]})
    missing = await case.until(Type.READY, "False", "ConfigMapNotFound")
    assert "create it with the key commands" in missing["message"]
    await tune(other="1")
    await case.until(Type.READY, "False", "ConfigMapKeyMissing")
    await tune(commands="1000")
    await case.ready()
    before = await data_hash()
    await tune(commands="1000", other="2")
    assert await steady(data_hash) == before
    await tune(commands="2000")

    async def has_changed() -> bool:
        return await data_hash() != before

    await eventually(has_changed)
    await case.ready()
