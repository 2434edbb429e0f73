"""The lean path and the framework's handler of the same operation answer the same, byte for byte.

Two servers on one database: one with the lean path, one without. Whatever is asked of both, their answers
may differ in nothing but the time of the day and what is left of the rate.
"""

import inspect
import itertools
import re
from collections.abc import AsyncIterator
from typing import Any, NamedTuple

import httpx
import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from picopay_api.database_url import DatabaseUrl
from picopay_api.http.front import Front
from picopay_api.http.openapi import errors_of
from picopay_api.http.resources import LEAN
from support.api import Api, as_key, served
from support.refusals import BODY_BYTES_MAX, ELSEWHERE, Ask, Scene, case_of

(PAY,) = LEAN
PATH = PAY.path
CODES = [error.code for error in errors_of(PAY) if error.code not in ELSEWHERE]
VARYING = {"date", "ratelimit"}
"""The headers that may differ."""


class Pair(NamedTuple):
    """Both servers; a client of each asks as the same administrator."""

    lean: Api
    handler: httpx.AsyncClient

    async def answers(self, method: str = "POST", path: str = PATH, **request: Any) -> list[Any]:
        """Ask both the same; return what is comparable of their answers."""
        request["headers"] = [("Request-Id", "req-1"), *request.get("headers", [])]
        return [
            _comparable(await client.request(method, path, **request))
            for client in (self.lean.client, self.handler)
        ]


def _comparable(answer: httpx.Response) -> Any:
    headers = sorted(
        (name.lower(), value)
        for name, value in answer.headers.raw
        if name.lower().decode() not in VARYING
    )
    return answer.status_code, headers, answer.content


@pytest.fixture
async def pair(database_url: DatabaseUrl) -> AsyncIterator[Pair]:
    async with (
        served(database_url, body_bytes_max=BODY_BYTES_MAX) as lean,
        served(database_url, lean=(), body_bytes_max=BODY_BYTES_MAX) as handler,
        httpx.AsyncClient(
            base_url=handler.url, headers=lean.client.headers, timeout=30
        ) as handler_client,
    ):
        yield Pair(lean, handler_client)


def body(**changes: Any) -> bytes:
    whole = {"source": "@alice", "destination": "@bob", "amount": 7, "asset": "USD", **changes}
    return msgspec.json.encode(whole)


def headers(key: str, **others: str) -> list[tuple[str, str]]:
    return [("Idempotency-Key", key), ("Content-Type", "application/json"), *others.items()]


