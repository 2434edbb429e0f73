"""What happens to an engine in its life: Secrets that change, pauses, an operator that was away, its end."""

import pytest

from picopay_operator import names
from picopay_operator.__main__ import Operator
from picopay_operator.conditions import Type
from support.controlplane.api_server import Manifest
from support.controlplane.engine import SMALLEST, engine
from support.controlplane.operating import NAME, Case, operating, steady
from support.controlplane.servers import ControlPlane
from support.waiting import eventually

pytestmark = pytest.mark.usefixtures("definition")

_OTHER: Manifest = {"database": {"secretRef": {"name": "other"}}}
_POSTGRES: Manifest = {"database": {"secretRef": None, "postgres": {}}}
_FOREIGN = "example.com/keep"


@pytest.fixture
async def case(case: Case) -> Case:
    await case.secret()
    return case


async def data_hash(case: Case, name: str = NAME) -> str:
    """Return what tells pods of one Secret from those of another."""
    found = await case.api.get("Deployment", f"{name}-api")
    return str(found["spec"]["template"]["metadata"]["annotations"][names.DATA_HASH])


async def until_other(case: Case, before: str, name: str = NAME) -> None:
    async def is_other() -> bool:
        return await data_hash(case, name) != before

    await eventually(is_other)
    await case.ready(name)


async def test_a_secret_is_followed_by_all_that_refer_to_it_and_only_while_they_do(
    operator: Operator, case: Case
) -> None:
    await case.secret("other", database_url="postgresql://picopay@other/picopay")
    for name in (NAME, "second"):
        await case.apply(name=name)
    for name in (NAME, "second"):
        await case.ready(name)
    before = {name: await data_hash(case, name) for name in (NAME, "second")}
    assert len(set(before.values())) == 1

    # One Secret, two engines.
    await case.secret(database_url="postgresql://picopay@moved/picopay")
    for name, was in before.items():
        await until_other(case, was, name)

    # An engine that refers to another one from now on leaves the first one alone; the other goes on.
    moved = await data_hash(case)
    await case.apply(_OTHER)
    await until_other(case, moved)
    retargeted = await data_hash(case)
    migrations = await case.jobs("migrate")
    was = await data_hash(case, "second")
    await case.secret(database_url="postgresql://picopay@again/picopay")
    await until_other(case, was, "second")
    assert await data_hash(case) == retargeted
    assert set(await case.jobs("migrate")) & set(migrations) == {
        job for job in migrations if job.startswith(f"{NAME}-")
    }

    async def requests() -> int:
        return operator._client.requests

    # A Secret that nobody refers to is nobody's affair.
    quiet = await steady(requests)
    await case.secret("stranger", anything="x")
    assert await steady(requests) == quiet


@pytest.mark.usefixtures("operator")
async def test_a_paused_engine_is_left_as_it_is(case: Case) -> None:
    await case.apply({"paused": True})
    await case.until(Type.PAUSED, "True", "Paused")
    assert await steady(lambda: case.api.list("Deployment")) == []
    assert await case.jobs("migrate") == []
    await case.apply({})
    await case.ready()
    await case.apply({"paused": True, "replicas": 3})
    await case.until(Type.READY, "False", "Paused")
    await case.api.delete("Service", f"{NAME}-worker")
    await steady(case.versions)
    assert not await case.api.find("Service", f"{NAME}-worker")
    found = await case.api.get("Deployment", f"{NAME}-api")
    assert found["spec"]["replicas"] == 2
    await case.apply({"replicas": 3})
    await case.ready()
    assert await case.api.find("Service", f"{NAME}-worker")
    told = await case.events()
    assert (told.count("Paused"), told.count("Resumed")) == (2, 2)


@pytest.mark.usefixtures("operator")
async def test_a_suspended_engine_has_no_pods_and_keeps_its_data(case: Case) -> None:
    await case.apply(_POSTGRES)
    await case.ready()
    kept = {}
    for kind in ("PersistentVolumeClaim", "Secret"):
        for one in await case.api.list(kind, f"{names.ENGINE_LABEL}={NAME}"):
            kept[kind, one["metadata"]["name"]] = one["metadata"]["uid"]
    assert len(kept) == 3

    async def serving() -> list[Manifest]:
        parts = f"{names.COMPONENT_LABEL} in (api, worker)"
        return await case.api.list("Pod", parts)

    await case.apply({**_POSTGRES, "suspended": True})
    await case.until(Type.READY, "False", "Suspended")

    async def are_gone() -> bool:
        return not await serving()

    await eventually(are_gone)
    for (kind, name), uid in kept.items():
        assert (await case.api.get(kind, name))["metadata"]["uid"] == uid
    await case.apply(_POSTGRES)
    await case.ready()
    assert len(await serving()) == 3


