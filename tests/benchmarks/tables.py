"""Tables of what was measured, for a terminal and for the documentation. Pure.

Used by `report.py`. Texts stand to the left, numbers to the right; about three digits of a number are
shown.
"""

from collections.abc import Iterable, Sequence

type Value = str | float | None


def table(columns: Sequence[str], rows: Iterable[Sequence[Value]]) -> str:
    """Lay out a table for a terminal."""
    lines, numeric = _lines(columns, rows)
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(
            text.rjust(width) if right else text.ljust(width)
            for text, width, right in zip(line, widths, numeric, strict=True)
        ).rstrip()
        for line in lines
    )


def markdown(columns: Sequence[str], rows: Iterable[Sequence[Value]]) -> str:
    """Lay out a table for a page of Markdown."""
    lines, numeric = _lines(columns, rows)
    rule = tuple("---:" if right else "---" for right in numeric)
    return "\n".join(f"| {' | '.join(line)} |" for line in (lines[0], rule, *lines[1:]))


def _lines(
    columns: Sequence[str], rows: Iterable[Sequence[Value]]
) -> tuple[list[tuple[str, ...]], list[bool]]:
    """Return the table as texts, its head first, and which columns have numbers."""
    body = [
        tuple((shown(value), not isinstance(value, str | None)) for value in row) for row in rows
    ]
    lines = [tuple(columns), *(tuple(text for text, _ in row) for row in body)]
    numeric = [any(number for _, number in column) for column in zip(*body, strict=True)]
    return lines, numeric or [False] * len(columns)


def shown(value: Value) -> str:
    """Return a value as text."""
    if value is None:
        return "-"
    if isinstance(value, str):
        return value
    if isinstance(value, int) or abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.{2 if abs(value) >= 1 else 3}f}"
