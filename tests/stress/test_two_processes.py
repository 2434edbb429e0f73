"""Several processes on one database, asked the same things at once: each is decided once, and money stays.

The crash of a whole machine is in `test_crash.py`; here processes come to an end while others go on.
"""

import asyncio
import random
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import asyncpg
import httpx

from picopay_api.database_url import DatabaseUrl
from picopay_api.store.database import Database
from picopay_api.worker.audit_all import audit_everything
from support.fleet import Member, fleet
from support.postgres import on_connection
from support.waiting import eventually

PROCESSES = 3
PAYMENTS = 100
RIVALS = 10
ACCOUNTS = ("alice", "bob", "carol")
FUNDS_MINOR = 5_000
UNAFFORDABLE_MINOR = 10**9

REPLAYED = "Idempotent-Replayed"


async def fund(member: Member) -> None:
    for name in ACCOUNTS:
        made = await member.post("/v1/accounts", {"reference": name, "asset": "USD"}, name)
        assert made.status_code == 201, made.text
        paid = await member.post("/v1/payments", payment("world", name, FUNDS_MINOR), f"{name}-1")
        assert paid.status_code == 201, paid.text


def payment(source: str, destination: str, amount: int, **fields: Any) -> dict[str, Any]:
    posting = {"source": f"@{source}", "destination": f"@{destination}", "amount": amount}
    return {**posting, "asset": "USD", **fields}


def there_or_back(number: int) -> dict[str, Any]:
    """Make a payment between accounts that the next one moves money between the other way round."""
    source, destination = ACCOUNTS[number % 3], ACCOUNTS[(number + 1 + number % 2) % 3]
    # Some cannot be afforded at all; others only when the money has come that others have sent.
    amount = UNAFFORDABLE_MINOR if number % 10 == 7 else 1 + number * 37 % 3_000
    return payment(source, destination, amount)


def outcome(answer: httpx.Response) -> str:
    """Return the id of what was made, or the code of the refusal."""
    body = answer.json()
    assert answer.status_code in {201, 409, 422}, body
    return str(body["id"] if answer.status_code == 201 else body["code"])


async def ask_all(
    members: Sequence[Member], path: str, bodies: Sequence[Any], keys: Sequence[str]
) -> list[httpx.Response]:
    """Ask every process at once, each with a body and a key of the given."""
    asked = [
        member.post(path, bodies[number % len(bodies)], keys[number % len(keys)])
        for number, member in enumerate(members)
    ]
    return await asyncio.gather(*asked)


async def check_replays(members: Sequence[Member], told: dict[str, str]) -> None:
    """Ask once more with each key of a payment, of any process: it tells what was told."""

    async def check(member: Member, key: str) -> None:
        body = there_or_back(int(key.removeprefix("payment-")))
        answer = await member.post("/v1/payments", body, key)
        assert outcome(answer) == told[key]
        assert answer.headers[REPLAYED] == "true"

    await asyncio.gather(
        *[check(members[n % len(members)], key) for n, key in enumerate(sorted(told))]
    )


async def check_the_books(url: DatabaseUrl, made: set[str]) -> None:
    """Compare the journal with what clients were told, add all money up, run the whole audit."""

    async def look(owner: "asyncpg.Connection[Any]") -> tuple[set[str], int, int]:
        rows = await owner.fetch("SELECT id FROM picopay.journal")
        total = await owner.fetchval("SELECT sum(posted_minor)::bigint FROM picopay.balance")
        lowest = await owner.fetchval(
            "SELECT min(posted_minor) FROM picopay.balance WHERE floor_minor = 0"
        )
        return {row["id"].hex for row in rows}, total, lowest

    booked, total, lowest = await on_connection(url, look)
    assert len(booked) == len(made) + len(ACCOUNTS)
    assert {id.partition("_")[2] for id in made} <= booked
    assert total == 0
    assert lowest >= 0
    database = await Database.open(url)
    try:
        assert await audit_everything(database, lambda _: None) == []
    finally:
        await database.close()


async def deadlocks(url: DatabaseUrl) -> int:
    count = "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()"
    return int(await on_connection(url, lambda owner: owner.fetchval(count)))


