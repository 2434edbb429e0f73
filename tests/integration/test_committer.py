"""Group commit on a real PostgreSQL: shared commits, order, keys, deadlines and the end of a process."""

import asyncio
import random
from collections.abc import AsyncIterator
from typing import Any

import pytest

from picopay_api.database_url import DatabaseUrl
from picopay_api.engine.commands import Command, Posting
from picopay_api.errors import (
    DeadlineExceeded,
    IdempotencyKeyInFlight,
    IdempotencyKeyReused,
    InsufficientFunds,
    Overloaded,
    PicoPayError,
    ReferenceTaken,
    ShuttingDown,
    TransactionAlreadyReversed,
)
from picopay_api.store.decide import Outcome
from support.committing import Desk, again, committing, in_the_way, with_body
from support.journal import WORLD_MINOR, Book

PAYMENTS = 300


@pytest.fixture
async def desk(database_url: DatabaseUrl) -> AsyncIterator[Desk]:
    async with committing(database_url) as desk:
        yield desk


async def commits_of(book: Book) -> list[dict[str, Any]]:
    """Return the commits of a ledger in the order in which they took their locks."""
    records = await book.database.rows(
        "SELECT xid::text::bigint, count FROM picopay.commit WHERE ledger_id = $1 ORDER BY decided_at",
        book.ledger,
    )
    return [dict(record) for record in records]


async def entries_of(book: Book, account: Any) -> list[tuple[int, Any]]:
    """Return the entries of an account, oldest first: the commit and the id of each."""
    records = await book.database.rows(
        "SELECT j.xid::text::bigint AS xid, j.id FROM picopay.entry AS e"
        " JOIN picopay.journal AS j ON j.ledger_id = e.ledger_id AND j.id = e.journal_id"
        " WHERE e.ledger_id = $1 AND e.account_id = $2 ORDER BY e.sequence",
        book.ledger,
        account,
    )
    return [(record["xid"], record["id"]) for record in records]


def kinds(answers: "list[Outcome | BaseException]") -> list[Any]:
    """Reduce answers to `ok` or the class of the error."""
    return [one.code if isinstance(one, Outcome) else type(one) for one in answers]


