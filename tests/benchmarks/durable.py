"""That commits wait for the disk as they should, and as long as they should: looked at, not assumed.

Used by `ground.py`. The server runs with the settings that `picopay up` gives it, for PicoPay and for
pgbench alike.
"""

import time
from typing import Any

import asyncpg

from benchmarks.servers import BenchmarkError
from picopay_api.database_url import DatabaseUrl
from support.postgres import on_connection

_ON = ("fsync", "synchronous_commit", "full_page_writes")
_TRIES = 20

# PostgreSQL sleeps so long before it flushes the WAL for a commit, in whoever flushes it: commits that
# come while it sleeps go with it, as they would with a disk that is slow. It does so only while at
# least so many other transactions are open, so that number has to be 0.
_DELAY = (
    "ALTER SYSTEM SET commit_delay = {delay_us}",
    "ALTER SYSTEM SET commit_siblings = 0",
    "SELECT pg_reload_conf()",
)
_COMMIT = "SELECT pg_logical_emit_message(true, 'bench', 'a commit of one session by itself')"
_RELOAD_TRIES = 100


async def require_durable(connection: "asyncpg.Connection[Any]") -> None:
    """See that what is acknowledged is on the disk.

    Raises:
        BenchmarkError: the server has other settings.
    """
    for name in _ON:
        if await connection.fetchval("SELECT current_setting($1)", name) != "on":
            raise BenchmarkError(f"{name} is not on")


async def slow_commits(url: DatabaseUrl, delay_ms: int) -> None:
    """Have every commit take this much longer from now on, and see that each does.

    Raises:
        BenchmarkError: a commit was faster.
    """

    async def work(connection: "asyncpg.Connection[Any]") -> None:
        for statement in _DELAY:
            await connection.execute(statement.format(delay_us=1000 * delay_ms))
        for _ in range(_RELOAD_TRIES):
            if await connection.fetchval("SHOW commit_delay") == str(1000 * delay_ms):
                break
            time.sleep(0.01)  # noqa: ASYNC251  # nothing else runs here
        taken_ms = []
        for _ in range(_TRIES):
            began_s = time.perf_counter()
            await connection.execute(_COMMIT)
            taken_ms.append(1000 * (time.perf_counter() - began_s))
        if min(taken_ms) < delay_ms:
            raise BenchmarkError(f"a commit took {min(taken_ms):.3f} ms, slowed by {delay_ms} ms")

    await on_connection(url, work)
