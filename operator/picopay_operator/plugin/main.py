"""`kubectl-picopay`, which kubectl finds on the PATH and runs for `kubectl picopay`.

Parses, has the command carried out, and turns what goes wrong into a sentence and an exit code.
"""

import asyncio
import os
import sys
from collections.abc import Sequence

import msgspec

from picopay_operator.contract import ExitCode
from picopay_operator.plugin.command_line import parser, wants_colours


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; return its exit code."""
    given = parser().parse_args(arguments)
    # Only now: the client of Kubernetes takes a while to load.
    from picopay_operator.plugin import commands

    colours = sys.stdout.isatty() and wants_colours(os.environ)
    try:
        return asyncio.run(commands.run(given, sys.stdout, colours=colours)).value
    except commands.Failed as failed:
        return _explain(failed.message, failed.exit_code, as_json=commands.wants_json(given))
    except KeyboardInterrupt:
        return ExitCode.INTERRUPTED.value
    except BrokenPipeError:
        # Whoever reads has seen enough; Python would complain once more on its way out.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return ExitCode.OK.value


def _explain(message: str, exit_code: ExitCode, *, as_json: bool) -> int:
    text = f"error: {message}"
    if as_json:
        error = {"detail": message, "exit_code": exit_code.value}
        text = msgspec.json.encode({"error": error}).decode()
    sys.stderr.write(f"{text}\n")
    return exit_code.value


if __name__ == "__main__":
    sys.exit(main())
