"""The auditor and the full audit: a healthy ledger is clean, every kind of corruption is found."""

from typing import NamedTuple

import msgspec
import pytest

from picopay_api.database_url import DatabaseUrl
from picopay_api.engine import chain
from picopay_api.engine.audit import Audit
from picopay_api.engine.commands import Posting
from picopay_api.engine.ids import new_id
from picopay_api.errors import TransactionNotFound
from picopay_api.store.database import Database
from picopay_api.worker.audit_all import audit_everything
from picopay_api.worker.auditor import Auditor
from picopay_api.worker.checks import KINDS
from picopay_api.worker.sealer import Sealer
from support.journal import Book, tamper

BLOCKS = 12  # more than one step of the auditor


@pytest.fixture
async def book(database: Database) -> Book:
    """A ledger with some history: three accounts, payments, a transaction and a reversal."""
    book = await Book.make(database)
    alice, bob = await book.funded(), await book.account()
    paid = book.payment(alice, bob, 250)
    named = msgspec.structs.replace(book.payment(alice, bob, 50), reference="order-1")
    await book.decide(paid, named)
    await book.decide(book.transaction(*(Posting(alice, bob, n, "USD") for n in (1, 2, 2))))
    await book.decide(book.reversal(paid))
    await Sealer(database).seal(book.ledger)
    for n in range(1, BLOCKS):
        await book.decide(book.payment(alice, bob, n))
        await Sealer(database).seal(book.ledger)
    return book


async def audit(database: Database, book: Book) -> set[str]:
    """Let the continuous auditor see everything; return the kinds of its findings."""
    auditor = Auditor(database, interval_s=0)
    for _ in range(100):
        if not await auditor.check(book.ledger):
            break
    await auditor.check(book.ledger)
    return {finding.kind for finding in (await Audit(database).state(book.ledger)).findings}


async def audit_all(database: Database) -> set[str]:
    return {finding.kind for finding in await audit_everything(database, lambda _: None)}


async def test_a_healthy_ledger_has_no_findings(database: Database, book: Book) -> None:
    assert await audit(database, book) == set()
    state = await Audit(database).state(book.ledger)
    assert state.position == state.sealed_position == 5 + BLOCKS - 1
    assert state.sums == {"USD": 0}
    assert state.checked_at is not None
    reports: list[str] = []
    assert await audit_everything(database, reports.append) == []
    assert any("16 transactions" in report for report in reports)


async def test_a_ledger_not_sealed_yet_is_healthy(database: Database) -> None:
    book = await Book.make(database)
    await book.funded()
    state = await Audit(database).state(book.ledger)
    assert (state.position, state.sealed_position, state.sums) == (0, 0, {})
    assert await audit(database, book) == set()
    assert await audit_all(database) == set()


class Corruption(NamedTuple):
    """A change of what is stored, and the kind of finding that must come of it.

    `continuous`: the continuous auditor sees it, too; otherwise only the full audit reads that far.
    """

    name: str
    kind: str
    sql: str
    continuous: bool = True


LAST = "(SELECT id FROM picopay.journal ORDER BY id DESC LIMIT 1)"
ENTRY = "(SELECT min(created_at) FROM picopay.entry WHERE posted_minor = 5)"

