"""Bad input gets a 4xx with its code and the place of the fault, never a 500, and moves nothing."""

from collections.abc import AsyncIterator

import pytest

from picopay_api.database_url import DatabaseUrl
from support.api import Api, served

_PAYMENT = '{"source": "@alice", "destination": "@bob", "asset": "USD", "amount": %s}'
_DEEP = '{"metadata": ' + "[" * 5000 + "]" * 5000 + "}"

HOSTILE: list[tuple[str | bytes, str, str | None]] = [
    ("", "malformed_body", None),
    ("   ", "malformed_body", None),
    ("{", "malformed_body", None),
    ("{} {}", "malformed_body", None),
    (b"\xff\xfe{}", "malformed_body", None),
    (b'\xef\xbb\xbf{"source": 1}', "malformed_body", None),
    (_DEEP, "malformed_body", None),
    (_PAYMENT % "NaN", "malformed_body", None),
    (_PAYMENT % "Infinity", "malformed_body", None),
    (_PAYMENT % "01", "malformed_body", None),
    (_PAYMENT % '1, "amount": 2', "malformed_body", None),
    (_PAYMENT % '1, "metadata": {"a": "\\ud800"}', "malformed_body", None),
    (_PAYMENT % "12.5", "invalid_request", "/amount"),
    (_PAYMENT % "1.0", "invalid_request", "/amount"),
    (_PAYMENT % "1e2", "invalid_request", "/amount"),
    (_PAYMENT % "true", "invalid_request", "/amount"),
    (_PAYMENT % "null", "invalid_request", "/amount"),
    (_PAYMENT % "0", "invalid_request", "/amount"),
    (_PAYMENT % "-5", "invalid_request", "/amount"),
    (_PAYMENT % '"1.5"', "invalid_request", "/amount"),
    (_PAYMENT % '""', "invalid_request", "/amount"),
    (_PAYMENT % '"12\\n"', "invalid_request", "/amount"),
    (_PAYMENT % '"9999999999999999999"', "invalid_request", "/amount"),
    (_PAYMENT % "1000000000000000001", "invalid_request", "/amount"),
    (_PAYMENT % ("9" * 400), "invalid_request", "/amount"),
    (_PAYMENT % "[]", "invalid_request", "/amount"),
    (_PAYMENT % '1, "ammount": 2', "invalid_request", "/ammount"),
    (_PAYMENT % '1, "capture": false', "invalid_request", "/capture"),
    (_PAYMENT % '1, "reference": ""', "invalid_request", "/reference"),
    (_PAYMENT % '1, "reference": "a\\n"', "invalid_request", "/reference"),
    (_PAYMENT % '1, "reference": "a\\u0000"', "invalid_request", "/reference"),
    (_PAYMENT % '1, "metadata": {"a": "b\\u0000"}', "invalid_request", "/metadata/a"),
    (_PAYMENT % '1, "metadata": {"a": 1}', "invalid_request", None),
    (_PAYMENT % ('1, "metadata": {"a": "%s"}' % ("x" * 501)), "invalid_request", None),
    ('{"source": "@alice"}', "invalid_request", "/destination"),
    ("[]", "invalid_request", ""),
    ("1", "invalid_request", ""),
    ("null", "invalid_request", ""),
]


@pytest.fixture
async def api(database_url: DatabaseUrl) -> AsyncIterator[Api]:
    async with served(database_url, body_bytes_max=65_536) as api:
        await api.account("alice", 10_000)
        await api.account("bob")
        yield api


async def test_hostile_bodies_are_refused_at_their_fault(api: Api) -> None:
    for body, code, pointer in HOSTILE:
        answer = await api.client.post(
            "/v1/payments",
            content=body,
            headers={"Content-Type": "application/json", "Idempotency-Key": "k"},
        )
        problem = answer.json()
        shown = (body[:120], problem)
        assert (answer.status_code, problem["code"]) == (400, code), shown
        assert answer.headers["Content-Type"] == "application/problem+json", shown
        assert problem["request_id"] == answer.headers["Request-Id"], shown
        if pointer is not None:
            assert problem["errors"][0]["pointer"] == pointer, shown
    assert await api.available("alice") == 10_000


@pytest.mark.parametrize(
    "content_type", ["text/plain", "", "application/json; charset=latin-1", "application/xml"]
)
async def test_only_json_in_utf_8_is_read(api: Api, content_type: str) -> None:
    answer = await api.client.post(
        "/v1/payments",
        content=_PAYMENT % "1",
        headers={"Content-Type": content_type, "Idempotency-Key": "k"},
    )
    assert (answer.status_code, answer.json()["code"]) == (415, "unsupported_media_type")


async def test_a_body_beyond_the_limit_is_refused_with_and_without_its_length(api: Api) -> None:
    async def chunks() -> AsyncIterator[bytes]:
        for _ in range(100):
            yield b" " * 1024

    headers = {"Content-Type": "application/json", "Idempotency-Key": "k"}
    for content in (b" " * 70_000, chunks()):
        answer = await api.client.post("/v1/payments", content=content, headers=headers)
        assert (answer.status_code, answer.json()["code"]) == (413, "body_too_large")


@pytest.mark.parametrize(
    "query",
    [
        "limit=0",
        "limit=101",
        "limit=x",
        "limit=1&limit=2",
        "cursor=nonsense",
        "cursor=%00",
        "cursor=",
        "status=lost",
        "account=%00",
        "colour=red",
        "metadata=x",
        "metadata[]=x",
        "created_at[gte]=yesterday",
        "created_at[gte]=2026-11-23T10:00:00",
        "created_at[around]=2026-11-23T10:00:00Z",
        "reference=%ff",
        "a" * 3000,
    ],
)
async def test_bad_queries_are_refused(api: Api, query: str) -> None:
    answer = await api.client.get(f"/v1/payments?{query}")
    assert answer.status_code == 400, answer.text
    assert answer.json()["code"] in {"invalid_request", "invalid_cursor"}


async def test_a_cursor_is_not_for_other_filters(api: Api) -> None:
    for _ in range(3):
        await api.pay("@alice", "@bob", 1)
    page = (await api.client.get("/v1/payments?limit=1")).json()
    again = await api.client.get(f"/v1/payments?limit=1&cursor={page['next_cursor']}")
    assert again.status_code == 200
    other = await api.client.get(f"/v1/payments?status=captured&cursor={page['next_cursor']}")
    assert (other.status_code, other.json()["code"]) == (400, "invalid_cursor")


@pytest.mark.parametrize("key", ["", "x" * 256, "k\u00fc"])
async def test_idempotency_keys_that_cannot_be_are_refused(api: Api, key: str) -> None:
    answer = await api.client.post(
        "/v1/payments",
        content=_PAYMENT % "1",
        headers=[
            (b"Content-Type", b"application/json"),
            (b"Idempotency-Key", key.encode("latin-1")),
        ],
    )
    assert (answer.status_code, answer.json()["code"]) == (400, "idempotency_key_invalid")


async def test_money_is_not_moved_without_an_idempotency_key(api: Api) -> None:
    body = {"source": "@alice", "destination": "@bob", "amount": 1, "asset": "USD"}
    answer = await api.client.post("/v1/payments", json=body)
    assert (answer.status_code, answer.json()["code"]) == (400, "idempotency_key_missing")
