"""Clients that go on paying whatever happens to the database, and what must hold of the books afterwards.

Used by the tests of faults. A client that is told to come back asks again with the same key until it is
told an outcome, as the documentation asks of it.
"""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from uuid import UUID

import httpx

from picopay_api.database_url import DatabaseUrl
from picopay_api.worker.audit_all import audit_everything
from support.api import Api
from support.invariants import broken_rules
from support.journal import opened
from support.sql import rows, value
from support.waiting import PROMPT_S, eventually

CLIENTS = 8
ACCOUNTS = ("alice", "bob", "carol", "dave")
FUNDS_MINOR = 10**9
MORE = 16  # payments that show that it goes on
_REST_S = 0.01  # between two payments of a client: the faults are what needs the processor
_PAUSE_S = 0.05  # a test need not wait for as long as Retry-After asks for


class Load:
    """Payments that are asked for all the time. Make one with `paying`."""

    def __init__(self, api: Api) -> None:
        self._api = api
        self._ended = asyncio.Event()
        self.told: dict[str, str] = {}
        """The payment that each key was told of."""
        self.asked: dict[str, int] = {}
        """How often each key was asked for."""
        self.answers: Counter[str] = Counter()
        """`new`, `replayed`, or the code of a refusal: how often it was answered."""

    async def goes_on(self, more: int = MORE) -> None:
        """Wait until so many more payments are told."""
        wanted = len(self.told) + more

        async def enough() -> bool:
            return len(self.told) >= wanted

        await eventually(enough)

    async def suffers(self, *codes: str) -> None:
        """Wait until the next client is told to come back, with one of these codes if any are given."""
        before = self._refusals(codes)

        async def more() -> bool:
            return self._refusals(codes) > before

        await eventually(more)

    def never_suffered(self) -> bool:
        """Tell whether nobody was told to come back, and nobody that a payment was an old one."""
        return set(self.answers) == {"new"}

    async def pay_on(self, number: int) -> None:
        """Pay one after the other until the end; the last one is told, too."""
        for turn in range(1_000_000):
            if self._ended.is_set():
                return
            source, destination = number % len(ACCOUNTS), (number + 1 + turn % 3) % len(ACCOUNTS)
            await self.until_told(
                f"load-{number}-{turn}", ACCOUNTS[source], ACCOUNTS[destination], 1 + turn % 97
            )
            await asyncio.sleep(_REST_S)

    def end(self) -> None:
        """Ask for no new payment."""
        self._ended.set()

    async def until_told(self, key: str, source: str, destination: str, amount: int) -> None:
        """Pay once; ask again with the same key until told."""
        async with asyncio.timeout(PROMPT_S):
            while True:
                self.asked[key] = self.asked.get(key, 0) + 1
                answer = await self._api.pay(f"@{source}", f"@{destination}", amount, key)
                self.answers[_said(answer)] += 1
                if answer.status_code == 201:
                    self.told[key] = str(answer.json()["id"])
                    return
                await asyncio.sleep(_PAUSE_S)

    def _refusals(self, codes: tuple[str, ...]) -> int:
        refusals = set(codes) or set(self.answers) - {"new", "replayed"}
        return sum(self.answers[code] for code in refusals)


def _said(answer: httpx.Response) -> str:
    if answer.status_code == 201:
        return "replayed" if "Idempotent-Replayed" in answer.headers else "new"
    assert answer.status_code == 503, answer.text
    assert int(answer.headers["Retry-After"]) > 0
    return str(answer.json()["code"])


@asynccontextmanager
async def paying(api: Api, url: DatabaseUrl) -> AsyncIterator[Load]:
    """Pay during the block; then the books must say what clients were told, and must add up.

    `url` leads to the database that has the books in the end, past everything that is broken.
    """
    await answered(api, "/readyz", 200)
    for name in ACCOUNTS:
        await api.account(name, FUNDS_MINOR)
    load = Load(api)
    async with asyncio.TaskGroup() as group:
        clients = [group.create_task(load.pay_on(number)) for number in range(CLIENTS)]
        try:
            await load.goes_on()
            yield load
            await load.goes_on()
        except BaseException:
            for client in clients:
                client.cancel()
            raise
        load.end()
    await _check_the_books(url, load)
    await answered(api, "/readyz", 200)


async def _check_the_books(url: DatabaseUrl, load: Load) -> None:
    booked = await rows(
        url, "SELECT idempotency_key, id FROM picopay.journal WHERE idempotency_key LIKE 'load-%'"
    )
    assert len(booked) == len(load.told)
    assert {row["idempotency_key"]: f"pay_{row['id'].hex}" for row in booked} == load.told
    ledger: UUID = await value(url, "SELECT ledger_id FROM picopay.journal LIMIT 1")
    async with opened(url) as database:
        async with database.session() as connection:
            assert await broken_rules(connection, ledger) == []
        assert await audit_everything(database, lambda _: None) == []


async def shown(api: Api, sample: str) -> float:
    """Return what `/metrics` says of a sample, with its labels; 0 when it is not there yet."""
    page = (await api.client.get("/metrics")).text
    found = [line.rpartition(" ")[2] for line in page.splitlines() if line.startswith(f"{sample} ")]
    return float(found[0]) if found else 0.0


async def counted(api: Api, sample: str, before: float) -> None:
    """Wait until a sample has grown beyond a number."""

    async def grown() -> bool:
        return await shown(api, sample) > before

    await eventually(grown)


async def answered(api: Api, path: str, status: int) -> Any:
    """Wait until a path is answered with a status; return the body."""
    body: list[Any] = []

    async def right() -> bool:
        answer = await api.client.get(path)
        body[:] = [answer.json()]
        return answer.status_code == status

    await eventually(right)
    return body[0]
