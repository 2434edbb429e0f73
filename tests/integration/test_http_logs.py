"""Log lines of requests: whose they are, valid JSON each, and never a secret or a body."""

import asyncio
import io
import json
import logging
import re
from collections.abc import AsyncIterator, Iterator
from functools import partial
from typing import Any

import asyncpg
import httpx
import pytest
import structlog

from picopay_api import logs
from picopay_api.database_url import DatabaseUrl
from picopay_api.engine.ids import LEDGER, format_id
from support.api import Api, as_key, served
from support.postgres import on_connection
from support.seeded import ledger_of

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
TRACEPARENT = f"00-{TRACE}-00f067aa0ba902b7-01"
MARK = "never-in-a-log"

# What is called so is refused by the database itself, which shows the whole row to whoever asked.
SABOTAGE = """
ALTER TABLE picopay.journal ADD CONSTRAINT sabotage CHECK (reference <> 'boom');
ALTER TABLE picopay.account ADD CONSTRAINT sabotage CHECK (reference <> 'boom');
"""

Line = dict[str, Any]


class Log:
    """What has been logged so far."""

    def __init__(self) -> None:
        self.stream = io.StringIO()

    def lines(self) -> list[Line]:
        """Return every line; the test's own server also tells of each access, which none other does."""
        every = [json.loads(line) for line in self.stream.getvalue().splitlines()]
        return [line for line in every if line["logger"] != "uvicorn.access"]

    def of(self, answer: httpx.Response) -> list[Line]:
        """Return the lines of one request."""
        return [
            line for line in self.lines() if line.get("request_id") == answer.headers["Request-Id"]
        ]


@pytest.fixture
def log() -> Iterator[Log]:
    """Log from DEBUG on, as a server would, into memory."""
    root = logging.getLogger()
    before = structlog.get_config(), root.handlers, root.level
    log = Log()
    logs.configure("DEBUG", "json", log.stream)
    yield log
    structlog.configure(**before[0])
    root.handlers, root.level = before[1:]
    logging.captureWarnings(capture=False)


@pytest.fixture
async def api(database_url: DatabaseUrl, log: Log) -> AsyncIterator[Api]:
    assert log.lines() == []
    async with served(database_url) as api:
        await api.account("alice", 100)
        await api.account("bob")
        yield api


def event(lines: list[Line], name: str) -> Line:
    """Return the one line of an event."""
    found = [line for line in lines if line["event"] == name]
    assert len(found) == 1, [line["event"] for line in lines]
    return found[0]


async def pay(api: Api, amount: int, key: str, **fields: Any) -> httpx.Response:
    body = {"source": "@alice", "destination": "@bob", "amount": amount, "asset": "USD", **fields}
    return await api.post("/v1/payments", body, key, traceparent=TRACEPARENT)


async def test_a_request_has_a_line_that_says_what_became_of_it(api: Api, log: Log) -> None:
    ledger = format_id(LEDGER, await ledger_of(api))
    answer = await pay(api, 5, "k")
    line = event(log.of(answer), "request")
    fields = ["time", "level", "event", "logger", "method", "route", "status", "code", "ledger"]
    assert list(line)[:10] == [*fields, "duration_ms"]
    assert set(list(line)[10:]) == {"request_id", "trace_id"}
    assert line["duration_ms"] > 0
    told = {name: line[name] for name in list(line) if name not in {"time", "duration_ms"}}
    assert told == {
        "level": "debug",
        "event": "request",
        "logger": "picopay_api.http.front",
        "method": "POST",
        "route": "/v1/payments",
        "status": 201,
        "code": None,
        "ledger": ledger,
        "request_id": answer.headers["Request-Id"],
        "trace_id": TRACE,
    }
    refused = await api.client.get("/v1/accounts/@nobody?limit=5", headers={"Request-Id": "mine-1"})
    line = event(log.of(refused), "request")
    assert (line["request_id"], line["route"]) == ("mine-1", "/v1/accounts/{account}")
    assert (line["status"], line["code"]) == (400, "invalid_request")
    assert "trace_id" not in line
    stranger = await api.client.get("/v1/payments", headers={"Authorization": ""})
    line = event(log.of(stranger), "request")
    assert (line["status"], line["code"]) == (401, "authentication_required")
    assert line["ledger"] is None
    assert event(log.of(stranger), "authentication failed")["code"] == "authentication_required"


