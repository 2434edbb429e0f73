"""A terminal in which somebody gives commands, and everything that is seen on it, with the time.

Used by `player.py`. The commands run in one bash, whose output is a pseudo terminal: programs show what they
show to people.
"""

import fcntl
import os
import pty
import re
import struct
import subprocess
import termios
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from support.guides import END, running
from support.installation import kill, tree
from support.tour.recording import HEIGHT, WIDTH

_ENDED = re.compile(rf"{END} (\d+)\r\n".encode())
_READ_BYTES = 65536


class Terminal:
    """A terminal of a fixed size, in a folder and an environment of its own."""

    def __init__(self, folder: Path, environment: Mapping[str, str]) -> None:
        self._script = folder / ".commands"
        self._screen, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", HEIGHT, WIDTH, 0, 0))
        self._bash = subprocess.Popen(
            ["bash", "--noprofile", "--norc"],
            stdin=subprocess.PIPE,
            stdout=theirs,
            stderr=theirs,
            cwd=folder,
            env={**environment, "TERM": "xterm-256color"},
            start_new_session=True,
        )
        os.close(theirs)

    def run(self, commands: str) -> tuple[list[tuple[float, str]], int]:
        """Run commands; return what they showed, each piece after how many seconds, and how they ended.

        That is the last exit code that was not 0, or 0. Pieces are whole lines.
        """
        self._script.write_text(commands, encoding="utf-8")
        assert self._bash.stdin is not None
        began_s = time.monotonic()
        self._bash.stdin.write(running(self._script).encode())
        self._bash.stdin.flush()
        pieces: list[tuple[float, str]] = []
        waiting = b""
        while True:
            waiting += os.read(self._screen, _READ_BYTES)
            ended = _ENDED.search(waiting)
            lines = waiting[: ended.start()] if ended else waiting[: waiting.rfind(b"\n") + 1]
            if lines:
                pieces.append((round(time.monotonic() - began_s, 3), lines.decode()))
                waiting = waiting[len(lines) :]
            if ended:
                return pieces, int(ended[1])

    def close(self) -> None:
        """End the shell, and all that it has started."""
        kill(tree(self._bash.pid))
        self._bash.wait()
        assert self._bash.stdin is not None
        self._bash.stdin.close()
        os.close(self._screen)


@contextmanager
def terminal(folder: Path, environment: Mapping[str, str]) -> Iterator[Terminal]:
    """Open a terminal until the end of the block."""
    opened = Terminal(folder, environment)
    try:
        yield opened
    finally:
        opened.close()
