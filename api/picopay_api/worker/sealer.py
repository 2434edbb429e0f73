"""The sealer: gives settled commits their positions, one block after another, per ledger.

Run by `worker/run.py`. Everything that reads history in order (the event feed, exports, proofs)
waits for it, so it works in short rounds: learn which ledgers have newly settled commits, seal one
block of each, again. It only ever inserts blocks; a crash between two statements leaves nothing.

Order: whatever was answered before something else was asked for stands before it; of what was
decided at the same time, either may come first.
"""

import time
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import asyncpg
import msgspec

from picopay_api.engine import chain
from picopay_api.logs import Event, get_logger
from picopay_api.metrics import SEAL_LAG_SECONDS, SEALED_EVENTS
from picopay_api.store import audit as audit_statements
from picopay_api.store import seal as statements
from picopay_api.store.database import Connection, Database

BLOCK_ROWS_MAX = 1_000
"""Rows of a block, unless one commit has more; bounds the work of reading around a position."""

IDLE_PAUSE_S = 0.15

_COMMITS_MAX = 1_000
_LEDGERS_PER_ROUND = 100
_SWEEP_LEDGERS = 1_000
_SWEEP_INTERVAL_S = 60.0
_BEFORE_ALL = UUID(int=0)

_log = get_logger(__name__)


class JournalIncompleteError(Exception):
    """A commit says that it has more (or fewer) rows than the journal holds: never sealed."""

    def __init__(self, cluster: int, xid: int) -> None:
        super().__init__(f"the journal does not hold what commit {xid} of cluster {cluster} says")
        self.subject = f"{cluster}/{xid}"


class Sealed(msgspec.Struct, frozen=True):
    """What one attempt came to: events sealed, and whether settled commits are left."""

    events: int = 0
    more: bool = False
    busy: bool = False
    waiting_since: datetime | None = None