async def test_refusals_and_replays_are_events_of_their_requests(api: Api, log: Log) -> None:
    ledger = format_id(LEDGER, await ledger_of(api))
    of_request = {"ledger": ledger, "trace_id": TRACE, "level": "info"}
    first, again = await pay(api, 500, "k"), await pay(api, 500, "k")
    for answer in (first, again):
        line = event(log.of(answer), "insufficient funds")
        assert line.items() >= {**of_request, "code": "insufficient_funds"}.items()
    assert "idempotency hit" not in {line["event"] for line in log.of(first)}
    line = event(log.of(again), "idempotency hit")
    assert line.items() >= {**of_request, "idempotency_key": "k"}.items()
    body = {"postings": [{"source": "@bob", "destination": "@alice", "amount": 5, "asset": "USD"}]}
    short = await api.post("/v1/transactions", body, "t", traceparent=TRACEPARENT)
    assert event(log.of(short), "insufficient funds").items() >= of_request.items()
    accounts = [
        await api.post("/v1/accounts", {"asset": "USD"}, "a", traceparent=TRACEPARENT)
        for _ in range(2)
    ]
    line = event(log.of(accounts[1]), "idempotency hit")
    assert line.items() >= {**of_request, "idempotency_key": "a"}.items()


async def test_requests_that_share_a_batch_keep_their_lines_apart(api: Api, log: Log) -> None:
    answers = await asyncio.gather(*(pay(api, 500, f"k{n % 4}") for n in range(12)))
    for answer in answers:
        replayed = "Idempotent-Replayed" in answer.headers
        lines = log.of(answer)
        event(lines, "insufficient funds")
        assert [line["event"] for line in lines].count("idempotency hit") == replayed
    assert len({answer.headers["Request-Id"] for answer in answers}) == 12


async def test_a_failure_of_the_database_is_an_event_of_its_request(
    api: Api, log: Log, database_url: DatabaseUrl
) -> None:
    await on_connection(database_url, lambda c: c.execute(SABOTAGE))
    ledger = format_id(LEDGER, await ledger_of(api))
    failed, *others = await asyncio.gather(
        pay(api, 5, "k", reference="boom"), *(pay(api, 5, f"k{n}") for n in range(6))
    )
    assert {answer.status_code for answer in others} == {201}
    problem = failed.json()
    assert (failed.status_code, problem["code"]) == (500, "internal_error")
    assert "sabotage" not in failed.text
    line = event([line for line in log.lines() if line["level"] == "error"], "failed transaction")
    assert re.fullmatch(r"[0-9a-f]{32}", line["id"])
    assert line.items() >= {"ledger": ledger, "sqlstate": "23514"}.items()
    assert 'violates check constraint "sabotage"' in line["error"]
    # Whoever is told 500 has the request_id that finds it.
    assert line["request_id"] == problem["request_id"] == failed.headers["Request-Id"]
    assert line["trace_id"] == TRACE
    # Nothing was done, and the key is free.
    again = await pay(api, 5, "k")
    assert (again.status_code, "Idempotent-Replayed" in again.headers) == (201, False)


async def test_a_rate_that_is_used_up_is_told_once_in_a_window(
    database_url: DatabaseUrl, log: Log
) -> None:
    async with served(database_url, rate_limit_requests=2, rate_limit_window_s=3_600) as api:
        made = await api.client.post(
            "/v1/api_keys", json={"name": "n", "scopes": ["payments:read"]}
        )
        key = made.json()
        headers = as_key(key["secret"])
        answers = [await api.client.get("/v1/payments", headers=headers) for _ in range(5)]
        assert [answer.status_code for answer in answers] == [200, 200, 429, 429, 429]
    line = event(log.lines(), "rate limited")
    assert (line["key"], line["ledger"]) == (key["id"], key["ledger"])


async def _ask(argument: Any, connection: Any) -> None:
    await connection.fetchval("SELECT $1::int", argument)


