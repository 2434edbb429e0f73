"""The database of a process: a pool of sessions in which nothing about money is left to chance.

Used by everything that reads or writes. Each session is at READ COMMITTED with `synchronous_commit` on,
in UTC, with bounds on statements and locks, as the role `picopay_app`, which cannot change history.
Failures to reach the database become `DatabaseUnavailable`; all other errors pass through unchanged.
"""

import asyncio
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager, suppress
from copy import copy
from typing import Any, Literal, Self

import asyncpg
from asyncpg.pool import PoolConnectionProxy

from picopay_api.database_url import DatabaseUrl
from picopay_api.errors import DatabaseUnavailable, PicoPayError
from picopay_api.metrics import POOL_CONNECTIONS, child

type Isolation = Literal["read_committed", "repeatable_read", "serializable"]
type Connection = PoolConnectionProxy[asyncpg.Record]

RETRYABLE = (
    asyncpg.DeadlockDetectedError,
    asyncpg.SerializationError,
    asyncpg.LockNotAvailableError,
    asyncpg.UniqueViolationError,
)
"""What a second attempt can cure: another session was there first."""

UNREACHABLE = (
    OSError,
    TimeoutError,
    asyncpg.PostgresConnectionError,  # class 08
    asyncpg.OperatorInterventionError,  # class 57: shutdown, crash, cancelled by a time-out
    asyncpg.InsufficientResourcesError,  # class 53: disk, memory, connections
    asyncpg.PostgresSystemError,  # class 58: the server's disk cannot be read or written
    asyncpg.InvalidAuthorizationSpecificationError,  # class 28
    asyncpg.InvalidCatalogNameError,  # 3D000
    asyncpg.ReadOnlySQLTransactionError,  # 25006: a standby, after a failover
    asyncpg.InterfaceError,  # the session was closed under us
    asyncpg.InternalClientError,  # the server's last words came unasked; or no host is the primary
)
"""What says that the database cannot be reached now; of these, a `ValueError` says something else."""

_NOT_ADMITTED = (
    asyncpg.InvalidAuthorizationSpecificationError,
    asyncpg.InsufficientResourcesError,
)
"""Why one more session is refused, which says nothing about those that are open."""

_TOOK_TOO_LONG = (TimeoutError, asyncpg.QueryCanceledError, asyncpg.LockNotAvailableError)
"""What asking once more would only make worse."""

_USELESS = (OSError, TimeoutError, asyncpg.ReadOnlySQLTransactionError)
"""After these a session is not lent again: nobody answers at its end, or not the primary."""

_SESSION = {
    "timezone": "UTC",
    "synchronous_commit": "on",
    "default_transaction_isolation": "read committed",
    "idle_in_transaction_session_timeout": "30000",
    # A machine that vanishes says no farewell: what its sessions hold is given back within half a minute.
    "tcp_keepalives_idle": "15",
    "tcp_keepalives_interval": "5",
    "tcp_keepalives_count": "3",
    "tcp_user_timeout": "30000",
}

_FILL_S = 1
"""How long a session may be waited for that nobody needs yet."""

_ANSWER_S = 1
"""How long the answer of a statement that the server has cancelled may take."""

_AS_RUNTIME_ROLE = (
    "SELECT set_config('role', 'picopay_app', false)"
    " WHERE to_regrole('picopay_app') IS NOT NULL AND pg_has_role('picopay_app', 'MEMBER')"
)


