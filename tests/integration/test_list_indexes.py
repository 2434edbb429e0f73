"""Every filter has its index: what a request reads does not grow with history.

Each parameter of each operation is asked over HTTP, of a ledger with a long history in which what is
looked for is old and rare. The statements that the server sent are run again, prepared and often
enough for the database to settle on a plan, and the rows that their scans read are counted.
"""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from uuid import UUID

import asyncpg
import msgspec
import pytest

from picopay_api.database_url import DatabaseUrl
from picopay_api.engine.ids import LEDGER, format_id
from picopay_api.http.answers import time
from picopay_api.http.operations import Operation
from picopay_api.http.resources import OPERATIONS
from picopay_api.store import events, seal
from picopay_api.store.database import Database
from support.api import Api, served
from support.postgres import VERSIONS, Server
from support.seeded import ledger_of

HISTORY = Path(__file__).parents[1] / "support" / "history.sql"
ROWS = 50_000

READ_MAX = 60
"""Rows that one statement may read to show five: some for each, none for what is not shown."""
READ_IN_BLOCKS_MAX = 1_500
"""A position in the feed is counted from the commits of its block, of which there are 100 here."""
RUNS = 7
"""After the fifth run the database may plan a prepared statement once and for all."""

Statement = tuple[str, tuple[Any, ...]]


class Case(msgspec.Struct, frozen=True):
    """What to ask, how many rows that shows, and a column that an index must be asked by."""

    query: str
    shown: int
    column: str = "id"

    def by(self, column: str) -> "Case":
        return msgspec.structs.replace(self, column=column)


# `{old}` is the time of the third row, `{new}` that of the third newest one.
TIMES = {
    "created_at[lte]": Case("created_at[lte]={old}", 3),
    "created_at[lt]": Case("created_at[lt]={old}", 2),
    "created_at[gte]": Case("created_at[gte]={new}", 3),
    "created_at[gt]": Case("created_at[gt]={new}", 2),
}
PAGED = {"limit": Case("limit=5", 5), "cursor": Case("limit=5&cursor={cursor}", 5)}
RARE = {"metadata": Case("metadata[tier]=rare", 3, "value")}
MOVED = {
    "account": Case("account=@a1", 3, "account_id"),
    "reference": Case("reference=r2", 1, "reference"),
    "idempotency_key": Case("idempotency_key=k2", 1, "key"),
}
CASES: dict[str, dict[str, Case]] = {
    "list_accounts": {
        **PAGED,
        **TIMES,
        **RARE,
        "reference": Case("reference=a2", 1, "reference"),
        "asset": Case("asset=KWD", 3, "asset"),
    },
    "list_payments": {
        **PAGED,
        **TIMES,
        **RARE,
        **MOVED,
        "status": Case("status=refunded", 3, "original_id"),
        "status, another": Case("status=captured&limit=5", 5),
    },
    "list_transactions": {
        **PAGED,
        **TIMES,
        **RARE,
        **MOVED,
        "account, another": Case("account=@a11&limit=5", 5, "account_id"),
    },
    "list_entries": {
        **PAGED,
        **{name: case.by("created_at") for name, case in TIMES.items()},
        "format": Case("format=ndjson&created_at[lte]={old}", 3, "created_at"),
    },
    "get_balance": {"at": Case("at={old}", 1, "created_at")},
    "list_events": {
        "after": Case("after=20000&limit=5", 5, "first_position"),
        "limit": Case("limit=5", 5, "first_position"),
    },
    "get_api_key": {"ledger": Case("ledger={ledger}", 1)},
    "list_api_keys": {
        **PAGED,
        "ledger": Case("ledger={ledger}&limit=5", 5),
        "ledger, another": Case("ledger={other}&limit=5", 0, "ledger_id"),
    },
    "roll_api_key": {"ledger": Case("ledger={ledger}", 1)},
    "revoke_api_key": {"ledger": Case("ledger={ledger}", 1)},
    "list_ledgers": {name: case.by("ledger_id") for name, case in PAGED.items()},
    # What is looked up by its name alone.
    "get_account": {"": Case("", 1)},
    "get_payment": {"": Case("", 1)},
    "get_transaction": {"": Case("", 1)},
    "get_event": {"": Case("", 1)},
    "get_ledger": {"": Case("", 1, "ledger_id")},
    "get_audit": {"": Case("", 1, "ledger_id")},
}


def test_every_parameter_and_everything_that_is_read_has_a_case() -> None:
    for operation in OPERATIONS:
        wanted = {parameter.name for parameter in operation.parameters}
        if operation.method == "GET" and not wanted:
            wanted = {""}
        tried = {name.partition(",")[0] for name in CASES.get(operation.name, {})}
        assert tried == wanted, operation.name


