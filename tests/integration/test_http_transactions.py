"""Transactions over HTTP: all postings or none, conditions, dry runs, reversals, the place in the feed."""

import asyncio
import re
from collections.abc import AsyncIterator
from typing import Any

import pytest

from picopay_api.database_url import DatabaseUrl
from picopay_api.worker.sealer import Sealer
from support.api import Api, served
from support.contract import hold


@pytest.fixture
async def api(database_url: DatabaseUrl) -> AsyncIterator[Api]:
    async with served(database_url) as api:
        hold(api.client)
        yield api


async def refusal(api: Api, *postings: tuple[Any, ...], **fields: Any) -> dict[str, Any]:
    answer = await api.transact(*postings, **fields)
    assert answer.status_code >= 400, answer.text
    problem: dict[str, Any] = answer.json()
    return problem


async def written(api: Api) -> list[Any]:
    """Return what can be seen of a ledger; a dry run and a refusal leave it as it is."""
    paths = ("transactions", "accounts", "accounts/@alice/entries", "accounts/@bob/entries")
    return [(await api.client.get(f"/v1/{path}")).json() for path in paths]


async def test_a_transaction_shows_all_that_is_known_of_it(api: Api) -> None:
    alice, bob = await api.account("alice", 50), await api.account("bob")
    made = await api.transact(
        ("@alice", "@bob", 20),
        (bob["id"], "@world", "5"),
        reference="order-1",
        metadata={"a": "b"},
    )
    assert made.status_code == 201
    transaction = made.json()
    assert re.fullmatch("tx_[0-9a-f]{32}", transaction["id"])
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", transaction["created_at"])
    world = (await api.client.get("/v1/accounts/@world")).json()["id"]
    assert transaction == {
        "object": "transaction",
        "id": transaction["id"],
        "postings": [
            {"source": alice["id"], "destination": bob["id"], "amount": 20, "asset": "USD"},
            {"source": bob["id"], "destination": world, "amount": 5, "asset": "USD"},
        ],
        "payment": None,
        "reverses": None,
        "reversed_by": None,
        "position": None,
        "dry_run": False,
        "reference": "order-1",
        "metadata": {"a": "b"},
        "created_at": transaction["created_at"],
    }
    assert (await api.client.get(f"/v1/transactions/{transaction['id']}")).json() == transaction
    (listed,) = (await api.client.get("/v1/transactions?reference=order-1")).json()["data"]
    assert listed == transaction
    assert (await api.available("alice"), await api.available("bob")) == (30, 15)


async def test_all_postings_happen_or_none(api: Api) -> None:
    await api.account("alice", 50)
    await api.account("bob")
    before = await written(api)
    many = [("@world", "@bob", 1)] * 30
    for last, code in (
        (("@alice", "@bob", 51), "insufficient_funds"),
        (("@alice", "@nobody", 1), "account_not_found"),
        (("@alice", "@alice", 1), "same_account"),
        (("@alice", "@bob", 1, "EUR"), "asset_mismatch"),
    ):
        assert (await refusal(api, *many, last))["code"] == code
    problem = await refusal(api, *many, ("@alice", "@bob", 0))
    assert problem["errors"][0]["pointer"] == "/postings/30/amount"
    problem = await refusal(api, *many, ("@alice", "@bob", "9999999999999999999"))
    assert problem["errors"][0]["pointer"] == "/postings/30/amount"
    assert await written(api) == before


async def test_as_many_postings_as_the_schema_says(api: Api) -> None:
    await api.account("alice")
    one = ("@world", "@alice", 1)
    assert (await refusal(api))["errors"][0]["pointer"] == "/postings"
    assert (await refusal(api, *[one] * 1_001))["errors"][0]["pointer"] == "/postings"
    made = await api.transact(*[one] * 1_000)
    assert made.status_code == 201
    assert len(made.json()["postings"]) == 1_000
    assert await api.available("alice") == 1_000


async def test_money_that_arrives_in_a_transaction_can_be_spent_in_it(api: Api) -> None:
    for name in ("alice", "bob", "carol"):
        await api.account(name)
    chain = [("@world", "@alice", 9), ("@alice", "@bob", 9), ("@bob", "@carol", 9)]
    assert (await api.transact(*chain)).status_code == 201
    # The order within a transaction does not matter: it happens at once.
    assert (await api.transact(*reversed(chain))).status_code == 201
    assert (
        await api.transact(("@carol", "@alice", 18), ("@alice", "@carol", 18))
    ).status_code == 201
    assert [await api.available(name) for name in ("alice", "bob", "carol")] == [0, 0, 18]
    problem = await refusal(api, *chain, ("@alice", "@bob", 5), ("@alice", "@bob", 2))
    assert (problem["code"], problem["available"], problem["required"]) == (
        "insufficient_funds",
        0,
        7,
    )


