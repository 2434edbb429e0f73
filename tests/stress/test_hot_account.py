"""An account that everybody pays to does not wear out: its row stays where it is, and vacuum keeps up.

Short; `support/hot_account.py` is the same for ten minutes, and shows what becomes of latency.
"""

from picopay_api.database_url import DatabaseUrl
from support.hot_account import run

INTERVALS, INTERVAL_S = 3, 1.5


async def test_the_row_of_a_hot_account_is_updated_in_place(database_url: DatabaseUrl) -> None:
    found = await run(database_url, INTERVALS, INTERVAL_S, print, snapshot=False)
    assert all(interval.hot_share > 0.9 for interval in found)
    assert found[-1].table_kib < 1_000  # of 500 accounts


async def test_a_snapshot_that_stays_open_costs_space_and_no_money(
    database_url: DatabaseUrl,
) -> None:
    found = await run(database_url, INTERVALS, INTERVAL_S, print, snapshot=True)
    # Nothing can be forgotten while somebody may still look; all goes on, and adds up.
    assert found[-1].dead > found[0].dead > 0
    assert all(interval.batches for interval in found)
