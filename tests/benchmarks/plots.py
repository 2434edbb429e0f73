"""Plots of what was measured, as SVG: the same measurements always give the same bytes.

Used by `report.py`. Labels are text, in whatever font the reader has.
"""

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from benchmarks.arithmetic import Cell, Contender, Figures, Workload, medians
from benchmarks.plan import is_quiet
from benchmarks.results import Result
from benchmarks.tables import shown

_LINES = (
    # contender, workers, label, colour, marker
    (Contender.NOOP, 1, "no-op over HTTP", "#888888", "x"),
    (Contender.PICOPAY, 1, "PicoPay, one worker", "#0b6e4f", "o"),
    (Contender.PICOPAY, 2, "PicoPay, two workers", "#6bb392", "s"),
    (Contender.PGBENCH_FUNCTION, 1, "pgbench, one function call", "#c8801d", "^"),
    (Contender.PGBENCH_STATEMENTS, 1, "pgbench, 7 statements", "#b23a48", "v"),
)

type _Medians = dict[Cell, Figures]


def write(results: Sequence[Result], folder: Path) -> list[Path]:
    """Draw all there are measurements for; return the files. Of several results the last one counts."""
    written: dict[str, Path] = {}
    with mpl.rc_context(
        {
            "svg.fonttype": "none",  # text stays text
            "svg.hashsalt": "picopay",  # ids are of the content, not of chance
            "font.family": "sans-serif",
            "font.size": 9,
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.grid": True,
            "grid.alpha": 0.3,
            "legend.frameon": False,
        }
    ):
        for result in results:
            figures = medians(result.measurements)
            for name, draw in _plots(result, figures):
                written[name] = folder / f"measured-{name}.svg"
                _save(draw, written[name])
    return list(written.values())


def _plots(result: Result, figures: _Medians) -> Iterable[tuple[str, Callable[[Figure], None]]]:
    if any(cell.contender is Contender.PGBENCH_STATEMENTS for cell in figures):
        yield "throughput", lambda figure: _throughput(figure, figures)
    if any(cell.offered for cell in figures):
        yield "latency", lambda figure: _latency(figure, figures)
    if any(cell.history for cell in figures):
        yield "growth", lambda figure: _growth(figure, figures)
    if result.soak is not None:
        yield "memory", lambda figure: _memory(figure, result)


def _save(draw: Callable[[Figure], None], file: Path) -> None:
    figure = Figure(figsize=(8, 3.6), layout="constrained")
    draw(figure)
    figure.savefig(file, format="svg", metadata={"Date": None, "Creator": None})


def _throughput(figure: Figure, figures: _Medians) -> None:
    left, right = figure.subplots(1, 2, sharey=True)
    for axes, workload, title in (
        (left, Workload.UNIFORM, "any account pays any other"),
        (right, Workload.HOT, "all accounts pay the same one"),
    ):
        for contender, workers, label, colour, marker in _LINES:
            # To do nothing is the same for any account.
            of = Workload.UNIFORM if contender is Contender.NOOP else workload
            points = sorted(
                (cell.concurrency, one.per_s)
                for cell, one in figures.items()
                if cell == Cell(contender, of, cell.concurrency, workers=workers)
                and not is_quiet(cell)
            )
            if points:
                axes.plot(*zip(*points, strict=True), label=label, color=colour, marker=marker)
        axes.set_title(title)
        axes.set_xscale("log", base=4)
        axes.set_xlabel("connections, sessions of pgbench")
        _plain_numbers(axes)
    left.set_ylabel("per second")
    left.set_ylim(bottom=0)
    handles, labels = left.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3)


def _latency(figure: Figure, figures: _Medians) -> None:
    axes = figure.subplots()
    cells = [cell for cell in figures if cell.offered]
    names = ("p50_ms", "p99_ms", "max_ms")
    for at, (name, colour) in enumerate(zip(names, ("#6bb392", "#0b6e4f", "#b23a48"), strict=True)):
        places = [place + (at - 1) * 0.27 for place in range(len(cells))]
        values = [getattr(figures[cell], name) or 0 for cell in cells]
        bars = axes.bar(places, values, 0.25, label=name.removesuffix("_ms"), color=colour)
        axes.bar_label(bars, labels=[shown(value) for value in values], padding=2)
    axes.set_yscale("log")
    axes.set_ylabel("ms, from when it was due")
    axes.set_xticks(range(len(cells)), [f"{cell.offered:.0%} of the peak" for cell in cells])
    axes.legend()


def _growth(figure: Figure, figures: _Medians) -> None:
    axes = figure.subplots()
    for workload, colour, marker in (
        (Workload.UNIFORM, "#0b6e4f", "o"),
        (Workload.HOT, "#c8801d", "s"),
    ):
        points = sorted(
            (cell.history, one.per_s) for cell, one in figures.items() if cell.workload is workload
        )
        axes.plot(*zip(*points, strict=True), label=workload.value, color=colour, marker=marker)
    axes.set_xlabel("payments that were there before")
    axes.set_ylabel("payments per second")
    axes.set_ylim(bottom=0)
    _plain_numbers(axes)
    axes.legend()


def _memory(figure: Figure, result: Result) -> None:
    assert result.soak is not None
    axes = figure.subplots()
    samples = result.soak.samples
    axes.plot(
        [sample.at_s / 60 for sample in samples],
        [sample.memory_mb for sample in samples],
        color="#0b6e4f",
    )
    axes.set_xlabel("minutes under load")
    axes.set_ylabel("MB in one server process")
    axes.set_ylim(bottom=0)


def _plain_numbers(axes: Axes) -> None:
    plain = FuncFormatter(lambda value, _: f"{value:,.0f}")
    axes.xaxis.set_major_formatter(plain)
    axes.yaxis.set_major_formatter(plain)
