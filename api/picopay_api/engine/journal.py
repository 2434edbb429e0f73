"""The journal as it is read: rows by id, and lists of them by the filters of clients.

Used by `payments.py`, `transactions.py` and `events.py`; a payment and its transaction are one row. Each
list is driven by the index of its most selective filter; the others are judged on the rows it leads to.
"""

from collections.abc import Callable, Sequence
from datetime import datetime
from functools import partial
from typing import Any
from uuid import UUID

import msgspec

from picopay_api.engine.commands import Kind, Posting
from picopay_api.engine.directory import Directory
from picopay_api.engine.paging import (
    Candidate,
    Page,
    Scan,
    Times,
    entries_from,
    entry_position,
    list_name,
    scan_page,
)
from picopay_api.engine.views import Payment, PaymentStatus, Transaction
from picopay_api.errors import AccountNotFound
from picopay_api.store import idempotency
from picopay_api.store import journal as statements
from picopay_api.store.database import Database

_postings_decoder = msgspec.json.Decoder(tuple[Posting, ...])
_metadata_decoder = msgspec.json.Decoder(dict[str, str])


class JournalRow(msgspec.Struct, frozen=True, kw_only=True):
    """One accepted command, and the reversal that undid it, if any."""

    id: UUID
    kind: Kind
    parent_id: UUID | None
    reference: str | None
    idempotency_key: str | None
    postings: tuple[Posting, ...]
    metadata: dict[str, str]
    created_at: datetime
    reversal_id: UUID | None


class JournalFilter(msgspec.Struct, frozen=True, kw_only=True):
    """Filters of a list; None and empty match everything."""

    account: str | None = None
    status: str | None = None
    reference: str | None = None
    idempotency_key: str | None = None
    metadata: dict[str, str] = {}
    created_at: Times = Times()


def journal_row(record: Any) -> JournalRow:
    """Make a row of a record with the columns of `store/journal.py` BY_IDS."""
    return JournalRow(
        id=record["id"],
        kind=Kind(record["kind"]),
        parent_id=record["parent_id"],
        reference=record["reference"],
        idempotency_key=record["idempotency_key"],
        postings=_postings_decoder.decode(record["postings"]),
        metadata=_metadata_decoder.decode(record["metadata"]) if record["metadata"] else {},
        created_at=record["created_at"],
        reversal_id=record["reversal_id"],
    )


def payment_of(row: JournalRow) -> Payment:
    """Show a row of the journal as a payment: captured, or refunded once it has been reversed."""
    posting = row.postings[0]
    refunded = row.reversal_id is not None
    return Payment(
        id=row.id,
        status=PaymentStatus.REFUNDED if refunded else PaymentStatus.CAPTURED,
        amount_minor=posting.amount,
        captured_minor=posting.amount,
        refunded_minor=posting.amount if refunded else 0,
        asset=posting.asset,
        source=posting.source,
        destination=posting.destination,
        reference=row.reference,
        created_at=row.created_at,
        expires_at=None,
        metadata=row.metadata,
    )


def transaction_of(row: JournalRow, position: int | None = None) -> Transaction:
    """Show a row of the journal as a transaction."""
    return Transaction(
        id=row.id,
        postings=list(row.postings),
        reverses=row.parent_id,
        reversed_by=row.reversal_id,
        position=position,
        payment=row.kind is Kind.PAYMENT,
        reference=row.reference,
        metadata=row.metadata,
        created_at=row.created_at,
    )


