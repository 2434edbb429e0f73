"""Several `picopay serve` on one database, each a process on a port of its own, as behind a load balancer.

Used by the tests of processes that share a database. Whatever happens, no process is left behind.
"""

import asyncio
import json
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import httpx

from picopay_api.database_url import DatabaseUrl
from picopay_api.engine.engine import Engine
from picopay_api.engine.keys import ADMIN, new_secret
from picopay_api.settings import Settings
from support.api import as_key
from support.installation import STOP_TIMEOUT_S, environment, kill, tree
from support.waiting import PROMPT_S, eventually

_CONNECTIONS = 40
_PATIENCE = {"PICOPAY_REQUEST_TIMEOUT_MS": "60000"}  # a busy machine is no reason for a 503


class Member:
    """One process; `client` asks it as an administrator of the ledger that all of them serve."""

    def __init__(self, process: "subprocess.Popen[bytes]", client: httpx.AsyncClient) -> None:
        self.process = process
        self.client = client

    async def post(self, path: str, body: Any, key: str) -> httpx.Response:
        """Post JSON with an idempotency key."""
        return await self.client.post(path, json=body, headers={"Idempotency-Key": key})

    async def ready(self) -> bool:
        """Tell whether it says that it can serve; fail when it has ended."""
        assert self.process.poll() is None
        try:
            return (await self.client.get("/readyz")).is_success
        except httpx.TransportError:
            return False

    def kill(self) -> None:
        """End it as `kill -9` does."""
        kill(tree(self.process.pid))

    async def stop(self) -> int:
        """Ask it to end; return its exit code."""
        self.process.send_signal(signal.SIGTERM)
        return await asyncio.to_thread(self.process.wait, STOP_TIMEOUT_S)


@asynccontextmanager
async def fleet(url: DatabaseUrl, directory: Path, count: int) -> AsyncIterator[list[Member]]:
    """Start processes on a ledger of their own, wait until all are ready, and end those left."""
    secret = new_secret()
    async with Engine.open(Settings(database_url=url)) as engine:
        ledger = await engine.ledgers.create("fleet", {})
        await engine.keys.create(ledger.id, "administrator", [ADMIN], secret=secret)
    async with AsyncExitStack() as stack:
        members = [
            await stack.enter_async_context(_member(url, directory / f"{number}.log", secret))
            for number in range(count)
        ]
        for member in members:
            await eventually(member.ready)
        yield members


@asynccontextmanager
async def _member(url: DatabaseUrl, log: Path, secret: str) -> AsyncIterator[Member]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with _running(url, port, log) as process:
        async with httpx.AsyncClient(
            base_url=f"http://127.0.0.1:{port}",
            headers=as_key(secret),
            timeout=httpx.Timeout(PROMPT_S, pool=None),
            limits=httpx.Limits(max_connections=_CONNECTIONS),
            trust_env=False,
        ) as client:
            yield Member(process, client)


@contextmanager
def _running(url: DatabaseUrl, port: int, log: Path) -> "Iterator[subprocess.Popen[bytes]]":
    """Run a server until the end of the block; it must have logged no error by then."""
    arguments = ("serve", "--host", "127.0.0.1", "--port", str(port))
    with log.open("wb") as out:
        process = subprocess.Popen(
            [sys.executable, "-m", "picopay_api", *arguments],
            env=environment() | {"DATABASE_URL": url.text, **_PATIENCE},
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.STDOUT,
        )
    try:
        yield process
    finally:
        kill(tree(process.pid))
        process.wait(STOP_TIMEOUT_S)
    # The last line of a process that was killed may be half of one.
    lines = log.read_text(encoding="utf-8").rpartition("\n")[0].splitlines()
    assert [line for line in lines if json.loads(line)["level"] == "error"] == []
