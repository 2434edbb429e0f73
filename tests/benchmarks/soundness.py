"""That the ledger is sound after it was measured, and holds what was acknowledged: no more and no less.

Used by `rounds.py` and by the modes beside it. Up to a bound by the full audit, as `picopay audit` runs it;
beyond it, because that reads each payment by itself, by sums over whole tables.
"""

from pathlib import Path
from typing import Any, Final

import asyncpg

from benchmarks.client import Report
from benchmarks.servers import BenchmarkError
from picopay_api.database_url import DatabaseUrl
from picopay_api.store.database import Database
from picopay_api.worker.audit_all import audit_everything
from support.postgres import on_connection

AUDITED_MAX: Final = 1_500_000
"""Payments that are audited one by one: some minutes."""

_CREATED: Final = 201
_SUMS: Final = Path(__file__).with_name("sql") / "sums.sql"


class Tally:
    """How many payments were acknowledged, and of how many more that is not known."""

    def __init__(self, acknowledged: int = 0) -> None:
        self.acknowledged = acknowledged
        self.uncertain = 0

    def add(self, report: Report) -> None:
        """Count what a client has seen."""
        self.acknowledged += report.statuses.get(_CREATED, 0)
        self.uncertain += report.uncertain


async def check(url: DatabaseUrl, tally: Tally) -> None:
    """Check everything and count: every payment that was acknowledged is there, once.

    Raises:
        BenchmarkError: something does not add up.
    """
    if tally.acknowledged <= AUDITED_MAX:
        await _audit(url)
    await add_up(url, tally)


async def _audit(url: DatabaseUrl) -> None:
    database = await Database.open(url, size=1)
    try:
        findings = await audit_everything(database, lambda _: None)
    finally:
        await database.close()
    if findings:
        listed = "; ".join(f"{one.kind} {one.subject}: {one.detail}" for one in findings[:5])
        raise BenchmarkError(f"the audit has {len(findings)} findings: {listed}")


async def add_up(url: DatabaseUrl, tally: Tally) -> None:
    """Check sums over whole tables, and that every payment that was acknowledged is there, once.

    Raises:
        BenchmarkError: something does not add up.
    """
    await on_connection(url, lambda connection: _add_up(connection, tally))


async def _add_up(connection: "asyncpg.Connection[Any]", tally: Tally) -> None:
    sums = await connection.fetchrow(_SUMS.read_text(encoding="utf-8"))
    assert sums is not None  # it has no WHERE clause
    if not tally.acknowledged <= sums["payments"] <= tally.acknowledged + tally.uncertain:
        raise BenchmarkError(
            f"{tally.acknowledged} payments were acknowledged, {sums['payments']} are there"
        )
    wrong = {name: value for name, value in sums.items() if name != "payments" and value}
    if wrong:
        raise BenchmarkError(f"the ledger does not add up: {wrong}")
