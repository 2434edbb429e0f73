"""Reads what a check needs and has it checked: a block, a slice of accounts, all sums.

Used by the continuous auditor, the full audit and the quick one inside a snapshot of theirs. Each function
reads a bounded number of rows.
"""

from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

import asyncpg
import msgspec

from picopay_api.engine import chain
from picopay_api.engine.commands import Posting
from picopay_api.store import audit as statements
from picopay_api.store import seal
from picopay_api.store.database import Connection
from picopay_api.worker import checks
from picopay_api.worker.checks import Fault

_postings_decoder = msgspec.json.Decoder(tuple[Posting, ...])

Tip = tuple[int, int, bytes]
"""The end of a checked part of the chain: height, last position, hash."""


async def examine_block(
    connection: Connection, ledger: UUID, record: asyncpg.Record, before: Tip
) -> list[Fault]:
    """Check a block against the one before it and against the rows it sealed."""
    block = chain.block_of(ledger, record)
    of_block = (ledger, block.cluster, block.xid_from, block.xid_to)
    rows = await connection.fetch(seal.ROWS, *of_block)
    commits = await connection.fetch(statements.COMMITS, *of_block)
    return [
        *checks.check_block(block, record["hash"], before, rows),
        *checks.check_commits(commits, rows),
        *await examine_rows(connection, ledger, rows),
    ]


def tip_of(record: asyncpg.Record) -> Tip:
    """Return what the block after this one must follow."""
    return record["height"], record["first_position"] + record["count"] - 1, record["hash"]


async def examine_commit(
    connection: Connection, ledger: UUID, commit: asyncpg.Record
) -> tuple[list[Fault], list[UUID]]:
    """Check a commit, sealed or not, against its rows and those; return the accounts it touched, too."""
    cluster, xid = commit["cluster"], commit["xid"]
    rows = await connection.fetch(seal.ROWS, ledger, cluster, xid, xid + 1)
    faults = []
    if len(rows) != commit["count"]:
        detail = f"{commit['count']} rows were committed, the journal has {len(rows)} of them"
        faults.append(Fault("journal_incomplete", f"{cluster}/{xid}", detail))
    faults += checks.check_commits([commit], rows)
    faults += await examine_rows(connection, ledger, rows)
    return faults, list(_spans(rows))


async def examine_rows(
    connection: Connection, ledger: UUID, rows: Sequence[asyncpg.Record]
) -> list[Fault]:
    """Check journal rows against their entries, and those against their neighbours."""
    spans = _spans(rows)
    if not spans:
        return list(checks.check_rows(rows, [], {}))
    accounts = list(spans)
    entries = await connection.fetch(
        statements.ENTRIES,
        ledger,
        accounts,
        [first for first, _ in spans.values()],
        [last for _, last in spans.values()],
    )
    assets = await connection.fetch(statements.ASSETS, ledger, accounts)
    known = {row["id"] for row in rows}
    others = list({entry["journal_id"] for entry in entries} - known)
    if others:
        records = await connection.fetch(statements.KNOWN_ROWS, ledger, others)
        known.update(record["id"] for record in records)
    return [
        *checks.check_rows(rows, entries, {row["account_id"]: row["asset"] for row in assets}),
        *checks.check_running(entries),
        *checks.check_known(entries, known),
    ]


async def examine_accounts(
    connection: Connection, ledger: UUID, after: UUID, count: int
) -> tuple[UUID | None, list[Fault]]:
    """Check a slice of accounts; return where the next slice begins, None after the last."""
    records = await connection.fetch(statements.ACCOUNTS, ledger, after, count)
    faults = [fault for record in records for fault in checks.check_account(record)]
    return records[-1]["account_id"] if len(records) == count else None, faults


async def examine_named_accounts(
    connection: Connection, ledger: UUID, accounts: Sequence[UUID]
) -> list[Fault]:
    """Check some accounts of a ledger."""
    records = await connection.fetch(statements.ACCOUNTS_NAMED, ledger, accounts)
    return [fault for record in records for fault in checks.check_account(record)]


async def examine_sums(
    connection: Connection, ledger: UUID, timeout_s: float | None = None
) -> tuple[dict[str, int], list[Fault]]:
    """Add up all balances of each asset. The cost grows with the number of accounts."""
    records = await connection.fetch(statements.SUMS, ledger, timeout=timeout_s)
    sums = {record["asset"]: int(record["sum"]) for record in records}
    return sums, list(checks.check_sums(sums))


def _spans(rows: Sequence[asyncpg.Record]) -> dict[UUID, tuple[datetime, datetime]]:
    """Return when each account is first and last touched by rows whose postings can be read."""
    spans: dict[UUID, tuple[datetime, datetime]] = {}
    for row in rows:
        try:
            postings = _postings_decoder.decode(row["postings"])
        except msgspec.MsgspecError:
            continue  # check_rows says so
        moment = row["created_at"]
        for posting in postings:
            for account in (posting.source, posting.destination):
                first, last = spans.get(account, (moment, moment))
                spans[account] = (min(first, moment), max(last, moment))
    return spans
