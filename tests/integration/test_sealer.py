"""Sealing on a real PostgreSQL: dense and exact, whatever order transactions commit in."""

import asyncio
from uuid import UUID

import asyncpg
import pytest

from picopay_api.database_url import DatabaseUrl
from picopay_api.engine import chain
from picopay_api.engine.events import Events
from picopay_api.metrics import SEAL_LAG_SECONDS
from picopay_api.store.database import Database
from picopay_api.worker import sealer as sealing
from picopay_api.worker.sealer import JournalIncompleteError, Sealer
from support.journal import Book, tamper

FOREIGN = -42


async def seal_all(database: Database, ledger: UUID) -> int:
    """Seal until nothing settled is left; return the number of events."""
    sealer = Sealer(database)
    events = 0
    for _ in range(1_000):
        sealed = await sealer.seal(ledger)
        events += sealed.events
        if not (sealed.more or sealed.busy):
            return events
    raise AssertionError("sealing does not come to an end")


async def feed(database: Database, ledger: UUID) -> list[UUID]:
    """Read the whole feed in small pages; positions must be 1, 2, 3, …"""
    ids: list[UUID] = []
    while page := await Events(database).list(ledger, len(ids), 7):
        assert [event.position for event in page] == [len(ids) + n for n in range(1, len(page) + 1)]
        ids += [event.id for event in page]
    return ids


async def blocks(database: Database, ledger: UUID) -> list[asyncpg.Record]:
    return await database.rows(
        "SELECT * FROM picopay.block WHERE ledger_id = $1 ORDER BY height", ledger
    )


async def move_to_cluster(url: DatabaseUrl, ledger: UUID, cluster: int) -> None:
    """Make a ledger look as if it had been restored from a dump of another cluster."""
    await tamper(
        url, "UPDATE picopay.commit SET cluster = $1 WHERE ledger_id = $2", cluster, ledger
    )
    await tamper(url, "UPDATE picopay.block SET cluster = $1 WHERE ledger_id = $2", cluster, ledger)


async def test_nothing_to_seal(database: Database, book: Book) -> None:
    assert await seal_all(database, book.ledger) == 0
    assert await blocks(database, book.ledger) == []


async def test_commits_become_one_chain_of_blocks(database: Database, book: Book) -> None:
    account = await book.funded()
    await seal_all(database, book.ledger)
    batch = [book.payment(book.world, account, n) for n in range(1, 6)]
    await book.decide(*batch)
    await seal_all(database, book.ledger)
    first, second = await blocks(database, book.ledger)
    assert (first["height"], first["first_position"], first["count"]) == (1, 1, 1)
    assert (second["height"], second["first_position"], second["count"]) == (2, 2, 5)
    assert first["previous_hash"] == chain.GENESIS
    assert second["previous_hash"] == first["hash"]
    assert second["xid_from"] == first["xid_to"]
    assert (await feed(database, book.ledger))[1:] == [command.id for command in batch]


async def test_blocks_are_bounded(
    database: Database, book: Book, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sealing, "BLOCK_ROWS_MAX", 10)
    account = await book.funded()
    for size in (4, 4, 30, 1, 9, 2):
        await book.decide(*(book.payment(book.world, account, 1) for _ in range(size)))
    assert await seal_all(database, book.ledger) == 51
    counts = [block["count"] for block in await blocks(database, book.ledger)]
    assert counts == [9, 30, 10, 2]
    assert len(await feed(database, book.ledger)) == 51


async def test_a_commit_that_comes_late_is_not_skipped(database: Database, book: Book) -> None:
    early, late = await book.account(), await book.account()
    outside = [await book.account(floor_minor=None) for _ in range(2)]
    async with database.transaction() as connection:
        held_back = book.payment(outside[0], early, 1)
        await book.decide(held_back, on=connection)
        overtaking = book.payment(outside[1], late, 1)
        await book.decide(overtaking)
        # It has committed, but a lower transaction id is still undecided.
        assert await seal_all(database, book.ledger) == 0
        assert await feed(database, book.ledger) == []
    assert await seal_all(database, book.ledger) == 2
    assert set(await feed(database, book.ledger)) == {held_back.id, overtaking.id}


async def test_what_commits_before_the_late_one_is_sealed(database: Database, book: Book) -> None:
    account, other = await book.account(), await book.account(floor_minor=None)
    before = book.payment(book.world, account, 1)
    await book.decide(before)
    async with database.transaction() as connection:
        await book.decide(book.payment(other, account, 1), on=connection)
        assert await seal_all(database, book.ledger) == 1
        assert await feed(database, book.ledger) == [before.id]
    assert await seal_all(database, book.ledger) == 1


async def test_a_transaction_rolled_back_leaves_no_gap(database: Database, book: Book) -> None:
    account = await book.funded()
    with pytest.raises(ZeroDivisionError):
        async with database.transaction() as connection:
            await book.decide(book.payment(book.world, account, 1), on=connection)
            raise ZeroDivisionError
    await book.decide(book.payment(book.world, account, 1))
    assert await seal_all(database, book.ledger) == 2
    assert len(await feed(database, book.ledger)) == 2


