"""What the engine answers with: typed values with UUIDs, minor units and aware datetimes (UTC).

Made by the capabilities of the engine, shown by `http/schemas` and the command line in the forms that
clients see. No behaviour beyond what follows from a value itself.
"""

from datetime import datetime
from enum import StrEnum
from uuid import UUID

import msgspec

from picopay_api.engine.commands import Posting


class Made[T](msgspec.Struct, frozen=True):
    """The outcome of a request with an idempotency key; `replayed`: decided by an earlier one."""

    value: T
    replayed: bool = False


class AccountState(StrEnum):
    """What an account admits: postings, none for now, none any more. Order is the stored number."""

    OPEN = "open"
    FROZEN = "frozen"
    CLOSED = "closed"


class PaymentStatus(StrEnum):
    """Where a payment is in its life."""

    REQUIRES_CAPTURE = "requires_capture"
    PARTIALLY_CAPTURED = "partially_captured"
    CAPTURED = "captured"
    VOIDED = "voided"
    EXPIRED = "expired"
    PARTIALLY_REFUNDED = "partially_refunded"
    REFUNDED = "refunded"


class Balance(msgspec.Struct, frozen=True):
    """What is booked, and how much of it is reserved by open holds."""

    posted_minor: int
    held_minor: int

    @property
    def available_minor(self) -> int:
        """What can be spent down to the floor: posted less held."""
        return self.posted_minor - self.held_minor


class Account(msgspec.Struct, frozen=True, kw_only=True):
    """An account; `min_balance_minor` is its floor, None is unbounded."""

    id: UUID
    reference: str | None
    asset: str
    min_balance_minor: int | None
    state: AccountState
    balance: Balance
    metadata: dict[str, str]
    created_at: datetime


class BalanceAt(msgspec.Struct, frozen=True, kw_only=True):
    """A balance now (`at` is None) or after everything booked up to and including `at`."""

    account: UUID
    asset: str
    at: datetime | None
    balance: Balance


class Entry(msgspec.Struct, frozen=True, kw_only=True):
    """One line of a statement: the signed change and the posted balance after it."""

    transaction: UUID
    sequence: int
    amount_minor: int
    balance_after_minor: int
    asset: str
    created_at: datetime


class Payment(msgspec.Struct, frozen=True, kw_only=True):
    """A payment as it stands."""

    id: UUID
    status: PaymentStatus
    amount_minor: int
    captured_minor: int
    refunded_minor: int
    asset: str
    source: UUID
    destination: UUID
    reference: str | None
    created_at: datetime
    expires_at: datetime | None
    metadata: dict[str, str]


class Transaction(msgspec.Struct, frozen=True, kw_only=True):
    """A transaction; a dry run has neither id nor time. `position` is its place in the event feed."""

    id: UUID | None
    postings: list[Posting]
    reverses: UUID | None
    reversed_by: UUID | None
    position: int | None
    payment: bool
    reference: str | None
    metadata: dict[str, str]
    created_at: datetime | None
    dry_run: bool = False


class Ledger(msgspec.Struct, frozen=True, kw_only=True):
    """A tenant's isolated book."""

    id: UUID
    name: str
    metadata: dict[str, str]
    created_at: datetime


class ApiKey(msgspec.Struct, frozen=True, kw_only=True):
    """An API key without its secret; `hint` is the secret's last four characters.

    `expires_at` is when it ends; `term_ends_at` when it would, had it not been rolled.
    """

    id: UUID
    ledger: UUID
    name: str
    scopes: list[str]
    hint: str
    created_at: datetime
    expires_at: datetime | None
    term_ends_at: datetime | None
    revoked_at: datetime | None


class NewApiKey(msgspec.Struct, frozen=True):
    """A key just made: the only time its secret is told."""

    key: ApiKey
    secret: str
