"""Manifests on a real API server: it takes them without a remark, and has nothing to put otherwise.

What the API server writes otherwise than it was told would be taken for a change by somebody else, and be
applied again and again.
"""

from typing import Any

import msgspec
import pytest
import yaml

from picopay_operator import drift, names
from picopay_operator.manifests import api
from picopay_operator.manifests.context import Manifest
from picopay_operator.resources import OPTIONAL
from picopay_operator.spec.engine import Engine
from support.controlplane.api_server import ApiServer
from support.engines import ENGINES, context, manifests, source
from support.waiting import eventually

pytestmark = pytest.mark.usefixtures("definition")


async def created(api_server: ApiServer, name: str, **spec: Any) -> Engine:
    """Create one of the engines of the golden files; return it with the defaults of its definition."""
    document = yaml.safe_load(source(name))
    document["metadata"] = {"name": document["metadata"]["name"]}
    document["spec"].update(spec)
    return msgspec.convert(await api_server.create(document), Engine)


def required(made: Engine) -> list[Manifest]:
    """Return the marked manifests of an engine whose kinds every cluster has."""
    found = manifests(context(made))
    return [drift.marked(one) for one in found if one["kind"] not in OPTIONAL]


@pytest.mark.parametrize("name", [path.stem for path in ENGINES])
async def test_the_api_server_takes_manifests_as_they_are(api_server: ApiServer, name: str) -> None:
    made = await created(api_server, name, networkPolicy={"enabled": True})
    for wanted in required(made):
        live = await api_server.apply(wanted, names.FIELD_MANAGER)
        assert drift.differences(wanted, live) == [], wanted["kind"]
        again = await api_server.apply(wanted, names.FIELD_MANAGER)
        assert again["metadata"].get("generation") == live["metadata"].get("generation")
    assert api_server.warnings == []


async def test_defaults_of_the_definition_are_those_of_the_shapes(api_server: ApiServer) -> None:
    made = await created(api_server, "minimal")
    document = yaml.safe_load(source("minimal"))
    assert made.spec == msgspec.convert(document, Engine).spec


async def test_pods_are_let_into_a_namespace_that_is_restricted(api_server: ApiServer) -> None:
    made = await created(api_server, "minimal")
    for wanted in required(made):
        await api_server.apply(wanted, names.FIELD_MANAGER)

    async def all_there() -> bool:
        pods = await api_server.list("Pod")
        found = {pod["metadata"]["labels"][names.COMPONENT_LABEL] for pod in pods}
        return found == {component.value for component in names.Component}

    await eventually(all_there)


async def test_what_kubectl_writes_into_a_template_stays(api_server: ApiServer) -> None:
    decided = context(await created(api_server, "minimal"))
    wanted = drift.marked(api.deployment(decided))
    name = wanted["metadata"]["name"]
    await api_server.apply(wanted, names.FIELD_MANAGER)
    restarted = {names.RESTARTED_AT: "2026-11-25T10:00:00Z"}
    template = {"metadata": {"annotations": restarted}}
    await api_server.merge("Deployment", name, {"spec": {"template": template}})
    live = await api_server.apply(
        drift.marked(api.deployment(context(decided.engine, "9.9.9"))), names.FIELD_MANAGER
    )
    assert live["spec"]["template"]["metadata"]["annotations"].items() >= restarted.items()
