"""A committer on a database of the test's own, and other sessions that stand in its way.

Used by the tests of group commit. Whatever a test does, nothing may be left in the committer's memory
and no error may have gone unheard.
"""

import asyncio
import gc
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from uuid import UUID

import asyncpg
import msgspec

from picopay_api.database_url import DatabaseUrl
from picopay_api.engine.commands import Command
from picopay_api.engine.committer import Committer, Limits
from picopay_api.engine.delivery import Delivery
from picopay_api.engine.ids import new_id
from picopay_api.store.database import Database
from picopay_api.store.decide import Outcome
from support.journal import Book, opened
from support.waiting import PROMPT_S, eventually

LIMITS = Limits(
    connections=2,
    batch_commands_max=512,
    queue_commands_max=10_000,
    queue_bytes_max=64 * 1024**2,
    timeout_s=PROMPT_S,
)
RETENTION_DAYS = 3


class Watched(Delivery):
    """A delivery that notes why it tried again; `retried` is set whenever it does."""

    def __init__(self, database: Database) -> None:
        super().__init__(database, RETENTION_DAYS)
        self.reasons: list[str] = []
        self.retried = asyncio.Event()

    def _note_retry(self, reason: str, group: Any) -> None:
        super()._note_retry(reason, group)
        self.reasons.append(reason)
        self.retried.set()


class Desk:
    """A committer, a ledger in `book`, and direct ways to the database.

    `book.database` is the way of everybody, `owner` a session of the owner, who sees other sessions.
    """

    def __init__(
        self, committer: Committer, delivery: Watched, book: Book, owner: "asyncpg.Connection[Any]"
    ) -> None:
        self.committer = committer
        self.delivery = delivery
        self.book = book
        self.owner = owner

    def submit(self, command: Command) -> "asyncio.Task[Outcome]":
        """Hand a command in at the next turn of the event loop."""
        return asyncio.create_task(self.committer.submit(command))

    async def submit_all(self, *commands: Command) -> "list[Outcome | BaseException]":
        """Hand commands in at once, in this order; return what each was answered."""
        return await asyncio.gather(
            *[self.submit(command) for command in commands], return_exceptions=True
        )

    async def posted_minor(self, account: UUID) -> int:
        """Return what is on an account."""
        return int(
            await self.book.database.value(
                "SELECT posted_minor FROM picopay.balance WHERE ledger_id = $1 AND account_id = $2",
                self.book.ledger,
                account,
            )
        )

    async def rows_of(self, key: str) -> list[UUID]:
        """Return what the journal has booked with a key."""
        records = await self.book.database.rows(
            "SELECT id FROM picopay.journal WHERE ledger_id = $1 AND idempotency_key = $2",
            self.book.ledger,
            key,
        )
        return [record["id"] for record in records]

    async def keeps(self, key: str) -> bool:
        """Tell whether an outcome is kept for a key."""
        return bool(
            await self.book.database.value(
                "SELECT count(*) FROM picopay.idempotency_key WHERE ledger_id = $1 AND key = $2",
                self.book.ledger,
                key,
            )
        )

    async def until_kept(self, key: str) -> None:
        """Wait until an outcome is kept for a key."""
        await eventually(lambda: self.keeps(key))

    async def until_blocked(self, sessions: int = 1) -> None:
        """Wait until so many sessions of the database wait for a lock."""

        async def blocked() -> bool:
            return int(await self.owner.fetchval(_BLOCKED)) >= sessions

        await eventually(blocked)

    async def until_seen(self, account: UUID) -> None:
        """Wait until the delivery has seen an account locked."""

        async def seen() -> bool:
            return account in self.delivery._locked._seen

        await eventually(seen)

    async def until_idle(self) -> None:
        """Wait until nothing is left in the committer's memory."""

        async def idle() -> bool:
            return self.idle()

        await eventually(idle)

    def idle(self) -> bool:
        """Tell whether nothing is left in the committer's memory."""
        committer = self.committer
        left = (committer._open, committer._names, committer._queues)
        return not any(left) and committer._queued == committer._bytes == 0


_BLOCKED = (
    "SELECT count(*) FROM pg_locks WHERE NOT granted"
    " AND pid IN (SELECT pid FROM pg_stat_activity WHERE datname = current_database())"
)


@asynccontextmanager
async def committing(
    url: DatabaseUrl, through: DatabaseUrl | None = None, **changes: Any
) -> AsyncIterator[Desk]:
    """Start a committer and end it; `through` is another way for it to the same database.

    `changes` are limits of the committer, and arguments of its pool.
    """
    limits = {name: changes.pop(name) for name in Limits.__struct_fields__ if name in changes}
    bounds = msgspec.structs.replace(LIMITS, **limits)
    changes.setdefault("size", bounds.connections)
    commits = await Database.open(through or url, **changes)
    owner = await asyncpg.connect(**url.connect_arguments())
    try:
        async with opened(url) as database, heard():
            delivery = Watched(commits)
            desk = Desk(Committer(delivery, bounds), delivery, await Book.make(database), owner)
            desk.committer.start()
            try:
                yield desk
                await desk.until_idle()  # by itself: closing would only hide what was forgotten
            finally:
                await desk.committer.close()
            assert desk.idle()
    finally:
        await owner.close()
        await commits.close()


@asynccontextmanager
async def heard() -> AsyncIterator[None]:
    """Fail if a future's exception is never asked for, or a callback fails."""
    loop = asyncio.get_running_loop()
    unheard: list[dict[str, Any]] = []
    before = loop.get_exception_handler()
    loop.set_exception_handler(lambda _, context: unheard.append(context))
    try:
        yield
        await asyncio.sleep(0)
        gc.collect(1)  # what is young: a whole collection takes longer than most tests
        assert unheard == []
    finally:
        loop.set_exception_handler(before)


@asynccontextmanager
async def in_the_way(
    url: DatabaseUrl, ledger: UUID, *accounts: UUID
) -> "AsyncIterator[asyncpg.Connection[asyncpg.Record]]":
    """Lock balances in another session until the end of the block; yield that session."""
    connection = await asyncpg.connect(**url.connect_arguments())
    try:
        async with connection.transaction():
            await lock(connection, ledger, *accounts)
            yield connection
    finally:
        await connection.close()


async def lock(connection: Any, ledger: UUID, *accounts: UUID) -> None:
    """Lock balances until the end of the connection's transaction."""
    await connection.execute(
        "SELECT FROM picopay.balance WHERE ledger_id = $1 AND account_id = ANY ($2)"
        " ORDER BY account_id FOR UPDATE",
        ledger,
        accounts,
    )


def again(command: Command, **changes: Any) -> Command:
    """Plan the same request once more, as a client that asks again does: with an id of its own."""
    return msgspec.structs.replace(command, id=new_id(), **changes)


def with_body(command: Command, body: bytes) -> Command:
    """Plan another request with the same key."""
    return again(command, fingerprint=body)
