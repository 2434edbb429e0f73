"""What the API can do: each operation is declared once, with all that is known about it.

The files of resources declare operations; `app.py` makes routes of them, `edge.py` runs every request
through the checks that a declaration asks for, and `documentation.py` makes the OpenAPI document.
"""

import re
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from enum import StrEnum
from functools import cached_property
from typing import Any, Literal
from uuid import UUID

import msgspec

from picopay_api.engine.engine import Engine
from picopay_api.engine.ids import parse_id
from picopay_api.engine.keys import Principal
from picopay_api.errors import MissingError, PicoPayError
from picopay_api.http.parameters import Parameter
from picopay_api.settings import Settings

JSON = "application/json"
VERSION = "2026-11-01"
"""The version of the HTTP contract, sent and accepted as `PicoPay-Version`."""


class Keyed(StrEnum):
    """Whether an operation takes an `Idempotency-Key`."""

    NEVER = "never"
    OPTIONAL = "optional"
    REQUIRED = "required"


class Call(msgspec.Struct, frozen=True, kw_only=True):
    """A request as its operation sees it: checked and decoded."""

    engine: Engine
    settings: Settings
    principal: Principal
    path: Mapping[str, str]
    query: dict[str, Any]
    body: Any
    key: str | None

    @property
    def ledger(self) -> UUID:
        """The ledger of the key."""
        return self.principal.ledger

    def id(self, name: str, prefix: str, missing: type[MissingError]) -> UUID:
        """Return an id in the path; one that cannot be is of nothing.

        Raises:
            MissingError: `missing`, as for an id that is not there.
        """
        found = parse_id(prefix, self.path[name])
        if found is None:
            raise missing("there is nothing of this id in this ledger")
        return found


class Reply(msgspec.Struct, frozen=True, kw_only=True):
    """What an operation answers: a body to be encoded, or a stream of bytes."""

    body: Any = None
    status: int = 200
    replayed: bool = False
    stream: AsyncIterator[bytes] | None = None
    media_type: str = JSON
    headers: dict[str, str] = {}


Handle = Callable[[Call], Awaitable[Reply]]


HttpMethodName = Literal["GET", "POST", "PATCH"]


class Operation(msgspec.Struct, frozen=True, kw_only=True, dict=True):
    """One method of one path, everything that is known about it, and the function that does it."""

    method: HttpMethodName
    path: str
    name: str
    summary: str
    description: str
    scope: str
    handle: Handle
    answer: type
    status: int = 200
    body: type | None = None
    body_optional: bool = False
    parameters: tuple[Parameter, ...] = ()
    keyed: Keyed = Keyed.NEVER
    errors: tuple[type[PicoPayError], ...] = ()
    example: dict[str, Any] | None = None

    @cached_property
    def path_parameters(self) -> list[str]:
        """The names in the path."""
        return re.findall(r"{(\w+)}", self.path)

    @property
    def resource(self) -> str:
        """The first part of the path after the version, which groups operations."""
        return self.path.split("/")[2]


def operation(
    method: HttpMethodName, path: str, *, scope: str, answer: type, **declared: Any
) -> Callable[[Handle], Operation]:
    """Declare an operation; its name, summary and description are those of the function."""

    def declare(handle: Handle) -> Operation:
        summary, _, description = (handle.__doc__ or "").strip().partition("\n")
        return Operation(
            method=method,
            path=path,
            name=handle.__name__.rstrip("_"),
            summary=summary.rstrip("."),
            description=" ".join(description.split()),
            scope=scope,
            handle=handle,
            answer=answer,
            **declared,
        )

    return declare
