"""Engines of which some are broken: none disturbs another; and no status tells of what is not yet so."""

import asyncio
import copy
from collections.abc import AsyncIterator
from contextlib import suppress

import pytest

from picopay_operator.conditions import Type
from support.controlplane.api_proxy import Refuses, proxied_api
from support.controlplane.api_server import Manifest, RefusedError
from support.controlplane.operating import Case, operating
from support.controlplane.plays import Exits, Runs
from support.controlplane.servers import ControlPlane
from support.waiting import eventually
from support.world import report

pytestmark = pytest.mark.usefixtures("definition")


@pytest.fixture
async def case(case: Case) -> Case:
    await case.secret()
    return case


@pytest.fixture
async def elsewhere(case: Case) -> AsyncIterator[Case]:
    """Return another namespace of the same operator."""
    name = f"{case.api.namespace}-elsewhere"
    await case.api.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
    other = Case(case.api.of(name), case.player)
    await other.secret()
    yield other
    await case.api.delete("Namespace", name)


@pytest.fixture
async def newer_definition(case: Case, definition: Manifest) -> AsyncIterator[None]:
    """Have the API server serve a definition that knows a strategy which this operator does not know."""
    plain = {key: definition[key] for key in ("apiVersion", "kind", "spec")}
    plain["metadata"] = {"name": definition["metadata"]["name"]}
    newer = copy.deepcopy(plain)
    (version,) = newer["spec"]["versions"]
    spec = version["schema"]["openAPIV3Schema"]["properties"]["spec"]
    spec["properties"]["rollout"]["properties"]["strategy"]["enum"].append("Canary")
    await case.api.apply(newer)
    yield
    await case.api.apply(plain)


@pytest.mark.usefixtures("newer_definition")
async def test_a_broken_engine_disturbs_no_other(
    control_plane: ControlPlane, case: Case, elsewhere: Case
) -> None:
    namespaces = (case.api.namespace, elsewhere.api.namespace)

    async def is_taken() -> bool:
        try:
            await case.apply({"rollout": {"strategy": "Canary"}}, "invalid")
        except RefusedError:  # the definition takes a moment to be served
            return False
        return True

    await eventually(is_taken)
    async with (
        proxied_api(control_plane) as proxy,
        operating(
            control_plane,
            case.api.namespace,
            proxy.configuration(),
            namespaces=namespaces,
            workers=1,
        ),
    ):
        proxy.fault = lambda asked: Refuses(500) if "/jobs/failing-" in asked.path else None
        await case.apply(name="failing")
        for one in (case, elsewhere):
            await one.apply({"version": "1.0.0"})
            await one.apply({"version": "1.0.0"}, "second")
        await case.until(Type.STALLED, "True", "InvalidSpec", name="invalid")
        await case.until(Type.READY, "False", "KubernetesApiError", name="failing")
        for one in (case, elsewhere):
            await one.ready()
            await one.ready("second")

        case.player.plays(Exits(0, report(release="1.1.0")), argument="migrate", image="1.1.0")
        for one in (case, elsewhere):
            await one.apply({"version": "1.1.0"})
            await one.ready()
            assert (await one.image()).endswith(":1.1.0")
            assert (await one.image("second-api")).endswith(":1.0.0")

        # And the broken ones get well again.
        proxy.heal()
        await case.apply({"rollout": {"strategy": "RollingUpdate"}}, "invalid")
        await case.ready("invalid")
        await case.ready("failing")


async def test_ready_is_never_ahead_of_the_rollout(control_plane: ControlPlane, case: Case) -> None:
    claims: list[int] = []

    async def follow(path: str, version: str) -> None:
        """Note each generation that is said to be ready."""
        async for kind, engine in case.api.watch(path, version):
            if kind == "BOOKMARK":
                continue
            generation, status = engine["metadata"]["generation"], engine["status"]
            if status["observedGeneration"] != generation:
                continue  # who waits for a generation waits on
            conditions = {one["type"]: one for one in status["conditions"]}
            for one in (Type.READY, Type.RECONCILING, Type.STALLED):
                assert conditions[one]["observedGeneration"] == generation, engine
            if conditions[Type.READY]["status"] == "True":
                claims.append(generation)

    async with operating(control_plane, case.api.namespace):
        await case.apply({"version": "1.0.0"})
        await case.ready()
        path = await case.api.path("PicoPayEngine")
        listed = await case.api.request("GET", path)
        following = asyncio.create_task(follow(path, listed["metadata"]["resourceVersion"]))

        case.player.plays(Runs(), argument="migrate", image="1.1.0")
        case.player.plays(Runs(ready=False), argument="serve", image="1.1.0")
        await case.apply({"version": "1.1.0"})
        await case.until(Type.READY, "False", "MigrationRunning")
        case.player.plays(Exits(0, report(release="1.1.0")), argument="migrate", image="1.1.0")
        await case.until(Type.SCHEMA_MIGRATED, "True")
        await case.until(Type.ROLLOUT_COMPLETE, "False")
        assert not claims
        case.player.plays(Runs(), argument="serve", image="1.1.0")
        await case.ready()

        async def is_told() -> bool:
            return bool(claims) or following.done()

        await eventually(is_told)
        following.cancel()
        with suppress(asyncio.CancelledError):
            await following
        assert set(claims) == {listed["items"][0]["metadata"]["generation"] + 1}
