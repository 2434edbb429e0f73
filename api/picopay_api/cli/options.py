"""Options that several commands share, so that they are spelled and explained the same everywhere.

Also how examples are written: `examples(…)` makes the text below a command's options, which the tests
demand of every command and the reference page repeats.
"""

from collections.abc import Sequence
from typing import Annotated

import typer

from picopay_api.cli.exits import CommandFailed, ExitCode

AsJson = Annotated[bool, typer.Option("--json", help="Write JSON for programs instead of a table.")]

LedgerName = Annotated[
    str, typer.Option("--ledger", metavar="NAME", help="The ledger, by its name or its id (ldg_…).")
]

Direct = Annotated[
    bool,
    typer.Option(
        "--direct", help="Work on the database (DATABASE_URL) instead of asking a server."
    ),
]

Limit = Annotated[int, typer.Option(min=1, max=100, help="How many at most.")]

Cursor = Annotated[
    str | None, typer.Option(metavar="CURSOR", help="Go on where an earlier list ended.")
]

Metadata = Annotated[
    list[str] | None,
    typer.Option("--metadata", "-m", metavar="NAME=VALUE", help="Metadata; may be repeated."),
]


def examples(*lines: str) -> str:
    """Return the epilogue of a command's help: one example a line, each a command that works."""
    return "Examples:\n\n" + "\n".join(f"  $ {line.replace('[', '\\[')}" for line in lines)


def pairs(texts: Sequence[str] | None) -> dict[str, str]:
    """Read NAME=VALUE options.

    Raises:
        CommandFailed: one of them has no `=`.
    """
    read: dict[str, str] = {}
    for text in texts or ():
        name, equals, value = text.partition("=")
        if not equals or not name:
            raise CommandFailed(f"{text!r} is not NAME=VALUE", ExitCode.USAGE)
        read[name] = value
    return read
