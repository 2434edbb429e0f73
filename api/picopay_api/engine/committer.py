"""Group commit: whatever arrived while the last commit ran is decided together in the next one.

Called by `payments.py` and `transactions.py` with a planned command; answers once the database has
committed it. A few workers, each with a session of its own, take batches of one ledger at a time, in
order of arrival. None waits for a batch to fill while nothing is being decided; beside another batch,
one begins with enough to be worth it, or after a moment. How a batch gets through is `delivery.py`'s.
"""

import asyncio
from collections import deque
from collections.abc import Sequence
from contextvars import copy_context
from copy import copy
from sys import getsizeof
from time import monotonic
from uuid import UUID

import msgspec

from picopay_api.engine.commands import Command
from picopay_api.engine.delivery import Delivery, failure_of, sqlstate_of
from picopay_api.engine.refusals import refusal
from picopay_api.errors import (
    DeadlineExceeded,
    IdempotencyKeyInFlight,
    InternalError,
    Overloaded,
    PicoPayError,
    ShuttingDown,
)
from picopay_api.logs import Event, get_logger
from picopay_api.metrics import (
    BATCH_COMMANDS,
    IDEMPOTENCY_REPLAYS,
    QUEUE_COMMANDS,
    QUEUE_DELAY_SECONDS,
    QUEUE_REFUSALS,
)
from picopay_api.store.decide import Outcome

_SWEEP_S = 0.25
_IN_FLIGHT_PER_BATCH = 3  # a third decided, a third being encoded, a third on its way
_WORTH_A_BATCH = 16  # as many commands cost about as much as the batch that they are in
_PATIENCE_S = 0.02  # fewer wait for the batch before, if it takes no longer than on a disk nearby
_BATCH_POSTINGS_MAX = 2_000  # a fraction of a second of locks; a bound of commands knows no size
_COMMAND_BYTES = 400  # what a command weighs beside its postings, conditions and metadata
_POSTING_BYTES = 250  # a condition weighs no more

_log = get_logger(__name__)

Name = tuple[UUID, int, str]
"""Ledger, operation and key: what happens at most once."""


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """Bounds of a committer; see the settings of the same names."""

    connections: int
    batch_commands_max: int
    queue_commands_max: int
    queue_bytes_max: int
    timeout_s: float


class _Waiting:
    """A command on its way, and everybody who waits for it."""

    __slots__ = ("arrived_s", "bytes", "command", "context", "futures", "heard", "name")

    def __init__(self, command: Command, name: Name | None, size: int, arrived_s: float) -> None:
        self.command = command
        self.name = name
        self.bytes = size
        self.arrived_s = arrived_s
        self.context = copy_context()  # of the request: what is logged of it carries its id
        self.futures: list[asyncio.Future[Outcome]] = []
        self.heard = False  # whoever asked first has been answered, or has left

    def answer(self, outcome: Outcome | PicoPayError) -> None:
        """Tell everybody who still waits; who joined later is told of a replay."""
        for future in self.futures:
            first, self.heard = not self.heard, True
            if future.done():
                continue
            if isinstance(outcome, PicoPayError):
                # One each: a traceback belongs to the task that raises.
                future.set_exception(copy(outcome))
            elif first:
                future.set_result(outcome)
            else:
                future.set_result(msgspec.structs.replace(outcome, replayed=True))
        self.futures.clear()


