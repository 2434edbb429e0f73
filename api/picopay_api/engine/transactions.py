"""Transactions: postings that happen together or not at all, and their reversals.

Called by `http/transactions.py`. Every row of the journal is a transaction, payments included.
"""

from uuid import UUID

import msgspec

from picopay_api.engine.commands import Command, Reverse, Transact
from picopay_api.engine.committer import Committer
from picopay_api.engine.counting import Counted
from picopay_api.engine.directory import Directory
from picopay_api.engine.events import Events
from picopay_api.engine.ids import new_id
from picopay_api.engine.journal import Journal, JournalFilter, JournalRow, transaction_of
from picopay_api.engine.ledger import Stamp, addresses, plan_reversal, plan_transaction
from picopay_api.engine.paging import Page
from picopay_api.engine.views import Made, Transaction
from picopay_api.errors import TransactionNotFound
from picopay_api.metrics import TRANSACTIONS
from picopay_api.store.decide import Outcome

TransactionFilter = JournalFilter


class Transactions:
    """The transactions of all ledgers."""

    def __init__(
        self, directory: Directory, committer: Committer, journal: Journal, events: Events
    ) -> None:
        self._directory = directory
        self._committer = committer
        self._journal = journal
        self._events = events

    async def create(self, ledger: UUID, request: Transact, key: str) -> Made[Transaction]:
        """Book postings together, once per key; returns when they are on disk.

        Raises:
            AccountNotFound: an account does not exist; nothing is kept of the request.
            RefusedError, ConflictError: refused by the rules of the ledger.
            UnavailableError: the outcome is not known; the same key will tell.
        """
        with Counted(TRANSACTIONS, "ok", ledger):
            command = await self._plan(ledger, request, key)
            outcome = await self._committer.submit(command)
        return Made(_made(command, outcome), outcome.replayed)

    async def dry_run(self, ledger: UUID, request: Transact) -> Transaction:
        """Judge a transaction as `create` would at this moment, and write nothing.

        Raises:
            PicoPayError: as `create`.
        """
        command = await self._plan(ledger, request, None)
        await self._committer.submit(command)
        return _made(command, None)

    async def reverse(self, ledger: UUID, request: Reverse, key: str) -> Made[Transaction]:
        """Undo a transaction by its mirror image, at most once.

        Raises:
            TransactionNotFound: there is none of this id in the ledger.
            TransactionNotReversible, TransactionAlreadyReversed: it cannot be undone (again).
            RefusedError: the money is not there any more.
        """
        with Counted(TRANSACTIONS, "ok", ledger):
            original = await self._row(ledger, request.transaction)
            command = plan_reversal(
                request,
                original.kind,
                original.postings,
                Stamp(ledger=ledger, id=new_id(), key=key),
            )
            outcome = await self._committer.submit(command)
        return Made(_made(command, outcome), outcome.replayed)

    async def get(self, ledger: UUID, id: UUID) -> Transaction:
        """Return a transaction.

        Raises:
            TransactionNotFound: there is none of this id in the ledger.
        """
        row = await self._row(ledger, id)
        positions = await self._events.positions(ledger, [id])
        return transaction_of(row, positions.get(id))

    async def list(
        self, ledger: UUID, filters: TransactionFilter, limit: int, cursor: str | None = None
    ) -> Page[Transaction]:
        """List transactions, newest first.

        Raises:
            InvalidCursor: the cursor is of another list.
        """
        page = await self._journal.page(
            ledger, "transactions", filters, transaction_of, limit, cursor
        )
        ids = [transaction.id for transaction in page.data if transaction.id]
        positions = await self._events.positions(ledger, ids)
        data = [
            msgspec.structs.replace(transaction, position=positions.get(id))
            for transaction, id in zip(page.data, ids, strict=True)
        ]
        return Page(data, page.next_cursor)

    async def _plan(self, ledger: UUID, request: Transact, key: str | None) -> Command:
        found = await self._directory.find(ledger, addresses(request))
        return plan_transaction(request, found, Stamp(ledger=ledger, id=new_id(), key=key))

    async def _row(self, ledger: UUID, id: UUID) -> JournalRow:
        row = await self._journal.row(ledger, id)
        if row is None:
            raise TransactionNotFound("there is no such transaction in this ledger")
        return row


def _made(command: Command, outcome: Outcome | None) -> Transaction:
    """Show what a command has booked; without an outcome, what it would book."""
    return Transaction(
        id=outcome.id if outcome else None,
        postings=list(command.postings),
        reverses=command.parent,
        reversed_by=None,
        position=None,
        payment=False,
        reference=command.reference,
        metadata=command.metadata,
        created_at=outcome.at if outcome else None,
        dry_run=outcome is None,
    )
