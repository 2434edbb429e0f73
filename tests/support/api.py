"""The web application on a real socket, in the test's own event loop, with keys to ask it with.

Used by the tests of the HTTP edge. The database is the test's own.
"""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import httpx
import msgspec
import uvicorn
from litestar import Litestar

from picopay_api.app import create_app
from picopay_api.cli.connections import Connection
from picopay_api.cli.serving import listen, url_of
from picopay_api.database_url import DatabaseUrl
from picopay_api.engine.engine import Engine
from picopay_api.engine.keys import ADMIN, new_secret
from picopay_api.http.operations import Operation
from picopay_api.http.resources import LEAN
from picopay_api.settings import Settings


class Api:
    """A running server; `client` asks as the administrator of its first ledger.

    `engine` is the test's own, beside the one of the server, which is that of `app`.
    """

    def __init__(
        self, url: str, engine: Engine, client: httpx.AsyncClient, app: Litestar | None = None
    ) -> None:
        self.url = url
        self.engine = engine
        self.client = client
        self.app = app
        self._keys = 0

    async def post(
        self, path: str, body: Any = None, key: str | None = None, **headers: str
    ) -> httpx.Response:
        """Post JSON with an idempotency key: a new one when none is given."""
        self._keys += 1
        headers = {"Idempotency-Key": key or f"test-{self._keys}", **headers}
        return await self.client.post(path, json=body, headers=headers)

    def fresh_key(self) -> str:
        """Return an idempotency key that was not used yet."""
        self._keys += 1
        return f"test-{self._keys}"

    async def account(self, reference: str, funds: int = 0, **fields: Any) -> dict[str, Any]:
        """Make an account in USD, with funds from the world."""
        made = await self.post("/v1/accounts", {"reference": reference, "asset": "USD", **fields})
        assert made.status_code == 201, made.text
        if funds:
            paid = await self.pay("@world", f"@{reference}", funds)
            assert paid.status_code == 201, paid.text
        account: dict[str, Any] = made.json()
        return account

    async def pay(
        self, source: str, destination: str, amount: Any, key: str | None = None
    ) -> httpx.Response:
        """Pay in USD."""
        body = {"source": source, "destination": destination, "amount": amount, "asset": "USD"}
        return await self.post("/v1/payments", body, key)

    async def transact(
        self, *postings: tuple[Any, ...], key: str | None = None, **fields: Any
    ) -> httpx.Response:
        """Book postings (source, destination, amount) in USD; an asset may follow as a fourth."""
        names = ("source", "destination", "amount", "asset")
        shown = [dict(zip(names, (*posting, "USD"), strict=False)) for posting in postings]
        return await self.post("/v1/transactions", {"postings": shown, **fields}, key)

    async def raw(self, request: bytes) -> tuple[int, dict[str, str], bytes]:
        """Send bytes as they are; return the status, the headers by lower-case name and the body."""
        address = httpx.URL(self.url)
        reader, writer = await asyncio.open_connection(address.host, address.port)
        writer.write(request)
        head, _, body = (await asyncio.wait_for(reader.read(), 20)).partition(b"\r\n\r\n")
        writer.close()
        status, *lines = head.decode("latin-1").split("\r\n")
        headers = dict(line.lower().split(": ", 1) for line in lines)
        return int(status.split()[1]), headers, body

    async def secret(self, *scopes: str) -> str:
        """Make a key of the first ledger and return its secret."""
        made = await self.client.post("/v1/api_keys", json={"name": "test", "scopes": list(scopes)})
        assert made.status_code == 201, made.text
        return str(made.json()["secret"])

    async def available(self, reference: str) -> int:
        """Return what an account has to spend."""
        answer = await self.client.get(f"/v1/accounts/@{reference}")
        return int(answer.json()["balance"]["available"])


def as_key(secret: str) -> dict[str, str]:
    """Return the headers that authenticate with a secret."""
    return {"Authorization": f"Bearer {secret}"}


@asynccontextmanager
async def served(
    url: DatabaseUrl, *, lean: Sequence[Operation] = LEAN, **changes: Any
) -> AsyncIterator[Api]:
    """Serve on a free port with a ledger of its own and an administrator.

    `lean` are the operations that take the lean path, `changes` are of the settings.
    """
    # No test but those of locks depends on how long somebody holds one.
    settings = Settings(database_url=url, pool_size=6, lock_timeout_ms=5_000)
    settings = msgspec.structs.replace(settings, **changes)
    app = create_app(settings, lean=lean)
    listener = listen("127.0.0.1", 0)
    server = uvicorn.Server(
        uvicorn.Config(
            app, http=Connection, ws="none", lifespan="on", log_config=None, server_header=False
        )
    )
    serving = asyncio.ensure_future(server.serve([listener]))
    try:
        async with Engine.open(settings) as engine:
            ledger = await engine.ledgers.create(f"test-{new_secret()[-8:]}", {})
            secret = new_secret()
            await engine.keys.create(ledger.id, "administrator", [ADMIN], secret=secret)
            address = url_of(listener)
            async with httpx.AsyncClient(
                base_url=address, headers=as_key(secret), timeout=30
            ) as client:
                while not server.started:  # noqa: ASYNC110  # uvicorn has no event for it
                    await asyncio.sleep(0.01)
                yield Api(address, engine, client, app)
    finally:
        server.should_exit = True
        await serving
