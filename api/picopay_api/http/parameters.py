"""Parameters of the query: what each is called, how it is read, and how the documents describe it.

An operation lists those that it takes; any other one is refused, because a filter that is silently
ignored answers another question than the one that was asked.
"""

import re
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from typing import Any
from urllib.parse import parse_qsl

import msgspec

from picopay_api.engine.ids import LEDGER, parse_id
from picopay_api.engine.paging import Times
from picopay_api.engine.views import PaymentStatus
from picopay_api.errors import FieldFault, InvalidRequest

LIMIT_DEFAULT = 20
LIMIT_MAX = 100
_FIELDS_MAX = 60
_TEXT_MAX = 512
_METADATA_VALUE_MAX = 500
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
_TIME = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}(:[0-9]{2}(\.[0-9]+)?)?(Z|[+-][0-9]{2}:[0-9]{2})\Z"
)
_METADATA = re.compile(r"metadata\[(?P<key>.{1,40})\]\Z", re.DOTALL)


class Parameter(msgspec.Struct, frozen=True, kw_only=True):
    """One parameter: `read` returns its value, or raises ValueError with what it should have been."""

    name: str
    read: Callable[[str], Any]
    schema: dict[str, Any]
    description: str


def _text(value: str) -> str:
    if not value or len(value) > _TEXT_MAX or _CONTROL.search(value):
        raise ValueError(f"must be 1 to {_TEXT_MAX} printable characters")
    return value


def _metadata_value(value: str) -> str:
    if len(value) > _METADATA_VALUE_MAX or "\x00" in value:
        raise ValueError(f"must be at most {_METADATA_VALUE_MAX} characters, none of them NUL")
    return value


def _limit(value: str) -> int:
    if not re.fullmatch(r"[0-9]{1,3}", value) or not 1 <= int(value) <= LIMIT_MAX:
        raise ValueError(f"must be 1 to {LIMIT_MAX}")
    return int(value)


def _position(value: str) -> int:
    if not re.fullmatch(r"[0-9]{1,18}", value):
        raise ValueError("must be the position of an event, 0 for the start")
    return int(value)


def read_time(value: str) -> datetime:
    """Read a time; a plus sign that arrived as a blank is forgiven.

    Raises:
        ValueError: it is not RFC 3339 with an offset.
    """
    text = value.replace(" ", "+").upper()
    try:
        # Python reads more of ISO 8601 than RFC 3339 has, such as weeks and commas.
        if _TIME.match(text):
            return datetime.fromisoformat(text).astimezone(UTC)
    except (ValueError, OverflowError):
        pass
    raise ValueError("must be a time of RFC 3339 with its offset, such as 2026-11-23T10:00:00Z")


def _one_of(*words: str) -> Callable[[str], str]:
    def read(value: str) -> str:
        if value not in words:
            raise ValueError(f"must be one of {', '.join(words)}")
        return value

    return read


def _ledger(value: str) -> Any:
    found = parse_id(LEDGER, value)
    if found is None:
        raise ValueError("must be the id of a ledger, ldg_…")
    return found


_STRING = {
    "type": "string",
    "minLength": 1,
    "maxLength": _TEXT_MAX,
    "pattern": r"^[^\x00-\x1f\x7f-\x9f]+$",
}
_MOMENT = {"type": "string", "format": "date-time"}

