"""What no client library sends: requests that end in two places, giants, floods and noise on the socket.

Each is refused or its connection closed, no request gets a second answer, nothing that hides in another
request is done, and the server goes on in the memory that it had, without an error in its log.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple
from uuid import UUID

import asyncpg
import httpx
import psutil
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from picopay_api import metrics
from picopay_api.app import create_app
from picopay_api.cli.connections import HEAD_BYTES_MAX, HEADERS_MAX, WAITING_REQUESTS_MAX
from picopay_api.cli.draining import DrainingServer
from picopay_api.cli.serving import config_of, listen, url_of
from picopay_api.database_url import DatabaseUrl
from picopay_api.engine.engine import Engine
from picopay_api.engine.keys import ADMIN, new_secret
from picopay_api.settings import Settings
from support.api import as_key
from support.fleet import fleet
from support.framing import CHUNKS, CODINGS, LENGTHS, filled
from support.invariants import broken_rules

POSTING = b'"source":"@world","destination":"@bob","amount":1,"asset":"USD"'
BODIES = {
    "/v1/payments": b"{%s}" % POSTING,  # the lean path
    "/v1/transactions": b'{"postings":[{%s}]}' % POSTING,
}
SMUGGLED = "smuggled"
PATIENCE_S = 20  # a connection that is open then, hangs
GROWTH_BYTES_MAX = 64 * 1024**2


class Door(NamedTuple):
    """A server as `picopay serve` runs it, and the way to its database."""

    port: int
    client: httpx.AsyncClient
    ledger: UUID
    database: "asyncpg.Connection[asyncpg.Record]"

    def request(
        self,
        key: str,
        framing: bytes = b"Content-Length: {n}",
        content: bytes = b"{body}",
        *,
        path: str = "/v1/payments",
        line: bytes = b"POST {path} HTTP/1.1",
        close: bool = True,
    ) -> bytes:
        """Write a request that moves 1 from the world to bob."""
        lines = [
            line.replace(b"{path}", path.encode()),
            b"Host: x",
            b"Authorization: %s" % self.client.headers["Authorization"].encode(),
            b"Content-Type: application/json",
            b"Idempotency-Key: %s" % key.encode(),
            *([b"Connection: close"] if close else []),
            filled(framing, BODIES[path]),
        ]
        return b"\r\n".join(lines) + b"\r\n\r\n" + filled(content, BODIES[path])

    async def say(self, *parts: bytes, end: bool = False) -> bytes:
        """Send, and return all that is answered until the server closes; `end` closes our half."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        answered = bytearray()

        async def send() -> None:
            for part in parts:
                writer.write(part)
                await writer.drain()
            if end:
                writer.write_eof()

        async def read() -> None:
            while data := await reader.read(2**16):
                answered.extend(data)

        # Who is refused early is cut off while he still speaks.
        sending = asyncio.ensure_future(send())
        try:
            async with asyncio.timeout(PATIENCE_S):
                await read()
        except ConnectionError:
            pass
        finally:
            sending.cancel()
            await asyncio.gather(sending, return_exceptions=True)
            writer.close()
        return bytes(answered)

    async def booked(self) -> list[str]:
        """Return the keys of all that was booked, and hold the ledger to its rules."""
        assert await broken_rules(self.database, self.ledger) == []
        rows = await self.database.fetch("SELECT idempotency_key FROM picopay.journal ORDER BY id")
        return [row["idempotency_key"] for row in rows]


@asynccontextmanager
async def opened(url: DatabaseUrl, port: int, client: httpx.AsyncClient) -> AsyncIterator[Door]:
    """Make an account, and a door with it."""
    made = await client.post(
        "/v1/accounts",
        json={"reference": "bob", "asset": "USD"},
        headers={"Idempotency-Key": "bob"},
    )
    assert made.status_code == 201
    database = await asyncpg.connect(**url.connect_arguments())
    try:
        ledger = await database.fetchval("SELECT ledger_id FROM picopay.ledger")
        yield Door(port, client, ledger, database)
    finally:
        await database.close()


