"""The goals of PicoPay's speed, as data, and how far what was measured reaches them. Pure.

Used by `report.py`. A goal is a bound on one value; where its value comes from is said beside it, and
nowhere else. Values are of the same round, as `arithmetic.py` divides them, and never typed in.
"""

from collections.abc import Callable, Sequence
from enum import StrEnum

import msgspec

from benchmarks.arithmetic import (
    Cell,
    Contender,
    Measurement,
    Medians,
    Quantity,
    Spread,
    Workload,
    average_ms,
    best_cell,
    cpu_ms,
    medians,
    p99_ms,
    per_s,
    quotient,
    spread,
)
from benchmarks.plan import COMMIT_DELAY_MS, CONNECTIONS, HALF_OF_PEAK, OVERLOAD
from benchmarks.results import Minute, Result

_FLAT = 1.1
"""How much larger a process may be in the last minute than in the second and still count as flat."""


class Bound(StrEnum):
    """On which side of a goal one should be."""

    AT_LEAST = "≥"
    AT_MOST = "≤"


class Evidence(msgspec.Struct, frozen=True):
    """All that was measured, in one run or in several."""

    results: Sequence[Result]

    @property
    def measurements(self) -> list[Measurement]:
        """Everything that was measured in rounds."""
        return [one for result in self.results for one in result.measurements]


class Goal(msgspec.Struct, frozen=True, kw_only=True):
    """A value that is to be reached, and how it is found; None: it was not measured."""

    what: str
    bound: Bound
    value: float
    find: Callable[[Evidence], Spread | None]
    unit: str = ""


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """What came of a goal; `by` is how far the median lies on the good side of it, as a part of it."""

    what: str
    bound: Bound
    goal: float
    unit: str
    measured: Spread | None
    reached: bool | None
    by: float | None


type _Choice = Callable[[Medians], Cell | None]


def _cell(
    workload: Workload,
    contender: Contender = Contender.PICOPAY,
    *,
    workers: int = 1,
    commit_delay_ms: int = 0,
    history: int = 0,
) -> _Choice:
    chosen = Cell(
        contender,
        workload,
        CONNECTIONS,
        workers=workers,
        commit_delay_ms=commit_delay_ms,
        history=history,
    )
    return lambda _: chosen


def _best(contender: Contender, workload: Workload, commit_delay_ms: int = 0) -> _Choice:
    return lambda figures: best_cell(figures, contender, workload, commit_delay_ms=commit_delay_ms)


def _open_loop(offered: float) -> _Choice:
    """Choose the run at a constant rate on the hot account, whatever connections it was given."""

    def choose(figures: Medians) -> Cell | None:
        alike = (c for c in figures if c.offered == offered and c.workload is Workload.HOT)
        return next(alike, None)

    return choose


def _quotient(
    above: _Choice,
    below: _Choice,
    of: Quantity = per_s,
    by: Quantity | None = None,
    *,
    filled: bool = False,
) -> Callable[[Evidence], Spread | None]:
    """Divide within each round; each run by itself, because its rounds have numbers of their own.

    Runs with a filled ledger have an empty one beside it, which is for that comparison only.
    """

    def find(evidence: Evidence) -> Spread | None:
        found = None
        for result in evidence.results:
            figures = medians(result.measurements)
            cells = above(figures), below(figures)
            if bool(result.fillings) is filled and cells[0] is not None and cells[1] is not None:
                found = quotient(result.measurements, cells[0], cells[1], of, by) or found
        return found

    return find


def _soak_growth(evidence: Evidence) -> Spread | None:
    """Divide the memory in the last minute by that in the second: the first one fills caches."""
    minutes = _soak_minutes(evidence)
    if len(minutes) < 2:
        return None
    return spread([minutes[-1].memory_mb / minutes[1].memory_mb])


def _soak_peak(evidence: Evidence) -> Spread | None:
    peaks = [minute.memory_peak_mb for minute in _soak_minutes(evidence)]
    return spread([max(peaks)]) if peaks else None


def _soak_minutes(evidence: Evidence) -> Sequence[Minute]:
    found = [result.soak.minutes for result in evidence.results if result.soak]
    return found[-1] if found else []


def _cold_start(evidence: Evidence) -> Spread | None:
    found = [result.cold_starts_s for result in evidence.results if result.cold_starts_s]
    return spread(found[-1]) if found else None


