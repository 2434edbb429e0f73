"""Holds the row of a balance as a slow session would, so that what moves its money has to wait.

Used by tests of what happens while a decision is on its way: nothing there depends on how fast a machine is.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import asyncpg

from picopay_api.database_url import DatabaseUrl
from support.waiting import eventually

_WAITING = """
SELECT count(*) FROM pg_stat_activity
 WHERE datname = current_database() AND wait_event_type = 'Lock'
"""


class Held:
    """A balance that is held; `waited_for` tells when as many sessions stand before it."""

    def __init__(self, observer: "asyncpg.Connection[asyncpg.Record]") -> None:
        self._observer = observer

    async def waited_for(self, sessions: int = 1) -> None:
        """Wait until that many sessions wait for a lock."""

        async def standing() -> bool:
            return int(await self._observer.fetchval(_WAITING)) >= sessions

        await eventually(standing)


@asynccontextmanager
async def held(url: DatabaseUrl, reference: str) -> AsyncIterator[Held]:
    """Hold the balance of an account, by its reference, until the end of the block."""
    holder = await asyncpg.connect(**url.connect_arguments())
    observer = await asyncpg.connect(**url.connect_arguments())
    try:
        async with holder.transaction():
            await holder.execute(
                "SELECT FROM picopay.balance AS b JOIN picopay.account AS a"
                " ON a.ledger_id = b.ledger_id AND a.id = b.account_id"
                " WHERE a.reference = $1 FOR UPDATE OF b",
                reference,
            )
            yield Held(observer)
    finally:
        await observer.close()
        await holder.close()
