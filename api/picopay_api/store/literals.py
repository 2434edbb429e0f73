"""Arrays as PostgreSQL writes them, so that a whole array is one text to the driver.

Used by `decide.py`, whose call sends some twenty arrays. The driver asks of every element of an array
whether it is an array itself, which costs more than all else that happens to a payment between the queue
and the database; of a text it asks nothing. The statement casts each text to the array that it is
(PostgreSQL's manual, "Array Input and Output Syntax").
"""

from collections.abc import Iterable
from uuid import UUID


def uuids(values: Iterable[UUID | None]) -> str:
    """Write ids."""
    return "{" + ",".join(["NULL" if value is None else value.hex for value in values]) + "}"


def binaries(values: Iterable[bytes]) -> str:
    r"""Write bytes in hexadecimal form, `\x…`."""
    return "{" + ",".join([f'"\\\\x{value.hex()}"' for value in values]) + "}"


def texts(values: Iterable[str | None]) -> str:
    """Write any texts, and NULL for None."""
    return "{" + ",".join(["NULL" if value is None else _quoted(value) for value in values]) + "}"


def integers(values: Iterable[int | None]) -> str:
    """Write integers, and NULL for None."""
    return "{" + ",".join(["NULL" if value is None else f"{value:d}" for value in values]) + "}"


def _quoted(value: str) -> str:
    return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'
