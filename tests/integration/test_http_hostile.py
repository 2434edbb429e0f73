"""Nothing that a client can send is a defect of the server, and none of it makes or loses money."""

import json
from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import quote_from_bytes

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from picopay_api.database_url import DatabaseUrl
from picopay_api.http.resources import OPERATIONS
from support.api import Api, served
from support.contract import hold, request_schema

PAYMENT = '"source": "@alice", "destination": "@bob", "asset": "USD"'
KEY = '"name": "n", "scopes": ["payments:read"]'

TWICE = [
    '{%s, "amount" :1,"amount":2}',
    '{%s, "amount"\t:1,"amount":2}',
    '{%s, "amount"\n:1,"amount":2}',
    '{%s, "amount":1,"\\u0061mount":2}',
    '{%s, "amount" :1,"amount":2, "metadata":{"a":"\\":"}}',
    '{%s, "amount":1,"metadata" :{"a" :"1","a":"2"}}',
]
"""Bodies of payments with a key twice, hidden from readers that count."""

PATHS = [
    ("/v1/accounts/@%00", 400, "invalid_request"),
    ("/v1/accounts/@a%00b/entries", 400, "invalid_request"),
    ("/v1/accounts/@%ff", 400, "invalid_request"),
    ("/v1/accounts/@%ed%a0%80", 400, "invalid_request"),
    ("/v1/payments/%00", 400, "invalid_request"),
    ("/v1/accounts/@a%01", 404, "account_not_found"),
    ("/v1/accounts/@a%2Fb", 404, "account_not_found"),
    ("/v1/accounts/@a%252Fb", 404, "account_not_found"),
    ("/v1/accounts/@%25", 404, "account_not_found"),
    ("/v1/accounts/@", 404, "account_not_found"),
    ("/v1/accounts/@alice%0a", 404, "account_not_found"),
    ("/v1/accounts/%40alice%20", 404, "account_not_found"),
    ("/v1/accounts/alice", 404, "account_not_found"),
    ("/v1/accounts/acct_" + "0" * 32, 404, "account_not_found"),
    ("/v1/accounts/ACCT_" + "0" * 32, 404, "account_not_found"),
    ("/v1/accounts/@" + "x" * 60_000, 404, "account_not_found"),
    ("/v1/payments/pay_" + "g" * 32, 404, "payment_not_found"),
    ("/v1/payments/pay_" + "0" * 31, 404, "payment_not_found"),
    ("/v1/payments/pay_" + "0" * 32 + "%0a", 404, "payment_not_found"),
    ("/v1/payments/" + "x" * 60_000, 404, "payment_not_found"),
    ("/v1/transactions/%C3%BC", 404, "transaction_not_found"),
    ("/v1/accounts/@a/b", 404, "not_found"),
    ("/v1/%70ayments", 404, "not_found"),
    ("/%761/payments", 404, "not_found"),
    ("/v1/../v1/payments", 404, "not_found"),
    ("/v1/" + "x" * 60_000, 404, "not_found"),
    ("/" + "a/" * 10_000, 404, "not_found"),
    ("/%00%ff%0a", 404, "not_found"),
]
"""What is asked for, byte by byte, and what becomes of it."""

QUERIES = [
    "accounts?metadata[%00]=x",
    "accounts?metadata[a%0a]=x",
    "accounts?metadata[a]=%00",
    "accounts?metadata[" + "a" * 41 + "]=x",
    "accounts?metadata[a]=x&metadata[a]=x",
    "accounts?reference=%ff",
    "accounts?reference=%ed%a0%80",
    "payments?reference=" + "x" * 60_000,
    "payments?" + "&".join(f"metadata[k{n}]=v" for n in range(100)),
    "payments?limit=1;limit=2",
    "payments?limit=%31%00",
    "payments?limit=٣",
    "payments?=1",
    "payments?limit",
    "payments?&",
    "payments?created_at[gte]=0001-01-01T00:00:00%2B14:00",
    "payments?created_at[lte]=9999-12-31T23:59:59-14:00",
    "payments?created_at[gte]=2026-02-30T00:00:00Z",
    "payments?created_at[gte]=2026-01-01T00:00:00%2B99:00",
    "accounts/@alice/balance?at=10000-01-01T00:00:00Z",
    "events?after=-1",
    "events?after=1e3",
    "events?after=" + "9" * 19,
    "events?after=" + "9" * 10_000,
    "api_keys?ledger=ldg_",
]
"""Queries that are refused as what they are."""

EDGES = [
    "events?after=2147483648",
    "events?after=" + "9" * 18,
    "events?after=0000000&limit=001",
    "payments?created_at[gte]=0001-01-01T00:00:00Z&created_at[lt]=9999-12-31T23:59:59.999999Z",
    "payments?created_at[gte]=9999-12-31T23:59:59Z",
    "payments?account=@world&created_at[lt]=0001-01-01T00:00:00Z",
    "accounts/@alice/balance?at=0001-01-01T00:00:00Z",
    "accounts/@alice/balance?at=9999-12-31T23:59:59.999999Z",
    "accounts/@alice/entries?created_at[gte]=0001-01-01T00:00:00Z",
    "accounts/@alice/entries?format=csv&created_at[lte]=9999-12-31T23:59:59Z",
    "accounts?metadata[%F0%9F%8E%88]=%F0%9F%8E%88",
]
"""Queries at the edge of what there is."""

