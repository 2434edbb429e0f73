"""The rules that can be judged without a balance: a request becomes a command, or a refusal.

Pure: no I/O, clock, random or async. Called by `payments.py` and `transactions.py` with the accounts
already found; what needs a lock (state, funds, keys, references) is judged by `store/decide.sql`.
Refusals come in a fixed order: account_not_found, asset_mismatch, same_account, balance_out_of_range; an
amount that is none is refused before.
"""

import hashlib
from collections.abc import Iterator, Mapping
from uuid import UUID

import msgspec

from picopay_api.engine.commands import (
    Command,
    Condition,
    Kind,
    Leg,
    Pay,
    Posting,
    PostingRequest,
    Reverse,
    Transact,
)
from picopay_api.errors import (
    AccountNotFound,
    AssetMismatch,
    BalanceOutOfRange,
    InvalidRequest,
    SameAccount,
    TransactionNotReversible,
)

AMOUNT_MAX_MINOR = 10**18
"""The largest amount of a posting: a thousand million millions of a currency with three decimals."""

BALANCE_MAX_MINOR = 4 * 10**18
"""The largest balance in either direction. With what one command may move it fits a signed 64-bit
integer; `store/decide.sql` holds balances to it."""

MOVED_MAX_MINOR = 5 * 10**18
"""The most that one command may move into or out of one account, summed without sign."""

Address = tuple[str, str | None]
"""How a request names an account: its address and, in a posting, the asset to be moved."""


class FoundAccount(msgspec.Struct, frozen=True):
    """What never changes about an account."""

    id: UUID
    asset: str


Found = Mapping[Address, FoundAccount]
"""The accounts a request names, those that exist."""


class Stamp(msgspec.Struct, frozen=True, kw_only=True):
    """What the caller gives to a command: where it belongs, its new id, its idempotency key."""

    ledger: UUID
    id: UUID
    key: str | None


def addresses(request: Pay | Transact) -> Iterator[Address]:
    """Name every account that must be found before a request can be planned."""
    for posting in _postings_of(request):
        yield posting.source, posting.asset
        yield posting.destination, posting.asset
    if isinstance(request, Transact):
        for condition in request.conditions:
            yield condition.account, None


def plan_payment(request: Pay, found: Found, stamp: Stamp) -> Command:
    """Turn a payment into a command.

    Raises:
        InvalidRequest, AccountNotFound, AssetMismatch, SameAccount: the posting cannot be.
    """
    postings = (_posting(request, found),)
    return Command(
        ledger=stamp.ledger,
        id=stamp.id,
        kind=Kind.PAYMENT,
        key=stamp.key,
        fingerprint=fingerprint(request),
        postings=postings,
        legs=_legs(postings),
        reference=request.reference,
        metadata=request.metadata,
    )


def plan_transaction(request: Transact, found: Found, stamp: Stamp) -> Command:
    """Turn a transaction into a command.

    Raises:
        InvalidRequest, AccountNotFound, AssetMismatch, SameAccount, BalanceOutOfRange: a posting
            cannot be.
    """
    postings = tuple(_posting(posting, found) for posting in request.postings)
    conditions = tuple(
        Condition(
            _account(found, (condition.account, None)).id,
            condition.available_gte_minor,
            condition.available_lte_minor,
        )
        for condition in request.conditions
    )
    return Command(
        ledger=stamp.ledger,
        id=stamp.id,
        kind=Kind.TRANSACTION,
        key=stamp.key,
        fingerprint=fingerprint(request),
        postings=postings,
        legs=_legs(postings),
        conditions=conditions,
        reference=request.reference,
        metadata=request.metadata,
    )


def plan_reversal(
    request: Reverse, kind: Kind, postings: tuple[Posting, ...], stamp: Stamp
) -> Command:
    """Turn the reversal of a journal row (its kind and postings) into a command.

    The postings are mirrored and taken in reverse order, as one would undo them by hand.

    Raises:
        TransactionNotReversible: the row is itself a reversal.
    """
    if kind is Kind.REVERSAL:
        raise TransactionNotReversible(
            "a reversal is not reversed; make a new transaction with the postings wanted"
        )
    mirrored = tuple(
        Posting(posting.destination, posting.source, posting.amount, posting.asset)
        for posting in reversed(postings)
    )
    return Command(
        ledger=stamp.ledger,
        id=stamp.id,
        kind=Kind.REVERSAL,
        key=stamp.key,
        fingerprint=fingerprint(request),
        postings=mirrored,
        legs=_legs(mirrored),
        parent=request.transaction,
        reference=request.reference,
        metadata=request.metadata,
    )


def fingerprint(request: msgspec.Struct) -> bytes:
    """Hash what was asked: equal for requests that mean the same, whatever their spelling in JSON."""
    text = msgspec.json.encode(request, order="deterministic")
    return hashlib.blake2b(text, digest_size=16).digest()


def _postings_of(request: Pay | Transact) -> tuple[Pay | PostingRequest, ...]:
    return (request,) if isinstance(request, Pay) else request.postings


def _posting(request: Pay | PostingRequest, found: Found) -> Posting:
    if not 1 <= request.amount_minor <= AMOUNT_MAX_MINOR:
        raise InvalidRequest(f"an amount is 1 to {AMOUNT_MAX_MINOR} minor units")
    source = _account(found, (request.source, request.asset))
    destination = _account(found, (request.destination, request.asset))
    if source.asset != request.asset or destination.asset != request.asset:
        raise _mismatch(request, source, destination)
    if source.id == destination.id:
        raise SameAccount(
            "the source and the destination of a posting are the same account", account=source.id
        )
    return Posting(source.id, destination.id, request.amount_minor, request.asset)


def _mismatch(
    request: Pay | PostingRequest, source: FoundAccount, destination: FoundAccount
) -> AssetMismatch:
    address, account = request.destination, destination
    if source.asset != request.asset:
        address, account = request.source, source
    return AssetMismatch(
        f"account {address} holds {account.asset}, the posting moves {request.asset}",
        account=account.id,
        asset=account.asset,
    )


def _account(found: Found, address: Address) -> FoundAccount:
    account = found.get(address)
    if account is None:
        raise AccountNotFound(f"there is no account {address[0]} in this ledger")
    return account


def _legs(postings: tuple[Posting, ...]) -> tuple[Leg, ...]:
    """Take each posting apart into its two sides, which add up to zero."""
    if len(postings) == 1:
        [only] = postings  # as of every payment, which moves no more than an amount may be
        return (
            Leg(only.source, only.asset, -only.amount),
            Leg(only.destination, only.asset, only.amount),
        )
    legs = []
    moved: dict[UUID, int] = {}
    for posting in postings:
        for account, change in (
            (posting.source, -posting.amount),
            (posting.destination, posting.amount),
        ):
            legs.append(Leg(account, posting.asset, change))
            moved[account] = moved.get(account, 0) + posting.amount
            if moved[account] > MOVED_MAX_MINOR:
                raise BalanceOutOfRange(
                    "the transaction moves more than an account can hold", account=account
                )
    return tuple(legs)
