"""API keys: who asks, for which ledger, with which scopes.

Called for every request (`authenticate`) and by `http/keys.py` and the command line. A secret is shown
once and never stored; what is stored is its SHA-256, which is enough for 256 random bits.
"""

import asyncio
import hashlib
import re
import secrets
from datetime import UTC, datetime
from time import monotonic
from typing import Any
from uuid import UUID

import msgspec

from picopay_api.engine.allowance import Allowance
from picopay_api.engine.ids import LARGEST_ID, new_id
from picopay_api.engine.paging import Candidate, Page, list_name, scan_page
from picopay_api.engine.views import ApiKey, NewApiKey
from picopay_api.errors import (
    ApiKeyInactive,
    ApiKeyInvalid,
    ApiKeyNotFound,
    FieldFault,
    InvalidRequest,
    RateLimited,
)
from picopay_api.store import keys as statements
from picopay_api.store.database import Connection, Database

ADMIN = "admin"
"""Everything in the key's ledger, and ledgers and keys of ledgers themselves."""

ALL = "*"
"""Everything within the key's ledger."""

_LEDGER_SCOPES = (
    "accounts:read",
    "accounts:write",
    "payments:read",
    "payments:write",
    "transactions:read",
    "transactions:write",
    "events:read",
    "audit:read",
    "api_keys:read",
    "api_keys:write",
)
_ADMIN_SCOPES = ("ledgers:read", "ledgers:write")

SCOPES = (*_LEDGER_SCOPES, *_ADMIN_SCOPES, ALL, ADMIN)
"""Every scope that a key can have."""

SECRET_PREFIX = "ppk_"  # noqa: S105  # a prefix, by which leaked secrets are recognised

_SECRET = re.compile(f"{SECRET_PREFIX}[0-9a-f]{{64}}")

_REMEMBERED_S = 2.0  # within which a revocation is seen
_REMEMBERED_MAX = 10_000
_STRANGERS_REMEMBERED_MAX = 1_000
_STRANGERS_AT_ONCE = 100  # API keys that nobody has, which are looked up for nothing
_STRANGERS_PER_S = 10.0


class Principal(msgspec.Struct, frozen=True):
    """Who asks: a key of a ledger, what it may do and until when (None: without end)."""

    ledger: UUID
    key: UUID
    scopes: frozenset[str]
    expires_at: datetime | None

    def has_expired(self) -> bool:
        """Tell whether the time of the key is over."""
        return self.expires_at is not None and self.expires_at <= datetime.now(UTC)

    def outlives(self, expires_at: datetime | None) -> bool:
        """Tell whether the key is valid for at least as long as one that expires then."""
        if self.expires_at is None:
            return True
        return expires_at is not None and expires_at <= self.expires_at

    def allows(self, scope: str) -> bool:
        """Tell whether the key may do what `resource:action` stands for."""
        return scope in self.scopes

    @property
    def is_admin(self) -> bool:
        """Whether the key may act for every ledger."""
        return ADMIN in self.scopes


class _Remembered(msgspec.Struct):
    """What is known of a secret's hash, until when (monotonic seconds); no principal: it is unknown."""

    principal: Principal | None
    until_s: float


