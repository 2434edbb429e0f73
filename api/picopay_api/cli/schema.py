"""`picopay schema info`: which schema this release wants and which one the database has.

Part of the contract with the operator, which compares images and databases by it.
"""

import asyncio
import os

import typer

from picopay_api.cli.console import print_fields, print_json
from picopay_api.cli.direct import reaching_database, settings_of_environment
from picopay_api.cli.exits import CommandFailed
from picopay_api.cli.options import AsJson, examples
from picopay_api.environment import is_given

app = typer.Typer(add_completion=False, no_args_is_help=True)


@app.callback(epilog=examples("picopay schema info --json"))
def schema() -> None:
    """Tell about the database's schema."""


@app.command(epilog=examples("picopay schema info", "picopay schema info --json"))
def info(as_json: AsJson = False) -> None:
    """Show the database's revision, the one this release wants and the oldest it works with.

    Without DATABASE_URL, `current` is null and the exit code 0: what the release wants is known from
    itself. With one that cannot be reached, `current` is null and the exit code 4.
    """
    failure: CommandFailed | None = None
    current: str | None = None
    try:
        current = _current()
    except CommandFailed as error:
        failure = error
    from picopay_api.store.schema import MIN_COMPATIBLE_SCHEMA, head

    facts = {"current": current, "head": head(), "min_compatible": MIN_COMPATIBLE_SCHEMA}
    if as_json:
        print_json(facts)
    else:
        print_fields(facts.items())
    if failure is not None:
        raise failure


def _current() -> str | None:
    from picopay_api.store.migrate import read_state

    if not is_given("DATABASE_URL", os.environ):
        return None
    settings = settings_of_environment()
    with reaching_database():
        return asyncio.run(read_state(settings.database_url)).current
