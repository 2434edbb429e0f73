"""Accounts: made, described, frozen, closed; their balances and statements.

Called by `http/accounts.py`. Money never moves here: balances change in `store/decide.sql` only.
"""

from collections.abc import AsyncIterator, Sequence
from datetime import datetime
from functools import partial
from typing import Any
from uuid import UUID

import asyncpg
import msgspec

from picopay_api.engine.assets import exponent_of
from picopay_api.engine.directory import Directory, is_reserved
from picopay_api.engine.ids import new_id
from picopay_api.engine.ledger import FoundAccount, fingerprint
from picopay_api.engine.paging import (
    Candidate,
    Page,
    Times,
    entries_from,
    entry_position,
    list_name,
    scan_page,
)
from picopay_api.engine.views import Account, AccountState, Balance, BalanceAt, Entry, Made
from picopay_api.errors import (
    AccountNotEmpty,
    AccountStateConflict,
    DatabaseUnavailable,
    FieldFault,
    IdempotencyKeyReused,
    InvalidRequest,
    ReferenceTaken,
)
from picopay_api.logs import Event, get_logger
from picopay_api.metrics import IDEMPOTENCY_REPLAYS
from picopay_api.store import accounts as statements
from picopay_api.store import idempotency
from picopay_api.store.database import Connection, Database

METADATA_PAIRS_MAX = 50
_STREAM_CHUNK = 1_000
_ATTEMPTS_MAX = 3
_STATES = tuple(AccountState)  # by stored number

_log = get_logger(__name__)


class NewAccount(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, tag="account"):
    """What an account is made of; `min_balance_minor` None is unbounded."""

    asset: str
    reference: str | None = None
    min_balance_minor: int | None = 0
    metadata: dict[str, str] = {}


class AccountFilter(msgspec.Struct, frozen=True, kw_only=True):
    """Filters of the list of accounts; None and empty match everything."""

    reference: str | None = None
    asset: str | None = None
    metadata: dict[str, str] = {}
    created_at: Times = Times()


class EntryFilter(msgspec.Struct, frozen=True, kw_only=True):
    """Filters of a statement."""

    created_at: Times = Times()


