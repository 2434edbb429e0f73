"""The event feed: every accepted command of a ledger once, in an order that never changes.

Called by `http/events.py` and, for positions, by `transactions.py`. Reads sealed positions only,
so that nothing is skipped or repeated whatever order transactions committed in. One event per row
of the journal; an event shows its object as it was then, not as it has become.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

import msgspec

from picopay_api.engine.commands import Kind
from picopay_api.engine.journal import journal_row, payment_of, transaction_of
from picopay_api.engine.views import Payment, Transaction
from picopay_api.errors import EventNotFound
from picopay_api.store import events as statements
from picopay_api.store.database import Database

_TYPES = {
    Kind.PAYMENT: "payment.captured",
    Kind.TRANSACTION: "transaction.created",
    Kind.REVERSAL: "transaction.reversed",
}
"""What each kind of row announces. A reversal shows the reversing transaction, of payments too."""


class Event(msgspec.Struct, frozen=True, kw_only=True):
    """Something that happened; `position` counts from 1 within the ledger, without gaps."""

    id: UUID
    position: int
    type: str
    created_at: datetime
    ledger: UUID
    object: Payment | Transaction


class Events:
    """The feeds of all ledgers."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def list(self, ledger: UUID, after: int = 0, limit: int = 20) -> Sequence[Event]:
        """Return up to `limit` events behind position `after`, in ascending order.

        An empty list means that nothing more is sealed yet: ask again with the same position.
        """
        records = await self._database.rows(statements.FEED, ledger, after, limit)
        return [_event(ledger, record) for record in records]

    async def get(self, ledger: UUID, id: UUID) -> Event:
        """Return the event about a row of the journal.

        Raises:
            EventNotFound: there is none of this id in the ledger, or it is not sealed yet.
        """
        position = (await self.positions(ledger, [id])).get(id)
        events = await self.list(ledger, position - 1, 1) if position else []
        if not events:
            raise EventNotFound("there is no such event in this ledger")
        return events[0]

    async def positions(self, ledger: UUID, ids: Sequence[UUID]) -> dict[UUID, int]:
        """Find the positions of journal rows; those not sealed yet are absent."""
        if not ids:
            return {}
        records = await self._database.rows(statements.POSITIONS, ledger, ids)
        return {record["id"]: record["position"] for record in records}


def _event(ledger: UUID, record: Any) -> Event:
    row = journal_row(record)
    position = record["position"]
    return Event(
        id=row.id,
        position=position,
        type=_TYPES[row.kind],
        created_at=row.created_at,
        ledger=ledger,
        object=payment_of(row) if row.kind is Kind.PAYMENT else transaction_of(row, position),
    )