@pytest.fixture
async def door(database_url: DatabaseUrl, caplog: pytest.LogCaptureFixture) -> AsyncIterator[Door]:
    app_settings = Settings(database_url=database_url, pool_size=4)
    app = create_app(app_settings)
    listener = listen("127.0.0.1", 0)
    server = DrainingServer(
        config_of(app, grace_ms=5_000), app, grace_s=5, request_timeout_s=1, shares_listener=False
    )
    serving = asyncio.ensure_future(server.serve([listener]))
    try:
        secret = new_secret()
        async with Engine.open(app_settings) as engine:
            ledger = await engine.ledgers.create("door", {})
            await engine.keys.create(ledger.id, "administrator", [ADMIN], secret=secret)
        async with (
            httpx.AsyncClient(
                base_url=url_of(listener), headers=as_key(secret), timeout=30
            ) as client,
            opened(database_url, listener.getsockname()[1], client) as door,
        ):
            yield door
    finally:
        server.should_exit = True
        await serving
    assert [record for record in caplog.records if record.levelno >= logging.ERROR] == []


def statuses(answered: bytes) -> list[int]:
    """Return the statuses of answers, one after another."""
    return [int(part[:3]) for part in answered.split(b"HTTP/1.1 ")[1:]]


def faults(fault: str) -> float:
    """Return how many requests ended their connection because of a fault."""
    name, labels = "picopay_http_unreadable_requests_total", {"fault": fault}
    return metrics.REGISTRY.get_sample_value(name, labels) or 0


@pytest.mark.parametrize("path", BODIES)
async def test_a_request_that_ends_in_two_places_is_refused_and_hides_nothing(
    door: Door, path: str
) -> None:
    chunked = b"{size}\r\n{body}\r\n0\r\n\r\n"
    before = faults("syntax")
    cases: list[tuple[str, bytes, bytes]] = [
        *((f"length: {name}", framing, b"{body}") for name, framing in LENGTHS),
        *((f"coding: {name}", framing, chunked) for name, framing in CODINGS),
        *((f"chunk: {name}", b"Transfer-Encoding: chunked", body) for name, body in CHUNKS),
    ]
    for name, framing, content in cases:
        hidden = door.request(SMUGGLED, path=path)
        answered = await door.say(
            door.request(name, framing, content, path=path, close=False) + hidden
        )
        assert statuses(answered) == [400], name
    assert faults("syntax") == before + len(cases)
    assert await door.booked() == []


@pytest.mark.parametrize("path", BODIES)
async def test_what_is_unusual_but_clear_is_one_request(door: Door, path: str) -> None:
    chunked = b"{size};name=value\r\n{body}\r\n0;last\r\n"
    coded = b"Transfer-Encoding: chunked"
    usual = [
        door.request("extensions", coded, chunked + b"\r\n", path=path),
        door.request("absolute", line=b"POST http://elsewhere{path} HTTP/1.1", path=path),
        b"\r\n\r\n" + door.request("blank lines", path=path),
        door.request("trailer", coded, chunked + b"Idempotency-Key: other\r\n\r\n", path=path),
        door.request("one chunk a byte", coded, b"{bytes}", path=path).replace(
            b"{bytes}", b"".join(b"1\r\n%c\r\n" % c for c in BODIES[path]) + b"0\r\n\r\n"
        ),
    ]
    for request in usual:
        assert statuses(await door.say(request)) == [201], request
    waits = door.request("continue", b"Expect: 100-continue\r\nContent-Length: {n}", path=path)
    assert statuses(await door.say(waits)) == [100, 201]
    keys = ["extensions", "absolute", "blank lines", "trailer", "one chunk a byte", "continue"]
    assert await door.booked() == keys


