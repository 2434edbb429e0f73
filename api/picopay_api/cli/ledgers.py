"""`picopay ledgers`: the isolated books of tenants; asks a running server, or works on the database.

`--direct` is for the beginning, when there is no server and no key yet. Both ways give the same output.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
import typer

from picopay_api.cli.client import ask, path, show_object, show_page
from picopay_api.cli.direct import find_ledger, with_engine
from picopay_api.cli.exits import CommandFailed, ExitCode
from picopay_api.cli.options import (
    AsJson,
    Cursor,
    Direct,
    Limit,
    Metadata,
    examples,
    pairs,
)

if TYPE_CHECKING:
    from picopay_api.engine.engine import Engine

app = typer.Typer(add_completion=False, no_args_is_help=True)

_FIELDS = {"id": "id", "name": "name", "metadata": "metadata", "created_at": "created_at"}
_PAGES_MAX = 1_000


@app.callback(epilog=examples("picopay ledgers list", "picopay ledgers create shop --direct"))
def ledgers() -> None:
    """Make ledgers and look at them.

    Asks the server at PICOPAY_URL with the key of an administrator in PICOPAY_API_KEY; with --direct,
    works on the database.
    """


@app.command(
    epilog=examples(
        "picopay ledgers create shop",
        "picopay ledgers create shop -m country=DE --json",
        "DATABASE_URL=postgresql://picopay@localhost/picopay picopay ledgers create main --direct",
    )
)
def create(
    name: Annotated[str, typer.Argument(metavar="NAME", help="A name of its own.")],
    metadata: Metadata = None,
    direct: Direct = False,
    as_json: AsJson = False,
) -> None:
    """Make a ledger."""
    about = pairs(metadata)

    async def work(engine: "Engine", _: Callable[[str], None]) -> Any:
        from picopay_api.http import answers

        return msgspec.to_builtins(answers.ledger(await engine.ledgers.create(name, about)))

    if direct:
        made = with_engine("making a ledger", work)
    else:
        made = ask("POST", path("ledgers"), body={"name": name, "metadata": about}).body
    show_object(made, _FIELDS, as_json=as_json)


@app.command("list", epilog=examples("picopay ledgers list", "picopay ledgers list --json"))
def list_ledgers(
    limit: Limit = 20, cursor: Cursor = None, direct: Direct = False, as_json: AsJson = False
) -> None:
    """List ledgers, newest first."""

    async def work(engine: "Engine", _: Callable[[str], None]) -> Any:
        from picopay_api.http import answers

        return msgspec.to_builtins(
            answers.page(await engine.ledgers.list(limit, cursor), answers.ledger)
        )

    if direct:
        page = with_engine("listing ledgers", work)
    else:
        page = ask("GET", path("ledgers"), query={"limit": limit, "cursor": cursor}).body
    show_page(page, _FIELDS, empty="no ledgers", as_json=as_json)


@app.command(epilog=examples("picopay ledgers get main", "picopay ledgers get main --direct"))
def get(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Its name, or its id (ldg_…).")],
    direct: Direct = False,
    as_json: AsJson = False,
) -> None:
    """Show one ledger."""

    async def work(engine: "Engine", _: Callable[[str], None]) -> Any:
        from picopay_api.http import answers

        return msgspec.to_builtins(answers.ledger(await find_ledger(engine, name)))

    found = with_engine("finding the ledger", work) if direct else ask_for_ledger(name)
    show_object(found, _FIELDS, as_json=as_json)


def ask_for_ledger(name: str) -> Any:
    """Find a ledger by its name or its id, by asking the server.

    Raises:
        CommandFailed: there is none.
    """
    if name.startswith("ldg_"):
        return ask("GET", path("ledgers", name)).body
    cursor: str | None = None
    for _ in range(_PAGES_MAX):
        page = ask("GET", path("ledgers"), query={"limit": 100, "cursor": cursor}).body
        for ledger in page["data"]:
            if ledger["name"] == name:
                return ledger
        cursor = page["next_cursor"]
        if cursor is None:
            break
    raise CommandFailed(f"there is no ledger {name!r}", ExitCode.REFUSED, code="ledger_not_found")