CORRUPTIONS = [
    Corruption(
        "amount in the journal",
        "journal_changed",
        "UPDATE picopay.journal SET postings = jsonb_set(postings, '{0,amount}', '1')"
        f" WHERE id = {LAST}",
    ),
    Corruption(
        "metadata in the journal",
        "journal_changed",
        f"UPDATE picopay.journal SET metadata = '{{}}' WHERE id = {LAST}",
    ),
    Corruption("row deleted", "journal_changed", f"DELETE FROM picopay.journal WHERE id = {LAST}"),
    Corruption(
        "row deleted, seen from its entries",
        "entry_without_transaction",
        f"DELETE FROM picopay.journal WHERE id = {LAST}",
    ),
    Corruption(
        "row added",
        "journal_unread",
        "INSERT INTO picopay.journal SELECT ledger_id, gen_random_uuid(), kind, xid, parent_id,"
        f" NULL, NULL, postings, metadata, created_at FROM picopay.journal WHERE id = {LAST}",
        continuous=False,
    ),
    Corruption(
        "unreadable postings",
        "postings_unreadable",
        f"UPDATE picopay.journal SET postings = '[{{\"amount\": 1.5}}]' WHERE id = {LAST}",
    ),
    Corruption(
        "block changed",
        "chain_broken",
        "UPDATE picopay.block SET sealed_at = now(), cluster = cluster + 1 WHERE height = 3",
    ),
    Corruption("block deleted", "chain_broken", "DELETE FROM picopay.block WHERE height = 3"),
    Corruption(
        "chain of hashes",
        "chain_broken",
        "UPDATE picopay.block SET previous_hash = hash WHERE height = 4",
    ),
    Corruption(
        "entry deleted",
        "entries_differ",
        f"DELETE FROM picopay.entry WHERE journal_id = {LAST}",
    ),
    Corruption(
        "entry changed",
        "entries_differ",
        "UPDATE picopay.entry SET posted_minor = posted_minor + 1"
        f" WHERE journal_id = {LAST} AND posted_minor > 0",
    ),
    Corruption(
        "one-sided entry",
        "transaction_unbalanced",
        "UPDATE picopay.entry SET posted_minor = posted_minor + 1"
        f" WHERE journal_id = {LAST} AND posted_minor > 0",
    ),
    Corruption(
        "asset of an account",
        "asset_differs",
        "UPDATE picopay.balance SET asset = 'EUR' WHERE floor_minor IS NULL",
    ),
    Corruption(
        "assets out of balance",
        "asset_unbalanced",
        "UPDATE picopay.balance SET asset = 'EUR' WHERE floor_minor IS NULL",
    ),
    Corruption(
        "gap in the numbers",
        "sequence_broken",
        "UPDATE picopay.entry SET sequence = sequence + 1"
        f" WHERE journal_id = {LAST} AND posted_minor > 0",
    ),
    Corruption(
        "first entries gone",
        "sequence_broken",
        "DELETE FROM picopay.entry WHERE sequence = 1",
    ),
    Corruption(
        "running balance",
        "running_balance_wrong",
        "UPDATE picopay.entry SET posted_after_minor = posted_after_minor + 1"
        f" WHERE journal_id = {LAST} AND posted_minor > 0",
    ),
    Corruption(
        "entries of nobody",
        "entry_without_account",
        "INSERT INTO picopay.entry SELECT ledger_id, gen_random_uuid(), created_at, 1, journal_id,"
        f" 1, 0, 1, 0 FROM picopay.entry WHERE journal_id = {LAST} LIMIT 1",
        continuous=False,
    ),
    Corruption(
        "balance too high",
        "balance_differs",
        "UPDATE picopay.balance SET posted_minor = posted_minor + 1 WHERE floor_minor = 0",
    ),
    Corruption(
        "money out of nothing",
        "asset_unbalanced",
        "UPDATE picopay.balance SET posted_minor = posted_minor + 1 WHERE floor_minor IS NULL",
    ),
    Corruption(
        "account deleted",
        "account_undescribed",
        "DELETE FROM picopay.account",
    ),
    Corruption(
        "held without a hold",
        "held_differs",
        "UPDATE picopay.balance SET held_minor = 1 WHERE posted_minor > 0",
    ),
    Corruption(
        "below the floor",
        "floor_crossed",
        "ALTER TABLE picopay.balance DROP CONSTRAINT balance_floor;"
        "UPDATE picopay.balance SET posted_minor = -1 WHERE floor_minor = 0",
    ),
    Corruption(
        "reversal forgotten", "reversal_differs", "DELETE FROM picopay.reversal", continuous=False
    ),
    Corruption(
        "reference forgotten",
        "reference_differs",
        "DELETE FROM picopay.reference",
        continuous=False,
    ),
    Corruption(
        "reference given to another one",
        "reference_differs",
        "UPDATE picopay.reference SET journal_id = gen_random_uuid()",
        continuous=False,
    ),
    Corruption(
        "account's balance deleted",
        "account_without_balance",
        "DELETE FROM picopay.balance WHERE sequence > 0",
        continuous=False,
    ),
    Corruption(
        "key forgotten",
        "idempotency_key_differs",
        "DELETE FROM picopay.idempotency_key",
        continuous=False,
    ),
    Corruption(
        "filters forgotten",
        "metadata_differs",
        "DELETE FROM picopay.metadata_item",
        continuous=False,
    ),
    Corruption(
        "counts of commits exchanged",
        "commit_differs",
        "UPDATE picopay.commit SET count = 3 - count WHERE ctid IN ("
        "   SELECT ctid FROM picopay.commit WHERE count IN (1, 2) ORDER BY count DESC LIMIT 2)",
    ),
    Corruption(
        "ledger taken off the list",
        "ledger_unknown",
        "DELETE FROM picopay.ledger",
        continuous=False,
    ),
    Corruption(
        "commit forgotten",
        "journal_unread",
        "DELETE FROM picopay.commit"
        " WHERE decided_at = (SELECT max(decided_at) FROM picopay.commit)",
        continuous=False,
    ),
]


