"""What the API can do: each operation declared once, and every request run through the same checks.

The files of resources declare operations; `app.py` makes routes of them and `documentation.py` the
OpenAPI document. A request passes, in this order: the key, its rate, its scope, the idempotency key, the
body, the query. Then one function is called with everything decoded, and its answer is encoded.
"""

import re
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from enum import StrEnum
from typing import Any, Literal
from urllib.parse import unquote_to_bytes
from uuid import UUID

import msgspec
from litestar import Request
from litestar.response import Response, Stream

from picopay_api.engine.engine import Engine
from picopay_api.engine.ids import parse_id
from picopay_api.engine.keys import Principal
from picopay_api.errors import (
    BodyTooLarge,
    IdempotencyKeyInvalid,
    IdempotencyKeyMissing,
    InvalidRequest,
    MalformedBody,
    MissingError,
    PicoPayError,
    ScopeMissing,
    UnsupportedMediaType,
)
from picopay_api.http.access import RateLimiter, authenticate
from picopay_api.http.json_bodies import decode
from picopay_api.http.parameters import Parameter, read_query
from picopay_api.settings import Settings

JSON = "application/json"
VERSION = "2026-11-01"
"""The version of the HTTP contract, sent and accepted as `PicoPay-Version`."""

_KEY = re.compile(r"[\x21-\x7e]([\x20-\x7e]{0,253}[\x21-\x7e])?\Z")
_QUOTED = re.compile(r'"((?:[\x20-\x21\x23-\x5b\x5d-\x7e]|\\["\\])*)"\Z')


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


class Operation(msgspec.Struct, frozen=True, kw_only=True):
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

    @property
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


class Edge:
    """Runs operations for one application."""

    def __init__(self, engine: Engine, settings: Settings) -> None:
        self._engine = engine
        self._settings = settings
        self._limiter = RateLimiter(settings.rate_limit_requests, settings.rate_limit_window_s)

    async def run(self, asked: Operation, request: Request[Any, Any, Any]) -> Response[Any]:
        """Answer a request.

        Raises:
            PicoPayError: it is refused; `app.py` makes a problem document of it.
        """
        state = request.scope["state"]
        raw_headers = request.scope["headers"]
        principal = await authenticate(self._engine.keys, raw_headers)
        state["ledger"] = principal.ledger
        self._limiter.admit(principal, state["headers"])
        if not principal.allows(asked.scope):
            raise ScopeMissing(f"this needs the scope {asked.scope}", scope=asked.scope)
        headers = _single(raw_headers)
        if headers.get("picopay-version", VERSION) != VERSION:
            raise InvalidRequest(f"the only PicoPay-Version so far is {VERSION}")
        key = _idempotency_key(raw_headers, asked.keyed)
        call = Call(
            engine=self._engine,
            settings=self._settings,
            principal=principal,
            body=await self._body(asked, request, headers),
            path=_path(request.scope["path_params"]),
            query=read_query(request.scope["query_string"], asked.parameters),
            key=key,
        )
        return respond(await asked.handle(call))

    async def _body(
        self, asked: Operation, request: Request[Any, Any, Any], headers: dict[str, str]
    ) -> Any:
        if asked.body is None:
            return None
        content_type = headers.get("content-type")
        if content_type is not None or not asked.body_optional:
            _require_json(content_type)
        if headers.get("content-encoding", "identity").lower() != "identity":
            raise UnsupportedMediaType("send the body as it is, without a `Content-Encoding`")
        body = await _read(request, headers.get("content-length"), self._settings.body_bytes_max)
        if not body and asked.body_optional:
            return asked.body()
        if content_type is None:
            _require_json(content_type)
        return decode(body, asked.body)


def respond(reply: Reply) -> Response[Any]:
    """Encode the answer of an operation."""
    headers = dict(reply.headers)
    if reply.replayed:
        headers["Idempotent-Replayed"] = "true"
    if reply.stream is not None:
        return Stream(
            reply.stream,
            status_code=reply.status,
            media_type=reply.media_type,
            headers=headers,
        )
    return Response(
        msgspec.json.encode(reply.body),
        status_code=reply.status,
        media_type=reply.media_type,
        headers=headers,
    )


def _single(headers: Iterable[tuple[bytes, bytes]]) -> dict[str, str]:
    """Return headers by name; one that is there twice is joined, as HTTP reads it."""
    found: dict[str, str] = {}
    for raw_name, raw_value in headers:
        name, value = raw_name.decode("latin-1"), raw_value.decode("latin-1").strip()
        found[name] = f"{found[name]}, {value}" if name in found else value
    return found


def _idempotency_key(headers: Iterable[tuple[bytes, bytes]], keyed: Keyed) -> str | None:
    values = [value for name, value in headers if name == b"idempotency-key"]
    if keyed is Keyed.NEVER:
        return None
    if not values:
        if keyed is Keyed.REQUIRED:
            raise IdempotencyKeyMissing("send an `Idempotency-Key` of your own for each operation")
        return None
    if len(values) > 1:
        # Joined, as HTTP joins headers, they would be a third key that nobody meant.
        raise IdempotencyKeyInvalid("send one `Idempotency-Key`")
    value = values[0].decode("latin-1").strip()
    quoted = _QUOTED.match(value)
    key = re.sub(r"\\(.)", r"\1", quoted[1]) if quoted else value
    if not _KEY.match(key):
        raise IdempotencyKeyInvalid("an `Idempotency-Key` is 1 to 255 printable ASCII characters")
    return key


def _require_json(content_type: str | None) -> None:
    media_type, _, parameters = (content_type or "").partition(";")
    charset = re.search(r"charset\s*=\s*\"?([^\s;\"]+)", parameters, re.IGNORECASE)
    if media_type.strip().lower() != JSON or (charset and charset[1].lower() != "utf-8"):
        raise UnsupportedMediaType("send the body as `Content-Type: application/json`, in UTF-8")


async def _read(request: Request[Any, Any, Any], length: str | None, bytes_max: int) -> bytes:
    """Read the body, and no more of it than may be.

    Raises:
        BodyTooLarge: there is more of it.
        MalformedBody: the client went away; nobody will hear of it, but it is no defect of ours.
    """
    if length is not None and length.isdigit() and int(length) > bytes_max:
        raise _too_large(bytes_max)
    body = bytearray()
    while True:  # ends with the body, its limit or the connection
        message = await request.receive()
        if message["type"] != "http.request":  # the client has hung up
            raise MalformedBody("the connection was closed before the body was complete")
        body += message["body"]
        if len(body) > bytes_max:
            raise _too_large(bytes_max)
        if not message["more_body"]:
            return bytes(body)


def _too_large(bytes_max: int) -> BodyTooLarge:
    return BodyTooLarge(f"a body has at most {bytes_max} bytes", bytes_max=bytes_max)


def _path(parameters: Mapping[str, Any]) -> dict[str, str]:
    """Decode the parts of the path; the router sees them as they were sent (`middleware.py`)."""
    try:
        found = {
            name: unquote_to_bytes(str(value)).decode("utf-8") for name, value in parameters.items()
        }
    except UnicodeDecodeError:
        raise InvalidRequest("the path is not UTF-8") from None
    if any("\x00" in value for value in found.values()):
        raise InvalidRequest("the path must not contain NUL (U+0000)")
    return found
