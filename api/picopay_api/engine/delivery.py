"""How a batch gets through: retried where that can help, then split until the culprit stands alone.

Called by `committer.py`, which owns queues and waiters. Asking again is always safe, because a command
carries its idempotency key: what an attempt with a lost answer has committed comes back as a replay.
"""

import asyncio
import random
from collections.abc import Callable, Sequence
from time import perf_counter

import asyncpg
import msgspec

from picopay_api.engine.commands import Command
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

_log = get_logger(__name__)

Settle = Callable[[Command, Outcome | PicoPayError], None]


class Delivery:
    """Carries batches to `picopay.decide`; `retention_days` is how long keys are remembered."""

    def __init__(self, database: Database, retention_days: int) -> None:
        self._database = database
        self._retention_days = retention_days

    def require_usable(self) -> None:
        """Refuse while the schema is unknown or out of range (`Database.require_usable`)."""
        self._database.require_usable()

    async def deliver(
        self, batch: Sequence[Command], settle: Settle, wanted: Callable[[], bool]
    ) -> None:
        """Settle every command of a batch of one ledger, with its outcome or with an error.

        `wanted` tells whether anybody still waits: attempts to reach the database end when nobody does.
        """
        groups = [batch]
        while groups:  # each turn settles a group or halves it
            group = groups.pop()
            result = await self._attempt(group, wanted)
            if not isinstance(result, PicoPayError):
                for command, outcome in zip(group, result, strict=True):
                    settle(command, _as_first(command, outcome))
            elif len(group) == 1 or isinstance(result, UnavailableError):
                for command in group:
                    settle(command, result)
            else:
                middle = len(group) // 2
                groups += [group[middle:], group[:middle]]

    async def _attempt(
        self, group: Sequence[Command], wanted: Callable[[], bool]
    ) -> list[Outcome] | PicoPayError:
        collisions = reconnects = 0
        while True:
            try:
                return await self._decide(group)
            except RETRYABLE as error:
                self._note_retry(type(error).__name__, group)
                collisions += 1
                if collisions == _ATTEMPTS_MAX:
                    return self._give_up(group, error)
            except DatabaseUnavailable as error:
                self._note_retry("unreachable", group)
                reconnects += 1
                if reconnects == _RECONNECTS_MAX or not wanted():
                    return error
            except UnavailableError as error:
                return error
            except (asyncpg.PostgresError, ValueError) as error:
                if _sqlstate(error) == _CLOCK_SKEW:
                    _log.error(Event.UNEXPECTED_ERROR, error=str(error))
                    return DatabaseUnavailable(str(error))
                return self._give_up(group, error)
            pause_s = min(_PAUSE_MAX_S, _PAUSE_S * 2 ** (collisions + reconnects))
            # Jitter, so that two processes that met do not meet again.
            await asyncio.sleep(pause_s * random.uniform(0.5, 1))  # noqa: S311  # not for secrets

    async def _decide(self, group: Sequence[Command]) -> list[Outcome]:
        async with self._database.session() as connection:
            began_s = perf_counter()
            outcomes = await decide(connection, group[0].ledger, self._retention_days, group)
            COMMIT_SECONDS.observe(perf_counter() - began_s)
        return outcomes

    def _note_retry(self, reason: str, group: Sequence[Command]) -> None:
        BATCH_RETRIES.labels(reason=reason).inc()
        _log.warning(Event.BATCH_RETRIED, reason=reason, commands=len(group))

    def _give_up(self, group: Sequence[Command], error: Exception) -> PicoPayError:
        if len(group) == 1:
            _log.error(
                Event.FAILED_TRANSACTION,
                ledger=group[0].ledger,
                id=group[0].id.hex,
                sqlstate=_sqlstate(error),
                error=str(error),
            )
        if isinstance(error, RETRYABLE) and len(group) == 1:
            return DatabaseUnavailable("other sessions were in the way each time; nothing was done")
        return InternalError("the command could not be decided; nothing was done")


def _sqlstate(error: Exception) -> str | None:
    """Return PostgreSQL's code of an error; None of one that the driver raised by itself."""
    return error.sqlstate if isinstance(error, asyncpg.PostgresError) else None


def _as_first(command: Command, outcome: Outcome) -> Outcome:
    """Tell what an attempt of ours with a lost answer had decided apart from a true replay."""
    if outcome.replayed and outcome.id == command.id:
        return msgspec.structs.replace(outcome, replayed=False)
    return outcome
