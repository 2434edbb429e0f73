"""What the command line says of itself: help, examples, exit codes, and how little it loads for them."""

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import typer

from picopay_api import __version__
from picopay_api.cli.exits import ExitCode, failure_of
from picopay_api.cli.main import COMMANDS, app, run
from picopay_api.cli.reference import walk
from picopay_api.errors import BY_CODE
from support.postgres import CHECKOUT

ALL = dict(walk(typer.main.get_command(app)))
SUBJECTS = (
    "litestar",
    "sqlalchemy",
    "alembic",
    "asyncpg",
    "httpx",
    "uvicorn",
    "picopay_api.engine",
)


def test_every_command_of_the_design_is_there() -> None:
    wanted = {"up", "serve", "worker", "migrate", "schema info", "healthcheck", "audit", "pay"}
    wanted |= {f"ledgers {name}" for name in ("create", "list", "get")}
    wanted |= {f"keys {name}" for name in ("create", "ensure", "list", "roll", "revoke")}
    wanted |= {
        f"accounts {name}"
        for name in (
            *("create", "list", "get", "balance", "statement"),
            *("freeze", "unfreeze", "close"),
        )
    }
    assert {f"picopay {name}" for name in wanted} <= ALL.keys()
    assert set(COMMANDS) == {path.split()[1] for path in ALL if " " in path}


@pytest.mark.parametrize("path", ALL)
def test_help_explains_and_has_examples(path: str, capsys: pytest.CaptureFixture[str]) -> None:
    words = path.split()[1:]
    assert run([*words, "--help"]) == ExitCode.OK
    shown = capsys.readouterr().out
    command: Any = ALL[path]
    assert command.help
    assert "Examples:" in shown
    assert f"$ {path}" in re.sub(r"\$ \w+=\S+ ", "$ ", shown) or path == "picopay"
    for parameter in command.params:
        assert getattr(parameter, "hidden", False) or parameter.help, parameter.name


@pytest.mark.parametrize("path", ALL)
def test_examples_name_options_that_exist(path: str) -> None:
    for line in (ALL[path].epilog or "").splitlines():
        if not line.strip().startswith("$"):
            continue
        words = re.split(r"(?<=\s)picopay ", line)[-1].split()
        named = max((p for p in ALL if f"picopay {' '.join(words)} ".startswith(f"{p} ")), key=len)
        known = {option for one in ALL[named].params for option in one.opts} | {"--help"}
        assert {word for word in words if re.fullmatch(r"--?[a-z-]+", word)} <= known, line


@pytest.mark.parametrize("arguments", [["--help"], ["keys", "create", "--help"], ["version"]])
def test_help_is_quick_because_it_loads_nothing_heavy(arguments: list[str]) -> None:
    code = (
        "import sys\nfrom picopay_api.cli.main import run\n"
        f"run({arguments!r})\n"
        f"print(*[name for name in {SUBJECTS!r} if name in sys.modules], file=sys.stderr)"
    )
    told = subprocess.run(
        [sys.executable, "-c", code],
        env={"PYTHONPATH": str(CHECKOUT / "api")},
        check=True,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert told.stderr.split() == []


def test_the_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["--version"]) == ExitCode.OK
    assert capsys.readouterr().out.strip() == __version__


@pytest.mark.parametrize(
    "arguments",
    [
        ["nonsense"],
        ["pay", "@alice"],
        ["pay", "@alice", "@bob", "0", "USD"],
        ["pay", "@alice", "@bob", "12.5", "USD"],
        ["up", "--port", "65536"],
        ["accounts", "list", "--limit", "101"],
        ["accounts", "create", "USD", "--min-balance", "much"],
        ["accounts", "create", "USD", "-m", "novalue"],
        ["migrate", "--plan", "--check"],
        ["migrate", "--plan", "--report", "report.json"],
        ["migrate", "--check", "--hold", "always"],
        ["migrate", "--hold", "never"],
        ["migrate", "--approve", "0"],
        ["audit", "prove", "acct_1"],
    ],
    ids=" ".join,
)
def test_a_wrong_command_line_is_told_in_a_sentence(
    arguments: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PICOPAY_API_KEY", raising=False)
    assert run(arguments) == ExitCode.USAGE
    told = capsys.readouterr()
    assert told.out == ""
    assert told.err
    assert "Traceback" not in told.err


def test_numbers_of_exit_codes_never_change() -> None:
    assert {code.name: int(code) for code in ExitCode} == {
        "OK": 0,
        "FAILED": 1,
        "USAGE": 2,
        "CONFIGURATION": 3,
        "UNAVAILABLE": 4,
        "SCHEMA": 5,
        "REFUSED": 6,
        "BUSY": 7,
        "HELD": 8,
        "INTERNAL": 70,
        "INTERRUPTED": 130,
    }
    page = (CHECKOUT / "docs/reference/cli.md").read_text(encoding="utf-8")
    for code in ExitCode:
        assert f"| {int(code)} | {code.meaning} |" in page


@pytest.mark.parametrize("code", sorted(BY_CODE))
def test_every_refusal_ends_a_command_with_its_own_code(code: str) -> None:
    failure = failure_of(BY_CODE[code]())
    expected = {
        400: ExitCode.USAGE,
        405: ExitCode.USAGE,
        413: ExitCode.USAGE,
        415: ExitCode.USAGE,
        500: ExitCode.INTERNAL,
        503: ExitCode.UNAVAILABLE,
    }.get(BY_CODE[code].status, ExitCode.REFUSED)
    if code == "schema_out_of_range":
        expected = ExitCode.SCHEMA
    assert (failure.exit_code, failure.code) == (expected, code)


def test_a_proof_that_is_none_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for content in ("", "[]", "{}", '{"proof": {}}', "\x00"):
        (tmp_path / "proof.json").write_text(content)
        arguments = ["audit", "verify", str(tmp_path / "proof.json"), "--hash", "00"]
        assert run(arguments) == ExitCode.CONFIGURATION
        assert "Traceback" not in capsys.readouterr().err
