"""Embedded servers that a test runs in its own process, and short ways to ask them.

Used by the tests of `picopay_api.embedded`, which are plain functions: the server belongs to the thread that
has started it.
"""

import asyncio
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil

from picopay_api.database_url import DatabaseUrl
from picopay_api.embedded import EmbeddedPostgres
from picopay_api.embedded.processes import SystemUser, Workplace
from support.postgres import on_connection

POLL_TIMEOUT_S = 60


@contextmanager
def running(directory: Path, **options: Any) -> Iterator[EmbeddedPostgres]:
    """Run a server until the end of the block."""
    postgres = EmbeddedPostgres(directory, **options)
    postgres.start()
    try:
        yield postgres
    finally:
        postgres.stop()


def poll(condition: Callable[[], bool]) -> None:
    """Ask again and again until a condition holds."""
    deadline = time.monotonic() + POLL_TIMEOUT_S
    while not condition():
        assert time.monotonic() < deadline, "it did not come about"
        time.sleep(0.02)


def query(url: DatabaseUrl, sql: str) -> Any:
    """Read one value."""
    return asyncio.run(on_connection(url, lambda connection: connection.fetchval(sql)))


def run(url: DatabaseUrl, sql: str) -> None:
    """Run statements."""
    asyncio.run(on_connection(url, lambda connection: connection.execute(sql)))


def server_processes(directory: Path) -> list[psutil.Process]:
    """Return every process of the server in a directory."""
    data = (directory / "postgres").resolve()
    return Workplace(data, SystemUser.for_server(data)).leftovers()