async def test_what_has_happened_while_the_operator_was_away_is_made_up_for(
    control_plane: ControlPlane, case: Case
) -> None:
    async with operating(control_plane, case.api.namespace):
        for name in (NAME, "second"):
            await case.apply({"version": "1.0.0"}, name)
            await case.ready(name)
    before = await data_hash(case)
    await case.apply({"version": "1.1.0"})
    await case.secret(database_url="postgresql://picopay@moved/picopay")
    await case.api.delete("Service", f"{NAME}-api")
    await case.api.delete("PicoPayEngine", "second")
    await case.apply(name="third")
    # It waits for whoever has to see to its data.
    assert await case.api.find("PicoPayEngine", "second")
    async with operating(control_plane, case.api.namespace):
        await until_other(case, before)
        assert (await case.image()).endswith(":1.1.0")
        assert await case.api.find("Service", f"{NAME}-api")
        await eventually(lambda: case.is_gone("second"))
        await case.ready("third")


async def test_a_namespace_goes_when_the_operator_is_back(
    control_plane: ControlPlane, case: Case
) -> None:
    name = f"{case.api.namespace}-going"
    await case.api.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
    going = Case(case.api.of(name), case.player)
    namespaces = (case.api.namespace, name)
    await going.secret()
    async with operating(control_plane, case.api.namespace, namespaces=namespaces):
        await going.apply(_POSTGRES)
        await going.ready()
    await case.api.delete("Namespace", name)

    async def pods_are_gone() -> bool:
        return not await going.api.list("Pod")

    await eventually(pods_are_gone)
    assert await going.api.find("PicoPayEngine", NAME)
    async with operating(control_plane, case.api.namespace, namespaces=namespaces):

        async def is_gone() -> bool:
            return await case.api.find("Namespace", name) is None

        await eventually(is_gone)


async def test_a_finalizer_of_somebody_else_is_left_to_them(operator: Operator, case: Case) -> None:
    theirs = engine(SMALLEST)
    theirs["metadata"]["finalizers"] = [_FOREIGN]
    await case.api.create(theirs)
    await case.ready()
    found = await case.api.get("PicoPayEngine", NAME)
    assert set(found["metadata"]["finalizers"]) == {_FOREIGN, names.FINALIZER}
    await case.api.delete("PicoPayEngine", NAME)

    async def is_let_go() -> bool:
        found = await case.api.get("PicoPayEngine", NAME)
        return bool(found["metadata"]["finalizers"] == [_FOREIGN])

    await eventually(is_let_go)
    await case.until(Type.READY, "False", "Deleting")

    async def requests() -> int:
        return operator._client.requests

    # It neither takes ours up again, nor is it busy with an engine that is on its way out.
    await steady(requests)
    assert await is_let_go()
    await case.api.merge("PicoPayEngine", NAME, {"metadata": {"finalizers": None}})
    await eventually(case.is_gone)


async def test_two_operators_have_each_their_own_namespaces(
    control_plane: ControlPlane, operator: Operator, case: Case
) -> None:
    name = f"{case.api.namespace}-other"
    await case.api.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
    other = Case(case.api.of(name), case.player)
    await other.secret()
    async with operating(control_plane, name) as second:
        for one in (case, other):
            await one.apply({"version": "1.0.0"})
        for one in (case, other):
            await one.ready()
        assert operator._cache.referring("Secret") == {case.api.namespace}
        assert second._cache.referring("Secret") == {name}
        lease = await other.api.get("Lease", names.FIELD_MANAGER)
        assert lease["spec"]["holderIdentity"]
    # Where one is gone, the other does not take over what is not its own.
    await other.apply({"version": "1.1.0"})
    await case.apply({"version": "1.1.0"})
    await case.ready()
    assert (await other.image()).endswith(":1.0.0")
    await other.api.merge("PicoPayEngine", NAME, {"metadata": {"finalizers": None}})
    await case.api.delete("Namespace", name)
