"""The goals of the benchmark: how they are judged, and what is told of them."""

from datetime import UTC, datetime
from pathlib import Path

import msgspec
import pytest

from benchmarks import report
from benchmarks.arithmetic import Cell, Contender, Figures, Measurement, Spread, Workload
from benchmarks.goals import GOALS, Bound, Goal, judge, verdicts
from benchmarks.machine import Machine
from benchmarks.plan import COMMIT_DELAY_MS, CONNECTIONS, Plan
from benchmarks.results import Filling, Minute, Result, Sample, Soak

UNIFORM, HOT = Workload.UNIFORM, Workload.HOT
PICOPAY, PGBENCH = Contender.PICOPAY, Contender.PGBENCH_STATEMENTS

MACHINE = Machine(
    cpus=2,
    memory_bytes=1,
    system="Linux",
    python="3.12",
    postgresql="18",
    picopay="1",
    fsync_ms=1,
    load_before=0,
)
PLAN = Plan(
    rounds=1, seconds=1, clients=(4,), connections=(256,), paired_connections=(256,), accounts=2
)


def measured(cell: Cell, per_s: float, **figures: float) -> Measurement:
    given = Figures(per_s=per_s, average_ms=1000 / per_s, **figures)
    return Measurement(round=1, cell=cell, count=1, figures=given)


NORMAL = (
    measured(Cell(PGBENCH, UNIFORM, 4), 100),
    measured(Cell(PGBENCH, UNIFORM, 16), 200),
    measured(Cell(PGBENCH, HOT, 4), 80),
    measured(Cell(PGBENCH, HOT, 4, commit_delay_ms=COMMIT_DELAY_MS), 10),
    measured(Cell(PICOPAY, UNIFORM, 16), 9_999),
    measured(Cell(PICOPAY, UNIFORM, CONNECTIONS), 800, server_cpu_ms=0.2, database_cpu_ms=0.1),
    measured(Cell(PICOPAY, HOT, CONNECTIONS), 880),
    measured(Cell(PICOPAY, HOT, CONNECTIONS, workers=2), 1_320),
    measured(Cell(PICOPAY, HOT, CONNECTIONS, commit_delay_ms=COMMIT_DELAY_MS), 500),
    measured(Cell(PICOPAY, HOT, CONNECTIONS, offered=0.5), 440, p99_ms=2.5, max_ms=3, p50_ms=1),
    measured(Cell(PICOPAY, HOT, 12_000, offered=3), 836, refused=0.6, unsent=0),
    measured(Cell(Contender.NOOP, UNIFORM, CONNECTIONS), 1_000, server_cpu_ms=0.1),
)


def result(**more: object) -> Result:
    plain = Result(began_at=datetime(2026, 1, 1, tzinfo=UTC), took_s=1, machine=MACHINE, plan=PLAN)
    return msgspec.structs.replace(plain, **more)


def minute(memory_mb: float) -> Minute:
    return Minute(
        per_s=1,
        p50_ms=1,
        p99_ms=1,
        max_ms=1,
        memory_mb=memory_mb,
        memory_peak_mb=memory_mb + 1,
        balance_mb=1,
        balance_dead_rows=0,
    )


GROWN = tuple(
    msgspec.structs.replace(
        measured(Cell(PICOPAY, workload, CONNECTIONS, history=there), per_s), round=number
    )
    for number, rows, full in ((1, 5_000_000, 96), (2, 50_000_000, 80))
    for workload in Workload
    for there, per_s in ((rows, full), (0, 100))
)
SOAK = Soak(
    connections=CONNECTIONS,
    memory_before_mb=80,
    minutes=(minute(100), minute(120), minute(126)),
    samples=(Sample(1.0, 100), Sample(2.0, 126)),
)
FILLING = Filling(rows=1_000, steps_s={"write": 4.0, "vacuum": 1.0}, database_mb=3)


