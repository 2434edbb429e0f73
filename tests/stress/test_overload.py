"""More requests than a server can take while its database stands still: each is told, and none is lost.

The database is slow because another session holds the account that everybody pays to. Whoever is refused
is refused at once with 503, and succeeds with the same key later; whoever is told 201 is in the ledger once.
"""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple

import asyncpg
import httpx
import psutil

from picopay_api.database_url import DatabaseUrl
from support.fleet import fleet
from support.invariants import broken_rules
from support.locks import held
from support.waiting import PROMPT_S, eventually

CLIENTS = 300
FEWER_CLIENTS = 120  # still more than twice as many as may wait
QUEUE_COMMANDS_MAX = 50
QUEUE_BYTES_MAX = 128 * 1024
BATCH_COMMANDS_MAX = 16
IN_BATCHES_MAX = 2 * BATCH_COMMANDS_MAX  # on their way to the database, and in no queue
RETRIES_AT_ONCE = 8
POOLS = 20  # a pool takes the longer for each request the more connections it has
GROWTH_BYTES_MAX = 64 * 1024**2

BOUNDS = {
    "PICOPAY_QUEUE_COMMANDS_MAX": str(QUEUE_COMMANDS_MAX),
    "PICOPAY_QUEUE_BYTES_MAX": str(QUEUE_BYTES_MAX),
    "PICOPAY_BATCH_COMMANDS_MAX": str(BATCH_COMMANDS_MAX),
}
FAT = {f"k{number}": "x" * 500 for number in range(20)}
FAT_BYTES = 10_000  # at least

Asked = dict[str, "asyncio.Task[httpx.Response]"]


class Crowd(NamedTuple):
    """Many clients of one server, each with a connection of its own."""

    clients: Sequence[httpx.AsyncClient]
    url: DatabaseUrl

    async def pay(self, key: str, metadata: dict[str, str]) -> httpx.Response:
        body: dict[str, Any] = {"source": "@world", "destination": "@bob", "asset": "USD"}
        return await self.clients[hash(key) % len(self.clients)].post(
            "/v1/payments",
            json={**body, "amount": 1, "metadata": metadata},
            headers={"Idempotency-Key": key},
        )

    def ask(self, word: str, count: int, metadata: dict[str, str]) -> Asked:
        """Have that many clients pay at once."""
        return {
            f"{word}-{number}": asyncio.ensure_future(self.pay(f"{word}-{number}", metadata))
            for number in range(count)
        }

    async def ask_until_paid(self, key: str, metadata: dict[str, str]) -> None:
        """Ask again, as a client does that was told so."""

        async def paid() -> bool:
            answer = await self.pay(key, metadata)
            assert answer.status_code in {201, 503}, answer.text
            return answer.status_code == 201

        await eventually(paid)

    async def booked(self) -> Counter[str]:
        """Return how often each key is in the journal; the ledger's rules hold."""
        database = await asyncpg.connect(**self.url.connect_arguments())
        try:
            ledger = await database.fetchval("SELECT ledger_id FROM picopay.ledger")
            assert await broken_rules(database, ledger) == []
            rows = await database.fetch("SELECT idempotency_key FROM picopay.journal")
            return Counter(row["idempotency_key"] for row in rows)
        finally:
            await database.close()


@asynccontextmanager
async def crowded(url: DatabaseUrl, directory: Path, **variables: str) -> AsyncIterator[Crowd]:
    """Start a server with narrow bounds, and its clients; its memory must stay what it is."""
    async with fleet(url, directory, 1, **BOUNDS, **variables) as [member]:
        account = {"reference": "bob", "asset": "USD"}
        assert (await member.post("/v1/accounts", account, "bob")).status_code == 201
        async with AsyncExitStack() as stack:
            clients = [
                await stack.enter_async_context(
                    httpx.AsyncClient(
                        base_url=member.client.base_url,
                        headers={"Authorization": member.client.headers["Authorization"]},
                        limits=httpx.Limits(max_connections=CLIENTS),
                        timeout=PROMPT_S,
                        trust_env=False,
                        verify=False,
                    )
                )
                for _ in range(POOLS)
            ]
            process = psutil.Process(member.process.pid)
            before_bytes = process.memory_info().rss
            yield Crowd(clients, url)
            assert process.memory_info().rss - before_bytes < GROWTH_BYTES_MAX