async def test_the_lean_path_is_taken_and_the_other_is_not(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise, nothing would be compared here."""
    asked: list[Any] = []
    hand_on = Front._hand_on

    async def noted(self: Front, scope: Any, receive: Any, send: Any) -> None:
        asked.append(scope["path"])
        await hand_on(self, scope, receive, send)

    monkeypatch.setattr(Front, "_hand_on", noted)
    assert (await pair.lean.client.post(PATH)).status_code == 400
    assert asked == []
    assert (await pair.handler.post(PATH)).status_code == 400
    assert asked == [PATH]


async def test_what_one_has_answered_the_other_repeats(pair: Pair) -> None:
    await pair.lean.account("alice", 100)
    await pair.lean.account("bob")
    for number, content in enumerate(
        (
            body(),
            body(amount="8"),
            body(metadata={"order": "7", "note": 'a:b "c" \\ ü'}, reference="r:1"),
            b' { "source" : "@alice" , "destination":"@bob","amount":1,"asset":"USD" } ',
            body(amount=10**9),  # refused, and the refusal is stored
        )
    ):
        for first, second in itertools.permutations((pair.lean.client, pair.handler)):
            if b"r:1" in content and second is pair.lean.client:
                continue  # a reference is given once
            key = f"{number}-{first is pair.handler}"
            request: dict[str, Any] = {
                "content": content,
                "headers": [*headers(key), ("Request-Id", "req-1")],
            }
            made = _comparable(await first.post(PATH, **request))
            repeated = [
                _comparable(await client.post(PATH, **request)) for client in (first, second)
            ]
            assert repeated[0] == repeated[1]
            again = (b"idempotent-replayed", b"true")
            shown = [(name.lower(), value) for name, value in repeated[0][1]]
            assert again in shown
            assert made[2] == repeated[0][2]
            assert [one for one in shown if one != again] == made[1]


async def test_every_refusal_is_the_same(pair: Pair) -> None:
    scene = await Scene.set_up(pair.lean)
    assert len(CODES) > 15
    for code in CODES:
        ask = scene.ask(PAY)
        case = case_of(PAY, code)
        assert case is not None, code
        first_of_all = case(scene, ask)
        if inspect.isawaitable(first_of_all):
            await first_of_all
        ask.headers["Request-Id"] = "req-1"
        first, second = [
            _comparable(await ask.send(client)) for client in (pair.lean.client, pair.handler)
        ]
        assert first[0] >= 400, code
        again = (b"idempotent-replayed", b"true")  # the refusal was stored by the first of them
        assert (first[0], first[1], first[2]) == (
            second[0],
            [one for one in second[1] if one != again],
            second[2],
        ), code


HEADERS = st.lists(
    st.tuples(
        st.sampled_from(
            [
                *("Authorization", "X-API-Key", "Idempotency-Key", "Content-Type", "Expect"),
                *("Content-Encoding", "PicoPay-Version", "traceparent", "Accept", "X-Other"),
            ]
        ),
        st.sampled_from(
            [
                *("", "Bearer ppk_no", "bearer", "Basic YTpi", "a, b", '"quoted"', '"'),
                *("application/json", "APPLICATION/JSON; charset=UTF-8", "text/plain"),
                *("application/json;charset=latin-1", "gzip", "identity", "2026-11-01", "é"),
            ]
        ).map(lambda text: text.encode("latin-1")),
    ),
    max_size=4,
)
CONTENTS = st.sampled_from(
    [
        *(b"", b"{", b"[]", b"null", b'"x"', b"1", body(source="@nobody"), body(capture=False)),
        *(body(amount=0), body(amount="x"), body(extra=1), body(source="a\x00b"), b"\xff\xfe"),
        *(body() + body(), b"[" * 17 + b"]" * 17, b'{"amount":1,"amount" :2}', b" " * 5_000),
    ]
) | st.binary(max_size=60)


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    method=st.sampled_from(["POST", "POST", "POST", "HEAD", "DELETE", "PATCH", "OPTIONS"]),
    query=st.sampled_from(["", "", "?", "?x=1", "?a=%00", "?%"]),
    sent=HEADERS,
    content=CONTENTS,
)
async def test_whatever_is_asked_is_answered_the_same(
    pair: Pair, method: str, query: str, sent: list[tuple[str, bytes]], content: bytes
) -> None:
    first, second = await pair.answers(method, PATH + query, headers=sent, content=content)
    assert first == second
    assert first[0] < 500


async def test_a_body_in_many_pieces(pair: Pair) -> None:
    async def pieces(content: bytes) -> AsyncIterator[bytes]:
        for byte in content:
            yield bytes([byte])

    for content in (body(source="@nobody"), b" " * (BODY_BYTES_MAX + 1), b"{"):
        answers = [
            _comparable(
                await client.post(
                    PATH,
                    content=pieces(content),
                    headers=[*headers("pieces"), ("Request-Id", "req-1")],
                )
            )
            for client in (pair.lean.client, pair.handler)
        ]
        assert answers[0] == answers[1]
        assert re.search(
            rb'"code":"(account_not_found|body_too_large|malformed_body)"', answers[0][2]
        )


async def test_both_count_and_limit_alike(database_url: DatabaseUrl) -> None:
    for lean in (LEAN, ()):
        async with served(database_url, lean=lean, rate_limit_requests=3) as api:
            for left in (2, 1, 0):
                answer = await api.client.post(PATH)
                assert answer.headers["RateLimit"].startswith(f'"default";r={left};t=')
                assert answer.status_code == 400
            refused = await api.client.post(PATH)
            assert (refused.status_code, refused.json()["code"]) == (429, "rate_limited")
            other = Ask(operation=PAY, path={}, headers=as_key("ppk_no"))
            assert (await other.send(api.client)).status_code == 401
            page = (await api.client.get("/metrics")).text
            counted = 'picopay_http_requests_total{method="POST",route="/v1/payments",status="%d"}'
            for status in (400, 401, 429):
                assert counted % status in page
