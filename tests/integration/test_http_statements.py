"""Statements over HTTP: pages newest first, streams oldest first, both the same as the balance."""

import asyncio
import csv
import io
import json
import socket
from collections.abc import AsyncIterator
from datetime import datetime
from typing import Any

import httpx
import pytest

from picopay_api.cli.serving import listen
from picopay_api.database_url import DatabaseUrl
from picopay_api.engine.accounts import EntryFilter
from picopay_api.engine.commands import PostingRequest, Transact
from picopay_api.metrics import REGISTRY
from support.api import Api, served
from support.postgres import on_connection
from support.seeded import ledger_of
from support.waiting import eventually

ENTRIES = "/v1/accounts/@alice/entries"
COLUMNS = ["created_at", "sequence", "transaction", "amount", "balance_after", "asset"]
LONG = 2_600  # more than two chunks
Line = dict[str, Any]


@pytest.fixture
async def api(database_url: DatabaseUrl) -> AsyncIterator[Api]:
    async with served(database_url) as api:
        yield api


async def fill(api: Api, entries: int) -> None:
    """Give alice that many entries, some hundreds to a commit."""
    ledger = await ledger_of(api)
    posting = PostingRequest(source="@world", destination="@alice", amount_minor=1, asset="USD")
    for place in range(0, entries, 500):
        postings = (posting,) * min(500, entries - place)
        await api.engine.transactions.create(ledger, Transact(postings=postings), f"fill-{place}")


async def pages(api: Api, limit: int = 100, **query: str) -> list[Line]:
    """Read the statement page by page, newest first."""
    lines: list[Line] = []
    cursor: dict[str, str] = {}
    for _ in range(1000):
        answer = await api.client.get(ENTRIES, params={"limit": limit, **query, **cursor})
        assert answer.status_code == 200, answer.text
        page = answer.json()
        lines += page["data"]
        if not page["has_more"]:
            assert page["next_cursor"] is None
            return lines
        cursor = {"cursor": page["next_cursor"]}
    raise AssertionError("the list does not end")


def read_csv(text: str) -> list[Line]:
    """Read a statement in CSV as the lines that JSON shows."""
    header, *rows = csv.reader(io.StringIO(text, newline=""), strict=True)
    assert header == COLUMNS
    lines = []
    for row in rows:
        line: Line = {"object": "entry", **dict(zip(header, row, strict=True))}
        lines.append(
            line | {name: int(line[name]) for name in ("sequence", "amount", "balance_after")}
        )
    return lines


def read_ndjson(text: str) -> list[Line]:
    assert not text or text.endswith("\n")
    return [json.loads(line) for line in text.splitlines()]


async def streams(api: Api, **query: str) -> list[Line]:
    """Read the statement as both streams, which say the same."""
    read = [
        reader((await api.client.get(ENTRIES, params={"format": form, **query})).text)
        for form, reader in (("csv", read_csv), ("ndjson", read_ndjson))
    ]
    assert read[0] == read[1]
    return read[0]


def adds_up(lines: list[Line], before: int = 0) -> bool:
    """Tell whether lines, oldest first, are numbered without gaps and each balance follows."""
    for line in lines:
        before += line["amount"]
        if line["balance_after"] != before:
            return False
    numbers = [line["sequence"] for line in lines]
    return numbers == list(range(1, len(lines) + 1))


async def test_pages_streams_and_balance_say_the_same(api: Api) -> None:
    account = await api.account("alice", 500)
    for n in range(1, 12):
        await api.pay("@alice", "@world", n)
        await api.pay("@world", "@alice", 2 * n)
    newest_first = await pages(api)
    assert newest_first == await pages(api, limit=3)
    assert newest_first == (await api.client.get(ENTRIES, params={"limit": 100})).json()["data"]
    assert await streams(api) == newest_first[::-1]
    assert adds_up(newest_first[::-1])
    balance = (await api.client.get("/v1/accounts/@alice")).json()["balance"]["posted"]
    assert newest_first[0]["balance_after"] == balance == 566
    line = newest_first[-1]
    assert list(line) == [
        "object",
        *("transaction", "amount", "balance_after", "asset"),
        *COLUMNS[1::-1],
    ]
    # Each line leads to its transaction.
    shown = (await api.client.get(f"/v1/transactions/{line['transaction']}")).json()
    assert shown["postings"][0]["destination"] == account["id"]
    assert (shown["postings"][0]["amount"], shown["created_at"]) == (500, line["created_at"])


