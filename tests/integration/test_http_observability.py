"""Metrics over HTTP: each changes by what has happened, and none holds a text of a client."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from picopay_api import metrics
from picopay_api.database_url import DatabaseUrl
from picopay_api.errors import BY_CODE
from picopay_api.http.front import UNMATCHED
from picopay_api.http.resources import OPERATIONS
from support.api import Api, as_key, served
from support.postgres import on_connection
from support.waiting import eventually

Labels = tuple[str, ...]
Samples = dict[tuple[str, Labels], float]

BY_THE_WORKER = {
    "seal_lag_seconds",
    "sealed_events_total",
    "audit_findings",
    "audit_checked_events_total",
    "partitions_created_total",
    "default_partition_rows",
}
"""What servers do not count; tests of the worker do."""

A_BATCH = [("batch_commands_sum",), ("queue_delay_seconds_count",), ("commit_seconds_count",)]


@pytest.fixture(autouse=True)
def fresh() -> None:
    """Forget what other tests have counted in this process: a server has a process of its own."""
    for metric in metrics.catalogue():
        if metrics.labels(metric):
            metric.clear()
    metrics.child.cache_clear()


@pytest.fixture
async def api(database_url: DatabaseUrl) -> AsyncIterator[Api]:
    async with served(database_url) as api:
        await api.account("alice", 1_000)
        await api.account("bob")
        yield api


async def samples(api: Api) -> Samples:
    """Read the metrics of PicoPay's own, by name without its prefix and by values of labels, as sorted."""
    page = (await api.client.get("/metrics", headers={"Authorization": ""})).text
    return {
        (sample.name.removeprefix("picopay_"), tuple(sample.labels.values())): sample.value
        for family in text_string_to_metric_families(page)
        for sample in family.samples
        if sample.name.startswith("picopay_") and not sample.name.endswith(("_bucket", "_created"))
    }


@asynccontextmanager
async def counting(api: Api) -> AsyncIterator[Samples]:
    """Tell by how much the counts of everything but the pages of metrics have changed in a block."""
    changes: Samples = {}
    before = await samples(api)
    yield changes
    for name, value in (await samples(api)).items():
        gauge = name[0] in {
            *("pool_connections", "ready", "schema_revision", "queue_commands"),
            "http_connections",
        }
        seconds = name[0].endswith("seconds_sum")
        if not gauge and not seconds and "/metrics" not in name[1] and value != before.get(name, 0):
            changes[name] = value - before.get(name, 0)


def request(route: str, method: str, status: int) -> list[tuple[str, ...]]:
    return [
        ("http_requests_total", method, route, str(status)),
        ("http_request_seconds_count", route),
    ]


def once(*names: tuple[str, ...]) -> Samples:
    return {(name, tuple(labels)): 1.0 for name, *labels in names}


Asked = Callable[[Api], Awaitable[httpx.Response]]

PAID = request("/v1/payments", "POST", 201)
REFUSED = request("/v1/payments", "POST", 422)
BOOKED = request("/v1/transactions", "POST", 201)
SHORT = ("insufficient_funds_total",)
REPLAYED = ("idempotency_replays_total",)


def pay(amount: int, key: str | None = None, source: str = "@alice") -> Asked:
    return lambda api: api.pay(source, "@bob", amount, key)


def book(amount: int, key: str | None = None, source: str = "@alice", **fields: Any) -> Asked:
    return lambda api: api.transact((source, "@bob", amount), key=key, **fields)


def made(path: str, body: dict[str, Any], key: str | None = None) -> Asked:
    return lambda api: api.post(path, body, key)


def read(path: str, method: str = "GET", **headers: str) -> Asked:
    return lambda api: api.client.request(method, path, headers=headers)