class Committer:
    """Collects the commands of one process. `start` and `close` belong to its event loop."""

    def __init__(self, delivery: Delivery, limits: Limits) -> None:
        self._delivery = delivery
        self._limits = limits
        self._queues: dict[UUID, deque[_Waiting]] = {}  # in order of who is next
        self._names: dict[Name, _Waiting] = {}
        self._open: dict[UUID, _Waiting] = {}  # queued or being decided, oldest first
        self._queued = 0
        self._deciding = 0  # batches
        self._bytes = 0
        self._work = asyncio.Event()
        self._accepting = True
        self._drained_s = 0.0  # the latest time at which those accepted are decided after that
        self._tasks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        """Begin to decide."""
        self._tasks = [
            asyncio.create_task(self._decide_batches(), name=f"committer-{n}")
            for n in range(self._limits.connections)
        ]
        self._tasks.append(asyncio.create_task(self._expire(), name="committer-deadlines"))

    def stop_accepting(self, within_s: float | None = None) -> None:
        """Refuse new commands from now on; those accepted are still decided within a time.

        It is at most the deadline of one command.
        """
        if self._accepting:
            self._accepting = False
            timeout_s = self._limits.timeout_s
            self._drained_s = monotonic() + (
                timeout_s if within_s is None else min(within_s, timeout_s)
            )

    async def drain(self) -> None:
        """Stop accepting and wait until all is decided, as long as `stop_accepting` was told."""
        self.stop_accepting()
        while self._open and monotonic() < self._drained_s:  # noqa: ASYNC110  # only at the end of a process
            await asyncio.sleep(0.01)

    async def close(self) -> None:
        """Stop accepting, decide what was accepted, end; whoever still waits then is told so."""
        await self.drain()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for waiting in list(self._open.values()):
            self._settle(waiting, ShuttingDown("this process has ended; the same key will tell"))
        self._queues.clear()
        self._queued = self._bytes = 0

    async def submit(self, command: Command) -> Outcome:
        """Have a command decided; returns once its outcome is on disk.

        A command with the key of one on its way joins it when it asks for the same, and shares its
        deadline unless that has passed. Who is cancelled while waiting does not cancel the command.

        Raises:
            PicoPayError: the refusal that was decided; `IdempotencyKeyInFlight`, `Overloaded`,
                `ShuttingDown` (nothing was done), `DeadlineExceeded` or `DatabaseUnavailable` (the same
                key tells what was).
        """
        name = None if command.key is None else (command.ledger, int(command.kind), command.key)
        waiting = self._names.get(name) if name else None
        if waiting is None:
            waiting = self._enqueue(command, name)
        elif waiting.command.fingerprint != command.fingerprint:
            raise IdempotencyKeyInFlight(
                "the first request with this Idempotency-Key is still running, with another body"
            )
        elif len(waiting.futures) >= self._limits.queue_commands_max:
            QUEUE_REFUSALS.inc()
            raise Overloaded("too many requests wait for this Idempotency-Key")
        elif not waiting.futures:
            waiting.arrived_s = (
                monotonic()
            )  # all were told at the deadline; who asks again has a new one
        future: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
        waiting.futures.append(future)
        outcome = await future
        if outcome.replayed:
            IDEMPOTENCY_REPLAYS.inc()
            _log.info(Event.IDEMPOTENCY_HIT, ledger=command.ledger, idempotency_key=command.key)
        if outcome.code != "ok":
            raise refusal(outcome.code, outcome.detail, replayed=outcome.replayed)
        return outcome

    def _enqueue(self, command: Command, name: Name | None) -> _Waiting:
        if not self._accepting:
            raise ShuttingDown("this process is shutting down; ask again")
        size = _weight(command)
        limits = self._limits
        if self._queued >= limits.queue_commands_max or self._bytes + size > limits.queue_bytes_max:
            QUEUE_REFUSALS.inc()
            raise Overloaded("too many commands are waiting; nothing was done")
        self._delivery.require_usable()
        waiting = _Waiting(command, name, size, monotonic())
        queue = self._queues.get(command.ledger)
        if queue is None:
            queue = self._queues[command.ledger] = deque()
        queue.append(waiting)
        self._open[command.id] = waiting
        if name is not None:
            self._names[name] = waiting
        self._queued += 1
        self._bytes += size
        self._work.set()
        return waiting

    async def _decide_batches(self) -> None:
        while True:
            await self._work.wait()
            if self._deciding and self._queued < _WORTH_A_BATCH:
                await asyncio.sleep(_PATIENCE_S)  # who decides now takes them when it is through
            batch = self._take_batch()
            if not batch:
                continue
            self._deciding += 1
            try:
                await self._delivery.deliver(
                    [waiting.command for waiting in batch],
                    lambda command, outcome: self._settle(self._open[command.id], outcome),
                    self._wanted,
                )
            except Exception:  # noqa: BLE001  # whatever it is, the next batch must be decided
                # A defect must neither end this worker nor leave anybody waiting.
                _log.exception(Event.UNEXPECTED_ERROR, commands=len(batch))
            finally:
                self._deciding -= 1
            for waiting in batch:
                if waiting.command.id in self._open:
                    self._settle(waiting, InternalError("the outcome is not known; ask again"))

    def _wanted(self, group: Sequence[Command]) -> bool:
        """Say whether anybody waits for one of these: attempts end when nobody does."""
        return any(self._open[command.id].futures for command in group)

    def _take_batch(self) -> list[_Waiting]:
        """Take the next commands of the ledger whose turn it is, in order of arrival.

        Stops before a command that shares its reference or parent with an earlier one of the batch;
        keys cannot be shared, because the second joins the first. Stops, too, where the batch would
        hold its locks for long.
        """
        if not self._queues:
            self._work.clear()
            return []
        ledger, queue = next(iter(self._queues.items()))
        limit = max(_WORTH_A_BATCH, -(-len(self._open) // _IN_FLIGHT_PER_BATCH))
        limit = min(limit, self._limits.batch_commands_max)
        postings = max(_BATCH_POSTINGS_MAX, self._limits.batch_commands_max)
        batch: list[_Waiting] = []
        unique: set[str | UUID] = set()
        QUEUE_DELAY_SECONDS.observe(monotonic() - queue[0].arrived_s)
        while queue and len(batch) < limit:
            command = queue[0].command
            postings -= len(command.postings)
            if batch and postings < 0:
                break
            if command.reference is not None or command.parent is not None:
                shared = {command.reference, command.parent} - {None}
                if shared & unique:
                    break
                unique |= shared  # type: ignore[arg-type]  # None was taken out
            batch.append(queue.popleft())
        del self._queues[ledger]
        if queue:
            self._queues[ledger] = queue  # to the end: ledgers take turns
        self._queued -= len(batch)
        self._bytes -= sum(waiting.bytes for waiting in batch)
        QUEUE_COMMANDS.set(self._queued)
        BATCH_COMMANDS.observe(len(batch))
        return batch

    def _settle(self, waiting: _Waiting, outcome: Outcome | PicoPayError) -> None:
        del self._open[waiting.command.id]
        if waiting.name is not None:
            del self._names[waiting.name]
        failure = failure_of(outcome)
        if failure is not None:
            waiting.context.run(_tell, waiting.command, failure)
        waiting.answer(outcome)

    async def _expire(self) -> None:
        """Answer those whose deadline has passed, and take them out of the queue if still there."""
        while True:
            await asyncio.sleep(_SWEEP_S)
            latest_s = monotonic() - self._limits.timeout_s
            for waiting in list(self._open.values()):
                if waiting.arrived_s > latest_s:
                    continue
                queue = self._queues.get(waiting.command.ledger)
                if queue and queue[0] is waiting:
                    queue.popleft()
                    self._queued -= 1
                    self._bytes -= waiting.bytes
                    if not queue:
                        del self._queues[waiting.command.ledger]
                    self._settle(waiting, DeadlineExceeded("nothing was done within the deadline"))
                else:
                    waiting.answer(
                        DeadlineExceeded(
                            "the outcome is not known within the deadline; the same key will tell"
                        )
                    )
            QUEUE_COMMANDS.set(self._queued)  # batches may be held up while commands come and go


def _tell(command: Command, failure: BaseException) -> None:
    _log.error(
        Event.FAILED_TRANSACTION,
        ledger=command.ledger,
        id=command.id.hex,
        sqlstate=sqlstate_of(failure),
        error=str(failure),
    )


def _weight(command: Command) -> int:
    """Estimate the memory of a command, in bytes."""
    parts = len(command.postings) + len(command.conditions)
    size = _COMMAND_BYTES + _POSTING_BYTES * parts
    if command.metadata:
        size += sum(getsizeof(text) for item in command.metadata.items() for text in item)
    return size
