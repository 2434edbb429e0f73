"""Payments: money moved from one account to another, with a life cycle over transactions.

Called by `http/payments.py`. So far a payment is captured at once; its row of the journal is the payment,
and a reversal of that row refunds it.
"""

from uuid import UUID

from picopay_api.engine.commands import Kind, Pay
from picopay_api.engine.committer import Committer
from picopay_api.engine.counting import Counted
from picopay_api.engine.directory import Directory
from picopay_api.engine.ids import new_id
from picopay_api.engine.journal import Journal, JournalFilter, JournalRow, payment_of
from picopay_api.engine.ledger import Stamp, addresses, plan_payment
from picopay_api.engine.paging import Page
from picopay_api.engine.views import Made, Payment, PaymentStatus
from picopay_api.errors import PaymentNotFound
from picopay_api.metrics import PAYMENTS

PaymentFilter = JournalFilter

_STATUSES_SO_FAR = (None, PaymentStatus.CAPTURED, PaymentStatus.REFUNDED)
"""What can be found; the other words are those of holds and partial refunds, which come later."""


class Payments:
    """The payments of all ledgers."""

    def __init__(self, directory: Directory, committer: Committer, journal: Journal) -> None:
        self._directory = directory
        self._committer = committer
        self._journal = journal

    async def create(self, ledger: UUID, request: Pay, key: str) -> Made[Payment]:
        """Pay, once per key; returns when it is on disk.

        Raises:
            AccountNotFound: an account does not exist; nothing is kept of the request.
            RefusedError, ConflictError: refused by the rules of the ledger.
            UnavailableError: the outcome is not known; the same key will tell.
        """
        with Counted(PAYMENTS, "captured", ledger):
            found = await self._directory.find(ledger, addresses(request))
            command = plan_payment(request, found, Stamp(ledger=ledger, id=new_id(), key=key))
            outcome = await self._committer.submit(command)
        posting = command.postings[0]
        return Made(
            Payment(
                id=outcome.id or command.id,
                status=PaymentStatus.CAPTURED,
                amount_minor=posting.amount,
                captured_minor=posting.amount,
                refunded_minor=0,
                asset=posting.asset,
                source=posting.source,
                destination=posting.destination,
                reference=request.reference,
                created_at=outcome.at,
                expires_at=None,
                metadata=request.metadata,
            ),
            outcome.replayed,
        )

    async def get(self, ledger: UUID, id: UUID) -> Payment:
        """Return a payment as it stands.

        Raises:
            PaymentNotFound: there is none of this id in the ledger.
        """
        row = await self._journal.row(ledger, id)
        if row is None or row.kind is not Kind.PAYMENT:
            raise PaymentNotFound("there is no such payment in this ledger")
        return payment_of(row)

    async def list(
        self, ledger: UUID, filters: PaymentFilter, limit: int, cursor: str | None = None
    ) -> Page[Payment]:
        """List payments, newest first.

        Raises:
            InvalidCursor: the cursor is of another list.
        """
        if filters.status not in _STATUSES_SO_FAR:
            return Page([], None)

        def view(row: JournalRow) -> Payment | None:
            payment = payment_of(row)
            return payment if filters.status in (None, payment.status) else None

        return await self._journal.page(
            ledger, "payments", filters, view, limit, cursor, payments_only=True
        )
