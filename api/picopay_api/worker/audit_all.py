"""The full audit: everything of every ledger, from the first row on, in one snapshot.

Called by `picopay audit`. Reads through cursors with bounded memory and writes nothing; the rules
are the continuous auditor's (`checks.py`), plus what only a look at whole tables can tell. It may
take long: it reports as it goes.
"""

from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime
from uuid import UUID

import asyncpg

from picopay_api.engine import chain
from picopay_api.engine.audit import Finding
from picopay_api.store import audit as statements
from picopay_api.store.database import Connection, Database
from picopay_api.worker import checks
from picopay_api.worker.checks import Fault
from picopay_api.worker.examine import (
    Tip,
    examine_accounts,
    examine_block,
    examine_commit,
    examine_sums,
    tip_of,
)

FINDINGS_MAX = 1_000
"""Findings of one ledger that are kept; a ledger with more is past counting."""

Report = Callable[[str], None]

_CHUNK = 1_000
_PROGRESS_ROWS = 20_000
_STATEMENT_TIMEOUT_S = 6 * 3_600.0
_BEFORE_ALL = UUID(int=0)

# The snapshot stays open as long as the audit takes.
_UNBOUND = (
    "SET LOCAL statement_timeout = '6h'",
    "SET LOCAL idle_in_transaction_session_timeout = 0",
)


async def audit_everything(database: Database, report: Report) -> list[Finding]:
    """Check every ledger; return what is wrong, nothing in a healthy database.

    `report` is told a sentence now and then, at least at the start of each part.
    """
    found_at = datetime.now(UTC)
    found: list[tuple[UUID, Fault]] = []
    async with database.transaction(isolation="repeatable_read", readonly=True) as connection:
        for statement in _UNBOUND:
            await connection.execute(statement)
        after = _BEFORE_ALL
        while page := await connection.fetch(statements.LEDGERS, after, _CHUNK):
            for record in page:
                after = record["ledger_id"]
                found += [
                    (after, fault) for fault in await _audit_ledger(connection, after, report)
                ]
        detail = "it has rows, and is not on the list of ledgers: nothing of it was looked at"
        for record in await connection.fetch(
            statements.ALL_UNKNOWN_LEDGERS, FINDINGS_MAX, timeout=_STATEMENT_TIMEOUT_S
        ):
            ledger = record["ledger_id"]
            found.append((ledger, Fault("ledger_unknown", f"ldg_{ledger.hex}", detail)))
    return [
        Finding(
            ledger=ledger,
            kind=fault.kind,
            subject=fault.subject,
            detail=fault.detail,
            found_at=found_at,
        )
        for ledger, fault in found
    ]


async def _audit_ledger(connection: Connection, ledger: UUID, report: Report) -> list[Fault]:
    name = f"ldg_{ledger.hex}"
    counts = await connection.fetchrow(statements.ALL_COUNTS, ledger, timeout=_STATEMENT_TIMEOUT_S)
    assert counts is not None  # it has no WHERE clause
    report(f"{name}: {counts['rows']} transactions, {counts['accounts']} accounts")
    faults = Faults()
    async for fault in _chain(connection, ledger, counts, lambda text: report(f"{name}: {text}")):
        faults.add(fault)
    report(f"{name}: {counts['entries']} entries")
    async for fault in _entries(connection, ledger):
        faults.add(fault)
    report(f"{name}: balances")
    after: UUID | None = _BEFORE_ALL
    while after is not None:
        after, found = await examine_accounts(connection, ledger, after, _CHUNK)
        faults.add(*found)
    _, found = await examine_sums(connection, ledger, _STATEMENT_TIMEOUT_S)
    faults.add(*found)
    return list(faults.kept)


class Faults:
    """Distinct faults in the order they were found, up to a bound."""

    def __init__(self) -> None:
        self.kept: dict[Fault, None] = {}

    def add(self, *faults: Fault) -> None:
        """Keep faults that are new."""
        for fault in faults:
            if len(self.kept) < FINDINGS_MAX:
                self.kept.setdefault(fault)


