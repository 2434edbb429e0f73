"""How a batch gets through when sessions, answers or the whole database are lost.

Whatever is lost, a command is decided once and answered once, with what was decided.
"""

import asyncio
from collections.abc import AsyncIterator

import pytest

from picopay_api.database_url import DatabaseUrl
from picopay_api.errors import (
    DeadlineExceeded,
    InsufficientFunds,
    ShuttingDown,
    UnavailableError,
)
from picopay_api.store.decide import Outcome
from support.committing import Desk, again, committing, in_the_way
from support.delivering import TERMINATE_BLOCKED, codes, deliver, replays, warm
from support.proxy import Proxy


@pytest.fixture
async def desk(database_url: DatabaseUrl) -> AsyncIterator[Desk]:
    async with committing(database_url) as desk:
        yield desk


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
        tasks = [desk.submit(decided)]
        await desk.until_kept(str(decided.key))
        tasks.append(desk.submit(queued))
        await asyncio.sleep(0)  # until it is in the queue
        await desk.committer.close()
        for answer in await asyncio.gather(*tasks, return_exceptions=True):
            assert isinstance(answer, DeadlineExceeded | ShuttingDown)
        assert desk.idle()
    async with committing(database_url) as another:
        told = await deliver(another, [again(decided), again(queued)])
        assert replays(told) == [True, False]