class Rush:
    """Everything that is asked of all processes at once, and what came of it."""

    def __init__(self, members: Sequence[Member]) -> None:
        self._members = members
        self.payments: dict[str, str] = {}
        self.made: set[str] = set()

    async def run(self) -> None:
        """Ask for all of it in any order."""
        originals = [
            (await self._members[0].post("/v1/transactions", self._shift(), f"original-{n}")).json()
            for n in range(RIVALS)
        ]
        self.made |= {one["id"] for one in originals}
        asked = [
            *[self._same(number) for number in range(PAYMENTS)],
            *[self._other_bodies(number) for number in range(RIVALS)],
            *[self._one_reference(number) for number in range(RIVALS)],
            *[self._reversals(one["id"]) for one in originals],
        ]
        random.shuffle(asked)
        async with asyncio.TaskGroup() as group:
            for each in asked:
                group.create_task(each)

    def _shift(self) -> dict[str, Any]:
        return {"postings": [payment("world", name, 10) for name in ACCOUNTS]}

    async def _same(self, number: int) -> None:
        """The same key and body: one decides, the others tell the same."""
        key = f"payment-{number}"
        answers = await ask_all(self._members, "/v1/payments", [there_or_back(number)], [key])
        (self.payments[key],) = {outcome(answer) for answer in answers}
        assert Counter(REPLAYED in answer.headers for answer in answers) == {
            False: 1,
            True: PROCESSES - 1,
        }
        assert len({answer.text for answer in answers if answer.is_success}) <= 1
        if answers[0].is_success:
            self.made.add(self.payments[key])

    async def _other_bodies(self, number: int) -> None:
        """The same key with two bodies: one body wins."""
        bodies = [payment("world", name, 1) for name in ACCOUNTS[:2]]
        answers = await ask_all(self._members, "/v1/payments", bodies, [f"bodies-{number}"])
        told = [outcome(answer) for answer in answers]
        winner = 0 if answers[0].is_success else 1
        assert told[1 - winner] == "idempotency_key_reused"
        (id,) = {told[n] for n in range(PROCESSES) if n % 2 == winner}
        assert all(told[n] == told[1 - winner] for n in range(PROCESSES) if n % 2 != winner)
        self.made.add(id)

    async def _one_reference(self, number: int) -> None:
        """Other keys with one reference: one payment has it."""
        body = payment("world", "carol", 1, reference=f"reference-{number}")
        keys = [f"reference-{number}-{n}" for n in range(PROCESSES)]
        answers = await ask_all(self._members, "/v1/payments", [body], keys)
        self._one_wins(answers, "reference_taken")

    async def _reversals(self, transaction: str) -> None:
        """Other keys reverse one transaction: it is undone once."""
        keys = [f"{transaction}-{n}" for n in range(PROCESSES)]
        path = f"/v1/transactions/{transaction}/reverse"
        answers = await ask_all(self._members, path, [{}], keys)
        self._one_wins(answers, "transaction_already_reversed")

    def _one_wins(self, answers: Sequence[httpx.Response], refusal: str) -> None:
        told = [outcome(answer) for answer in answers]
        assert told.count(refusal) == PROCESSES - 1
        assert not any(REPLAYED in answer.headers for answer in answers)
        self.made |= {one for one in told if one != refusal}


async def test_processes_that_are_asked_the_same_at_once_decide_it_once(
    database_url: DatabaseUrl, tmp_path: Path
) -> None:
    async with fleet(database_url, tmp_path, PROCESSES) as members:
        await fund(members[0])
        rush = Rush(members)
        await rush.run()
        assert "insufficient_funds" in rush.payments.values()
        await check_replays(members, rush.payments)
        ended = await asyncio.gather(*[member.stop() for member in members])
        assert ended == [0] * PROCESSES
    await check_the_books(database_url, rush.made)
    assert await deadlocks(database_url) == 0  # all lock in one order


class Clients:
    """Clients that pay through any process, and ask another one when theirs is gone."""

    def __init__(self, members: Sequence[Member]) -> None:
        self._serving = list(members)
        self.told: dict[str, str] = {}
        self.lost: set[str] = set()

    async def acknowledged(self, count: int) -> None:
        """Wait until so many payments have been answered."""

        async def enough() -> bool:
            return len(self.told) >= count

        await eventually(enough)

    async def pay_on(self, client: int, payments: int) -> None:
        """Pay one after the other."""
        for number in range(client, payments, 16):
            key = f"payment-{number}"
            self.told[key] = await self._pay(key, there_or_back(number))

    async def _pay(self, key: str, body: Any) -> str:
        first = random.randrange(len(self._serving))
        for attempt in range(2 * PROCESSES):
            member = self._serving[(first + attempt) % PROCESSES]
            try:
                return outcome(await member.post("/v1/payments", body, key))
            except httpx.TransportError:
                self.lost.add(key)
        raise AssertionError(f"nobody answers {key}")


async def test_processes_that_end_under_load_lose_and_double_nothing(
    database_url: DatabaseUrl, tmp_path: Path
) -> None:
    payments = 4 * PAYMENTS
    async with fleet(database_url, tmp_path, PROCESSES) as members:
        await fund(members[0])
        clients = Clients(members)
        async with asyncio.TaskGroup() as group:
            for client in range(16):
                group.create_task(clients.pay_on(client, payments))
            await clients.acknowledged(PAYMENTS)
            await asyncio.to_thread(members[0].kill)
            await clients.acknowledged(2 * PAYMENTS)
            assert await members[1].stop() == 0
        assert len(clients.told) == payments
        assert clients.lost
        await check_replays(members[2:], clients.told)
        assert await members[2].stop() == 0
    made = {told for told in clients.told.values() if told.startswith("pay_")}
    assert 0 < len(made) < payments
    await check_the_books(database_url, made)
    assert await deadlocks(database_url) == 0
