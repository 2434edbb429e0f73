"""What was seen on a terminal while a page was followed: scenes, kept as an asciicast, which players show.

Made by `player.py`; read by `page.py`, which writes the page from it. Pure. Of version 2 of the format
(https://docs.asciinema.org/manual/asciicast/v2/) it has output and a marker before each scene, whose label is
the command.
"""

import itertools
import json
import re
from collections.abc import Iterator, Sequence

import msgspec

WIDTH, HEIGHT = 120, 40

_PAUSE_S = 1.5
"""What a film stands still between two scenes, and at most while nothing happens."""
_ESCAPE = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")


class Scene(msgspec.Struct, frozen=True):
    """A command, and what it showed: pieces, each with the seconds since the command was given."""

    command: str
    shown: tuple[tuple[float, str], ...]

    @property
    def screen(self) -> str:
        """What was shown, with its colours."""
        return "".join(piece for _, piece in self.shown).replace("\r\n", "\n")

    @property
    def text(self) -> str:
        """What was shown, as plain text."""
        lines = _ESCAPE.sub("", self.screen).splitlines()
        return "".join(f"{line.rstrip()}\n" for line in lines)


def to_cast(title: str, scenes: Sequence[Scene]) -> str:
    """Write scenes down, one after the other."""
    head = {
        "version": 2,
        "width": WIDTH,
        "height": HEIGHT,
        "title": title,
        "idle_time_limit": _PAUSE_S,
        "env": {"SHELL": "/bin/bash", "TERM": "xterm-256color"},
    }
    events: list[tuple[float, str, str]] = []
    now_s = 0.0
    for scene in scenes:
        events += [(now_s, "m", scene.command), (now_s, "o", _prompt(scene.command))]
        events += [(now_s + _PAUSE_S + after_s, "o", piece) for after_s, piece in scene.shown]
        now_s = events[-1][0] + _PAUSE_S
    lines = [head, *([round(at_s, 3), kind, data] for at_s, kind, data in events)]
    return "".join(f"{json.dumps(line, ensure_ascii=False)}\n" for line in lines)


def from_cast(cast: str) -> list[Scene]:
    """Read what `to_cast` has written."""
    events = [json.loads(line) for line in cast.splitlines()[1:]]
    return list(_scenes(events))


def _scenes(events: Sequence[tuple[float, str, str]]) -> Iterator[Scene]:
    begins = [place for place, (_, kind, _) in enumerate(events) if kind == "m"]
    for begin, end in itertools.pairwise([*begins, len(events)]):
        began_s, _, command = events[begin]
        # The prompt is what comes first; it is not what the command has shown.
        shown = events[begin + 2 : end]
        yield Scene(
            command,
            tuple((round(at_s - began_s - _PAUSE_S, 3), piece) for at_s, _, piece in shown),
        )


def _prompt(command: str) -> str:
    """Return a command as bash shows it that is typed in."""
    first, *others = command.splitlines()
    lines = [f"\x1b[1;32m$\x1b[0m {first}", *(f"> {line}" for line in others)]
    return "".join(f"{line}\r\n" for line in lines)
