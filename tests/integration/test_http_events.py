"""The event feed over HTTP: in order, whole, in pieces of any size, and each ledger's own."""

from collections.abc import AsyncIterator
from typing import Any

import pytest

from picopay_api.database_url import DatabaseUrl
from picopay_api.engine.keys import ALL
from picopay_api.worker.sealer import Sealer
from support.api import Api, as_key, served
from support.contract import hold


@pytest.fixture
async def api(database_url: DatabaseUrl) -> AsyncIterator[Api]:
    async with served(database_url) as api:
        hold(api.client)
        await api.account("alice")
        yield api


async def feed(api: Api, query: str = "", **options: Any) -> dict[str, Any]:
    answer = await api.client.get(f"/v1/events{query}", **options)
    assert answer.status_code == 200, answer.text
    page: dict[str, Any] = answer.json()
    return page


async def seal(api: Api) -> None:
    await Sealer(api.engine.database).step()


EMPTY = {"data": [], "has_more": False, "next_after": 0}


async def test_what_is_not_sealed_is_not_in_the_feed(api: Api) -> None:
    assert await feed(api) == EMPTY
    made = (await api.pay("@world", "@alice", 5)).json()
    assert await feed(api) == EMPTY
    id = made["id"].replace("pay_", "evt_")
    missing = await api.client.get(f"/v1/events/{id}")
    assert (missing.status_code, missing.json()["code"]) == (404, "event_not_found")
    await seal(api)
    assert [event["id"] for event in (await feed(api))["data"]] == [id]


async def test_each_kind_of_thing_is_an_event_as_it_was_then(api: Api) -> None:
    payment = (await api.pay("@world", "@alice", 5)).json()
    created = (await api.transact(("@world", "@alice", 1), reference="r")).json()
    undo = f"/v1/transactions/{payment['id'].replace('pay_', 'tx_')}/reverse"
    reversal = (await api.post(undo)).json()
    refused = await api.pay("@alice", "@world", 100)
    assert refused.status_code == 422  # what is refused has not happened
    await seal(api)
    page = await feed(api)
    ledger = (await api.client.get("/v1/ledgers")).json()["data"][0]["id"]
    assert page == {
        "data": [
            {
                "object": "event",
                "id": payment["id"].replace("pay_", "evt_"),
                "position": 1,
                "type": "payment.captured",
                "ledger": ledger,
                "created_at": payment["created_at"],
                "data": payment,  # captured, although it is refunded by now
            },
            {
                "object": "event",
                "id": created["id"].replace("tx_", "evt_"),
                "position": 2,
                "type": "transaction.created",
                "ledger": ledger,
                "created_at": created["created_at"],
                "data": {**created, "position": 2},
            },
            {
                "object": "event",
                "id": reversal["id"].replace("tx_", "evt_"),
                "position": 3,
                "type": "transaction.reversed",
                "ledger": ledger,
                "created_at": reversal["created_at"],
                "data": {**reversal, "position": 3},
            },
        ],
        "has_more": False,
        "next_after": 3,
    }
    for event in page["data"]:
        assert (await api.client.get(f"/v1/events/{event['id']}")).json() == event
    wrong = page["data"][0]["id"].replace("evt_", "pay_")
    assert (await api.client.get(f"/v1/events/{wrong}")).status_code == 404


async def test_the_feed_is_whole_in_pieces_of_any_size(api: Api) -> None:
    made = [(await api.pay("@world", "@alice", n)).json()["id"] for n in range(1, 8)]
    await seal(api)
    made += [(await api.pay("@world", "@alice", n)).json()["id"] for n in range(8, 13)]
    await seal(api)
    expected = [id.replace("pay_", "evt_") for id in made]
    for limit in (1, 5, 6, 12, 100):
        found: list[dict[str, Any]] = []
        after = 0
        while True:
            page = await feed(api, f"?after={after}&limit={limit}")
            found += page["data"]
            after = page["next_after"]
            assert after == len(found)
            assert page["has_more"] == (len(found) < 12), "it says so exactly"
            if not page["has_more"]:
                break
        assert [event["id"] for event in found] == expected
        assert [event["position"] for event in found] == list(range(1, 13))
        assert await feed(api, f"?after={after}&limit={limit}") == {**EMPTY, "next_after": 12}
    # By default a piece is of twenty.
    for n in range(10):
        await api.pay("@world", "@alice", n + 1)
    await seal(api)
    page = await feed(api)
    assert (len(page["data"]), page["has_more"], page["next_after"]) == (20, True, 20)
    beyond = await feed(api, "?after=1000")
    assert beyond == {**EMPTY, "next_after": 1_000}  # whoever is ahead is not sent back


async def test_a_ledger_has_a_feed_of_its_own(api: Api) -> None:
    paid = (await api.pay("@world", "@alice", 5)).json()["id"].replace("pay_", "evt_")
    other = await api.engine.ledgers.create("other", {})
    made = await api.engine.keys.create(other.id, "other", [ALL])
    headers = as_key(made.secret)
    await seal(api)
    assert await feed(api, headers=headers) == EMPTY
    missing = await api.client.get(f"/v1/events/{paid}", headers=headers)
    assert (missing.status_code, missing.json()["code"]) == (404, "event_not_found")
    # Positions count within the ledger.
    await api.client.post(
        "/v1/accounts", json={"reference": "alice", "asset": "USD"}, headers=headers
    )
    body = {"source": "@world", "destination": "@alice", "amount": 1, "asset": "USD"}
    theirs = await api.client.post(
        "/v1/payments", json=body, headers={**headers, "Idempotency-Key": "k"}
    )
    await seal(api)
    (event,) = (await feed(api, headers=headers))["data"]
    assert (event["position"], event["data"]) == (1, theirs.json())
    assert len((await feed(api))["data"]) == 1
