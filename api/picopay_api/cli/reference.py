"""The text of docs/reference/cli.md: every command, its arguments, options and examples, exit codes.

Called by `picopay_api.reference`, which writes it and checks that it is as the code would have it.
Nothing is said here that `--help` would not say.
"""

from collections.abc import Iterator
from typing import Any

import typer

from picopay_api.cli.exits import ExitCode
from picopay_api.cli.main import app

INTRODUCTION = """
Results go to standard output: tables for people, with `--json` one JSON document for programs.
Everything else, errors included, goes to standard error; with `--json` an error is one JSON object on
a line: `{"error": {"code", "detail", "hint", "exit_code"}}`. No command asks questions.

Settings come from the environment ([settings](settings.md)): `up` needs none; `serve`, `worker`,
`migrate`, `schema`, `audit` and whatever is given `--direct` work on `DATABASE_URL`; `accounts`, `pay`,
`ledgers` and `keys` ask the server at `PICOPAY_URL` with the key in `PICOPAY_API_KEY`.
"""


def commands() -> str:
    """Return a section for each command."""
    root: Any = typer.main.get_command(app)
    return "\n\n".join("\n\n".join(_section(path, command)) for path, command in walk(root))


def exit_codes() -> list[tuple[str, str]]:
    """Return each exit code and what it means."""
    return [(str(int(code)), code.meaning) for code in ExitCode]


def walk(command: Any, path: str = "picopay") -> Iterator[tuple[str, Any]]:
    """Yield every command below a command, itself first, with the words it is called by."""
    yield path, command
    if hasattr(command, "list_commands"):
        for name in command.list_commands(None):
            yield from walk(command.get_command(None, name), f"{path} {name}")


def _section(path: str, command: Any) -> Iterator[str]:
    yield f"{'##' if path.count(' ') < 2 else '###'} {path}"
    yield command.help
    shown = [one for one in command.params if not getattr(one, "hidden", False)]
    arguments = [one for one in shown if one.param_type_name == "argument"]
    options = [one for one in shown if one.param_type_name == "option"]
    words = [path, *(one.metavar or one.name.upper() for one in arguments)]
    if options:
        words.append("[OPTIONS]")
    if hasattr(command, "list_commands"):
        words.append("COMMAND" if command.no_args_is_help else "[COMMAND]")
    yield f"```\n{' '.join(words)}\n```"
    lines = [f"- `{one.metavar or one.name.upper()}`: {one.help}" for one in arguments]
    lines += [f"- `{_spelled(one)}`: {_explained(one)}" for one in options]
    if lines:
        yield "\n".join(lines)
    yield f"```console\n{_examples(command.epilog or '')}\n```"


def _spelled(option: Any) -> str:
    value = "" if option.is_flag else f" {option.metavar or option.name.upper()}"
    return ", ".join([*reversed(option.opts), *option.secondary_opts]) + value


def _explained(option: Any) -> str:
    default = option.default
    if option.is_flag or default is None or default == []:
        return f"{option.help}{' Required.' if option.required else ''}"
    return f"{option.help} Default: `{default}`."


def _examples(epilog: str) -> str:
    lines = [line.strip() for line in epilog.splitlines()]
    return "\n".join(line.replace("\\[", "[") for line in lines if line.startswith("$"))
