"""The arithmetic of the benchmark, and what it understands of others: how fast anything is, is not tested."""

import random
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks import arithmetic, plan
from benchmarks.arithmetic import Cell, Contender, Figures, Measurement, Workload
from benchmarks.client import Job, Requests, parse_answer
from benchmarks.command import read_options
from benchmarks.pgbench import Said, parse
from benchmarks.schedule import Schedule
from benchmarks.servers import BenchmarkError
from benchmarks.tables import markdown, table

PGBENCH_4 = Cell(Contender.PGBENCH_STATEMENTS, Workload.UNIFORM, 4)
PGBENCH_16 = Cell(Contender.PGBENCH_STATEMENTS, Workload.UNIFORM, 16)
PGBENCH_HOT = Cell(Contender.PGBENCH_STATEMENTS, Workload.HOT, 4)
PICOPAY_16 = Cell(Contender.PICOPAY, Workload.UNIFORM, 16)
PICOPAY_256 = Cell(Contender.PICOPAY, Workload.UNIFORM, 256)
PICOPAY_HOT = Cell(Contender.PICOPAY, Workload.HOT, 256)
NOOP = Cell(Contender.NOOP, Workload.UNIFORM, 256)

ANSWER = b"HTTP/1.1 201 Created\r\ndate: now\r\nContent-Length:  5\r\nrequest-id: 1\r\n\r\nabcde"

PGBENCH = """pgbench (18.6)
transaction type: payment.sql
number of clients: 64
number of transactions actually processed: 769
number of failed transactions: 0 (0.000%)
latency average = 1.287 ms
initial connection time = 13.525 ms
tps = 776.961525 (without initial connection time)
"""


def measured(number: int, cell: Cell, per_s: float, **figures: float) -> Measurement:
    given = Figures(per_s=per_s, average_ms=1000 / per_s, **figures)
    return Measurement(round=number, cell=cell, count=1, figures=given)


@pytest.mark.parametrize(
    ("fraction", "expected"),
    [(0.01, 1), (0.5, 50), (0.501, 51), (0.99, 99), (0.999, 100), (1, 100)],
)
def test_a_percentile_is_a_value_that_so_many_do_not_exceed(
    fraction: float, expected: float
) -> None:
    assert arithmetic.percentile(range(1, 101), fraction) == expected


@given(st.lists(st.floats(0, 1e6), min_size=1), st.floats(0.001, 1))
def test_a_percentile_keeps_its_definition(values: list[float], fraction: float) -> None:
    values.sort()
    found = arithmetic.percentile(values, fraction)
    assert sum(value <= found for value in values) >= fraction * len(values)
    assert sum(value < found for value in values) < fraction * len(values)


@pytest.mark.parametrize(("values", "fraction"), [([], 0.5), ([1.0], 0), ([1.0], 1.01)])
def test_a_percentile_of_nothing_is_refused(values: list[float], fraction: float) -> None:
    with pytest.raises(ValueError, match="percentile"):
        arithmetic.percentile(values, fraction)


def test_medians_are_taken_figure_by_figure_and_absent_ones_stay_absent() -> None:
    found = arithmetic.medians(
        [
            measured(1, PICOPAY_16, 10, p99_ms=3),
            measured(1, NOOP, 7),
            measured(2, PICOPAY_16, 40, p99_ms=1),
            measured(3, PICOPAY_16, 20, p99_ms=2),
        ]
    )
    assert list(found) == [PICOPAY_16, NOOP]
    assert found[PICOPAY_16] == Figures(per_s=20, average_ms=50, p99_ms=2)
    assert found[NOOP].p99_ms is None


def test_figures_are_divided_within_their_round() -> None:
    # The machine was half as fast in the second round: for both, so that nothing has changed.
    values = [
        measured(1, PICOPAY_16, 300),
        measured(1, PGBENCH_4, 100),
        measured(2, PGBENCH_4, 50),
        measured(2, PICOPAY_16, 150),
        measured(3, PICOPAY_16, 440),
        measured(3, PGBENCH_4, 110),
    ]
    found = arithmetic.quotient(values, PICOPAY_16, PGBENCH_4)
    assert found == arithmetic.Spread(median=3, lowest=3, highest=4)