async def test_sealers_at_once_seal_everything_once(database: Database, book: Book) -> None:
    accounts = [await book.account(floor_minor=None) for _ in range(4)]
    decided: list[UUID] = []
    done = asyncio.Event()

    async def pay(source: UUID, destination: UUID) -> None:
        for _ in range(30):
            decided.extend(await book.decide(book.payment(source, destination, 1)))

    async def seal() -> None:
        sealer = Sealer(database)
        while not done.is_set():
            await sealer.seal(book.ledger)

    sealers = [asyncio.create_task(seal()) for _ in range(3)]
    await asyncio.gather(pay(accounts[0], accounts[1]), pay(accounts[2], accounts[3]))
    done.set()
    await asyncio.gather(*sealers)
    await seal_all(database, book.ledger)
    found = await feed(database, book.ledger)
    assert len(found) == 60
    assert set(found) == set(decided)


async def test_a_sealer_that_dies_leaves_nothing_half_done(
    database: Database, book: Book, monkeypatch: pytest.MonkeyPatch
) -> None:
    await book.funded()
    insert = sealing._insert_block  # the last moment before the commit

    async def insert_and_die(*arguments: object) -> None:
        await insert(*arguments)  # type: ignore[arg-type]  # passed on as they come
        raise ZeroDivisionError

    with monkeypatch.context() as patch:
        patch.setattr(sealing, "_insert_block", insert_and_die)
        with pytest.raises(ZeroDivisionError):
            await Sealer(database).seal(book.ledger)
    assert await blocks(database, book.ledger) == []
    assert await seal_all(database, book.ledger) == 1


async def test_commits_of_another_cluster_count_as_settled(
    database: Database, database_url: DatabaseUrl, book: Book
) -> None:
    account = await book.funded()
    await seal_all(database, book.ledger)
    await book.decide(book.payment(book.world, account, 1))
    await move_to_cluster(database_url, book.ledger, FOREIGN)
    # As if the other cluster were far ahead of this one.
    await tamper(
        database_url,
        "WITH j AS (UPDATE picopay.journal SET xid = '999999999999' WHERE created_at ="
        " (SELECT max(created_at) FROM picopay.journal))"
        "UPDATE picopay.commit SET xid = '999999999999'"
        " WHERE decided_at = (SELECT max(decided_at) FROM picopay.commit)",
    )
    here = book.payment(book.world, account, 2)
    await book.decide(here)
    assert await seal_all(database, book.ledger) == 2
    found = await feed(database, book.ledger)
    assert len(found) == 3
    assert found[2] == here.id
    sealed = await blocks(database, book.ledger)
    assert [block["cluster"] == FOREIGN for block in sealed] == [True, True, False]
    assert sealed[1]["xid_from"] == sealed[0]["xid_to"]
    assert await Events(database).positions(book.ledger, found) == {
        id: n for n, id in enumerate(found, start=1)
    }


async def test_a_restore_back_goes_on_where_the_cluster_had_been(
    database: Database, database_url: DatabaseUrl, book: Book
) -> None:
    account = await book.funded()
    await seal_all(database, book.ledger)
    await book.decide(book.payment(book.world, account, 1))
    await tamper(
        database_url,
        "UPDATE picopay.commit SET cluster = $1"
        " WHERE decided_at = (SELECT max(decided_at) FROM picopay.commit)",
        FOREIGN,
    )
    await seal_all(database, book.ledger)
    await book.decide(book.payment(book.world, account, 2))
    await seal_all(database, book.ledger)
    first, abroad, back = await blocks(database, book.ledger)
    assert [block["count"] for block in (first, abroad, back)] == [1, 1, 1]
    assert first["cluster"] == back["cluster"] != abroad["cluster"] == FOREIGN
    assert back["xid_from"] == first["xid_to"]
    assert back["previous_hash"] == abroad["hash"]
    assert len(await feed(database, book.ledger)) == 3


async def test_a_commit_with_missing_rows_is_never_sealed(
    database: Database, database_url: DatabaseUrl, book: Book
) -> None:
    account = await book.funded()
    await book.decide(*(book.payment(book.world, account, n) for n in (1, 2)))
    await tamper(
        database_url,
        "DELETE FROM picopay.journal WHERE id = (SELECT id FROM picopay.journal"
        " ORDER BY id DESC LIMIT 1)",
    )
    with pytest.raises(JournalIncompleteError):
        await Sealer(database).seal(book.ledger)
    assert await blocks(database, book.ledger) == []


async def test_a_round_finds_every_ledger_with_something_to_seal(database: Database) -> None:
    sealer = Sealer(database)
    books = [await Book.make(database) for _ in range(3)]
    await books[0].funded()
    await sealer.step()  # looks at every ledger
    await books[1].funded()
    await books[2].funded()
    await sealer.step()  # looks at what was decided since
    for book in books:
        assert len(await feed(database, book.ledger)) == 1


async def test_a_round_comes_back_to_what_was_undecided(database: Database, book: Book) -> None:
    sealer = Sealer(database)
    await sealer.step()
    outside = await book.account(floor_minor=None)
    async with database.transaction() as connection:
        await book.decide(book.payment(outside, await book.account(), 1), on=connection)
        await book.funded()
        await sealer.step()
        assert await feed(database, book.ledger) == []
        [lag_s] = [m.samples[0].value for m in SEAL_LAG_SECONDS.collect()]
        assert lag_s > 0
    await sealer.step()
    assert len(await feed(database, book.ledger)) == 2