async def test_several_assets_move_together(api: Api) -> None:
    await api.account("alice", 10)
    await api.post("/v1/accounts", {"reference": "euros", "asset": "EUR"})
    swap = [("@alice", "@world", 10), ("@world", "@euros", 9, "EUR")]
    assert (await api.transact(*swap)).status_code == 201
    assert (await refusal(api, *swap))["code"] == "insufficient_funds"
    assert (await api.available("alice"), await api.available("euros")) == (0, 9)


async def test_conditions_are_judged_before_the_transaction(api: Api) -> None:
    alice = await api.account("alice", 100)
    await api.account("bob")
    await api.account("carol", 3)
    move = ("@alice", "@bob", 1)
    for condition in (
        {"account": "@alice", "available_gte": 101},
        {"account": "@alice", "available_gte": "101"},
        {"account": "@alice", "available_lte": 99},
        {"account": alice["id"], "available_gte": 0, "available_lte": 99},
        {"account": "@bob", "available_gte": 1},  # what it would have afterwards does not count
        {"account": "@carol", "available_gte": 4},  # no posting touches it
        {"account": "@world", "available_gte": 0},
        {"account": "@bob", "available_lte": "-4000000000000000000"},
    ):
        problem = await refusal(api, move, conditions=[{"account": "@carol"}, condition])
        assert problem["code"] == "condition_failed", condition
        found = (await api.client.get(f"/v1/accounts/{problem['account']}")).json()
        assert problem["available"] == found["balance"]["available"], condition
    assert await api.available("alice") == 100
    holds = [
        {"account": "@alice", "available_gte": 100, "available_lte": "100"},
        {"account": "@bob", "available_lte": 0},
        {"account": "@carol", "available_gte": None, "available_lte": None},
        {"account": "@world", "available_gte": "-4000000000000000000"},
    ]
    assert (await api.transact(move, conditions=holds)).status_code == 201
    nobody = await refusal(api, move, conditions=[{"account": "@nobody"}])
    assert nobody["code"] == "account_not_found"
    beyond = {"account": "@alice", "available_gte": "4000000000000000001"}
    problem = await refusal(api, move, conditions=[beyond])
    assert problem["errors"][0]["pointer"] == "/conditions/0/available_gte"


async def test_a_dry_run_tells_what_would_be_and_writes_nothing(api: Api) -> None:
    await api.account("alice", 100)
    await api.account("bob")
    before = await written(api)
    body = {
        "postings": [{"source": "@alice", "destination": "@bob", "amount": 60, "asset": "USD"}],
        "dry_run": True,
        "reference": "order-1",
        "metadata": {"a": "b"},
    }
    judged = await api.client.post("/v1/transactions", json=body)  # without a key
    assert judged.status_code == 200
    assert {**judged.json(), "postings": None} == {
        "object": "transaction",
        "id": None,
        "postings": None,
        "payment": None,
        "reverses": None,
        "reversed_by": None,
        "position": None,
        "dry_run": True,
        "reference": "order-1",
        "metadata": {"a": "b"},
        "created_at": None,
    }
    assert [posting["amount"] for posting in judged.json()["postings"]] == [60]
    with_key = await api.post("/v1/transactions", body, key="k")
    assert (with_key.status_code, with_key.content) == (200, judged.content)
    assert await written(api) == before
    # The key was not used up by it, nor the reference.
    made = await api.post("/v1/transactions", {**body, "dry_run": False}, key="k")
    assert (made.status_code, "Idempotent-Replayed" in made.headers) == (201, False)


async def test_a_dry_run_is_refused_as_the_transaction_would_be(api: Api) -> None:
    await api.account("alice", 100)
    await api.account("bob")
    assert (await api.transact(("@alice", "@bob", 1), reference="taken")).status_code == 201
    before = await written(api)
    for amount, fields in (
        (100, {}),
        (1, {"reference": "taken"}),
        (1, {"conditions": [{"account": "@bob", "available_gte": 2}]}),
    ):
        posting = ("@alice", "@bob", amount)
        dry = await refusal(api, posting, dry_run=True, **fields)
        wet = await refusal(api, posting, **fields)
        assert {**dry, "request_id": ""} == {**wet, "request_id": ""}
    assert await written(api) == before