def test_a_quotient_of_two_quantities_leaves_out_what_was_not_measured() -> None:
    values = [
        measured(1, PICOPAY_16, 10, p99_ms=3),
        measured(1, PGBENCH_4, 100),  # 10 ms on average
        measured(2, PICOPAY_16, 10),
        measured(2, PGBENCH_4, 100),
        measured(3, PGBENCH_4, 100),
    ]
    p99, average = arithmetic.p99_ms, arithmetic.average_ms
    found = arithmetic.quotient(values, PICOPAY_16, PGBENCH_4, p99, average)
    assert found == pytest.approx(arithmetic.Spread(0.3, 0.3, 0.3))
    assert arithmetic.quotient(values, NOOP, PGBENCH_4) is None


def test_the_best_cell_is_one_in_which_nothing_else_is_different() -> None:
    slow = Cell(Contender.PGBENCH_STATEMENTS, Workload.UNIFORM, 64, commit_delay_ms=2)
    offered = Cell(Contender.PICOPAY, Workload.UNIFORM, 64, offered=0.5)
    rates = {PGBENCH_4: 10, PGBENCH_16: 20, PGBENCH_HOT: 40, slow: 5, offered: 99, PICOPAY_16: 1}
    figures = arithmetic.medians([measured(1, cell, rate) for cell, rate in rates.items()])
    best = arithmetic.best_cell
    assert best(figures, Contender.PGBENCH_STATEMENTS, Workload.UNIFORM) == PGBENCH_16
    assert best(figures, Contender.PICOPAY, Workload.UNIFORM) == PICOPAY_16
    assert best(figures, Contender.PICOPAY, Workload.UNIFORM, workers=2) is None
    assert best(figures, Contender.PGBENCH_STATEMENTS, Workload.UNIFORM, commit_delay_ms=2) == slow


def test_a_table_has_texts_to_the_left_and_numbers_to_the_right() -> None:
    rows = [("pgbench", 4, 1234.5, None), ("no-op", 256, 0.0421, 7.125)]
    assert table(("", "at once", "per s", "ms"), rows).splitlines() == [
        "         at once  per s    ms",
        "pgbench        4  1,234     -",
        "no-op        256  0.042  7.12",
    ]


def test_a_table_without_rows_is_its_head() -> None:
    assert table(("a", "b"), []) == "a  b"


def test_a_table_of_a_page_has_numbers_to_the_right() -> None:
    assert markdown(("a", "b"), [("x", 1.0), ("y", None)]).splitlines() == [
        "| a | b |",
        "| --- | ---: |",
        "| x | 1.00 |",
        "| y | - |",
    ]


def test_a_round_measures_each_cell_once() -> None:
    planned = plan.Plan(
        rounds=1, seconds=1, clients=(4, 16), connections=(1,), paired_connections=(), accounts=2
    )
    found = [*plan.closed_loop(planned), *plan.open_loop(2_000)]
    assert len(set(found)) == len(found)
    picopay = [cell for cell in found if cell.contender is Contender.PICOPAY]
    assert {PGBENCH_4, PGBENCH_16, PGBENCH_HOT, PICOPAY_256, PICOPAY_HOT, NOOP} <= set(found)
    assert {cell.workload for cell in picopay if cell.workers == 2} == set(Workload)
    assert found[-1] == Cell(Contender.PICOPAY, Workload.HOT, 2_000, offered=3)


def test_a_closed_loop_always_has_a_request_due_at_once() -> None:
    schedule = Schedule(10, None)
    assert schedule.is_due(11)
    assert schedule.take(11.5) == schedule.next_s(11.5) == 11.5
    assert schedule.waiting_s(12) == []


@given(
    per_s=st.floats(0.5, 50_000),
    looks_s=st.lists(st.floats(0, 0.01), min_size=1, max_size=50),
    connections=st.integers(1, 20),
)
def test_an_open_loop_omits_nothing(per_s: float, looks_s: list[float], connections: int) -> None:
    # Whoever looks late, and with few connections, finds every request that was due, in order and
    # with the time that it was due at; what no connection was free for is still waiting.
    began_s = now_s = 100.0
    schedule = Schedule(began_s, per_s)
    taken = []
    for look_s in looks_s:
        now_s += look_s
        for _ in range(connections):
            taken += [schedule.take(now_s)] if schedule.is_due(now_s) else []
        assert schedule.is_due(now_s) or schedule.next_s(now_s) > now_s
    waiting = [now_s - waited_s for waited_s in schedule.waiting_s(now_s)]
    all_due = [*taken, *waiting]
    assert all_due == pytest.approx([began_s + n / per_s for n in range(len(all_due))])
    assert abs(len(all_due) - (now_s - began_s) * per_s) <= 1 + 1e-6


