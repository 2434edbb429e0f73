"""Commands that work on the database itself: settings from the environment, an engine, no HTTP.

Used by `audit`, `migrate`, `schema` and, with `--direct`, `ledgers` and `keys`: what must work before a
server runs or when none can. Whoever may run them holds the database's credentials; API keys are not
asked for. The engine is loaded when a command runs, not when its help is shown.
"""

import asyncio
import os
import sys
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from picopay_api.cli.console import progress
from picopay_api.cli.exits import CommandFailed, ExitCode

if TYPE_CHECKING:
    from picopay_api.engine.engine import Engine
    from picopay_api.engine.views import Ledger
    from picopay_api.settings import Settings


def settings_of_environment() -> "Settings":
    """Read the settings.

    Raises:
        CommandFailed: some are missing or wrong; the message lists all of them.
    """
    from picopay_api.settings import Settings, SettingsError

    try:
        return Settings.from_environment(os.environ)
    except SettingsError as error:
        raise CommandFailed(str(error), ExitCode.CONFIGURATION, code="settings_invalid") from error


def with_engine[T](
    label: str, work: "Callable[[Engine, Callable[[str], None]], Awaitable[T]]"
) -> T:
    """Open an engine, do some work with it and close it, telling of it when it takes long.

    The work is handed the engine and what takes a sentence that says how far it is.
    """
    from picopay_api import logs
    from picopay_api.engine.engine import Engine
    from picopay_api.settings import LogFormat, LogLevel

    settings = settings_of_environment()
    # What goes wrong ends the command with a sentence; its log would only say it twice.
    logs.configure(LogLevel.ERROR, LogFormat.TEXT, sys.stderr)

    async def do(tell: Callable[[str], None]) -> T:
        async with Engine.open(settings) as engine:
            return await work(engine, tell)

    with progress(label) as tell:
        return asyncio.run(do(tell))


async def find_ledger(engine: "Engine", name: str) -> "Ledger":
    """Find a ledger by its name or its id.

    Raises:
        LedgerNotFound: there is none.
    """
    from picopay_api.engine.ids import LEDGER, parse_id

    id = parse_id(LEDGER, name)
    return await (engine.ledgers.find(name) if id is None else engine.ledgers.get(id))


async def ensure_ledger(engine: "Engine", name: str) -> "Ledger":
    """Find a ledger by its name or its id; make it, if there is none of this name.

    Raises:
        LedgerNotFound: there is none of this id.
    """
    from picopay_api.engine.ids import LEDGER, parse_id

    if parse_id(LEDGER, name) is not None:
        return await find_ledger(engine, name)
    return await engine.ledgers.ensure(name)


@contextmanager
def reaching_database() -> Iterator[None]:
    """Turn the failures of a plain connection into the end of a command.

    Raises:
        CommandFailed: the database cannot be reached, or refuses.
    """
    import asyncpg

    from picopay_api.store.database import UNREACHABLE

    try:
        yield
    except asyncpg.ClientConfigurationError as error:
        raise CommandFailed(
            f"the address of the database cannot be used: {error}",
            ExitCode.CONFIGURATION,
            code="settings_invalid",
        ) from error
    except UNREACHABLE as error:
        if isinstance(error, ValueError) and not isinstance(error, OSError):
            raise  # an argument that the driver cannot encode, not a certificate that does not hold
        raise CommandFailed(
            f"the database cannot be reached: {error}",
            ExitCode.UNAVAILABLE,
            code="database_unavailable",
            hint="check DATABASE_URL, and that the server runs",
        ) from error
    except asyncpg.PostgresError as error:
        raise CommandFailed(
            f"the database refuses: {error}", ExitCode.SCHEMA, code=f"sqlstate_{error.sqlstate}"
        ) from error
