"""One account that everybody pays to, for minutes: what becomes of its row, of vacuum and of latency.

Run as `PYTHONPATH=api:tests python -m support.hot_account --minutes 10`; the test of it is short. It starts
a server of its own with the settings of `picopay up`, has batches decided on it as fast as they go, and
writes a line for each interval. `--snapshot` keeps a transaction open all the time, as a long report does.
"""

import argparse
import asyncio
import random
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any
from uuid import UUID

import asyncpg
import msgspec

from picopay_api.database_url import DatabaseUrl
from picopay_api.embedded import EmbeddedPostgres
from picopay_api.store import decide, migrate
from picopay_api.store.database import Database
from picopay_api.worker.audit_all import audit_everything
from support.journal import Book, opened

SESSIONS = 2  # as one server process has for commits
BATCH_COMMANDS = 8
ACCOUNTS = 500

_STATISTICS = """
SELECT s.n_dead_tup AS dead, s.n_tup_upd AS updates, s.n_tup_hot_upd AS hot_updates,
       s.autovacuum_count AS vacuums, pg_table_size(s.relid) / 1024 AS table_kib,
       pg_indexes_size(s.relid) / 1024 AS index_kib
  FROM pg_stat_user_tables AS s WHERE s.relid = 'picopay.balance'::regclass
"""


class Interval(msgspec.Struct, frozen=True):
    """What was seen of the table `balance` in an interval, and of the batches decided in it."""

    batches: int
    median_ms: float
    p99_ms: float
    dead: int
    hot_share: float
    vacuums: int
    table_kib: int
    index_kib: int

    def __str__(self) -> str:
        return (
            f"{self.batches:8} batches  {self.median_ms:7.2f} ms median  {self.p99_ms:7.2f} ms p99  "
            f"{self.dead:8} dead  {self.hot_share:6.1%} HOT  {self.vacuums:3} vacuums  "
            f"{self.table_kib:6} KiB table  {self.index_kib:6} KiB indexes"
        )


class HotAccount:
    """The account, those who pay to it, and how long each batch took."""

    def __init__(self, book: Book, hot: UUID, others: Sequence[UUID]) -> None:
        self._book = book
        self._hot = hot
        self._others = others
        self._took_s: list[float] = []
        self._before = (0, 0)

    async def pay_on(self, until: float) -> None:
        """Have batch after batch decided on a session of its own."""
        book = self._book
        async with book.database.session() as connection:
            while time.monotonic() < until:
                sources = random.sample(self._others, BATCH_COMMANDS)
                batch = [book.payment(source, self._hot, 1) for source in sources]
                started = time.monotonic()
                outcomes = await decide.decide(connection, book.ledger, 3, batch)
                self._took_s.append(time.monotonic() - started)
                assert {outcome.code for outcome in outcomes} == {"ok"}

    async def observe(self, owner: "asyncpg.Connection[Any]") -> Interval:
        """Return what has happened since the last look."""
        took_s, self._took_s = sorted(self._took_s), []
        await owner.execute("SELECT pg_stat_clear_snapshot()")
        row = await owner.fetchrow(_STATISTICS)
        assert row is not None
        updates, hot = row["updates"] - self._before[0], row["hot_updates"] - self._before[1]
        self._before = (row["updates"], row["hot_updates"])
        return Interval(
            batches=len(took_s),
            median_ms=took_s[len(took_s) // 2] * 1000,
            p99_ms=took_s[len(took_s) * 99 // 100] * 1000,
            dead=row["dead"],
            hot_share=hot / max(updates, 1),
            vacuums=row["vacuums"],
            table_kib=row["table_kib"],
            index_kib=row["index_kib"],
        )


async def run(
    url: DatabaseUrl,
    intervals: int,
    interval_s: float,
    tell: Callable[[Interval], None],
    *,
    snapshot: bool,
    before: str = "SELECT 1",
) -> list[Interval]:
    """Pay for some intervals, tell of each, and audit everything in the end."""
    async with AsyncExitStack() as stack:
        database = await stack.enter_async_context(opened(url))
        owner, reporter = [await asyncpg.connect(**url.connect_arguments()) for _ in range(2)]
        stack.push_async_callback(owner.close)
        stack.push_async_callback(reporter.close)
        await owner.execute(before)
        account = await _prepare(database)
        if snapshot:
            await reporter.execute("BEGIN ISOLATION LEVEL REPEATABLE READ")
            await reporter.fetchval("SELECT sum(posted_minor) FROM picopay.balance")
        found = []
        started = time.monotonic()
        async with asyncio.TaskGroup() as group:
            for _ in range(SESSIONS):
                group.create_task(account.pay_on(started + intervals * interval_s))
            for number in range(1, intervals + 1):
                await asyncio.sleep(started + number * interval_s - time.monotonic())
                found.append(await account.observe(owner))
                tell(found[-1])
        assert await audit_everything(database, lambda _: None) == []
        return found


async def _prepare(database: Database) -> HotAccount:
    book = await Book.make(database)
    others = [await book.account(floor_minor=None) for _ in range(ACCOUNTS)]
    account = HotAccount(book, await book.account(), others)
    await account.pay_on(time.monotonic() + 1)
    account._took_s.clear()
    return account


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--minutes", type=int, default=10)
    parser.add_argument("--interval-s", type=float, default=60)
    parser.add_argument("--snapshot", action="store_true", help="keep an old snapshot open")
    parser.add_argument("--before", default="SELECT 1", help="a statement to try something out")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="picopay-hot-") as folder:
        Path(folder).chmod(0o755)
        postgres = EmbeddedPostgres(Path(folder) / "server")
        postgres.start()
        try:
            asyncio.run(migrate.upgrade_async(postgres.owner_url))
            asyncio.run(
                run(
                    postgres.owner_url,
                    int(asked.minutes * 60 / asked.interval_s),
                    asked.interval_s,
                    lambda interval: print(interval, flush=True),
                    snapshot=asked.snapshot,
                    before=asked.before,
                )
            )
        finally:
            postgres.stop()


if __name__ == "__main__":
    main()