async def test_trailers_are_no_headers(door: Door) -> None:
    authorization = b"Authorization: %s\r\n" % door.client.headers["Authorization"].encode()
    whole = door.request("k", b"Transfer-Encoding: chunked", b"{size}\r\n{body}\r\n0\r\n\r\n")
    without = whole.replace(authorization, b"")
    assert statuses(await door.say(without[:-2] + authorization + b"\r\n")) == [401]
    assert await door.booked() == []


async def test_who_asks_for_another_protocol_is_answered_and_let_go(door: Door) -> None:
    for protocol in (b"websocket", b"h2c"):
        upgrade = b"Connection: Upgrade\r\nUpgrade: %s\r\n" % protocol
        again = door.request(SMUGGLED)
        get = b"GET /livez HTTP/1.1\r\nHost: x\r\n%s\r\n" % upgrade
        assert statuses(await door.say(get + again)) == [200]
        post = door.request("upgrade", upgrade + b"Content-Length: {n}", close=False)
        assert statuses(await door.say(post + again)) == [400]
    for line in (
        b"CONNECT bank:443 HTTP/1.1",
        b"PRI * HTTP/2.0",
        b"GET / HTTP/9.9",
        b"GET",
        b"\x16\x03\x01",
    ):
        assert statuses(await door.say(line + b"\r\n\r\n", end=True)) in ([400], []), line
    assert await door.booked() == []


async def test_a_fault_is_never_taken_for_the_answer_to_what_came_before_it(door: Door) -> None:
    bad = [
        b"noise\r\n\r\n",
        door.request("bad", b"Transfer-Encoding: chunked", b"zz\r\n{body}"),
        door.request("bad", b"\r\n".join([b"X-A: a"] * 2 * HEADERS_MAX)),
    ]
    for number, fault in enumerate(bad):
        whole = [door.request(f"{number}-{n}", close=False) for n in range(3)]
        answered = await door.say(b"".join(whole) + fault)
        # The fault has an answer of its own only if those before it had theirs when it came.
        assert statuses(answered) in ([201] * 3, [201] * 3 + [400], [201] * 3 + [431])
        assert b"connection: close" in answered.rpartition(b"HTTP/1.1 ")[2]
    # A body whose request has been answered is the rest of that, and not a request to be refused.
    early = b"POST /v1/payments HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
    assert statuses(await door.say(early, b"zz\r\n")) in ([400], [401])
    assert await door.booked() == [f"{number}-{n}" for number in range(3) for n in range(3)]


async def check_giant_heads(door: Door) -> None:
    most = b"".join(b"X-%d: a\r\n" % n for n in range(HEADERS_MAX - 10))
    large = b"X-A: " + b"a" * (HEAD_BYTES_MAX - 1_000) + b"\r\n"
    for number, headers in enumerate((most, large)):
        answered = await door.say(door.request(f"{number}", headers + b"Content-Length: {n}"))
        assert statuses(answered) == [201]
    start = b"GET /livez HTTP/1.1\r\nHost: x\r\n"
    pieces = [b"a" * 2**16] * 200
    endless = {
        "address": (b"GET /", *pieces),
        "name": (start, *pieces),
        "value": (start + b"X-A: ", *pieces),
        "headers": (start, *[b"X-A: a\r\n" * 2**13] * 200),
        "blank lines": [b"\r\n" * 2**15] * 200,
    }
    for name, parts in endless.items():
        assert statuses(await door.say(*parts)) in ([431], [400], []), name
    for headers in (
        b"X-A: " + b"a" * HEAD_BYTES_MAX,
        b"X-A: a\r\n" * 10_000,
        b"X-A: " + b"a" * 2**20,
    ):
        answered = await door.say(
            door.request(SMUGGLED, headers.strip() + b"\r\nContent-Length: {n}")
        )
        assert statuses(answered) in ([431], [])  # what is said may be lost to who still speaks
    assert await door.booked() == ["0", "1"]


