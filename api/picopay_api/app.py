"""The web application: the only wiring of routes, errors and life span.

`create_app` is called once per process by `cli/serving.py` and by tests. The engine is opened when the
server starts and drained when it stops.
"""

from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

from litestar import Litestar, Request, route
from litestar.handlers import HTTPRouteHandler
from litestar.response import Response, Stream

from picopay_api import __version__
from picopay_api.engine.engine import Engine
from picopay_api.http import documentation, system
from picopay_api.http.edge import Answer, Edge
from picopay_api.http.front import Front
from picopay_api.http.operations import Operation
from picopay_api.http.resources import LEAN, OPERATIONS
from picopay_api.logs import Event, get_logger
from picopay_api.settings import Settings

_log = get_logger(__name__)


def create_app(settings: Settings, *, lean: Sequence[Operation] = LEAN) -> Litestar:
    """Make the application; it opens the engine when it is started.

    `lean` are the operations that are answered in front of the framework.
    """
    edge = Edge(settings)

    @asynccontextmanager
    async def lifespan(app: Litestar) -> AsyncIterator[None]:
        async with Engine.open(settings) as engine:
            app.state.engine = engine
            edge.engine = engine
            engine.stay()
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
        route_handlers=[*_routes(edge), *system.routes(documents)],
        lifespan=[lifespan],
        exception_handlers={Exception: _refuse(edge)},
        openapi_config=None,
        logging_config=None,
        request_max_body_size=None,  # edge.py counts for itself, after it knows who asks
    )
    app.asgi_handler = Front(app.asgi_handler, edge, lean)
    return app


def _routes(edge: Edge) -> Iterator[HTTPRouteHandler]:
    """Make one route for each path: the framework then knows all methods that it has."""
    by_path: dict[str, dict[str, Operation]] = {}
    for operation in OPERATIONS:
        by_path.setdefault(operation.path, {})[operation.method] = operation
    return (_route(path, by_method, edge) for path, by_method in by_path.items())


def _route(path: str, by_method: dict[str, Operation], edge: Edge) -> HTTPRouteHandler:
    async def handle(request: Request[Any, Any, Any]) -> Response[Any]:
        request.scope["state"]["route"] = path
        answer = await edge.answer(by_method[request.method], request.scope, request.receive)
        return _response(answer)

    methods = [operation.method for operation in by_method.values()]
    return route([path.replace("}", ":str}")], http_method=methods)(handle)


def _refuse(edge: Edge) -> Callable[[Request[Any, Any, Any], Exception], Response[Any]]:
    def refuse(request: Request[Any, Any, Any], error: Exception) -> Response[Any]:
        return _response(edge.refuse(error, request.scope))

    return refuse


def _response(answer: Answer) -> Response[Any]:
    if answer.stream is not None:
        return Stream(
            answer.stream,
            status_code=answer.status,
            media_type=answer.media_type,
            headers=answer.headers,
        )
    return Response(
        answer.body,
        status_code=answer.status,
        media_type=answer.media_type,
        headers=answer.headers,
    )
