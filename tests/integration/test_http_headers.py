"""What travels beside the bodies: request ids, traces, quotas, versions, methods, headers that come twice."""

import asyncio
import gzip
import io
import json
import logging
import re
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import httpx
import pytest
import structlog

from picopay_api import logs
from picopay_api.database_url import DatabaseUrl
from picopay_api.http.operations import VERSION
from picopay_api.http.resources import OPERATIONS
from support.api import Api, as_key, served
from support.contract import hold
from support.waiting import eventually

Lines = Callable[[], list[dict[str, Any]]]
TRACE = "0af7651916cd43dd8448eb211c80319c"


@pytest.fixture
def lines() -> Iterator[Lines]:
    """Return what PicoPay logs during the test."""
    root = logging.getLogger()
    before = structlog.get_config(), root.handlers, root.level
    stream = io.StringIO()
    logs.configure("DEBUG", "json", stream)

    def logged() -> list[dict[str, Any]]:
        found = [json.loads(line) for line in stream.getvalue().splitlines()]
        return [line for line in found if line["event"] != "library message"]

    yield logged
    structlog.configure(**before[0])
    root.handlers, root.level = before[1:]
    logging.captureWarnings(capture=False)


@pytest.fixture
async def api(database_url: DatabaseUrl) -> AsyncIterator[Api]:
    async with served(database_url) as api:
        hold(api.client)
        yield api


def free(api: Api) -> httpx.AsyncClient:
    """Return a client whose answers are not held to the document."""
    return httpx.AsyncClient(base_url=api.url, headers=api.client.headers, timeout=30)


async def test_a_sane_request_id_is_kept_and_any_other_is_replaced(api: Api) -> None:
    for sane in ("a", "A-b_c.9", "x" * 128, "0193f2c0-aa11-7b0c-9d5e-6f7081920304"):
        for path, status in (("/v1/payments", 200), ("/v1/payments/no", 404), ("/no", 404)):
            answer = await api.client.get(path, headers={"Request-Id": sane})
            assert (answer.status_code, answer.headers["Request-Id"]) == (status, sane)
            assert answer.json().get("request_id", sane) == sane
    made = set()
    for insane in ("", "x" * 129, "a b", "a;b", 'a"b', "a/b", "é", "a,b"):
        answer = await api.client.get(
            "/v1/payments/no", headers=[(b"Request-Id", insane.encode("latin-1"))]
        )
        assert re.fullmatch("req_[0-9a-f]{32}", answer.headers["Request-Id"])
        assert answer.json()["request_id"] == answer.headers["Request-Id"]
        made.add(answer.headers["Request-Id"])
    assert len(made) == 8


async def test_every_kind_of_answer_has_a_request_id(api: Api) -> None:
    async with free(api) as client:
        for method, path, headers in (
            ("GET", "/v1/payments", {}),
            ("GET", "/v1/payments", {"Authorization": "Bearer ppk_no"}),
            ("POST", "/v1/payments", {}),
            ("GET", "/nothing", {}),
            ("DELETE", "/v1/payments", {}),
            ("OPTIONS", "/v1/payments", {}),
            ("GET", "/livez", {}),
            ("GET", "/docs", {}),
        ):
            answer = await client.request(method, path, headers=headers)
            assert answer.headers["Request-Id"].startswith("req_"), (method, path)
            assert answer.headers["PicoPay-Version"] == VERSION, (method, path)


async def test_a_trace_is_on_the_lines_of_its_request(api: Api, lines: Lines) -> None:
    for number, (traceparent, trace) in enumerate(
        (
            (f"00-{TRACE}-b7ad6b7169203331-01", TRACE),
            (f"00-{'0' * 32}-b7ad6b7169203331-01", None),
            (f"00-{TRACE}-{'0' * 16}-01", None),
            (f"00-{TRACE.upper()}-b7ad6b7169203331-01", None),
            (f"ff-{TRACE}-b7ad6b7169203331-01", None),
            (f"00-{TRACE}-b7ad6b7169203331-01x", None),
            (f"01-{TRACE}-b7ad6b7169203331-01-later", TRACE),
            ("nonsense", None),
            ("", None),
        )
    ):
        id = f"trace-{number}"
        headers = {"traceparent": traceparent, "Request-Id": id, "Authorization": "Bearer ppk_no"}
        assert (await api.client.get("/v1/payments", headers=headers)).status_code == 401
        mine = [line for line in lines() if line.get("request_id") == id]
        assert {line["event"] for line in mine} == {"authentication failed", "request"}
        assert {line.get("trace_id") for line in mine} == {trace}