HAPPENINGS: list[tuple[str, Asked, list[tuple[str, ...]]]] = [
    ("a payment", pay(1, "k1"), [("payments_total", "captured"), *A_BATCH, *PAID]),
    (
        "the same again",
        pay(1, "k1"),
        [("payments_total", "captured"), REPLAYED, *A_BATCH, *PAID],
    ),
    (
        "its key for another one",
        pay(2, "k1"),
        [("payments_total", "idempotency_key_reused"), *A_BATCH, *REFUSED],
    ),
    (
        "a payment of too much",
        pay(10**6, "k2"),
        [("payments_total", "insufficient_funds"), SHORT, *A_BATCH, *REFUSED],
    ),
    (
        "the same again",
        pay(10**6, "k2"),
        [("payments_total", "insufficient_funds"), SHORT, REPLAYED, *A_BATCH, *REFUSED],
    ),
    (
        "a payment of nobody",
        pay(1, source="@nobody"),
        [("payments_total", "account_not_found"), *request("/v1/payments", "POST", 404)],
    ),
    (
        "a payment to oneself",
        pay(1, source="@bob"),
        [("payments_total", "same_account"), *REFUSED],
    ),
    ("a payment that is none", pay(0), request("/v1/payments", "POST", 400)),
    ("a transaction", book(1, "t1"), [("transactions_total", "ok"), *A_BATCH, *BOOKED]),
    (
        "the same again",
        book(1, "t1"),
        [("transactions_total", "ok"), REPLAYED, *A_BATCH, *BOOKED],
    ),
    (
        "a transaction of too much",
        book(10**6),
        [
            ("transactions_total", "insufficient_funds"),
            SHORT,
            *A_BATCH,
            *request("/v1/transactions", "POST", 422),
        ],
    ),
    (
        "a transaction of nobody",
        book(1, source="@nobody"),
        [("transactions_total", "account_not_found"), *request("/v1/transactions", "POST", 404)],
    ),
    (
        "a dry run, which is none",
        book(1, dry_run=True),
        [*A_BATCH, *request("/v1/transactions", "POST", 200)],
    ),
    (
        "a reversal of nothing",
        made(f"/v1/transactions/tx_{'0' * 32}/reverse", {}),
        [
            ("transactions_total", "transaction_not_found"),
            *request("/v1/transactions/{transaction}/reverse", "POST", 404),
        ],
    ),
    (
        "an account",
        made("/v1/accounts", {"asset": "USD"}, "a1"),
        request("/v1/accounts", "POST", 201),
    ),
    (
        "the same again",
        made("/v1/accounts", {"asset": "USD"}, "a1"),
        [REPLAYED, *request("/v1/accounts", "POST", 201)],
    ),
    ("a look", read("/v1/accounts/@alice"), request("/v1/accounts/{account}", "GET", 200)),
    (
        "a statement",
        read("/v1/accounts/@alice/entries?format=csv"),
        request("/v1/accounts/{account}/entries", "GET", 200),
    ),
    ("a path that is not there", read("/v1/nothing/x"), request(UNMATCHED, "GET", 404)),
    ("a method that is not there", read("/v1/payments", "PUT"), request(UNMATCHED, "PUT", 405)),
    ("a method of clients", read("/v1/payments", "PROPFIND"), request(UNMATCHED, "other", 405)),
    ("health", read("/health"), request("/health", "GET", 200)),
    (
        "nobody",
        read("/v1/payments", Authorization=""),
        [("authentication_failures_total",), *request("/v1/payments", "GET", 401)],
    ),
    (
        "a wrong key",
        read("/v1/ledgers", Authorization="Bearer ppk_wrong"),
        [("authentication_failures_total",), *request("/v1/ledgers", "GET", 401)],
    ),
]


async def test_everything_that_happens_is_counted_once_where_it_belongs(api: Api) -> None:
    for what, ask, names in HAPPENINGS:
        async with counting(api) as changes:
            await ask(api)
        expected = once(*names)
        if names != [one for one in names if one not in A_BATCH]:
            expected["batch_commands_count", ()] = 1.0
        assert changes == expected, what
    original = (await api.pay("@alice", "@bob", 3)).json()["id"].replace("pay_", "tx_")
    async with counting(api) as changes:
        assert (await api.post(f"/v1/transactions/{original}/reverse")).status_code == 201
    assert changes["transactions_total", ("ok",)] == 1
    assert ("payments_total", ("captured",)) not in changes


async def test_payments_at_once_share_batches(api: Api) -> None:
    async with counting(api) as changes:
        answers = await asyncio.gather(*(api.pay("@alice", "@bob", 1) for _ in range(30)))
    assert {answer.status_code for answer in answers} == {201}
    assert changes["payments_total", ("captured",)] == 30
    assert changes["batch_commands_sum", ()] == 30
    batches = changes["batch_commands_count", ()]
    assert 1 <= batches <= 30
    assert changes["queue_delay_seconds_count", ()] == batches
    assert changes["commit_seconds_count", ()] == batches
    assert changes["http_requests_total", ("POST", "/v1/payments", "201")] == 30


async def test_a_rate_that_is_used_up_is_counted(database_url: DatabaseUrl) -> None:
    async with served(database_url, rate_limit_requests=3, rate_limit_window_s=3_600) as api:
        secret = await api.secret("payments:read")
        async with counting(api) as changes:
            for _ in range(5):
                await api.client.get("/v1/payments", headers=as_key(secret))
    assert changes == {
        ("rate_limited_total", ()): 2,
        ("http_requests_total", ("GET", "/v1/payments", "200")): 3,
        ("http_requests_total", ("GET", "/v1/payments", "429")): 2,
        ("http_request_seconds_count", ("/v1/payments",)): 5,
    }


