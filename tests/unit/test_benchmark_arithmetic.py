"""The arithmetic of the benchmark, and what it understands of others: how fast anything is, is not tested."""

import random
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks import arithmetic, rounds
from benchmarks.arithmetic import Cell, Contender, Figures, Measurement, Workload
from benchmarks.client import Job, Requests, parse_answer
from benchmarks.command import read_options
from benchmarks.pgbench import Said, parse
from benchmarks.servers import BenchmarkError

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
    found = arithmetic.ratio("name", values, PICOPAY_16, PGBENCH_4)
    assert (found.median, found.lowest, found.highest) == (3, 3, 4)


def test_the_best_pgbench_is_compared_with_picopay_at_its_most_connections() -> None:
    values = [
        measured(1, PGBENCH_4, 100),
        measured(1, PGBENCH_16, 200),
        measured(1, PGBENCH_HOT, 50),
        measured(1, PICOPAY_16, 900, server_cpu_ms=1, database_cpu_ms=1),
        measured(1, PICOPAY_256, 800, server_cpu_ms=0.5, database_cpu_ms=0.1),
        measured(1, PICOPAY_HOT, 1000),
        measured(1, NOOP, 1600, server_cpu_ms=0.3),
    ]
    found = [ratio.median for ratio in arithmetic.ratios(values)]
    assert found == pytest.approx([4, 20, 1.25, 0.5, 2])


def test_a_table_has_texts_to_the_left_and_numbers_to_the_right() -> None:
    rows = [("pgbench", 4, 1234.5, None), ("no-op", 256, 0.0421, 7.125)]
    assert arithmetic.table(("", "at once", "per s", "ms"), rows).splitlines() == [
        "         at once  per s    ms",
        "pgbench        4  1,234     -",
        "no-op        256  0.042  7.12",
    ]


def test_a_table_without_rows_is_its_head() -> None:
    assert arithmetic.table(("a", "b"), []) == "a  b"


def test_a_round_measures_each_cell_once() -> None:
    plan = rounds.Plan(rounds=1, seconds=1, clients=(4,), connections=(16, 256), accounts=2)
    found = list(rounds.cells(plan))
    assert len(set(found)) == len(found)
    assert set(found) == {
        *(PGBENCH_4, PGBENCH_HOT, PICOPAY_16, PICOPAY_256, PICOPAY_HOT, NOOP),
        Cell(Contender.PICOPAY, Workload.HOT, 16),
    }


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
    quick, nowhere = read_options([])
    full, somewhere = read_options(["--full", "--output", "some.json"])
    assert (quick.rounds, quick.seconds, nowhere) == (3, 2, None)
    assert (full.rounds, full.seconds, somewhere) == (5, 8, Path("some.json"))
    changed, _ = read_options(["--full", "--rounds", "7", "--connections", "64,1,64"])
    assert (changed.rounds, changed.seconds, changed.connections) == (7, 8, (1, 64))


@pytest.mark.parametrize(
    "options",
    [
        ["--quick", "--full"],
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
