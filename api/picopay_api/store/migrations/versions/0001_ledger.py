"""Ledgers, accounts, journal and what keeps them honest.

The tables themselves are in `0001_ledger.sql`, beside this file; its triggers call `history.sql`.
"""

from pathlib import Path

from picopay_api.store.migrations import run_script

revision = "0001"
down_revision = None
min_compatible = "0001"
destructive = False


def upgrade() -> None:
    """Create every table, its first partitions, and the net of triggers."""
    here = Path(__file__)
    run_script(here.parents[2] / "history.sql")
    run_script(here.with_suffix(".sql"))
