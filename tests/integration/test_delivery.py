"""How a batch gets through that meets others, or a culprit: tried again, and halved where that helps.

Whatever happens on the way, a command is decided once and answered once, with what was decided.
"""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from uuid import UUID

import msgspec
import pytest

from picopay_api.database_url import DatabaseUrl
from picopay_api.engine.commands import Command, Leg, Posting
from picopay_api.engine.ids import first_id_at, new_id
from picopay_api.errors import (
    DatabaseUnavailable,
    InternalError,
    ReferenceTaken,
    SchemaOutOfRange,
)
from picopay_api.store.decide import Outcome
from support.committing import Desk, again, committing, in_the_way, lock
from support.delivering import TERMINATE_BLOCKED, codes, deliver, replays
from support.postgres import Server


@pytest.fixture
async def desk(database_url: DatabaseUrl) -> AsyncIterator[Desk]:
    async with committing(database_url) as desk:
        yield desk


def unencodable(command: Command, how: str) -> Command:
    """Make a command that the database, or the driver, cannot take."""
    if how == "too large":
        legs = (Leg(command.legs[0].account, "USD", 2**63), command.legs[1])
        return msgspec.structs.replace(command, legs=legs)
    text = {"a NUL": "a\x00b", "a lone surrogate": "\ud800"}[how]
    return msgspec.structs.replace(command, metadata={"note": text})


@pytest.mark.parametrize("how", ["a NUL", "a lone surrogate", "too large"])
@pytest.mark.parametrize("culprits", [{0}, {4}, {2, 3}, {1, 8}, set(range(9))], ids=str)
async def test_the_culprit_stands_alone(desk: Desk, how: str, culprits: set[int]) -> None:
    book = desk.book
    account = await book.account()
    batch = [book.payment(book.world, account, 1) for _ in range(9)]
    for number in culprits:
        batch[number] = unencodable(batch[number], how)
    answers = await deliver(desk, batch)
    for number, (command, answer) in enumerate(zip(batch, answers, strict=True)):
        if number in culprits:
            assert isinstance(answer, InternalError)
            assert await desk.rows_of(str(command.key)) == []
        else:
            assert isinstance(answer, Outcome)
            assert (answer.code, answer.replayed, answer.id) == ("ok", False, command.id)
    assert await desk.posted_minor(account) == 9 - len(culprits)
    assert desk.delivery.reasons == []


async def test_who_meets_another_process_tries_again(desk: Desk) -> None:
    book = desk.book
    account, elsewhere = await book.account(), await book.account()
    batch = [book.payment(book.world, account, 1) for _ in range(3)]
    batch[1] = again(batch[1], reference="order-1")
    other = again(book.payment(elsewhere, book.world, 1), reference="order-1")
    other = msgspec.structs.replace(other, legs=(), postings=())  # it needs none of our locks
    async with book.database.transaction() as connection:
        await book.decide(other, on=connection)
        task = asyncio.create_task(deliver(desk, batch))
        await desk.until_blocked()
    answers = await task
    assert codes(answers) == ["ok", ReferenceTaken.code, "ok"]
    assert replays(answers) == [False] * 3
    assert desk.delivery.reasons == ["UniqueViolationError"]
    assert await desk.posted_minor(account) == 2


async def test_the_victim_of_a_deadlock_tries_again(
    desk: Desk, database_url: DatabaseUrl, server: Server
) -> None:
    book = desk.book
    low, middle, high = [await book.account(floor_minor=None) for _ in range(3)]
    command = book.transaction(Posting(low, middle, 1, "USD"), Posting(middle, high, 1, "USD"))
    superuser = server.postgres.superuser_url
    patient = msgspec.structs.replace(
        database_url, user=superuser.user, password=superuser.password
    )
    async with in_the_way(patient, book.ledger, high) as other:
        await other.execute("SET LOCAL deadlock_timeout = '1h'")  # so that the victim is ours
        async with in_the_way(database_url, book.ledger, middle):
            task = asyncio.create_task(deliver(desk, [command]))
            await desk.until_blocked()
            crossing = asyncio.create_task(lock(other, book.ledger, low))
            await desk.until_blocked(2)
        await crossing
        assert not task.done()
    assert codes(await task) == ["ok"]
    assert desk.delivery.reasons == ["DeadlockDetectedError"]
    assert await desk.posted_minor(high) == 1


async def test_who_waits_too_long_for_a_lock_tries_again(database_url: DatabaseUrl) -> None:
    async with committing(database_url, lock_timeout_ms=300) as desk:
        account = await desk.book.account()
        async with in_the_way(database_url, desk.book.ledger, account):
            task = asyncio.create_task(
                deliver(desk, [desk.book.payment(desk.book.world, account, 1)])
            )
            await desk.delivery.retried.wait()
        assert codes(await task) == ["ok"]
        assert set(desk.delivery.reasons) == {"LockNotAvailableError"}


async def test_who_is_in_the_way_for_good_holds_up_nobody_else(database_url: DatabaseUrl) -> None:
    async with committing(database_url, lock_timeout_ms=10) as desk:
        book = desk.book
        world, free, stuck = [await book.account(floor_minor=None) for _ in range(3)]
        batch = [book.payment(world, free, 1) for _ in range(5)]
        batch[2] = book.payment(free, stuck, 1)
        async with in_the_way(database_url, book.ledger, stuck):
            answers = await deliver(desk, batch)
        assert codes(answers) == ["ok", "ok", "database_unavailable", "ok", "ok"]
        assert await desk.rows_of(str(batch[2].key)) == []
        assert await desk.posted_minor(free) == 4