class Sealer:
    """Seals all ledgers of a database. Keeps in memory only which have something to seal."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._pending: dict[UUID, datetime | None] = {}  # in order of turn
        self._clusters: list[int] = []
        self._seen_before = 0  # commits below this id have been noticed
        self._sweep_at = 0.0

    async def step(self) -> float:
        """Do one round; return how long to pause, in seconds."""
        await self._notice()
        sealed = 0
        for ledger in list(self._pending)[:_LEDGERS_PER_ROUND]:
            sealed += await self._seal_one(ledger)
        # Without a backlog there is a pause even under load: fewer and larger blocks.
        return 0.0 if sealed and self._pending else IDLE_PAUSE_S

    async def _notice(self) -> None:
        """Learn which ledgers have newly settled commits."""
        here = await self._database.row(statements.SNAPSHOT)
        assert here is not None  # it has no WHERE clause
        if time.monotonic() >= self._sweep_at:
            await self._sweep(here["cluster"])
            self._sweep_at = time.monotonic() + _SWEEP_INTERVAL_S
        elif here["settled_before"] > self._seen_before:
            # The ids in between are settled: this statement began after the snapshot was taken.
            active = await self._database.rows(
                statements.ACTIVE, here["cluster"], self._seen_before, here["settled_before"]
            )
            for record in active:
                self._pending.setdefault(record["ledger_id"])
        self._seen_before = here["settled_before"]
        self._measure_lag(here["waiting_since"])

    async def _sweep(self, cluster: int) -> None:
        """Look at every ledger and cluster: at the start, and as a net now and then."""
        known = {record["cluster"] for record in await self._database.rows(statements.CLUSTERS)}
        self._clusters = sorted(known | {cluster})
        after = _BEFORE_ALL
        while True:
            page = await self._database.rows(
                statements.UNSEALED_LEDGERS, after, self._clusters, _SWEEP_LEDGERS
            )
            for record in page:
                if record["unsealed"]:
                    self._pending.setdefault(record["ledger_id"])
            if len(page) < _SWEEP_LEDGERS:
                return
            after = page[-1]["ledger_id"]

    async def _seal_one(self, ledger: UUID) -> int:
        """Seal the next block of a ledger; it goes to the end of the queue, or out of it."""
        # First to the end: a ledger that fails stays in the queue and does not hold the others up.
        self._pending[ledger] = self._pending.pop(ledger)
        try:
            sealed = await self.seal(ledger)
        except JournalIncompleteError as error:
            await self._report(ledger, error)
            sealed = Sealed()  # the next sweep tries again
        if sealed.more or sealed.busy:
            self._pending[ledger] = sealed.waiting_since
        else:
            del self._pending[ledger]
        return sealed.events

    async def seal(self, ledger: UUID) -> Sealed:
        """Seal at most one block of a ledger, in a transaction of its own.

        Raises:
            JournalIncompleteError: rows of a settled commit are missing; nothing was sealed.
        """
        clusters = self._clusters or await self._known_clusters()
        try:
            async with self._database.transaction() as connection:
                if not await connection.fetchval(statements.TRY_LOCK, ledger):
                    return Sealed(busy=True)
                # Each statement takes a snapshot of its own, later than the lock: the last block of
                # whoever held it before is visible.
                commits = await connection.fetch(
                    statements.UNSEALED, ledger, clusters, _COMMITS_MAX
                )
                settled = [commit for commit in commits if commit["settled"]]
                chosen = _fill_block(settled)
                if not chosen:
                    return Sealed()
                await _insert_block(connection, ledger, chosen)
        except asyncpg.UniqueViolationError:
            return Sealed(busy=True)  # another sealer was there, whatever became of the lock
        events = sum(commit["count"] for commit in chosen)
        SEALED_EVENTS.inc(events)
        left = settled[len(chosen) :]
        return Sealed(events, bool(left), waiting_since=left[0]["decided_at"] if left else None)

    async def _known_clusters(self) -> list[int]:
        here = await self._database.row(statements.SNAPSHOT)
        assert here is not None  # it has no WHERE clause
        known = {record["cluster"] for record in await self._database.rows(statements.CLUSTERS)}
        return sorted(known | {here["cluster"]})

    def _measure_lag(self, waiting_since: datetime | None) -> None:
        """Show how long the oldest known commit has been waiting, settled or not."""
        times = [moment for moment in (waiting_since, *self._pending.values()) if moment]
        age_s = (datetime.now(UTC) - min(times)).total_seconds() if times else 0.0
        SEAL_LAG_SECONDS.set(max(age_s, 0.0))

    async def _report(self, ledger: UUID, error: JournalIncompleteError) -> None:
        _log.error(Event.SEALING_STALLED, ledger=str(ledger), detail=str(error))
        await self._database.run(
            audit_statements.ADD_FINDING, ledger, "journal_incomplete", error.subject, str(error)
        )


def _fill_block(settled: Sequence[Any]) -> Sequence[Any]:
    """Take commits of one cluster, in order of id, until the block is full.

    Ascending ids without a gap in what is taken are what makes the block's range exact.
    """
    rows = 0
    for taken, commit in enumerate(settled):
        rows += commit["count"]
        if taken and (rows > BLOCK_ROWS_MAX or commit["cluster"] != settled[0]["cluster"]):
            return settled[:taken]
    return settled


async def _insert_block(connection: Connection, ledger: UUID, commits: Sequence[Any]) -> None:
    tip = await connection.fetchrow(statements.TIP, ledger)
    first, last = commits[0], commits[-1]
    xid_from, xid_to = first["xid_from"], last["xid"] + 1
    rows = await connection.fetch(statements.ROWS, ledger, first["cluster"], xid_from, xid_to)
    _require_complete(commits, rows)
    block = chain.Block(
        ledger=ledger,
        height=tip["height"] + 1 if tip else 1,
        cluster=first["cluster"],
        xid_from=xid_from,
        xid_to=xid_to,
        first_position=tip["next_position"] if tip else 1,
        count=len(rows),
        root=chain.merkle_root([chain.leaf_hash(chain.document(ledger, row)) for row in rows]),
        previous_hash=tip["hash"] if tip else chain.GENESIS,
    )
    values = msgspec.structs.astuple(block)
    await connection.execute(statements.INSERT, *values, chain.block_hash(block))


def _require_complete(commits: Sequence[Any], rows: Sequence[Any]) -> None:
    found = Counter(row["xid"] for row in rows)
    for commit in commits:
        if found.pop(commit["xid"], 0) != commit["count"]:
            raise JournalIncompleteError(commit["cluster"], commit["xid"])
    for xid in found:
        raise JournalIncompleteError(commits[0]["cluster"], xid)
