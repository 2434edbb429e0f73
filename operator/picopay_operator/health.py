"""The operator's own HTTP: `/livez`, `/readyz` and `/metrics`.

Alive means that watches move, not that a socket answers: the leader has seen its own Lease change through a
watch of kopf's, a standby has had an answer about it.
"""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from picopay_operator.errors import OperatorError

_QUIET_S = 90.0
"""Without any sign for so long, the process is started again."""

type Age = Callable[[], float]


@asynccontextmanager
async def serving(port: int, age_s: Age, refresh: Callable[[], None]) -> AsyncIterator[int]:
    """Answer until the end of the block; yield the port. `age_s` is how long ago the last sign was."""

    async def livez(_: web.Request) -> web.Response:
        quiet_s = age_s()
        if quiet_s > _QUIET_S:
            return web.Response(status=503, text=f"nothing was heard for {quiet_s:.0f} s\n")
        return web.Response(text="ok\n")

    async def readyz(_: web.Request) -> web.Response:
        return web.Response(text="ok\n")

    async def metrics(_: web.Request) -> web.Response:
        refresh()
        return web.Response(body=generate_latest(), headers={"Content-Type": CONTENT_TYPE_LATEST})

    application = web.Application()
    application.add_routes(
        [web.get("/livez", livez), web.get("/readyz", readyz), web.get("/metrics", metrics)]
    )
    runner = web.AppRunner(application, access_log=None)
    await runner.setup()
    try:
        site = web.TCPSite(runner, port=port)
        try:
            await site.start()
        except OSError as error:
            raise OperatorError(f"cannot listen on port {port}: {error.strerror}") from error
        yield int(runner.addresses[0][1])
    finally:
        await runner.cleanup()