async def check_endless_bodies(door: Door) -> None:
    coded = b"Transfer-Encoding: chunked"
    first = b"{size}\r\n{body}\r\n0\r\n"
    part = b"a" * 2**16
    endless: dict[str, Iterable[bytes]] = {
        "trailer": (door.request(SMUGGLED, coded, first) + b"X-A: ", *[part] * 200),
        "trailers": (door.request(SMUGGLED, coded, first), *[b"X-A: a\r\n" * 2**13] * 200),
        "extension": (door.request(SMUGGLED, coded, b"{size};a="), *[part] * 200),
        "chunks": (
            door.request(SMUGGLED, coded, b""),
            *[b"10000\r\n%s\r\n" % part] * 200,
            b"X",
        ),
        "length": (door.request(SMUGGLED, b"Content-Length: 9223372036854775808", b""), part, b""),
    }
    for name, parts in endless.items():
        found = statuses(await door.say(*parts, end=True))
        assert found in ([431], [400], [413], []), name
    assert SMUGGLED not in await door.booked()


async def check_floods(door: Door) -> None:
    flood = [b"GET /livez HTTP/1.1\r\n\r\n" * 1_000] * 200

    async def one() -> None:
        found = statuses(await door.say(*flood))
        assert set(found) <= {200}
        assert len(found) < 200_000

    await asyncio.gather(*[one() for _ in range(10)])
    keys = [f"flood-{n}" for n in range(1_000)]
    payments = [door.request(key, close=key == keys[-1]) for key in keys]
    found = statuses(await door.say(b"".join(payments)))
    assert set(found) <= {201}
    booked = [key for key in await door.booked() if key in keys]
    assert booked == keys[: len(booked)]
    assert len(found) <= len(booked)  # what was answered last may be lost to who still speaks


async def test_giants_are_cut_off_and_take_no_memory(
    database_url: DatabaseUrl, tmp_path: Path
) -> None:
    async with (
        fleet(database_url, tmp_path, 1) as [member],
        opened(database_url, member.port, member.client) as door,
    ):
        process = psutil.Process(member.process.pid)
        before = process.memory_info().rss
        await check_giant_heads(door)
        await check_endless_bodies(door)
        await check_floods(door)
        assert process.memory_info().rss - before < GROWTH_BYTES_MAX
        assert (await member.post("/v1/accounts", {"asset": "EUR"}, "after")).status_code == 201


async def test_requests_at_once_on_one_connection_are_answered_in_order(door: Door) -> None:
    count = WAITING_REQUESTS_MAX
    keys = [f"{n}" for n in range(count)]
    requests = b"".join(door.request(key, close=key == keys[-1]) for key in keys)
    answered = await door.say(requests)
    assert statuses(answered) == [201] * count
    assert await door.booked() == keys


PIECES = st.sampled_from(
    [
        b"\r\n",
        b"\n",
        b"\r",
        b"\x00",
        b" ",
        b":",
        b"0\r\n\r\n",
        b"HTTP/1.1",
        b"Transfer-Encoding: chunked",
    ]
)


@settings(
    max_examples=80,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(data=st.data())
async def test_noise_is_refused(door: Door, data: st.DataObject) -> None:
    noise: Any = st.binary(max_size=200) | PIECES
    sent = b"".join(data.draw(st.lists(noise, max_size=4)))
    if data.draw(st.booleans()):  # in a request, else by itself
        whole = door.request(new_secret(), path=data.draw(st.sampled_from(list(BODIES))))
        place = data.draw(st.integers(0, len(whole)))
        sent = whole[:place] + sent + whole[place + data.draw(st.integers(0, 8)) :]
    answered = await door.say(sent, end=True)
    assert len(statuses(answered)) <= 2  # the noise may end the first request
    assert all(status < 500 for status in statuses(answered)), answered
    assert (await door.client.get("/livez")).status_code == 200