async def test_a_queue_that_is_full_is_counted(database_url: DatabaseUrl) -> None:
    settings: dict[str, Any] = {
        "queue_commands_max": 1,
        "batch_commands_max": 1,
        "commit_connections": 1,
    }
    async with served(database_url, lock_timeout_ms=10_000, **settings) as api:
        await api.account("alice", 100)
        await api.account("bob")

        async def overfill(connection: Any) -> None:
            taken = (await samples(api))["batch_commands_count", ()]

            async def is_being_decided() -> bool:
                return (await samples(api))["batch_commands_count", ()] > taken

            async with connection.transaction():
                await connection.execute("SELECT FROM picopay.balance FOR UPDATE")
                first = asyncio.ensure_future(api.pay("@alice", "@bob", 1))
                await eventually(is_being_decided)
                async with counting(api) as changes:
                    # There is room for one of two.
                    others = [asyncio.ensure_future(api.pay("@alice", "@bob", 1)) for _ in "ab"]
                    (done,), (waiting,) = await asyncio.wait(
                        others, return_when=asyncio.FIRST_COMPLETED
                    )
                answer = done.result()
                assert (answer.status_code, answer.json()["code"]) == (503, "overloaded")
                assert answer.headers["Retry-After"] == "1"
                assert changes == once(
                    ("queue_refusals_total",),
                    ("payments_total", "overloaded"),
                    *request("/v1/payments", "POST", 503),
                )
            assert [(await paid).status_code for paid in (first, waiting)] == [201, 201]

        await on_connection(database_url, overfill)
        assert (await samples(api))["queue_commands", ()] == 0


async def test_a_batch_that_is_sent_again_is_counted(database_url: DatabaseUrl) -> None:
    async with served(database_url, lock_timeout_ms=100) as api:
        await api.account("alice", 100)
        await api.account("bob")
        retried = ("batch_retries_total", ("LockNotAvailableError",))

        async def hold_up(connection: Any) -> None:
            before = (await samples(api)).get(retried, 0)

            async def again() -> bool:
                return (await samples(api)).get(retried, 0) > before

            transaction = connection.transaction()
            await transaction.start()
            await connection.execute("SELECT FROM picopay.balance FOR UPDATE")
            paying = asyncio.ensure_future(api.pay("@alice", "@bob", 1))
            await eventually(again)
            await transaction.rollback()
            assert (await paying).status_code == 201

        await on_connection(database_url, hold_up)


async def test_sessions_of_the_pools_are_used_and_idle(api: Api) -> None:
    await asyncio.gather(*(api.client.get("/v1/accounts") for _ in range(20)))
    await api.pay("@alice", "@bob", 1)
    now = await samples(api)
    for pool, most in (("picopay", 4), ("picopay-commits", 2)):
        assert now["pool_connections", (pool, "used")] == 0, pool
        assert 1 <= now["pool_connections", (pool, "idle")] <= most


async def test_the_process_tells_of_itself(api: Api) -> None:
    now = await samples(api)
    assert now["ready", ()] == 1
    assert [value for (name, _), value in now.items() if name == "schema_revision"] == [1]


async def test_no_label_holds_what_a_client_wrote(api: Api) -> None:
    marks = [f"mark{n}" for n in range(12)]
    mark = iter(marks)
    await api.client.get(f"/{next(mark)}")
    await api.client.get(f"/v1/accounts/@{next(mark)}")
    await api.client.get(f"/v1/payments?account=@{next(mark)}&{next(mark)}=1")
    await api.client.request(next(mark).upper(), "/v1/payments")
    await api.client.get(
        "/v1/payments", headers={"Request-Id": next(mark), "traceparent": next(mark)}
    )
    await api.client.get("/v1/payments", headers=as_key(next(mark)))
    await api.account(next(mark), metadata={next(mark): next(mark)})
    await api.pay("@alice", "@bob", 1, next(mark))
    page = (await api.client.get("/metrics")).text
    assert not [one for one in marks if one in page.lower()]
    routes = {operation.path for operation in OPERATIONS} | {UNMATCHED}
    routes |= {"/health", "/livez", "/readyz", "/metrics", "/docs", "/openapi.json"}
    for family in text_string_to_metric_families(page):
        for sample in family.samples:
            if not sample.name.startswith("picopay_"):
                continue
            assert sample.labels.get("route", UNMATCHED) in routes
            assert sample.labels.get("outcome", "ok") in {"ok", "captured", *BY_CODE}
            assert sample.labels.get("pool", "picopay") in {"picopay", "picopay-commits"}
            assert sample.labels.get("state", "idle") in {"used", "idle"}


def test_each_metric_of_a_server_is_one_of_these_tests() -> None:
    counted = {names[0] for _, _, happened in HAPPENINGS for names in happened}
    counted |= {"batch_commands_sum", "rate_limited_total", "queue_refusals_total"}
    counted |= {"queue_commands", "batch_retries_total", "pool_connections", "ready"}
    counted |= {"schema_revision", "http_connections"}
    # By test_slow_clients.py and test_http_raw_socket.py.
    counted |= {"http_slow_connections_total", "http_unreadable_requests_total"}
    for metric in metrics.catalogue():
        (family,) = metric.describe()
        suffixes = {"counter": "_total", "gauge": "", "histogram": "_count"}
        name = family.name.removeprefix("picopay_") + suffixes[family.type]
        known = counted | BY_THE_WORKER | {"batch_commands_count"}
        assert name in known, name
