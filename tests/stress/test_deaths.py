"""`kill -9` of each process of `picopay up` under load: it is back by itself, and nothing is lost.

A power cut that ends all of them at once is in `test_crash.py`.
"""

import asyncio
import json
import re
from collections.abc import Callable
from pathlib import Path

import httpx
import psutil

from picopay_api.database_url import DatabaseUrl
from picopay_api.store.database import Database
from picopay_api.worker.audit_all import audit_everything
from support.installation import Installation, command_of, installed
from support.sql import rows, value
from support.waiting import eventually

CLIENTS = 8
ACKNOWLEDGED = 60  # before each death, and once more after it

BACKEND = (
    "SELECT pid FROM pg_stat_activity WHERE datname = current_database()"
    " AND application_name LIKE 'picopay%' AND application_name <> 'picopay-worker' LIMIT 1"
)


class Payers:
    """Clients that pay without a pause, and ask again with the same key until they are told."""

    def __init__(self, client: httpx.AsyncClient) -> None:
        self.told: dict[str, str] = {}
        self.in_doubt = 0
        self._client = client

    async def pay_on(self, number: int) -> None:
        """Pay one after the other, for ever."""
        for turn in range(1_000_000):
            key = f"client-{number}-{turn}"
            self.told[key] = await self._pay(key)

    async def _pay(self, key: str) -> str:
        body = {"source": "@alice", "destination": "@bob", "amount": 1, "asset": "USD"}
        while True:  # the time-out of the test is the bound
            try:
                answer = await self._client.post(
                    "/v1/payments", json=body, headers={"Idempotency-Key": key}
                )
            except httpx.TransportError:
                self.in_doubt += 1
                continue
            if answer.status_code == 201:
                return str(answer.json()["id"])
            assert answer.status_code == 503, answer.text
            assert int(answer.headers["Retry-After"]) > 0
            self.in_doubt += 1
            await asyncio.sleep(0.05)

    async def acknowledged(self, more: int) -> None:
        """Wait until so many more payments have been answered."""
        wanted = len(self.told) + more

        async def enough() -> bool:
            return len(self.told) >= wanted

        await eventually(enough)


def child(installation: Installation, is_it: Callable[[psutil.Process], bool]) -> psutil.Process:
    supervisor = psutil.Process(installation.ready.pid)
    (found,) = (one for one in supervisor.children() if is_it(one))
    return found


async def victim(kind: str, installation: Installation, url: DatabaseUrl) -> psutil.Process:
    """Find the process to kill."""
    if kind == "backend":
        backend = await value(url, BACKEND)
        assert backend is not None  # psutil would take it for ourselves
        return psutil.Process(backend)
    if kind == "postmaster":
        return child(installation, lambda one: one.name() == "postgres")
    return child(installation, lambda one: kind in command_of(one))


def restarted(log: Path) -> list[str]:
    """Return which processes the supervisor says that it has started again."""
    lines = [json.loads(line) for line in log.read_text().splitlines() if line.startswith("{")]
    return [line["process"] for line in lines if line["event"] == "process restarted"]


async def test_whoever_dies_is_back_and_nothing_is_lost(tmp_path: Path) -> None:
    with installed(tmp_path / "data") as installation:
        url = DatabaseUrl.parse(installation.ready.database_url)
        async with installation.client() as client:
            payers = Payers(client)
            paying = [asyncio.create_task(payers.pay_on(number)) for number in range(CLIENTS)]
            for kind in ("postmaster", "backend", "serve", "worker"):
                await payers.acknowledged(ACKNOWLEDGED)
                (await victim(kind, installation, url)).kill()
                await payers.acknowledged(ACKNOWLEDGED)
                await eventually(lambda: back(installation, client))
            for each in paying:
                each.cancel()
            await asyncio.gather(*paying, return_exceptions=True)
            assert all(each.cancelled() for each in paying)
        assert payers.in_doubt
        await check_the_books(url, payers)
        assert restarted(tmp_path / "data.log") == ["PostgreSQL", "server 1", "worker"]
        assert installation.stop() == 0


async def back(installation: Installation, client: httpx.AsyncClient) -> bool:
    """Tell whether all are there and say that they are ready; the dead are not counted."""
    assert installation.process.poll() is None
    try:
        shown = (await client.get("/metrics")).text
    except httpx.TransportError:
        return False
    return re.search(r"^picopay_ready 2\.0$", shown, re.MULTILINE) is not None


async def check_the_books(url: DatabaseUrl, payers: Payers) -> None:
    """Compare the journal with what clients were told; all must be sealed in the end, too."""
    booked = {
        row["idempotency_key"]: f"pay_{row['id'].hex}"
        for row in await rows(
            url,
            "SELECT idempotency_key, id FROM picopay.journal WHERE idempotency_key LIKE 'client-%'",
        )
    }
    # What was booked and never told: the last request of each client, which was given up.
    assert payers.told.items() <= booked.items()
    assert len(booked) <= len(payers.told) + CLIENTS

    async def sealed() -> bool:
        waiting = await value(
            url,
            "SELECT (SELECT count(*) FROM picopay.journal)"
            " - (SELECT sum(count)::bigint FROM picopay.block)",
        )
        return int(waiting) == 0

    await eventually(sealed)
    database = await Database.open(url)
    try:
        assert await audit_everything(database, lambda _: None) == []
    finally:
        await database.close()
