"""From a request to its answer: the same checks for every operation, in the documented order.

A request passes (docs/reference/errors.md): the API key, its rate, its scope, the version, the
idempotency key, the body, the path, the query. Then the operation's function is called with everything
decoded, and its reply is encoded.

Knows the framework's scopes, but not its requests and responses: `app.py` calls it from a handler of the
framework for each route, `front.py` without one. Both send what comes back, so that both answer the same.
"""

import re
from collections.abc import AsyncIterator, Mapping
from typing import Any
from urllib.parse import unquote_to_bytes

import msgspec
from litestar.types import Receive, Scope

from picopay_api.engine.engine import Engine
from picopay_api.errors import (
    BodyTooLarge,
    IdempotencyKeyInvalid,
    IdempotencyKeyMissing,
    InternalError,
    InvalidRequest,
    MalformedBody,
    MethodNotAllowed,
    ScopeMissing,
    UnsupportedMediaType,
)
from picopay_api.http import problems
from picopay_api.http.access import RateLimiter, authenticate
from picopay_api.http.headers import AGAIN, Headers, text
from picopay_api.http.json_bodies import decode
from picopay_api.http.operations import JSON, VERSION, Call, Keyed, Operation, Reply
from picopay_api.http.parameters import read_query
from picopay_api.http.resources import methods_of
from picopay_api.logs import Event, get_logger
from picopay_api.settings import Settings

_KEY = re.compile(r"[\x21-\x7e]([\x20-\x7e]{0,253}[\x21-\x7e])?\Z")
_QUOTED = re.compile(r'"((?:[\x20-\x21\x23-\x5b\x5d-\x7e]|\\["\\])*)"\Z')
_PLAIN_JSON = JSON.encode()

_log = get_logger(__name__)


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """What is sent back: `body`, or `stream` when there is one."""

    status: int
    media_type: str
    headers: Mapping[str, str]
    body: bytes = b""
    stream: AsyncIterator[bytes] | None = None


class Edge:
    """Runs operations for one application; `engine` is there once the application has started."""

    engine: Engine

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._limiter = RateLimiter(settings.rate_limit_requests, settings.rate_limit_window_s)

    async def answer(self, asked: Operation, scope: Scope, receive: Receive) -> Answer:
        """Do what a request asks for.

        Raises:
            PicoPayError: it is refused; `refuse` makes an answer of that.
        """
        state: dict[str, Any] = scope["state"]
        headers: Headers = state["headers"]
        principal = await authenticate(self.engine.keys, headers)
        state["ledger"] = principal.ledger
        self._limiter.admit(principal, state["answered_with"])
        if not principal.allows(asked.scope):
            raise ScopeMissing(f"this needs the scope {asked.scope}", scope=asked.scope)
        if b"picopay-version" in headers and text(headers, b"picopay-version") != VERSION:
            raise InvalidRequest(f"the only PicoPay-Version so far is {VERSION}")
        key = _idempotency_key(headers, asked.keyed)
        call = Call(
            engine=self.engine,
            settings=self._settings,
            principal=principal,
            body=await self._body(asked, headers, receive),
            path=_path(scope["path_params"]) if asked.path_parameters else {},
            query=read_query(scope["query_string"], asked.parameters),
            key=key,
        )
        return _encoded(await asked.handle(call))

    def refuse(self, error: Exception, scope: Scope) -> Answer:
        """Make a problem document of a refusal, of what the framework raises, or of a defect."""
        state: dict[str, Any] = scope["state"]
        refusal = problems.of_exception(error)
        if isinstance(refusal, InternalError) and refusal is not error:
            _log.error(Event.UNEXPECTED_ERROR, error=repr(error), exc_info=error)
        path: str = scope["path"]
        if isinstance(refusal, MethodNotAllowed):
            refusal.members["allowed"] = methods_of(path)
        state["code"] = refusal.code
        base_url = self._settings.error_type_base_url
        return Answer(
            status=refusal.status,
            media_type=problems.MEDIA_TYPE,
            headers=problems.headers(refusal),
            body=problems.body(refusal, base_url, path, state["request_id"]),
        )

    async def _body(self, asked: Operation, headers: Headers, receive: Receive) -> Any:
        if asked.body is None:
            return None
        content_type = headers.get(b"content-type")
        if content_type is not None or not asked.body_optional:
            _require_json(content_type)
        encoding = headers.get(b"content-encoding")
        if encoding is not None and encoding.strip().lower() != b"identity":
            raise UnsupportedMediaType("send the body as it is, without a `Content-Encoding`")
        body = await _read(receive, headers.get(b"content-length"), self._settings.body_bytes_max)
        if not body and asked.body_optional:
            return asked.body()
        if content_type is None:
            _require_json(content_type)
        return decode(body, asked.body)


