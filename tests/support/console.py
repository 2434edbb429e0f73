"""Runs `picopay` commands inside the test's process and reads what they say.

Used by the tests of the command line; processes of their own are started where that is what is tested.
"""

import json
from typing import Any

import pytest

from picopay_api.cli.exits import ExitCode
from picopay_api.cli.main import run


class Console:
    """Where commands are given; `error` is what the last one said on stderr."""

    def __init__(self, captured: pytest.CaptureFixture[str]) -> None:
        self._captured = captured
        self.error = ""

    def run(self, *arguments: str) -> tuple[int, str]:
        """Give a command; return its exit code and its stdout."""
        exit_code = run(list(arguments))
        told = self._captured.readouterr()
        self.error = told.err
        assert "Traceback" not in told.err, told.err
        return exit_code, told.out

    def json(self, *arguments: str, exit_code: ExitCode = ExitCode.OK) -> Any:
        """Give a command with `--json`; return what it wrote."""
        ended, out = self.run(*arguments, "--json")
        assert ended == exit_code, self.error
        assert out.count("\n") == 1
        return json.loads(out)

    def refusal(self, *arguments: str) -> dict[str, Any]:
        """Give a command that is refused, with `--json`; return the error it wrote."""
        ended, out = self.run(*arguments, "--json")
        error: dict[str, Any] = json.loads(self.error.splitlines()[-1])["error"]
        assert (out, ended) == ("", error["exit_code"])
        return error
