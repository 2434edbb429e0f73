"""Lists: keyset pages, opaque cursors and filters by time.

Used by every capability that lists. A page is found by scanning candidates in the order of an index and
keeping those that match, with a bound on what is scanned: a page costs the same at a hundred rows and
at a hundred million. It may therefore be short, or empty, and still have a successor; a list has ended
when there is no next cursor.
"""

import base64
import binascii
import hashlib
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import msgspec

from picopay_api.engine.ids import first_id_at
from picopay_api.errors import InvalidCursor

SCAN_MAX = 1_000
"""Candidates looked at for one page."""

_CHUNK = 100
_DIGEST_BYTES = 8
_POSITION_BYTES = 16
_LONG_AGO = datetime(1, 1, 1, tzinfo=UTC)
_FAR = datetime(9999, 12, 31, tzinfo=UTC)
_SEQUENCE_MAX = 2**63 - 1

# Ids are made before the database tells the time; decide.sql refuses a difference of over five minutes.
_ID_SLACK = timedelta(minutes=5, seconds=1)


class Page[T](msgspec.Struct, frozen=True):
    """One page; `next_cursor` is None at the end of the list."""

    data: list[T]
    next_cursor: str | None


class Times(msgspec.Struct, frozen=True, kw_only=True):
    """Bounds of `created_at`; None is no bound."""

    gte: datetime | None = None
    gt: datetime | None = None
    lte: datetime | None = None
    lt: datetime | None = None

    def admit(self, moment: datetime) -> bool:
        """Tell whether a moment lies within the bounds."""
        return (
            (self.gte is None or moment >= self.gte)
            and (self.gt is None or moment > self.gt)
            and (self.lte is None or moment <= self.lte)
            and (self.lt is None or moment < self.lt)
        )

    def moments(self) -> tuple[datetime, datetime]:
        """Return a range of time, both ends inclusive, that holds every match."""
        return (
            max((t for t in (self.gte, self.gt) if t is not None), default=_LONG_AGO),
            min((t for t in (self.lte, self.lt) if t is not None), default=_FAR),
        )

    def ids(self) -> tuple[UUID, UUID]:
        """Return a range of ids, low end inclusive and high end exclusive, that holds every match."""
        low, high = self.moments()
        return first_id_at(_shift(low, -_ID_SLACK)), first_id_at(_shift(high, _ID_SLACK))


def _shift(moment: datetime, by: timedelta) -> datetime:
    try:
        return moment + by
    except OverflowError:
        return moment


class Candidate[T](msgspec.Struct, frozen=True):
    """Something an index led to, and where in the index it stands (16 bytes)."""

    position: bytes
    value: T


type Scan[T] = Callable[[bytes | None, int], Awaitable[Sequence[Candidate[T]]]]
"""Reads up to n candidates after a position (None: from the start), in the order of the list."""


async def scan_page[T](
    scan: Scan[T], matches: Callable[[T], bool], limit: int, cursor: str | None, name: bytes
) -> Page[T]:
    """Fill a page of at most `limit` from a scan; `name` is what the cursor is bound to.

    Raises:
        InvalidCursor: the cursor was made by another list or for other filters.
    """
    position = decode_cursor(name, cursor) if cursor is not None else None
    found: list[T] = []
    scanned = 0
    while scanned < SCAN_MAX:
        wanted = max(limit + 1 - len(found), _CHUNK) if scanned else limit + 1
        chunk = await scan(position, wanted)
        for candidate in chunk:
            if matches(candidate.value):
                if len(found) == limit and position is not None:
                    return Page(found, encode_cursor(name, position))
                found.append(candidate.value)
            position = candidate.position
        if len(chunk) < wanted:
            return Page(found, None)
        scanned += len(chunk)
    assert position is not None  # the loop ran at least once and met a full chunk
    return Page(found, encode_cursor(name, position))


def entries_from(times: Times, after: bytes | None) -> tuple[datetime, int, datetime]:
    """Return where to go on in an account's entries, newest first, and the time to stop at.

    Time and sequence, exclusive, then the earliest time, inclusive. A forged position is brought
    into range.
    """
    low, high = times.moments()
    if after is None:
        return high, _SEQUENCE_MAX, low
    milliseconds = int.from_bytes(after[:8], "big", signed=True)
    seconds = min(max(milliseconds / 1000, _LONG_AGO.timestamp()), _FAR.timestamp())
    sequence = min(int.from_bytes(after[8:], "big"), _SEQUENCE_MAX)
    return datetime.fromtimestamp(seconds, UTC), sequence, low


def entry_position(created_at: datetime, sequence: int) -> bytes:
    """Pack the place of an entry in its account into the 16 bytes of a cursor's position."""
    milliseconds = round(created_at.timestamp() * 1000)
    return milliseconds.to_bytes(8, "big", signed=True) + sequence.to_bytes(8, "big")


def list_name(resource: str, ledger: UUID, filters: Any) -> bytes:
    """Return what binds a cursor to a list: eight bytes of a hash of all that defines it."""
    text = msgspec.json.encode([resource, ledger, filters], order="deterministic")
    return hashlib.blake2b(text, digest_size=_DIGEST_BYTES).digest()


def encode_cursor(name: bytes, position: bytes) -> str:
    """Make a cursor that continues the list `name` after a position."""
    return base64.urlsafe_b64encode(name + position).decode()


def decode_cursor(name: bytes, cursor: str) -> bytes:
    """Read the position out of a cursor.

    Raises:
        InvalidCursor: it is not a cursor, or not one of this list.
    """
    try:
        raw = base64.b64decode(cursor.encode("ascii"), altchars=b"-_", validate=True)
    except (ValueError, binascii.Error):
        raw = b""
    if len(raw) != _DIGEST_BYTES + _POSITION_BYTES or raw[:_DIGEST_BYTES] != name:
        raise InvalidCursor("the cursor was not made by this list with these filters")
    return raw[_DIGEST_BYTES:]
