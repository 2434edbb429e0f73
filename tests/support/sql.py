"""Single statements on a database, as the role of an address and on a connection of their own.

Used by tests that look into tables, or change what no release may change.
"""

from typing import Any

import asyncpg

from picopay_api.database_url import DatabaseUrl
from support.postgres import on_connection


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
