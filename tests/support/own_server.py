"""A PostgreSQL server that a test may kill, restart or have a standby of, with durable settings.

Used by the tests of faults. What takes a while runs in a thread, so that clients in the test's event loop
go on; it is one thread for the server's whole life, because the server ends with the one that started it.
"""

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from pathlib import Path

from picopay_api.embedded import EmbeddedPostgres
from picopay_api.store import migrate

SETTINGS = {
    "wal_level": "replica",
    "max_wal_senders": "4",
    "shared_buffers": "32MB",
    "max_connections": "50",  # a standby needs as many: it is started with the same settings
}


class OwnServer:
    """A running server with a migrated database. Make one with `own_server`."""

    def __init__(self, directory: Path, thread: ThreadPoolExecutor) -> None:
        self.postgres = EmbeddedPostgres(directory, settings=SETTINGS)
        self._thread = thread

    async def run[T](self, work: Callable[[], T]) -> T:
        """Do something in the server's thread."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)

    async def end(self, number: signal.Signals) -> None:
        """Send the postmaster a signal that ends the server, and wait until it has."""
        os.kill(self.postgres.pid, number)
        while self.postgres.is_running():  # noqa: ASYNC110  # the time-out of the test is the bound
            await asyncio.sleep(0.02)

    async def restart(self) -> None:
        """Start it again."""
        await self.run(self.postgres.restart)


@asynccontextmanager
async def own_server(directory: Path) -> AsyncIterator[OwnServer]:
    """Run a server until the end of the block."""
    with ThreadPoolExecutor(1) as thread:
        server = OwnServer(directory, thread)
        await server.run(server.postgres.start)
        try:
            await migrate.upgrade_async(server.postgres.owner_url)
            yield server
        finally:
            await server.run(server.postgres.stop)
