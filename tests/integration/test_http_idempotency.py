"""Once per key: replays, other bodies, what a key covers, what is not kept, many at once, two servers."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest

from picopay_api.database_url import DatabaseUrl
from picopay_api.engine.keys import ALL
from picopay_api.http.resources import LEAN
from support.api import Api, as_key, served
from support.contract import hold
from support.locks import held

PAYMENT: dict[str, Any] = {
    "source": "@alice",
    "destination": "@bob",
    "amount": 1_250,
    "asset": "USD",
    "metadata": {"b": "grüße", "a": "1"},
}


@pytest.fixture(params=[LEAN, ()], ids=["lean", "handler"])
async def api(database_url: DatabaseUrl, request: pytest.FixtureRequest) -> AsyncIterator[Api]:
    async with served(database_url, lean=request.param, body_bytes_max=4_096) as api:
        hold(api.client)
        await api.account("alice", 5_000)
        await api.account("bob")
        yield api


@asynccontextmanager
async def beside(api: Api, url: DatabaseUrl) -> AsyncIterator[Api]:
    """Serve the same ledger from a second server."""
    async with served(url, body_bytes_max=4_096) as second:
        second.client.headers = api.client.headers
        hold(second.client)
        yield second


def replayed(answer: httpx.Response) -> bool:
    """Tell whether an answer was given before."""
    assert answer.headers.get("Idempotent-Replayed") in {None, "true"}
    return "Idempotent-Replayed" in answer.headers


def lasting(answer: httpx.Response) -> dict[str, Any]:
    """Return a problem without what tells one request from another."""
    problem: dict[str, Any] = answer.json()
    assert problem.pop("request_id") == answer.headers["Request-Id"]
    return problem


async def test_a_replay_is_the_answer_again(api: Api, database_url: DatabaseUrl) -> None:
    postings = [{name: PAYMENT[name] for name in ("source", "destination", "amount", "asset")}]
    first = await api.post("/v1/payments", PAYMENT, key="k")
    reverse = f"/v1/transactions/{first.json()['id'].replace('pay_', 'tx_')}/reverse"
    asked = [("/v1/payments", PAYMENT, first)]
    for path, body in (
        ("/v1/transactions", {"postings": postings, "metadata": {"x": "y"}}),
        (reverse, {"reference": "undone"}),
        ("/v1/accounts", {"reference": "carol", "asset": "USD", "metadata": {"x": "y"}}),
    ):
        asked.append((path, body, await api.post(path, body, key="k")))
    async with beside(api, database_url) as second:
        for path, body, answer in asked:
            assert (answer.status_code, replayed(answer)) == (201, False), answer.text
            for server in (api, second):
                again = await server.post(path, body, key="k")
                assert (again.status_code, replayed(again)) == (201, True)
                assert again.content == answer.content
                assert again.headers["Content-Type"] == answer.headers["Content-Type"]
    assert await api.available("bob") == 1_250


async def test_a_refusal_is_kept_even_when_it_would_not_be_refused_any_more(
    api: Api, database_url: DatabaseUrl
) -> None:
    await api.pay("@alice", "@bob", 4_000)
    poor = await api.post("/v1/payments", PAYMENT, key="poor")
    posting = {"source": "@alice", "destination": "@bob", "amount": 1, "asset": "USD"}
    conditional = {
        "postings": [posting],
        "conditions": [{"account": "@alice", "available_gte": 1_001}],
    }
    failed = await api.post("/v1/transactions", conditional, key="failed")
    await api.client.post("/v1/accounts/@bob/freeze")
    frozen = await api.pay("@bob", "@alice", 1, key="frozen")
    await api.client.post("/v1/accounts/@bob/unfreeze")
    await api.pay("@world", "@alice", 100_000)
    async with beside(api, database_url) as second:
        for server in (api, second):
            for code, before, again in (
                ("insufficient_funds", poor, await server.post("/v1/payments", PAYMENT, "poor")),
                (
                    "condition_failed",
                    failed,
                    await server.post("/v1/transactions", conditional, "failed"),
                ),
                ("account_frozen", frozen, await server.pay("@bob", "@alice", 1, "frozen")),
            ):
                assert (before.status_code, before.json()["code"]) == (422, code)
                assert (again.status_code, replayed(again)) == (422, True)
                assert not replayed(before)
                assert lasting(again) == lasting(before)
                assert again.json()["request_id"] != before.json()["request_id"]
    assert (await api.post("/v1/payments", PAYMENT, key="another")).status_code == 201


async def test_a_taken_reference_is_kept_with_its_key(api: Api) -> None:
    await api.post("/v1/payments", {**PAYMENT, "reference": "order-1"})
    taken = await api.post("/v1/payments", {**PAYMENT, "reference": "order-1"}, key="k")
    again = await api.post("/v1/payments", {**PAYMENT, "reference": "order-1"}, key="k")
    assert (taken.status_code, again.status_code, replayed(again)) == (409, 409, True)
    assert lasting(taken) == lasting(again)


async def test_a_key_is_not_for_another_body(api: Api) -> None:
    made = await api.post("/v1/payments", PAYMENT, key="k")
    alice = made.json()["source"]
    changes: list[dict[str, Any]] = [
        {"amount": 1_251},
        {"source": alice},  # the same account, named otherwise: the page of the error says so
        {"destination": "@world"},
        {"reference": "r"},
        {"metadata": {}},
        {"metadata": {"b": "grüße", "a": "2"}},
        {"metadata": {"b": "grüße", "a": "1", "c": ""}},
        {"amount": 999_999},  # although it would have been refused anyway
    ]
    for change in changes:
        refused = await api.post("/v1/payments", {**PAYMENT, **change}, key="k")
        assert refused.status_code == 422, change
        assert (refused.json()["code"], replayed(refused)) == ("idempotency_key_reused", False)
    again = await api.post("/v1/payments", PAYMENT, key="k")
    assert (again.content, replayed(again)) == (made.content, True)
    assert await api.available("bob") == 1_250


async def test_a_key_of_a_refusal_is_not_for_another_body_either(api: Api) -> None:
    assert (await api.pay("@alice", "@bob", 9_999, key="k")).status_code == 422
    other = await api.pay("@alice", "@bob", 1, key="k")
    assert (other.status_code, other.json()["code"]) == (422, "idempotency_key_reused")
    assert await api.available("bob") == 0


async def test_a_key_covers_one_operation_of_one_ledger(api: Api) -> None:
    first = await api.pay("@alice", "@bob", 10, key="k")
    moved = await api.transact(("@alice", "@bob", 10), key="k")
    other_move = await api.transact(("@alice", "@bob", 10), key="l")
    undo = "/v1/transactions/{}/reverse"
    undone = await api.post(undo.format(moved.json()["id"]), key="k")
    made = await api.post("/v1/accounts", {"asset": "USD"}, key="k")
    for answer in (first, moved, other_move, undone, made):
        assert (answer.status_code, replayed(answer)) == (201, False)
    # What is reversed is part of what was asked.
    reused = await api.post(undo.format(other_move.json()["id"]), key="k")
    assert (reused.status_code, reused.json()["code"]) == (422, "idempotency_key_reused")
    other = await api.engine.ledgers.create("other", {})
    secret = (await api.engine.keys.create(other.id, "other", [ALL])).secret
    async with httpx.AsyncClient(base_url=api.url, headers=as_key(secret)) as client:
        theirs = Api(api.url, api.engine, client)
        await theirs.account("alice", 10)
        await theirs.account("bob")
        paid = await theirs.pay("@alice", "@bob", 10, key="k")
    assert (paid.status_code, replayed(paid)) == (201, False)
    assert paid.json()["id"] != first.json()["id"]


async def test_a_key_is_the_same_in_quotes(api: Api) -> None:
    for bare, *spelled in (
        ("order-1841", '"order-1841"'),
        ("a b", '"a b"'),
        ('a"b\\c', '"a\\"b\\\\c"'),
        ("x" * 255, f'"{"x" * 255}"'),
    ):
        first = await api.pay("@alice", "@bob", 1, key=bare)
        assert (first.status_code, replayed(first)) == (201, False), bare
        for key in spelled:
            again = await api.pay("@alice", "@bob", 1, key=key)
            assert (again.content, replayed(again)) == (first.content, True), key
    for other in ("Order-1841", "order-1841,", "order-1842", '"order-1841'):
        assert not replayed(await api.pay("@alice", "@bob", 1, key=other)), other
    for wrong in ('""', f'"{"x" * 256}"', '" a"', '"a "'):
        refused = await api.pay("@alice", "@bob", 1, key=wrong)
        assert refused.json()["code"] == "idempotency_key_invalid", wrong


async def test_what_was_not_decided_is_not_kept(api: Api) -> None:
    other = await api.secret("payments:read")
    good = json.dumps(PAYMENT)
    as_json = {"Content-Type": "application/json", "Idempotency-Key": "k"}
    for content, headers, code in (
        (good, {"Authorization": ""}, "authentication_required"),
        (good, as_key("ppk_no"), "api_key_invalid"),
        (good, as_key(other), "scope_missing"),
        (good, {"PicoPay-Version": "2020-01-01"}, "invalid_request"),
        (good, {"Content-Type": "text/plain"}, "unsupported_media_type"),
        (good + " " * 5_000, {}, "body_too_large"),
        (good[:-1], {}, "malformed_body"),
        (good.replace("1250", "12.5"), {}, "invalid_request"),
        (good.replace("@alice", "@nobody"), {}, "account_not_found"),
        (good.replace("@alice", "@bob"), {}, "same_account"),
        (good.replace("USD", "EUR"), {}, "asset_mismatch"),
        (good.replace("@alice", "@world").replace("USD", "usd"), {}, "asset_unknown"),
    ):
        answer = await api.client.post(
            "/v1/payments", content=content, headers={**as_json, **headers}
        )
        assert (answer.json()["code"], replayed(answer)) == (code, False)
    paid = await api.post("/v1/payments", PAYMENT, key="k")
    assert (paid.status_code, replayed(paid)) == (201, False)


async def test_the_spelling_of_a_body_does_not_matter(api: Api) -> None:
    first = await api.post("/v1/payments", PAYMENT, key="k")
    for content in (
        json.dumps(PAYMENT),
        json.dumps(PAYMENT, indent=4),
        json.dumps(PAYMENT, ensure_ascii=False),
        json.dumps(PAYMENT, sort_keys=True),
        json.dumps(dict(reversed(PAYMENT.items()))),
        json.dumps({**PAYMENT, "amount": "1250"}),
        json.dumps({**PAYMENT, "metadata": {"a": "1", "b": "grüße"}}),
        json.dumps({**PAYMENT, "capture": True, "reference": None}),
        json.dumps(PAYMENT).replace('"amount"', '"\\u0061mount"').replace("@", "\\u0040"),
        json.dumps(PAYMENT).replace("/", "\\/").replace(":", "\t:\r\n"),
    ):
        again = await api.client.post(
            "/v1/payments",
            content=content,
            headers={"Content-Type": "application/json; charset=UTF-8", "Idempotency-Key": "k"},
        )
        assert (again.status_code, replayed(again), again.json()) == (201, True, first.json())
    assert await api.available("bob") == 1_250


async def test_many_at_once_with_one_key_pay_once(api: Api, database_url: DatabaseUrl) -> None:
    async with beside(api, database_url) as second:
        for key, amount, status in (("paid", 10, 201), ("refused", 99_999, 422)):
            answers = await asyncio.gather(
                *(server.pay("@alice", "@bob", amount, key) for server in [api, second] * 15)
            )
            assert {answer.status_code for answer in answers} == {status}
            assert [replayed(answer) for answer in answers].count(False) == 1
            bodies = [lasting(a) if status == 422 else a.json() for a in answers]
            assert bodies == bodies[:1] * 30
    assert await api.available("bob") == 10


async def test_many_at_once_with_one_key_and_two_bodies_pay_once(
    api: Api, database_url: DatabaseUrl
) -> None:
    async with beside(api, database_url) as second:
        answers = await asyncio.gather(
            *(
                server.pay("@alice", "@bob", n % 3 + 1, "k")
                for n, server in enumerate([api, second] * 9)
            )
        )
    codes = {answer.json().get("code") for answer in answers if answer.status_code != 201}
    assert codes <= {"idempotency_key_reused", "idempotency_key_in_flight"}
    paid = {answer.json()["amount"] for answer in answers if answer.status_code == 201}
    assert paid == {await api.available("bob")}


async def test_a_key_in_flight(api: Api, database_url: DatabaseUrl) -> None:
    async with held(database_url, "alice") as alice:
        first = asyncio.create_task(api.pay("@alice", "@bob", 10, key="k"))
        await alice.waited_for()
        other = await api.pay("@alice", "@bob", 11, key="k")
        assert (other.status_code, other.json()["code"]) == (409, "idempotency_key_in_flight")
        assert int(other.headers["Retry-After"]) >= 1
        # Another operation, another key and the same body are not in its way.
        joined = asyncio.create_task(api.pay("@alice", "@bob", 10, key="k"))
        assert (await api.pay("@world", "@bob", 1, key="l")).status_code == 201
    paid, again = await first, await joined
    assert (paid.status_code, replayed(paid)) == (201, False)
    assert (again.content, replayed(again)) == (paid.content, True)
    late = await api.pay("@alice", "@bob", 11, key="k")
    assert (late.status_code, late.json()["code"]) == (422, "idempotency_key_reused")
    assert await api.available("bob") == 11


async def test_a_client_that_hangs_up_is_told_the_outcome_when_it_asks_again(
    api: Api, database_url: DatabaseUrl
) -> None:
    async with held(database_url, "alice") as alice:
        lost = asyncio.create_task(api.pay("@alice", "@bob", 10, key="k"))
        await alice.waited_for()
        lost.cancel()
        await asyncio.gather(lost, return_exceptions=True)
    again = await api.pay("@alice", "@bob", 10, key="k")
    assert (again.status_code, replayed(again)) == (201, True)
    assert await api.available("bob") == 10


async def test_an_account_is_made_once_per_key(api: Api, database_url: DatabaseUrl) -> None:
    body = {"reference": "carol", "asset": "USD", "min_balance": -100, "metadata": {"tier": "gold"}}
    made = await api.post("/v1/accounts", body, key="k")
    await api.pay("@world", "@carol", 5)
    await api.client.patch("/v1/accounts/@carol", json={"metadata": {"tier": "silver"}})
    again = await api.post("/v1/accounts", {**body, "min_balance": "-100"}, key="k")
    assert (again.status_code, replayed(again), again.content) == (201, True, made.content)
    other = await api.post("/v1/accounts", {**body, "reference": "dave"}, key="k")
    assert (other.status_code, other.json()["code"]) == (422, "idempotency_key_reused")
    without = await api.client.post("/v1/accounts", json=body)
    assert (without.status_code, without.json()["code"]) == (409, "reference_taken")
    # Without a reference nothing but the key tells two accounts apart.
    nameless = [
        (await api.client.post("/v1/accounts", json={"asset": "USD"})).json()["id"] for _ in "12"
    ]
    assert len(set(nameless)) == 2
    async with beside(api, database_url) as second:
        for reference in ("erin", None):
            asked = {"asset": "USD", "reference": reference}
            answers = await asyncio.gather(
                *(server.post("/v1/accounts", asked, "many") for server in [api, second] * 6)
            )
            shown = [(answer.status_code, answer.text) for answer in answers]
            if reference is not None:
                assert shown == shown[:1] * 12
                assert [replayed(answer) for answer in answers].count(False) == 1
            else:
                assert {status for status, _ in shown} == {422}
