"""Commands that work on the database itself: settings from the environment, an engine, no HTTP.

Used by `ledgers`, `keys`, `audit`, `migrate` and `schema`, which must work before a server runs or when
none can. Whoever may run them holds the database's credentials; API keys are not asked for.
"""

import asyncio
import os
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager

import asyncpg

from picopay_api.cli.console import progress
from picopay_api.cli.exits import CommandFailed, ExitCode
from picopay_api.engine.engine import Engine
from picopay_api.engine.ids import LEDGER, parse_id
from picopay_api.engine.views import Ledger
from picopay_api.errors import LedgerNotFound, UnavailableError
from picopay_api.settings import Settings, SettingsError

_PAGES_MAX = 1_000


def settings_of_environment() -> Settings:
    """Read the settings.

    Raises:
        CommandFailed: some are missing or wrong; the message lists all of them.
    """
    try:
        return Settings.from_environment(os.environ)
    except SettingsError as error:
        raise CommandFailed(str(error), ExitCode.CONFIGURATION) from error


def with_engine[T](label: str, work: Callable[[Engine], Awaitable[T]]) -> T:
    """Open an engine, do some work with it and close it, telling of it when it takes long."""
    settings = settings_of_environment()

    async def do() -> T:
        async with Engine.open(settings) as engine:
            await engine.ready()
            return await work(engine)

    with progress(label):
        return asyncio.run(do())


async def find_ledger(engine: Engine, name: str) -> Ledger:
    """Find a ledger by its name or its id.

    Raises:
        LedgerNotFound: there is none.
    """
    ledger_id = parse_id(LEDGER, name)
    if ledger_id is not None:
        return await engine.ledgers.get(ledger_id)
    cursor = None
    for _ in range(_PAGES_MAX):
        page = await engine.ledgers.list(100, cursor)
        for ledger in page.data:
            if ledger.name == name:
                return ledger
        cursor = page.next_cursor
        if cursor is None:
            break
    raise LedgerNotFound(f"there is no ledger {name}")


@contextmanager
def reaching_database() -> Iterator[None]:
    """Turn the failures of a plain connection into the end of a command.

    Raises:
        CommandFailed: the database cannot be reached, or refuses.
    """
    try:
        yield
    except UnavailableError:
        raise
    except (
        OSError,
        asyncpg.PostgresConnectionError,
        asyncpg.CannotConnectNowError,
        asyncpg.TooManyConnectionsError,
        asyncpg.InvalidAuthorizationSpecificationError,
        asyncpg.InvalidCatalogNameError,
    ) as error:
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
