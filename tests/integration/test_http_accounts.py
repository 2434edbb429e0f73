"""Accounts over HTTP: how they are made, addressed and described."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import quote

import pytest

from picopay_api.database_url import DatabaseUrl
from support.api import Api, as_key, served

NOBODY = "acct_" + "0" * 32
Body = dict[str, Any]

REFERENCES = [
    "a/b",
    "/",
    "a/../b",
    "..",
    "100%",
    "%2F",
    "a%20b",
    "a b",
    " a",
    "a+b",
    "?limit=1",
    "#top",
    "x&y=z;w",
    "quo\"te's`",
    "<b>",
    "back\\slash",
    "{account}",
    "grüße",
    "e\u0301",
    "日本",
    "🎉" * 255,
    "x@y.example",
    "null",
    "world2",
    "World",
    "'; DROP TABLE picopay.account; --",
]


@pytest.fixture
async def api(database_url: DatabaseUrl) -> AsyncIterator[Api]:
    async with served(database_url) as api:
        yield api


def at(reference: str) -> str:
    return f"/v1/accounts/@{quote(reference, safe='')}"


async def created(api: Api, body: Body, key: str | None = None) -> Body:
    answer = await api.post("/v1/accounts", body, key)
    assert answer.status_code == 201, answer.text
    account: Body = answer.json()
    return account


async def refusal(api: Api, body: Any) -> tuple[int, str, str | None]:
    """Return status, code and place of the fault of an account that cannot be made."""
    answer = await api.client.post("/v1/accounts", json=body)
    problem = answer.json()
    errors = problem.get("errors")
    return answer.status_code, problem["code"], errors[0]["pointer"] if errors else None


async def test_an_account_is_what_was_asked_for(api: Api) -> None:
    plain = await created(api, {"asset": "USD"})
    assert plain == {
        "id": plain["id"],
        "object": "account",
        "reference": None,
        "asset": "USD",
        "min_balance": 0,
        "state": "open",
        "balance": {"posted": 0, "held": 0, "available": 0},
        "metadata": {},
        "created_at": plain["created_at"],
    }
    assert plain["id"].startswith("acct_")
    assert plain["created_at"].endswith("Z")
    asked = {
        "asset": "BTC/8",
        "reference": "alice",
        "min_balance": -500,
        "metadata": {"tier": "gold", "grüße": ""},
    }
    full = await created(api, asked)
    assert {name: full[name] for name in asked} == asked
    for path in (f"/v1/accounts/{full['id']}", at("alice")):
        assert (await api.client.get(path)).json() == full


async def test_the_floor_is_zero_or_less_or_none(api: Api) -> None:
    kept = [
        (None, None),
        (0, 0),
        ("0", 0),
        (-1, -1),
        ("-500", -500),
        (-(2**53), str(-(2**53))),
        ("-4000000000000000000", "-4000000000000000000"),
    ]
    for asked, shown in kept:
        account = await created(api, {"asset": "USD", "min_balance": asked})
        assert account["min_balance"] == shown
        got = await api.client.get(f"/v1/accounts/{account['id']}")
        assert got.json()["min_balance"] == shown
    for refused in (1, "1", 10**18, -4 * 10**18 - 1, "-9999999999999999999", True, 0.5, "", "-0.5"):
        assert await refusal(api, {"asset": "USD", "min_balance": refused}) == (
            400,
            "invalid_request",
            "/min_balance",
        ), refused


async def test_an_account_is_spent_down_to_its_floor_and_no_further(api: Api) -> None:
    await api.account("till", min_balance=-500)
    await api.account("mint", min_balance=None)
    assert (await api.pay("@till", "@mint", 501)).json()["code"] == "insufficient_funds"
    assert (await api.pay("@till", "@mint", 500)).status_code == 201
    assert (await api.pay("@till", "@mint", 1)).status_code == 422
    assert (await api.pay("@mint", "@till", 10**18)).status_code == 201
    assert (await api.client.get(at("mint"))).json()["balance"] == {
        "posted": str(500 - 10**18),
        "held": 0,
        "available": str(500 - 10**18),
    }


async def test_assets_are_currencies_or_state_their_exponent(api: Api) -> None:
    for asset in ("USD", "EUR", "JPY", "KWD", "BTC/8", "ETH/18", "POINTS/0", "A1/2"):
        assert (await created(api, {"asset": asset}))["asset"] == asset
    unknown = ("usd", "Usd", "USD/2", "EUR/0", "btc/8", "BTC", "BTC/19", "BTC/08", "ZZZ", "X/99")
    for asset in unknown:
        assert (await refusal(api, {"asset": asset}))[:2] == (422, "asset_unknown"), asset
    for body in ("", "US D", "USD/", "/8", "US$", "BTC/8/8", "BTC/-1", " USD", "Ü", 840, None):
        assert await refusal(api, {"asset": body}) == (400, "invalid_request", "/asset"), body
    assert await refusal(api, {}) == (400, "invalid_request", "/asset")


async def test_a_reference_names_one_account_for_ever(api: Api) -> None:
    await created(api, {"asset": "USD", "reference": "alice"})
    taken = await api.client.post("/v1/accounts", json={"asset": "EUR", "reference": "alice"})
    assert (taken.status_code, taken.json()["code"]) == (409, "reference_taken")
    assert taken.json()["reference"] == "alice"
    assert (await api.client.post(at("alice") + "/close")).status_code == 200
    assert (await refusal(api, {"asset": "USD", "reference": "alice"}))[0] == 409
    other = await api.engine.ledgers.create("other")
    headers = as_key((await api.engine.keys.create(other.id, "other", ["*"])).secret)
    body = {"asset": "USD", "reference": "alice"}
    assert (await api.client.post("/v1/accounts", json=body, headers=headers)).status_code == 201


async def test_references_that_cannot_be(api: Api) -> None:
    for reference in ("world", "world/USD", "world/", "world/anything"):
        answer = await refusal(api, {"asset": "USD", "reference": reference})
        assert answer[:2] == (409, "reference_taken"), reference
    malformed = ["", "@a", "acct_a", NOBODY, "a\n", "a\tb", "\u0085", "x" * 256, 7, ["a"]]
    for body in ({"asset": "USD", "reference": reference} for reference in malformed):
        assert await refusal(api, body) == (400, "invalid_request", "/reference"), body


async def test_an_account_is_found_by_any_reference(api: Api) -> None:
    async def found(reference: str, amount: int) -> None:
        account = await created(api, {"asset": "USD", "reference": reference})
        assert (await api.pay("@world", f"@{reference}", amount)).status_code == 201, reference
        path = at(reference)
        got = (await api.client.get(path)).json()
        assert (got["id"], got["reference"]) == (account["id"], reference), got
        assert got["balance"]["posted"] == amount
        assert (await api.client.get(f"{path}/balance")).json()["account"] == account["id"]
        assert len((await api.client.get(f"{path}/entries")).json()["data"]) == 1
        listed = (await api.client.get("/v1/accounts", params={"reference": reference})).json()
        assert [one["id"] for one in listed["data"]] == [account["id"]], reference
        paid = await api.client.get("/v1/payments", params={"account": f"@{reference}"})
        assert [payment["amount"] for payment in paid.json()["data"]] == [amount]
        assert (await api.client.post(f"{path}/freeze")).json()["state"] == "frozen"

    await asyncio.gather(*(found(one, n) for n, one in enumerate(REFERENCES, start=1)))
    every = quote("@grüße").replace("%40", "@").lower()  # digits of either case, and an escaped @
    for path in (f"/v1/accounts/{every}", f"/v1/accounts/{quote('@grüße', safe='')}"):
        assert (await api.client.get(path)).json()["reference"] == "grüße"


async def test_who_is_not_there_is_not_found(api: Api) -> None:
    calls = [("GET", ""), ("GET", "/balance"), ("GET", "/entries"), ("GET", "/entries?format=csv")]
    calls += [("POST", "/freeze"), ("POST", "/unfreeze"), ("POST", "/close"), ("PATCH", "")]
    for address in ("@nobody", "nobody", "@", "acct_", NOBODY, "acct_" + "A" * 32, "@%0A", "%20"):
        for method, suffix in calls:
            body: Body | None = {"metadata": {}} if method == "PATCH" else None
            path = f"/v1/accounts/{address}{suffix}"
            answer = await api.client.request(method, path, json=body)
            assert (answer.status_code, answer.json()["code"]) == (404, "account_not_found"), path
    for address in ("%00", "@a%00", "@%F0", "@%ED%A0%80"):
        answer = await api.client.get(f"/v1/accounts/{address}")
        assert (answer.status_code, answer.json()["code"]) == (400, "invalid_request"), address


async def test_the_outside_has_an_account_for_each_asset(api: Api) -> None:
    assert (await api.client.get(at("world"))).status_code == 404
    await api.account("alice", 700)
    world = (await api.client.get(at("world"))).json()
    assert (world["reference"], world["min_balance"], world["asset"]) == ("world/USD", None, "USD")
    assert world["balance"]["posted"] == -700
    await created(api, {"asset": "EUR", "reference": "erin"})
    body = {"source": "@world", "destination": "@erin", "amount": 5, "asset": "EUR"}
    assert (await api.post("/v1/payments", body)).status_code == 201
    # Now the name alone says no more which of them is meant.
    assert (await api.client.get(at("world"))).status_code == 404
    for asset, posted in (("USD", -700), ("EUR", -5)):
        got = (await api.client.get(at(f"world/{asset}"))).json()
        assert got["balance"]["posted"] == posted


async def test_the_same_key_makes_one_account(api: Api) -> None:
    body = {"asset": "USD", "reference": "alice", "metadata": {"a": "b"}}
    answers = await asyncio.gather(*(api.post("/v1/accounts", body, "k") for _ in range(8)))
    assert {answer.status_code for answer in answers} == {201}
    assert len({answer.text for answer in answers}) == 1
    replayed = [answer for answer in answers if "Idempotent-Replayed" in answer.headers]
    assert len(replayed) == 7
    # As it was decided, whatever has become of it since.
    await api.client.post(f"/v1/accounts/{answers[0].json()['id']}/freeze")
    again = await api.post("/v1/accounts", body, "k")
    assert (again.text, again.headers["Idempotent-Replayed"]) == (answers[0].text, "true")
    other = await api.post("/v1/accounts", {**body, "asset": "EUR"}, "k")
    assert (other.status_code, other.json()["code"]) == (422, "idempotency_key_reused")
    plain = {"asset": "USD"}
    one, two = [(await api.client.post("/v1/accounts", json=plain)).json() for _ in range(2)]
    assert one["id"] != two["id"]


async def test_of_many_at_once_one_gets_the_reference(api: Api) -> None:
    body = {"asset": "USD", "reference": "alice"}
    answers = await asyncio.gather(*(api.post("/v1/accounts", body) for _ in range(8)))
    assert sorted(answer.status_code for answer in answers) == [201, *[409] * 7]
    listed = await api.client.get("/v1/accounts")
    assert len(listed.json()["data"]) == 1


async def test_metadata_merges_and_null_removes(api: Api) -> None:
    await api.account("alice", metadata={"tier": "gold", "old": "x", "same": "s"})
    changes = {"tier": "silver", "old": None, "new": "n", "same": "s", "never": None}
    answer = await api.client.patch(at("alice"), json={"metadata": changes})
    after = {"tier": "silver", "new": "n", "same": "s"}
    assert answer.json()["metadata"] == after
    assert (await api.client.get(at("alice"))).json()["metadata"] == after
    assert (await api.client.patch(at("alice"), json={"metadata": {}})).json()["metadata"] == after
    # Filters see what it has become.
    for key, value, found in [
        ("tier", "gold", 0),
        ("old", "x", 0),
        ("tier", "silver", 1),
        ("new", "n", 1),
        ("same", "s", 1),
    ]:
        listed = await api.client.get("/v1/accounts", params={f"metadata[{key}]": value})
        assert len(listed.json()["data"]) == found, key


async def test_metadata_is_bounded(api: Api) -> None:
    widest = {f"{n:02}" + "🎉" * 38: "🎉" * 500 for n in range(50)}
    await api.account("alice", metadata=widest)
    assert (await api.client.get(at("alice"))).json()["metadata"] == widest
    first = next(iter(widest))
    for changes, pointer in [
        ({"one more": "x"}, "/metadata"),
        ({f"k{n}": "x" for n in range(51)}, "/metadata"),
        ({first: "x" * 501}, None),
        ({"k" * 41: None}, None),
        ({"": "x"}, None),
        ({"a\n": "x"}, None),
        ({first: "\x00"}, None),
        ({first: 1}, None),
        ({first: {"a": "b"}}, None),
    ]:
        answer = await api.client.patch(at("alice"), json={"metadata": changes})
        problem = answer.json()
        assert (answer.status_code, problem["code"]) == (400, "invalid_request"), changes
        if pointer:
            assert problem["errors"][0]["pointer"] == pointer
    bodies: list[Any] = [
        {},
        {"metadata": None},
        {"metadata": {}, "asset": "x"},
        [],
        {"metadata": []},
    ]
    for body in bodies:
        answer = await api.client.patch(at("alice"), json=body)
        assert answer.status_code == 400, body
    assert (await api.client.get(at("alice"))).json()["metadata"] == widest
    exchanged = {first: None, "one more": "x"}
    answer = await api.client.patch(at("alice"), json={"metadata": exchanged})
    assert len(answer.json()["metadata"]) == 50


async def test_changes_of_metadata_at_the_same_time_are_all_kept(api: Api) -> None:
    await api.account("alice")
    changes = [{"metadata": {f"k{n}": str(n)}} for n in range(12)]
    await asyncio.gather(*(api.client.patch(at("alice"), json=change) for change in changes))
    got = (await api.client.get(at("alice"))).json()["metadata"]
    assert got == {f"k{n}": str(n) for n in range(12)}
