"""Whether this process may serve: the database answers, and its schema is one this release knows.

Watched beside the requests of a server (`engine.py`) and the loops of a worker (`worker/run.py`). While
the schema is unknown or out of range, every pool refuses to lend sessions, so nothing is written. A
database that is merely away refuses nothing here: requests wait for it within their deadlines.
"""

import asyncio

import asyncpg

from picopay_api.errors import DatabaseUnavailable, PicoPayError, SchemaOutOfRange
from picopay_api.logs import Event, get_logger
from picopay_api.metrics import READY, SCHEMA_REVISION
from picopay_api.store import schema
from picopay_api.store.database import Database

_INTERVAL_S = 1.0
_TIMEOUT_S = 5.0
_FILLS_MAX = 10
_READ_ONLY = "SELECT current_setting('transaction_read_only')::boolean"

_log = get_logger(__name__)


class Readiness:
    """What is known of the database that these pools lead to."""

    def __init__(self, *databases: Database) -> None:
        self._databases = databases
        self._in_range = asyncio.Event()
        self._revision: str | None = None
        self._leaving = False
        self._staying = False
        self._fills_left = _FILLS_MAX
        self.problem: str | None = "the database has not been looked at yet"
        """Why this process cannot serve, in a sentence; None when it can."""
        self._refuse(DatabaseUnavailable(self.problem))

    async def check(self) -> None:
        """Look once, and let the pools lend sessions or refuse."""
        try:
            async with (
                self._databases[0].unguarded_session() as connection,
                asyncio.timeout(_TIMEOUT_S),
            ):
                state = await schema.state(connection)  # type: ignore[arg-type]  # a pooled session is one
                read_only = await connection.fetchval(_READ_ONLY)
        except DatabaseUnavailable as error:
            if isinstance(error.__cause__, TimeoutError):
                # Its machine has gone without a word, and with it the other end of every session.
                for database in self._databases:
                    await database.renew()
            self._conclude("the database cannot be reached")
            return
        except asyncpg.PostgresError as error:  # such as a role without any right
            self._judge(f"the schema cannot be read: {error}")
            return
        self._show(state.current)
        if read_only:
            # A session stays with a standby when the primary is elsewhere by now, and stays as it was
            # made when the database takes writes again.
            for database in self._databases:
                await database.renew()
            self._judge(state.problem(), "the database is read-only: a standby, or set to be so")
        else:
            self._judge(state.problem())

    def _judge(self, problem: str | None, hindrance: str | None = None) -> None:
        """Let the pools lend sessions when the schema fits, and refuse when it does not.

        While there is a hindrance they lend, but this process is not ready.
        """
        if problem is None:
            self._refuse(None)
            self._in_range.set()
        else:
            self._refuse(SchemaOutOfRange(problem))
            self._in_range.clear()
        self._conclude(problem or hindrance)

    async def watch(self) -> None:
        """Look now and every second, for ever."""
        while True:
            try:
                await self.check()
                await self._fill()
            except Exception:  # noqa: BLE001  # the watch must go on
                _log.exception(Event.UNEXPECTED_ERROR)
                self._conclude("the schema cannot be read")
            await asyncio.sleep(_INTERVAL_S)

    async def _fill(self) -> None:
        """Fill the pools of a process that stays; what the server has no room for now, a few looks later."""
        if not self._staying or self.problem is not None or not self._fills_left:
            return
        self._fills_left -= 1
        filled = [await database.fill() for database in self._databases]
        if all(filled):
            self._fills_left = 0

    async def in_range(self) -> None:
        """Wait until the schema is one that this release knows."""
        await self._in_range.wait()

    def stay(self) -> None:
        """Have the pools filled as soon as the database can be used: of a process that serves for long."""
        self._staying = True

    def leave(self) -> None:
        """Say from now on that this process is about to end; the pools lend sessions as before."""
        self._leaving = True
        self._conclude(None)

    def _refuse(self, refusal: PicoPayError | None) -> None:
        for database in self._databases:
            database.refusal = refusal

    def _conclude(self, problem: str | None) -> None:
        if self._leaving:
            problem = "this process is about to end"
        if problem != self.problem:
            if problem is None:
                _log.info(Event.READY)
            elif not self._leaving:  # else the log says that the server is stopping
                _log.warning(Event.NOT_READY, reason=problem)
        self.problem = problem
        READY.set(1 if problem is None else 0)

    def _show(self, revision: str | None) -> None:
        if revision != self._revision and self._revision is not None:
            SCHEMA_REVISION.remove(self._revision)
        self._revision = revision
        if revision is not None:
            SCHEMA_REVISION.labels(revision=revision).set(1)