EXPIRIES = ["9999-12-31T23:59:59-12:00", "0001-01-01T00:00:00+12:00", "2020-01-01T00:00:00Z"]


@pytest.fixture
async def api(database_url: DatabaseUrl) -> AsyncIterator[Api]:
    async with served(database_url) as api:
        hold(api.client)
        await api.account("alice", 1_000_000)
        await api.account("bob", 1_000_000)
        yield api


async def post(api: Api, path: str, content: str | bytes) -> tuple[int, dict[str, Any]]:
    """Post bytes as JSON with a key of their own."""
    answer = await api.client.post(
        path,
        content=content,
        headers={"Content-Type": "application/json", "Idempotency-Key": api.fresh_key()},
    )
    return answer.status_code, answer.json()


async def test_a_key_twice_is_seen_however_it_is_written(api: Api) -> None:
    for body in TWICE:
        status, problem = await post(api, "/v1/payments", body % PAYMENT)
        assert (status, problem["code"]) == (400, "malformed_body"), body
        assert "twice" in problem["detail"]
    assert await api.available("alice") == 1_000_000


async def test_paths_are_read_as_they_were_sent(api: Api) -> None:
    head = f"Host: x\r\nConnection: close\r\nAuthorization: {api.client.headers['Authorization']}"
    for path, status, code in PATHS:
        found, headers, body = await api.raw(f"GET {path} HTTP/1.1\r\n{head}\r\n\r\n".encode())
        problem = json.loads(body)
        assert (found, problem["code"]) == (status, code), path[:100]
        assert headers["content-type"] == "application/problem+json", path[:100]
        assert problem["instance"] == path, path[:100]


async def test_what_cannot_be_an_address_ends_at_the_door(api: Api) -> None:
    """The server under the application answers these, in plain text."""
    for path in (b"/" + b"x" * 100_000, b"/v1/accounts/@\xc3\xbc", b"/v1/\xff", b"no slash", b""):
        request = b"GET %s HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n" % path
        expected = 431 if len(path) > 65_536 else 400
        assert (await api.raw(request))[0] == expected, path[:100]


async def test_queries_are_refused_as_what_they_are(api: Api) -> None:
    for query in QUERIES:
        answer = await api.client.get(f"/v1/{query}")
        assert (answer.status_code, answer.json()["code"]) == (400, "invalid_request"), query[:100]
    for query in EDGES:
        answer = await api.client.get(f"/v1/{query}")
        assert answer.status_code == 200, (query, answer.text)


async def test_times_that_no_calendar_has_are_refused(api: Api) -> None:
    for expiry in EXPIRIES:
        status, problem = await post(api, "/v1/api_keys", f'{{{KEY}, "expires_at": "{expiry}"}}')
        assert (status, problem["errors"][0]["pointer"]) == (400, "/expires_at"), expiry
    last = f'{{{KEY}, "expires_at": "9999-12-31T23:59:59.999+12:00"}}'
    status, made = await post(api, "/v1/api_keys", last)
    assert (status, made["expires_at"]) == (201, "9999-12-31T11:59:59.999Z")


NAMED = ("@alice", "@bob", "@world")
WORDS = st.sampled_from(
    [
        *("@alice", "@bob", "@world", "@nobody", "@", "@world/USD", "acct_" + "0" * 32),
        *(
            "USD",
            "EUR",
            "usd",
            "BTC/8",
            "1",
            "1250",
            "-1",
            "",
            "1e3",
            "*",
            "admin",
            "payments:read",
        ),
        *("2030-01-01T00:00:00Z", "alice", "a\x00b", "\ud800", "\u2028", "grüße 🎈", "x" * 600),
    ]
)
NUMBERS = st.sampled_from([0, 1, 2, 100, -1, 10**18, 10**18 + 1, 2**53, 2**63, 2**64, 10**40, 0.5])
LEAVES = st.none() | st.booleans() | NUMBERS | st.integers() | st.floats() | WORDS | st.text()
VALUES = st.recursive(
    LEAVES,
    lambda one: st.lists(one, max_size=3) | st.dictionaries(WORDS | st.text(), one, max_size=3),
)
BLANKS = st.sampled_from(["", " ", "\n", "\t  "])
POSTED = {operation.path: operation for operation in OPERATIONS if operation.example}
FUZZED = ("/v1/payments", "/v1/transactions", "/v1/accounts", "/v1/api_keys")
SCHEMAS = {path: request_schema("POST", path) for path in FUZZED}