class Database:
    """A pool of sessions. Opens even when the database is away: sessions are made when needed.

    While `refusal` is set (by `engine/readiness.py`), no session is lent and everything raises it.
    """

    def __init__(
        self, pool: "asyncpg.Pool[asyncpg.Record]", name: str, acquire_timeout_s: float
    ) -> None:
        self._pool = pool
        self._name = name
        self._acquire_timeout_s = acquire_timeout_s
        self.refusal: PicoPayError | None = None

    @classmethod
    async def open(
        cls,
        url: DatabaseUrl,
        *,
        size: int = 8,
        statement_timeout_ms: int = 10_000,
        lock_timeout_ms: int = 5_000,
        application_name: str = "picopay",
        connect_timeout_s: float = 5,
    ) -> Self:
        """Make the pool; no session yet. `application_name` tells pools apart, here and in metrics."""
        arguments = url.connect_arguments()
        settings = {
            **arguments.pop("server_settings", {}),
            **_SESSION,
            "statement_timeout": str(statement_timeout_ms),
            "lock_timeout": str(lock_timeout_ms),
            "application_name": application_name,
        }
        pool = await asyncpg.create_pool(
            **arguments,
            min_size=0,
            max_size=size,
            # What is open is kept: see `fill`.
            max_queries=sys.maxsize,
            max_inactive_connection_lifetime=0,
            timeout=connect_timeout_s,
            # A statement that outlives the server's own limit has lost its server.
            command_timeout=statement_timeout_ms / 1000 + _ANSWER_S,
            server_settings=settings,
            init=_become_runtime_role,
            reset=_keep,
        )
        return cls(pool, application_name, connect_timeout_s)

    async def fill(self) -> bool:
        """Open all sessions that the pool may have, as far as the server lets it; tell whether it did.

        A session that is open outlives the password it was opened with. One that is opened in the middle of
        a rush of payments is not only slow: it may be refused.
        """
        with suppress(*UNREACHABLE):
            # Only while all others are lent does the pool open one more.
            async with AsyncExitStack() as lent:
                for _ in range(self._pool.get_max_size()):
                    await lent.enter_async_context(self._pool.acquire(timeout=_FILL_S))
        self._observe()
        return self._pool.get_size() == self._pool.get_max_size()

    async def renew(self) -> None:
        """Have every session replaced before it is lent again."""
        await self._pool.expire_connections()

    async def close(self) -> None:
        """Close every session, giving those in use a moment."""
        try:
            await asyncio.wait_for(self._pool.close(), timeout=5)
        except TimeoutError:
            self._pool.terminate()

    def require_usable(self) -> None:
        """Refuse while the schema is unknown or out of range.

        Raises:
            SchemaOutOfRange, DatabaseUnavailable: as `engine/readiness.py` found.
        """
        if self.refusal is not None:
            raise copy(self.refusal)  # one each: a traceback belongs to the task that raises

    @asynccontextmanager
    async def session(self) -> AsyncIterator[Connection]:
        """Lend a session; what cannot be reached becomes `DatabaseUnavailable`.

        A lock that is not to be had in time is an error of the database here, for those who know what
        to do about it; all other ways to ask make it `DatabaseUnavailable`, too.
        """
        self.require_usable()
        async with self.unguarded_session() as connection:
            yield connection

    @asynccontextmanager
    async def unguarded_session(self) -> AsyncIterator[Connection]:
        """Lend a session whatever the schema is: to find out.

        While there is a refusal, the session is not kept: the migration that is waited for may be what
        makes the role that sessions take on.
        """
        kept = self.refusal is None
        try:
            async with self._pool.acquire(timeout=self._acquire_timeout_s) as connection:
                self._observe()
                try:
                    with _ended_when_useless(connection):
                        yield connection
                finally:
                    if not kept:
                        connection.terminate()
        except UNREACHABLE as error:
            if isinstance(error, ValueError) and not isinstance(error, OSError):
                raise  # an argument that the driver cannot encode, not a certificate that does not hold
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                # Giving the session back has failed, too; who is cancelled must not go on for that.
                raise asyncio.CancelledError from error
            raise DatabaseUnavailable("the database cannot be reached now") from error
        finally:
            self._observe()

    @asynccontextmanager
    async def transaction(
        self, *, isolation: Isolation = "read_committed", readonly: bool = False
    ) -> AsyncIterator[Connection]:
        """Lend a session inside a transaction that commits at the end of the block."""
        async with (
            self._asking() as connection,
            connection.transaction(isolation=isolation, readonly=readonly),
        ):
            # Here, too: a session that nobody answers must not be asked to roll back.
            with _ended_when_useless(connection):
                yield connection

    @asynccontextmanager
    async def _asking(self) -> AsyncIterator[Connection]:
        """Lend a session; who waits too long for the locks of another is told to come back."""
        try:
            async with self.session() as connection:
                yield connection
        except asyncpg.LockNotAvailableError as error:
            raise DatabaseUnavailable("other sessions were in the way; nothing was done") from error

    async def rows(self, sql: str, *arguments: Any) -> list[asyncpg.Record]:
        """Read rows; a lost session is replaced and asked once more."""
        return await self._read(lambda connection: connection.fetch(sql, *arguments))

    async def row(self, sql: str, *arguments: Any) -> asyncpg.Record | None:
        """Read the first row."""
        return await self._read(lambda connection: connection.fetchrow(sql, *arguments))

    async def value(self, sql: str, *arguments: Any) -> Any:
        """Read the first column of the first row."""
        return await self._read(lambda connection: connection.fetchval(sql, *arguments))

    async def run(self, sql: str, *arguments: Any) -> str:
        """Run one writing statement and return its command tag; never repeated by itself."""
        async with self._asking() as connection:
            return await connection.execute(sql, *arguments)

    async def _read[R](self, read: Callable[[Connection], Awaitable[R]]) -> R:
        try:
            async with self._asking() as connection:
                return await read(connection)
        except DatabaseUnavailable as error:
            if isinstance(error.__cause__, _TOOK_TOO_LONG):
                raise
            if not isinstance(error.__cause__, _NOT_ADMITTED):
                await self.renew()  # where one session was lost without a word, others are
            async with self._asking() as connection:
                return await read(connection)

    def _observe(self) -> None:
        idle = self._pool.get_idle_size()
        child(POOL_CONNECTIONS, self._name, "idle").set(idle)
        child(POOL_CONNECTIONS, self._name, "used").set(self._pool.get_size() - idle)


@contextmanager
def _ended_when_useless(connection: Connection) -> Iterator[None]:
    """End a session without a farewell where the driver would wait for an answer that never comes."""
    try:
        yield
    except _USELESS:
        connection.terminate()
        raise


async def _become_runtime_role(connection: "asyncpg.Connection[asyncpg.Record]") -> None:
    try:
        await connection.execute(_AS_RUNTIME_ROLE)
    except asyncpg.InsufficientPrivilegeError:
        # A member who may not SET ROLE (PostgreSQL 16 and later) has its rights by inheritance.
        return


async def _keep(_: "asyncpg.Connection[asyncpg.Record]") -> None:
    """Save the round trip of a reset: sessions are never left in a state worth resetting."""
