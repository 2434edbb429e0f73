"""The bodies of requests, as plain typed values: the source of what is accepted and of the OpenAPI document.

Fields that nobody knows are refused. Amounts are integers of minor units, or strings of digits from
programs whose integers end at 2^53.
"""

from datetime import datetime
from typing import Annotated

import msgspec
from msgspec import Meta

from picopay_api.engine.ledger import AMOUNT_MAX_MINOR, BALANCE_MAX_MINOR
from picopay_api.errors import FieldFault, InvalidRequest

# Python's `$` also matches before a line feed at the end, that of JSON Schema (ECMA 262) does not.
_END = r"$(?!\n)"
_PRINTABLE = r"^[^\x00-\x1f\x7f-\x9f\u2028\u2029]+" + _END

Amount = Annotated[
    Annotated[int, Meta(ge=1, le=AMOUNT_MAX_MINOR)]
    | Annotated[str, Meta(pattern=r"^[1-9][0-9]{0,18}" + _END)],
    Meta(description="Minor units, 1 to 10^18: an integer, or a string of its digits."),
]
SignedAmount = Annotated[
    Annotated[int, Meta(ge=-BALANCE_MAX_MINOR, le=BALANCE_MAX_MINOR)]
    | Annotated[str, Meta(pattern=r"^-?(0|[1-9][0-9]{0,18})" + _END)],
    Meta(description="Minor units, within ±4·10^18: an integer, or a string of its digits."),
]

Address = Annotated[
    str,
    Meta(
        pattern=r"^(acct_[0-9a-f]{32}|@[^\x00-\x1f\x7f-\x9f]{1,255})" + _END,
        description="An account: its id, `acct_…`, or `@` and its reference.",
    ),
]
Asset = Annotated[
    str,
    Meta(
        pattern=r"^[A-Za-z][A-Za-z0-9]{0,15}(/[0-9]{1,2})?" + _END,
        description="An ISO 4217 code, or a code and its number of decimals, such as `BTC/8`.",
    ),
]
Reference = Annotated[
    str,
    Meta(
        pattern=_PRINTABLE,
        min_length=1,
        max_length=255,
        description="Your own name for it: unique in the ledger, for ever.",
    ),
]
AccountReference = Annotated[
    str,
    Meta(
        pattern=r"^(?!@|acct_)[^\x00-\x1f\x7f-\x9f]+" + _END,
        min_length=1,
        max_length=255,
        description="Your own name for it, by which `@name` finds it: unique in the ledger, for ever.",
    ),
]
Key = Annotated[str, Meta(pattern=_PRINTABLE, min_length=1, max_length=40)]
Value = Annotated[str, Meta(max_length=500)]
Metadata = Annotated[dict[Key, Value], Meta(max_length=50, description="Up to 50 texts of yours.")]
Name = Annotated[str, Meta(pattern=_PRINTABLE, min_length=1, max_length=100)]


class Request(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A body; fields that nobody knows are refused."""


class AccountRequest(Request, frozen=True, kw_only=True):
    """An account to be made."""

    asset: Asset
    reference: AccountReference | None = None
    min_balance: SignedAmount | None = 0
    metadata: Metadata = {}


class MetadataRequest(Request, frozen=True, kw_only=True):
    """Metadata to merge; null removes a key."""

    metadata: Annotated[dict[Key, Value | None], Meta(max_length=50)]


class PaymentRequest(Request, frozen=True, kw_only=True):
    """A payment to be made at once. `capture` can only be true so far."""

    source: Address
    destination: Address
    amount: Amount
    asset: Asset
    capture: bool = True
    reference: Reference | None = None
    metadata: Metadata = {}


class PostingRequest(Request, frozen=True, kw_only=True):
    """Move an amount from one account to another."""

    source: Address
    destination: Address
    amount: Amount
    asset: Asset


class ConditionRequest(Request, frozen=True, kw_only=True):
    """What must hold of an account's available balance before the transaction."""

    account: Address
    available_gte: SignedAmount | None = None
    available_lte: SignedAmount | None = None


class TransactionRequest(Request, frozen=True, kw_only=True):
    """Postings that happen together or not at all; a dry run writes nothing."""

    postings: Annotated[list[PostingRequest], Meta(min_length=1, max_length=1000)]
    conditions: Annotated[list[ConditionRequest], Meta(max_length=100)] = []
    dry_run: bool = False
    reference: Reference | None = None
    metadata: Metadata = {}


class ReversalRequest(Request, frozen=True, kw_only=True):
    """What the reversal is to be called."""

    reference: Reference | None = None
    metadata: Metadata = {}


class LedgerRequest(Request, frozen=True, kw_only=True):
    """A ledger to be made."""

    name: Name
    metadata: Metadata = {}


class ApiKeyRequest(Request, frozen=True, kw_only=True):
    """A key to be made; `ledger` is for administrators."""

    name: Name
    scopes: Annotated[list[str], Meta(min_length=1, max_length=50)]
    expires_at: Annotated[datetime, Meta(tz=True)] | None = None
    ledger: str | None = None


class RollRequest(Request, frozen=True, kw_only=True):
    """How long the old key stays valid beside the new one."""

    overlap_s: Annotated[int, Meta(ge=0, le=2_592_000)] = 86_400


def minor(amount: int | str, pointer: str, largest: int = AMOUNT_MAX_MINOR) -> int:
    """Return an amount in minor units; a string of digits is held to the same bounds as an integer.

    Raises:
        InvalidRequest: it is beyond `largest` in either direction.
    """
    value = int(amount)
    if not -largest <= value <= largest:
        fault = FieldFault(pointer, f"must be at most {largest}")
        raise InvalidRequest(f"{pointer}: {fault.detail}", fault)
    return value


def signed_minor(amount: int | str | None, pointer: str) -> int | None:
    """Return an amount that may be negative or absent, in minor units.

    Raises:
        InvalidRequest: it is beyond the range of balances.
    """
    return None if amount is None else minor(amount, pointer, BALANCE_MAX_MINOR)