def spelled(value: Any, blank: str) -> str:
    """Write JSON with blanks where JSON allows them; NaN and lone surrogates pass through."""
    return json.dumps(value, separators=(f"{blank},{blank}", f"{blank}:{blank}"))


@st.composite
def bodies(draw: st.DrawFn) -> tuple[str, bytes]:
    """Make a body that is nearly right: members replaced, added, left out, or bytes changed."""
    path = draw(st.sampled_from(FUZZED))
    body: Any = json.loads(json.dumps(POSTED[path].example))
    for posting in body.get("postings", [body] if "amount" in body else ()):
        posting["source"], posting["destination"] = draw(st.permutations(NAMED))[:2]
        posting["amount"] = draw(st.integers(1, 10) | st.integers(1, 10**18) | NUMBERS)
    for _ in range(draw(st.integers(0, 3))):
        postings = body.get("postings")
        inner = postings[0] if isinstance(postings, list) and postings else None
        target = inner if isinstance(inner, dict) and draw(st.booleans()) else body
        name = draw(st.sampled_from([*target, "reference", "metadata", "min_balance", "x"]))
        if draw(st.booleans()):
            target[name] = draw(NUMBERS | WORDS | VALUES)
        else:
            target.pop(name, None)
    content = spelled(body, draw(BLANKS)).encode()
    if draw(st.sampled_from([True, False, False])):
        at = draw(st.integers(0, len(content)))
        content = (
            content[:at] + draw(st.binary(max_size=4)) + content[at + draw(st.integers(0, 4)) :]
        )
    return path, content


def promised(path: str, content: bytes) -> bool:
    """Tell whether the OpenAPI document lets anybody hope that a body is taken."""
    try:
        body = json.loads(content)
    except (ValueError, RecursionError):
        return False
    return SCHEMAS[path].is_valid(body)


async def check_money(api: Api) -> None:
    """Nothing was made or lost, and nobody is below the floor."""
    sums = await api.engine.database.rows(
        "SELECT asset, sum(posted_minor) AS total, bool_and(posted_minor >= coalesce(floor_minor,"
        " posted_minor)) AS above FROM picopay.balance GROUP BY asset"
    )
    assert [row for row in sums if row["total"] != 0 or not row["above"]] == []


shared = settings(max_examples=120, suppress_health_check=[HealthCheck.function_scoped_fixture])


@shared
@given(
    one=bodies()
    | st.tuples(st.sampled_from(FUZZED), st.binary(max_size=200))
    | st.tuples(st.sampled_from(FUZZED), st.builds(spelled, VALUES, BLANKS).map(str.encode))
)
async def test_no_body_is_a_defect(api: Api, one: tuple[str, bytes]) -> None:
    path, content = one
    status, answer = await post(api, path, content)
    assert status in {200, 201, 400, 404, 409, 422}, answer
    if not promised(path, content):
        assert status == 400, answer
    if status == 201 and path == "/v1/payments":
        assert 1 <= int(answer["amount"]) <= 10**18
    await check_money(api)


@shared
@given(
    path=st.sampled_from([operation.path for operation in OPERATIONS]),
    part=st.binary(min_size=1, max_size=30),
    query=st.dictionaries(
        st.sampled_from(
            ["limit", "cursor", "account", "after", "at", "metadata[a]", "created_at[gt]"]
        )
        | st.text(st.characters(exclude_categories=["Cs"]), max_size=10),
        st.binary(max_size=20),
        max_size=2,
    ),
)
@example(path="/v1/accounts/{account}", part=b"@\x00", query={})
async def test_no_address_is_a_defect(
    api: Api, path: str, part: bytes, query: dict[str, bytes]
) -> None:
    filled = path.replace("{", "\x00").replace("}", "\x00").split("\x00")
    if len(filled) > 1:
        filled[1] = quote_from_bytes(part, safe="@")
    pairs = "&".join(
        f"{quote_from_bytes(k.encode())}={quote_from_bytes(v)}" for k, v in query.items()
    )
    head = f"Host: x\r\nConnection: close\r\nAuthorization: {api.client.headers['Authorization']}"
    request = f"GET {''.join(filled)}?{pairs} HTTP/1.1\r\n{head}\r\n\r\n"
    status, headers, body = await api.raw(request.encode())
    assert status in {200, 400, 404, 405}, body
    if status >= 400:
        assert headers["content-type"] == "application/problem+json"
        assert json.loads(body)["status"] == status


@shared
@given(key=st.binary(max_size=300))
async def test_no_idempotency_key_is_a_defect(api: Api, key: bytes) -> None:
    body = json.dumps({"source": "@alice", "destination": "@world", "amount": 1, "asset": "USD"})
    request = (
        b"POST /v1/payments HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: %d\r\n"
        b"Content-Type: application/json\r\nAuthorization: %s\r\nIdempotency-Key: %s\r\n\r\n%s"
    ) % (len(body), api.client.headers["Authorization"].encode(), key, body.encode())
    status, _, _ = await api.raw(request)
    assert status in {201, 400}
