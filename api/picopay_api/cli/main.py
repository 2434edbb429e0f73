"""The `picopay` command: finds the subcommand, runs it, and turns every expected error into a message.

Each subcommand lives in a module of its own that is imported when it is asked for: a health check need
not load a migration tool. No command prints a traceback for an error that can be foreseen.
"""

import os
import sys
import traceback
from importlib import import_module
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from picopay_api import __version__
from picopay_api.cli.console import explain
from picopay_api.cli.exits import CommandFailed, ExitCode, failure_of
from picopay_api.cli.options import examples
from picopay_api.errors import PicoPayError

COMMANDS = {
    "up": "up",
    "serve": "serve",
    "worker": "worker",
    "migrate": "migrate",
    "schema": "schema",
    "ledgers": "ledgers",
    "keys": "keys",
    "accounts": "accounts",
    "pay": "pay",
    "audit": "audit",
    "healthcheck": "healthcheck",
    "version": "version",
}
"""Every command and its module in this package, in the order of the help."""


class Commands(TyperGroup):
    """The group of all commands, each loaded on demand."""

    def list_commands(self, ctx: Any) -> list[str]:  # noqa: ARG002  # the signature is given
        """Name the commands."""
        return list(COMMANDS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:  # noqa: ARG002  # the signature is given
        """Load a command; None when there is none of this name."""
        if cmd_name not in COMMANDS:
            return None
        module = import_module(f"picopay_api.cli.{COMMANDS[cmd_name]}")
        command = typer.main.get_command(module.app)
        command.name = cmd_name
        _reflow(command)
        return command


def _reflow(command: Any) -> None:
    """Let the paragraphs of help texts fill the terminal; in the source they end where lines do."""
    paragraphs = (command.help or "").split("\n\n")
    command.help = "\n\n".join(" ".join(paragraph.split()) for paragraph in paragraphs)
    for subcommand in getattr(command, "commands", {}).values():
        _reflow(subcommand)


app = typer.Typer(cls=Commands, add_completion=False, no_args_is_help=True)


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(__version__)
        raise typer.Exit


@app.callback(
    epilog=examples(
        "picopay up",
        "picopay pay @alice @bob 1250 USD",
        "picopay accounts statement @bob",
        "picopay COMMAND --help",
    )
)
def picopay(
    _version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_show_version, is_eager=True, help="Show the version and exit."
        ),
    ] = False,
) -> None:
    """PicoPay, a double-entry payment engine.

    Amounts are whole minor units: 1250 USD is $12.50.
    """


def main() -> None:
    """Run the command line of this process and exit with a code of `ExitCode`."""
    sys.exit(run(sys.argv[1:]))


def run(arguments: list[str]) -> int:
    """Run one command line and return its exit code."""
    try:
        typer.main.get_command(app).main(arguments, prog_name="picopay")
    except SystemExit as ending:
        return _code_of(ending)
    except (CommandFailed, PicoPayError) as error:
        failure = failure_of(error) if isinstance(error, PicoPayError) else error
        explain(failure, as_json="--json" in arguments)
        return failure.exit_code
    except KeyboardInterrupt:
        return ExitCode.INTERRUPTED
    except BrokenPipeError:
        # The reader of our output has gone; the interpreter must not complain about it at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return ExitCode.FAILED
    except Exception:  # noqa: BLE001  # the last one: whatever it is, it gets an exit code
        traceback.print_exc()
        return ExitCode.INTERNAL
    return ExitCode.OK


def _code_of(ending: SystemExit) -> int:
    if ending.code is None:
        return ExitCode.OK
    return ending.code if isinstance(ending.code, int) else ExitCode.FAILED
