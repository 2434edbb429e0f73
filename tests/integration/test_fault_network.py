"""Payments over HTTP while the network between PicoPay and its database fails: nothing is lost or doubled."""

import asyncio
import random
from typing import Any

import httpx

from picopay_api.database_url import DatabaseUrl
from support.api import Api, served
from support.locks import held
from support.proxy import UNBOUND, Proxy, Ration
from support.suffering import answered, counted, paying, shown
from support.waiting import eventually

RETRIES = 'picopay_batch_retries_total{reason="unreachable"}'
QUERY_SESSIONS = 4  # of the six that `served` has
CUTS = 20
BYTES = 8_000  # a session takes about half of it to be made and to decide its first batch
BYTE_RATION = 40  # in the middle of whatever is said

PHASES: dict[str, Ration] = {
    "before the question": (0, UNBOUND[1]),
    "in the middle of the question": (BYTE_RATION, UNBOUND[1]),
    "between COMMIT and its answer": (UNBOUND[0], 0),
    "in the middle of the answer": (UNBOUND[0], BYTE_RATION),
}


async def test_connections_are_cut_in_each_phase_of_a_commit(
    database_url: DatabaseUrl, proxy: Proxy
) -> None:
    async with served(proxy.url) as api, paying(api, database_url) as load:
        for ration in PHASES.values():
            for _ in range(2):
                before = await shown(api, RETRIES)
                proxy.cut_after(ration)
                await counted(api, RETRIES, before)
                await load.goes_on()
        async with held(database_url, "alice") as alice:
            await alice.waited_for()
            before = await shown(api, RETRIES)
            await proxy.cut()  # the server goes on, and does not know that nobody listens
            await counted(api, RETRIES, before)
        await load.goes_on()
        # Outcomes whose answers were lost were looked up by their keys before anybody was told.
        assert load.never_suffered()


async def test_connections_are_cut_anywhere(database_url: DatabaseUrl, proxy: Proxy) -> None:
    chance = random.Random(20)

    def anywhere() -> Ration:
        # In the handshake, in what is prepared, in one of the first commits of a session.
        allowed = chance.randrange(BYTES)
        return (allowed, UNBOUND[1]) if chance.random() < 0.5 else (UNBOUND[0], allowed)

    async with served(proxy.url) as api, paying(api, database_url) as load:
        proxy.ration = anywhere
        await proxy.cut()

        async def often() -> bool:
            return proxy.rationed >= CUTS

        await eventually(often)
        proxy.ration = lambda: UNBOUND
        await load.goes_on()


async def test_a_black_hole(database_url: DatabaseUrl, proxy: Proxy) -> None:
    settings: dict[str, Any] = {
        "request_timeout_ms": 1_500,
        "statement_timeout_ms": 1_000,
        "lock_timeout_ms": 1_000,
    }
    async with served(proxy.url, **settings) as api, paying(api, database_url) as load:
        await api.account("erin")
        async with held(database_url, "erin") as erin:
            # As many transactions as there are sessions for them: none may stay in one for good.
            frozen = [asyncio.ensure_future(freeze(api, "erin")) for _ in range(QUERY_SESSIONS)]
            await erin.waited_for(QUERY_SESSIONS - 1)  # one may be busy with the look at readiness
            proxy.swallow()
            await load.suffers()
        assert "cannot be reached" in str(await answered(api, "/readyz", 503))
        for answer in await asyncio.gather(*frozen):
            assert answer.status_code == 503, answer.text
            assert answer.json()["code"] == "database_unavailable"
        proxy.heal()
        await load.goes_on()
        await answered(api, "/readyz", 200)
        assert (await freeze(api, "erin")).status_code == 200


async def freeze(api: Api, reference: str) -> httpx.Response:
    return await api.client.post(f"/v1/accounts/@{reference}/freeze")


async def test_a_long_way_to_the_database(database_url: DatabaseUrl, proxy: Proxy) -> None:
    async with served(proxy.url) as api, paying(api, database_url) as load:
        before = [await shown(api, name) for name in (RETRIES, "picopay_commit_seconds_sum")]
        proxy.delay_s = 0.1  # each way
        await load.goes_on()
        proxy.delay_s = 0
        assert load.never_suffered()
        assert await shown(api, RETRIES) == before[0]
        await counted(api, "picopay_commit_seconds_sum", before[1] + 0.2)