async def test_streams_say_what_they_are(api: Api) -> None:
    await api.account("alice", 500)
    for form, media_type in (
        ("csv", "text/csv; charset=utf-8"),
        ("ndjson", "application/x-ndjson"),
    ):
        answer = await api.client.get(ENTRIES, params={"format": form})
        assert answer.status_code == 200
        assert answer.headers["Content-Type"] == media_type
        assert answer.headers["Content-Disposition"] == f'attachment; filename="statement.{form}"'
        assert "Content-Length" not in answer.headers
        assert answer.headers["Request-Id"]
        assert answer.headers["RateLimit"]
    assert (await api.client.get(ENTRIES)).headers["Content-Type"] == "application/json"


async def test_the_statement_of_an_account_without_entries_is_empty(api: Api) -> None:
    await api.account("alice")
    page = (await api.client.get(ENTRIES)).json()
    assert page == {"data": [], "has_more": False, "next_cursor": None}
    assert (await api.client.get(ENTRIES + "?format=csv")).text == ",".join(COLUMNS) + "\r\n"
    assert (await api.client.get(ENTRIES + "?format=ndjson")).text == ""


async def test_what_is_not_for_a_stream_is_refused_before_it_begins(api: Api) -> None:
    await api.account("alice", 500)
    await api.pay("@alice", "@world", 1)
    cursor = (await api.client.get(ENTRIES + "?limit=1")).json()["next_cursor"]
    for query, status, pointer in [
        ("format=csv&limit=5", 400, "?limit"),
        (f"format=ndjson&cursor={cursor}", 400, "?cursor"),
        ("format=xml", 400, "?format"),
        ("format=CSV", 400, "?format"),
        ("format=", 400, "?format"),
        ("format=csv&format=csv", 400, "?format"),
        ("format=csv&created_at[gt]=never", 400, "?created_at[gt]"),
        ("format=csv&asset=USD", 400, "?asset"),
    ]:
        answer = await api.client.get(f"{ENTRIES}?{query}")
        problem = answer.json()
        assert (answer.status_code, problem["errors"][0]["pointer"]) == (status, pointer), query
        assert answer.headers["Content-Type"] == "application/problem+json"
        assert "Content-Disposition" not in answer.headers


async def test_nothing_that_a_client_wrote_is_in_a_cell(api: Api) -> None:
    formula = "=HYPERLINK(1)"
    for reference in ("+1", "-1", "=1"):
        made = await api.post(
            "/v1/accounts", {"reference": reference, "asset": "USD", "metadata": {formula: formula}}
        )
        assert made.status_code == 201
    body = {
        "postings": [
            {"source": "@world", "destination": "@=1", "amount": 5, "asset": "USD"},
            {"source": "@=1", "destination": "@+1", "amount": 2, "asset": "USD"},
        ],
        "reference": formula,
        "metadata": {formula: formula},
    }
    assert (await api.post("/v1/transactions", body)).status_code == 201
    text = (await api.client.get("/v1/accounts/@=1/entries?format=csv")).text
    header, *rows = csv.reader(io.StringIO(text, newline=""))
    assert [row[header.index("amount")] for row in rows] == ["5", "-2"]
    for row in rows:
        cells = dict(zip(header, row, strict=True))
        assert cells.pop("amount") == str(int(row[header.index("amount")]))
        assert all(cell[0].isalnum() for cell in cells.values()), row


async def test_times_bound_pages_and_streams_alike(api: Api) -> None:
    await api.account("alice")
    for n in range(1, 6):
        # Entries of one commit share their time.
        await asyncio.gather(*(api.pay("@world", "@alice", n) for _ in range(3)))
        await asyncio.sleep(0.003)
    lines = (await pages(api))[::-1]
    times = [datetime.fromisoformat(line["created_at"]) for line in lines]
    tests = {
        "gte": lambda time, bound: time >= bound,
        "gt": lambda time, bound: time > bound,
        "lte": lambda time, bound: time <= bound,
        "lt": lambda time, bound: time < bound,
    }
    asked: list[tuple[tuple[str, int], ...]] = [
        ((bound, place),) for bound in tests for place in (0, 7, 14)
    ]
    asked += [(("gt", 4), ("lte", 9)), (("gte", 3), ("gt", 6)), (("gte", 9), ("lt", 4))]
    for bounds in asked:
        query = {f"created_at[{bound}]": times[place].isoformat() for bound, place in bounds}
        expected = [
            line
            for line, time in zip(lines, times, strict=True)
            if all(tests[bound](time, times[place]) for bound, place in bounds)
        ]
        assert await streams(api, **query) == expected, bounds
        assert await pages(api, limit=2, **query) == expected[::-1], bounds