@pytest.fixture(params=[VERSIONS[0], VERSIONS[-1]])
def database_url(
    request: pytest.FixtureRequest, postgres: Callable[[str], Server]
) -> Iterator[DatabaseUrl]:
    """Return a database of the oldest and of the newest release: each plans in its own way."""
    with postgres(request.param).database() as url:
        yield url


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> list[Statement]:
    """Take down every statement that reads, on its way to the database."""
    statements: list[Statement] = []
    for name in ("rows", "row", "value"):
        read = getattr(Database, name)

        async def reading(self: Database, sql: str, *arguments: Any, _read: Any = read) -> Any:
            statements.append((sql, arguments))
            return await _read(self, sql, *arguments)

        monkeypatch.setattr(Database, name, reading)
    return statements


async def test_no_request_reads_more_than_what_it_shows(
    database_url: DatabaseUrl, sent: list[Statement]
) -> None:
    async with served(database_url) as api:
        connection = await asyncpg.connect(**database_url.connect_arguments())
        try:
            ledger = await ledger_of(api)
            script = HISTORY.read_text(encoding="utf-8")
            await connection.execute(
                script.replace(":ledger", f"'{ledger}'").replace(":rows", str(ROWS))
            )
            # A table of three rows is read as a whole if that may be: what is asked is whether it must.
            await connection.execute("SET enable_seqscan = off")
            named = {"ledger": format_id(LEDGER, ledger)}
            for operation in OPERATIONS:
                for name, case in CASES.get(operation.name, {}).items():
                    asked = f"{operation.name} by {name}"
                    url = await _url(api, connection, operation, case, named)
                    sent.clear()
                    answer = await api.client.request(operation.method, url)
                    assert answer.is_success, (asked, answer.text)
                    assert _shown(answer.text) == case.shown, (asked, answer.text)
                    conditions = ""
                    for statement in tuple(sent):
                        plan = await _plan(connection, statement)
                        conditions += _judged(plan, statement, asked)
                    assert case.column in conditions, (asked, conditions)
            # What the worker seals, and audits, is read in the same way.
            for first in (1, 4_999):
                commits = (seal.ROWS, (ledger, 42, first, first + 2))
                _judged(await _plan(connection, commits), commits, "sealing")
        finally:
            await connection.close()


async def _url(
    api: Api, connection: Any, operation: Operation, case: Case, named: dict[str, str]
) -> str:
    # The account that nearly everything happened on has its own first three entries.
    third = 6 if operation.path.startswith("/v1/accounts/") else 3
    row = await connection.fetchrow("SELECT id, t FROM step WHERE n = $1", third)
    ids = {
        name: prefix + row["id"].hex
        for name, prefix in (
            ("payment", "pay_"),
            ("transaction", "tx_"),
            ("event", "evt_"),
            ("api_key", "key_"),
            ("ledger", "ldg_"),
        )
    }
    path = operation.path.format(account="@a11", **ids)
    cursor = new = ""
    if "{cursor}" in case.query or "{new}" in case.query:
        page = (await api.client.get(path, params={"limit": 3})).json()
        cursor, new = page["next_cursor"], page["data"][-1]["created_at"]
    query = case.query.format(
        cursor=cursor, new=new, old=time(row["t"]), other=ids["ledger"], **named
    )
    return f"{path}?{query}" if query else path


def _shown(text: str) -> int:
    if not text.startswith('{"data"'):
        return len(text.splitlines())
    return len(msgspec.json.decode(text)["data"])


async def _plan(connection: Any, statement: Statement) -> dict[str, Any]:
    """Return how the database reads what a session of the server asks for again and again."""
    sql, arguments = statement
    given = f"({', '.join(map(_literal, arguments))})" if arguments else ""
    await connection.execute(f"PREPARE asked AS {sql}")
    try:
        for _ in range(RUNS):
            await connection.execute(f"EXECUTE asked{given}")
        text = await connection.fetchval(f"EXPLAIN (ANALYZE, FORMAT JSON) EXECUTE asked{given}")
    finally:
        await connection.execute("DEALLOCATE asked")
    plan: dict[str, Any] = msgspec.json.decode(text)[0]["Plan"]
    return plan


def _literal(value: Any) -> str:
    if isinstance(value, list | tuple):
        value = (
            "{"
            + ",".join(
                f'"{one}"' if isinstance(one, str | UUID) else str(int(one)) for one in value
            )
            + "}"
        )
    text = f"\\x{value.hex()}" if isinstance(value, bytes) else str(value)
    return "'" + text.replace("'", "''") + "'"


def _judged(plan: dict[str, Any], statement: Statement, asked: str) -> str:
    """Count what the scans of a plan read; return what its indexes were asked."""
    read, conditions = 0.0, ""
    nodes = [plan]
    while nodes:
        node = nodes.pop()
        nodes += node.get("Plans", [])
        assert node["Node Type"] != "Seq Scan", (asked, statement, node["Relation Name"])
        conditions += node.get("Index Cond", "")
        if "Relation Name" in node:
            removed = (node.get(f"Rows Removed by {by}", 0) for by in ("Filter", "Index Recheck"))
            read += (node["Actual Rows"] + sum(removed)) * node["Actual Loops"]
    in_blocks = statement[0] in (events.FEED, events.POSITIONS)
    assert read <= (READ_IN_BLOCKS_MAX if in_blocks else READ_MAX), (asked, statement, read)
    return conditions
