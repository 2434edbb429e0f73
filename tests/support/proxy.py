"""A TCP proxy before a database, which loses bytes, sessions or the whole server when it is told to.

Used by the tests of what becomes of commands on a bad network. It runs in the test's event loop.
"""

import asyncio
import math
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import msgspec

from picopay_api.database_url import DatabaseUrl

_CHUNK_BYTES = 65_536

Ration = tuple[float, float]
"""How many bytes of questions and of answers a connection still carries before it is cut."""

UNBOUND: Ration = (math.inf, math.inf)


class Proxy:
    """Carries bytes both ways; `url` leads through it. Make one with `proxied`."""

    def __init__(self, target: DatabaseUrl) -> None:
        self._target = target
        self._swallows = False
        self._listener: asyncio.Server | None = None
        self._port = 0
        self._links: dict[asyncio.Task[None], _Link] = {}
        self.ration: Callable[[], Ration] = lambda: UNBOUND
        """Asked for each new connection."""
        self.delay_s = 0.0
        """How long bytes take, each way."""
        self.rationed = 0
        """How many connections were cut because their ration was used up."""

    @property
    def url(self) -> DatabaseUrl:
        """The database as it is reached through the proxy."""
        return msgspec.structs.replace(self._target, hosts=("127.0.0.1",), ports=(self._port,))

    def lead_to(self, target: DatabaseUrl) -> None:
        """Carry new connections to another server."""
        self._target = target

    def cut_after(self, ration: Ration) -> None:
        """Cut each connection there is once it has carried so much more."""
        for link in self._links.values():
            link.questions_left, link.answers_left = ration

    def swallow(self) -> None:
        """Be a black hole: connections stay open and new ones are taken, but nothing comes through."""
        self._swallows = True
        for link in self._links.values():
            link.swallows = True

    def heal(self) -> None:
        """Carry new connections again; what was swallowed stays lost, and so do those connections."""
        self._swallows = False

    async def admit(self) -> None:
        """Take connections, again at the same port."""
        if self._listener is None:
            self._listener = await asyncio.start_server(self._carry, "127.0.0.1", self._port)
            self._port = self._listener.sockets[0].getsockname()[1]

    def linger(self) -> None:
        """Keep the connections there are when the server hangs up, as if that had not arrived yet."""
        for link in self._links.values():
            link.lingers = True

    async def hung_up(self) -> None:
        """Wait until the server has hung up on a lingering connection, its last words passed on."""
        for link in list(self._links.values()):
            await link.hung_up.wait()

    def mute(self) -> None:
        """Let no more answers through on the connections there are; what is asked arrives."""
        for link in self._links.values():
            link.mute = True

    async def cut(self) -> None:
        """Lose every connection; new ones are taken."""
        tasks = list(self._links)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def refuse(self) -> None:
        """Lose every connection and take no new one, as if the server were away."""
        if self._listener is not None:
            self._listener.close()
            self._listener = None
        await self.cut()

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        link = self._links[task] = _Link(self)
        link.questions_left, link.answers_left = self.ration()
        link.swallows = self._swallows
        try:
            host, port = self._target.hosts[0], self._target.ports[0]
            server_reader, server_writer = await asyncio.open_connection(host, port)
            try:
                async with asyncio.TaskGroup() as group:
                    group.create_task(link.pass_on(reader, server_writer))
                    group.create_task(link.pass_on(server_reader, writer, answers=True))
            except* _UsedUp:
                self.rationed += 1
            finally:
                server_writer.transport.abort()
        except (asyncio.CancelledError, ExceptionGroup, OSError):
            return  # cut, or one of the sides has hung up
        finally:
            writer.transport.abort()
            del self._links[task]


class _UsedUp(ConnectionError):
    """A connection has carried what it was allowed to."""


class _Link:
    """One connection through the proxy."""

    def __init__(self, proxy: Proxy) -> None:
        self._proxy = proxy
        self.mute = False
        self.lingers = False
        self.swallows = False
        self.questions_left, self.answers_left = UNBOUND
        self.hung_up = asyncio.Event()

    async def pass_on(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, answers: bool = False
    ) -> None:
        """Carry bytes until one side hangs up; then the other side hangs up, too."""
        while data := await reader.read(_CHUNK_BYTES):
            if self._proxy.delay_s:
                await asyncio.sleep(self._proxy.delay_s)
            if self.swallows or (answers and self.mute):
                continue
            allowed = self._take(len(data), answers=answers)
            writer.write(data[:allowed])
            await writer.drain()
            if allowed < len(data):
                raise _UsedUp
        if answers and self.lingers:
            self.hung_up.set()
            await asyncio.Event().wait()  # until it is cut, or the client asks
        raise ConnectionError("one side has hung up")

    def _take(self, wanted: int, *, answers: bool) -> int:
        """Use the ration up; return how many bytes may pass."""
        if answers:
            allowed = min(wanted, self.answers_left)
            self.answers_left -= allowed
        else:
            allowed = min(wanted, self.questions_left)
            self.questions_left -= allowed
        return int(allowed)


@asynccontextmanager
async def proxied(target: DatabaseUrl) -> AsyncIterator[Proxy]:
    """Run a proxy that takes connections; lose them in the end."""
    proxy = Proxy(target)
    await proxy.admit()
    try:
        yield proxy
    finally:
        await proxy.refuse()
