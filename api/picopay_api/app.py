"""The web application: the only wiring of routes, errors and life span.

`create_app` is called once per process by `cli/serving.py` and by tests. The engine is opened when the
server starts and drained when it stops.
"""

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from typing import Any

from litestar import Litestar, Request, route
from litestar.handlers import HTTPRouteHandler
from litestar.response import Response

from picopay_api import __version__
from picopay_api.engine.engine import Engine
from picopay_api.errors import InternalError, MethodNotAllowed
from picopay_api.http import documentation, problems, system
from picopay_api.http.middleware import Middleware
from picopay_api.http.operations import Edge, Operation
from picopay_api.http.resources import OPERATIONS
from picopay_api.logs import Event, get_logger
from picopay_api.settings import Settings

_log = get_logger(__name__)


def create_app(settings: Settings) -> Litestar:
    """Make the application; it opens the engine when it is started."""

    @asynccontextmanager
    async def lifespan(app: Litestar) -> AsyncIterator[None]:
        async with Engine.open(settings) as engine:
            app.state.engine = engine
            app.state.edge = Edge(engine, settings)
            _log.info(Event.SERVER_STARTED, version=__version__)
            try:
                yield
            finally:
                _log.info(Event.SERVER_STOPPING)
                engine.stop_accepting()
                await engine.drain()
        _log.info(Event.SERVER_STOPPED)

    documents = documentation.documents() if settings.docs_enabled else {}
    app = Litestar(
        route_handlers=[*_routes(), *system.routes(documents)],
        lifespan=[lifespan],
        exception_handlers={Exception: _refuse(settings)},
        openapi_config=None,
        logging_config=None,
        request_max_body_size=None,  # operations.py counts for itself, after it knows who asks
    )
    app.asgi_handler = Middleware(app.asgi_handler)
    return app


def _routes() -> Iterator[HTTPRouteHandler]:
    """Make one route for each path: the framework then knows all methods that it has."""
    by_path: dict[str, dict[str, Operation]] = {}
    for operation in OPERATIONS:
        by_path.setdefault(operation.path, {})[operation.method] = operation
    return (_route(path, by_method) for path, by_method in by_path.items())


def _route(path: str, by_method: dict[str, Operation]) -> HTTPRouteHandler:
    async def handle(request: Request[Any, Any, Any]) -> Response[Any]:
        request.scope["state"]["route"] = path
        edge: Edge = request.app.state.edge
        return await edge.run(by_method[request.method], request)

    methods = [operation.method for operation in by_method.values()]
    return route([path.replace("}", ":str}")], http_method=methods)(handle)


def _refuse(
    settings: Settings,
) -> Callable[[Request[Any, Any, Any], Exception], Response[bytes]]:
    base_url = settings.error_type_base_url

    def refuse(request: Request[Any, Any, Any], error: Exception) -> Response[bytes]:
        state = request.scope["state"]
        refusal = problems.of_exception(error)
        if isinstance(refusal, InternalError) and refusal is not error:
            _log.error(Event.UNEXPECTED_ERROR, error=repr(error), exc_info=error)
        if isinstance(refusal, MethodNotAllowed):
            refusal.members["allowed"] = _methods_of(request)
        state["code"] = refusal.code
        return Response(
            problems.body(refusal, base_url, request.scope["path"], state["request_id"]),
            status_code=refusal.status,
            media_type=problems.MEDIA_TYPE,
            headers=problems.headers(refusal),
        )

    return refuse


def _methods_of(request: Request[Any, Any, Any]) -> list[str]:
    """Return the methods that a path has."""
    segments = request.scope["path"].rstrip("/").split("/")
    found = {
        operation.method
        for operation in OPERATIONS
        if len(operation.path.split("/")) == len(segments)
        and all(
            asked == known or known.startswith("{")
            for asked, known in zip(segments, operation.path.split("/"), strict=True)
        )
    }
    return sorted(found or {"GET"})