@pytest.mark.parametrize(
    ("bound", "value", "median", "reached", "by"),
    [
        (Bound.AT_LEAST, 4, 5, True, 0.25),
        (Bound.AT_LEAST, 4, 3, False, -0.25),
        (Bound.AT_LEAST, 4, 4, True, 0),
        (Bound.AT_MOST, 4, 3, True, 0.25),
        (Bound.AT_MOST, 4, 5, False, -0.25),
    ],
)
def test_a_goal_is_judged_by_the_median(
    bound: Bound, value: float, median: float, reached: bool, by: float
) -> None:
    goal = Goal(what="w", bound=bound, value=value, find=lambda _: None)
    verdict = judge(goal, Spread(median, 0, 99))
    assert verdict.reached is reached
    assert verdict.by == pytest.approx(by)


def test_what_was_not_measured_is_not_judged() -> None:
    found = verdicts([result()])
    assert len(found) == len(GOALS)
    assert {(one.measured, one.reached, one.by) for one in found} == {(None, None, None)}


def test_every_goal_is_found_in_what_is_measured() -> None:
    runs = [
        result(measurements=NORMAL, cold_starts_s=(1.0, 3.0, 2.0)),
        result(measurements=GROWN, fillings=(FILLING,)),
        result(soak=SOAK),
    ]
    found = [one.measured.median if one.measured else None for one in verdicts(runs)]
    assert found == pytest.approx(
        [
            *(4, 11, 1.1, 1.5, 0.8, 3),
            0.2,  # 2.5 ms to the 12.5 ms of pgbench
            *(50, 0.95),
            *(0.96, 0.96, 0.8, 0.8),
            *(1.05, 127, 2.0),
        ]
    )


def test_a_later_run_counts_before_an_earlier_one() -> None:
    cold = [one.what for one in verdicts([])].index("cold start of a server process")
    slower = result(measurements=NORMAL[:-1], cold_starts_s=(1.0,))
    runs = [result(measurements=NORMAL, cold_starts_s=(1.5,)), slower]
    assert verdicts(runs)[cold].measured == Spread(1.0, 1.0, 1.0)
    assert verdicts(list(reversed(runs)))[cold].measured == Spread(1.5, 1.5, 1.5)
    # What the later one has not measured is still that of the earlier one.
    assert verdicts(runs[1:])[4].measured is None
    assert verdicts(runs)[4].measured == Spread(0.8, 0.8, 0.8)


def test_a_result_is_read_back_as_it_was_written(tmp_path: Path) -> None:
    one = result(measurements=NORMAL, soak=SOAK, fillings=(FILLING,), cold_starts_s=(1.5,))
    one.write(tmp_path / "r.json")
    again = Result.read(tmp_path / "r.json")
    again.write(tmp_path / "again.json")
    assert Result.read(tmp_path / "again.json") == again
    assert list(again.measurements) == list(one.measurements)
    assert again.fillings[0].per_s == 200


def test_pages_and_plots_are_the_same_whenever_they_are_made(tmp_path: Path) -> None:
    runs = [
        result(measurements=NORMAL, soak=SOAK, fillings=(FILLING,)),
        result(measurements=GROWN, fillings=(FILLING,)),
    ]
    first = {file.name: file.read_bytes() for file in report.write(runs, tmp_path / "a")}
    second = {file.name: file.read_bytes() for file in report.write(runs, tmp_path / "b")}
    assert first == second
    assert set(first) == {
        report.PAGE,
        *(f"measured-{name}.svg" for name in ("throughput", "latency", "growth", "memory")),
    }
    page = first[report.PAGE].decode()
    assert "| hot / uniform | ≥ | 1.00 |" in page
    assert "300% of the peak" in page


def test_a_terminal_is_told_of_the_goals_that_were_measured() -> None:
    text = report.text(result(measurements=NORMAL, soak=SOAK))
    assert "hot / uniform" in text
    assert "cold start" not in text
