"""What an account admits: open, frozen and closed, over HTTP; and its balance, now and as it was."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest

from picopay_api.database_url import DatabaseUrl
from support.api import Api, served
from support.postgres import on_connection

TRANSITIONS = [
    # state before, action, status, state after
    ("open", "freeze", 200, "frozen"),
    ("open", "unfreeze", 200, "open"),
    ("open", "close", 200, "closed"),
    ("frozen", "freeze", 200, "frozen"),
    ("frozen", "unfreeze", 200, "open"),
    ("frozen", "close", 200, "closed"),
    ("closed", "freeze", 409, "closed"),
    ("closed", "unfreeze", 409, "closed"),
    ("closed", "close", 200, "closed"),
]
REACHED_BY = {"open": None, "frozen": "freeze", "closed": "close"}
NO_TIMES = [
    "",
    "now",
    "1795600000",
    "2026-11-23",
    "2026-11-23T10:00:00",
    "2026-11-23 10:00:00",
    "2026-11-23T10Z",
    "2026-11-23T10,5Z",
    "2026-11-23T100000Z",
    "2026-W47-1T10:00:00Z",
    "2026-11-23T10:00:00,5Z",
    "2026-11-23T10:00:00.Z",
    "2026-11-23T10:00:00%2B01:00:30",
    "2026-11-23T10:00:00%2B0100",
    "2026-13-01T00:00:00Z",
    "2026-02-29T00:00:00Z",
    "2026-11-23T25:00:00Z",
    "2026-11-23T10:00:00Zz",
    "2026-11-23T10:00:00Z%0A",
    "%D9%A2026-11-23T10:00:00Z",
    "202%D9%A6-11-23T10:00:00Z",
    "0001-01-01T00:00:00%2B14:00",
    "9999-12-31T23:59:59-14:00",
    "10000-01-01T00:00:00Z",
]
MILLISECOND = timedelta(milliseconds=1)


@pytest.fixture
async def api(database_url: DatabaseUrl) -> AsyncIterator[Api]:
    async with served(database_url) as api:
        yield api


async def act(api: Api, reference: str, action: str) -> httpx.Response:
    return await api.client.post(f"/v1/accounts/@{reference}/{action}")


async def posted(api: Api, reference: str, at: Any = None) -> int:
    """Return a balance, now or as it was."""
    query = {} if at is None else {"at": at.isoformat() if isinstance(at, datetime) else at}
    answer = await api.client.get(f"/v1/accounts/@{reference}/balance", params=query)
    assert answer.status_code == 200, answer.text
    return int(answer.json()["balance"]["posted"])


async def test_every_transition_between_states(api: Api) -> None:
    for n, (before, action, status, after) in enumerate(TRANSITIONS):
        await api.account(f"a{n}")
        if reach := REACHED_BY[before]:
            assert (await act(api, f"a{n}", reach)).json()["state"] == before
        answer = await act(api, f"a{n}", action)
        assert answer.status_code == status, (before, action)
        if status == 200:
            assert answer.json()["state"] == after
        else:
            assert answer.json()["code"] == "account_state_conflict"
        assert (await api.client.get(f"/v1/accounts/@a{n}")).json()["state"] == after
        # What is only described can be changed in every state.
        changed = await api.client.patch(f"/v1/accounts/@a{n}", json={"metadata": {"k": "v"}})
        assert (changed.status_code, changed.json()["state"]) == (200, after)


@pytest.mark.parametrize(("action", "code"), [("freeze", "frozen"), ("close", "closed")])
async def test_who_is_not_open_neither_pays_nor_is_paid(api: Api, action: str, code: str) -> None:
    shut = await api.account("shut", 100 if action == "freeze" else 0, min_balance=-1000)
    await api.account("alice", 100)
    assert (await act(api, "shut", action)).status_code == 200
    refused = (422, f"account_{code}", shut["id"])
    for source, destination in (("@shut", "@alice"), ("@alice", "@shut"), (shut["id"], "@world")):
        answer = await api.pay(source, destination, 5)
        problem = answer.json()
        assert (answer.status_code, problem["code"], problem["account"]) == refused
    postings = [
        {"source": "@world", "destination": "@alice", "amount": 7, "asset": "USD"},
        {"source": "@alice", "destination": "@shut", "amount": 7, "asset": "USD"},
    ]
    for dry_run in (True, False):
        answer = await api.post("/v1/transactions", {"postings": postings, "dry_run": dry_run})
        problem = answer.json()
        assert (answer.status_code, problem["code"], problem["account"]) == refused
    assert await posted(api, "alice") == 100
    assert await posted(api, "shut") == (100 if action == "freeze" else 0)


async def test_what_was_refused_while_frozen_stays_refused_and_new_payments_pass(api: Api) -> None:
    await api.account("alice", 100)
    await api.account("bob")
    paid = (await api.pay("@alice", "@bob", 5)).json()
    await act(api, "bob", "freeze")
    assert (await api.pay("@alice", "@bob", 5, "k")).json()["code"] == "account_frozen"
    reverse = f"/v1/transactions/{paid['id'].replace('pay_', 'tx_')}/reverse"
    assert (await api.post(reverse)).json()["code"] == "account_frozen"
    await act(api, "bob", "unfreeze")
    again = await api.pay("@alice", "@bob", 5, "k")
    assert (again.status_code, again.headers["Idempotent-Replayed"]) == (422, "true")
    assert (await api.pay("@alice", "@bob", 5)).status_code == 201
    assert (await api.post(reverse)).status_code == 201
    assert await posted(api, "bob") == 5


async def test_only_an_empty_account_is_closed(api: Api) -> None:
    account = await api.account("alice", 10, min_balance=-50)
    for amount, more in ((10, -40), (-30, 30)):
        answer = await act(api, "alice", "close")
        problem = answer.json()
        assert (answer.status_code, problem["code"]) == (409, "account_not_empty")
        assert (problem["account"], problem["posted"], problem["held"]) == (
            account["id"],
            amount,
            0,
        )
        source, destination = ("@alice", "@world") if more < 0 else ("@world", "@alice")
        assert (await api.pay(source, destination, abs(more))).status_code == 201
    assert (await act(api, "alice", "close")).json()["state"] == "closed"
    # The statement of a closed account stays.
    entries = (await api.client.get("/v1/accounts/@alice/entries")).json()["data"]
    assert [entry["amount"] for entry in entries] == [30, -40, 10]


async def test_closing_while_payments_arrive_leaves_no_money_behind(api: Api) -> None:
    for n in range(6):
        await api.account(f"a{n}")
        async with asyncio.TaskGroup() as tasks:
            pays = [tasks.create_task(api.pay("@world", f"@a{n}", 1)) for _ in range(6)]
            close = tasks.create_task(act(api, f"a{n}", "close"))
        account = (await api.client.get(f"/v1/accounts/@a{n}")).json()
        arrived = [task.result().status_code for task in pays].count(201)
        assert account["balance"]["posted"] == arrived
        assert (account["state"] == "closed") == (close.result().status_code == 200)
        assert account["state"] == "open" or arrived == 0


async def test_a_change_that_waits_too_long_for_another_says_so(database_url: DatabaseUrl) -> None:
    changes: list[tuple[str, str, Any]] = [
        ("POST", "/freeze", None),
        ("POST", "/close", None),
        ("PATCH", "", {"metadata": {"k": "v"}}),
    ]
    async with served(database_url, lock_timeout_ms=100) as api:
        await api.account("alice")

        async def refused_all(connection: Any) -> None:
            async with connection.transaction():
                await connection.execute(
                    "SELECT FROM picopay.balance, picopay.account FOR NO KEY UPDATE"
                )
                for method, suffix, body in changes:
                    answer = await api.client.request(
                        method, f"/v1/accounts/@alice{suffix}", json=body
                    )
                    assert answer.status_code == 503, (suffix, answer.text)
                    assert answer.json()["code"] == "database_unavailable"
                    assert answer.headers["Retry-After"] == "1"

        await on_connection(database_url, refused_all)
        account = (await api.client.get("/v1/accounts/@alice")).json()
        assert (account["state"], account["metadata"]) == ("open", {})


async def test_a_balance_in_the_past_is_what_was_booked_until_then(api: Api) -> None:
    account = await api.account("alice")
    for amount in (100, 20, 3):
        await api.pay("@world", "@alice", amount)
        await asyncio.sleep(0.005)  # times have milliseconds
    await api.pay("@alice", "@world", 50)
    entries = (await api.client.get("/v1/accounts/@alice/entries")).json()["data"]
    assert len({entry["created_at"] for entry in entries}) == 4
    before = 0
    for entry in reversed(entries):
        moment = datetime.fromisoformat(entry["created_at"])
        assert await posted(api, "alice", moment - MILLISECOND) == before
        assert await posted(api, "alice", moment) == entry["balance_after"]
        assert await posted(api, "alice", moment + MILLISECOND / 2) == entry["balance_after"]
        before = entry["balance_after"]
    born = datetime.fromisoformat(account["created_at"])
    known: list[tuple[Any, int]] = [
        (born - timedelta(days=4000), 0),
        (born, 0),
        (datetime.now(UTC) + timedelta(days=1), 73),
        ("0001-01-01T00:00:00Z", 0),
        ("9999-12-31T23:59:59.999999Z", 73),
        (None, 73),
    ]
    for at, balance in known:
        assert await posted(api, "alice", at) == balance, at
    first = datetime.fromisoformat(entries[-1]["created_at"])
    assert await posted(api, "world", first) == -100


async def test_a_balance_tells_what_it_is_of(api: Api) -> None:
    account = await api.account("alice", 9)
    now = (await api.client.get("/v1/accounts/@alice/balance")).json()
    balance = {"posted": 9, "held": 0, "available": 9}
    assert now == {
        "object": "balance",
        "account": account["id"],
        "asset": "USD",
        "at": None,
        "balance": balance,
    }
    # The same moment in every form that RFC 3339 has for it; a plus sign may arrive as a blank.
    for moment in (
        "2100-01-01T10:00:00Z",
        "2100-01-01T10:00:00.000Z",
        "2100-01-01t10:00:00z",
        "2100-01-01T10:00Z",
        "2100-01-01T12:00:00%2B02:00",
        "2100-01-01T12:00:00+02:00",
        "2100-01-01T04:30:00-05:30",
        "2100-01-01T10:00:00.0000000009Z",
    ):
        then = await api.client.get(f"/v1/accounts/@alice/balance?at={moment}")
        assert then.json() == {**now, "at": "2100-01-01T10:00:00.000Z"}, moment


async def test_a_moment_that_is_no_time_is_refused(api: Api) -> None:
    await api.account("alice")
    for moment in NO_TIMES:
        answer = await api.client.get(f"/v1/accounts/@alice/balance?at={moment}")
        problem = answer.json()
        assert (answer.status_code, problem.get("code")) == (400, "invalid_request"), moment
        assert problem["errors"][0]["pointer"] == "?at", moment


async def test_the_outside_is_never_closed(api: Api) -> None:
    """It could be, at a balance of zero, and its asset would have no way in or out for ever."""
    await api.account("alice")
    await api.pay("@world", "@alice", 5)
    await api.pay("@alice", "@world", 5)
    world = (await api.client.get("/v1/accounts/@world")).json()
    assert world["balance"]["posted"] == 0
    for name in ("@world", "@world%2FUSD", world["id"]):
        answer = await api.client.post(f"/v1/accounts/{name}/close")
        assert (answer.status_code, answer.json()["code"]) == (409, "account_state_conflict"), name
        assert answer.json()["account"] == world["id"]
    assert (await api.pay("@world", "@alice", 5)).status_code == 201
