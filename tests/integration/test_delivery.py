"""How a batch gets through: collisions, culprits, lost sessions and a database that is away.

Whatever happens on the way, a command is decided once and answered once, with what was decided.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest

from picopay_api.database_url import DatabaseUrl
from picopay_api.engine.commands import Command, Leg, Posting
from picopay_api.engine.ids import first_id_at, new_id
from picopay_api.errors import (
    DatabaseUnavailable,
    DeadlineExceeded,
    InsufficientFunds,
    InternalError,
    PicoPayError,
    ReferenceTaken,
    SchemaOutOfRange,
    ShuttingDown,
    UnavailableError,
)
from picopay_api.store.decide import Outcome
from support.committing import Desk, again, committing, in_the_way, lock
from support.postgres import Server
from support.proxy import Proxy, proxied

Answer = Outcome | PicoPayError

TERMINATE_BLOCKED = (
    "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity"
    " WHERE datname = current_database() AND wait_event_type = 'Lock'"
)


@pytest.fixture
async def desk(database_url: DatabaseUrl) -> AsyncIterator[Desk]:
    async with committing(database_url) as desk:
        yield desk


@pytest.fixture
async def proxy(database_url: DatabaseUrl) -> AsyncIterator[Proxy]:
    async with proxied(database_url) as proxy:
        yield proxy


async def deliver(
    desk: Desk,
    batch: Sequence[Command],
    wanted: "Callable[[Sequence[Command]], bool]" = lambda _: True,
) -> list[Answer]:
    """Deliver a batch as the committer does; return what each command was answered, once."""
    answers: dict[Any, Answer] = {}

    def settle(command: Command, answer: Answer) -> None:
        assert command.id not in answers
        answers[command.id] = answer

    await desk.delivery.deliver(batch, settle, wanted)
    return [answers[command.id] for command in batch]


def codes(answers: Sequence[Answer]) -> list[str]:
    return [answer.code for answer in answers]


def replays(answers: Sequence[Answer]) -> list[bool]:
    return [isinstance(answer, Outcome) and answer.replayed for answer in answers]


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


@pytest.mark.parametrize("bound", ["lock", "statement"])
async def test_who_has_to_wait_holds_up_nobody_else(database_url: DatabaseUrl, bound: str) -> None:
    statement_ms, lock_ms = (100, 10_000) if bound == "statement" else (10_000, 400)
    async with committing(
        database_url, statement_timeout_ms=statement_ms, lock_timeout_ms=lock_ms
    ) as desk:
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


async def test_a_session_that_is_killed_in_the_middle(
    desk: Desk, database_url: DatabaseUrl
) -> None:
    book = desk.book
    account = await book.account()
    payment = book.payment(book.world, account, 5)
    async with in_the_way(database_url, book.ledger, account):
        task = desk.submit(payment)
        await desk.until_blocked()
        assert await desk.owner.fetchval(TERMINATE_BLOCKED) == 1
        await desk.delivery.retried.wait()
        await desk.until_blocked()  # by a new session
    outcome = await task
    assert (outcome.code, outcome.id, outcome.replayed) == ("ok", payment.id, False)
    assert desk.delivery.reasons == ["unreachable"]
    assert await desk.posted_minor(account) == 5


async def test_a_session_that_is_killed_between_two_batches(
    database_url: DatabaseUrl, proxy: Proxy
) -> None:
    async with committing(database_url, proxy.url, connections=1) as desk:
        await warm(desk)
        account = await desk.book.account()
        payments = [desk.book.payment(desk.book.world, account, 1) for _ in range(5)]
        proxy.linger()
        await desk.owner.fetchval(
            "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity"
            " WHERE datname = current_database() AND query LIKE '%picopay.decide%'"
            " AND pid <> pg_backend_pid()"
        )
        await proxy.hung_up()
        outcomes = await asyncio.gather(*[desk.submit(payment) for payment in payments])
        assert [outcome.id for outcome in outcomes] == [payment.id for payment in payments]
        assert not any(outcome.replayed for outcome in outcomes)
        assert await desk.posted_minor(account) == 5


async def test_a_session_that_is_lost_while_the_server_goes_on(
    database_url: DatabaseUrl, proxy: Proxy
) -> None:
    async with committing(database_url, proxy.url) as desk:
        book = desk.book
        account = await book.account()
        payment = book.payment(book.world, account, 5)
        async with in_the_way(database_url, book.ledger, account):
            task = desk.submit(payment)
            await desk.until_blocked()
            await proxy.cut()
            await desk.until_blocked(2)  # the server does not know that nobody listens to the first
        outcome = await task
        assert (outcome.code, outcome.id, outcome.replayed) == ("ok", payment.id, False)
        assert await desk.rows_of(str(payment.key)) == [payment.id]
        assert await desk.posted_minor(account) == 5


async def warm(desk: Desk) -> None:
    """Have each statement prepared, so that what comes next is one question and one answer."""
    command = desk.book.payment(desk.book.world, await desk.book.account(), 1)
    assert codes(await deliver(desk, [command])) == ["ok"]


async def test_an_answer_that_is_lost_after_the_commit(
    database_url: DatabaseUrl, proxy: Proxy
) -> None:
    async with committing(database_url, proxy.url, connections=1) as desk:
        await warm(desk)
        book = desk.book
        account = await book.account()
        payment = book.payment(book.world, account, 5)
        refused = book.payment(account, book.world, 6)
        paid_before = book.payment(book.world, account, 0)
        refused_before = book.payment(account, book.world, 1)
        assert codes(await deliver(desk, [paid_before])) == ["ok"]
        assert codes(await deliver(desk, [refused_before])) == [InsufficientFunds.code]
        dry_run = again(payment, key=None)
        batch = [payment, refused, again(paid_before), again(refused_before), dry_run]
        proxy.mute()
        task = asyncio.create_task(deliver(desk, batch))
        await desk.until_kept(str(refused.key))
        await proxy.cut()
        answers = await task
        assert desk.delivery.reasons == ["unreachable"]
        assert codes(answers) == ["ok", "insufficient_funds", "ok", "insufficient_funds", "ok"]
        assert replays(answers) == [False, False, True, True, False]
        assert [answer.id for answer in answers if isinstance(answer, Outcome)] == [
            *(payment.id, None, paid_before.id, None, None)
        ]
        assert await desk.posted_minor(account) == 5
        reused = again(payment, fingerprint=b"another")
        assert codes(await deliver(desk, [reused])) == ["idempotency_key_reused"]
        # Who asks again is told that it was asked before.
        assert replays(await deliver(desk, [again(payment), again(refused)])) == [True, True]


async def test_a_lost_answer_is_told_once_as_new(database_url: DatabaseUrl, proxy: Proxy) -> None:
    async with committing(database_url, proxy.url, connections=1) as desk:
        await warm(desk)
        account = await desk.book.account()
        payment = desk.book.payment(desk.book.world, account, 5)
        proxy.mute()
        tasks = [desk.submit(payment), desk.submit(again(payment))]
        await desk.until_kept(str(payment.key))
        tasks.append(desk.submit(again(payment)))
        await asyncio.sleep(0)
        await proxy.cut()
        outcomes = await asyncio.gather(*tasks)
        assert [outcome.replayed for outcome in outcomes] == [False, True, True]
        assert {outcome.id for outcome in outcomes} == {payment.id}
        assert await desk.rows_of(str(payment.key)) == [payment.id]


async def test_an_answer_that_is_lost_with_the_database(
    database_url: DatabaseUrl, proxy: Proxy
) -> None:
    async with committing(database_url, proxy.url, connections=1, timeout_s=2) as desk:
        await warm(desk)
        account = await desk.book.account()
        payment = desk.book.payment(desk.book.world, account, 5)
        proxy.mute()
        task = desk.submit(payment)
        await desk.until_kept(str(payment.key))
        await proxy.refuse()
        with pytest.raises(UnavailableError, match="the same key will tell"):
            await task
        await proxy.admit()
        outcome = await desk.submit(again(payment))
        assert (outcome.id, outcome.replayed) == (payment.id, True)
        assert await desk.posted_minor(account) == 5


async def test_the_database_comes_back_in_time(database_url: DatabaseUrl, proxy: Proxy) -> None:
    async with committing(database_url, proxy.url) as desk:
        account = await desk.book.account()
        payments = [desk.book.payment(desk.book.world, account, 1) for _ in range(20)]
        await proxy.refuse()
        tasks = [desk.submit(payment) for payment in payments]
        await desk.delivery.retried.wait()
        await proxy.admit()
        outcomes = await asyncio.gather(*tasks)
        assert [outcome.id for outcome in outcomes] == [payment.id for payment in payments]
        assert not any(outcome.replayed for outcome in outcomes)
        assert await desk.posted_minor(account) == 20


async def test_the_database_comes_back_too_late(database_url: DatabaseUrl, proxy: Proxy) -> None:
    async with committing(database_url, proxy.url, timeout_s=0.6) as desk:
        account = await desk.book.account()
        payments = [desk.book.payment(desk.book.world, account, 1) for _ in range(20)]
        await proxy.refuse()
        tasks = [desk.submit(payment) for payment in payments]
        answers = await asyncio.gather(*tasks, return_exceptions=True)
        assert {type(answer) for answer in answers} == {DeadlineExceeded}
        await desk.until_idle()  # the attempts end when nobody waits
        for payment in payments:
            assert not await desk.keeps(str(payment.key))
        await proxy.admit()
        outcome = await desk.submit(again(payments[0]))
        assert not outcome.replayed
        assert await desk.posted_minor(account) == 1


async def test_a_process_ends_while_the_database_is_away(
    database_url: DatabaseUrl, proxy: Proxy
) -> None:
    async with committing(database_url, proxy.url, timeout_s=0.6) as desk:
        account = await desk.book.account()
        await proxy.refuse()
        tasks = [desk.submit(desk.book.payment(desk.book.world, account, 1)) for _ in range(20)]
        await desk.delivery.retried.wait()
        await desk.committer.close()
        answers = await asyncio.gather(*tasks, return_exceptions=True)
        assert {type(answer) for answer in answers} <= {DeadlineExceeded, ShuttingDown}
        assert desk.idle()


async def test_a_process_ends_while_the_database_says_nothing(
    database_url: DatabaseUrl, proxy: Proxy
) -> None:
    bounds = {"connections": 1, "timeout_s": 0.6, "connect_timeout_s": 0.5}
    async with committing(database_url, proxy.url, **bounds) as desk:
        await warm(desk)
        account = await desk.book.account()
        decided, queued = [desk.book.payment(desk.book.world, account, 1) for _ in range(2)]
        proxy.mute()
        tasks = [desk.submit(decided), desk.submit(queued)]
        await desk.until_kept(str(decided.key))
        await desk.committer.close()
        for answer in await asyncio.gather(*tasks, return_exceptions=True):
            assert isinstance(answer, DeadlineExceeded | ShuttingDown)
        assert desk.idle()
    async with committing(database_url) as another:
        told = await deliver(another, [again(decided), again(queued)])
        assert replays(told) == [True, False]


@pytest.mark.parametrize("hours", [-1, 1])
async def test_a_process_whose_clock_is_wrong_writes_nothing(desk: Desk, hours: int) -> None:
    book = desk.book
    account = await book.account()
    before = book.payment(book.world, account, 1)
    assert codes(await deliver(desk, [before])) == ["ok"]
    then = datetime.now(UTC) + timedelta(hours=hours)

    def wrong(command: Command) -> Command:
        below_time = new_id().int & ((1 << 80) - 1)
        id = type(command.id)(int=first_id_at(then).int | below_time)
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
    assert desk.delivery.reasons == []


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


async def test_what_was_refused_is_told_in_full_after_a_lost_answer(
    database_url: DatabaseUrl, proxy: Proxy
) -> None:
    async with committing(database_url, proxy.url, connections=1) as desk:
        await warm(desk)
        account = await desk.book.account()
        refused = desk.book.payment(account, desk.book.world, 6)
        proxy.mute()
        task = desk.submit(refused)
        await desk.until_kept(str(refused.key))
        await proxy.cut()
        with pytest.raises(InsufficientFunds) as told:
            await task
        assert not told.value.replayed
        with pytest.raises(InsufficientFunds) as again_told:
            await desk.submit(again(refused))
        assert again_told.value.replayed
        assert again_told.value.members == told.value.members
        assert told.value.members["required"] == 6