class Accounts:
    """The accounts of all ledgers. `account` is an address: `acct_…` or `@reference`."""

    def __init__(self, database: Database, directory: Directory, retention_days: int) -> None:
        self._database = database
        self._directory = directory
        self._retention_days = retention_days

    async def create(
        self, ledger: UUID, request: NewAccount, key: str | None = None
    ) -> Made[Account]:
        """Make an open, empty account; once per key, where there is one.

        Raises:
            AssetUnknown: the asset is none.
            ReferenceTaken: another account has the reference, or it is reserved.
            IdempotencyKeyReused: the key made another account.
            InvalidRequest: an empty account would be below its floor at once.
        """
        exponent_of(request.asset)
        if request.reference is not None and is_reserved(request.reference):
            raise ReferenceTaken("it names the outside world", reference=request.reference)
        if (request.min_balance_minor or 0) > 0:
            fault = FieldFault("/min_balance", "must be 0 or less: the account begins empty")
            raise InvalidRequest("the account would begin below its floor", fault)
        for _ in range(_ATTEMPTS_MAX):
            try:
                made = await self._create(ledger, request, key)
            except asyncpg.UniqueViolationError:
                continue  # the same key at the same moment: what it made is found now
            if made.replayed:
                IDEMPOTENCY_REPLAYS.inc()
                _log.info(Event.IDEMPOTENCY_HIT, ledger=ledger, idempotency_key=key)
            return made
        raise DatabaseUnavailable("other sessions were in the way each time; nothing was done")

    async def _create(self, ledger: UUID, request: NewAccount, key: str | None) -> Made[Account]:
        id, asked = new_id(), fingerprint(request)
        metadata, floor_minor = _json(request.metadata), request.min_balance_minor
        named = (ledger, key, idempotency.ACCOUNT_OPERATION)
        async with self._database.transaction() as connection:
            if made := await self._known(connection, named, request):
                return made
            created_at = await connection.fetchval(
                statements.MAKE, ledger, id, request.reference, metadata, request.asset, floor_minor
            )
            if created_at is None:
                # Who was there first may have been the same request, sent twice at once.
                if made := await self._known(connection, named, request):
                    return made
                said = f"the reference {request.reference!r} already names an account"
                raise ReferenceTaken(said, reference=request.reference)
            if key is not None:
                await connection.execute(idempotency.KEEP, *named, asked, id, created_at)
        return Made(_fresh(request, id, created_at))

    async def _known(
        self, connection: Connection, named: tuple[UUID, str | None, int], request: NewAccount
    ) -> Made[Account] | None:
        """Return what a key has made before; None when there is no key, or it is a new one."""
        if named[1] is None:
            return None
        known = await connection.fetchrow(idempotency.FIND, *named, self._retention_days)
        if known is None:
            return None
        if known["fingerprint"] != fingerprint(request):
            raise IdempotencyKeyReused("the key was used before with another body")
        return Made(_fresh(request, known["object_id"], known["created_at"]), replayed=True)

    async def get(self, ledger: UUID, account: str) -> Account:
        """Return an account with its balance.

        Raises:
            AccountNotFound: there is none of this address.
        """
        return await self._get(ledger, await self._directory.one(ledger, account))

    async def list(
        self, ledger: UUID, filters: AccountFilter, limit: int, cursor: str | None = None
    ) -> Page[Account]:
        """List accounts, newest first.

        Raises:
            InvalidCursor: the cursor is of another list.
        """
        sql, arguments = statements.PAGE, tuple[Any, ...](filters.created_at.moments())
        if filters.reference is not None:
            sql, arguments = statements.PAGE_BY_REFERENCE, (filters.reference,)
        elif filters.metadata:
            sql, arguments = statements.PAGE_BY_METADATA, next(iter(filters.metadata.items()))
        elif filters.asset is not None:
            sql, arguments = statements.PAGE_BY_ASSET, (filters.asset,)

        async def scan(after: bytes | None, count: int) -> Sequence[Candidate[Account]]:
            low, high = filters.created_at.ids()
            before = high if after is None else min(high, UUID(bytes=after))
            found = await self._database.rows(sql, ledger, before, low, count, *arguments)
            records = await self._database.rows(
                statements.BY_IDS, ledger, [record["id"] for record in found]
            )
            return [Candidate(record["id"].bytes, _account(record)) for record in records]

        def matches(account: Account) -> bool:
            return (
                filters.created_at.admit(account.created_at)
                and filters.asset in (None, account.asset)
                and filters.reference in (None, account.reference)
                and filters.metadata.items() <= account.metadata.items()
            )

        name = list_name("accounts", ledger, filters)
        return await scan_page(scan, matches, limit, cursor, name)

    async def update_metadata(
        self, ledger: UUID, account: str, changes: dict[str, str | None]
    ) -> Account:
        """Merge metadata; a value of None removes its key.

        Raises:
            AccountNotFound: there is none of this address.
            InvalidRequest: there would be more than 50 pairs.
        """
        found = await self._directory.one(ledger, account)
        async with self._database.transaction() as connection:
            text = await connection.fetchval(statements.LOCK_METADATA, ledger, found.id)
            before: dict[str, str] = msgspec.json.decode(text)
            merged = {**before, **changes}
            after = {key: value for key, value in merged.items() if value is not None}
            if len(after) > METADATA_PAIRS_MAX:
                fault = FieldFault("/metadata", f"at most {METADATA_PAIRS_MAX} pairs")
                raise InvalidRequest("the account would have too much metadata", fault)
            gone = dict(before.items() - after.items())
            new = dict(after.items() - before.items())
            await connection.execute(statements.FORGET_ITEMS, ledger, found.id, _json(gone))
            await connection.execute(statements.ADD_ITEMS, ledger, found.id, _json(new))
            await connection.execute(statements.DESCRIBE, ledger, found.id, _json(after))
        return await self._get(ledger, found)

    async def freeze(self, ledger: UUID, account: str) -> Account:
        """Refuse all postings from now on, until `unfreeze`. Freezing twice changes nothing.

        Raises:
            AccountNotFound, AccountStateConflict: there is none, or it is closed.
        """
        return await self._move(ledger, account, AccountState.FROZEN)

    async def unfreeze(self, ledger: UUID, account: str) -> Account:
        """Admit postings again.

        Raises:
            AccountNotFound, AccountStateConflict: there is none, or it is closed.
        """
        return await self._move(ledger, account, AccountState.OPEN)

    async def close(self, ledger: UUID, account: str) -> Account:
        """Close an empty account for ever. Closing twice changes nothing.

        Raises:
            AccountNotFound, AccountNotEmpty: there is none, or money is on it.
            AccountStateConflict: it is the outside, without which the asset had no way in or out.
        """
        found = await self.get(ledger, account)
        if is_reserved(found.reference or ""):
            raise AccountStateConflict("the outside of an asset is never closed", account=found.id)
        return await self._move(ledger, account, AccountState.CLOSED)

    async def balance(self, ledger: UUID, account: str, at: datetime | None = None) -> BalanceAt:
        """Return the balance now, or after all entries with `created_at` up to and including `at`.

        Raises:
            AccountNotFound: there is none of this address.
        """
        found = await self._directory.one(ledger, account)
        if at is None:
            row = await self._database.row(statements.BALANCE, ledger, found.id)
        else:
            row = await self._database.row(statements.BALANCE_AT, ledger, found.id, at)
        balance = Balance(row[0], row[1]) if row else Balance(0, 0)
        return BalanceAt(account=found.id, asset=found.asset, at=at, balance=balance)

    async def entries(
        self,
        ledger: UUID,
        account: str,
        filters: EntryFilter,
        limit: int,
        cursor: str | None = None,
    ) -> Page[Entry]:
        """List the entries of an account, newest first.

        Raises:
            AccountNotFound, InvalidCursor: there is no such account; the cursor is of another list.
        """
        found = await self._directory.one(ledger, account)
        scan = partial(self._scan_entries, ledger, found, filters.created_at)
        name = list_name("entries", ledger, [found.id, filters])
        return await scan_page(
            scan, lambda e: filters.created_at.admit(e.created_at), limit, cursor, name
        )

    async def stream_entries(
        self, ledger: UUID, account: str, filters: EntryFilter
    ) -> AsyncIterator[Sequence[Entry]]:
        """Stream the entries of an account, oldest first, in chunks, as they stood at the start.

        Entries never change and are numbered without gaps, so that the number of the last one at the
        start is as good as a snapshot, without a transaction that waits for a slow reader.

        Raises:
            AccountNotFound: there is none of this address; raised before the first chunk.
        """
        found = await self._directory.one(ledger, account)
        last = (await self._database.row(statements.BALANCE, ledger, found.id))["sequence"]  # type: ignore[index]  # an account that was found has a balance
        times = filters.created_at
        earliest, latest = times.moments()
        after = (earliest, 0)
        while True:  # ends with the entries, whose number is fixed
            records = await self._database.rows(
                statements.ENTRIES_OLDEST_FIRST,
                ledger,
                found.id,
                *after,
                latest,
                last,
                _STREAM_CHUNK,
            )
            entries = [_entry(record, found) for record in records]
            yield [entry for entry in entries if times.admit(entry.created_at)]
            if len(records) < _STREAM_CHUNK:
                return
            after = (records[-1]["created_at"], records[-1]["sequence"])

    async def _scan_entries(
        self,
        ledger: UUID,
        account: FoundAccount,
        times: Times,
        after: bytes | None,
        count: int,
    ) -> Sequence[Candidate[Entry]]:
        records = await self._database.rows(
            statements.ENTRIES_NEWEST_FIRST,
            ledger,
            account.id,
            *entries_from(times, after),
            count,
        )
        return [
            Candidate(entry_position(r["created_at"], r["sequence"]), _entry(r, account))
            for r in records
        ]

    async def _move(self, ledger: UUID, account: str, target: AccountState) -> Account:
        found = await self._directory.one(ledger, account)
        async with self._database.transaction() as connection:
            await _set_state(connection, ledger, found.id, target)
        return await self._get(ledger, found)

    async def _get(self, ledger: UUID, found: FoundAccount) -> Account:
        (record,) = await self._database.rows(statements.BY_IDS, ledger, [found.id])
        return _account(record)