@pytest.mark.parametrize("corruption", CORRUPTIONS, ids=lambda corruption: corruption.name)
async def test_corruption_is_found(
    database: Database, database_url: DatabaseUrl, book: Book, corruption: Corruption
) -> None:
    await tamper(database_url, corruption.sql)
    assert corruption.kind in await audit_all(database)
    if corruption.continuous:
        assert corruption.kind in await audit(database, book)


def test_every_kind_of_finding_is_provoked() -> None:
    provoked = {corruption.kind for corruption in CORRUPTIONS}
    assert provoked | {"journal_incomplete"} == set(KINDS)


async def test_a_commit_without_rows_is_found_before_it_is_sealed(
    database: Database, database_url: DatabaseUrl, book: Book
) -> None:
    await book.decide(book.payment(book.world, await book.account(), 7))
    await tamper(database_url, f"DELETE FROM picopay.journal WHERE id = {LAST}")
    assert "journal_incomplete" in await audit_all(database)
    await Sealer(database).step()
    assert "journal_incomplete" in await audit(database, book)


async def test_a_chain_made_anew_is_found_by_whoever_remembers_the_old_one(
    database: Database, database_url: DatabaseUrl, book: Book
) -> None:
    assert await audit(database, book) == set()
    await tamper(
        database_url,
        "UPDATE picopay.journal SET metadata = '{}'; DELETE FROM picopay.metadata_item;"
        "ALTER TABLE picopay.block DISABLE TRIGGER USER; DELETE FROM picopay.block",
    )
    sealer = Sealer(database)
    while (await sealer.seal(book.ledger)).events:
        pass
    assert await audit_all(database) == set()  # consistent in itself
    assert await audit(database, book) == {"chain_broken"}


async def test_a_finding_stays_and_is_not_repeated(
    database: Database, database_url: DatabaseUrl, book: Book
) -> None:
    await tamper(
        database_url,
        "UPDATE picopay.balance SET posted_minor = posted_minor + 1 WHERE floor_minor IS NULL",
    )
    await audit(database, book)
    first = (await Audit(database).state(book.ledger)).findings
    await audit(database, book)
    assert (await Audit(database).state(book.ledger)).findings == first


async def test_a_proof_verifies_and_names_its_transaction(database: Database, book: Book) -> None:
    [id] = await book.decide(book.payment(book.world, await book.account(), 7))
    audit_ = Audit(database)
    with pytest.raises(TransactionNotFound):
        await audit_.proof(book.ledger, id)
    await Sealer(database).seal(book.ledger)
    proof = await audit_.proof(book.ledger, id)
    state = await audit_.state(book.ledger)
    assert state.sealed_hash is not None
    assert proof.position == state.sealed_position
    assert msgspec.json.decode(proof.document)["id"] == id.hex
    assert chain.verify(proof, state.sealed_hash)
    assert not chain.verify(proof, bytes(32))
    with pytest.raises(TransactionNotFound):
        await audit_.proof(new_id(), id)


async def test_auditors_at_once_agree(database: Database, book: Book) -> None:
    one, two = Auditor(database, 0), Auditor(database, 0)
    for _ in range(4):
        await one.check(book.ledger)
        await two.check(book.ledger)
    state = await Audit(database).state(book.ledger)
    assert state.position == state.sealed_position
    assert state.findings == []
