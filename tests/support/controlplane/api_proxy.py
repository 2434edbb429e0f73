"""An HTTP proxy before the API server: it keeps what was asked, and is at fault when it is told to be.

Used by the tests of the operator under faults. It listens on loopback without TLS, and adds the
administrator's token where a request brings none. It runs in the test's event loop.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any, NamedTuple

import aiohttp
from aiohttp import web
from kubernetes.aio.client import Configuration
from multidict import CIMultiDict

from support.controlplane.servers import ControlPlane

_OF_THE_CONNECTION = ("Connection", "Host", "Keep-Alive", "Transfer-Encoding")
_SHUTDOWN_S = 0.1


class Asked(NamedTuple):
    """A request."""

    method: str
    path: str
    query: Mapping[str, str]

    @property
    def watches(self) -> bool:
        """Tell whether it is for events to come."""
        return "watch" in self.query

    @property
    def writes(self) -> bool:
        """Tell whether it is to change anything."""
        return self.method != "GET"

    @property
    def is_of_election(self) -> bool:
        """Tell whether it is about who leads."""
        return "/leases" in self.path and not self.watches


class Answered(NamedTuple):
    """A request, and the status of its answer."""

    asked: Asked
    status: int

    @property
    def changes(self) -> bool:
        """Tell whether it has changed anything."""
        return self.asked.writes and self.status < web.HTTPBadRequest.status_code


class Refuses(NamedTuple):
    """The API server says no."""

    status: int
    retry_after_s: int | None = None


class Swallows(NamedTuple):
    """Nothing comes back: the connection stays open until the proxy is healed, and is cut then."""


class Cuts(NamedTuple):
    """The connection ends without an answer."""


class Expires(NamedTuple):
    """A watch begins, and is told that what it wants to begin with is forgotten."""


class Answers(NamedTuple):
    """The proxy answers itself, in the place of a node that runs pods, for example."""

    body: bytes
    content_type: str = "text/plain"


type Fault = Refuses | Swallows | Cuts | Expires | Answers


class ApiProxy:
    """Carries requests to the API server. Make one with `proxied_api`."""

    def __init__(self, plane: ControlPlane) -> None:
        self._plane = plane
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(ssl=plane.context(), limit=0),
            auto_decompress=False,
            timeout=aiohttp.ClientTimeout(),
        )
        self._runner: web.AppRunner | None = None
        self._port = 0
        self._open: list[tuple[Asked, web.Request]] = []
        self._healed = asyncio.Event()
        self.fault: Callable[[Asked], Fault | None] = lambda _: None
        """Asked for each new request."""
        self.last: Callable[[Answered], bool] = lambda _: False
        """Asked after each answer: from that one on, which is not given, nothing is carried any more."""
        self.ended = asyncio.Event()
        """Whether that was so."""
        self.answered: list[Answered] = []

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self._port}"

    def configuration(self, token: str = "") -> Configuration:
        """Return what an operator needs to know, to go through the proxy."""
        made = Configuration(host=self.url)
        if token:
            made.api_key["BearerToken"] = f"Bearer {token}"
        return made

    def refused(self, status: int) -> list[str]:
        """Return what was answered with a status, as "GET /path"."""
        return [
            f"{one.asked.method} {one.asked.path}" for one in self.answered if one.status == status
        ]

    def cut(self, concerns: Callable[[Asked], bool] = lambda _: True) -> int:
        """Cut the connections of requests that are being answered; return how many they were."""
        chosen = [request for asked, request in self._open if concerns(asked)]
        for request in chosen:
            _cut(request)
        return len(chosen)

    def heal(self) -> None:
        """Be without fault from now on; what was swallowed stays lost, and so do those connections."""
        self.fault = lambda _: None
        self._healed.set()
        self._healed = asyncio.Event()

    async def start(self) -> None:
        """Listen."""
        application = web.Application(client_max_size=0)
        application.router.add_route("*", "/{path:.*}", self._carry)
        self._runner = web.AppRunner(
            application,
            access_log=None,
            handler_cancellation=True,
            shutdown_timeout=_SHUTDOWN_S,
            auto_decompress=False,
        )
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        self._port = self._runner.addresses[0][1]

    async def close(self) -> None:
        """Stop listening, and cut all connections."""
        self._healed.set()
        self.cut()
        if self._runner:
            await self._runner.cleanup()
        await self._session.close()

    async def _carry(self, request: web.Request) -> web.StreamResponse:
        asked = Asked(request.method, request.path, dict(request.query))
        match Cuts() if self.ended.is_set() else self.fault(asked):
            case Refuses(status, retry_after_s):
                self.answered.append(Answered(asked, status))
                return _refusal(status, retry_after_s)
            case Answers(body, content_type):
                return web.Response(body=body, content_type=content_type)
            case Expires():
                return web.json_response({"type": "ERROR", "object": _told(410)})
            case Swallows():
                await self._healed.wait()
                return _cut(request)
            case Cuts():
                return _cut(request)
        being_answered = (asked, request)
        self._open.append(being_answered)
        try:
            return await self._pass_on(request, asked)
        except (aiohttp.ClientError, ConnectionError):  # either side has gone
            return _cut(request)
        finally:
            self._open.remove(being_answered)

    async def _pass_on(self, request: web.Request, asked: Asked) -> web.StreamResponse:
        headers = _carried(request.headers)
        headers.setdefault("Authorization", f"Bearer {self._plane.admin_token}")
        target = f"{self._plane.url}{request.raw_path}"
        body = await request.read() or None
        async with self._session.request(
            request.method, target, data=body, headers=headers
        ) as answer:
            answered = Answered(asked, answer.status)
            self.answered.append(answered)
            if self.last(answered):
                self.ended.set()
                self.cut()
                return _cut(request)
            response = web.StreamResponse(status=answer.status, headers=_carried(answer.headers))
            await response.prepare(request)
            async for chunk in answer.content.iter_any():
                await response.write(chunk)
            await response.write_eof()
            return response


@asynccontextmanager
async def proxied_api(plane: ControlPlane) -> AsyncIterator[ApiProxy]:
    """Run a proxy before a control plane until the end of the block."""
    proxy = ApiProxy(plane)
    await proxy.start()
    try:
        yield proxy
    finally:
        await proxy.close()


def _carried(headers: Mapping[str, str]) -> CIMultiDict[str]:
    carried = CIMultiDict(headers)
    for name in _OF_THE_CONNECTION:
        carried.popall(name, None)
    return carried


def _cut(request: web.Request) -> web.Response:
    if request.transport is not None:
        request.transport.abort()
    return web.Response()  # nobody is there any more to have it


def _refusal(status: int, retry_after_s: int | None) -> web.Response:
    headers = {} if retry_after_s is None else {"Retry-After": str(retry_after_s)}
    return web.json_response(_told(status), status=status, headers=headers)


def _told(status: int) -> dict[str, Any]:
    return {
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": {},
        "status": "Failure",
        "message": f"the test says {status}",
        "code": status,
    }
