"""Payments over HTTP while PostgreSQL itself ends, fails over or has no disk left: none is lost or doubled.

Servers with durable settings, of the tests' own. Outcomes whose answers were lost are found by their keys.
"""

import asyncio
import json
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import asyncpg
import pytest

from picopay_api.database_url import DatabaseUrl
from picopay_api.store import migrate
from support.api import served
from support.installation import environment
from support.own_server import own_server
from support.postgres import CHECKOUT
from support.small_disk import command
from support.standby import following
from support.suffering import answered, counted, paying, shown
from support.waiting import eventually

DEADLINE_MS = 2_000
RETRIES = 'picopay_batch_retries_total{reason="unreachable"}'


async def test_a_server_that_ends_and_comes_back(tmp_path: Path) -> None:
    async with own_server(tmp_path / "primary") as server:
        url = server.postgres.owner_url
        async with (
            served(url, request_timeout_ms=DEADLINE_MS) as api,
            paying(api, url) as load,
        ):
            for number in (signal.SIGINT, signal.SIGKILL):  # fast shutdown, crash
                await server.end(number)
                await load.suffers()
                assert "cannot be reached" in str(await answered(api, "/readyz", 503))
                await server.restart()
                await load.goes_on()
                await answered(api, "/readyz", 200)


async def test_a_failover_to_a_standby(tmp_path: Path) -> None:
    async with (
        own_server(tmp_path / "primary") as server,
        following(server, tmp_path / "standby") as standby,
    ):
        primary = server.postgres.owner_url
        both = primary.replace(
            hosts=primary.hosts * 2,
            ports=primary.ports + standby.url.ports,
            parameters=(*primary.parameters, ("target_session_attrs", "read-write")),
        )
        async with (
            served(both, request_timeout_ms=DEADLINE_MS) as api,
            paying(api, standby.url) as load,
        ):
            # What the standby does not have is not answered, nor found by its key.
            standby.stop()
            await load.suffers("deadline_exceeded")
            standby.go_on()
            await load.goes_on()
            await server.end(signal.SIGKILL)
            await load.suffers()
            await standby.promote()
            await load.goes_on()


class SmallDisk:
    """A server on a small disk, in a process that is told what to do."""

    def __init__(self, process: asyncio.subprocess.Process, urls: list[str]) -> None:
        self._process = process
        self.url, self.superuser_url = map(DatabaseUrl.parse, urls)

    async def tell(self, word: str) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"{word}\n".encode())
        assert await self._process.stdout.readline() == b"done\n"


@asynccontextmanager
async def small_disk(directory: Path) -> AsyncIterator[SmallDisk]:
    process = await asyncio.create_subprocess_exec(
        *command(directory),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        env=environment() | {"PYTHONPATH": f"{CHECKOUT / 'api'}:{CHECKOUT / 'tests'}"},
    )
    assert process.stdin is not None
    assert process.stdout is not None
    line = await process.stdout.readline()
    try:
        if not line:
            pytest.fail(
                "no disk could be filled up: this needs root, or a kernel that lets anybody mount"
                " in a name space of their own (for Docker: --cap-add SYS_ADMIN)"
            )
        yield SmallDisk(process, json.loads(line))
    finally:
        process.stdin.close()
        await process.wait()


async def test_a_disk_that_is_full(tmp_path: Path) -> None:
    async with small_disk(tmp_path / "disk") as disk:
        await migrate.upgrade_async(disk.url)
        superuser = await asyncpg.connect(**disk.superuser_url.connect_arguments())
        async with (
            served(disk.url, request_timeout_ms=DEADLINE_MS) as api,
            paying(api, disk.url) as load,
        ):
            before = await shown(api, RETRIES)
            await disk.tell("fill")
            await load.suffers()
            await counted(api, RETRIES, before)
            # Now the log of transactions finds no room either, and PostgreSQL ends in a panic.
            await eventually(lambda: panicked(superuser))
            await load.suffers()
            await disk.tell("free")
            await load.goes_on()
            await answered(api, "/readyz", 200)
        superuser.terminate()


async def panicked(superuser: "asyncpg.Connection[asyncpg.Record]") -> bool:
    """Ask for another segment of the log; tell whether the server has died of it."""
    try:
        await superuser.execute("SELECT pg_switch_wal()")
        await superuser.execute("SELECT pg_logical_emit_message(true, 'full', repeat('x', 8192))")
    except asyncpg.InsufficientResourcesError:
        return False
    except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError):
        return superuser.is_closed()
    return False