def _encoded(reply: Reply) -> Answer:
    """Encode the answer of an operation."""
    headers = reply.headers
    if reply.replayed:
        headers = {**headers, "Idempotent-Replayed": "true"}
    return Answer(
        status=reply.status,
        media_type=reply.media_type,
        headers=headers,
        body=b"" if reply.stream is not None else msgspec.json.encode(reply.body),
        stream=reply.stream,
    )


def _idempotency_key(headers: Headers, keyed: Keyed) -> str | None:
    if keyed is Keyed.NEVER:
        return None
    sent = headers.get(b"idempotency-key")
    if sent is None:
        if keyed is Keyed.REQUIRED:
            raise IdempotencyKeyMissing("send an `Idempotency-Key` of your own for each operation")
        return None
    if AGAIN in sent:
        # Joined, as HTTP joins headers, they would be a third key that nobody meant.
        raise IdempotencyKeyInvalid("send one `Idempotency-Key`")
    key = sent.decode("latin-1").strip()
    if key.startswith('"') and (quoted := _QUOTED.match(key)):
        key = re.sub(r"\\(.)", r"\1", quoted[1])
    if not _KEY.match(key):
        raise IdempotencyKeyInvalid("an `Idempotency-Key` is 1 to 255 printable ASCII characters")
    return key


def _require_json(content_type: bytes | None) -> None:
    if content_type == _PLAIN_JSON:
        return
    media_type, _, parameters = (content_type or b"").decode("latin-1").partition(";")
    charset = re.search(r"charset\s*=\s*\"?([^\s;\"]+)", parameters, re.IGNORECASE)
    if media_type.strip().lower() != JSON or (charset and charset[1].lower() != "utf-8"):
        raise UnsupportedMediaType("send the body as `Content-Type: application/json`, in UTF-8")


async def _read(receive: Receive, length: bytes | None, bytes_max: int) -> bytes:
    """Read the body, and no more of it than may be.

    Raises:
        BodyTooLarge: there is more of it.
        MalformedBody: the client went away; nobody will hear of it, but it is no defect of ours.
    """
    if length is not None and length.isdigit() and int(length) > bytes_max:
        raise _too_large(bytes_max)
    body: bytes | bytearray = b""
    while True:  # ends with the body, its limit or the connection
        message = await receive()
        if message["type"] != "http.request":  # the client has hung up
            raise MalformedBody("the connection was closed before the body was complete")
        more = message["more_body"]
        if not body:
            body = bytearray(message["body"]) if more else message["body"]
        else:
            body += message["body"]
        if len(body) > bytes_max:
            raise _too_large(bytes_max)
        if not more:
            return bytes(body)


def _too_large(bytes_max: int) -> BodyTooLarge:
    return BodyTooLarge(f"a body has at most {bytes_max} bytes", bytes_max=bytes_max)


def _path(parameters: Mapping[str, Any]) -> dict[str, str]:
    """Decode the parts of the path; the router sees them as they were sent (`front.py`)."""
    try:
        found = {
            name: unquote_to_bytes(str(value)).decode("utf-8") for name, value in parameters.items()
        }
    except UnicodeDecodeError:
        raise InvalidRequest("the path is not UTF-8") from None
    if any("\x00" in value for value in found.values()):
        raise InvalidRequest("the path must not contain NUL (U+0000)")
    return found
