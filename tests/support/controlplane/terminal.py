"""`kubectl picopay` as somebody gives its commands, for a namespace.

Used by the tests of the plugin.
"""

import io
import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from picopay_operator.contract import ExitCode
from picopay_operator.plugin import commands
from picopay_operator.plugin.command_line import parser
from picopay_operator.plugin.commands import Failed


class Terminal:
    """Where commands are given."""

    def __init__(self, kubeconfig: Path, namespace: str) -> None:
        self._where = ["--kubeconfig", str(kubeconfig), "--namespace", namespace]

    async def run(self, *words: str, exit_code: ExitCode = ExitCode.OK) -> str:
        """Give a command; return what it has written."""
        out = io.StringIO()
        given = parser().parse_args([*self._where, *words])
        assert await commands.run(given, out, colours=False) is exit_code
        return out.getvalue()

    async def json(self, *words: str) -> dict[str, Any]:
        """Give a command with `-o json`; return what it has written."""
        document: dict[str, Any] = json.loads(await self.run(*words, "-o", "json"))
        return document

    async def failure(self, *words: str) -> Failed:
        """Give a command that cannot be carried out; return why."""
        with pytest.raises(Failed) as failed:
            await self.run(*words)
        return failed.value


def kubeconfig(folder: Path, server: str, token: str = "") -> Path:
    """Write a kubeconfig for a server, with what tells it who asks, if that is known."""
    path = folder / "kubeconfig"
    content = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "test",
        "clusters": [{"name": "test", "cluster": {"server": server}}],
        "users": [{"name": "test", "user": {"token": token} if token else {}}],
        "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test"}}],
    }
    path.write_text(yaml.safe_dump(content), encoding="utf-8")
    return path
