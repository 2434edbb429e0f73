"""A stand-in for the way to the database, which takes batches and does with them what a test says.

Used by the unit tests of the committer's queue: what is in a batch is seen before it is decided, and time
is the test's own.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import msgspec
import pytest

from picopay_api.engine import committer as module
from picopay_api.engine.commands import Command, Kind, Posting
from picopay_api.engine.committer import Committer, Limits
from picopay_api.engine.delivery import Delivery, Settle, Wanted
from picopay_api.engine.ids import new_id
from picopay_api.errors import PicoPayError
from picopay_api.store.decide import Outcome

LIMITS = Limits(
    connections=1,
    batch_commands_max=512,
    queue_commands_max=1_000,
    queue_bytes_max=1024**2,
    timeout_s=10,
)
_NOW = datetime(2026, 1, 2, tzinfo=UTC)
_TURNS = 12  # of the event loop: more than any answer takes from end to end

Answer = Outcome | PicoPayError


class Batch:
    """A batch that was taken: `commands`, and whether anybody waits for it."""

    def __init__(self, commands: Sequence[Command], settle: Settle, wanted: Wanted) -> None:
        self.commands = list(commands)
        self.wanted = wanted
        self.ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._settle = settle

    def settle(self, answer: Callable[[Command], Answer]) -> None:
        """Answer every command and let the committer go on."""
        for command in self.commands:
            self._settle(command, answer(command))
        self.ended.set_result(None)


class Clerk(Delivery):
    """Takes batches; those in `held` wait for the test, `taken` are all of them so far."""

    def __init__(self) -> None:
        # Without a database: the two methods that would ask one are replaced below.
        self.taken: list[Batch] = []

    @property
    def held(self) -> list[Batch]:
        """Batches that are being decided."""
        return [batch for batch in self.taken if not batch.ended.done()]

    def require_usable(self) -> None:
        """There is nothing to be unusable."""

    async def deliver(self, batch: Sequence[Command], settle: Settle, wanted: Wanted) -> None:
        """Keep a batch until the test settles it."""
        self.taken.append(Batch(batch, settle, wanted))
        await self.taken[-1].ended


class Office:
    """A committer with a clerk in place of the database, and a clock that stands still."""

    def __init__(self, limits: Limits) -> None:
        self.now_s = 1_000.0
        self.clerk = Clerk()
        self.committer = Committer(self.clerk, limits)

    async def submit(self, *commands: Command) -> "list[asyncio.Task[Outcome]]":
        """Hand commands in, in this order, and wait until all stands still."""
        tasks = [asyncio.create_task(self.committer.submit(command)) for command in commands]
        await self.rest()
        return tasks

    async def rest(self) -> None:
        """Let everything happen that can."""
        for _ in range(_TURNS):
            await asyncio.sleep(0)

    async def settle(self, answer: "Callable[[Command], Answer] | None" = None) -> list[Command]:
        """Decide the oldest batch held; return what was in it."""
        batch = self.clerk.held[0]
        batch.settle(answer or accepted)
        await self.rest()
        return batch.commands

    async def settle_all(self) -> list[list[Command]]:
        """Decide batch after batch until none comes; return what was in them."""
        batches = []
        while self.clerk.held:
            batches.append(await self.settle())
        return batches

    async def pass_time(self, seconds: float) -> None:
        """Move the clock, and let deadlines be noticed."""
        self.now_s += seconds
        await self.rest()

    def idle(self) -> bool:
        """Tell whether nothing is left in the committer's memory."""
        committer = self.committer
        left = (committer._open, committer._names, committer._queues)
        return not any(left) and committer._queued == committer._bytes == 0


@asynccontextmanager
async def office(**limits: Any) -> AsyncIterator[Office]:
    """Open an office, and close it: everything must have been settled by then, and all be forgotten."""
    with pytest.MonkeyPatch.context() as patch:
        place = Office(msgspec.structs.replace(LIMITS, **limits))
        patch.setattr(module, "monotonic", lambda: place.now_s)
        patch.setattr(module, "_SWEEP_S", 0)
        place.committer.start()
        try:
            yield place
            assert place.idle()
        finally:
            place.committer.stop_accepting()
            place.now_s += 1_000  # what still waits is not waited for
            await place.committer.close()
        assert place.idle()


def accepted(command: Command) -> Outcome:
    """Return the outcome of a command that was booked."""
    return Outcome("ok", False, command.id, _NOW, None)


def refused(_: Command) -> Outcome:
    """Return the outcome of a command that was refused."""
    return Outcome("transaction_already_reversed", False, None, _NOW, None)


def command(ledger: UUID, key: str | None = None, body: bytes = b"body", **fields: Any) -> Command:
    """Make a command of one posting; a key of its own unless one is given."""
    id = new_id()
    posting = Posting(ledger, id, 1, "USD")
    fields.setdefault("postings", (posting,))
    return Command(
        ledger=ledger,
        id=id,
        kind=Kind.PAYMENT,
        key=key or id.hex,
        fingerprint=body,
        legs=(),
        **fields,
    )