async def test_what_is_logged_of_a_request_names_its_route_and_no_secret(
    api: Api, lines: Lines
) -> None:
    await api.account("alice")
    id = (await api.pay("@world", "@alice", 5)).json()["id"]
    await api.client.get(f"/v1/payments/{id}", headers={"Request-Id": "mine"})
    (line,) = [line for line in lines() if line.get("request_id") == "mine"]
    assert (line["event"], line["route"]) == ("request", "/v1/payments/{payment}")
    assert (line["method"], line["status"], line["code"]) == ("GET", 200, None)
    assert line["ledger"].startswith("ldg_")
    secret = api.client.headers["Authorization"].removeprefix("Bearer ")
    assert secret not in json.dumps(lines())


async def test_the_quota_is_told_to_those_who_are_known(database_url: DatabaseUrl) -> None:
    async with served(database_url, rate_limit_requests=50, rate_limit_window_s=3_600) as api:
        hold(api.client)
        other = await api.secret("payments:read")
        left = []
        for path, status in (("/v1/payments", 200), ("/v1/payments/no", 404), ("/v1/audit", 200)):
            answer = await api.client.get(path)
            assert answer.status_code == status
            assert answer.headers["RateLimit-Policy"] == '"default";q=50;w=3600'
            match = re.fullmatch(r'"default";r=(\d+);t=(\d+)', answer.headers["RateLimit"])
            assert match is not None
            assert 3_500 < int(match[2]) <= 3_600
            left.append(int(match[1]))
        assert left == [left[0], left[0] - 1, left[0] - 2]
        # Each key has its own.
        answer = await api.client.get("/v1/payments", headers=as_key(other))
        assert answer.headers["RateLimit"].startswith('"default";r=49;')
        forbidden = await api.client.get("/v1/audit", headers=as_key(other))
        assert forbidden.status_code == 403
        assert forbidden.headers["RateLimit"].startswith('"default";r=48;')
        unknown = await api.client.get("/v1/payments", headers=as_key("ppk_no"))
        assert unknown.status_code == 401
        assert "RateLimit" not in unknown.headers


async def test_only_the_version_that_there_is_can_be_asked_for(api: Api) -> None:
    assert (
        await api.client.get("/v1/payments", headers={"PicoPay-Version": VERSION})
    ).status_code == 200
    for version in ("2020-01-01", "latest", "", f"{VERSION},{VERSION}"):
        answer = await api.client.get("/v1/payments", headers={"PicoPay-Version": version})
        assert (answer.status_code, answer.json()["code"]) == (400, "invalid_request"), version


async def test_what_is_not_there_is_a_problem_document(api: Api) -> None:
    for path in ("/", "/v1", "/v2/payments", "/v1/payment", "/v1/payments/x/y", "/favicon.ico"):
        answer = await api.client.get(path, headers={"Authorization": ""})
        assert answer.status_code == 404, path
        assert answer.headers["Content-Type"] == "application/problem+json"
        problem = answer.json()
        assert (problem["code"], problem["instance"]) == ("not_found", path)


async def test_a_method_that_is_not_there_is_told_those_that_are(api: Api) -> None:
    methods: dict[str, set[str]] = {}
    for operation in OPERATIONS:
        methods.setdefault(operation.path, set()).add(operation.method)
    for path in ("/health", "/livez", "/readyz", "/metrics", "/docs", "/openapi.json"):
        methods[path] = {"GET"}
    async with free(api) as client:
        for path, known in methods.items():
            for method in {"GET", "POST", "PUT", "PATCH", "DELETE", "TRACE"} - known:
                answer = await client.request(method, re.sub(r"\{\w+\}", "x", path))
                shown = (method, path, answer.text)
                assert (answer.status_code, answer.json()["code"]) == (405, "method_not_allowed"), (
                    shown
                )
                assert set(answer.headers["Allow"].split(", ")) - {"HEAD", "OPTIONS"} == known, (
                    shown
                )
                assert answer.headers["Content-Type"] == "application/problem+json", shown


async def test_a_path_tells_its_methods_and_head_is_get_without_a_body(api: Api) -> None:
    account = await api.account("alice")
    async with free(api) as client:
        for path, methods in (
            ("/v1/payments", "GET, OPTIONS, POST"),
            (f"/v1/accounts/{account['id']}", "GET, OPTIONS, PATCH"),
            ("/v1/accounts/@alice/freeze", "OPTIONS, POST"),
            ("/health", "GET, OPTIONS"),
        ):
            options = await client.options(path)
            assert (options.status_code, options.headers["Allow"]) == (204, methods)
        for path in ("/v1/payments", "/v1/accounts/@alice", "/health", "/metrics", "/v1/nothing"):
            whole, head = await client.get(path), await client.head(path)
            assert (head.status_code, head.content) == (whole.status_code, b""), path
            assert head.headers["Content-Type"] == whole.headers["Content-Type"], path
        assert (await client.head("/v1/accounts/@alice/freeze")).status_code == 405


