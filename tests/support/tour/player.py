"""Follows the page of the tour on a cluster, as a user does, and yields what was seen.

Called by tests/e2e/test_tour.py.
"""

import os
import subprocess
import sys
from collections.abc import Generator, Mapping, Sequence
from pathlib import Path

import yaml

from support.installation import environment
from support.kube_tools import program
from support.postgres import CHECKOUT
from support.tour.page import Command
from support.tour.recording import Scene
from support.tour.terminal import terminal

_CONTEXT = "tour"


def play(
    told: Sequence[Command], context: str, folder: Path, replaced: Mapping[str, str]
) -> Generator[Scene]:
    """Give the commands of a page, in a folder that stands for the checkout; yield what each showed.

    `context` is the kube context to do it in. It is copied: what the page changes there stays in the folder.
    `replaced` are words of the page, and what stands for them in this cluster.

    Raises:
        AssertionError: a command has not ended as the page says.
    """
    (folder / "charts").symlink_to(CHECKOUT / "charts")
    variables = environment() | {
        "PATH": os.pathsep.join(map(str, [*_programs(), os.environ["PATH"]])),
        "HOME": str(folder),
        "KUBECONFIG": str(_kubeconfig(context, folder)),
    }
    back = {real: word for word, real in replaced.items()}
    with terminal(folder, variables) as opened:
        for one in told:
            pieces, exit_code = opened.run(_with(one.text, replaced))
            scene = Scene(one.text, tuple((at_s, _with(text, back)) for at_s, text in pieces))
            assert exit_code == one.exit_code, f"{one.text}ends with {exit_code}:\n{scene.text}"
            yield scene


def _programs() -> list[Path]:
    """Return the folders of kubectl, helm and `kubectl picopay`."""
    return [Path(sys.executable).parent, program("kubectl").parent, program("helm").parent]


def _kubeconfig(context: str, folder: Path) -> Path:
    """Write a kubeconfig with one context, whose name does not tell which cluster it is of."""
    view = ("config", "view", "--minify", "--flatten", "--raw", f"--context={context}")
    told = subprocess.run([program("kubectl"), *view], capture_output=True, text=True, check=True)
    content = yaml.safe_load(told.stdout)
    content["contexts"][0]["name"] = content["current-context"] = _CONTEXT
    path = folder / "kubeconfig"
    path.touch(0o600)
    path.write_text(yaml.safe_dump(content), encoding="utf-8")
    return path


def _with(text: str, replaced: Mapping[str, str]) -> str:
    for word, other in replaced.items():
        text = text.replace(word, other)
    return text