LIMIT = Parameter(
    name="limit",
    read=_limit,
    schema={"type": "integer", "minimum": 1, "maximum": LIMIT_MAX, "default": LIMIT_DEFAULT},
    description="How many at most.",
)
CURSOR = Parameter(
    name="cursor",
    read=_text,
    schema=_STRING,
    description="`next_cursor` of the page before, with the same filters.",
)
ACCOUNT = Parameter(
    name="account", read=_text, schema=_STRING, description="Those that touch this account."
)
STATUS = Parameter(
    name="status",
    read=_one_of(*PaymentStatus),
    schema={"type": "string", "enum": list(PaymentStatus)},
    description="Those of this status.",
)
REFERENCE = Parameter(
    name="reference", read=_text, schema=_STRING, description="The one with this reference."
)
ASSET = Parameter(name="asset", read=_text, schema=_STRING, description="Those of this asset.")
IDEMPOTENCY_KEY = Parameter(
    name="idempotency_key",
    read=_text,
    schema=_STRING,
    description="Those made with this key, while keys are remembered.",
)
METADATA = Parameter(
    name="metadata",
    read=_metadata_value,
    schema={
        "type": "object",
        "additionalProperties": {"type": "string", "maxLength": _METADATA_VALUE_MAX},
    },
    description="Those with this pair: `metadata[key]=value`; several must all match.",
)
CREATED_AT = tuple(
    Parameter(
        name=f"created_at[{bound}]",
        read=read_time,
        schema=_MOMENT,
        description=f"Those created {words} this time.",
    )
    for bound, words in (
        ("gte", "at or after"),
        ("gt", "after"),
        ("lte", "at or before"),
        ("lt", "before"),
    )
)
AT = Parameter(
    name="at",
    read=read_time,
    schema=_MOMENT,
    description="After everything booked up to and including this time; now when absent.",
)
AFTER = Parameter(
    name="after",
    read=_position,
    schema={"type": "integer", "minimum": 0, "default": 0},
    description="Events behind this position.",
)
FORMAT = Parameter(
    name="format",
    read=_one_of("csv", "ndjson"),
    schema={"type": "string", "enum": ["csv", "ndjson"]},
    description="Stream the whole statement, oldest first, in this form; without it, a page of JSON.",
)
OF_LEDGER = Parameter(
    name="ledger",
    read=_ledger,
    schema={"type": "string", "pattern": "^ldg_[0-9a-f]{32}$"},
    description="Another ledger than the key's own; for administrators.",
)

LISTED = (LIMIT, CURSOR)
"""What every list takes."""


def read_query(query: bytes, parameters: Iterable[Parameter]) -> dict[str, Any]:
    """Read the query of a request; metadata comes as one mapping.

    Raises:
        InvalidRequest: a parameter is unknown, there twice, or cannot be read; all faults at once.
    """
    if not query:
        return {}
    known = {parameter.name: parameter for parameter in parameters}
    try:
        pairs = parse_qsl(
            query.decode("ascii"),
            keep_blank_values=True,
            strict_parsing=True,
            errors="strict",
            max_num_fields=_FIELDS_MAX,
        )
    except ValueError:
        raise InvalidRequest("the query of the URL cannot be read") from None
    found: dict[str, Any] = {}
    faults: list[FieldFault] = []
    for name, value in pairs:
        try:
            _read_pair(name, value, known, found)
        except ValueError as error:
            faults.append(FieldFault(f"?{name}", str(error)))
    if faults:
        said = "; ".join(f"{fault.pointer[1:]}: {fault.detail}" for fault in faults)
        raise InvalidRequest(f"the query of the URL is not valid: {said}", *faults)
    return found


def _read_pair(name: str, value: str, known: dict[str, Parameter], found: dict[str, Any]) -> None:
    item = _METADATA.match(name)
    parameter = known.get("metadata" if item else name)
    if parameter is None or (name == "metadata" and not item):
        raise ValueError(f"is not a parameter here; known are {', '.join(known) or 'none'}")
    target = found.setdefault("metadata", {}) if item else found
    place = _text(item["key"]) if item else name
    if place in target:
        raise ValueError("must be given once")
    target[place] = parameter.read(value)


def times(query: dict[str, Any]) -> Times:
    """Return the bounds of `created_at` in a query."""
    return Times(
        gte=query.get("created_at[gte]"),
        gt=query.get("created_at[gt]"),
        lte=query.get("created_at[lte]"),
        lt=query.get("created_at[lt]"),
    )


def refused(name: str, detail: str) -> InvalidRequest:
    """Make the refusal of one parameter."""
    return InvalidRequest(f"{name}: {detail}", FieldFault(f"?{name}", detail))