async def test_who_has_to_wait_holds_up_nobody_else(database_url: DatabaseUrl) -> None:
    async with committing(database_url, statement_timeout_ms=100, lock_timeout_ms=10_000) as desk:
        book = desk.book
        world, free, slow = [await book.account(floor_minor=None) for _ in range(3)]
        batch = [book.payment(world, free, 1) for _ in range(6)]
        batch[1] = book.payment(free, slow, 1)
        async with in_the_way(database_url, book.ledger, slow):
            task = asyncio.create_task(deliver(desk, batch))
            for command in (batch[0], *batch[2:]):
                await desk.until_kept(str(command.key))
            assert not task.done()
        assert codes(await task) == ["ok"] * 6
        assert replays(task.result()) == [False] * 6
        assert await desk.posted_minor(slow) == 1


async def test_accounts_that_are_held_are_waited_for_once(database_url: DatabaseUrl) -> None:
    async with committing(database_url, lock_timeout_ms=300) as desk:
        book = desk.book
        world, free, first, second = [await book.account(floor_minor=None) for _ in range(4)]
        others = [book.payment(world, free, 1) for _ in range(3)]
        needy = [book.payment(free, first, 1), book.payment(world, second, 1)]
        async with in_the_way(database_url, book.ledger, first, second):
            told = await deliver(desk, [needy[0], *others, needy[1]])
            assert codes(told) == ["database_unavailable", *["ok"] * 3, "database_unavailable"]
            waits = list(desk.delivery.reasons)
            # From now on it is only looked up whether they are still held.
            told = await deliver(desk, [again(needy[0]), *map(again, others)])
            assert codes(told) == ["database_unavailable", *["ok"] * 3]
            assert codes(await deliver(desk, [again(needy[1])])) == ["database_unavailable"]
            assert len(desk.delivery.reasons) == len(waits) + 2
        assert codes(await deliver(desk, [again(command) for command in needy])) == ["ok"] * 2
        assert not desk.delivery._locked._seen


async def test_an_account_that_many_need_is_not_taken_for_held(database_url: DatabaseUrl) -> None:
    async with committing(database_url, lock_timeout_ms=300) as desk:
        account = await desk.book.account()
        payment = desk.book.payment(desk.book.world, account, 1)
        async with in_the_way(database_url, desk.book.ledger, account):
            task = asyncio.create_task(deliver(desk, [payment]))
            await desk.delivery.retried.wait()
            await desk.until_seen(account)
        async with in_the_way(database_url, desk.book.ledger, account):
            await desk.until_blocked()  # it was looked at again, and somebody else had it
        assert codes(await task) == ["ok"]


async def test_nothing_is_tried_again_for_nobody(database_url: DatabaseUrl) -> None:
    async with committing(database_url, lock_timeout_ms=10) as desk:
        book = desk.book
        stuck, free = await book.account(), await book.account()
        batch = [book.payment(book.world, stuck, 1), book.payment(book.world, free, 1)]
        async with in_the_way(database_url, book.ledger, stuck):
            answers = await deliver(desk, batch, wanted=lambda _: not desk.delivery.reasons)
        assert codes(answers) == ["database_unavailable"] * 2
        assert desk.delivery.reasons == ["LockNotAvailableError"]
        for command in batch:
            assert not await desk.keeps(str(command.key))


@pytest.mark.parametrize("hours", [-1, 1])
async def test_a_process_whose_clock_is_wrong_writes_nothing(desk: Desk, hours: int) -> None:
    book = desk.book
    account = await book.account()
    before = book.payment(book.world, account, 1)
    assert codes(await deliver(desk, [before])) == ["ok"]
    then = datetime.now(UTC) + timedelta(hours=hours)

    def wrong(command: Command) -> Command:
        below_time = new_id().int & ((1 << 80) - 1)
        id = UUID(int=first_id_at(then).int | below_time)
        return msgspec.structs.replace(command, id=id)

    batch = [wrong(book.payment(book.world, account, 1)) for _ in range(3)]
    answers = await deliver(desk, batch)
    assert all(isinstance(answer, DatabaseUnavailable) for answer in answers)
    assert "clocks" in str(answers[0])
    for command in batch:
        assert not await desk.keeps(str(command.key))
    assert await desk.posted_minor(account) == 1
    # What was decided before is told all the same.
    assert replays(await deliver(desk, [wrong(before)])) == [True]
    assert set(desk.delivery.reasons) == {"clock_skew"}


async def test_a_schema_that_has_moved_on_stops_the_commands(
    desk: Desk, database_url: DatabaseUrl
) -> None:
    book = desk.book
    account = await book.account()
    commits = desk.delivery._database
    async with in_the_way(database_url, book.ledger, account):
        task = desk.submit(book.payment(book.world, account, 1))
        await desk.until_blocked()
        commits.refusal = SchemaOutOfRange("it has moved on")
        with pytest.raises(SchemaOutOfRange):
            await desk.submit(book.payment(book.world, account, 1))
        assert await desk.owner.fetchval(TERMINATE_BLOCKED) == 1
        with pytest.raises(SchemaOutOfRange):
            await task
    assert await desk.posted_minor(account) == 0
