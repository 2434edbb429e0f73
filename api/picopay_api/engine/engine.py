"""The engine of a process: every capability, wired to two pools of sessions and one committer.

Opened by `app.py`, by the command line and by tests; the only place where the parts meet. Commits have
sessions of their own, so that no amount of reading delays a payment.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Self

from picopay_api.engine.accounts import Accounts
from picopay_api.engine.audit import Audit
from picopay_api.engine.committer import Committer, Limits
from picopay_api.engine.delivery import Delivery
from picopay_api.engine.directory import Directory
from picopay_api.engine.events import Events
from picopay_api.engine.journal import Journal
from picopay_api.engine.keys import Keys
from picopay_api.engine.ledgers import Ledgers
from picopay_api.engine.payments import Payments
from picopay_api.engine.readiness import Readiness
from picopay_api.engine.transactions import Transactions
from picopay_api.settings import Settings
from picopay_api.store.database import Database


class Engine:
    """Everything that can be done with ledgers. All errors are those of `errors.py`."""

    def __init__(self, settings: Settings, queries: Database, commits: Database) -> None:
        retention_days = settings.idempotency_retention_days
        self.database = queries
        self.readiness = Readiness(queries, commits)
        self._committer = Committer(
            Delivery(commits, retention_days),
            Limits(
                connections=settings.commit_connections,
                batch_commands_max=settings.batch_commands_max,
                queue_commands_max=settings.queue_commands_max,
                queue_bytes_max=settings.queue_bytes_max,
                timeout_s=settings.request_timeout_ms / 1000,
            ),
        )
        directory = Directory(queries)
        journal = Journal(queries, directory, retention_days)
        self.events = Events(queries)
        self.audit = Audit(queries)
        self.keys = Keys(queries)
        self.ledgers = Ledgers(queries)
        self.accounts = Accounts(queries, directory, retention_days)
        self.payments = Payments(directory, self._committer, journal)
        self.transactions = Transactions(directory, self._committer, journal, self.events)

    @classmethod
    @asynccontextmanager
    async def open(cls, settings: Settings) -> AsyncIterator[Self]:
        """Start an engine, drain and stop it at the end of the block.

        Starts with the database away, too: `readiness` says so until it is there.
        """
        commits = settings.commit_connections
        async with (
            _pool(settings, settings.pool_size - commits, "picopay") as queries,
            _pool(settings, commits, "picopay-commits") as commit_sessions,
        ):
            engine = cls(settings, queries, commit_sessions)
            await engine.readiness.check()
            watch = asyncio.create_task(engine.readiness.watch(), name="readiness")
            engine._committer.start()
            try:
                yield engine
            finally:
                await engine._committer.close()
                watch.cancel()
                await asyncio.gather(watch, return_exceptions=True)

    def stay(self) -> None:
        """Open all sessions with the database and keep them: of a process that serves for long."""
        self.readiness.stay()

    def leave(self) -> None:
        """Say from now on that this process is not ready, while it goes on with everything."""
        self.readiness.leave()

    def stop_accepting(self, within_s: float | None = None) -> None:
        """Refuse new payments and transactions from now on; decide those accepted within a time.

        Without one, it is the deadline of one request. Later calls change nothing.
        """
        self._committer.stop_accepting(within_s)

    async def drain(self) -> None:
        """Wait until everything accepted is decided, within the deadline of one request."""
        await self._committer.drain()


@asynccontextmanager
async def _pool(settings: Settings, size: int, name: str) -> AsyncIterator[Database]:
    database = await Database.open(
        settings.database_url,
        size=size,
        statement_timeout_ms=settings.statement_timeout_ms,
        lock_timeout_ms=settings.lock_timeout_ms,
        application_name=name,
    )
    try:
        yield database
    finally:
        await database.close()
