"""Clients that are slow, or silent, or do not read hold a socket for a while and nothing else."""

import asyncio
from collections.abc import AsyncIterator
from typing import NamedTuple

import httpx
import msgspec
import pytest

from picopay_api import metrics
from picopay_api.app import create_app
from picopay_api.cli import connections
from picopay_api.cli.draining import DrainingServer
from picopay_api.cli.serving import config_of, listen, url_of
from picopay_api.database_url import DatabaseUrl
from picopay_api.engine.engine import Engine
from picopay_api.engine.keys import ADMIN, new_secret
from picopay_api.settings import Settings
from support.api import as_key
from support.waiting import eventually

PATIENCE_S = 0.6
PAYMENT = msgspec.json.encode(
    {"source": "@world", "destination": "@bob", "amount": 1, "asset": "USD"}
)


class Shop(NamedTuple):
    """A server as `picopay serve` runs it, with less patience."""

    port: int
    client: httpx.AsyncClient

    async def open(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_connection("127.0.0.1", self.port)

    def head(self, key: str, length: int = len(PAYMENT)) -> bytes:
        return (
            f"POST /v1/payments HTTP/1.1\r\nHost: x\r\nIdempotency-Key: {key}\r\n"
            f"Authorization: {self.client.headers['Authorization']}\r\n"
            f"Content-Type: application/json\r\nContent-Length: {length}\r\n\r\n"
        ).encode()

    async def pay(self) -> None:
        """Pay as one does who is quick."""
        answer = await self.client.post(
            "/v1/payments",
            content=PAYMENT,
            headers={"Idempotency-Key": new_secret(), "Content-Type": "application/json"},
        )
        assert answer.status_code == 201, answer.text


@pytest.fixture
async def shop(database_url: DatabaseUrl, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Shop]:
    monkeypatch.setattr(connections, "ARRIVAL_S", PATIENCE_S)
    monkeypatch.setattr(connections, "READING_S", PATIENCE_S)
    settings = Settings(database_url=database_url, pool_size=4)
    app = create_app(settings)
    listener = listen("127.0.0.1", 0)
    server = DrainingServer(
        config_of(app, grace_ms=5_000),
        app,
        grace_s=5,
        request_timeout_s=1,
        shares_listener=False,
    )
    serving = asyncio.ensure_future(server.serve([listener]))
    try:
        async with Engine.open(settings) as engine:
            ledger = await engine.ledgers.create("shop", {})
            secret = new_secret()
            await engine.keys.create(ledger.id, "administrator", [ADMIN], secret=secret)
            async with httpx.AsyncClient(
                base_url=url_of(listener), headers=as_key(secret), timeout=30
            ) as client:
                while not server.started:  # noqa: ASYNC110  # uvicorn has no event for it
                    await asyncio.sleep(0.01)
                made = await client.post(
                    "/v1/accounts",
                    json={"reference": "bob", "asset": "USD"},
                    headers={"Idempotency-Key": "bob"},
                )
                assert made.status_code == 201
                yield Shop(listener.getsockname()[1], client)
    finally:
        server.should_exit = True
        await serving


def ended(at: str) -> float:
    """Return how many connections were closed for being slow."""
    value = metrics.REGISTRY.get_sample_value("picopay_http_slow_connections_total", {"at": at})
    return value or 0


async def test_who_says_nothing_is_hung_up_on(shop: Shop) -> None:
    before = ended("sending")
    silent = [await shop.open() for _ in range(50)]
    await shop.pay()
    for reader, writer in silent:
        assert await reader.read() == b""
        writer.close()
    assert ended("sending") == before + 50


@pytest.mark.parametrize("part", ["head", "body"])
async def test_who_sends_in_drops_is_hung_up_on(shop: Shop, part: str) -> None:
    before = ended("sending")
    whole = shop.head("drops") + PAYMENT
    at_once = 10 if part == "head" else len(whole) - 40
    slow = [await shop.open() for _ in range(20)]

    async def drip(writer: asyncio.StreamWriter) -> None:
        writer.write(whole[:at_once])
        for byte in whole[at_once:]:
            await asyncio.sleep(0.1)
            if writer.is_closing():
                return
            writer.write(bytes([byte]))

    dripping = [asyncio.ensure_future(drip(writer)) for _, writer in slow]
    await shop.pay()
    for reader, writer in slow:
        try:
            with_answer = await reader.read()
        except ConnectionResetError:
            continue  # a drop has crossed the answer, which was lost with it
        assert with_answer.startswith(b"HTTP/1.1 408 ")
        assert b"connection: close" in with_answer
        writer.close()
    for task in dripping:
        task.cancel()
    await asyncio.gather(*dripping, return_exceptions=True)
    assert ended("sending") == before + 20


async def test_a_rest_of_a_body_that_nobody_waits_for_is_not_answered_twice(shop: Shop) -> None:
    reader, writer = await shop.open()
    writer.write(
        b"POST /v1/payments HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{"
    )  # refused for want of a key, before the body is read
    answers = await reader.read()
    assert answers.count(b"HTTP/1.1 ") == 1
    assert answers.startswith(b"HTTP/1.1 401 ")
    writer.close()


async def test_who_does_not_read_is_cut_off(shop: Shop) -> None:
    before = ended("reading")
    reader, writer = await shop.open()
    request = b"GET /openapi.json HTTP/1.1\r\nHost: x\r\n\r\n"
    try:
        for _ in range(400):  # more than all buffers between the two take
            writer.write(request)
            await asyncio.wait_for(writer.drain(), 0.5)
    except (TimeoutError, ConnectionError):
        pass
    await shop.pay()

    async def cut_off() -> bool:
        return ended("reading") == before + 1

    await eventually(cut_off)
    writer.close()
    assert reader is not None


async def test_who_is_quick_is_left_alone_between_requests(shop: Shop) -> None:
    before = ended("sending")
    await shop.pay()
    await asyncio.sleep(3 * PATIENCE_S)
    reader, writer = await shop.open()
    for number in range(4):
        writer.write(shop.head(f"quick-{number}") + PAYMENT)
        answer = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 5)
        assert answer.startswith(b"HTTP/1.1 201 ")
        length = int(answer.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
        await reader.readexactly(length)
        await asyncio.sleep(PATIENCE_S)
    writer.close()
    await shop.pay()
    assert ended("sending") == before
