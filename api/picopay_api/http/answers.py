"""The bodies of answers, and how the engine's views become them.

Plain typed values, the source of the OpenAPI document. Amounts are integers of minor units, or strings
of digits where a double-precision reader would round them (2^53).
"""

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from functools import lru_cache
from typing import Annotated
from uuid import UUID

import msgspec
from msgspec import Meta

from picopay_api.engine import ids, views
from picopay_api.engine.audit import AuditState as AuditView
from picopay_api.engine.events import Event as EventView
from picopay_api.engine.paging import Page as PageView

EXACT_MAX = 2**53 - 1
"""The largest integer that every JSON reader keeps exactly."""

Shown = int | str
"""An amount in an answer: a string of digits when it is beyond ±(2^53-1)."""


Moment = Annotated[str, Meta(extra_json_schema={"format": "date-time"})]
"""A time in an answer: RFC 3339 in UTC with milliseconds."""


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """The body of an answer."""


class Balance(Answer, frozen=True, kw_only=True):
    """Minor units: booked, reserved by holds, and what is left to spend."""

    posted: Shown
    held: Shown
    available: Shown


class Account(Answer, frozen=True, kw_only=True, tag_field="object", tag="account"):
    """An account with its balance."""

    id: str
    reference: str | None
    asset: str
    min_balance: Shown | None
    state: views.AccountState
    balance: Balance
    metadata: dict[str, str]
    created_at: Moment


class AccountBalance(Answer, frozen=True, kw_only=True, tag_field="object", tag="balance"):
    """A balance now, or as of `at`."""

    account: str
    asset: str
    at: Moment | None
    balance: Balance


class Entry(Answer, frozen=True, kw_only=True, tag_field="object", tag="entry"):
    """One line of a statement."""

    transaction: str
    amount: Shown
    balance_after: Shown
    asset: str
    sequence: int
    created_at: Moment


class Payment(Answer, frozen=True, kw_only=True, tag_field="object", tag="payment"):
    """A payment as it stands."""

    id: str
    status: views.PaymentStatus
    amount: Shown
    captured: Shown
    refunded: Shown
    asset: str
    source: str
    destination: str
    reference: str | None
    created_at: Moment
    expires_at: Moment | None
    metadata: dict[str, str]


class Posting(Answer, frozen=True, kw_only=True):
    """An amount moved from one account to another."""

    source: str
    destination: str
    amount: Shown
    asset: str


class Transaction(Answer, frozen=True, kw_only=True, tag_field="object", tag="transaction"):
    """A transaction. `position` is its place in the event feed, null until it is sealed there."""

    id: str | None
    postings: list[Posting]
    payment: str | None
    reverses: str | None
    reversed_by: str | None
    position: int | None
    dry_run: bool
    reference: str | None
    metadata: dict[str, str]
    created_at: Moment | None


class Event(Answer, frozen=True, kw_only=True, tag_field="object", tag="event"):
    """Something that happened; `position` counts from 1 within the ledger, without gaps."""

    id: str
    position: int
    type: str
    ledger: str
    created_at: Moment
    data: Payment | Transaction


class Ledger(Answer, frozen=True, kw_only=True, tag_field="object", tag="ledger"):
    """A tenant's isolated book."""

    id: str
    name: str
    metadata: dict[str, str]
    created_at: Moment


class ApiKey(Answer, frozen=True, kw_only=True, tag_field="object", tag="api_key"):
    """A key. Its secret is told once, when it is made; `hint` is the secret's last four characters."""

    id: str
    ledger: str
    name: str
    scopes: list[str]
    hint: str
    created_at: Moment
    expires_at: Moment | None
    revoked_at: Moment | None
    secret: str | msgspec.UnsetType = msgspec.UNSET


class Finding(Answer, frozen=True, kw_only=True):
    """Something that does not add up."""

    kind: str
    subject: str
    detail: str
    found_at: Moment


class Audit(Answer, frozen=True, kw_only=True, tag_field="object", tag="audit"):
    """How far the auditor is: `position` of `sealed_position` events; `sums` by asset must be zero."""

    position: int
    sealed_position: int
    sealed_hash: str | None
    sums: dict[str, Shown]
    findings: list[Finding]
    checked_at: Moment | None


class Page[T](Answer, frozen=True, kw_only=True):
    """A page of a list; more is behind `next_cursor` while `has_more`."""

    data: list[T]
    has_more: bool
    next_cursor: str | None


class Events(Answer, frozen=True, kw_only=True):
    """Events in order; ask again with `?after=next_after`."""

    data: list[Event]
    has_more: bool
    next_after: int


class Status(Answer, frozen=True, kw_only=True):
    """How a process is; `reason` says why it is not ready."""

    status: str
    reason: str | msgspec.UnsetType = msgspec.UNSET


def shown(minor: int) -> Shown:
    """Show an amount: as a string where a double-precision reader would round it."""
    return minor if -EXACT_MAX <= minor <= EXACT_MAX else str(minor)


@lru_cache(maxsize=256)  # everything that was decided together has one time
def time(moment: datetime) -> str:
    """Show a time: RFC 3339 in UTC with milliseconds."""
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _time(moment: datetime | None) -> str | None:
    return None if moment is None else time(moment)


