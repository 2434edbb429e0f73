"""Clients that pay all the time, for tests in which nobody may notice that processes are replaced.

Used by the tests of rolling restarts, of processes and of pods.
"""

import asyncio
import random
from collections import Counter
from collections.abc import Mapping

import httpx

from support.waiting import PROMPT_S, eventually

PAYMENT = {"source": "@world", "destination": "@shop", "amount": 1, "asset": "USD"}


class Customers:
    """Clients that pay again and again on kept connections, and never ask twice for the same."""

    def __init__(self, url: str, headers: Mapping[str, str]) -> None:
        self._url = url
        self._headers = dict(headers)
        self._numbers = iter(range(1_000_000))
        self.answers: Counter[str] = Counter()
        self.done = asyncio.Event()

    async def pay_on(self, pause_max_s: float) -> None:
        """Pay until `done`, with pauses in which connections are idle."""
        async with httpx.AsyncClient(
            base_url=self._url, headers=self._headers, timeout=PROMPT_S, trust_env=False
        ) as client:
            while not self.done.is_set():
                told = await self._pay(client)
                self.answers[told] += 1
                if told == "refused":
                    return
                await asyncio.sleep(random.uniform(0, pause_max_s))

    async def _pay(self, client: httpx.AsyncClient) -> str:
        key = {"Idempotency-Key": f"payment-{next(self._numbers)}"}
        try:
            answer = await client.post("/v1/payments", json=PAYMENT, headers=key)
        except httpx.ConnectError:
            return "refused"
        except httpx.TransportError as error:
            return repr(error)
        return str(answer.status_code) if answer.is_success else str(answer.json()["code"])

    async def paid(self, count: int) -> None:
        """Wait until so many more payments have been answered."""
        wanted = self.answers["201"] + count

        async def enough() -> bool:
            return self.answers["201"] >= wanted

        await eventually(enough)
