"""How a command ends: the exit codes, in one place, and the errors that lead to them.

Used by every command. Scripts, the operator and container platforms act on these numbers, so a number
never changes its meaning; `docs/reference/cli.md` lists them from here. Standard library and the tree
of errors only: it is imported by commands that must start fast.
"""

from enum import IntEnum
from typing import Self

from picopay_api.errors import (
    DatabaseUnavailable,
    InternalError,
    PicoPayError,
    RequestError,
    SchemaOutOfRange,
    UnavailableError,
)


class ExitCode(IntEnum):
    """The exit codes of every command, each with its meaning."""

    meaning: str

    def __new__(cls, number: int, meaning: str) -> Self:
        """Make a member that carries its meaning beside its number."""
        member = int.__new__(cls, number)
        member._value_ = number
        member.meaning = meaning
        return member

    OK = 0, "Done, and the answer is good."
    FAILED = 1, "Done, and the answer is bad: the audit has findings, the server is not healthy."
    USAGE = 2, "The command line or an argument is wrong; nothing was done."
    CONFIGURATION = 3, "Settings, or a file they name, are missing or wrong; nothing was done."
    UNAVAILABLE = (
        4,
        "The database or the server cannot be reached now. The same command may do later.",
    )
    SCHEMA = 5, "The schema does not fit: migrations are pending, out of range, or one failed."
    REFUSED = (
        6,
        "Understood and refused: not found, not allowed, insufficient funds. The code is told.",
    )
    BUSY = (
        7,
        "Another process has it: the data directory, the port, the migration lock or a table.",
    )
    HELD = 8, "The plan of the migration waits for approval; nothing was done."
    INTERNAL = 70, "A defect of PicoPay. Please report it with what was written to stderr."
    INTERRUPTED = 130, "Interrupted before it was done."


class CommandFailed(Exception):
    """The command ends with a message for people and an exit code for programs.

    `code` is the stable code of the refusal behind it, where there is one; `hint` says what to do next.
    """

    def __init__(
        self,
        message: str,
        exit_code: ExitCode = ExitCode.FAILED,
        *,
        code: str | None = None,
        hint: str | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.exit_code = exit_code
        self.code = code
        self.hint = hint


def failure_of(error: PicoPayError) -> CommandFailed:
    """Turn a refusal of the engine into the end of a command."""
    if isinstance(error, SchemaOutOfRange):
        exit_code = ExitCode.SCHEMA
    elif isinstance(error, UnavailableError):
        exit_code = ExitCode.UNAVAILABLE
    elif isinstance(error, RequestError):
        exit_code = ExitCode.USAGE
    elif isinstance(error, InternalError):
        exit_code = ExitCode.INTERNAL
    else:
        exit_code = ExitCode.REFUSED
    hint = "check DATABASE_URL" if isinstance(error, DatabaseUnavailable) else None
    faults = error.faults if isinstance(error, RequestError) else ()
    message = "; ".join([error.detail, *(f"{each.pointer}: {each.detail}" for each in faults)])
    return CommandFailed(message, exit_code, code=error.code, hint=hint)


def ending_of(error: BaseException) -> CommandFailed:
    """Say how an error ends a command, whatever it is."""
    if isinstance(error, CommandFailed):
        return error
    if isinstance(error, PicoPayError):
        return failure_of(error)
    if isinstance(error, KeyboardInterrupt):
        return CommandFailed("interrupted before it was done", ExitCode.INTERRUPTED)
    return CommandFailed(
        f"{type(error).__name__}: {error}", ExitCode.INTERNAL, code="internal_error"
    )
