"""The continuous auditor: looks at everything written once more, and says what does not add up.

Run by `worker/run.py`. Block by block it follows the sealer; beside that it goes round all
accounts, a slice at a time, and adds up all balances at a pace that keeps the cost of it at a
hundredth of one connection. It only reads the ledger, in one snapshot per ledger and step, so that
it never sees a payment half done; it writes its own state and what it found. It works a quarter of
the time at most.
"""

import time
from uuid import UUID

import asyncpg
import msgspec

from picopay_api.engine import chain
from picopay_api.logs import Event, get_logger
from picopay_api.metrics import AUDIT_CHECKED_EVENTS, AUDIT_FINDINGS
from picopay_api.store import audit as statements
from picopay_api.store.database import Connection, Database
from picopay_api.worker.checks import Fault
from picopay_api.worker.examine import (
    Tip,
    examine_accounts,
    examine_block,
    examine_sums,
    tip_of,
)

_LEDGERS_PER_STEP = 20
_BLOCKS_PER_STEP = 8
_ACCOUNTS_PER_STEP = 500
_FINDINGS_PER_STEP = 100
_WORK_SHARE = 0.25
_SUMS_SHARE = 0.01
_BEFORE_ALL = UUID(int=0)

_log = get_logger(__name__)


class Progress(msgspec.Struct):
    """How far the auditor is in a ledger. `account` is None between two rounds of all accounts."""

    height: int
    position: int
    block_hash: bytes
    account: UUID | None
    sums: dict[str, int]

    @property
    def tip(self) -> Tip:
        """The end of the checked part of the chain."""
        return self.height, self.position, self.block_hash


class Auditor:
    """Audits all ledgers of a database, over and over."""

    def __init__(self, database: Database, interval_s: float) -> None:
        self._database = database
        self._interval_s = interval_s
        self._after = _BEFORE_ALL
        self._behind = False
        self._sums_due: dict[UUID, float] = {}

    async def step(self) -> float:
        """Audit the next few ledgers; return how long to pause, in seconds."""
        started = time.monotonic()
        page = await self._database.rows(statements.LEDGERS, self._after, _LEDGERS_PER_STEP)
        for record in page:
            self._behind |= await self.check(record["ledger_id"])
        AUDIT_FINDINGS.set(await self._database.value(statements.COUNT_FINDINGS))
        rest_s = (time.monotonic() - started) * (1 / _WORK_SHARE - 1)
        if len(page) == _LEDGERS_PER_STEP:
            self._after = page[-1]["ledger_id"]
            return rest_s
        behind, self._behind, self._after = self._behind, False, _BEFORE_ALL
        return rest_s if behind else max(rest_s, self._interval_s)

    async def check(self, ledger: UUID) -> bool:
        """Audit the next blocks and accounts of a ledger; tell whether there are more blocks now.

        What was found is stored with the progress, or neither is.
        """
        try:
            async with self._database.transaction(isolation="repeatable_read") as connection:
                if not await connection.fetchval(statements.TRY_LOCK, ledger):
                    return False
                progress = await _load(connection, ledger)
                more, faults = await _follow_blocks(connection, ledger, progress)
                progress.account, found = await examine_accounts(
                    connection, ledger, progress.account or _BEFORE_ALL, _ACCOUNTS_PER_STEP
                )
                faults += found + await self._add_up(connection, ledger, progress)
                await _save(connection, ledger, progress, faults)
        except asyncpg.SerializationError:
            return True  # another auditor saved its progress after this snapshot was taken
        return more

    async def _add_up(
        self, connection: Connection, ledger: UUID, progress: Progress
    ) -> list[Fault]:
        started = time.monotonic()
        if started < self._sums_due.get(ledger, 0.0):
            return []
        progress.sums, faults = await examine_sums(connection, ledger)
        took_s = time.monotonic() - started
        self._sums_due[ledger] = time.monotonic() + max(took_s / _SUMS_SHARE, self._interval_s)
        return faults


async def _load(connection: Connection, ledger: UUID) -> Progress:
    row = await connection.fetchrow(statements.STATE, ledger)
    if row is None:
        return Progress(0, 0, chain.GENESIS, None, {})
    sums = msgspec.json.decode(row["sums"], type=dict[str, int])
    return Progress(row["height"], row["position"], row["block_hash"], row["account_id"], sums)


async def _follow_blocks(
    connection: Connection, ledger: UUID, progress: Progress
) -> tuple[bool, list[Fault]]:
    """Check the next blocks; return whether there may be more, and what is wrong."""
    faults: list[Fault] = []
    faults += await _recheck_tip(connection, ledger, progress)
    blocks = await connection.fetch(
        statements.BLOCKS_AFTER, ledger, progress.height, _BLOCKS_PER_STEP
    )
    for block in blocks:
        faults += await examine_block(connection, ledger, block, progress.tip)
        progress.height, progress.position, progress.block_hash = tip_of(block)
        AUDIT_CHECKED_EVENTS.inc(block["count"])
    return len(blocks) == _BLOCKS_PER_STEP, faults


async def _recheck_tip(connection: Connection, ledger: UUID, progress: Progress) -> list[Fault]:
    """Check that the last block known is still the same: a chain made anew would not follow it."""
    if progress.height == 0:
        return []
    stored = await connection.fetchval(statements.BLOCK_HASH, ledger, progress.height)
    if stored == progress.block_hash:
        return []
    subject = str(progress.height)
    return [Fault("chain_broken", subject, f"block {subject} is not the one audited before")]


async def _save(
    connection: Connection, ledger: UUID, progress: Progress, faults: list[Fault]
) -> None:
    for fault in faults[:_FINDINGS_PER_STEP]:
        tag = await connection.execute(
            statements.ADD_FINDING, ledger, fault.kind, fault.subject, fault.detail
        )
        if tag.endswith(" 1"):
            _log.error(
                Event.AUDIT_FINDING,
                ledger=str(ledger),
                kind=fault.kind,
                subject=fault.subject,
                detail=fault.detail,
            )
    await connection.execute(
        statements.SAVE_STATE,
        ledger,
        *progress.tip,
        progress.account,
        msgspec.json.encode(progress.sums).decode(),
    )
