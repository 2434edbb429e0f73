"""In front of the framework: what happens around every request, and the lean path of the busiest.

The outermost layer of the application, made by `app.py`. Every request gets its id, its trace, its log
line and its metrics here, whatever becomes of it; plain ASGI, so that unknown paths and defects do, too.

The lean path: a framework's routing, requests and responses cost more than a payment does. So an operation
that is asked most of all, at a path without parameters, is found here by that path and run by the same
`Edge` that the framework's handler of the same operation calls. The handler stays: it is the reference,
and one suite of tests holds both to the same answers, byte for byte.
"""

import re
from collections.abc import Iterable
from time import perf_counter
from typing import Any

from litestar.enums import HttpMethod, ScopeType
from litestar.types import ASGIApp, HTTPScope, Message, Receive, Scope, Send
from structlog.contextvars import bind_contextvars
from uuid_utils import uuid7

from picopay_api.http.edge import Answer, Edge
from picopay_api.http.headers import Headers, by_name
from picopay_api.http.operations import VERSION, Operation
from picopay_api.logs import Event, debugging, get_logger
from picopay_api.metrics import HTTP_REQUEST_SECONDS, HTTP_REQUESTS, child

UNMATCHED = "unmatched"
"""The route of requests for paths that do not exist, so that clients cannot invent label values."""

_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
_SANE_ID = re.compile(rb"[A-Za-z0-9._\-]{1,128}\Z")
# Versions later than 00 may go on behind another hyphen; ff is none (W3C Trace Context).
_TRACEPARENT = re.compile(
    rb"(?!ff)[0-9a-f]{2}-(?!0{32})([0-9a-f]{32})-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}(-.*)?\Z"
)
_VERSION_HEADER = (b"picopay-version", VERSION.encode())

_log = get_logger(__name__)


class Front:
    """Wraps the framework's ASGI application; `lean` are the operations that do without it."""

    def __init__(self, framework: ASGIApp, edge: Edge, lean: Iterable[Operation]) -> None:
        self._framework = framework
        self._edge = edge
        self._lean: dict[tuple[str, str], Operation] = {
            (operation.method, operation.path): operation for operation in lean
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection's request; what is not HTTP (a WebSocket) is left to the framework."""
        if scope["type"] != ScopeType.HTTP:
            await self._framework(scope, receive, send)
            return
        began_s = perf_counter()
        headers = by_name(scope["headers"])
        request_id = _identify(headers)
        state: dict[str, Any] = scope["state"]
        state["request_id"] = request_id
        state["headers"] = headers
        state["answered_with"] = [(b"request-id", request_id.encode()), _VERSION_HEADER]
        # For every line that is logged of it. Each request is a task of its own: nothing to undo.
        bind_contextvars(request_id=request_id)
        if b"traceparent" in headers:
            _bind_trace(headers[b"traceparent"])
        # References may hold slashes: the router must see them as they were escaped.
        path = scope["path"] = scope["raw_path"].decode("latin-1")
        method: str = scope["method"]
        state["status"] = 500
        operation = self._lean.get((method, path))
        try:
            if operation is not None:
                await self._answer(operation, scope, receive, send)
            else:
                await self._hand_on(scope, receive, send)
        finally:
            _note(method, state, perf_counter() - began_s)

    async def _answer(
        self, operation: Operation, scope: HTTPScope, receive: Receive, send: Send
    ) -> None:
        state = scope["state"]
        state["route"] = operation.path
        try:
            answer = await self._edge.answer(operation, scope, receive)
        except Exception as error:  # noqa: BLE001  # whatever it is, there is an answer to it
            answer = self._edge.refuse(error, scope)
        state["status"] = answer.status
        headers = [*_headers_of(answer), *state["answered_with"]]
        await send({"type": "http.response.start", "status": answer.status, "headers": headers})
        await send({"type": "http.response.body", "body": answer.body, "more_body": False})

    async def _hand_on(self, scope: HTTPScope, receive: Receive, send: Send) -> None:
        state = scope["state"]

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                state["status"] = message["status"]
                message["headers"] = [*message["headers"], *state["answered_with"]]
            await send(message)

        asked = scope
        if scope["method"] == HttpMethod.HEAD:
            # As GET is answered; the server leaves the body out.
            asked = scope.copy()
            asked["method"] = HttpMethod.GET
        await self._framework(asked, receive, send_with_headers)


def _headers_of(answer: Answer) -> Iterable[tuple[bytes, bytes]]:
    yield b"content-type", answer.media_type.encode()
    yield b"content-length", b"%d" % len(answer.body)
    for name, value in answer.headers.items():
        yield name.lower().encode(), value.encode("latin-1")


def _note(method: str, state: dict[str, Any], seconds: float) -> None:
    """Count a request and log it."""
    known = method if method in _METHODS else "other"
    route, status = state.get("route", UNMATCHED), state["status"]
    child(HTTP_REQUESTS, route, known, status).inc()
    child(HTTP_REQUEST_SECONDS, route).observe(seconds)
    if debugging():
        _log.debug(
            Event.REQUEST,
            method=known,
            route=route,
            status=status,
            code=state.get("code"),
            ledger=state.get("ledger"),
            duration_ms=round(seconds * 1000, 3),
        )


def _identify(headers: Headers) -> str:
    """Return the id of a request: the client's where it is sane."""
    asked = headers.get(b"request-id")
    if asked is not None and _SANE_ID.match(asked):
        return asked.decode()
    return f"req_{uuid7().hex}"


def _bind_trace(parent: bytes) -> None:
    """Name the trace that a request belongs to on every line that is logged of it."""
    found = _TRACEPARENT.match(parent)
    if found is not None:
        bind_contextvars(trace_id=found[1].decode())
