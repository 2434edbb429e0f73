"""Two operators, of which one works: it is killed, or asked to end, and the other one goes on."""

import socket
from contextlib import AsyncExitStack
from pathlib import Path

import httpx
import pytest

from picopay_operator import health, names
from picopay_operator.conditions import Type
from support.controlplane.api_proxy import Asked, Swallows, proxied_api
from support.controlplane.operating import Case, operating
from support.controlplane.operator_process import OperatorProcess, operator_process
from support.controlplane.plays import Exits, Runs
from support.controlplane.servers import ControlPlane
from support.waiting import eventually
from support.world import report

pytestmark = pytest.mark.usefixtures("definition")

_QUIET_S = 6.0  # three times as long as the Lease is left alone


async def test_a_standby_goes_on_where_the_leader_ends(
    control_plane: ControlPlane, case: Case, tmp_path: Path
) -> None:
    async with AsyncExitStack() as stack:

        async def another(name: str) -> OperatorProcess:
            made = operator_process(control_plane, case.api.namespace, name, tmp_path)
            return await stack.enter_async_context(made)

        first = await another("operator-1")
        await eventually(first.leads)
        second = await another("operator-2")
        assert not await second.leads()
        for path in ("/livez", "/readyz", "/metrics"):
            assert await first.status(path) == await second.status(path) == httpx.codes.OK

        await case.secret()
        await case.apply({"version": "1.0.0"})
        await case.ready()
        case.player.plays(Runs(), argument="migrate", image="1.1.0")
        await case.apply({"version": "1.1.0"})
        await case.until(Type.READY, "False", "MigrationRunning")
        migrations = await case.jobs("migrate")

        await first.kill()
        case.player.plays(Exits(0, report(release="1.1.0")), argument="migrate", image="1.1.0")
        await eventually(second.leads)
        await case.ready()
        assert (await case.image()).endswith(":1.1.0")
        assert set(await case.jobs("migrate")) <= set(migrations)

        # Who is asked to end lets go: nobody has to wait until its Lease has run out.
        third = await another("operator-3")
        assert not await third.leads()
        assert await second.stop() == 0
        lease = await case.api.get("Lease", names.FIELD_MANAGER)
        assert lease["spec"].get("holderIdentity") in {None, third.name}
        await eventually(third.leads)
        await case.apply({"version": "1.1.0", "replicas": 3})
        await case.ready()


async def test_whose_watches_do_not_move_is_not_alive(
    control_plane: ControlPlane, case: Case, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(health, "_QUIET_S", _QUIET_S)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
    async with (
        proxied_api(control_plane) as proxy,
        operating(control_plane, case.api.namespace, proxy.configuration(), port=port),
        httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as http,
    ):
        await case.secret()
        await case.apply()
        await case.ready()
        assert (await http.get("/livez")).status_code == httpx.codes.OK

        def swallowed(asked: Asked) -> Swallows | None:
            return Swallows() if asked.watches else None

        # Requests are answered, and the Lease is renewed; only nothing is heard any more.
        proxy.fault = swallowed
        proxy.cut(lambda asked: asked.watches)

        async def is_dead() -> bool:
            status = (await http.get("/livez")).status_code
            return status == httpx.codes.SERVICE_UNAVAILABLE

        await eventually(is_dead)
        for path in ("/readyz", "/metrics"):
            assert (await http.get(path)).status_code == httpx.codes.OK

        proxy.heal()

        async def is_alive() -> bool:
            return (await http.get("/livez")).status_code == httpx.codes.OK

        await eventually(is_alive)
        await case.apply({"replicas": 3})
        await case.ready()
