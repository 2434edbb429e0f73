"""Payments over HTTP: what an answer holds, how accounts and amounts are written, what becomes of them."""

import re
from collections.abc import AsyncIterator
from urllib.parse import quote

import pytest

from picopay_api.database_url import DatabaseUrl
from picopay_api.http.resources import LEAN
from support.api import Api, served
from support.contract import hold

AMOUNT_MAX = 10**18
EXACT_MAX = 2**53 - 1
TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")

AMOUNTS: list[tuple[int | str, int | str]] = [
    (1, 1),
    ("1", 1),
    ("1250", 1_250),
    (EXACT_MAX, EXACT_MAX),
    (str(EXACT_MAX), EXACT_MAX),
    (EXACT_MAX + 1, str(EXACT_MAX + 1)),
    (str(EXACT_MAX + 2), str(EXACT_MAX + 2)),
    (AMOUNT_MAX, str(AMOUNT_MAX)),
    (str(AMOUNT_MAX), str(AMOUNT_MAX)),
]
"""What is sent, and how it is shown."""

REFERENCES = ("alice", "a/b c?d=e&f#g", "naïve 🎈", "100%", "%41", "a@b", "+1", "..", "'\"\\;--")


@pytest.fixture(params=[LEAN, ()], ids=["lean", "handler"])
async def api(database_url: DatabaseUrl, request: pytest.FixtureRequest) -> AsyncIterator[Api]:
    async with served(database_url, lean=request.param) as api:
        hold(api.client)
        yield api


async def test_a_payment_shows_all_that_is_known_of_it(api: Api) -> None:
    alice, bob = await api.account("alice", 2_000), await api.account("bob")
    body = {
        "source": "@alice",
        "destination": bob["id"],
        "amount": 1_250,
        "asset": "USD",
        "capture": True,
        "reference": "order 1841/é",
        "metadata": {"note": "grüße 🎈", "empty": ""},
    }
    made = await api.post("/v1/payments", body)
    assert made.status_code == 201
    payment = made.json()
    assert re.fullmatch("pay_[0-9a-f]{32}", payment["id"])
    assert TIME.fullmatch(payment["created_at"])
    assert payment == {
        "object": "payment",
        "id": payment["id"],
        "status": "captured",
        "amount": 1_250,
        "captured": 1_250,
        "refunded": 0,
        "asset": "USD",
        "source": alice["id"],
        "destination": bob["id"],
        "reference": "order 1841/é",
        "created_at": payment["created_at"],
        "expires_at": None,
        "metadata": {"note": "grüße 🎈", "empty": ""},
    }
    assert (await api.client.get(f"/v1/payments/{payment['id']}")).json() == payment
    assert (await api.available("alice"), await api.available("bob")) == (750, 1_250)


async def test_what_is_not_said_of_a_payment_is_null_or_empty(api: Api) -> None:
    await api.account("alice")
    payment = (await api.pay("@world", "@alice", 1)).json()
    assert (payment["reference"], payment["metadata"], payment["expires_at"]) == (None, {}, None)


async def test_a_payment_is_a_transaction_of_one_posting(api: Api) -> None:
    alice = await api.account("alice")
    payment = (await api.pay("@world", "@alice", 7)).json()
    digits = payment["id"].removeprefix("pay_")
    transaction = (await api.client.get(f"/v1/transactions/tx_{digits}")).json()
    assert transaction["payment"] == payment["id"]
    (posting,) = transaction["postings"]
    assert posting == {
        "source": payment["source"],
        "destination": alice["id"],
        "amount": 7,
        "asset": "USD",
    }
    assert (await api.client.get(f"/v1/payments/tx_{digits}")).status_code == 404
    assert (await api.client.get(f"/v1/transactions/pay_{digits}")).status_code == 404


async def test_a_transaction_is_no_payment(api: Api) -> None:
    await api.account("alice")
    transaction = (await api.transact(("@world", "@alice", 7))).json()
    digits = transaction["id"].removeprefix("tx_")
    assert transaction["payment"] is None
    missing = await api.client.get(f"/v1/payments/pay_{digits}")
    assert (missing.status_code, missing.json()["code"]) == (404, "payment_not_found")
    assert (await api.client.get("/v1/payments")).json()["data"] == []


