"""A plain TCP balancer: it knows nothing of HTTP, and takes the next backend that takes a connection.

Used by the tests of processes that are restarted behind one. It runs in the test's event loop. It does
not look at health, and never sends anything twice.
"""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

_CHUNK_BYTES = 65_536


class Balancer:
    """Carries bytes; `url` is where it listens. Make one with `balanced`."""

    def __init__(self, ports: Sequence[int]) -> None:
        self._ports = list(ports)
        self._links: set[asyncio.Task[None]] = set()
        self._turn = 0
        self.url = ""
        self.refused = 0
        """How often a backend did not take a connection."""

    def lead_to(self, ports: Sequence[int]) -> None:
        """Take these backends from now on, for connections that are not made yet."""
        self._ports = list(ports)

    async def listen(self) -> asyncio.Server:
        """Begin to take connections on a free port."""
        listener = await asyncio.start_server(self._carry, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{listener.sockets[0].getsockname()[1]}"
        return listener

    async def hang_up(self) -> None:
        """Lose every connection."""
        for link in self._links:
            link.cancel()
        await asyncio.gather(*self._links, return_exceptions=True)

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._links.add(task)
        try:
            server_reader, server_writer = await self._backend()
            try:
                async with asyncio.TaskGroup() as group:
                    group.create_task(_pass_on(reader, server_writer))
                    group.create_task(_pass_on(server_reader, writer))
            finally:
                server_writer.close()
        except (asyncio.CancelledError, ExceptionGroup, OSError):
            return  # one of the sides has reset the connection, or the test is over
        finally:
            writer.close()
            self._links.discard(task)

    async def _backend(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        self._turn = (self._turn + 1) % len(self._ports)
        for port in self._ports[self._turn :] + self._ports[: self._turn]:
            try:
                return await asyncio.open_connection("127.0.0.1", port)
            except OSError:
                self.refused += 1
        raise ConnectionRefusedError("no backend takes a connection")


async def _pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Carry bytes until one side has ended; then the other one is told so."""
    while data := await reader.read(_CHUNK_BYTES):
        writer.write(data)
        await writer.drain()
    if writer.can_write_eof():
        writer.write_eof()


@asynccontextmanager
async def balanced(ports: Sequence[int]) -> AsyncIterator[Balancer]:
    """Run a balancer before backends on these ports."""
    balancer = Balancer(ports)
    listener = await balancer.listen()
    try:
        yield balancer
    finally:
        listener.close()
        await balancer.hang_up()