def account_id(id: UUID) -> str:
    """Show the id of an account."""
    return ids.format_id(ids.ACCOUNT, id)


def _transaction_id(id: UUID | None) -> str | None:
    return None if id is None else ids.format_id(ids.TRANSACTION, id)


def balance(view: views.Balance) -> Balance:
    """Show a balance."""
    return Balance(
        posted=shown(view.posted_minor),
        held=shown(view.held_minor),
        available=shown(view.available_minor),
    )


def account(view: views.Account) -> Account:
    """Show an account."""
    floor = view.min_balance_minor
    return Account(
        id=account_id(view.id),
        reference=view.reference,
        asset=view.asset,
        min_balance=None if floor is None else shown(floor),
        state=view.state,
        balance=balance(view.balance),
        metadata=view.metadata,
        created_at=time(view.created_at),
    )


def account_balance(view: views.BalanceAt) -> AccountBalance:
    """Show a balance with what it is of."""
    return AccountBalance(
        account=account_id(view.account),
        asset=view.asset,
        at=_time(view.at),
        balance=balance(view.balance),
    )


def entry(view: views.Entry) -> Entry:
    """Show a line of a statement."""
    return Entry(
        transaction=ids.format_id(ids.TRANSACTION, view.transaction),
        amount=shown(view.amount_minor),
        balance_after=shown(view.balance_after_minor),
        asset=view.asset,
        sequence=view.sequence,
        created_at=time(view.created_at),
    )


def payment(view: views.Payment) -> Payment:
    """Show a payment."""
    return Payment(
        id=ids.format_id(ids.PAYMENT, view.id),
        status=view.status,
        amount=shown(view.amount_minor),
        captured=shown(view.captured_minor),
        refunded=shown(view.refunded_minor),
        asset=view.asset,
        source=account_id(view.source),
        destination=account_id(view.destination),
        reference=view.reference,
        created_at=time(view.created_at),
        expires_at=_time(view.expires_at),
        metadata=view.metadata,
    )


def transaction(view: views.Transaction) -> Transaction:
    """Show a transaction."""
    is_payment = view.payment and view.id is not None
    return Transaction(
        id=_transaction_id(view.id),
        postings=[
            Posting(
                source=account_id(posting.source),
                destination=account_id(posting.destination),
                amount=shown(posting.amount),
                asset=posting.asset,
            )
            for posting in view.postings
        ],
        payment=ids.format_id(ids.PAYMENT, view.id) if is_payment and view.id else None,
        reverses=_transaction_id(view.reverses),
        reversed_by=_transaction_id(view.reversed_by),
        position=view.position,
        dry_run=view.dry_run,
        reference=view.reference,
        metadata=view.metadata,
        created_at=_time(view.created_at),
    )


def event(view: EventView) -> Event:
    """Show an event with the payment or transaction it is about."""
    about = view.object
    return Event(
        id=ids.format_id(ids.EVENT, view.id),
        position=view.position,
        type=view.type,
        ledger=ids.format_id(ids.LEDGER, view.ledger),
        created_at=time(view.created_at),
        data=payment(about) if isinstance(about, views.Payment) else transaction(about),
    )


def ledger(view: views.Ledger) -> Ledger:
    """Show a ledger."""
    return Ledger(
        id=ids.format_id(ids.LEDGER, view.id),
        name=view.name,
        metadata=view.metadata,
        created_at=time(view.created_at),
    )


def api_key(view: views.ApiKey, secret: str | None = None) -> ApiKey:
    """Show a key; with its secret when it has just been made."""
    return ApiKey(
        id=ids.format_id(ids.API_KEY, view.id),
        ledger=ids.format_id(ids.LEDGER, view.ledger),
        name=view.name,
        scopes=view.scopes,
        hint=view.hint,
        created_at=time(view.created_at),
        expires_at=_time(view.expires_at),
        revoked_at=_time(view.revoked_at),
        secret=msgspec.UNSET if secret is None else secret,
    )


def audit(view: AuditView) -> Audit:
    """Show the state of the auditor."""
    return Audit(
        position=view.position,
        sealed_position=view.sealed_position,
        sealed_hash=view.sealed_hash.hex() if view.sealed_hash else None,
        sums={asset: shown(sum_minor) for asset, sum_minor in view.sums.items()},
        findings=[
            Finding(
                kind=finding.kind,
                subject=finding.subject,
                detail=finding.detail,
                found_at=time(finding.found_at),
            )
            for finding in view.findings
        ],
        checked_at=_time(view.checked_at),
    )


def page[V, T](view: PageView[V], show: Callable[[V], T]) -> Page[T]:
    """Show a page."""
    return Page(
        data=[show(item) for item in view.data],
        has_more=view.next_cursor is not None,
        next_cursor=view.next_cursor,
    )


def events(found: Sequence[EventView], after: int, limit: int) -> Events:
    """Show up to `limit` events of a stretch of the feed; one more tells that there are more."""
    shown_now = found[:limit]
    return Events(
        data=[event(view) for view in shown_now],
        has_more=len(found) > limit,
        next_after=shown_now[-1].position if shown_now else after,
    )