async def test_amounts_are_exact_whatever_reads_them(api: Api) -> None:
    for number, (sent, shown) in enumerate(AMOUNTS):
        name = f"account-{number}"
        await api.account(name)
        payment = (await api.pay("@world", f"@{name}", sent)).json()
        assert (payment["amount"], payment["captured"]) == (shown, shown)
        assert (await api.client.get(f"/v1/payments/{payment['id']}")).json() == payment
        # What was answered can be sent back as it is, until nothing is left.
        balance = (await api.client.get(f"/v1/accounts/@{name}/balance")).json()["balance"]
        assert (balance["posted"], balance["available"]) == (shown, shown)
        assert (await api.pay(f"@{name}", "@world", balance["available"])).status_code == 201
        assert await api.available(name) == 0


async def test_an_account_is_named_by_id_or_by_whatever_reference(api: Api) -> None:
    for reference in REFERENCES:
        account = await api.account(reference, 10)
        # Dots alone would be taken for steps of the path by the client.
        path = f"/v1/accounts/@{quote(reference, safe='').replace('.', '%2e')}"
        found = (await api.client.get(path)).json()
        assert (found["id"], found["reference"]) == (account["id"], reference)
        by_reference = await api.pay(f"@{reference}", "@world", 4)
        by_id = await api.pay(account["id"], "@world", 6)
        assert by_reference.json()["source"] == by_id.json()["source"] == account["id"]
        assert (await api.client.get(path)).json()["balance"]["posted"] == 0


async def test_the_world_is_there_for_every_asset_on_demand(api: Api) -> None:
    for asset in ("USD", "JPY", "BTC/8", "POINTS/0", "X/18"):
        await api.post("/v1/accounts", {"reference": f"my {asset}", "asset": asset})
        body = {"source": "@world", "destination": f"@my {asset}", "amount": 12, "asset": asset}
        payment = (await api.post("/v1/payments", body)).json()
        world = (await api.client.get(f"/v1/accounts/{payment['source']}")).json()
        assert (world["reference"], world["asset"]) == (f"world/{asset}", asset)
        assert world["min_balance"] is None
        assert world["balance"] == {"posted": -12, "held": 0, "available": -12}
        again = {**body, "source": f"@world/{asset}"}
        assert (await api.post("/v1/payments", again)).json()["source"] == world["id"]


async def test_the_worlds_of_two_assets_are_two_accounts(api: Api) -> None:
    await api.account("alice", 5)
    await api.post("/v1/accounts", {"reference": "eve", "asset": "EUR"})
    body = {"source": "@world", "destination": "@eve", "amount": 5, "asset": "EUR"}
    euros = (await api.post("/v1/payments", body)).json()["source"]
    dollars = (await api.pay("@alice", "@world", 5)).json()["destination"]
    assert euros != dollars
    # Which of them is meant cannot be told without an asset.
    assert (await api.client.get("/v1/accounts/@world")).status_code == 404
    assert (await api.client.get("/v1/accounts/@world%2FEUR")).json()["id"] == euros


async def test_payments_are_listed_newest_first_in_pages(api: Api) -> None:
    await api.account("alice")
    made = [(await api.pay("@world", "@alice", n)).json() for n in range(1, 6)]
    listed, cursor = [], ""
    for expected, has_more in ((2, True), (2, True), (1, False)):
        page = (await api.client.get(f"/v1/payments?limit=2{cursor}")).json()
        assert len(page["data"]) == expected
        assert (page["has_more"], page["next_cursor"] is not None) == (has_more, has_more)
        listed += page["data"]
        cursor = f"&cursor={page['next_cursor']}"
    assert listed == made[::-1]


async def test_a_reversed_payment_is_refunded(api: Api) -> None:
    await api.account("alice", 100)
    await api.account("bob")
    made = await api.pay("@alice", "@bob", 60, key="once")
    payment = made.json()
    transaction = payment["id"].replace("pay_", "tx_")
    reversal = (await api.post(f"/v1/transactions/{transaction}/reverse")).json()
    refunded = {**payment, "status": "refunded", "refunded": 60}
    assert (await api.client.get(f"/v1/payments/{payment['id']}")).json() == refunded
    assert (await api.client.get("/v1/payments?status=refunded")).json()["data"] == [refunded]
    captured = (await api.client.get("/v1/payments?status=captured")).json()["data"]
    assert payment["id"] not in {one["id"] for one in captured}
    reversed_ = (await api.client.get(f"/v1/transactions/{transaction}")).json()
    assert (reversed_["reversed_by"], reversal["reverses"]) == (reversal["id"], transaction)
    assert (await api.available("alice"), await api.available("bob")) == (100, 0)
    # The key still answers what it answered, not what has become of it.
    assert (await api.pay("@alice", "@bob", 60, key="once")).content == made.content
