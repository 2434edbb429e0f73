"""Fills a ledger with millions of payments that nobody made, as the engine would have written them.

Used by `growth.py`. Journal, entries with running balances and dense sequences, commits, balances, and the
idempotency keys that are still remembered; blocks are left to be sealed, as by a worker that was not
running: payments do not touch them. Each partition is a table of its own first, written and indexed in
the transaction that makes it, which PostgreSQL does not log then, and attached when it is complete.
Journal and entries are filled side by side.
"""

import asyncio
import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any, Final
from uuid import UUID

import asyncpg

from benchmarks.ground import Tell, Tenant
from benchmarks.history import COMMIT_ROWS, History, Span
from benchmarks.results import Filling
from picopay_api.database_url import DatabaseUrl
from picopay_api.engine.ids import ACCOUNT, first_id_at, parse_id
from support.postgres import on_connection

HASTY: Final[Mapping[str, str]] = {
    "fsync": "off",
    "synchronous_commit": "off",
    "full_page_writes": "off",
    "wal_level": "minimal",
    "max_wal_senders": "0",
    "max_wal_size": "8GB",
    "shared_buffers": "512MB",
    "maintenance_work_mem": "512MB",
    "work_mem": "64MB",
    "autovacuum": "off",
}
"""How the server runs while it is filled, and only then: nobody would miss a half-filled database."""

_RETENTION_DAYS = 3
_TIMEOUT_S = 3_600.0
_SQL = Path(__file__).with_name("sql")

# As the first migration and partitions.sql make them; indexes follow when it is attached.
_MAKE = "CREATE TABLE picopay.{table} (LIKE picopay.{parent} INCLUDING DEFAULTS)"
_DROP = "DROP TABLE IF EXISTS picopay.{table}"  # the migration made some, and they are empty
_ATTACH = """
ALTER TABLE picopay.{parent} ATTACH PARTITION picopay.{table} FOR VALUES FROM ('{lower}') TO ('{upper}')
"""
_KEEP = """
CREATE TRIGGER refuse_truncate BEFORE TRUNCATE ON picopay.{table}
   FOR EACH STATEMENT EXECUTE FUNCTION picopay.refuse_change()
"""

type _Connection = "asyncpg.Connection[Any]"
type _Values = dict[str, object]


async def fill(url: DatabaseUrl, tenant: Tenant, history: History, tell: Tell) -> Filling:
    """Write a history into a ledger that has none."""
    ids = [parse_id(ACCOUNT, account) for account in tenant.accounts]
    values: _Values = {
        "ledger": tenant.ledger,
        "accounts": history.accounts,
        "turns": history.turns,
        "commits": history.commits,
        "commit_rows": COMMIT_ROWS,
        "began_us": history.began_us,
        "step_us": history.step_us,
        "multiplier": history.multiplier,
        "run": secrets.token_hex(8),
    }
    steps_s: dict[str, float] = {}

    async def step(name: str, *works: Callable[[_Connection], Any]) -> None:
        tell(f"  {name}")
        began_s = time.monotonic()
        await asyncio.gather(*(on_connection(url, work) for work in works))
        steps_s[name] = round(time.monotonic() - began_s, 1)

    await step("prepare", lambda connection: _prepare(connection, values, ids))
    await step(
        "write",
        lambda connection: _journal(connection, values, history),
        lambda connection: _entries(connection, values, history),
    )
    await step("vacuum", *map(_vacuum, ("journal", "entry, picopay.balance")))
    await step("finish", _finish)
    return Filling(
        rows=history.rows,
        steps_s=steps_s,
        database_mb=await on_connection(url, _size_mb),
    )


async def _prepare(connection: _Connection, values: _Values, ids: list[UUID | None]) -> None:
    functions = _statement("functions", values).split(";\n")
    for function in functions:
        if function.strip():
            arguments = (ids,) if "$1" in function else ()
            await connection.execute(function, *arguments)


async def _journal(connection: _Connection, values: _Values, history: History) -> None:
    for month in history.months():
        bounds = tuple(str(first_id_at(_midnight(day))) for day in (month.lower, month.upper))
        await _partition(connection, "journal", month, values, bounds)
    for keys in history.keys(_RETENTION_DAYS):
        bounds = (str(keys.lower), str(keys.upper))
        await _partition(connection, "idempotency_key", keys, values, bounds, history.days(keys))
    await _execute(connection, _statement("commit", values))


async def _entries(connection: _Connection, values: _Values, history: History) -> None:
    for month in history.months():
        bounds = (f"{month.lower} 00:00+00", f"{month.upper} 00:00+00")
        await _partition(connection, "entry", month, values, bounds)
    await _execute(connection, _statement("balance", values))


async def _partition(
    connection: _Connection,
    parent: str,
    span: Span,
    values: _Values,
    bounds: tuple[str, ...],
    parts: Sequence[Span] = (),
) -> None:
    """Make a partition, fill it as a whole or by its parts, attach it: in one transaction."""
    names = {"parent": parent, "table": f"{parent}_{span.suffix}"}
    lower, upper = bounds
    async with connection.transaction():
        await _execute(connection, _DROP.format(**names))
        await _execute(connection, _MAKE.format(**names))
        for part in parts or (span,):
            numbers = {"first": part.first, "end": part.end, "lower": part.lower}
            await _execute(connection, _statement(parent, {**values, **names, **numbers}))
        await _execute(connection, _ATTACH.format(**names, lower=lower, upper=upper))
        if parent != "idempotency_key":
            await _execute(connection, _KEEP.format(**names))


def _vacuum(table: str) -> Callable[[_Connection], Any]:
    # Frozen at once: what autovacuum would do sooner or later, in the midst of a measurement.
    return lambda connection: _execute(connection, f"VACUUM (FREEZE, ANALYZE) picopay.{table}")


async def _finish(connection: _Connection) -> None:
    await _execute(connection, "DROP SCHEMA fill CASCADE")
    await _execute(connection, "VACUUM (FREEZE, ANALYZE)")


async def _execute(connection: _Connection, statement: str) -> None:
    await connection.execute(statement, timeout=_TIMEOUT_S)


async def _size_mb(connection: _Connection) -> float:
    size = await connection.fetchval("SELECT pg_database_size(current_database())")
    return float(size) / 1e6


def _statement(name: str, values: _Values) -> str:
    return (_SQL / f"fill_{name}.sql").read_text(encoding="utf-8").format(**values)


def _midnight(day: date) -> datetime:
    return datetime(day.year, day.month, day.day, tzinfo=UTC)
