"""Ledgers over HTTP: made by administrators, each with names, money and keys of its own."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from picopay_api.database_url import DatabaseUrl
from support.api import Api, as_key, served

LEDGERS = "/v1/ledgers"
NOBODY = "ldg_" + "0" * 32


@pytest.fixture
async def api(database_url: DatabaseUrl) -> AsyncIterator[Api]:
    async with served(database_url) as api:
        yield api


async def made(api: Api, name: str, **fields: Any) -> dict[str, Any]:
    answer = await api.client.post(LEDGERS, json={"name": name, **fields})
    assert answer.status_code == 201, answer.text
    ledger: dict[str, Any] = answer.json()
    return ledger


async def test_a_ledger_is_what_was_asked_for(api: Api) -> None:
    plain = await made(api, "tenant 7")
    assert plain == {
        "id": plain["id"],
        "object": "ledger",
        "name": "tenant 7",
        "metadata": {},
        "created_at": plain["created_at"],
    }
    full = await made(api, "grüße/日本", metadata={"region": "eu"})
    assert full["metadata"] == {"region": "eu"}
    for ledger in (plain, full):
        assert (await api.client.get(f"{LEDGERS}/{ledger['id']}")).json() == ledger
    listed = (await api.client.get(LEDGERS)).json()["data"]
    assert listed[:2] == [full, plain]


async def test_names_are_unique_and_sane(api: Api) -> None:
    await made(api, "tenant")
    taken = await api.client.post(LEDGERS, json={"name": "tenant", "metadata": {"a": "b"}})
    assert (taken.status_code, taken.json()["code"]) == (409, "ledger_name_taken")
    answers = await asyncio.gather(
        *(api.client.post(LEDGERS, json={"name": "at once"}) for _ in range(6))
    )
    assert sorted(answer.status_code for answer in answers) == [201, *[409] * 5]
    await made(api, "Tenant")
    await made(api, "x" * 100)
    faults: list[tuple[Any, str]] = [
        ({}, "/name"),
        ({"name": ""}, "/name"),
        ({"name": "x" * 101}, "/name"),
        ({"name": "a\nb"}, "/name"),
        ({"name": "a\n"}, "/name"),
        ({"name": 7}, "/name"),
        ({"name": "n", "metadata": None}, "/metadata"),
        ({"name": "n", "metadata": {f"k{n}": "" for n in range(51)}}, "/metadata"),
        ({"name": "n", "id": NOBODY}, "/id"),
    ]
    for body, pointer in faults:
        answer = await api.client.post(LEDGERS, json=body)
        assert answer.status_code == 400, body
        assert answer.json()["errors"][0]["pointer"] == pointer, body
    names = [ledger["name"] for ledger in (await api.client.get(LEDGERS)).json()["data"]]
    assert names[:4] == ["x" * 100, "Tenant", "at once", "tenant"]


async def test_who_is_not_there_is_not_found(api: Api) -> None:
    for id in (NOBODY, "ldg_", "tenant", "ldg_" + "A" * 32, "%00"):
        answer = await api.client.get(f"{LEDGERS}/{id}")
        status = 400 if id == "%00" else 404
        assert answer.status_code == status, answer.text
        if status == 404:
            assert answer.json()["code"] == "ledger_not_found"


async def test_ledgers_are_for_those_who_may_see_all_of_them(api: Api) -> None:
    (ledger,) = (await api.client.get(LEDGERS)).json()["data"]
    tenant, reader = await api.secret("*"), await api.secret("ledgers:read")
    calls = [("GET", LEDGERS), ("GET", f"{LEDGERS}/{ledger['id']}"), ("POST", LEDGERS)]
    for secret, wanted in ((tenant, [403, 403, 403]), (reader, [200, 200, 403])):
        answers = [
            await api.client.request(
                method,
                path,
                headers=as_key(secret),
                json={"name": "n"} if method == "POST" else None,
            )
            for method, path in calls
        ]
        assert [answer.status_code for answer in answers] == wanted
    assert len((await api.client.get(LEDGERS)).json()["data"]) == 1


async def test_each_ledger_is_a_book_of_its_own(api: Api) -> None:
    """The same references, keys and payments in two ledgers have nothing to do with each other."""
    clients: dict[str, dict[str, str]] = {}
    for name in ("one", "two"):
        ledger = await made(api, name)
        body = {"name": name, "scopes": ["*"], "ledger": ledger["id"]}
        secret = (await api.client.post("/v1/api_keys", json=body)).json()["secret"]
        clients[name] = as_key(secret)
    for amount, client in ((100, clients["one"]), (7, clients["two"])):
        headers = {**client, "Idempotency-Key": "the same"}
        account = {"reference": "alice", "asset": "USD"}
        answer = await api.client.post("/v1/accounts", json=account, headers=headers)
        assert answer.status_code == 201, answer.text
        body = {"source": "@world", "destination": "@alice", "amount": amount, "asset": "USD"}
        body["reference"] = "the same"
        answer = await api.client.post("/v1/payments", json=body, headers=headers)
        assert answer.status_code == 201, answer.text
        assert "Idempotent-Replayed" not in answer.headers
    ids = set()
    for name, balance in (("one", 100), ("two", 7)):
        account = (await api.client.get("/v1/accounts/@alice", headers=clients[name])).json()
        assert account["balance"]["posted"] == balance
        paid = (await api.client.get("/v1/payments", headers=clients[name])).json()["data"]
        assert [payment["amount"] for payment in paid] == [balance]
        ids |= {account["id"], paid[0]["id"], paid[0]["source"]}
    assert len(ids) == 6
    # The administrator's own ledger has seen none of it.
    assert (await api.client.get("/v1/accounts")).json()["data"] == []
