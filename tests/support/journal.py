"""Makes a ledger and has commands decided by the database itself, without the engine above it.

Used by the tests of what reads the journal: sealing, events, auditing.
"""

import hashlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from uuid import UUID

import asyncpg

from picopay_api.database_url import DatabaseUrl
from picopay_api.engine.commands import Command, Kind, Leg, Posting
from picopay_api.engine.ids import new_id
from picopay_api.store import decide as arbitration
from picopay_api.store.database import Connection, Database

WORLD_MINOR = 1_000_000


class Book:
    """A ledger with an outside account (`world`) and accounts funded from it."""

    def __init__(self, database: Database, ledger: UUID, world: UUID) -> None:
        self.database = database
        self.ledger = ledger
        self.world = world

    @classmethod
    async def make(cls, database: Database) -> "Book":
        """Make a ledger with an outside account."""
        ledger = new_id()
        await database.run(
            "INSERT INTO picopay.ledger (ledger_id, name, created_at) VALUES ($1, $2, now())",
            ledger,
            ledger.hex,
        )
        book = cls(database, ledger, ledger)
        book.world = await book.account(floor_minor=None)
        return book

    async def account(self, asset: str = "USD", floor_minor: int | None = 0) -> UUID:
        """Make an empty account."""
        id = new_id()
        async with self.database.transaction() as connection:
            await connection.execute(
                "INSERT INTO picopay.account (ledger_id, id, created_at) VALUES ($1, $2, now())",
                self.ledger,
                id,
            )
            await connection.execute(
                "INSERT INTO picopay.balance (ledger_id, account_id, asset, state, floor_minor,"
                " posted_minor, held_minor, sequence, changed_at)"
                " VALUES ($1, $2, $3, 0, $4, 0, 0, 0, now())",
                self.ledger,
                id,
                asset,
                floor_minor,
            )
        return id

    async def funded(self) -> UUID:
        """Make an account with money."""
        account = await self.account()
        await self.decide(self.payment(self.world, account, WORLD_MINOR))
        return account

    def payment(self, source: UUID, destination: UUID, amount: int, asset: str = "USD") -> Command:
        """Plan a payment."""
        return self._command(Kind.PAYMENT, (Posting(source, destination, amount, asset),))

    def transaction(self, *postings: Posting) -> Command:
        """Plan a transaction."""
        return self._command(Kind.TRANSACTION, postings)

    def reversal(self, original: Command) -> Command:
        """Plan the reversal of a command."""
        mirrored = tuple(
            Posting(p.destination, p.source, p.amount, p.asset) for p in original.postings
        )
        return self._command(Kind.REVERSAL, mirrored, original.id)

    async def decide(self, *commands: Command, on: Connection | None = None) -> list[UUID]:
        """Have commands decided in one commit, or as part of a transaction; all must be
        accepted."""
        if on is None:
            async with self.database.transaction() as connection:
                return await self.decide(*commands, on=connection)
        outcomes = await arbitration.decide(on, self.ledger, 3, commands)
        assert [outcome.code for outcome in outcomes] == ["ok"] * len(commands)
        return [command.id for command in commands]

    def _command(
        self, kind: Kind, postings: tuple[Posting, ...], parent: UUID | None = None
    ) -> Command:
        id = new_id()
        return Command(
            ledger=self.ledger,
            id=id,
            kind=kind,
            key=id.hex,
            fingerprint=hashlib.sha256(id.bytes).digest(),
            postings=postings,
            legs=tuple(
                Leg(account, posting.asset, change)
                for posting in postings
                for account, change in (
                    (posting.source, -posting.amount),
                    (posting.destination, posting.amount),
                )
            ),
            parent=parent,
            metadata={"note": "grüße"},
        )


@asynccontextmanager
async def opened(url: DatabaseUrl) -> AsyncIterator[Database]:
    """Open a pool for a test and close it."""
    database = await Database.open(url)
    try:
        yield database
    finally:
        await database.close()


async def tamper(url: DatabaseUrl, sql: str, *arguments: object) -> None:
    """Change history as only the owner of the tables can: with the triggers switched off."""
    tables = ("journal", "entry", "commit", "block", "reference", "reversal")
    connection = await asyncpg.connect(**url.connect_arguments())
    try:
        async with connection.transaction():
            for table in tables:
                await connection.execute(f"ALTER TABLE picopay.{table} DISABLE TRIGGER USER")
            await connection.execute(sql, *arguments)
            for table in tables:
                await connection.execute(f"ALTER TABLE picopay.{table} ENABLE TRIGGER USER")
    finally:
        await connection.close()
