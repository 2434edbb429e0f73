"""What is open to everybody on the network: probes, metrics and the documents."""

from typing import Any

import msgspec
from litestar import Request, get
from litestar.handlers import HTTPRouteHandler
from litestar.response import Response

from picopay_api import metrics
from picopay_api.engine.engine import Engine
from picopay_api.http.answers import Status

_JSON = "application/json"


def routes(documents: dict[str, tuple[str, bytes]]) -> list[HTTPRouteHandler]:
    """Make the routes; `documents` are fixed answers by path: media type and content."""
    return [
        get(["/health"], sync_to_thread=False)(health),
        get(["/livez"], sync_to_thread=False)(livez),
        get(["/readyz"], sync_to_thread=False)(readyz),
        get(["/metrics"], sync_to_thread=True)(metrics_page),
        *(_fixed(path, *document) for path, document in documents.items()),
    ]


def health(request: Request[Any, Any, Any]) -> Response[bytes]:
    """Say whether the process can serve, in the words that load balancers are set up for."""
    return _whether_ready(request, "/health", "healthy", "unhealthy")


def livez(request: Request[Any, Any, Any]) -> Response[bytes]:
    """Say that the process is alive; does nothing else, so that it stays true without a database."""
    request.scope["state"]["route"] = "/livez"
    return _status(Status(status="alive"))


def readyz(request: Request[Any, Any, Any]) -> Response[bytes]:
    """Say whether the process can serve: the database answers and its schema fits."""
    return _whether_ready(request, "/readyz", "ready", "not_ready")


def metrics_page(request: Request[Any, Any, Any]) -> Response[bytes]:
    """Show the metrics in Prometheus' text format."""
    request.scope["state"]["route"] = "/metrics"
    content, media_type = metrics.render()
    return Response(content, media_type=media_type)


def _whether_ready(
    request: Request[Any, Any, Any], route: str, yes: str, no: str
) -> Response[bytes]:
    request.scope["state"]["route"] = route
    engine: Engine = request.app.state.engine
    problem = engine.readiness.problem
    if problem is None:
        return _status(Status(status=yes))
    return _status(Status(status=no, reason=problem), 503)


def _status(status: Status, code: int = 200) -> Response[bytes]:
    return Response(msgspec.json.encode(status), media_type=_JSON, status_code=code)


def _fixed(path: str, media_type: str, content: bytes) -> HTTPRouteHandler:
    def answer(request: Request[Any, Any, Any]) -> Response[bytes]:
        request.scope["state"]["route"] = path
        return Response(content, media_type=media_type)

    return get([path], sync_to_thread=False)(answer)