class Keys:
    """The API keys of all ledgers."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._remembered: dict[bytes, _Remembered] = {}
        self._nobodys: dict[bytes, _Remembered] = {}  # apart, so that guesses push no key out
        self._asking: dict[bytes, asyncio.Task[_Remembered]] = {}
        self._strangers = Allowance(_STRANGERS_AT_ONCE, _STRANGERS_PER_S, monotonic())

    async def authenticate(self, secret: str) -> Principal:
        """Find out who asks; from memory, at most two seconds old.

        Raises:
            ApiKeyInvalid: unknown, expired or revoked; which of them is not told.
            RateLimited: not seen before, and too many of those were nobody's of late.
            DatabaseUnavailable: it is not remembered and cannot be asked for.
        """
        hashed = _hash(secret)
        known = self._remembered.get(hashed) or self._nobodys.get(hashed)
        if known is None or known.until_s < monotonic():
            known = await self._ask(hashed, seen=hashed in self._remembered)
        if known.principal is None or known.principal.has_expired():
            raise ApiKeyInvalid("the API key is unknown, expired or revoked")
        return known.principal

    async def _ask(self, hashed: bytes, *, seen: bool) -> _Remembered:
        """Ask the database, once for all requests that wait for the same key.

        Guesses must not keep the database busy: when too many were wrong, keys that were right before
        (`seen`) are looked up, and no others.
        """
        if not seen and not self._strangers.is_left(monotonic()):
            raise RateLimited(
                "too many requests came with API keys that are invalid", retry_after_s=1
            )
        task = self._asking.get(hashed)
        if task is None:
            task = self._asking[hashed] = asyncio.create_task(self._look_up(hashed))
            task.add_done_callback(lambda _: self._asking.pop(hashed, None))
        return await asyncio.shield(task)

    async def _look_up(self, hashed: bytes) -> _Remembered:
        row = await self._database.row(statements.BY_HASH, hashed)
        known = _Remembered(None, monotonic() + _REMEMBERED_S)
        if row is None:
            self._strangers.take()
            self._remembered.pop(hashed, None)
            _remember(self._nobodys, hashed, known, _STRANGERS_REMEMBERED_MAX)
        else:
            known.principal = Principal(
                row["ledger_id"], row["id"], _expanded(row["scopes"]), row["expires_at"]
            )
            self._nobodys.pop(hashed, None)
            _remember(self._remembered, hashed, known, _REMEMBERED_MAX)
        return known

    async def create(
        self,
        ledger: UUID,
        name: str,
        scopes: list[str],
        expires_at: datetime | None = None,
        *,
        secret: str | None = None,
    ) -> NewApiKey:
        """Make a key; its secret is told now and never again.

        `secret` gives one that was made beforehand by `new_secret`, so that a caller can put it into a
        safe place before it becomes valid.

        Raises:
            InvalidRequest: a scope is not known, or the expiry has passed.
        """
        check_scopes(scopes)
        if expires_at is not None and expires_at <= datetime.now(UTC):
            fault = FieldFault("/expires_at", "must be in the future")
            raise InvalidRequest("the key would be expired at once", fault)
        async with self._database.transaction() as connection:
            return await _make(
                connection, ledger, name, sorted(set(scopes)), expires_at, secret or new_secret()
            )

    async def ensure(self, ledger: UUID, name: str, scopes: list[str], secret: str) -> ApiKey:
        """Make the key of a secret, unless there is one; return it, valid.

        It is the caller's to look whether the key that was there is of this ledger and scopes.

        Raises:
            InvalidRequest: a scope is not known.
            ApiKeyInactive: the key is there, and was revoked or has expired.
        """
        check_scopes(scopes)
        async with self._database.transaction() as connection:
            record = await connection.fetchrow(
                statements.MAKE_UNLESS_THERE,
                *(ledger, new_id(), _hash(secret), secret[-4:], name, sorted(set(scopes)), None),
            )
            if record is None:  # another session's is visible to the next statement
                record = await connection.fetchrow(statements.ANY_BY_HASH, _hash(secret))
            key = _existing(record)
        if _is_inactive(key):
            raise ApiKeyInactive("the key of this secret is revoked or expired: take another one")
        return key

    async def retire(self, ledger: UUID, secret: str, overlap_s: int) -> None:
        """Let the key of a secret end in `overlap_s` seconds, if there is one; never later than before."""
        await self._database.run(statements.RETIRE_BY_HASH, ledger, _hash(secret), float(overlap_s))

    async def get(self, ledger: UUID, id: UUID) -> ApiKey:
        """Return a key.

        Raises:
            ApiKeyNotFound: there is none of this id in the ledger.
        """
        return _existing(await self._database.row(statements.BY_ID, ledger, id))

    async def list(self, ledger: UUID, limit: int, cursor: str | None = None) -> Page[ApiKey]:
        """List the keys of a ledger, newest first, revoked ones included.

        Raises:
            InvalidCursor: the cursor is of another list.
        """

        async def scan(after: bytes | None, count: int) -> list[Candidate[ApiKey]]:
            before = UUID(bytes=after) if after else LARGEST_ID
            records = await self._database.rows(statements.PAGE, ledger, before, count)
            return [Candidate(r["id"].bytes, _key(r)) for r in records]

        name = list_name("api_keys", ledger, None)
        return await scan_page(scan, lambda _: True, limit, cursor, name)

    async def roll(self, ledger: UUID, id: UUID, overlap_s: int) -> NewApiKey:
        """Make a key like this one and let the old one end in `overlap_s` seconds, or as it was to.

        Rolling it once more, as after a lost answer, makes another one with the same term.

        Raises:
            ApiKeyNotFound: there is none of this id in the ledger.
            ApiKeyInactive: it is revoked or expired already.
        """
        async with self._database.transaction() as connection:
            old = _existing(await connection.fetchrow(statements.LOCK, ledger, id))
            if _is_inactive(old):
                raise ApiKeyInactive("a key that is revoked or expired cannot be rolled")
            new = await _make(
                connection, ledger, old.name, old.scopes, old.term_ends_at, new_secret()
            )
            await connection.execute(statements.RETIRE, ledger, id, float(overlap_s))
        return new

    async def revoke(self, ledger: UUID, id: UUID) -> ApiKey:
        """End a key; within two seconds no process accepts it any more.

        Raises:
            ApiKeyNotFound: there is none of this id in the ledger.
        """
        async with self._database.transaction() as connection:
            return _existing(await connection.fetchrow(statements.REVOKE, ledger, id))


def check_scopes(scopes: list[str]) -> None:
    """Refuse scopes that do not exist, and a key without any.

    Raises:
        InvalidRequest: with the place of each fault.
    """
    faults = [
        FieldFault(f"/scopes/{place}", f"{scope!r} is not a scope; known are {', '.join(SCOPES)}")
        for place, scope in enumerate(scopes)
        if scope not in SCOPES
    ]
    if not scopes:
        faults = [FieldFault("/scopes", "at least one scope is required")]
    if faults:
        raise InvalidRequest("the scopes of the key are not valid", *faults)


def new_secret() -> str:
    """Make a secret of 256 random bits."""
    return SECRET_PREFIX + secrets.token_hex(32)


def is_secret(text: str) -> bool:
    """Tell whether a text has the form of what `new_secret` makes; others might be easy to guess."""
    return _SECRET.fullmatch(text) is not None


def _is_inactive(key: ApiKey) -> bool:
    return key.revoked_at is not None or (
        key.expires_at is not None and key.expires_at <= datetime.now(UTC)
    )


async def _make(
    connection: Connection,
    ledger: UUID,
    name: str,
    scopes: list[str],
    expires_at: datetime | None,
    secret: str,
) -> NewApiKey:
    record = await connection.fetchrow(
        statements.MAKE, ledger, new_id(), _hash(secret), secret[-4:], name, scopes, expires_at
    )
    return NewApiKey(_key(record), secret)


def _remember(
    where: dict[bytes, _Remembered], hashed: bytes, known: _Remembered, most: int
) -> None:
    if len(where) >= most:
        where.clear()  # refilled by one round trip per key in use
    where[hashed] = known


def _expanded(scopes: list[str]) -> frozenset[str]:
    granted = set(scopes)
    if ALL in granted or ADMIN in granted:
        granted.update(_LEDGER_SCOPES)
    if ADMIN in granted:
        granted.update(_ADMIN_SCOPES)
    return frozenset(granted)


def _hash(secret: str) -> bytes:
    return hashlib.sha256(secret.encode()).digest()


def _existing(record: Any) -> ApiKey:
    if record is None:
        raise ApiKeyNotFound("there is no such API key in this ledger")
    return _key(record)


def _key(record: Any) -> ApiKey:
    return ApiKey(
        id=record["id"],
        ledger=record["ledger_id"],
        name=record["name"],
        scopes=record["scopes"],
        hint=record["hint"],
        created_at=record["created_at"],
        expires_at=record["expires_at"],
        term_ends_at=record["term_ends_at"],
        revoked_at=record["revoked_at"],
    )