_UNIFORM, _HOT = _cell(Workload.UNIFORM), _cell(Workload.HOT)
_STATEMENTS, _HOT_STATEMENTS = (
    _best(Contender.PGBENCH_STATEMENTS, workload) for workload in (Workload.UNIFORM, Workload.HOT)
)
_NOOP = _cell(Workload.UNIFORM, Contender.NOOP)


def _at_history(rows: int, value: float) -> tuple[Goal, ...]:
    return tuple(
        Goal(
            what=f"at {rows // 1_000_000} million payments / empty, {workload}",
            bound=Bound.AT_LEAST,
            value=value,
            find=_quotient(_cell(workload, history=rows), _cell(workload), filled=True),
        )
        for workload in Workload
    )


GOALS = (
    Goal(
        what="payments/s, uniform / pgbench, 7 statements, at its best",
        bound=Bound.AT_LEAST,
        value=3.5,
        find=_quotient(_UNIFORM, _STATEMENTS),
    ),
    Goal(
        what="payments/s, one hot account / pgbench, 7 statements, at its best",
        bound=Bound.AT_LEAST,
        value=9,
        find=_quotient(_HOT, _HOT_STATEMENTS),
    ),
    Goal(what="hot / uniform", bound=Bound.AT_LEAST, value=1.0, find=_quotient(_HOT, _UNIFORM)),
    Goal(
        what="two workers / one worker, hot",
        bound=Bound.AT_LEAST,
        value=1.0,
        find=_quotient(_cell(Workload.HOT, workers=2), _HOT),
    ),
    Goal(
        what="payments/s / no-op",
        bound=Bound.AT_LEAST,
        value=0.6,
        find=_quotient(_UNIFORM, _NOOP),
    ),
    Goal(
        what="CPU of a payment (server and database) / CPU of a no-op",
        bound=Bound.AT_MOST,
        value=2.2,
        find=_quotient(_UNIFORM, _NOOP, cpu_ms),
    ),
    Goal(
        what="p99 at 50 % of the peak / average of pgbench at its best, hot",
        bound=Bound.AT_MOST,
        value=0.4,
        find=_quotient(_open_loop(HALF_OF_PEAK), _HOT_STATEMENTS, p99_ms, average_ms),
    ),
    Goal(
        what=f"commits slowed by {COMMIT_DELAY_MS} ms: hot / pgbench hot at its best",
        bound=Bound.AT_LEAST,
        value=40,
        find=_quotient(
            _cell(Workload.HOT, commit_delay_ms=COMMIT_DELAY_MS),
            _best(Contender.PGBENCH_STATEMENTS, Workload.HOT, COMMIT_DELAY_MS),
        ),
    ),
    Goal(
        what="payments/s at three times the peak / peak",
        bound=Bound.AT_LEAST,
        value=0.9,
        find=_quotient(_open_loop(OVERLOAD), _best(Contender.PICOPAY, Workload.HOT)),
    ),
    *_at_history(5_000_000, 0.95),
    *_at_history(50_000_000, 0.85),
    Goal(
        what="memory of a server process, last minute of load / second",
        bound=Bound.AT_MOST,
        value=_FLAT,
        find=_soak_growth,
    ),
    Goal(
        what="memory of a server process under load",
        bound=Bound.AT_MOST,
        value=150,
        unit="MB",
        find=_soak_peak,
    ),
    Goal(
        what="cold start of a server process",
        bound=Bound.AT_MOST,
        value=1.5,
        unit="s",
        find=_cold_start,
    ),
)
"""Every goal, in the order in which they are shown."""


def judge(goal: Goal, measured: Spread | None) -> Verdict:
    """Hold what was measured against a goal: the median counts."""
    reached = by = None
    if measured is not None:
        above = measured.median / goal.value - 1
        by = above if goal.bound is Bound.AT_LEAST else -above
        reached = by >= 0
    return Verdict(
        what=goal.what,
        bound=goal.bound,
        goal=goal.value,
        unit=goal.unit,
        measured=measured,
        reached=reached,
        by=by,
    )


def verdicts(results: Sequence[Result]) -> list[Verdict]:
    """Judge every goal by one or more results; a later result counts before an earlier one."""
    evidence = Evidence(results)
    return [judge(goal, goal.find(evidence)) for goal in GOALS]
