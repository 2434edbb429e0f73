"""Several `picopay serve` on one database, each a process on a port of its own, as behind a load balancer.

Used by the tests of processes that share a database. Whatever happens, no process is left behind.
"""

import asyncio
import json
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator, Sequence
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
# A busy machine is no reason for a 503.
_PATIENCE = {"PICOPAY_REQUEST_TIMEOUT_MS": "60000", "PICOPAY_LOCK_TIMEOUT_MS": "10000"}


class Member:
    """One process; `client` asks it as an administrator of the ledger that all of them serve."""

    def __init__(self, program: "Program", port: int, client: httpx.AsyncClient) -> None:
        self._program = program
        self.port = port
        self.client = client

    @property
    def process(self) -> "subprocess.Popen[bytes]":
        """The process as it was started last."""
        return self._program.process

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
        self._program.kill()

    async def stop(self) -> int:
        """Ask it to end; return its exit code."""
        return await self._program.stop()

    async def start_again(self) -> None:
        """Start it at the same port after it has ended; wait until it is ready."""
        self._program.start()
        await eventually(self.ready)


class Program:
    """A `picopay` command that stays, which a test may end and start again. Make one with `running`."""

    def __init__(
        self, url: DatabaseUrl, arguments: Sequence[str], variables: dict[str, str], log: Path
    ) -> None:
        self._environment = environment() | {"DATABASE_URL": url.text} | _PATIENCE | variables
        self._arguments = arguments
        self._log = log
        self.start()

    def start(self) -> None:
        """Start it; what it says goes behind what it has said before."""
        with self._log.open("ab") as out:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "picopay_api", *self._arguments],
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
            )

    def kill(self) -> None:
        """End it as `kill -9` does."""
        kill(tree(self.process.pid))
        self.process.wait(STOP_TIMEOUT_S)

    async def stop(self) -> int:
        """Ask it to end; return its exit code."""
        self.process.send_signal(signal.SIGTERM)
        return await asyncio.to_thread(self.process.wait, STOP_TIMEOUT_S)

    def errors(self) -> list[str]:
        """Return the errors that it has logged; one that was killed may have left half a line."""
        lines = self._log.read_text(encoding="utf-8").splitlines()
        whole = [line for line in lines if line.startswith("{") and line.endswith("}")]
        return [line for line in whole if json.loads(line)["level"] == "error"]


@asynccontextmanager
async def fleet(
    url: DatabaseUrl, directory: Path, count: int, *options: str, **variables: str
) -> AsyncIterator[list[Member]]:
    """Start processes on a ledger of their own, wait until all are ready, and end those left."""
    secret = new_secret()
    async with Engine.open(Settings(database_url=url)) as engine:
        ledger = await engine.ledgers.create("fleet", {})
        await engine.keys.create(ledger.id, "administrator", [ADMIN], secret=secret)
    async with AsyncExitStack() as stack:
        members = [
            await stack.enter_async_context(
                _member(url, directory / f"{number}.log", secret, options, variables)
            )
            for number in range(count)
        ]
        for member in members:
            await eventually(member.ready)
        yield members


@asynccontextmanager
async def _member(
    url: DatabaseUrl,
    log: Path,
    secret: str,
    options: Sequence[str],
    variables: dict[str, str],
) -> AsyncIterator[Member]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    address = ("--host", "127.0.0.1", "--port", str(port))
    with running(url, log, "serve", *address, *options, **variables) as program:
        async with httpx.AsyncClient(
            base_url=f"http://127.0.0.1:{port}",
            headers=as_key(secret),
            timeout=httpx.Timeout(PROMPT_S, pool=None),
            limits=httpx.Limits(max_connections=_CONNECTIONS),
            trust_env=False,
        ) as client:
            yield Member(program, port, client)


@contextmanager
def running(url: DatabaseUrl, log: Path, *arguments: str, **variables: str) -> Iterator[Program]:
    """Run a command until the end of the block; it must have logged no error by then."""
    program = Program(url, arguments, variables, log)
    try:
        yield program
    finally:
        program.kill()
    assert program.errors() == []
