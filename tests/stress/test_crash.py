"""A power cut under load: what was acknowledged is there once, what was not settles to one outcome."""

import asyncio
from pathlib import Path

import httpx
import pytest

from picopay_api.database_url import DatabaseUrl
from picopay_api.store.database import Database
from picopay_api.worker.audit_all import audit_everything
from support.installation import Installation, command_of, installed
from support.waiting import eventually

CLIENTS = 16
ACKNOWLEDGED_FIRST = 300


class Load:
    """Clients that pay until they are told to stop, and what each of their keys was answered."""

    def __init__(self, run: int) -> None:
        self.answers: dict[str, tuple[int, str]] = {}
        self.unanswered: set[str] = set()
        self._run = run
        self._enough = asyncio.Event()

    async def until(self, installation: Installation, acknowledged: int) -> None:
        """Pay until so many answers have come; then cut the power while the clients go on."""
        async with installation.client() as client, asyncio.TaskGroup() as group:
            for number in range(CLIENTS):
                group.create_task(self._pay_on(client, number, acknowledged))
            await self._enough.wait()
            await asyncio.to_thread(installation.kill_everything)

    async def _pay_on(self, client: httpx.AsyncClient, number: int, acknowledged: int) -> None:
        for turn in range(100_000):
            key = f"run-{self._run}-client-{number}-{turn}"
            try:
                response = await pay(client, key)
            except httpx.TransportError:
                self.unanswered.add(key)
                return
            self.answers[key] = outcome(response)
            if len(self.answers) >= acknowledged:
                self._enough.set()


async def pay(client: httpx.AsyncClient, key: str) -> httpx.Response:
    """Pay between accounts that other clients pay between, too; amounts differ by key."""
    there_or_back = ("@alice", "@shop") if len(key) % 2 else ("@shop", "@alice")
    body = {
        "source": there_or_back[0],
        "destination": there_or_back[1],
        "amount": 1 + sum(key.encode()) % 97,
        "asset": "USD",
        "reference": f"{key}-reference",
    }
    return await client.post("/v1/payments", json=body, headers={"Idempotency-Key": key})


def outcome(response: httpx.Response) -> tuple[int, str]:
    """Return the status with the payment's id or the code of the refusal."""
    body = response.json()
    assert response.status_code in {201, 422}, body
    return response.status_code, body["id"] if response.status_code == 201 else body["code"]


async def test_what_was_acknowledged_survives_a_power_cut(tmp_path: Path) -> None:
    directory = tmp_path / "data"
    loads = [Load(run) for run in range(2)]
    with installed(directory, "--workers", "2") as installation:
        async with installation.client() as client:
            account = {"reference": "shop", "asset": "USD"}
            (await client.post("/v1/accounts", json=account)).raise_for_status()
        await loads[0].until(installation, ACKNOWLEDGED_FIRST)
    with installed(directory, "--workers", "2") as installation:
        await settle(installation, loads[:1])
        await loads[1].until(installation, ACKNOWLEDGED_FIRST)
    with installed(directory, "--workers", "2") as installation:
        await settle(installation, loads)
        await check_the_books(installation, loads)
        assert installation.stop() == 0


async def settle(installation: Installation, loads: list[Load]) -> None:
    """Ask again with every key: the answered ones say the same, the others decide themselves once."""
    async with installation.client() as client:
        for load in loads:
            for key, answer in load.answers.items():
                response = await pay(client, key)
                assert outcome(response) == answer
                assert response.headers["Idempotent-Replayed"] == "true"
            for key in load.unanswered:
                load.answers[key] = outcome(await pay(client, key))
            load.unanswered.clear()


async def check_the_books(installation: Installation, loads: list[Load]) -> None:
    """Compare the ledger with what clients were told, and run the whole audit."""
    paid = {id for load in loads for status, id in load.answers.values() if status == 201}
    found: set[str] = set()
    cursor: str | None = None
    async with installation.client() as client:
        for _ in range(1 + len(paid) // 50):
            parameters = {"limit": "100", "account": "@shop"} | (
                {"cursor": cursor} if cursor else {}
            )
            page = (await client.get("/v1/payments", params=parameters)).json()
            assert not found & {payment["id"] for payment in page["data"]}
            found |= {payment["id"] for payment in page["data"]}
            cursor = page["next_cursor"]
            if cursor is None:
                break
    assert found == paid
    database = await Database.open(DatabaseUrl.parse(installation.ready.database_url))
    try:
        assert await audit_everything(database, lambda _: None) == []
    finally:
        await database.close()


@pytest.mark.parametrize("victim", ["serve", "worker"])
async def test_a_killed_child_is_started_again(tmp_path: Path, victim: str) -> None:
    with installed(tmp_path / "data") as installation:
        [process] = [p for p in installation.processes() if victim in command_of(p)]
        process.kill()
        async with installation.client() as client:

            async def serving_again() -> bool:
                others = [p for p in installation.processes() if p.pid != process.pid]
                return any(victim in command_of(p) for p in others) and await ready(client) == 200

            await eventually(serving_again)
        assert installation.stop() == 0


async def ready(client: httpx.AsyncClient) -> int:
    """Return the status of `/readyz`; 0 when nobody listens yet."""
    try:
        return (await client.get("/readyz")).status_code
    except httpx.TransportError:
        return 0
