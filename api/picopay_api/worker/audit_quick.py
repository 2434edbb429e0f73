"""The quick audit: what must hold of the money at any time, in seconds, however long the history is.

Called by `picopay audit --quick`, which has an operator stop a rollout. It reads every balance, but of
history only the end: what was decided last, and what that has touched. One snapshot; nothing is written. The
rules are those of all audits (`checks.py`); what the continuous auditor has found counts, too.
"""

from collections import Counter, defaultdict
from datetime import UTC, datetime
from uuid import UUID

import asyncpg
import msgspec

from picopay_api.engine.audit import Finding
from picopay_api.store import audit as statements
from picopay_api.store.database import Connection, Database
from picopay_api.worker import checks
from picopay_api.worker.checks import Fault
from picopay_api.worker.examine import examine_commit, examine_named_accounts

FINDINGS_MAX = 1_000

_COMMITS_MAX = 500
_ROWS_MAX = 2_000
_ACCOUNTS_AT_ONCE = 1_000
_STATEMENT_TIMEOUT_S = 60


class QuickAudit(msgspec.Struct, frozen=True):
    """What is wrong, and how much was looked at."""

    findings: list[Finding]
    checked: dict[str, int]


class _Findings:
    """Findings by what they say, each once; the first sighting stays."""

    def __init__(self) -> None:
        self._kept: dict[tuple[UUID, str, str], Finding] = {}
        self._now = datetime.now(UTC)

    def add(self, ledger: UUID, *faults: Fault) -> None:
        for fault in faults:
            self.note(ledger, fault.kind, fault.subject, fault.detail, self._now)

    def note(self, ledger: UUID, kind: str, subject: str, detail: str, found_at: datetime) -> None:
        if len(self._kept) < FINDINGS_MAX:
            finding = Finding(
                ledger=ledger, kind=kind, subject=subject, detail=detail, found_at=found_at
            )
            self._kept.setdefault((ledger, kind, subject), finding)

    def all(self) -> list[Finding]:
        return list(self._kept.values())


async def audit_quickly(database: Database) -> QuickAudit:
    """Check the sums, bounds and latest changes of all balances.

    Raises:
        DatabaseUnavailable: it cannot be reached, or adding up takes longer than a minute.
    """
    findings = _Findings()
    async with database.transaction(isolation="repeatable_read", readonly=True) as connection:
        await connection.execute(f"SET LOCAL statement_timeout = '{_STATEMENT_TIMEOUT_S}s'")
        for record in await connection.fetch(statements.ALL_FINDINGS, FINDINGS_MAX):
            findings.note(*record)
        checked = await _balances(connection, findings)
        checked["transactions"] = await _latest(connection, findings)
    return QuickAudit(findings.all(), checked)


async def _balances(connection: Connection, findings: _Findings) -> dict[str, int]:
    timeout_s = _STATEMENT_TIMEOUT_S + 1
    records = await connection.fetch(statements.ALL_SUMS, timeout=timeout_s)
    sums: defaultdict[UUID, dict[str, int]] = defaultdict(dict)
    counts: Counter[str] = Counter()
    for record in records:
        sums[record["ledger_id"]][record["asset"]] = int(record["sum"])
        counts.update(accounts=record["accounts"], out_of_bounds=record["out_of_bounds"])
    for ledger, of_ledger in sums.items():
        findings.add(ledger, *checks.check_sums(of_ledger))
    known = await connection.fetch(statements.KNOWN_LEDGERS, list(sums))
    for ledger in sums.keys() - {record["ledger_id"] for record in known}:
        detail = "it has balances, and is not on the list of ledgers"
        findings.add(ledger, Fault("ledger_unknown", f"ldg_{ledger.hex}", detail))
    if counts["out_of_bounds"]:
        spoilt: list[asyncpg.Record] = await connection.fetch(
            statements.ALL_ACCOUNTS_OUT_OF_BOUNDS, FINDINGS_MAX, timeout=timeout_s
        )
        for record in spoilt:
            findings.add(record["ledger_id"], *checks.check_account(record))
    return {"ledgers": len(sums), "assets": len(records), "accounts": counts["accounts"]}


async def _latest(connection: Connection, findings: _Findings) -> int:
    """Check the transactions decided last, and the accounts they have touched; return how many."""
    rows = 0
    touched: defaultdict[UUID, set[UUID]] = defaultdict(set)
    for commit in await connection.fetch(statements.NEWEST_COMMITS, _COMMITS_MAX):
        if rows >= _ROWS_MAX:
            break
        ledger = commit["ledger_id"]
        faults, accounts = await examine_commit(connection, ledger, commit)
        findings.add(ledger, *faults)
        touched[ledger].update(accounts)
        rows += commit["count"]
    for ledger, of_ledger in touched.items():
        accounts = sorted(of_ledger)
        for begin in range(0, len(accounts), _ACCOUNTS_AT_ONCE):
            some = accounts[begin : begin + _ACCOUNTS_AT_ONCE]
            findings.add(ledger, *await examine_named_accounts(connection, ledger, some))
    return rows
