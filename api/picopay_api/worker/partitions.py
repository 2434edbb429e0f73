"""Keeps partitions ahead of time and lets old idempotency keys go.

Run by `worker/run.py` at the start and every hour. The database does the work and knows the date
(`picopay.maintain_partitions`); several workers may ask at once, the second finds nothing to do.
"""

import asyncpg

from picopay_api.logs import Event, get_logger
from picopay_api.metrics import DEFAULT_PARTITION_ROWS, PARTITIONS_CREATED
from picopay_api.store import partitions as statements
from picopay_api.store.database import Database

INTERVAL_S = 3_600.0

_RETRY_S = 60.0
_DEFAULT_ROWS_COUNTED = 10_000

_log = get_logger(__name__)


class Partitions:
    """Maintains the partitions of a database."""

    def __init__(self, database: Database, retention_days: int) -> None:
        self._database = database
        self._retention_days = retention_days

    async def step(self) -> float:
        """Make and drop what is due; return how long to pause, in seconds."""
        try:
            async with self._database.session() as connection, connection.transaction():
                await connection.execute(statements.SHORT_LOCKS)
                changes = await connection.fetch(statements.MAINTAIN, self._retention_days)
        except (asyncpg.LockNotAvailableError, asyncpg.DuplicateTableError) as error:
            # A long transaction is in the way, or another worker made them at the same moment.
            _log.warning(Event.WORKER_WAITING, task="partitions", reason=error.sqlstate)
            return _RETRY_S
        for action, name in changes:
            match action:
                case "created":
                    _log.info(Event.PARTITION_CREATED, name=name)
                case "dropped":
                    _log.info(Event.PARTITION_DROPPED, name=name)
                case _:
                    reason = f"rows of the default partition, or another partition, are in the way of {name}"
                    _log.warning(Event.WORKER_WAITING, task="partitions", reason=reason)
        PARTITIONS_CREATED.inc(sum(action == "created" for action, _ in changes))
        counts = await self._database.rows(statements.DEFAULT_ROWS, _DEFAULT_ROWS_COUNTED)
        DEFAULT_PARTITION_ROWS.set(sum(record["rows"] for record in counts))
        return INTERVAL_S
