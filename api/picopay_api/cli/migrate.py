"""`picopay migrate`: brings the schema of a database forward, or says what that would do."""

import asyncio
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated

import msgspec
import typer

from picopay_api.cli.console import print_json, print_table, progress
from picopay_api.cli.direct import reaching_database, settings_of_environment
from picopay_api.cli.exits import CommandFailed, ExitCode
from picopay_api.cli.options import AsJson, examples

if TYPE_CHECKING:
    from picopay_api.database_url import DatabaseUrl
    from picopay_api.settings import Settings
    from picopay_api.store.schema import SchemaState

app = typer.Typer(add_completion=False)


@app.command(
    epilog=examples(
        "picopay migrate",
        "picopay migrate --plan",
        "picopay migrate --check || echo not yet",
        "picopay migrate --to 0001",
    )
)
def migrate(
    plan: Annotated[bool, typer.Option("--plan", help="Only list what would run.")] = False,
    check: Annotated[
        bool, typer.Option("--check", help="Only tell whether anything is left; exit code 5 if so.")
    ] = False,
    to: Annotated[str, typer.Option(metavar="REV", help="The revision to go to.")] = "head",
    as_json: AsJson = False,
) -> None:
    """Migrate the database forward.

    Uses PICOPAY_MIGRATION_DATABASE_URL, the role that owns the schema on a direct connection, or
    DATABASE_URL where there is none. One migration runs at a time; another one waits up to two minutes
    (exit code 7). What was applied is logged to stderr.
    """
    from picopay_api import logs
    from picopay_api.settings import LogFormat

    if plan and check:
        raise CommandFailed("--plan and --check exclude each other", ExitCode.USAGE)
    settings = settings_of_environment()
    log_format = LogFormat.TEXT if sys.stderr.isatty() else settings.log_format
    logs.configure(settings.log_level, log_format, sys.stderr)
    if plan:
        _show_plan(settings, to, as_json)
    elif check:
        _check(settings, as_json)
    else:
        migrate_to(settings, to)
        _show_state(_read_state(settings), as_json)


def migration_url(settings: "Settings") -> "DatabaseUrl":
    """Return the database's URL for the role that may change the schema."""
    return settings.migration_database_url or settings.database_url


def migrate_to(settings: "Settings", revision: str) -> None:
    """Migrate forward.

    Raises:
        CommandFailed: it cannot start, or a step failed.
    """
    from picopay_api.store import migrate as migrations
    from picopay_api.store.migrate import MigrationBusy

    url = migration_url(settings)
    with _migrating(), progress("migrating") as tell:
        try:
            asyncio.run(migrations.upgrade_async(url, revision, tell))
        except MigrationBusy as error:
            raise CommandFailed(str(error), ExitCode.BUSY, code="migration_busy") from error


@contextmanager
def _migrating() -> Iterator[None]:
    from picopay_api.store.migrate import MigrationError

    try:
        with reaching_database():
            yield
    except MigrationError as error:
        raise CommandFailed(str(error), ExitCode.SCHEMA, code="migration_refused") from error


def _read_state(settings: "Settings") -> "SchemaState":
    from picopay_api.store import migrate as migrations

    with reaching_database():
        return asyncio.run(migrations.read_state(migration_url(settings)))


def _show_plan(settings: "Settings", revision: str, as_json: bool) -> None:
    from picopay_api.store import migrate as migrations

    with _migrating():
        steps = asyncio.run(migrations.plan(migration_url(settings), revision))
    if as_json:
        print_json({"steps": [msgspec.structs.asdict(step) for step in steps]})
    else:
        print_table(
            ("revision", "title", "min_compatible"),
            ((step.revision, step.title, step.min_compatible) for step in steps),
            empty="nothing to migrate",
        )


def _check(settings: "Settings", as_json: bool) -> None:
    state = _read_state(settings)
    _show_state(state, as_json)
    problem = state.problem()
    if problem is None and not state.is_head():
        problem = f"migrations are pending: at {state.current}, this release wants {state.head}"
        if state.current == state.head:
            problem = "the functions in the database are not those of this release"
    if problem is not None:
        raise CommandFailed(problem, ExitCode.SCHEMA, code="schema_out_of_range")


def _show_state(state: "SchemaState", as_json: bool) -> None:
    if as_json:
        print_json(
            {
                "current": state.current,
                "head": state.head,
                "min_compatible": state.min_compatible,
                "up_to_date": state.is_head(),
            }
        )
    else:
        typer.echo(f"schema at {state.current or 'nothing'}, this release wants {state.head}")
