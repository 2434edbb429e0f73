"""Single statements on a database, as the role of an address and on a connection of their own.

Used by tests that look into tables, or change what no release may change.
"""

from typing import Any

import asyncpg
import msgspec

from picopay_api.database_url import DatabaseUrl
from support.postgres import on_connection

Contents = dict[str, list[dict[str, Any]]]
"""Rows by table; each by column, as JSON shows them."""

_TABLES = """
SELECT relname FROM pg_class
 WHERE relnamespace = to_regnamespace('picopay') AND relkind IN ('r', 'p') AND NOT relispartition
   AND relname NOT IN ('alembic_version', 'schema_version')
 ORDER BY relname
"""


async def execute(url: DatabaseUrl, sql: str, *arguments: object) -> None:
    """Run one statement, or several without arguments."""
    await on_connection(url, lambda connection: connection.execute(sql, *arguments))


async def rows(url: DatabaseUrl, sql: str, *arguments: object) -> list[asyncpg.Record]:
    """Read rows."""
    found: list[asyncpg.Record]
    found = await on_connection(url, lambda connection: connection.fetch(sql, *arguments))
    return found


async def value(url: DatabaseUrl, sql: str, *arguments: object) -> Any:
    """Read one value."""
    return await on_connection(url, lambda connection: connection.fetchval(sql, *arguments))


async def contents(url: DatabaseUrl) -> Contents:
    """Read every row of every table, but for what migrations note for themselves."""
    return {
        name: [
            msgspec.json.decode(row[0])
            for row in await rows(url, f"SELECT to_jsonb(t)::text FROM picopay.{name} AS t")
        ]
        for (name,) in await rows(url, _TABLES)
    }