def codes(answers: Sequence[httpx.Response]) -> Counter[str]:
    """Count the codes of answers, `paid` among them; hold each refusal to what clients rely on."""
    found: Counter[str] = Counter()
    for answer in answers:
        if answer.status_code == 201:
            found["paid"] += 1
            continue
        assert answer.status_code == 503, answer.text
        assert int(answer.headers["Retry-After"]) >= 1
        assert "RateLimit" in answer.headers
        assert "RateLimit-Policy" in answer.headers
        found[answer.json()["code"]] += 1
    assert set(found) <= {"paid", "overloaded", "deadline_exceeded"}
    return found


async def end_well(crowd: Crowd, asked: Asked, metadata: dict[str, str]) -> Counter[str]:
    """See each key to its success, and once into the ledger; return what was answered at first."""
    answers = await asyncio.gather(*asked.values())
    again = [key for key, answer in zip(asked, answers, strict=True) if answer.status_code != 201]
    few = asyncio.Semaphore(RETRIES_AT_ONCE)

    async def retry(key: str) -> None:
        async with few:
            await crowd.ask_until_paid(key, metadata)

    await asyncio.gather(*[retry(key) for key in again])
    booked = await crowd.booked()
    assert [booked[key] for key in asked] == [1] * len(asked)
    assert booked.total() == len(booked)
    return codes(answers)


async def refused(asked: Asked, count: int) -> None:
    """Wait until so many have been answered, which can only be refusals."""

    async def answered() -> bool:
        return sum(task.done() for task in asked.values()) >= count

    await eventually(answered)


async def test_what_is_too_much_is_refused_at_once_and_succeeds_later(
    database_url: DatabaseUrl, tmp_path: Path
) -> None:
    async with crowded(database_url, tmp_path) as crowd:
        most = QUEUE_COMMANDS_MAX + IN_BATCHES_MAX
        async with held(crowd.url, "bob"):
            asked = crowd.ask("many", CLIENTS, {})
            await refused(asked, CLIENTS - most)
            # Who only reads does not stand in that queue.
            assert (await crowd.clients[0].get("/v1/accounts/@bob")).status_code == 200
        found = await end_well(crowd, asked, {})
        assert found["overloaded"] >= CLIENTS - most
        assert found["paid"] >= QUEUE_COMMANDS_MAX

        most = QUEUE_BYTES_MAX // FAT_BYTES + IN_BATCHES_MAX
        async with held(crowd.url, "bob"):
            asked = crowd.ask("fat", FEWER_CLIENTS, FAT)
            await refused(asked, FEWER_CLIENTS - most)
        found = await end_well(crowd, asked, FAT)
        assert found["paid"] <= most < QUEUE_COMMANDS_MAX
        assert set(found) == {"paid", "overloaded"}


async def test_nobody_waits_longer_than_the_deadline(
    database_url: DatabaseUrl, tmp_path: Path
) -> None:
    async with crowded(database_url, tmp_path, PICOPAY_REQUEST_TIMEOUT_MS="1000") as crowd:
        async with held(crowd.url, "bob"):
            asked = crowd.ask("late", FEWER_CLIENTS, {})
            # The account is held all the while: whoever hung would hang for ever.
            _, hanging = await asyncio.wait(asked.values(), timeout=PROMPT_S)
            assert hanging == set()
        found = await end_well(crowd, asked, {})
        assert found["paid"] == 0
        assert found["deadline_exceeded"] > 0
