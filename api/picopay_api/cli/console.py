"""What a command says: results on stdout, as a table for people or as JSON for programs; notes on stderr.

Used by every command. Nothing but the result ever goes to stdout, so that output can be piped. Colour
appears on a terminal only and never with `NO_COLOR` set (rich sees to both).
"""

import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TextIO

import msgspec
from rich.console import Console
from rich.table import Table
from rich.text import Text

from picopay_api.cli.exits import CommandFailed

Report = Callable[[str], None]

_SLOW_AFTER_S = 2.0
_WIDTH_WITHOUT_TERMINAL = 1_000  # wide enough that nothing piped to a program is cut or wrapped


def console(stream: TextIO | None = None) -> Console:
    """Return a console on stdout, or on another stream."""
    stream = stream or sys.stdout
    width = None if stream.isatty() else _WIDTH_WITHOUT_TERMINAL
    return Console(file=stream, width=width, highlight=False, markup=False, emoji=False)


def print_json(value: Any) -> None:
    """Write one JSON document on one line of stdout."""
    sys.stdout.write(msgspec.json.encode(value).decode() + "\n")
    sys.stdout.flush()


def print_table(columns: Sequence[str], rows: Iterable[Sequence[Any]], *, empty: str) -> None:
    """Write a table; columns whose name ends in `minor` hold amounts and are right-aligned."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in columns:
        column = Text(name, justify="right" if name.endswith("minor") else "left")
        table.add_column(column, justify=column.justify or "left", overflow="fold")
    for row in rows:
        table.add_row(*(Text(_shown(cell)) for cell in row))
    if table.row_count:
        console().print(table)
    else:
        note(empty)


def print_fields(fields: Iterable[tuple[str, Any]]) -> None:
    """Write one object: a name and a value on each line."""
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    for name, value in fields:
        table.add_row(Text(name), Text(_shown(value)))
    console().print(table)


def note(text: str) -> None:
    """Write a remark for people to stderr."""
    console(sys.stderr).print(Text(text), soft_wrap=True)


def explain(failure: CommandFailed, *, as_json: bool) -> None:
    """Write why a command failed to stderr, as one JSON object on a line if JSON was asked for."""
    if as_json:
        error = {
            "code": failure.code,
            "detail": failure.message,
            "hint": failure.hint,
            "exit_code": int(failure.exit_code),
        }
        sys.stderr.write(msgspec.json.encode({"error": error}).decode() + "\n")
        return
    text = Text.assemble(("error: ", "bold red"), failure.message)
    if failure.code is not None:
        text.append(f" ({failure.code})")
    console(sys.stderr).print(text, soft_wrap=True)
    if failure.hint is not None:
        note(f"  {failure.hint}")


@contextmanager
def progress(label: str) -> Iterator[Report]:
    """Say on stderr what is going on, once it has been going on for two seconds.

    What is yielded takes a sentence that says how far it is. On a terminal a spinner turns until the
    end; elsewhere each sentence is a line.
    """
    terminal = console(sys.stderr)
    told = _Spinner(terminal, label) if terminal.is_terminal else _Lines(label)
    timer = threading.Timer(_SLOW_AFTER_S, told.begin)
    timer.daemon = True
    timer.start()
    try:
        yield told.tell
    finally:
        timer.cancel()
        told.end()


class _Spinner:
    def __init__(self, terminal: Console, label: str) -> None:
        self._status = terminal.status(Text(label))

    def begin(self) -> None:
        self._status.start()

    def tell(self, text: str) -> None:
        self._status.update(Text(text))

    def end(self) -> None:
        self._status.stop()


class _Lines:
    def __init__(self, label: str) -> None:
        self._last = label
        self._begun = False

    def begin(self) -> None:
        self._begun = True
        note(f"{self._last} …")

    def tell(self, text: str) -> None:
        self._last = text
        if self._begun:
            note(f"{text} …")

    def end(self) -> None:
        self._begun = False


def _shown(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, dict):
        return " ".join(f"{name}={content}" for name, content in value.items()) or "-"
    if isinstance(value, list | tuple):
        return " ".join(str(item) for item in value) or "-"
    return str(value)
