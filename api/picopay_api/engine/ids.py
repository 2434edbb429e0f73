"""Identifiers: a UUIDv7 made by this process, shown as a prefix and 32 hexadecimal digits.

Used wherever something is created or named. Ids rise with time, so that tables stay in order and a
range of time is a range of ids.
"""

import re
from datetime import datetime
from uuid import UUID

from asyncpg.pgproto import pgproto
from uuid_utils import uuid7

ACCOUNT = "acct_"
PAYMENT = "pay_"
TRANSACTION = "tx_"
EVENT = "evt_"
API_KEY = "key_"
LEDGER = "ldg_"

LARGEST_ID = UUID(int=(1 << 128) - 1)
"""Where a list of ids, newest first, begins."""

_HEX = re.compile(r"[0-9a-f]{32}\Z")


def new_id() -> UUID:
    """Make an id greater than every earlier one of this process.

    It is of the driver's own kind, as those that come from the database are: a UUID like any other, but
    hashed, compared and sent in C, which is felt on the path of every payment.
    """
    return pgproto.UUID(uuid7().bytes)


def format_id(prefix: str, value: UUID) -> str:
    """Show an id: `pay_` and 32 lowercase hexadecimal digits."""
    return prefix + value.hex


def parse_id(prefix: str, text: str) -> UUID | None:
    """Read an id back; None when the text is not one of this prefix, exactly as shown."""
    digits = text[len(prefix) :]
    if not text.startswith(prefix) or not _HEX.match(digits):
        return None
    return UUID(hex=digits)


def first_id_at(moment: datetime) -> UUID:
    """Return the smallest id of a millisecond, as `picopay.uuid_at` does in SQL."""
    return UUID(int=max(0, int(moment.timestamp() * 1000)) << 80)
