"""The event feed: what each event shows, and that reading it costs the same however long it is."""

from typing import Any

import msgspec
import pytest

from picopay_api.engine.commands import Posting
from picopay_api.engine.events import Events
from picopay_api.engine.ids import new_id
from picopay_api.engine.views import Payment, PaymentStatus, Transaction
from picopay_api.errors import EventNotFound
from picopay_api.store import events as statements
from picopay_api.store.database import Database
from picopay_api.worker.sealer import Sealer
from support.journal import Book


async def test_each_kind_of_row_is_an_event_of_its_own(database: Database, book: Book) -> None:
    one, two = await book.account(), await book.account()
    payment = book.payment(book.world, one, 100)
    await book.decide(payment)
    transaction = book.transaction(Posting(one, two, 30, "USD"), Posting(one, book.world, 5, "USD"))
    await book.decide(transaction)
    reversal = book.reversal(payment)
    await book.decide(book.payment(book.world, one, 500))
    await book.decide(reversal)
    await Sealer(database).step()
    paid, created, _, reversed_ = await Events(database).list(book.ledger)

    assert [paid.type, created.type, reversed_.type] == [
        "payment.captured",
        "transaction.created",
        "transaction.reversed",
    ]
    assert [paid.position, created.position, reversed_.position] == [1, 2, 4]
    assert isinstance(paid.object, Payment)
    # As of then: that it was refunded is told by the later event.
    assert (paid.object.status, paid.object.refunded_minor) == (PaymentStatus.CAPTURED, 0)
    assert paid.object.metadata == {"note": "grüße"}
    assert isinstance(created.object, Transaction)
    assert created.object.postings == list(transaction.postings)
    assert created.object.position == 2
    assert isinstance(reversed_.object, Transaction)
    assert reversed_.object.reverses == payment.id
    assert (reversed_.id, reversed_.created_at) == (reversal.id, reversed_.object.created_at)


@pytest.mark.parametrize(("after", "limit"), [(0, 3), (4, 1), (5, 100), (19, 5), (20, 5), (99, 1)])
async def test_a_page_is_what_stands_behind_a_position(
    database: Database, book: Book, after: int, limit: int
) -> None:
    account = await book.account()
    ids = []
    for size in (1, 7, 1, 1, 10):
        ids += await book.decide(*(book.payment(book.world, account, 1) for _ in range(size)))
        if size != 7:
            await Sealer(database).seal(book.ledger)
    page = await Events(database).list(book.ledger, after, limit)
    assert [event.id for event in page] == ids[after : after + limit]


async def test_an_event_by_its_id(database: Database, book: Book) -> None:
    account = await book.account()
    ids = await book.decide(*(book.payment(book.world, account, n) for n in (1, 2, 3)))
    events = Events(database)
    with pytest.raises(EventNotFound):
        await events.get(book.ledger, ids[1])
    await Sealer(database).step()
    assert await events.get(book.ledger, ids[1]) == (await events.list(book.ledger))[1]
    with pytest.raises(EventNotFound):
        await events.get(book.ledger, new_id())


async def test_positions_of_what_is_sealed(database: Database, book: Book) -> None:
    account = await book.account()
    sealed = await book.decide(*(book.payment(book.world, account, n) for n in (1, 2, 3)))
    await Sealer(database).step()
    waiting = await book.decide(book.payment(book.world, account, 4))
    events = Events(database)
    assert await events.positions(book.ledger, [*waiting, *sealed, new_id()]) == {
        id: n for n, id in enumerate(sealed, start=1)
    }
    assert await events.positions(book.ledger, []) == {}


async def test_ledgers_do_not_see_one_another(database: Database, book: Book) -> None:
    other = await Book.make(database)
    [id] = await other.decide(other.payment(other.world, await other.account(), 1))
    await Sealer(database).step()
    events = Events(database)
    assert await events.list(book.ledger) == []
    assert await events.positions(book.ledger, [id]) == {}
    assert [event.id for event in await events.list(other.ledger)] == [id]


def rows_read(plan: dict[str, Any]) -> int:
    """Count what the scans of a plan returned; none of them may read a table as a whole."""
    assert plan["Node Type"] != "Seq Scan"
    scanned = plan["Actual Rows"] * plan["Actual Loops"] if "Relation Name" in plan else 0
    return round(scanned) + sum(rows_read(below) for below in plan.get("Plans", []))


@pytest.mark.parametrize("statement", ["FEED", "POSITIONS"])
async def test_the_cost_does_not_grow_with_history(
    database: Database, book: Book, statement: str
) -> None:
    account = await book.account()
    sealer = Sealer(database)
    ids = []
    for _ in range(40):
        ids += await book.decide(*(book.payment(book.world, account, 1) for _ in range(50)))
        await sealer.seal(book.ledger)
    arguments = (1_000, 10) if statement == "FEED" else ([ids[1_000]],)
    async with database.transaction() as connection:
        # A young table is small enough to be read as a whole; what is asked is whether it must be.
        await connection.execute("SET LOCAL enable_seqscan = off")
        text = await connection.fetchval(
            f"EXPLAIN (ANALYZE, FORMAT JSON) {getattr(statements, statement)}",
            book.ledger,
            *arguments,
        )
    [explained] = msgspec.json.decode(text)
    assert rows_read(explained["Plan"]) <= 200
