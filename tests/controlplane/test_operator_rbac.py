"""The operator with the rights that its chart gives it, and no others: they are enough, and not too many."""

from collections.abc import AsyncIterator
from functools import partial

import pytest

from picopay_operator import names
from picopay_operator.conditions import Type
from support.controlplane.api_server import ApiServer, Manifest
from support.controlplane.engine import EVERY_KIND
from support.controlplane.operating import NAME, Case
from support.controlplane.player import Player
from support.controlplane.rights import ACCOUNT, granted
from support.controlplane.servers import ControlPlane
from support.waiting import eventually

pytestmark = pytest.mark.usefixtures("definition", "player")

_SPECS: dict[str, Manifest] = {
    "external": {},
    "own": {"database": {"secretRef": None, "postgres": {}}},
    "everything": EVERY_KIND,
}


@pytest.fixture
async def elsewhere(api_server: ApiServer) -> AsyncIterator[ApiServer]:
    """Return a client of another namespace than that of the operator."""
    name = f"{api_server.namespace}-elsewhere"
    await api_server.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
    yield api_server.of(name)
    if await api_server.find("Namespace", name):
        await api_server.delete("Namespace", name)


@pytest.mark.usefixtures("foreign_kinds")
async def test_the_rights_are_enough_in_all_namespaces(
    control_plane: ControlPlane, api_server: ApiServer, elsewhere: ApiServer, player: Player
) -> None:
    case = Case(elsewhere, player)
    async with granted(control_plane, api_server) as operator:
        await case.secret()
        for name, spec in _SPECS.items():
            await case.apply(spec, name)
        for name in _SPECS:
            await case.ready(name)
        monitored = (await case.conditions("everything"))[Type.MONITORED]
        assert monitored["status"] == "True", monitored
        refused = operator.refused(elsewhere.namespace)
        assert {one.partition("/secrets")[1] for one in refused} == {"/secrets"}, refused
        # Secrets are nobody's affair where there is no engine.
        for namespace, status in ((elsewhere.namespace, 200), (api_server.namespace, 403)):
            assert await operator.reads_secrets(namespace) == status
        first, *others = _SPECS
        await elsewhere.delete("PicoPayEngine", first)
        await eventually(partial(case.is_gone, first))
        assert operator.refused(elsewhere.namespace) == refused
        assert await elsewhere.find("RoleBinding", names.SECRETS_ROLE)
        for name in others:
            await elsewhere.delete("PicoPayEngine", name)
        for name in others:
            await eventually(partial(case.is_gone, name))
        # The right goes with the last one; who goes at the same time may have had to take it again.
        assert await elsewhere.find("RoleBinding", names.SECRETS_ROLE) is None
        refused = operator.refused(elsewhere.namespace)
        assert {one.partition("/secrets")[1] for one in refused} == {"/secrets"}, refused


async def test_the_rights_are_enough_in_listed_namespaces(
    control_plane: ControlPlane, api_server: ApiServer, elsewhere: ApiServer, player: Player
) -> None:
    home, other = Case(api_server, player), Case(elsewhere, player)
    async with granted(control_plane, api_server, api_server.namespace) as operator:
        assert await api_server.find("ClusterRole", ACCOUNT) is None
        for case in (home, other):
            await case.secret()
            await case.apply()
        await home.ready()
        await home.api.delete("PicoPayEngine", NAME)
        await eventually(home.is_gone)
        assert operator.refused() == []
        # It does not look at another namespace, and nobody lets it.
        found = await elsewhere.get("PicoPayEngine", NAME)
        assert "status" not in found
        assert "finalizers" not in found["metadata"]
        assert not await elsewhere.list("Deployment")


async def test_the_right_to_secrets_goes_though_the_operator_dies_on_the_way(
    control_plane: ControlPlane, api_server: ApiServer, elsewhere: ApiServer, player: Player
) -> None:
    case = Case(elsewhere, player)
    async with granted(control_plane, api_server) as operator:
        await case.secret()
        await case.apply()
        await case.ready()
        # It gives the right up, and can do nothing more.
        operator.proxy.last = lambda one: one.asked.method == "DELETE" and one.changes
        await elsewhere.delete("PicoPayEngine", NAME)
        await operator.proxy.ended.wait()
        assert await elsewhere.find("RoleBinding", names.SECRETS_ROLE) is None
        assert await elsewhere.find("PicoPayEngine", NAME)
    async with granted(control_plane, api_server):
        await eventually(case.is_gone)
        assert await elsewhere.find("RoleBinding", names.SECRETS_ROLE) is None


async def test_a_binding_of_somebody_elses_stays(
    control_plane: ControlPlane, api_server: ApiServer, elsewhere: ApiServer, player: Player
) -> None:
    case = Case(elsewhere, player)
    async with granted(control_plane, api_server):
        group = "rbac.authorization.k8s.io"
        role = {"apiGroup": group, "kind": "ClusterRole", "name": names.SECRETS_ROLE}
        account = {"kind": "ServiceAccount", "name": ACCOUNT, "namespace": api_server.namespace}
        await elsewhere.create(
            {
                "apiVersion": f"{group}/v1",
                "kind": "RoleBinding",
                "metadata": {"name": names.SECRETS_ROLE},
                "roleRef": role,
                "subjects": [account],
            }
        )
        await case.secret()
        await case.apply()
        await case.ready()
        await elsewhere.delete("PicoPayEngine", NAME)
        await eventually(case.is_gone)
        assert await elsewhere.find("RoleBinding", names.SECRETS_ROLE)


async def test_an_engine_goes_with_its_namespace(
    control_plane: ControlPlane, api_server: ApiServer, elsewhere: ApiServer, player: Player
) -> None:
    case = Case(elsewhere, player)
    async with granted(control_plane, api_server):
        await case.secret()
        await case.apply()
        await case.ready()
        await elsewhere.delete("Namespace", elsewhere.namespace)

        async def is_gone() -> bool:
            return await elsewhere.find("Namespace", elsewhere.namespace) is None

        await eventually(is_gone)


async def test_a_right_that_is_missing_is_named_and_comes_later(
    control_plane: ControlPlane, api_server: ApiServer, elsewhere: ApiServer, player: Player
) -> None:
    case = Case(elsewhere, player)
    async with granted(control_plane, api_server):
        role = await api_server.get("ClusterRole", ACCOUNT)
        rules = role["rules"]
        fewer = [rule for rule in rules if "services" not in rule["resources"]]
        await api_server.merge("ClusterRole", ACCOUNT, {"rules": fewer})
        await case.secret()
        await case.apply()
        refused = await case.until(Type.READY, "False", "PermissionDenied")
        assert "services" in refused["message"]
        await api_server.merge("ClusterRole", ACCOUNT, {"rules": rules})
        await case.ready()