async def _set_state(connection: Connection, ledger: UUID, account: UUID, to: AccountState) -> None:
    row = await connection.fetchrow(statements.LOCK_BALANCE, ledger, account)
    assert row is not None  # the directory has found the account, and accounts are never deleted
    number, posted, held = row
    state = _STATES[number]
    if state is to:
        return
    if state is AccountState.CLOSED:
        raise AccountStateConflict("a closed account stays closed", account=account)
    if to is AccountState.CLOSED and (posted or held):
        raise AccountNotEmpty(
            "only an empty account is closed", account=account, posted=posted, held=held
        )
    await connection.execute(statements.SET_STATE, ledger, account, _STATES.index(to))


def _json(value: Any) -> str:
    return msgspec.json.encode(value).decode()


def _fresh(request: NewAccount, id: UUID, created_at: datetime) -> Account:
    return Account(
        id=id,
        reference=request.reference,
        asset=request.asset,
        min_balance_minor=request.min_balance_minor,
        state=AccountState.OPEN,
        balance=Balance(0, 0),
        metadata=request.metadata,
        created_at=created_at,
    )


def _account(record: Any) -> Account:
    return Account(
        id=record["id"],
        reference=record["reference"],
        asset=record["asset"],
        min_balance_minor=record["floor_minor"],
        state=_STATES[record["state"]],
        balance=Balance(record["posted_minor"], record["held_minor"]),
        metadata=msgspec.json.decode(record["metadata"]),
        created_at=record["created_at"],
    )


def _entry(record: Any, account: FoundAccount) -> Entry:
    return Entry(
        transaction=record["journal_id"],
        sequence=record["sequence"],
        amount_minor=record["posted_minor"],
        balance_after_minor=record["posted_after_minor"],
        asset=account.asset,
        created_at=record["created_at"],
    )
