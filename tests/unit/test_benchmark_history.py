"""The histories that the benchmark fills in: that they are such as the engine would have written."""

from collections import defaultdict
from datetime import UTC, datetime, timedelta

from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.history import COMMIT_ROWS, SPAN_DAYS, History, payments

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
moments = st.integers(50 * 365 * 24 * 60, 70 * 365 * 24 * 60).map(
    lambda n: EPOCH + timedelta(minutes=n)
)


@given(st.integers(1, 100_000), st.integers(2, 5_000), moments)
def test_a_history_is_of_whole_turns_and_whole_commits(
    rows: int, accounts: int, ended_at: datetime
) -> None:
    history = History.of(rows, accounts, ended_at)
    assert rows <= history.rows < rows + accounts * COMMIT_ROWS
    assert history.rows == history.turns * accounts == history.commits * COMMIT_ROWS


@given(st.integers(2, 60), st.integers(1, 4))
def test_entries_are_dense_and_follow_from_each_other(accounts: int, turns: int) -> None:
    history = History(accounts=accounts, turns=turns, ended_at=datetime(2026, 1, 1, tzinfo=UTC))
    balances: defaultdict[int, int] = defaultdict(int)
    sequences: defaultdict[int, int] = defaultdict(int)
    for number, one in enumerate(payments(history)):
        turn = number // accounts
        assert one.payer != one.payee
        for account, change, is_second in (
            (one.payer, -one.amount, one.payer_is_second),
            (one.payee, one.amount, one.payee_is_second),
        ):
            balances[account] += change
            sequences[account] += 1
            # What sql/fill_entry.sql writes without looking at the entry before.
            assert sequences[account] == 2 * turn + 1 + is_second
            assert balances[account] == (0 if is_second else change)
    assert set(balances.values()) == {0}
    assert set(sequences.values()) == {2 * turns}
    assert len(balances) == accounts


@settings(max_examples=40)
@given(st.integers(1, 50_000), moments)
def test_partitions_cover_every_commit_once_and_days_those_that_are_remembered(
    rows: int, ended_at: datetime
) -> None:
    history = History.of(rows, 1_000, ended_at)
    months = history.months()
    assert [month.first for month in months] == [0, *(month.end for month in months[:-1])]
    assert months[-1].end == history.commits
    for month in months:
        for commit in {month.first, month.end - 1} if month.end > month.first else set():
            assert month.lower <= _moment(history, commit).date() < month.upper
    last = _moment(history, history.commits - 1).date()
    partitions = history.keys(3)
    assert partitions[0].lower <= last - timedelta(days=3) < partitions[0].upper
    assert partitions[-1].lower <= last < partitions[-1].upper
    days = [day for keys in partitions for day in history.days(keys)]
    assert [day.lower for day in days] == [
        partitions[0].lower + timedelta(days=n) for n in range(10 * len(partitions))
    ]
    for keys in partitions:
        parts = history.days(keys)
        assert (parts[0].lower, parts[-1].upper) == (keys.lower, keys.upper)
        assert f"{keys.lower:%Y%m%d}" == keys.suffix
    for commit in range(history.commits):
        moment = _moment(history, commit)
        written_to = {moment.date()}
        if moment.hour == moment.minute == 0:
            written_to.add(moment.date() - timedelta(days=1))
        found = {day.lower for day in days if day.first <= commit < day.end}
        assert found == {day for day in written_to if day >= days[0].lower}


def test_a_history_ends_when_it_should_and_began_a_month_before() -> None:
    ended_at = datetime(2026, 3, 15, 12, tzinfo=UTC)
    history = History.of(50_000_000, 100_000, ended_at)
    assert history.rows == 50_000_000
    assert _moment(history, 0) == ended_at - timedelta(days=SPAN_DAYS)
    assert ended_at - timedelta(minutes=1) < _moment(history, history.commits - 1) < ended_at
    assert [month.suffix for month in history.months()] == ["202602", "202603"]


def _moment(history: History, commit: int) -> datetime:
    since = timedelta(microseconds=history.began_us + commit * history.step_us)
    return EPOCH + since
