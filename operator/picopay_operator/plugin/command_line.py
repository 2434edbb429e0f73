"""The command line of `kubectl picopay`: commands, options, what each is for. Parses, and does nothing.

Called by `main.py`. Standard library and constants only, so that help appears at once.
"""

import argparse
from collections.abc import Mapping
from pathlib import Path

from picopay_operator.contract import ExitCode
from picopay_operator.names import Component

PROGRAM = "kubectl picopay"

EXIT_CODES = {
    ExitCode.OK: "Done. Of status, plan, keys, events and logs: it was shown, whatever it says.",
    ExitCode.FAILED: "The engine is not ready (only with status --exit-code).",
    ExitCode.USAGE: "The command line is wrong; nothing was done.",
    ExitCode.CONFIGURATION: "No kubeconfig or context like that; nothing was done.",
    ExitCode.UNAVAILABLE: "The API server cannot be reached now. The same command may do later.",
    ExitCode.REFUSED: "Understood and refused: not found, not allowed, or it does not go with the engine.",
    ExitCode.INTERRUPTED: "Interrupted.",
}
"""What an exit code means: the numbers of `picopay` itself, as far as they come up here."""

_LINES_MAX = 100_000


def parser() -> argparse.ArgumentParser:
    """Return what understands the command line."""
    codes = "\n".join(f"  {code.value:<4} {meaning}" for code, meaning in EXIT_CODES.items())
    made = argparse.ArgumentParser(
        prog=PROGRAM,
        description="See how a PicoPayEngine is, and decide what waits for a decision.",
        epilog=f"exit codes:\n{codes}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        parents=[_where(None)],
    )
    commands = made.add_subparsers(dest="command", required=True, metavar="COMMAND")
    one = _command(
        commands, "status", "Show an engine: conditions, pods, Jobs, and what may be done."
    )
    one.add_argument("--exit-code", action="store_true", help="exit with 1 when it is not ready")
    _command(commands, "plan", "Show what a migration would do that waits for an approval.")
    one = _command(commands, "approve", "Let the plan run that waits.")
    one.add_argument("--plan-hash", metavar="HASH", help="approve no other plan than this one")
    _command(commands, "retry", "Have a failed migration, check or key tried again.")
    one = _command(
        commands, "rollback", "Go back to a release that has served, if the schema admits it."
    )
    one.add_argument(
        "--to", metavar="VERSION", help="which one; the newest that is admitted if left out"
    )
    _command(commands, "promote", "Let the new version of a blue-green rollout take over.")
    _add_keys(commands)
    _add_logs(commands)
    _command(commands, "events", "Show what has happened to an engine and to what belongs to it.")
    _add_support_bundle(commands)
    return made


def wants_colours(environment: Mapping[str, str]) -> bool:
    """Tell whether somebody at a terminal wants colours; see https://no-color.org."""
    return not environment.get("NO_COLOR") and environment.get("TERM") != "dumb"


type _Commands = argparse._SubParsersAction[argparse.ArgumentParser]  # noqa: SLF001  # it has no other name


def _command(
    commands: _Commands, name: str, purpose: str, *, as_json: bool = True
) -> argparse.ArgumentParser:
    one = commands.add_parser(
        name, help=purpose, description=purpose, parents=[_where(argparse.SUPPRESS)]
    )
    one.add_argument("engine", metavar="ENGINE", help="the name of the engine")
    if as_json:
        one.add_argument(
            "-o", "--output", choices=["json", "text"], default="text", help="for programs: json"
        )
    return one


def _add_keys(commands: _Commands) -> None:
    purpose = "Tell where the administrator's key is, or have it replaced."
    keys = commands.add_parser("keys", help=purpose, description=purpose)
    actions = keys.add_subparsers(dest="action", required=True, metavar="ACTION")
    _command(actions, "show", "Tell where the administrator's key is, and how to read it.")
    _command(actions, "rotate", "Have it replaced; the old one stays valid for a while.")


def _add_logs(commands: _Commands) -> None:
    logs = _command(commands, "logs", "Show what the pods of an engine say.", as_json=False)
    components = [component.value for component in Component]
    logs.add_argument(
        "-c",
        "--component",
        choices=components,
        default=Component.API.value,
        help="whose pods: api if left out",
    )
    logs.add_argument("-f", "--follow", action="store_true", help="go on until interrupted")
    logs.add_argument(
        "-p", "--previous", action="store_true", help="of the containers before the present ones"
    )
    logs.add_argument(
        "--tail", metavar="LINES", type=_lines, default=50, help="of each pod; 50 if left out"
    )


def _add_support_bundle(commands: _Commands) -> None:
    one = _command(
        commands,
        "support-bundle",
        "Write all that helps to help into one file: objects, Events, logs. Secrets are taken out.",
    )
    one.add_argument(
        "--file",
        metavar="FILE",
        type=Path,
        help="which file, a .tar.gz that is not there yet; one in this folder if left out",
    )
    one.add_argument(
        "--operator-namespace",
        metavar="NAMESPACE",
        help="where the operator runs; it is looked for in all namespaces if left out",
    )


def _where(default: str | None) -> argparse.ArgumentParser:
    """Return the options that tell which cluster; they may stand before and behind the command."""
    made = argparse.ArgumentParser(add_help=False, argument_default=default)
    made.add_argument("-n", "--namespace", help="the context's if left out")
    made.add_argument("--context", help="a context of the kubeconfig")
    made.add_argument("--kubeconfig", metavar="FILE", help="what KUBECONFIG names if left out")
    return made


def _lines(text: str) -> int:
    number = int(text)
    if not 0 <= number <= _LINES_MAX:
        raise argparse.ArgumentTypeError(f"must be from 0 to {_LINES_MAX}")
    return number
