"""Around every request, whatever becomes of it: its id, its trace, its log line and its metrics.

The outermost layer of the application, made by `app.py`; plain ASGI, so that answers to unknown paths
and defects pass through it, too.
"""

import re
from time import perf_counter
from typing import Any

from litestar.enums import HttpMethod, ScopeType
from litestar.types import ASGIApp, Message, Receive, Scope, Send
from structlog.contextvars import bound_contextvars
from uuid_utils import uuid7

from picopay_api.http.operations import VERSION
from picopay_api.logs import Event, get_logger
from picopay_api.metrics import HTTP_REQUEST_SECONDS, HTTP_REQUESTS, child

UNMATCHED = "unmatched"
"""The route of requests for paths that do not exist, so that clients cannot invent label values."""

_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
_SANE_ID = re.compile(rb"[A-Za-z0-9._\-]{1,128}\Z")
# Versions later than 00 may go on behind another hyphen; ff is none (W3C Trace Context).
_TRACEPARENT = re.compile(
    rb"(?!ff)[0-9a-f]{2}-(?!0{32})([0-9a-f]{32})-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}(-.*)?\Z"
)

_log = get_logger(__name__)


class Middleware:
    """Wraps the framework's ASGI application."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection's request; what is not HTTP (a WebSocket) is left to the framework."""
        if scope["type"] != ScopeType.HTTP:
            await self._app(scope, receive, send)
            return
        began_s = perf_counter()
        request_id, trace = _identify(scope["headers"])
        state: dict[str, Any] = scope["state"]
        state["request_id"] = request_id
        state["headers"] = {"Request-Id": request_id, "PicoPay-Version": VERSION}
        if raw_path := scope.get("raw_path"):
            # References may hold slashes: the router must see them as they were escaped.
            scope["path"] = raw_path.partition(b"?")[0].decode("latin-1")
        asked = scope
        if scope["method"] == HttpMethod.HEAD:
            # As GET is answered; the server leaves the body out.
            asked = scope.copy()
            asked["method"] = HttpMethod.GET
        answered = 500

        async def send_with_headers(message: Message) -> None:
            nonlocal answered
            if message["type"] == "http.response.start":
                answered = message["status"]
                message["headers"] = [
                    *message["headers"],
                    *(
                        (name.lower().encode(), value.encode())
                        for name, value in state["headers"].items()
                    ),
                ]
            await send(message)

        with bound_contextvars(request_id=request_id, **trace):
            try:
                await self._app(asked, receive, send_with_headers)
            finally:
                seconds = perf_counter() - began_s
                route = state.get("route", UNMATCHED)
                method = scope["method"] if scope["method"] in _METHODS else "other"
                child(HTTP_REQUESTS, route, method, str(answered)).inc()
                child(HTTP_REQUEST_SECONDS, route).observe(seconds)
                _log.debug(
                    Event.REQUEST,
                    method=method,
                    route=route,
                    status=answered,
                    code=state.get("code"),
                    ledger=state.get("ledger"),
                    duration_ms=round(seconds * 1000, 3),
                )


def _identify(headers: Any) -> tuple[str, dict[str, str]]:
    """Return the id of a request, the client's where it is sane, and its trace, if any."""
    request_id, trace = None, {}
    for name, value in headers:
        if name == b"request-id" and _SANE_ID.match(value):
            request_id = value.decode()
        elif name == b"traceparent" and (found := _TRACEPARENT.match(value)):
            trace["trace_id"] = found[1].decode()
    return request_id or f"req_{uuid7().hex}", trace
