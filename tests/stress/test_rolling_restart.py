"""Processes that are told to end under load: whoever asks is answered, behind a balancer nobody notices."""

import asyncio
import signal
from pathlib import Path
from typing import Any

import pytest

from picopay_api.database_url import DatabaseUrl
from picopay_api.worker.audit_all import audit_everything
from support.balancer import balanced
from support.customers import Customers
from support.fleet import Member, fleet
from support.journal import opened
from support.sql import value
from support.waiting import PROMPT_S, eventually

CLIENTS = 24
BOOKED = "SELECT count(*) FROM picopay.journal"


async def make_shop(member: Member) -> None:
    made = await member.post("/v1/accounts", {"reference": "shop", "asset": "USD"}, "shop")
    assert made.status_code == 201, made.text


@pytest.mark.timeout(300)
async def test_a_rolling_restart_behind_a_balancer_fails_no_request(
    database_url: DatabaseUrl, tmp_path: Path
) -> None:
    async with fleet(database_url, tmp_path, 2) as members:
        await make_shop(members[0])
        async with balanced([member.port for member in members]) as balancer:
            customers = Customers(balancer.url, members[0].client.headers)
            async with asyncio.TaskGroup() as group:
                for number in range(CLIENTS):
                    # Some hardly rest, others ask on connections that are idle for a while.
                    group.create_task(customers.pay_on(0.05 + 0.3 * (number % 3)))
                for member in members:
                    await customers.paid(50)
                    assert await member.stop() == 0
                    await customers.paid(50)
                    await member.start_again()
                await customers.paid(50)
                customers.done.set()
        assert set(customers.answers) == {"201"}
        assert await value(database_url, BOOKED) == customers.answers["201"]
    async with opened(database_url) as database:
        assert await audit_everything(database, lambda _: None) == []


async def test_who_is_told_to_end_answers_what_was_asked_and_takes_no_more(
    database_url: DatabaseUrl, tmp_path: Path
) -> None:
    async with fleet(database_url, tmp_path, 1) as (member,):
        await make_shop(member)
        customers = Customers(str(member.client.base_url), member.client.headers)
        async with asyncio.TaskGroup() as group:
            for _ in range(CLIENTS):
                group.create_task(customers.pay_on(0))
            await customers.paid(300)
            assert await member.stop() == 0
        # Each was answered in full, or nobody took its connection.
        assert set(customers.answers) <= {"201", "shutting_down", "refused"}
        assert customers.answers["refused"] == CLIENTS
        assert await value(database_url, BOOKED) == customers.answers["201"]


@pytest.mark.parametrize("workers", [1, 2])
async def test_each_connection_made_before_the_end_is_served_and_told_to_close(
    database_url: DatabaseUrl, tmp_path: Path, workers: int
) -> None:
    async with fleet(database_url, tmp_path, 1, "--workers", str(workers)) as (member,):
        idle, fresh = [await asyncio.open_connection("127.0.0.1", member.port) for _ in range(2)]
        await ask(idle, "/livez", "keep-alive")
        member.process.send_signal(signal.SIGTERM)
        await eventually(lambda: refuses(member.port))
        assert "200" in await ask(idle, "/livez", "close")
        if workers == 1:  # of several, each has a page of its own
            assert "503" in await ask(fresh, "/readyz", "close")
        assert await asyncio.to_thread(member.process.wait, PROMPT_S) == 0
        for _, writer in (idle, fresh):
            writer.close()


async def test_who_never_ends_its_request_does_not_hold_the_end_up(
    database_url: DatabaseUrl, tmp_path: Path
) -> None:
    grace = {"PICOPAY_SHUTDOWN_GRACE_MS": "2000"}
    async with fleet(database_url, tmp_path, 1, **grace) as (member,):
        reader, writer = await asyncio.open_connection("127.0.0.1", member.port)
        key = member.client.headers["Authorization"]
        head = f"POST /v1/accounts HTTP/1.1\r\nHost: test\r\nAuthorization: {key}\r\n"
        writer.write(
            f"{head}Content-Type: application/json\r\nContent-Length: 99\r\n\r\n{{".encode()
        )
        assert (await member.client.get("/livez")).is_success  # what was sent before has come
        assert await member.stop() == 0
        assert await reader.read() == b""
        writer.close()


async def ask(connection: Any, path: str, ends: str) -> str:
    """Ask on a connection; return the first line of the answer, and look at what it says of its end."""
    reader, writer = connection
    writer.write(f"GET {path} HTTP/1.1\r\nHost: test\r\n\r\n".encode())
    head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
    assert ("connection: close" in head) is (ends == "close")
    length = int(head.partition("content-length: ")[2].split("\r\n")[0])
    await reader.readexactly(length)
    if ends == "close":
        assert await reader.read() == b""
    return str(head.split("\r\n")[0])


async def refuses(port: int) -> bool:
    """Tell whether no connection can be made any more."""
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
    except ConnectionRefusedError:
        return True
    writer.close()
    return False
