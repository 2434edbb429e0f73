"""The page of the tour, and what it shows: outputs and pictures, made from the recording of a real run.

Used by `python -m support.tour` and by tests/e2e/test_tour.py. Pure. In the page, a `text` block right behind
commands is what they showed, and an image right behind them is a picture of the terminal then.
"""

import io
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec
from rich.console import Console
from rich.terminal_theme import DIMMED_MONOKAI
from rich.text import Text

from support.guides import steps, to_be_done
from support.postgres import CHECKOUT
from support.tour.recording import WIDTH, Scene

PAGE = CHECKOUT / "docs" / "tutorial" / "kubernetes.md"
CAST = PAGE.with_suffix(".cast")
TITLE = "A tour of PicoPay on Kubernetes"

_OUTPUT = re.compile(
    r"^```sh\n(?P<commands>(?:(?!```).*\n)+)```\n\n"
    r"(?:```text\n(?P<text>(?:(?!```).*\n)*)```$|!\[[^\]]*\]\((?P<picture>[\w-]+\.svg)\)$)",
    re.MULTILINE,
)
_COMMAND = re.compile(r".*<<'END'\n(?:.*\n)*?END\n|(?:.*\\\n)*.*\n")


class OutdatedError(Exception):
    """The recording is of another page than this one; it has to be made anew."""


class Command(msgspec.Struct, frozen=True):
    """A command of the page, how it ends, the line of its block, and whether the page shows its output."""

    text: str
    exit_code: int
    line: int
    is_shown: bool


def commands(page: str) -> list[Command]:
    """Return the commands that the page has run."""
    shown = {_line(page, match) for match in _OUTPUT.finditer(page)}
    found = []
    for step in filter(to_be_done, steps(page)):
        line, told = step.block.line, step.block.told
        exit_code = int(told.removeprefix("exits ")) if told.startswith("exits ") else 0
        *others, last = single(step.block.text)
        found += [Command(text, 0, line, line in shown) for text in others]
        found.append(Command(last, exit_code, line, line in shown))
    return found


def single(block: str) -> list[str]:
    """Take a block apart into its commands: one may go on after a backslash, or up to the END of its text."""
    return [match[0] for match in _COMMAND.finditer(block)]


def _line(page: str, match: re.Match[str]) -> int:
    return page.count("\n", 0, match.start()) + 1


def made(page: str, scenes: Sequence[Scene]) -> Iterator[tuple[Path, str]]:
    """Yield the page and its pictures as they are when the scenes are what was recorded.

    Raises:
        OutdatedError: the scenes are not those of the page.
    """
    told = commands(page)
    if [scene.command for scene in scenes] != [one.text for one in told]:
        raise OutdatedError("the page has other commands than its recording: record it anew")
    pictures: dict[Path, str] = {}

    def replaced(match: re.Match[str]) -> str:
        line = _line(page, match)
        shown = [scene for scene, one in zip(scenes, told, strict=True) if one.line == line]
        if name := match["picture"]:
            pictures[PAGE.with_name(name)] = picture(shown[-1])
            return match[0]
        begin, end = (edge - match.start() for edge in match.span("text"))
        return match[0][:begin] + "".join(scene.text for scene in shown) + match[0][end:]

    yield PAGE, _OUTPUT.sub(replaced, page)
    yield from pictures.items()


def picture(scene: Scene) -> str:
    """Draw the terminal with what a scene showed."""
    console = Console(record=True, width=WIDTH, file=io.StringIO(), force_terminal=True)
    console.print(Text.from_ansi(scene.screen), end="")
    drawn = console.export_svg(
        title=scene.command.strip(), theme=DIMMED_MONOKAI, unique_id="terminal"
    )
    # A font from the network would be asked for by everybody who looks; the viewer's own does as well.
    drawn = re.sub(r"@font-face \{.*?\}", "", drawn, flags=re.DOTALL)
    return "".join(f"{line.rstrip()}\n" for line in drawn.splitlines())