async def test_what_the_driver_shows_of_an_argument_is_not_told(
    database_url: DatabaseUrl, log: Log
) -> None:
    for argument in (MARK, [f'{{"note": "{MARK}"}}\n{MARK}']):
        with pytest.raises(asyncpg.DataError, match=MARK) as refused:
            await on_connection(database_url, partial(_ask, argument))
        logs.get_logger("test").error(
            logs.Event.UNEXPECTED_ERROR, error=str(refused.value), exc_info=refused.value
        )
    first, second = log.lines()
    assert MARK not in json.dumps([first, second])
    assert "invalid input for query argument $1" in first["error"]
    assert "Traceback" in second["exception"]


async def test_no_line_holds_a_secret_or_a_body(
    api: Api, log: Log, database_url: DatabaseUrl
) -> None:
    """A whole session of a client, in which everything that must not be told is marked."""
    await on_connection(database_url, lambda c: c.execute(SABOTAGE))
    administrator = api.client.headers["Authorization"].removeprefix("Bearer ")
    made = await api.client.post("/v1/api_keys", json={"name": MARK, "scopes": ["*"]})
    key = made.json()
    rolled = (await api.client.post(f"/v1/api_keys/{key['id']}/roll")).json()
    secrets = [
        administrator,
        key["secret"],
        rolled["secret"],
        "ppk_unknown",
        "c2VjcmV0OnNlY3JldA==",
    ]
    ways = [
        as_key(key["secret"]),
        {"Authorization": "", "X-API-Key": rolled["secret"]},
        {"Authorization": f"Basic {secrets[-1]}"},
        {"Authorization": "Bearer ppk_unknown"},
        {"Authorization": f"Bearer {key['secret']}", "X-API-Key": rolled["secret"]},
        {"Authorization": key["secret"]},
    ]
    tag = {"metadata": {MARK: MARK}}
    plain = {"source": "@alice", "destination": "@bob", "amount": 1, "asset": "USD"}
    moving = {**plain, **tag}
    bodies: list[tuple[str, Any]] = [
        ("/v1/accounts", {"asset": "USD", "reference": MARK, **tag}),
        ("/v1/accounts", {"asset": "EUR", "reference": MARK}),
        ("/v1/accounts", {"asset": MARK.upper(), **tag}),
        ("/v1/accounts", {"asset": "USD", "reference": "boom", **tag}),
        ("/v1/payments", moving),
        ("/v1/payments", {**moving, "amount": 10**6}),
        ("/v1/payments", {**moving, "source": f"@{MARK}"}),
        ("/v1/payments", {**moving, "reference": "boom"}),
        ("/v1/payments", {**moving, MARK: 1}),
        ("/v1/payments", {**moving, "amount": MARK}),
        ("/v1/transactions", {"postings": [plain], **tag}),
        ("/v1/transactions", {"postings": [plain], "reference": MARK, "dry_run": True}),
        ("/v1/ledgers", {"name": MARK, **tag}),
        ("/v1/api_keys", {"name": MARK, "scopes": [MARK]}),
        ("/v1/api_keys", {"name": MARK, "scopes": ["*"], "secret": key["secret"]}),
    ]
    statuses = set()
    for number, (path, body) in enumerate(bodies):
        for way in ways[: 2 if number else None]:
            answer = await api.post(path, body, f"k{number}", **way)
            statuses.add(answer.status_code)
        await api.client.patch("/v1/accounts/@alice", json=tag)
    broken = f'{{"source": "{MARK}", "secret": "{key["secret"]}"'
    headers = {"Idempotency-Key": "broken", "Content-Type": "application/json"}
    for path in ("/v1/payments", "/v1/accounts", "/v1/nothing"):
        statuses.add((await api.client.post(path, content=broken, headers=headers)).status_code)
    await api.client.post(f"/v1/api_keys/{key['id']}/revoke")
    assert statuses >= {201, 400, 401, 403, 404, 409, 422, 500}
    text = "\n".join(json.dumps(line) for line in log.lines())
    assert len(log.lines()) > 40
    for secret in secrets:
        assert secret not in text
        assert secret.removeprefix("ppk_")[:20] not in text.replace("unknown", "")
    for word in (MARK, MARK.upper(), "authorization", "bearer"):
        assert word not in text, [line for line in log.lines() if word in json.dumps(line)]
    for line in log.lines():
        assert list(line)[:4] == ["time", "level", "event", "logger"]
        assert line["event"] in set(logs.Event)