async def test_a_reversal_is_the_mirror_image(api: Api) -> None:
    for name in ("alice", "bob", "carol"):
        await api.account(name)
    made = await api.transact(("@world", "@alice", 9), ("@alice", "@bob", 5), ("@bob", "@carol", 2))
    original = made.json()
    path = f"/v1/transactions/{original['id']}"
    answer = await api.post(f"{path}/reverse", {"reference": "undone", "metadata": {"why": "x"}})
    assert answer.status_code == 201
    reversal = answer.json()
    assert reversal["postings"] == [
        {**posting, "source": posting["destination"], "destination": posting["source"]}
        for posting in reversed(original["postings"])
    ]
    assert (reversal["reverses"], reversal["reversed_by"]) == (original["id"], None)
    assert (reversal["reference"], reversal["metadata"]) == ("undone", {"why": "x"})
    assert (await api.client.get(path)).json() == {**original, "reversed_by": reversal["id"]}
    assert (await api.client.get(f"/v1/transactions/{reversal['id']}")).json() == reversal
    assert [await api.available(name) for name in ("alice", "bob", "carol")] == [0, 0, 0]


async def test_what_is_reversed_is_not_reversed_again(api: Api) -> None:
    await api.account("alice")
    original = (await api.transact(("@world", "@alice", 9))).json()["id"]
    path = f"/v1/transactions/{original}/reverse"
    # Without a body, with an empty one and with an empty object: all mean the same.
    reversal = await api.client.post(path, headers={"Idempotency-Key": "r"})
    assert reversal.status_code == 201
    for content, headers in (
        (b"", {"Content-Type": "application/json"}),
        (b"{}", {"Content-Type": "application/json"}),
        (b' {"metadata" : {}, "reference": null} ', {"Content-Type": "application/json"}),
    ):
        again = await api.client.post(
            path, content=content, headers={"Idempotency-Key": "r", **headers}
        )
        assert (again.status_code, again.content) == (201, reversal.content)
        assert again.headers["Idempotent-Replayed"] == "true"
    for reverse, code in (
        (path, "transaction_already_reversed"),
        (f"/v1/transactions/{reversal.json()['id']}/reverse", "transaction_not_reversible"),
    ):
        refused = await api.post(reverse)
        assert (refused.status_code, refused.json()["code"]) == (409, code)
    assert await api.available("alice") == 0


async def test_money_that_is_gone_is_not_taken_back(api: Api) -> None:
    await api.account("alice")
    await api.account("bob")
    original = (await api.transact(("@world", "@alice", 9))).json()["id"]
    await api.pay("@alice", "@bob", 8)
    path = f"/v1/transactions/{original}/reverse"
    refused = await api.post(path, key="r")
    assert (refused.status_code, refused.json()["code"]) == (422, "insufficient_funds")
    assert (refused.json()["available"], refused.json()["required"]) == (1, 9)
    assert (await api.client.get(f"/v1/transactions/{original}")).json()["reversed_by"] is None
    # When it has come back, the old key keeps the refusal and a new one reverses.
    await api.pay("@bob", "@alice", 8)
    assert (await api.post(path, key="r")).status_code == 422
    assert (await api.post(path)).status_code == 201
    assert await api.available("alice") == 0


async def test_of_many_reversals_at_once_one_happens(api: Api, database_url: DatabaseUrl) -> None:
    await api.account("alice", 1_000)
    original = (await api.transact(("@world", "@alice", 9))).json()["id"]
    path = f"/v1/transactions/{original}/reverse"
    async with served(database_url) as second:
        second.client.headers = api.client.headers  # the same ledger, another process's worth
        hold(second.client)
        answers = await asyncio.gather(
            *(server.post(path, key=f"r{n}") for n, server in enumerate([api, second] * 6))
        )
    statuses = sorted(answer.status_code for answer in answers)
    assert statuses == [201] + [409] * 11
    assert await api.available("alice") == 1_000


async def test_a_transaction_has_its_position_once_it_is_sealed(api: Api) -> None:
    await api.account("alice")
    first = (await api.transact(("@world", "@alice", 9))).json()
    reversal = (await api.post(f"/v1/transactions/{first['id']}/reverse")).json()
    before = (await api.client.get("/v1/transactions")).json()["data"]
    assert [one["position"] for one in before] == [None, None]
    await Sealer(api.engine.database).step()
    later = (await api.transact(("@world", "@alice", 1))).json()
    for id, position in ((first["id"], 1), (reversal["id"], 2), (later["id"], None)):
        found = (await api.client.get(f"/v1/transactions/{id}")).json()
        assert found["position"] == position
    listed = (await api.client.get("/v1/transactions")).json()["data"]
    assert [one["position"] for one in listed] == [None, 2, 1]
