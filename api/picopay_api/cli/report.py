"""The report of a command: one small JSON document in a file, whatever becomes of the command.

Used by `migrate` and `audit`. A pod writes it to its termination message, where the operator reads how it
ended; hence its size, and that it is written once. It never holds the password of a database.
"""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import quote

import msgspec
import typer

from picopay_api.cli.console import note
from picopay_api.cli.exits import CommandFailed, ExitCode, ending_of
from picopay_api.cli.lifetime import interrupt_on_stop

if TYPE_CHECKING:
    from picopay_api.settings import Settings

ReportFile = Annotated[
    Path | None,
    typer.Option(
        "--report",
        metavar="FILE",
        dir_okay=False,
        help="Write how it ended to FILE, as JSON of at most 4,000 bytes, however it ends.",
    ),
]

BYTES_MAX = 4_000
"""The largest report. Kubernetes keeps 4,096 bytes of a termination message."""

_DETAIL_CHARACTERS_MAX = 1_000
_CUT = " …"


class Draft(msgspec.Struct):
    """What a report is going to say: facts of the command, and what must not be said."""

    facts: dict[str, Any]
    secrets: list[str] = []

    def hide(self, settings: "Settings") -> None:
        """Keep the passwords of the database out of it."""
        for url in (settings.database_url, settings.migration_database_url):
            self.secrets += url.secrets() if url else ()


@contextmanager
def reported(file: Path | None, facts: dict[str, Any]) -> Iterator[Draft]:
    """Write a report when the block ends, in whichever way; its facts may be changed until then.

    To be told to stop is one of the ways.

    Raises:
        CommandFailed: the file cannot be written; nothing was done.
    """
    draft = Draft(facts)
    if file is None:
        yield draft
        return
    _require_writable(file)
    failure: CommandFailed | None = None
    try:
        with _interrupted_on_stop():
            yield draft
    except BaseException as error:
        failure = ending_of(error)
        raise
    finally:
        _write(file, encoded(draft, failure))


def encoded(draft: Draft, failure: CommandFailed | None) -> bytes:
    """Return a report, its lists and its detail cut until it fits."""
    exit_code = ExitCode.OK if failure is None else failure.exit_code
    report: dict[str, Any] = {
        "ok": exit_code is ExitCode.OK,
        "exit_code": int(exit_code),
        "code": failure and failure.code,
        "detail": failure and _shortened(_hidden(failure.message, draft.secrets)),
        **{name: list(v) if isinstance(v, list) else v for name, v in draft.facts.items()},
    }
    while len(text := msgspec.json.encode(report)) > BYTES_MAX:
        longest = max((value for value in report.values() if isinstance(value, list)), key=len)
        if longest:
            longest.pop()
        else:
            report["detail"] = _shortened(report["detail"], len(report["detail"]) // 2)
    return text


def _shortened(text: str, characters_max: int = _DETAIL_CHARACTERS_MAX) -> str:
    return text if len(text) <= characters_max else text[: characters_max - len(_CUT)] + _CUT


def _hidden(text: str, secrets: list[str]) -> str:
    for secret in filter(None, secrets):
        for form in (secret, quote(secret, safe="*"), quote(secret, safe="")):
            text = text.replace(form, "***")
    return text


@contextmanager
def _interrupted_on_stop() -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():  # signals are not its business
        yield
        return
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = {number: signal.getsignal(number) for number in numbers}
    interrupt_on_stop()
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _require_writable(file: Path) -> None:
    try:
        with file.open("ab"):
            return
    except OSError as error:
        raise CommandFailed(
            f"the report cannot be written to {file}: {error.strerror}", ExitCode.CONFIGURATION
        ) from error


def _write(file: Path, report: bytes) -> None:
    try:
        file.write_bytes(report)
    except OSError as error:
        # What was done is done, and the exit code tells of it.
        note(f"the report cannot be written to {file}: {error.strerror}")