async def test_concurrent_payments_share_commits(database_url: DatabaseUrl) -> None:
    async with committing(database_url, batch_commands_max=64) as desk:
        book = desk.book
        accounts = [await book.account(floor_minor=None) for _ in range(4)]
        payments = [
            book.payment(*source_and_destination, 1 + number)
            for number, source_and_destination in enumerate(
                [(a, b) for a in accounts for b in accounts if a != b] * (PAYMENTS // 12)
            )
        ]
        outcomes = await desk.submit_all(*payments)
        assert kinds(outcomes) == ["ok"] * PAYMENTS
        commits = await commits_of(book)
        assert sum(commit["count"] for commit in commits) == PAYMENTS
        assert len(commits) < PAYMENTS / 3
        assert 1 < max(commit["count"] for commit in commits) <= 64


async def test_what_arrives_first_is_decided_first(database_url: DatabaseUrl) -> None:
    async with committing(database_url, connections=1) as desk:
        book = desk.book
        first, account = await book.account(floor_minor=None), await book.account()
        payments = [book.payment(book.world, account, n) for n in range(1, 31)]
        random.shuffle(payments)  # ids are in another order than arrivals
        async with in_the_way(database_url, book.ledger, first):
            ahead = desk.submit(book.payment(book.world, first, 1))
            await desk.until_blocked()
            arrived = [desk.submit(payment) for payment in payments]
            await asyncio.sleep(0)
        await asyncio.gather(ahead, *arrived)
        entries = await entries_of(book, account)
        assert [id for _, id in entries] == [payment.id for payment in payments]
        assert len({xid for xid, _ in entries}) < len(entries)


@pytest.mark.parametrize("first", ["in", "out"])
async def test_money_that_arrives_in_a_batch_can_be_spent_in_it(
    database_url: DatabaseUrl, first: str
) -> None:
    async with committing(database_url, connections=1) as desk:
        book = desk.book
        account, other = await book.account(), await book.account()
        filler = [book.payment(book.world, other, 1) for _ in range(4)]  # a third is two
        both = [book.payment(book.world, account, 100), book.payment(account, book.world, 100)]
        if first == "out":
            both.reverse()
        async with in_the_way(database_url, book.ledger, other):
            ahead = desk.submit(book.payment(book.world, other, 1))
            await desk.until_blocked()
            answers = asyncio.gather(
                *[desk.submit(one) for one in (*both, *filler)], return_exceptions=True
            )
            await asyncio.sleep(0)
        await ahead
        told = kinds(await answers)[:2]
        assert told == (["ok", "ok"] if first == "in" else [InsufficientFunds, "ok"])
        assert await desk.posted_minor(account) == (0 if first == "in" else 100)


async def test_the_same_key_is_decided_once(desk: Desk, database_url: DatabaseUrl) -> None:
    book = desk.book
    account = await book.account()
    payment = book.payment(book.world, account, 100)
    async with in_the_way(database_url, book.ledger, account):
        first = desk.submit(payment)
        await desk.until_blocked()
        joined = [desk.submit(again(payment)) for _ in range(3)]
        with pytest.raises(IdempotencyKeyInFlight):
            await desk.submit(with_body(payment, b"another"))
        assert not first.done()
    assert not (await first).replayed
    for task in joined:
        outcome = await task
        assert (outcome.id, outcome.replayed) == (payment.id, True)
    later = await desk.submit(again(payment))
    assert (later.id, later.replayed, later.at) == (payment.id, True, first.result().at)
    with pytest.raises(IdempotencyKeyReused):
        await desk.submit(with_body(payment, b"another"))
    assert await desk.rows_of(str(payment.key)) == [payment.id]
    assert await desk.posted_minor(account) == 100


async def test_a_refusal_is_kept_and_told_again(desk: Desk) -> None:
    book = desk.book
    payment = book.payment(await book.account(), book.world, 1)
    for replayed in (False, True):
        with pytest.raises(InsufficientFunds) as refusal:
            await desk.submit(again(payment))
        assert refusal.value.replayed is replayed


async def test_beyond_the_bounds_nothing_is_done(database_url: DatabaseUrl) -> None:
    async with committing(database_url, queue_commands_max=4, connections=1) as desk:
        book = desk.book
        account = await book.account()
        payments = [book.payment(book.world, account, 1) for _ in range(9)]
        async with in_the_way(database_url, book.ledger, account):
            first = desk.submit(payments[0])
            await desk.until_blocked()
            rest = [desk.submit(payment) for payment in payments[1:]]
            await asyncio.sleep(0)
        answers = await asyncio.gather(first, *rest, return_exceptions=True)
        assert kinds(answers) == ["ok"] * 5 + [Overloaded] * 4
        assert await desk.posted_minor(account) == 5
        for payment, answer in zip(payments, answers, strict=True):
            assert await desk.keeps(str(payment.key)) == isinstance(answer, Outcome)
            assert not (isinstance(answer, PicoPayError) and answer.status != 503)


async def test_a_client_that_leaves_does_not_take_its_payment_along(
    desk: Desk, database_url: DatabaseUrl
) -> None:
    book = desk.book
    account = await book.account()
    deciding, queued = [book.payment(book.world, account, 10) for _ in range(2)]
    async with in_the_way(database_url, book.ledger, account):
        leaving = [desk.submit(deciding), desk.submit(queued)]
        await desk.until_blocked()
        for task in leaving:
            task.cancel()
        await asyncio.gather(*leaving, return_exceptions=True)
    for payment in (deciding, queued):
        outcome = await desk.submit(again(payment))
        assert (outcome.id, outcome.replayed) == (payment.id, True)
    assert await desk.posted_minor(account) == 20


async def test_what_expires_in_the_queue_is_not_done(database_url: DatabaseUrl) -> None:
    async with committing(database_url, connections=1, timeout_s=0.6) as desk:
        book = desk.book
        account, other = await book.account(), await book.account()
        ahead, behind = book.payment(book.world, account, 1), book.payment(book.world, other, 1)
        async with in_the_way(database_url, book.ledger, account):
            deciding = desk.submit(ahead)
            await desk.until_blocked()
            with pytest.raises(DeadlineExceeded, match="nothing was done"):
                await desk.submit(behind)
            with pytest.raises(DeadlineExceeded, match="the same key will tell"):
                await deciding
        outcome = await until_told(desk, behind)
        assert outcome.id != behind.id
        assert not outcome.replayed
        assert await desk.posted_minor(other) == 1


async def test_what_expires_while_it_is_decided_is_told_by_its_key(
    database_url: DatabaseUrl,
) -> None:
    async with committing(database_url, timeout_s=0.6) as desk:
        book = desk.book
        account = await book.account()
        payment = book.payment(book.world, account, 10)
        async with in_the_way(database_url, book.ledger, account):
            with pytest.raises(DeadlineExceeded):
                await desk.submit(payment)
            with pytest.raises(DeadlineExceeded):  # it is still on its way: who asks joins it
                await desk.submit(again(payment))
            assert not await desk.keeps(str(payment.key))
        await desk.until_kept(str(payment.key))
        outcome = await until_told(desk, payment)
        assert (outcome.id, outcome.replayed) == (payment.id, True)
        assert await desk.rows_of(str(payment.key)) == [payment.id]
        assert await desk.posted_minor(account) == 10


async def until_told(desk: Desk, command: Command) -> Outcome:
    """Ask as a client does that is told to ask again."""
    for _ in range(100):
        try:
            return await desk.submit(again(command))
        except DeadlineExceeded:
            continue
    raise AssertionError("it is never told")


async def test_the_end_of_a_process_loses_nothing_that_was_accepted(
    desk: Desk, database_url: DatabaseUrl
) -> None:
    book = desk.book
    account = await book.account()
    payments = [book.payment(book.world, account, 1) for _ in range(40)]
    async with in_the_way(database_url, book.ledger, account):
        accepted = [desk.submit(payment) for payment in payments]
        await desk.until_blocked()
        closing = asyncio.ensure_future(desk.committer.close())
        await asyncio.sleep(0)
        with pytest.raises(ShuttingDown):
            await desk.submit(book.payment(book.world, account, 1_000))
        assert not closing.done()
    outcomes = await asyncio.gather(*accepted)
    await closing
    assert [outcome.id for outcome in outcomes] == [payment.id for payment in payments]
    assert await desk.posted_minor(account) == 40


async def test_a_process_ends_though_the_database_does_not_let_it(
    database_url: DatabaseUrl,
) -> None:
    async with committing(database_url, connections=1, timeout_s=0.6) as desk:
        book = desk.book
        account = await book.account()
        payments = [book.payment(book.world, account, 1) for _ in range(9)]
        async with in_the_way(database_url, book.ledger, account):
            accepted = [desk.submit(payment) for payment in payments]
            await desk.until_blocked()
            await desk.committer.close()
            answers = await asyncio.gather(*accepted, return_exceptions=True)
            assert set(kinds(answers)) <= {DeadlineExceeded, ShuttingDown}
        assert await desk.posted_minor(account) == 0


async def test_of_those_with_one_reference_one_wins(desk: Desk) -> None:
    book = desk.book
    account = await book.account()
    payments = [
        again(
            book.payment(book.world, account, 1), reference="order-1" if n % 2 else f"order-1-{n}"
        )
        for n in range(20)
    ]
    answers = kinds(await desk.submit_all(*payments))
    assert answers[1::2].count("ok") == 1
    assert answers[1::2].count(ReferenceTaken) == 9
    assert answers[0::2] == ["ok"] * 10
    assert await desk.posted_minor(account) == 11
    assert desk.delivery.reasons.count("UniqueViolationError") == len(desk.delivery.reasons)


async def test_of_the_reversals_of_one_transaction_one_wins(desk: Desk) -> None:
    book = desk.book
    account = await book.account()
    original = book.transaction(Posting(book.world, account, 50, "USD"))
    await desk.submit(original)
    reversals = [book.reversal(original) for _ in range(10)]
    answers = kinds(await desk.submit_all(*reversals))
    assert answers.count("ok") == 1
    assert answers.count(TransactionAlreadyReversed) == 9
    assert await desk.posted_minor(account) == 0


async def test_one_busy_ledger_does_not_starve_another(database_url: DatabaseUrl) -> None:
    async with committing(database_url, connections=1, batch_commands_max=4) as desk:
        book, small = desk.book, await Book.make(desk.book.database)
        account, single = await book.account(), await small.account()
        async with in_the_way(database_url, book.ledger, account):
            tasks = [desk.submit(book.payment(book.world, account, 1)) for _ in range(40)]
            await desk.until_blocked()
            tasks.append(desk.submit(small.payment(small.world, single, 1)))
            await asyncio.sleep(0)
        await asyncio.gather(*tasks)
        (mine,) = await commits_of(small)
        order = sorted(commit["xid"] for commit in await commits_of(book))
        # One batch was under way and one stood before it in line; then it was its turn.
        assert len([xid for xid in order if xid < mine["xid"]]) == 2
        assert len(order) >= 10


async def test_dry_runs_are_judged_among_the_others_and_leave_nothing(desk: Desk) -> None:
    book = desk.book
    account = await book.account()
    real = [book.payment(book.world, account, 1) for _ in range(10)]
    dry = [again(book.payment(book.world, account, WORLD_MINOR), key=None) for _ in range(10)]
    mixed = [command for pair in zip(real, dry, strict=True) for command in pair]
    outcomes = await desk.submit_all(*mixed)
    assert kinds(outcomes) == ["ok"] * 20
    assert [one.id for one in outcomes[1::2] if isinstance(one, Outcome)] == [None] * 10
    assert await desk.posted_minor(account) == 10