async def test_a_long_statement_is_whole_and_as_it_was_when_it_began(api: Api) -> None:
    await api.account("alice")
    await fill(api, LONG)
    for form, reader in (("csv", read_csv), ("ndjson", read_ndjson)):
        before = (await api.client.get("/v1/accounts/@alice")).json()["balance"]["posted"]
        text = ""
        async with api.client.stream("GET", f"{ENTRIES}?format={form}") as answer:
            async for piece in answer.aiter_text():
                if not text:  # the stream has begun: what comes now is not in it
                    paid = [await api.pay("@world", "@alice", 7) for _ in range(3)]
                    assert {one.status_code for one in paid} == {201}
                text += piece
        lines = reader(text)
        assert adds_up(lines)
        assert lines[-1]["balance_after"] == before
        assert len(lines) == (LONG if form == "csv" else LONG + 3)


async def test_a_stream_goes_on_while_payments_arrive_between_its_chunks(api: Api) -> None:
    await api.account("alice")
    await fill(api, LONG)
    ledger = await ledger_of(api)
    seen: list[int] = []
    async for chunk in api.engine.accounts.stream_entries(ledger, "@alice", EntryFilter()):
        seen += [entry.sequence for entry in chunk]
        assert (await api.pay("@world", "@alice", 7)).status_code == 201
    assert seen == list(range(1, LONG + 1))


def streamed() -> float:
    """Count the statements that were answered, to the end or not."""
    labels = {"route": "/v1/accounts/{account}/entries", "method": "GET", "status": "200"}
    return REGISTRY.get_sample_value("picopay_http_requests_total", labels) or 0.0


async def half_way(api: Api, form: str) -> asyncio.StreamWriter:
    """Ask for a stream with hardly any room for it on the way, and read its first line."""
    narrow = socket.socket()
    narrow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
    narrow.setblocking(False)
    await asyncio.get_running_loop().sock_connect(narrow, ("127.0.0.1", httpx.URL(api.url).port))
    reader, writer = await asyncio.open_connection(sock=narrow, limit=1_024)
    key = api.client.headers["Authorization"]
    head = f"GET {ENTRIES}?format={form} HTTP/1.1\r\nHost: api\r\nAuthorization: {key}\r\n\r\n"
    writer.write(head.encode())
    assert (await reader.readline()).startswith(b"HTTP/1.1 200")
    return writer


def listen_narrowly(host: str, port: int) -> socket.socket:
    """Listen with hardly any room for what is on its way to clients."""
    listener = listen(host, port)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4_096)
    return listener


async def test_clients_that_leave_in_the_middle_leave_nothing_behind(
    database_url: DatabaseUrl, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("support.api.listen", listen_narrowly)
    async with served(database_url) as api:
        await api.account("alice")
        await fill(api, LONG)
        await leaving_in_the_middle(api, database_url)


async def leaving_in_the_middle(api: Api, database_url: DatabaseUrl) -> None:
    before = streamed()
    # Twice as many as there are sessions, so that one left behind by each would be missed.
    leaving = await asyncio.gather(*(half_way(api, form) for form in ("csv", "ndjson") * 6))

    async def nobody_works() -> bool:
        return await working(database_url) == 0

    try:
        # Nobody waits for those who are slow, and no transaction stays open for them.
        assert (await api.pay("@world", "@alice", 1)).status_code == 201
        await eventually(nobody_works)
        assert streamed() == before
    finally:
        for writer in leaving:
            writer.close()

    async def all_ended() -> bool:
        return streamed() == before + len(leaving) and await nobody_works()

    await eventually(all_ended)
    answers = await asyncio.gather(*(api.client.get(ENTRIES) for _ in range(12)))
    assert {answer.status_code for answer in answers} == {200}


async def working(database_url: DatabaseUrl) -> int:
    """Count the sessions of the API that do something or are inside a transaction."""
    count = await on_connection(
        database_url,
        lambda c: c.fetchval(
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"
            " AND application_name LIKE 'picopay%' AND state <> 'idle'"
        ),
    )
    return int(count)
