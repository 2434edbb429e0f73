"""How a batch gets through: retried where that can help, parted from who must wait, split to find a culprit.

Called by `committer.py`, which owns queues and waiters. Asking again is always safe, because a command
carries its idempotency key: what an attempt with a lost answer has committed comes back as a replay.
"""

import asyncio
import random
from collections import deque
from collections.abc import Callable, Sequence
from time import perf_counter
from uuid import UUID

import asyncpg
import msgspec

from picopay_api.engine.commands import Command
from picopay_api.engine.locked import LockedAccounts, touches
from picopay_api.errors import DatabaseUnavailable, InternalError, PicoPayError, UnavailableError
from picopay_api.logs import Event, get_logger
from picopay_api.metrics import BATCH_RETRIES, COMMIT_SECONDS
from picopay_api.store.database import RETRYABLE, Database
from picopay_api.store.decide import Outcome, decide

_ATTEMPTS_MAX = 5  # before a batch is split
_RECONNECTS_MAX = 60
_PAUSE_S = 0.01
_PAUSE_MAX_S = 0.5
_CLOCK_SKEW = "PP001"  # raised by decide.sql
_BELOW_TIME_BITS = 80  # a UUIDv7 begins with the milliseconds at which it was made

_log = get_logger(__name__)

Settle = Callable[[Command, Outcome | PicoPayError], None]
Wanted = Callable[[Sequence[Command]], bool]

_HELD = "another session holds an account of this command; the same key will tell"
_NOT_WANTED = DatabaseUnavailable("nobody waits for the outcome any more; the same key will tell")


class _Group:
    """Commands that are tried together, and how that has gone so far."""

    __slots__ = ("collisions", "commands", "in_doubt", "reconnects", "suspects", "waited")

    def __init__(
        self,
        commands: Sequence[Command],
        *,
        in_doubt: bool = False,
        waited: asyncpg.LockNotAvailableError | None = None,
    ) -> None:
        self.commands = commands
        self.in_doubt = in_doubt  # an answer was lost: it may be decided already
        self.waited = waited  # in vain, for a lock
        self.suspects: set[UUID] = set()  # accounts that were locked then
        self.collisions = 0
        self.reconnects = 0

    def parts(self) -> "list[_Group]":
        """Part the group: who must wait from the others, who come first; else in the middle."""
        needy = [command for command in self.commands if touches(command, self.suspects)]
        others = [command for command in self.commands if not touches(command, self.suspects)]
        if not needy or not others:
            middle = len(self.commands) // 2
            others, needy = list(self.commands[:middle]), list(self.commands[middle:])
        return [
            _Group(part, in_doubt=self.in_doubt, waited=self.waited) for part in (others, needy)
        ]

    def pause_s(self) -> float:
        """Return how long to wait before the next attempt."""
        pause_s = min(_PAUSE_MAX_S, _PAUSE_S * 2.0 ** (self.collisions + self.reconnects))
        # Jitter, so that two processes that met do not meet again.
        return pause_s * random.uniform(0.5, 1)  # noqa: S311  # not for secrets


