"""What can be asked of the ledger: requests as clients think of them, commands as the ledger decides them.

A request names accounts by address (`acct_…` or `@reference`); a command names them by id, carries the
legs that move money and is what `store/decide.sql` sees. `engine/ledger.py` turns one into the other.
Plain typed values: standard library and msgspec only, no behaviour.

Requests leave defaults out when they are encoded: their encoding is what idempotency keys remember, and
a field that a later release adds must not change what an earlier one has remembered.
"""

from enum import IntEnum
from uuid import UUID

import msgspec


class Kind(IntEnum):
    """What a row of the journal is; the numbers are stored."""

    PAYMENT = 1
    TRANSACTION = 2
    REVERSAL = 3


class PostingRequest(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Move `amount_minor` of `asset` from one address to another."""

    source: str
    destination: str
    amount_minor: int
    asset: str


class ConditionRequest(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What must hold of an account's available balance before the transaction; both ends inclusive."""

    account: str
    available_gte_minor: int | None = None
    available_lte_minor: int | None = None


class Pay(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, tag="pay"):
    """Pay at once: one posting with the life cycle of a payment."""

    source: str
    destination: str
    amount_minor: int
    asset: str
    reference: str | None = None
    metadata: dict[str, str] = {}


class Transact(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, tag="transact"):
    """Postings that happen together or not at all."""

    postings: tuple[PostingRequest, ...]
    conditions: tuple[ConditionRequest, ...] = ()
    reference: str | None = None
    metadata: dict[str, str] = {}


class Reverse(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, tag="reverse"):
    """Undo a transaction by its mirror image."""

    transaction: UUID
    reference: str | None = None
    metadata: dict[str, str] = {}


class Posting(msgspec.Struct, frozen=True):
    """A posting with its accounts found; the form that the journal keeps."""

    source: UUID
    destination: UUID
    amount: int
    asset: str


class Leg(msgspec.Struct, frozen=True):
    """One account's side of a posting: signed changes in minor units."""

    account: UUID
    asset: str
    posted_minor: int
    held_minor: int = 0


class Condition(msgspec.Struct, frozen=True):
    """Bounds of an account's available balance before the command; None is no bound."""

    account: UUID
    minimum_minor: int | None
    maximum_minor: int | None


class Command(msgspec.Struct, frozen=True, kw_only=True):
    """One operation, ready to be decided. Without a key it is a dry run: judged, never written."""

    ledger: UUID
    id: UUID
    kind: Kind
    key: str | None
    fingerprint: bytes
    postings: tuple[Posting, ...]
    legs: tuple[Leg, ...]
    conditions: tuple[Condition, ...] = ()
    parent: UUID | None = None
    reference: str | None = None
    metadata: dict[str, str] = {}
