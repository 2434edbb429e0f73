"""The API server at fault: it refuses, forgets, or does not answer. That is shown, and got over."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator

import pytest

from picopay_operator import client, names
from picopay_operator.cache import Cache
from picopay_operator.census import Census
from picopay_operator.client import Client
from picopay_operator.conditions import Type
from picopay_operator.errors import OperatorError
from support.controlplane.api_proxy import (
    ApiProxy,
    Asked,
    Cuts,
    Expires,
    Fault,
    Refuses,
    Swallows,
    proxied_api,
)
from support.controlplane.operating import NAME, Case, operating, steady
from support.controlplane.servers import ControlPlane
from support.waiting import eventually

pytestmark = pytest.mark.usefixtures("definition")

_CREATED = 201
_TIMEOUT_S = 2.0
_WHILE_S = 3.0
_REFUSED_MIN = 5


@pytest.fixture
async def case(case: Case) -> Case:
    await case.secret()
    return case


@pytest.fixture
async def proxy(
    control_plane: ControlPlane, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[ApiProxy]:
    monkeypatch.setattr(client, "REQUEST_TIMEOUT_S", _TIMEOUT_S)
    async with proxied_api(control_plane) as proxy:
        yield proxy


def created(proxy: ApiProxy) -> Counter[str]:
    """Return what was created, and how often, but for Events."""
    paths = [one.asked.path for one in proxy.answered if one.status == _CREATED]
    return Counter(path for path in paths if not path.endswith("/events"))


@pytest.mark.parametrize(
    "fault",
    [Refuses(429, 1), Refuses(409), Refuses(500), Refuses(503), Refuses(401), Cuts(), Swallows()],
    ids=str,
)
async def test_a_request_that_fails_is_shown_and_made_again(
    control_plane: ControlPlane, case: Case, proxy: ApiProxy, fault: Fault
) -> None:
    proxy.fault = lambda asked: fault if asked.writes and "/jobs/" in asked.path else None
    async with operating(control_plane, case.api.namespace, proxy.configuration()):
        await case.apply()
        await case.until(Type.READY, "False", "KubernetesApiError")
        proxy.heal()
        await case.ready()
        said = [one["reason"] for one in (await case.conditions()).values()]
        assert "KubernetesApiError" not in said
        assert set(created(proxy).values()) == {1}


@pytest.mark.parametrize(
    "fault", [Refuses(429, 1), Refuses(500), Refuses(401), Cuts(), Swallows()], ids=str
)
async def test_an_api_server_that_was_away_is_found_again(
    control_plane: ControlPlane, case: Case, proxy: ApiProxy, fault: Fault
) -> None:
    async with operating(control_plane, case.api.namespace, proxy.configuration()):
        await case.apply({"version": "1.0.0"})
        await case.ready()
        proxy.fault = lambda _: fault
        proxy.cut()
        await case.apply({"version": "1.1.0"})
        await case.api.delete("Service", names.api(NAME))
        await asyncio.sleep(_WHILE_S)  # shorter than a Lease is good for
        proxy.heal()
        await case.ready()
        assert (await case.image()).endswith(":1.1.0")

        async def is_back() -> bool:
            return await case.api.find("Service", names.api(NAME)) is not None

        await eventually(is_back)


@pytest.mark.parametrize("fault", [Refuses(500), Swallows()], ids=str)
async def test_who_cannot_renew_its_lease_ends(
    control_plane: ControlPlane, case: Case, proxy: ApiProxy, fault: Fault
) -> None:
    with pytest.raises(OperatorError, match="Lease"):
        async with operating(control_plane, case.api.namespace, proxy.configuration()) as operator:
            await case.apply()
            await case.ready()
            proxy.fault = lambda asked: fault if asked.is_of_election else None

            async def has_lost() -> bool:
                return not operator._leads

            await eventually(has_lost)
            await asyncio.sleep(0.5)
    proxy.heal()
    async with operating(control_plane, case.api.namespace, proxy.configuration()):
        await case.apply({"replicas": 3})
        await case.ready()


async def test_watches_may_be_cut_again_and_again(
    control_plane: ControlPlane, case: Case, proxy: ApiProxy
) -> None:
    async def cut() -> None:
        while True:
            await asyncio.sleep(0.2)
            proxy.cut(lambda asked: asked.watches)

    async with operating(control_plane, case.api.namespace, proxy.configuration()):
        cutting = asyncio.create_task(cut())
        await case.apply()
        await case.ready()
        await case.apply({"version": "1.1.0"})
        await case.ready()
        cutting.cancel()
        assert set(created(proxy).values()) == {1}


async def test_what_has_gone_while_nobody_watched_is_made_again(
    control_plane: ControlPlane, case: Case, proxy: ApiProxy
) -> None:
    async with operating(control_plane, case.api.namespace, proxy.configuration()):
        await case.apply()
        await case.ready()

        # What happens from now on is forgotten when watches are begun again.
        proxy.fault = lambda asked: Cuts() if asked.watches else None
        proxy.cut(lambda asked: asked.watches)
        await case.api.delete("Deployment", names.worker(NAME))
        await case.api.delete("Service", names.api(NAME))
        refused = Counter[str]()

        def forgets(asked: Asked) -> Fault | None:
            if not asked.watches or refused[asked.path]:
                return None
            refused[asked.path] += 1
            return Expires()

        proxy.fault = forgets

        async def are_back() -> bool:
            return bool(
                await case.api.find("Deployment", names.worker(NAME))
                and await case.api.find("Service", names.api(NAME))
            )

        await eventually(are_back)
        await case.ready()


async def test_what_nobody_has_told_of_yet_is_not_taken_for_missing(
    control_plane: ControlPlane, case: Case, proxy: ApiProxy
) -> None:
    async with operating(control_plane, case.api.namespace, proxy.configuration()):
        await case.apply()
        await case.ready()
        before = await steady(case.versions)

    # The next one's lists take long: of engines only it hears at once.
    def is_late(asked: Asked) -> Fault | None:
        is_list = "labelSelector" in asked.query and not asked.watches
        return Refuses(429, 1) if is_list else None

    proxy.fault = is_late
    async with operating(control_plane, case.api.namespace, proxy.configuration()):
        await asyncio.sleep(_WHILE_S)
        proxy.heal()
        await steady(case.versions)
        assert await case.versions() == before


async def test_a_kind_that_may_not_be_listed_does_not_keep_the_others_waiting(
    case: Case, proxy: ApiProxy
) -> None:
    proxy.fault = lambda asked: Refuses(403) if asked.path.endswith("/services") else None
    asks, told = Client(proxy.configuration()), asyncio.Event()
    try:
        await Census(asks, Cache(), [case.api.namespace], 60, print, print, told).prime()
    finally:
        await asks.close()
    assert len(proxy.refused(403)) == 1
    assert any(one.asked.path.endswith("/horizontalpodautoscalers") for one in proxy.answered)


async def test_a_watch_that_is_refused_for_good_ends_the_operator(
    control_plane: ControlPlane, case: Case, proxy: ApiProxy
) -> None:
    with pytest.raises(ExceptionGroup) as ended:
        async with operating(control_plane, case.api.namespace, proxy.configuration()) as operator:
            await case.apply()
            await case.ready()
            proxy.fault = lambda asked: Refuses(410) if asked.watches else None
            proxy.cut(lambda asked: asked.watches)

            async def has_ended() -> bool:
                return not operator._leads

            await eventually(has_ended)
            await asyncio.sleep(1)
    assert ended.group_contains(OperatorError, match="watches have ended")