class Delivery:
    """Carries batches to `picopay.decide`; `retention_days` is how long keys are remembered."""

    def __init__(self, database: Database, retention_days: int) -> None:
        self._database = database
        self._retention_days = retention_days
        self._locked = LockedAccounts(database)

    def require_usable(self) -> None:
        """Refuse while the schema is unknown or out of range (`Database.require_usable`)."""
        self._database.require_usable()

    async def deliver(self, batch: Sequence[Command], settle: Settle, wanted: Wanted) -> None:
        """Settle every command of a batch of one ledger, with its outcome or with an error.

        `wanted` tells whether anybody still waits for some of them: attempts end when nobody does.
        """
        groups = deque([_Group(batch)])
        while groups:  # each turn settles some of a group, parts it, or puts it behind the others
            group = groups.popleft()
            result: list[Outcome] | PicoPayError | None = _NOT_WANTED
            if wanted(group.commands):
                await self._refuse_held(group, settle)
                result = await self._attempt(group) if group.commands else []
            if result is None:
                groups.append(group)
                await asyncio.sleep(group.pause_s())
            elif not isinstance(result, PicoPayError):
                for command, outcome in zip(group.commands, result, strict=True):
                    settle(command, _as_first(command, outcome, in_doubt=group.in_doubt))
            elif len(group.commands) == 1 or isinstance(result, UnavailableError):
                for command in group.commands:
                    settle(command, result)
            else:
                groups += group.parts()

    async def _refuse_held(self, group: _Group, settle: Settle) -> None:
        """Settle those who need an account that another session holds, and go on without them."""
        held = await self._locked.held(group.commands)
        if not held:
            return
        self._note_retry(asyncpg.LockNotAvailableError.__name__, group)
        refusal = DatabaseUnavailable(_HELD)
        refusal.__cause__ = group.waited
        for command in group.commands:
            if touches(command, held):
                settle(command, refusal)
        group.commands = [command for command in group.commands if not touches(command, held)]

    async def _attempt(self, group: _Group) -> list[Outcome] | PicoPayError | None:
        """Try once; return the outcomes, an error, or None when trying again can help."""
        try:
            return await self._decide(group.commands)
        except RETRYABLE as error:
            self._note_retry(type(error).__name__, group)
            group.collisions += 1
            if isinstance(error, asyncpg.LockNotAvailableError):
                group.waited = error
                group.suspects = await self._locked.suspect(group.commands)
            if group.collisions == _ATTEMPTS_MAX or _is_held_up(group, error):
                return self._give_up(group, error)
        except DatabaseUnavailable as error:
            self._note_retry("unreachable", group)
            group.in_doubt = True
            group.reconnects += 1
            if _is_held_up(group, error):
                return self._give_up(group, error)
            if group.reconnects == _RECONNECTS_MAX:
                return error
        except UnavailableError as error:
            return error
        except (asyncpg.PostgresError, ValueError) as error:
            if sqlstate_of(error) == _CLOCK_SKEW:
                self._note_retry("clock_skew", group)  # the clients', who are told to ask again
                return DatabaseUnavailable(str(error))
            return self._give_up(group, error)
        return None

    async def _decide(self, group: Sequence[Command]) -> list[Outcome]:
        async with self._database.session() as connection:
            began_s = perf_counter()
            outcomes = await decide(connection, group[0].ledger, self._retention_days, group)
            COMMIT_SECONDS.observe(perf_counter() - began_s)
        return outcomes

    def _note_retry(self, reason: str, group: _Group) -> None:
        BATCH_RETRIES.labels(reason=reason).inc()
        _log.warning(Event.BATCH_RETRIED, reason=reason, commands=len(group.commands))

    def _give_up(self, group: _Group, error: Exception) -> PicoPayError:
        refusal: PicoPayError = InternalError("the command could not be decided; nothing was done")
        if len(group.commands) == 1 and isinstance(error, RETRYABLE):
            refusal = DatabaseUnavailable(
                "other sessions were in the way each time; the same key will tell"
            )
        refusal.__cause__ = error
        return refusal


def failure_of(outcome: Outcome | PicoPayError) -> BaseException | None:
    """Return the failure of the database for which a command was given up; None when it was not."""
    if not isinstance(outcome, InternalError | DatabaseUnavailable):
        return None
    cause = outcome.__cause__
    # A database that cannot be reached has failed nobody's command in particular.
    return cause if isinstance(outcome, InternalError) or isinstance(cause, RETRYABLE) else None


def sqlstate_of(error: BaseException) -> str | None:
    """Return PostgreSQL's code of an error; None of one that the driver raised by itself."""
    return error.sqlstate if isinstance(error, asyncpg.PostgresError) else None


def _is_held_up(group: _Group, error: Exception) -> bool:
    """Tell whether a lock or the work itself took too long for a group of which half may not wait."""
    too_long = isinstance(error, asyncpg.LockNotAvailableError) or isinstance(
        error.__cause__, asyncpg.QueryCanceledError
    )
    return too_long and len(group.commands) > 1


def _as_first(command: Command, outcome: Outcome, *, in_doubt: bool) -> Outcome:
    """Tell what an attempt of ours with a lost answer had decided apart from a true replay.

    What was refused has no id to know it by: it is ours when it was decided after we had asked.
    """
    if not outcome.replayed:
        return outcome
    ours = outcome.id == command.id
    if in_doubt and outcome.id is None:
        ours = round(outcome.at.timestamp() * 1000) >= command.id.int >> _BELOW_TIME_BITS
    return msgspec.structs.replace(outcome, replayed=False) if ours else outcome
