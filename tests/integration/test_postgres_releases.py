"""Every supported release of PostgreSQL, from an empty database to a clean full audit, over HTTP."""

import csv
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from picopay_api.database_url import DatabaseUrl
from picopay_api.store import migrate
from picopay_api.worker.audit_all import audit_everything
from picopay_api.worker.auditor import Auditor
from picopay_api.worker.partitions import INTERVAL_S, Partitions
from picopay_api.worker.sealer import Sealer
from support.api import Api, served
from support.postgres import VERSIONS, Server
from support.sql import value

YEARS_AGO, YEARS_AHEAD = "2001-01-01T00:00:00Z", "2101-01-01T00:00:00Z"
INVOICE = {"metadata": {"invoice": "7"}, "reference": "invoice-7"}


@pytest.fixture(params=VERSIONS)
def version(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def url(version: str, postgres: Callable[[str], Server]) -> Iterator[DatabaseUrl]:
    with postgres(version).database(migrated=False) as url:
        yield url


async def test_a_ledger_lives_on_every_release(url: DatabaseUrl, version: str) -> None:
    await migrate.upgrade_async(url)
    assert await migrate.drift(url) == []
    assert (await migrate.read_state(url)).is_head()
    running = await value(url, "SELECT current_setting('server_version')")
    assert running.split()[0] == version
    assert await value(url, "SELECT rolsuper FROM pg_roles WHERE rolname = current_user") is False
    async with served(url) as api:
        assert await api.engine.database.value("SELECT current_user") == "picopay_app"
        payment = await pay(api)
        transaction = await transact_and_reverse(api)
        await require_statement(api)
        await require_lists(api, payment, transaction)
        await freeze_and_close(api)
        await seal_and_audit(api, payment)


async def pay(api: Api) -> dict[str, Any]:
    await api.account("alice", 1_000, metadata={"tier": "gold"})
    await api.account("bob")
    body = {"source": "@alice", "destination": "@bob", "amount": 250, "asset": "USD"} | INVOICE
    paid = await api.post("/v1/payments", body, "order-1")
    assert (paid.status_code, paid.json()["status"]) == (201, "captured")
    again = await api.post("/v1/payments", body, "order-1")
    assert (again.status_code, again.headers["Idempotent-Replayed"]) == (201, "true")
    assert again.json() == paid.json()
    other = await api.post("/v1/payments", body | {"amount": 251}, "order-1")
    assert (other.status_code, other.json()["code"]) == (422, "idempotency_key_reused")
    taken = await api.post("/v1/payments", body, "order-2")
    assert (taken.status_code, taken.json()["code"]) == (409, "reference_taken")
    refused = await api.pay("@alice", "@bob", 751, "order-3")
    assert (refused.status_code, refused.json()["code"]) == (422, "insufficient_funds")
    assert refused.json()["available"] == 750
    found: dict[str, Any] = paid.json()
    return found


async def transact_and_reverse(api: Api) -> dict[str, Any]:
    postings = [("@alice", "@bob", 100), ("@bob", "@alice", 30)]
    dry = await api.transact(*postings, dry_run=True)
    assert (dry.status_code, dry.json()["id"]) == (200, None)
    condition = {"account": "@alice", "available_gte": 10_000}
    refused = await api.transact(*postings, conditions=[condition])
    assert (refused.status_code, refused.json()["code"]) == (422, "condition_failed")
    made = await api.transact(*postings, metadata={"batch": "1"}, key="batch-1")
    assert made.status_code == 201
    path = f"/v1/transactions/{made.json()['id']}"
    undone = await api.post(f"{path}/reverse", {"reference": "undone"})
    assert (undone.status_code, undone.json()["reverses"]) == (201, made.json()["id"])
    twice = await api.post(f"{path}/reverse")
    assert (twice.status_code, twice.json()["code"]) == (409, "transaction_already_reversed")
    found: dict[str, Any] = (await api.client.get(path)).json()
    assert found["reversed_by"] == undone.json()["id"]
    return found


async def require_statement(api: Api) -> None:
    answer = await api.client.get("/v1/accounts/@alice/entries", params={"format": "csv"})
    lines = list(csv.DictReader(answer.text.splitlines()))
    amounts = [int(line["amount"]) for line in lines]
    assert sorted(amounts) == sorted([1_000, -250, -100, 30, 100, -30])
    balances = [int(line["balance_after"]) for line in lines]
    assert balances == [sum(amounts[: place + 1]) for place in range(len(amounts))]
    now = (await api.client.get("/v1/accounts/@alice/balance")).json()
    assert now["balance"]["posted"] == balances[-1] == 750
    then = {"at": YEARS_AGO}
    before = (await api.client.get("/v1/accounts/@alice/balance", params=then)).json()
    assert before["balance"]["posted"] == 0
    page = (await api.client.get("/v1/accounts/@alice/entries", params={"limit": 4})).json()
    rest = {"limit": 4, "cursor": page["next_cursor"]}
    page["data"] += (await api.client.get("/v1/accounts/@alice/entries", params=rest)).json()[
        "data"
    ]
    assert [entry["sequence"] for entry in page["data"]] == [6, 5, 4, 3, 2, 1]


async def require_lists(api: Api, payment: dict[str, Any], transaction: dict[str, Any]) -> None:
    """Require that each filter finds what it names, and what is not of it, not."""

    async def ids(path: str, **filters: str) -> list[str]:
        answer = await api.client.get(path, params=filters)
        assert answer.status_code == 200, answer.text
        return [found["id"] for found in answer.json()["data"]]

    alice = (await api.client.get("/v1/accounts/@alice")).json()["id"]
    bob = (await api.client.get("/v1/accounts/@bob")).json()["id"]
    assert await ids("/v1/accounts", reference="bob") == [bob]
    assert await ids("/v1/accounts", **{"metadata[tier]": "gold"}) == [alice]
    assert {alice, bob} < set(await ids("/v1/accounts", asset="USD"))
    assert await ids("/v1/accounts", asset="EUR") == []

    as_transaction = payment["id"].replace("pay_", "tx_")
    for path, id in (("/v1/payments", payment["id"]), ("/v1/transactions", as_transaction)):
        for filters in (
            {"reference": "invoice-7"},
            {"idempotency_key": "order-1"},
            {"metadata[invoice]": "7"},
            {"account": "@bob", "metadata[invoice]": "7", "created_at[gte]": YEARS_AGO},
        ):
            assert await ids(path, **filters) == [id]
        assert id in await ids(path, account="@alice")
        for filters in (
            {"reference": "invoice-8"},
            {"idempotency_key": "order-3"},
            {"metadata[invoice]": "8"},
            {"account": "@nobody"},
            {"created_at[gt]": YEARS_AHEAD},
            {"created_at[lt]": YEARS_AGO},
        ):
            assert await ids(path, **filters) == []
    assert len(await ids("/v1/payments", status="captured")) == 2
    assert await ids("/v1/payments", status="refunded") == []
    assert await ids("/v1/transactions", idempotency_key="batch-1") == [transaction["id"]]
    assert len(await ids("/v1/transactions")) == 4


async def freeze_and_close(api: Api) -> None:
    assert (await api.post("/v1/accounts/@bob/freeze")).json()["state"] == "frozen"
    refused = await api.pay("@alice", "@bob", 1)
    assert (refused.status_code, refused.json()["code"]) == (422, "account_frozen")
    assert (await api.post("/v1/accounts/@bob/unfreeze")).json()["state"] == "open"
    refused = await api.post("/v1/accounts/@bob/close")
    assert (refused.status_code, refused.json()["code"]) == (409, "account_not_empty")
    await api.account("carol")
    assert (await api.post("/v1/accounts/@carol/close")).json()["state"] == "closed"
    described = await api.client.patch("/v1/accounts/@bob", json={"metadata": {"tier": "iron"}})
    assert described.json()["metadata"] == {"tier": "iron"}


async def seal_and_audit(api: Api, payment: dict[str, Any]) -> None:
    database = api.engine.database
    await Sealer(database).step()
    events = (await api.client.get("/v1/events")).json()
    assert [event["position"] for event in events["data"]] == [1, 2, 3, 4]
    assert events["data"][1]["data"]["id"] == payment["id"]
    after = (await api.client.get("/v1/events", params={"after": 3})).json()
    assert [event["position"] for event in after["data"]] == [4]
    await Auditor(database, 0).step()
    state = (await api.client.get("/v1/audit")).json()
    assert (state["position"], state["sums"], state["findings"]) == (4, {"USD": 0}, [])
    assert await Partitions(database, 3).step() == INTERVAL_S
    for parent in ("journal", "entry", "idempotency_key"):
        assert await database.value(f"SELECT count(*) FROM picopay.{parent}_default") == 0
    assert await audit_everything(database, lambda _: None) == []