class Journal:
    """Reads the journal; `retention_days` is how long idempotency keys can be searched for."""

    def __init__(self, database: Database, directory: Directory, retention_days: int) -> None:
        self._database = database
        self._directory = directory
        self._retention_days = retention_days

    async def row(self, ledger: UUID, id: UUID) -> JournalRow | None:
        """Return a row by its id."""
        record = await self._database.row(statements.BY_IDS, ledger, [id])
        return journal_row(record) if record else None

    async def page[T](
        self,
        ledger: UUID,
        resource: str,
        filters: JournalFilter,
        view: Callable[[JournalRow], T | None],
        limit: int,
        cursor: str | None,
        *,
        payments_only: bool = False,
    ) -> Page[T]:
        """List rows, newest first, as what `view` makes of them; None leaves a row out.

        Raises:
            InvalidCursor: the cursor is of another list.
        """
        name = list_name(resource, ledger, filters)
        account = None
        if filters.account is not None:
            try:
                account = (await self._directory.one(ledger, filters.account)).id
            except AccountNotFound:
                return Page([], None)
        scan = self._scan(ledger, filters, account, payments_only=payments_only)
        shown: dict[UUID, T] = {}

        def matches(row: JournalRow) -> bool:
            if payments_only and row.kind is not Kind.PAYMENT:
                return False
            seen = view(row) if _matches(row, filters, account) else None
            if seen is not None:
                shown[row.id] = seen
            return seen is not None

        page = await scan_page(scan, matches, limit, cursor, name)
        return Page([shown[row.id] for row in page.data], page.next_cursor)

    def _scan(
        self,
        ledger: UUID,
        filters: JournalFilter,
        account: UUID | None,
        *,
        payments_only: bool,
    ) -> Scan[JournalRow]:
        """Choose the index that drives a list."""
        by_id = partial(self._scan_by_id, ledger, filters.created_at)
        if filters.reference is not None:
            return partial(by_id, statements.PAGE_BY_REFERENCE, (filters.reference,))
        if filters.idempotency_key is not None:
            return partial(self._scan_by_key, ledger, filters.idempotency_key)
        if filters.metadata:
            pair = next(iter(filters.metadata.items()))
            if payments_only:
                return partial(by_id, statements.PAGE_OF_PAYMENTS_BY_METADATA, pair)
            return partial(by_id, statements.PAGE_BY_METADATA, pair)
        if account is not None:
            return partial(self._scan_by_account, ledger, account, filters.created_at)
        if filters.status == "refunded":
            return partial(by_id, statements.PAGE_REVERSED, ())
        page = statements.PAGE_OF_PAYMENTS if payments_only else statements.PAGE
        return partial(by_id, page, filters.created_at.moments())

    async def _scan_by_id(
        self,
        ledger: UUID,
        times: Times,
        sql: str,
        arguments: tuple[Any, ...],
        after: bytes | None,
        count: int,
    ) -> Sequence[Candidate[JournalRow]]:
        low, high = times.ids()
        before = high if after is None else min(high, UUID(bytes=after))
        records = await self._database.rows(sql, ledger, before, low, count, *arguments)
        return await self._candidates(ledger, [(r["id"].bytes, r["id"]) for r in records])

    async def _scan_by_key(
        self, ledger: UUID, key: str, after: bytes | None, _: int
    ) -> Sequence[Candidate[JournalRow]]:
        records = await self._database.rows(
            idempotency.OBJECT, ledger, key, list(Kind), self._retention_days
        )
        ids = sorted({record["object_id"] for record in records}, reverse=True)
        return await self._candidates(
            ledger, [(id.bytes, id) for id in ids if after is None or id.bytes < after]
        )

    async def _scan_by_account(
        self, ledger: UUID, account: UUID, times: Times, after: bytes | None, count: int
    ) -> Sequence[Candidate[JournalRow]]:
        records = await self._database.rows(
            statements.PAGE_BY_ACCOUNT, ledger, account, *entries_from(times, after), count
        )
        return await self._candidates(
            ledger, [(entry_position(r["created_at"], r["sequence"]), r["id"]) for r in records]
        )

    async def _candidates(
        self, ledger: UUID, places: list[tuple[bytes, UUID]]
    ) -> Sequence[Candidate[JournalRow]]:
        if not places:
            return []
        records = await self._database.rows(statements.BY_IDS, ledger, [id for _, id in places])
        rows = {record["id"]: journal_row(record) for record in records}
        return [Candidate(position, rows[id]) for position, id in places]


def _matches(row: JournalRow, filters: JournalFilter, account: UUID | None) -> bool:
    return (
        filters.created_at.admit(row.created_at)
        and (filters.reference is None or row.reference == filters.reference)
        and (filters.idempotency_key is None or row.idempotency_key == filters.idempotency_key)
        and filters.metadata.items() <= row.metadata.items()
        and (account is None or any(account in (p.source, p.destination) for p in row.postings))
    )
