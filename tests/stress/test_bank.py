"""A bank whose processes die at random, PostgreSQL among them: the books say what clients were told.

The same for a chosen time is `make simulate`.
"""

from pathlib import Path

import pytest

from support.bank import Plan, bank


@pytest.mark.timeout(300)
async def test_a_bank_whose_processes_die_keeps_its_books(tmp_path: Path) -> None:
    plan = Plan(seed=5, seconds=0, servers=2, clients=6, rest_max_s=0.3)
    async with bank(plan, tmp_path) as town:
        outcome = await town.live(print)
    assert outcome.wrong == []
    assert len(outcome.deaths) == 8
    assert outcome.checks >= 4
    assert outcome.told["ok"] > 0
    assert outcome.asked_again > 0
