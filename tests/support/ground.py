"""What the state machines of Hypothesis stand on: one database for all examples, a ledger for each.

Rules of a machine are plain functions: they reach the database through one loop that lives as long as
the test.
"""

import asyncio
from collections.abc import Iterator
from contextlib import AsyncExitStack, contextmanager
from uuid import UUID

import asyncpg
import uvloop

from picopay_api.engine.accounts import Accounts
from picopay_api.engine.audit import Finding
from picopay_api.engine.directory import Directory
from picopay_api.engine.ids import new_id
from picopay_api.store.database import Database
from picopay_api.worker.audit_all import audit_everything
from picopay_api.worker.sealer import Sealer
from support.journal import opened
from support.postgres import Server

RETENTION_DAYS = 3


class Ground:
    """What the lives of all ledgers of a test have in common: a database, and a loop to reach it."""

    def __init__(
        self,
        runner: asyncio.Runner,
        database: Database,
        owner: "asyncpg.Connection[asyncpg.Record]",
    ) -> None:
        self.run = runner.run
        self.database = database
        self.owner = owner
        self.accounts = Accounts(database, Directory(database), RETENTION_DAYS)

    @classmethod
    @contextmanager
    def on(cls, server: Server) -> Iterator["Ground"]:
        with server.database() as url, asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            stack = AsyncExitStack()

            async def enter() -> Ground:
                database = await stack.enter_async_context(opened(url))
                owner = await asyncpg.connect(**url.connect_arguments())
                stack.push_async_callback(owner.close)
                return cls(runner, database, owner)

            try:
                yield runner.run(enter())
            finally:
                runner.run(stack.aclose())

    async def make_ledger(self) -> UUID:
        ledger = new_id()
        await self.database.run(
            "INSERT INTO picopay.ledger (ledger_id, name, created_at) VALUES ($1, $2, now())",
            ledger,
            ledger.hex,
        )
        return ledger

    async def end(self, ledger: UUID) -> list[Finding]:
        """Seal and audit a ledger; then take it off the list, for the audits of those to come."""
        await Sealer(self.database).seal(ledger)
        findings = await audit_everything(self.database, lambda _: None)
        await self.owner.execute("DELETE FROM picopay.ledger WHERE ledger_id = $1", ledger)
        # Those taken off the list before are found, too.
        return [finding for finding in findings if finding.ledger == ledger]
