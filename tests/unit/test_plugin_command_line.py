"""The command line of `kubectl picopay`: what it takes, what it tells of itself, what the pages say of it."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import msgspec
import pytest

from picopay_operator.conditions import Reason
from picopay_operator.contract import ExitCode
from picopay_operator.names import Component
from picopay_operator.plugin import commands
from picopay_operator.plugin.command_line import EXIT_CODES, parser, wants_colours
from picopay_operator.plugin.main import main
from picopay_operator.plugin.overview import _NEXT
from support.postgres import CHECKOUT

PAGE = CHECKOUT / "docs" / "how-to" / "look-after-an-engine.md"
COMMANDS = [
    "status",
    "plan",
    "approve",
    "retry",
    "rollback",
    "promote",
    "logs",
    "events",
    "support-bundle",
]
EVERY = [*([command] for command in COMMANDS), ["keys", "show"], ["keys", "rotate"]]
PAGES = sorted([*CHECKOUT.glob("*.md"), *(CHECKOUT / "docs").rglob("*.md")])


def test_every_command_is_carried_out_by_something() -> None:
    assert {command[0] for command in EVERY} == set(commands._COMMANDS)


@pytest.mark.parametrize("command", EVERY)
def test_where_may_stand_before_and_behind_the_command(command: list[str]) -> None:
    where = ["-n", "shop", "--context", "test", "--kubeconfig", "file"]
    expected = {"namespace": "shop", "context": "test", "kubeconfig": "file", "engine": "demo"}
    for line in ([*where, *command, "demo"], [*command, "demo", *where]):
        assert expected.items() <= vars(parser().parse_args(line)).items()
    given = vars(parser().parse_args([*command, "demo"]))
    assert {given[name] for name in ("namespace", "context", "kubeconfig")} == {None}


@pytest.mark.parametrize(
    "line",
    [
        [],
        ["status"],
        ["nonsense", "demo"],
        ["keys", "demo"],
        ["status", "demo", "-o", "yaml"],
        ["logs", "demo", "--tail", "-1"],
        ["logs", "demo", "--tail", "many"],
        ["logs", "demo", "--component", "nobody"],
        ["logs", "demo", "-o", "json"],
    ],
)
def test_what_is_not_understood_is_refused(
    line: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(line)
    assert ended.value.code == ExitCode.USAGE
    assert "usage: kubectl picopay" in capsys.readouterr().err


@pytest.mark.parametrize("command", [[], *EVERY])
def test_help_is_quick_because_it_loads_nothing_heavy(command: list[str]) -> None:
    code = (
        "import sys\nfrom picopay_operator.plugin.main import main\n"
        f"try:\n    main({[*command, '--help']!r})\nexcept SystemExit as ended:\n    assert not ended.code\n"
        "print(*[name for name in ('kubernetes', 'kopf', 'aiohttp') if name in sys.modules], file=sys.stderr)"
    )
    told = subprocess.run(
        [sys.executable, "-c", code],
        env={"PYTHONPATH": str(CHECKOUT / "operator")},
        check=True,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert told.stderr.split() == []
    assert f"usage: kubectl picopay {' '.join(command)}".rstrip() in told.stdout


def test_a_kubeconfig_that_is_not_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    line = ["status", "demo", "--kubeconfig", str(tmp_path / "missing")]
    assert main(line) == ExitCode.CONFIGURATION
    assert capsys.readouterr().err.startswith("error: ")
    assert main([*line, "-o", "json"]) == ExitCode.CONFIGURATION
    error = msgspec.json.decode(capsys.readouterr().err)["error"]
    assert error["exit_code"] == ExitCode.CONFIGURATION


@pytest.mark.parametrize(
    "content", ["", "{", "[]", "a: b", "current-context: x\ncontexts: []\nclusters: []\nusers: []"]
)
def test_a_kubeconfig_that_is_none(
    content: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "config"
    file.write_text(content, encoding="utf-8")
    assert main(["status", "demo", "--kubeconfig", str(file)]) == ExitCode.CONFIGURATION
    assert "Traceback" not in capsys.readouterr().err


def test_who_wants_no_colours_gets_none() -> None:
    assert wants_colours({"TERM": "xterm", "NO_COLOR": ""})
    assert not wants_colours({"TERM": "xterm", "NO_COLOR": "1"})
    assert not wants_colours({"TERM": "dumb"})


def test_commands_that_are_proposed_exist() -> None:
    assert set(_NEXT) <= set(Reason)
    for proposed in _NEXT.values():
        for command in proposed:
            verb, *options = command.split()
            parser().parse_args([verb, "demo", *options])


def test_the_script_is_called_as_kubectl_looks_for_it() -> None:
    project = tomllib.loads((CHECKOUT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert project["scripts"]["kubectl-picopay"] == "picopay_operator.plugin.main:main"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(CHECKOUT)))
def test_commands_on_the_pages_exist(page: Path) -> None:
    for words in re.findall(
        r"kubectl picopay ([a-z][^\n`|;#>]*)", page.read_text(encoding="utf-8")
    ):
        given = words.split()
        length = 2 if given[0] == "keys" else 1
        if len(given) == length:  # a command by its name
            given.append("ENGINE")
        parser().parse_args(given)


def test_the_page_has_every_command_component_and_exit_code() -> None:
    text = PAGE.read_text(encoding="utf-8")
    for command in EVERY:
        assert f"kubectl picopay {' '.join(command)} " in text
    for component in Component:
        assert f"`{component.value}`" in text
    rows = dict(re.findall(r"^\| (\d+) \| (.+) \|$", text, re.MULTILINE))
    assert {int(code): meaning.replace("`", "") for code, meaning in rows.items()} == {
        code.value: meaning for code, meaning in EXIT_CODES.items()
    }