async def _chain(
    connection: Connection, ledger: UUID, counts: asyncpg.Record, report: Report
) -> AsyncIterator[Fault]:
    """Check all blocks, then the commits behind the last ones, then that nothing was left out."""
    tip: Tip = (0, 0, chain.GENESIS)
    reported = 0
    async for block in connection.cursor(statements.ALL_BLOCKS, ledger, prefetch=100):
        for fault in await examine_block(connection, ledger, block, tip):
            yield fault
        tip = tip_of(block)
        if tip[1] - reported >= _PROGRESS_ROWS:
            reported = tip[1]
            report(f"{reported} of {counts['sealed']} events")
    unsealed = 0
    async for commit in connection.cursor(
        statements.ALL_UNSEALED, ledger, prefetch=_CHUNK, timeout=_STATEMENT_TIMEOUT_S
    ):
        unsealed += commit["count"]
        for fault in (await examine_commit(connection, ledger, commit))[0]:
            yield fault
    if counts["rows"] != counts["committed"]:
        detail = f"{counts['rows']} rows in the journal, {counts['committed']} in commits"
        yield Fault("journal_unread", "journal", detail)
    if counts["sealed"] + unsealed != counts["committed"]:
        detail = (
            f"{counts['committed']} rows in commits, {counts['sealed']} sealed, {unsealed} waiting"
        )
        yield Fault("journal_unread", "commit", detail)


async def _entries(connection: Connection, ledger: UUID) -> AsyncIterator[Fault]:
    """Check every account's entries from its first on, and what hangs in the air."""
    async for fault in _running(connection, ledger):
        yield fault
    for sql, kind, prefix, detail in _STRAYS:
        records = await connection.fetch(sql, ledger, FINDINGS_MAX, timeout=_STATEMENT_TIMEOUT_S)
        for record in records:
            yield Fault(kind, f"{prefix}{record[0].hex}", detail)
    records = await connection.fetch(
        statements.ALL_STRAY_METADATA, ledger, FINDINGS_MAX, timeout=_STATEMENT_TIMEOUT_S
    )
    for record in records:
        prefix = "tx_" if record["object"] else "acct_"
        detail = "lists filtered by metadata do not find it as it is described"
        yield Fault("metadata_differs", f"{prefix}{record['id'].hex}", detail)


_STRAYS = (
    (
        statements.ALL_STRAY_ENTRIES,
        "entry_without_transaction",
        "tx_",
        "there are entries of it, but it is not in the journal",
    ),
    (
        statements.ALL_STRAY_ACCOUNTS,
        "entry_without_account",
        "acct_",
        "there are entries of it, but no balance",
    ),
    (
        statements.ALL_STRAY_REVERSALS,
        "reversal_differs",
        "tx_",
        "its reversal and the journal do not agree",
    ),
    (
        statements.ALL_STRAY_REFERENCES,
        "reference_differs",
        "tx_",
        "its reference and the journal do not agree: it could be given again",
    ),
    (
        statements.ALL_ACCOUNTS_WITHOUT_BALANCE,
        "account_without_balance",
        "acct_",
        "there is an account, but no balance",
    ),
    (
        statements.ALL_STRAY_KEYS,
        "idempotency_key_differs",
        "",
        "an idempotency key says that it made this, and it did not",
    ),
    (
        statements.ALL_FORGOTTEN_KEYS,
        "idempotency_key_differs",
        "tx_",
        "its idempotency key is forgotten before its time: it could be made again",
    ),
)


async def _running(connection: Connection, ledger: UUID) -> AsyncIterator[Fault]:
    last: asyncpg.Record | None = None
    async for entry in connection.cursor(
        statements.ALL_ENTRIES, ledger, prefetch=_CHUNK, timeout=_STATEMENT_TIMEOUT_S
    ):
        before = last if last and last["account_id"] == entry["account_id"] else None
        for fault in checks.check_step(before, entry):
            yield fault
        last = entry
