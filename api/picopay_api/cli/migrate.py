"""`picopay migrate`: brings the schema of a database forward, or says what that would do."""

import asyncio
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
import typer

from picopay_api import __version__
from picopay_api.cli.console import print_json, print_table, progress
from picopay_api.cli.direct import reaching_database, settings_of_environment
from picopay_api.cli.exits import CommandFailed, ExitCode
from picopay_api.cli.options import AsJson, examples
from picopay_api.cli.report import Draft, ReportFile, reported
from picopay_api.store.plan import Hold, Step, plan_hash

if TYPE_CHECKING:
    from picopay_api.database_url import DatabaseUrl
    from picopay_api.settings import Settings
    from picopay_api.store.migrate import Course
    from picopay_api.store.schema import SchemaState

app = typer.Typer(add_completion=False)


@app.command(
    epilog=examples(
        "picopay migrate",
        "picopay migrate --plan",
        "picopay migrate --check || echo not yet",
        "picopay migrate --to 0001",
        "picopay migrate --hold destructive --approve HASH",
        "picopay migrate --admit 0001",
    )
)
def migrate(
    plan: Annotated[bool, typer.Option("--plan", help="Only list what would run.")] = False,
    check: Annotated[
        bool, typer.Option("--check", help="Only tell whether anything is left; exit code 5 if so.")
    ] = False,
    to: Annotated[str, typer.Option(metavar="REV", help="The revision to go to.")] = "head",
    hold: Annotated[
        Hold | None,
        typer.Option(
            help="Which plans wait for approval, exit code 8: those that take away data, or all."
        ),
    ] = None,
    approve: Annotated[
        str | None,
        typer.Option(metavar="HASH", help="The `plan_hash` of the plan that need not wait."),
    ] = None,
    admit: Annotated[
        str | None,
        typer.Option(
            metavar="REV",
            help="Releases of this schema still serve: leave what turns them away to a later migration.",
        ),
    ] = None,
    report: ReportFile = None,
    as_json: AsJson = False,
) -> None:
    """Migrate the database forward.

    Uses PICOPAY_MIGRATION_DATABASE_URL, the role that owns the schema on a direct connection, or
    DATABASE_URL where there is none. One migration runs at a time; another one waits up to two minutes
    (exit code 7). What was applied is logged to stderr.

    With --hold, a plan is compared with --approve once nobody else can migrate, and runs only if it is
    exactly what was approved. `picopay migrate --plan --json` tells its `plan_hash`.

    To replace a release without a pause, migrate with --admit and the schema it wants, replace its processes,
    and migrate again without it, once the last of them has ended. Where it is not known what still serves,
    an empty REV leaves everything to that.
    """
    if plan and check:
        raise CommandFailed("--plan and --check exclude each other", ExitCode.USAGE)
    if (plan or check) and (hold or approve or report):
        raise CommandFailed(
            "--hold, --approve and --report are for a migration that runs", ExitCode.USAGE
        )
    if approve and not hold:
        raise CommandFailed("--approve is of no use without --hold", ExitCode.USAGE)
    if check and admit is not None:
        raise CommandFailed("--check looks at the whole way to the revision", ExitCode.USAGE)
    if plan:
        _show_plan(_prepare(), to, admit, as_json)
    elif check:
        _check(_prepare(), as_json)
    else:
        with reported(report, _facts(None)) as draft:
            settings = _prepare()
            _migrate(settings, to, draft, hold=hold, approved=approve, admit=admit)
            _show_state(_read_state(settings), as_json)


def _prepare() -> "Settings":
    from picopay_api import logs
    from picopay_api.settings import LogFormat

    settings = settings_of_environment()
    log_format = LogFormat.TEXT if sys.stderr.isatty() else settings.log_format
    logs.configure(settings.log_level, log_format, sys.stderr)
    return settings


def migration_url(settings: "Settings") -> "DatabaseUrl":
    """Return the database's URL for the role that may change the schema."""
    return settings.migration_database_url or settings.database_url


def _migrate(settings: "Settings", revision: str, draft: Draft, **options: Any) -> None:
    from picopay_api.store.migrate import Course

    draft.hide(settings)
    course = Course()
    try:
        migrate_to(settings, revision, course=course, **options)
    finally:
        draft.facts.update(_facts(course))


def migrate_to(settings: "Settings", revision: str, **options: Any) -> None:
    """Migrate forward; the options are those of `store.migrate.upgrade_async`.

    Raises:
        CommandFailed: it cannot start, or a step failed.
    """
    from picopay_api.store import migrate as migrations

    url = migration_url(settings)
    with _migrating(), progress("migrating") as tell:
        asyncio.run(migrations.upgrade_async(url, revision, tell, **options))


def _facts(course: "Course | None") -> dict[str, Any]:
    """Return the members of the report: what is known without a database, and what was found and done."""
    from picopay_api.store import schema

    found = course and course.found
    steps = course.steps if course else []
    applied = course.applied if course else []
    waiting = course.waiting if course else []
    return {
        "release": __version__,
        "current": applied[-1].revision if applied else found and found.current,
        "head": schema.head(),
        "min_compatible": schema.MIN_COMPATIBLE_SCHEMA,
        "oldest_release": applied[-1].min_compatible if applied else found and found.oldest_release,
        "steps": _told(steps),
        "waiting": _told(waiting),
        "plan_hash": plan_hash(steps),
        "applied": [step.revision for step in applied],
        "connections_max": course and course.connections_max,
    }


def _told(steps: list[Step]) -> list[dict[str, Any]]:
    return [
        {"revision": step.revision, "title": step.title, "destructive": step.destructive}
        for step in steps
    ]


@contextmanager
def _migrating() -> Iterator[None]:
    import asyncpg

    from picopay_api.store.migrate import MigrationBusy, MigrationError, MigrationHeld

    try:
        with reaching_database():
            yield
    except MigrationError as error:
        exit_code = ExitCode.SCHEMA
        if isinstance(error, MigrationBusy):
            exit_code = ExitCode.BUSY
        elif isinstance(error, MigrationHeld):
            exit_code = ExitCode.HELD
        raise CommandFailed(str(error), exit_code, code=error.code) from error
    except CommandFailed as failure:
        if isinstance(failure.__cause__, asyncpg.LockNotAvailableError):
            # Nothing of the step was done, and who holds the table will let go of it.
            failure.exit_code = ExitCode.BUSY
        raise


def _read_state(settings: "Settings") -> "SchemaState":
    from picopay_api.store import migrate as migrations

    with reaching_database():
        return asyncio.run(migrations.read_state(migration_url(settings)))


def _show_plan(settings: "Settings", revision: str, admit: str | None, as_json: bool) -> None:
    from picopay_api.store import migrate as migrations

    with _migrating():
        steps = asyncio.run(migrations.plan(migration_url(settings), revision, admit))
    if as_json:
        print_json(
            {
                "steps": [msgspec.structs.asdict(step) for step in steps],
                "plan_hash": plan_hash(steps),
            }
        )
    else:
        print_table(
            ("revision", "title", "min_compatible", "destructive"),
            (
                (
                    step.revision,
                    step.title,
                    step.min_compatible,
                    "yes" if step.destructive else "no",
                )
                for step in steps
            ),
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
