"""Payments over HTTP while the database itself stands in the way: full of others, read-only, slow, locked.

Nothing is lost or doubled, and the server serves again by itself when the database does.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg
import pytest

from picopay_api.database_url import DatabaseUrl
from support.api import served
from support.clock import Clock
from support.locks import held
from support.sql import execute
from support.suffering import MORE, answered, counted, paying, shown

DEADLINE_MS = 800
SESSIONS = 12
TERMINATE_OURS = (
    "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity"
    " WHERE datname = current_database() AND application_name LIKE 'picopay%'"
)
FAILING = """
CREATE FUNCTION public.fail() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN {} RETURN NULL; END';
GRANT EXECUTE ON FUNCTION public.fail() TO PUBLIC;
CREATE TRIGGER fail AFTER INSERT ON picopay.commit EXECUTE FUNCTION public.fail();
"""
WORKING = "DROP TRIGGER fail ON picopay.commit; DROP FUNCTION public.fail()"
FAILURES = {
    "a statement takes too long": "PERFORM pg_sleep(60);",
    "the disk cannot be read": "RAISE io_error;",
}


def retries(reason: str) -> str:
    return f'picopay_batch_retries_total{{reason="{reason}"}}'


@asynccontextmanager
async def every_session_taken(url: DatabaseUrl) -> AsyncIterator[None]:
    """Take the sessions that the database has left, and those of our server."""
    # Few are taken faster than the hundred that the whole server has; it refuses with the same code.
    await execute(url, f"ALTER DATABASE {url.database} CONNECTION LIMIT {SESSIONS}")
    async with AsyncExitStack() as stack:
        owner = await asyncpg.connect(**url.connect_arguments())
        stack.push_async_callback(owner.close)
        for _ in range(10 * SESSIONS):
            try:
                stranger = await asyncpg.connect(**url.connect_arguments())
            except asyncpg.TooManyConnectionsError:
                # Whoever comes first has the session that becomes free.
                if not await owner.fetchval(TERMINATE_OURS):
                    break
            else:
                stack.push_async_callback(stranger.close)
        yield


async def test_too_many_connections(database_url: DatabaseUrl) -> None:
    async with (
        served(database_url, request_timeout_ms=DEADLINE_MS) as api,
        paying(api, database_url) as load,
    ):
        async with every_session_taken(database_url):
            await load.suffers()
            assert "cannot be reached" in str(await answered(api, "/readyz", 503))
        await load.goes_on()
        await answered(api, "/readyz", 200)


async def test_a_database_that_is_read_only(database_url: DatabaseUrl) -> None:
    name = database_url.database
    async with (
        served(database_url, request_timeout_ms=DEADLINE_MS) as api,
        paying(api, database_url) as load,
    ):
        await execute(database_url, f"ALTER DATABASE {name} SET default_transaction_read_only = on")
        await execute(database_url, TERMINATE_OURS)
        await load.suffers()
        assert "read-only" in str(await answered(api, "/readyz", 503))
        # Reading goes on.
        assert await api.available("alice") > 0
        await execute(
            database_url,
            "SET transaction_read_only = off;"
            f" ALTER DATABASE {name} RESET default_transaction_read_only",
        )
        await load.goes_on()
        await answered(api, "/readyz", 200)


@pytest.mark.parametrize("failure", FAILURES)
async def test_statements_that_do_not_end_well(database_url: DatabaseUrl, failure: str) -> None:
    settings: dict[str, Any] = {
        "request_timeout_ms": DEADLINE_MS,
        "statement_timeout_ms": 300,
        "lock_timeout_ms": 200,
    }
    async with (
        served(database_url, **settings) as api,
        paying(api, database_url) as load,
    ):
        before = await shown(api, retries("unreachable"))
        await execute(database_url, FAILING.format(FAILURES[failure]))
        await load.suffers("deadline_exceeded")
        await counted(api, retries("unreachable"), before)
        await execute(database_url, WORKING)
        await load.goes_on()


async def test_an_account_that_a_stranger_has_locked(database_url: DatabaseUrl) -> None:
    async with (
        served(database_url, lock_timeout_ms=1_000) as api,
        paying(api, database_url) as load,
    ):
        await api.account("erin")
        before = await shown(api, retries("LockNotAvailableError"))
        async with held(database_url, "erin") as erin:
            stuck = [
                asyncio.ensure_future(load.until_told(f"load-stuck-{number}", "alice", "erin", 1))
                for number in range(3)
            ]
            await erin.waited_for()
            await counted(api, retries("LockNotAvailableError"), before)
            await load.goes_on(5 * MORE)  # the others, and not one a second
            assert not any(payment.done() for payment in stuck)
        await asyncio.gather(*stuck)


@pytest.fixture
async def clock(database_url: DatabaseUrl, monkeypatch: pytest.MonkeyPatch) -> Clock:
    return await Clock.of(database_url, monkeypatch)


async def test_clocks_that_step(database_url: DatabaseUrl, clock: Clock) -> None:
    # A step of the clock of the process is a step of the database's, the other way round.
    async with (
        served(database_url, request_timeout_ms=DEADLINE_MS) as api,
        paying(api, database_url) as load,
    ):
        for forwards in (timedelta(hours=1), timedelta(days=40)):
            await clock.set(datetime.now(UTC) + forwards)
            await load.suffers("database_unavailable")
            await counted(api, retries("clock_skew"), 0)
            # Backwards, time stands still on accounts until it is later than what they have seen.
            await clock.set(datetime.now(UTC) - forwards)
            await load.goes_on()
            await clock.set(datetime.now(UTC))
            await load.goes_on()
        load.answers.clear()
        for minutes in (4, -4, 0):
            await clock.set(datetime.now(UTC) + timedelta(minutes=minutes))
            await load.goes_on()
        assert load.never_suffered()