def test_an_answer_is_complete_with_its_last_byte() -> None:
    for length in range(len(ANSWER)):
        assert parse_answer(ANSWER[:length]) is None
    assert parse_answer(ANSWER) == (201, len(ANSWER))
    assert parse_answer(ANSWER + b"HTTP") == (201, len(ANSWER))


@pytest.mark.parametrize(
    "data",
    [
        b"HTTP/1.1 201 Created\r\ntransfer-encoding: chunked\r\n\r\n",
        b"HTTP/1.1 201 Created\r\nx-content-length: 5\r\n\r\nabcde",
        b"HTTP/1.1 201 Created\r\n\r\ncontent-length: 5\r\n",
        b"HTTP/1.0 200 OK\r\ncontent-length: 0\r\n\r\n",
        b"SSH-2.0\r\n\r\n",
        b"x" * 20_000,
    ],
)
def test_what_tells_no_length_is_no_answer(data: bytes) -> None:
    with pytest.raises(ValueError, match="answer"):
        parse_answer(data)


@pytest.mark.parametrize("hot", [False, True])
def test_requests_have_keys_of_their_own_and_the_length_they_tell(hot: bool) -> None:
    accounts = [b"acct_%032x" % number for number in range(5)]
    job = Job(
        port=80,
        connections=1,
        warm_up_s=0,
        seconds=1,
        api_key="ppk_test",
        accounts_file="",
        hot=hot,
        run="run",
    )
    requests = Requests(job, accounts, seed=random.randrange(1000))
    made = [requests.next() for _ in range(2_000)]
    heads, bodies = zip(*(request.split(b"\r\n\r\n") for request in made), strict=True)
    assert len(set(heads)) == len(made)
    for head, body in zip(heads, bodies, strict=True):
        assert b"\r\nContent-Length: %d\r\n" % len(body) in head
    pairs = {(body[11:48], body[65:102]) for body in bodies}
    assert all(source != destination for source, destination in pairs)
    assert {account for pair in pairs for account in pair} == set(accounts)
    assert ({destination for _, destination in pairs} == {accounts[-1]}) is hot


def test_what_pgbench_says_is_understood() -> None:
    assert parse(PGBENCH) == Said(count=769, failed=0, average_ms=1.287, per_s=776.961525)


def test_a_pgbench_that_says_less_is_refused() -> None:
    with pytest.raises(BenchmarkError, match="average_ms, per_s"):
        parse(PGBENCH.partition("latency")[0])


def test_options_change_one_thing_each() -> None:
    quick, full = read_options([]), read_options(["--full", "--output", "some.json"])
    assert (quick.plan.rounds, quick.plan.seconds, quick.output) == (1, 1, None)
    assert (full.plan.rounds, full.plan.seconds, full.output) == (5, 3, Path("some.json"))
    assert full.plan.connections == (1, 16, 64, 256, 1_024)
    changed = read_options(["--full", "--rounds", "7", "--connections", "64,1,64"]).plan
    assert (changed.rounds, changed.seconds, changed.connections) == (7, 3, (1, 64))
    assert (quick.growth, quick.soak_minutes, quick.cold_start) == ((), None, False)
    assert read_options(["--growth", "5000000,50000000"]).growth == (5_000_000, 50_000_000)


@pytest.mark.parametrize(
    "options",
    [
        ["--quick", "--full"],
        ["--soak", "0"],
        ["--growth", "5e6"],
        ["--cold-start", "--soak", "1"],
        ["--rounds", "0"],
        ["--seconds", "0.5"],
        ["--connections", "16,,64"],
        ["--accounts", "1"],
    ],
)
def test_options_that_make_no_sense_are_refused(
    options: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        read_options(options)
    assert options[0] in capsys.readouterr().err