async def test_no_method_is_a_defect(api: Api, lines: Lines) -> None:
    secret = api.client.headers["Authorization"]
    paths = ("/v1/payments", "/v1/accounts/@alice", "/health", "/nothing", "*")
    methods = ("HEAD", "OPTIONS", "TRACE", "CONNECT", "PROPFIND", "QUERY", "FOO", "get", "G\x00T")
    for method in methods:
        for path in paths:
            request = f"{method} {path} HTTP/1.1\r\nHost: x\r\nAuthorization: {secret}\r\n"
            status, _, body = await api.raw(f"{request}Connection: close\r\n\r\n".encode())
            assert status < 500, (method, path, body)
            if method == "HEAD":
                assert body == b""
    assert not [line for line in lines() if line["event"] == "unexpected error"]


PAYMENT = {"source": "@alice", "destination": "@world", "amount": 1, "asset": "USD"}


async def test_a_header_that_comes_twice_is_not_guessed_at(api: Api) -> None:
    await api.account("alice", 10)
    key, json_type = ("Idempotency-Key", "k"), ("Content-Type", "application/json")
    secret = api.client.headers["Authorization"].removeprefix("Bearer ")
    for extra, status, code in (
        ([key, json_type, ("Idempotency-Key", "l")], 400, "idempotency_key_invalid"),
        ([key, json_type, key], 400, "idempotency_key_invalid"),
        ([key, json_type, ("Content-Type", "text/plain")], 415, "unsupported_media_type"),
        ([key, json_type, ("PicoPay-Version", VERSION), ("PicoPay-Version", "x")], 400, None),
        ([key, json_type, ("X-API-Key", "ppk_other")], 401, "api_key_invalid"),
        ([key, json_type, ("Authorization", "Bearer ppk_other")], 401, "api_key_invalid"),
        ([key, json_type, ("X-API-Key", secret)], 201, None),  # the same one, in two places
    ):
        headers = [("Authorization", f"Bearer {secret}"), *extra]
        async with httpx.AsyncClient(base_url=api.url) as client:
            answer = await client.post("/v1/payments", headers=headers, content=json.dumps(PAYMENT))
        assert answer.status_code == status, (extra, answer.text)
        assert answer.json().get("code") == (code or answer.json().get("code"))
    assert await api.available("alice") == 9


async def test_a_compressed_body_is_refused_as_such(api: Api) -> None:
    await api.account("alice", 10)
    headers = {"Content-Type": "application/json", "Idempotency-Key": "k"}
    for coding, content in (
        ("gzip", gzip.compress(json.dumps(PAYMENT).encode())),
        ("gzip", json.dumps(PAYMENT).encode()),
        ("br", b""),
        ("identity, gzip", b""),
    ):
        answer = await api.client.post(
            "/v1/payments", content=content, headers={**headers, "Content-Encoding": coding}
        )
        assert (answer.status_code, answer.json()["code"]) == (415, "unsupported_media_type")
    plain = {**headers, "Content-Encoding": "identity"}
    answer = await api.client.post("/v1/payments", content=json.dumps(PAYMENT), headers=plain)
    assert answer.status_code == 201


async def test_lengths_that_contradict_each_other_are_refused(api: Api) -> None:
    await api.account("alice", 10)
    head = (
        f"POST /v1/payments HTTP/1.1\r\nHost: x\r\nConnection: close\r\nIdempotency-Key: k\r\n"
        f"Authorization: {api.client.headers['Authorization']}\r\nContent-Type: application/json\r\n"
    )
    body = json.dumps(PAYMENT)
    for lengths in (
        f"Content-Length: {len(body)}\r\nContent-Length: {len(body) + 1}\r\n",
        f"Content-Length: {len(body)}\r\nTransfer-Encoding: chunked\r\n",
        "Content-Length: abc\r\n",
        "Content-Length: -1\r\n",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n",
    ):
        status, _, _ = await api.raw(f"{head}{lengths}\r\n{body}".encode())
        assert 400 <= status < 500, lengths
    assert await api.available("alice") == 10


async def test_a_client_that_goes_away_is_no_defect(api: Api, lines: Lines) -> None:
    await api.account("alice", 10)
    address = httpx.URL(api.url)
    _, writer = await asyncio.open_connection(address.host, address.port)
    writer.write(
        f"POST /v1/payments HTTP/1.1\r\nHost: x\r\nIdempotency-Key: k\r\nRequest-Id: gone\r\n"
        f"Authorization: {api.client.headers['Authorization']}\r\n"
        f'Content-Type: application/json\r\nContent-Length: 90\r\n\r\n{{"source'.encode()
    )
    await writer.drain()
    writer.close()

    async def noted() -> bool:
        return any(line.get("request_id") == "gone" for line in lines())

    await eventually(noted)
    (line,) = [line for line in lines() if line.get("request_id") == "gone"]
    assert (line["event"], line["status"]) == ("request", 400)
    assert (await api.pay("@alice", "@world", 1, key="k")).status_code == 201
