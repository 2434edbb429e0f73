"""Reads a page of the documentation as a newcomer does: runs its commands, compares what they show.

Used by the tests of the README, of the tutorial and of the how-tos. The `sh` blocks of a page run in
order, in one bash. A block of another language right behind one is its output: of `json` only what is
shown is compared; anything else is compared line by line, where `…` stands for whatever is there. Ids,
times, hashes and keys that an output shows stand for the real ones, in later commands too.

What the page cannot say is in a comment before a block, `<!-- test: … -->`:

    given                        the test has done this already
    exits N                      the block ends with this exit code instead of 0
    eventually                   asked again until it shows what is expected
    in a terminal of its own     goes on in the background, until the end of the page
    save as NAME                 a file that the reader is told to write
    not run, because …           and why
"""

import json
import re
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from shlex import quote
from typing import IO, Any

import msgspec

from support.installation import kill, tree

PATIENCE_S = 60
END = "the-block-has-ended"
_PAUSE_S = 0.2

_BLOCK = re.compile(
    r"(?:<!-- test: (?P<told>[^>]+) -->\n\n?)?^```(?P<language>\w+)\n(?P<text>.*?)^```$",
    re.MULTILINE | re.DOTALL,
)
_NAME = re.compile(
    r"(?<=_)[0-9a-f]{64}\b|(?<=_)[0-9a-f]{32}\b|\b[0-9a-f]{64}\b"
    r"|\b\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z"
)
_PIECE = re.compile(f"{_NAME.pattern}|…")


def running(script: Path) -> str:
    """Return what bash is told on its stdin: run commands, say `END` and the last exit code not 0."""
    # From a file, with a stdin of its own: what runs must not read the commands behind it.
    return (
        f"trap '_failed=$?' ERR; _failed=0; source {quote(str(script))} </dev/null; trap - ERR\n"
        f'printf "%s %s\\n" {END} "$_failed"\n'
    )


class Block(msgspec.Struct, frozen=True):
    """A fenced block: its language, its text, what a comment says of it, and its line of the page."""

    language: str
    text: str
    told: str
    line: int


class Step(msgspec.Struct, frozen=True):
    """Something that the reader does, and what is to be seen then, if the page shows it."""

    block: Block
    output: Block | None = None


def steps(page: str) -> Iterator[Step]:
    """Take a page apart: commands and files, each with the output right behind it."""
    blocks = [
        (
            Block(
                match["language"],
                match["text"],
                match["told"] or "",
                page.count("\n", 0, match.start("language")) + 1,
            ),
            match,
        )
        for match in _BLOCK.finditer(page)
    ]
    for place, (block, match) in enumerate(blocks):
        if block.language != "sh" and not block.told.startswith("save as "):
            continue
        output = None
        if place + 1 < len(blocks):
            following, next_match = blocks[place + 1]
            between = page[match.end() : next_match.start()]
            if following.language != "sh" and not following.told and not between.strip():
                output = following
        yield Step(block, output)


def to_be_done(step: Step) -> bool:
    """Tell whether a step is for the test to do."""
    told = step.block.told
    return told != "given" and not told.startswith("not run, because ")


class Names:
    """What the ids, times, hashes and keys of a page stand for."""

    def __init__(self, replaced: Mapping[str, str]) -> None:
        self._replaced = replaced
        self._real: dict[str, str] = {}

    def copy(self) -> "Names":
        """Return the same names, to learn more on trial."""
        copied = Names(self._replaced)
        copied._real = dict(self._real)
        return copied

    def real(self, text: str) -> str:
        """Return a text of the page with what it stands for."""
        for shown, real in self._replaced.items():
            text = text.replace(shown, real)
        return _NAME.sub(lambda match: self._real.get(match[0], match[0]), text)

    def fits(self, shown: str, real: str) -> bool:
        """Tell whether a real text is what the page shows; learn the names that it is first to show."""
        pattern, new, end = "", list[str](), 0
        for piece in _PIECE.finditer(shown):
            pattern += re.escape(self.real(shown[end : piece.start()]))
            end = piece.end()
            if piece[0] == "…":
                pattern += ".*"
            elif piece[0] in self._real:
                pattern += re.escape(self._real[piece[0]])
            else:
                new.append(piece[0])
                pattern += f"({_NAME.pattern})"
        pattern += re.escape(self.real(shown[end:]))
        match = re.fullmatch(pattern, real)
        if match is None:
            return False
        self._real.update(zip(new, match.groups(), strict=True))
        return True


def differences(shown: Any, real: Any, names: Names, place: str = "") -> Iterator[str]:
    """Yield where a JSON document lacks what the page shows of it: a sentence each."""
    if isinstance(shown, dict) and isinstance(real, dict):
        for key, value in shown.items():
            if key not in real:
                yield f"{place}/{key} is not there"
            else:
                yield from differences(value, real[key], names, f"{place}/{key}")
    elif isinstance(shown, list) and isinstance(real, list):
        abridged = bool(shown) and shown[-1] == "…"
        wanted = shown[:-1] if abridged else shown
        if len(real) < len(wanted) or (len(real) > len(wanted) and not abridged):
            yield f"{place} has {len(real)} items"
        for at, (one, other) in enumerate(zip(wanted, real, strict=False)):
            yield from differences(one, other, names, f"{place}/{at}")
    elif isinstance(shown, str) and isinstance(real, str):
        if not names.fits(shown, real):
            yield f"{place} is {real!r}"
    elif shown != real or isinstance(shown, bool) != isinstance(real, bool):
        yield f"{place} is {real!r}"


def compare(output: Block, real: str, names: Names) -> list[str]:
    """Return what is otherwise than the page shows it."""
    if output.language == "json":
        try:
            document = json.loads(real)
        except ValueError:
            return ["that is no JSON document"]
        return list(differences(json.loads(output.text), document, names))
    wanted = [line.rstrip() for line in output.text.splitlines()]
    lines = [line.rstrip() for line in real.splitlines()]
    while lines and not lines[-1]:
        lines.pop()
    return list(_lines_differ(wanted, lines, names))


def _lines_differ(wanted: list[str], lines: list[str], names: Names) -> Iterator[str]:
    place, skipping = 0, False
    for line in wanted:
        if line == "…":
            skipping = True
            continue
        while skipping and place < len(lines) and not names.fits(line, lines[place]):
            place += 1
        if place == len(lines) or not names.fits(line, lines[place]):
            yield f"there is no line {names.real(line)!r}"
            return
        place, skipping = place + 1, False
    if place < len(lines) and not skipping:
        yield f"there is one more line: {lines[place]!r}"


class Reader:
    """Somebody who follows a page, in a directory and an environment of their own."""

    def __init__(
        self, directory: Path, environment: dict[str, str], replaced: Mapping[str, str]
    ) -> None:
        self._directory = directory
        self._environment = environment
        self._names = Names(replaced)
        self._terminals: list[subprocess.Popen[bytes]] = []
        self._bash = subprocess.Popen(
            ["bash", "--noprofile", "--norc"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            cwd=directory,
            env=environment,
            start_new_session=True,
        )

    def follow(self, page: Path) -> None:
        """Do all that a page says."""
        for step in steps(page.read_text(encoding="utf-8")):
            self.do(step, page.name)

    def do(self, step: Step, page: str) -> None:
        """Do one step and see whether it shows what it should."""
        block = step.block
        if not to_be_done(step):
            return
        if block.told.startswith("save as "):
            saved = self._directory / block.told.removeprefix("save as ")
            saved.write_text(self._names.real(block.text), encoding="utf-8")
            return
        if block.told == "in a terminal of its own":
            self._open_terminal(block)
            return
        exits = int(block.told.removeprefix("exits ")) if block.told.startswith("exits ") else 0
        latest_s = time.monotonic() + (PATIENCE_S if block.told == "eventually" else 0)
        while True:
            shown, exit_code = self.run(block.text)
            names = self._names.copy()
            problems = compare(step.output, shown, names) if step.output else []
            if exit_code != exits:
                problems.append(f"the exit code is {exit_code}")
            if not problems:
                self._names = names
                return
            if time.monotonic() > latest_s:
                told = "; ".join(problems)
                raise AssertionError(f"{page}, line {block.line}: {told}. It shows:\n{shown}")
            time.sleep(_PAUSE_S)

    def run(self, text: str) -> tuple[str, int]:
        """Run commands in the reader's shell; return what they show and the last exit code not 0."""
        script = self._directory / ".commands"
        script.write_text(self._names.real(text), encoding="utf-8")
        assert self._bash.stdin is not None
        assert self._bash.stdout is not None
        self._bash.stdin.write(running(script))
        self._bash.stdin.flush()
        return _read(self._bash.stdout)

    def close(self) -> None:
        """End the shell and all that runs in the terminals."""
        processes: list[subprocess.Popen[Any]] = [self._bash, *self._terminals]
        for process in processes:
            kill(tree(process.pid))
            process.wait()
        for pipe in (self._bash.stdin, self._bash.stdout):
            assert pipe is not None
            pipe.close()

    def _open_terminal(self, block: Block) -> None:
        log = self._directory / f"terminal-{len(self._terminals) + 1}.log"
        with log.open("wb") as output:
            self._terminals.append(
                subprocess.Popen(
                    ["bash", "--noprofile", "--norc", "-c", self._names.real(block.text)],
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    cwd=self._directory,
                    env=self._environment,
                    start_new_session=True,
                )
            )


def _read(pipe: IO[str]) -> tuple[str, int]:
    """Read what a block shows, up to the mark behind it and the exit code there."""
    shown = ""
    for line in pipe:
        before, mark, exit_code = line.partition(f"{END} ")
        shown += before
        if mark:
            return shown, int(exit_code)
    raise AssertionError(f"the shell has ended: {shown}")


@contextmanager
def reader(
    directory: Path, environment: dict[str, str], replaced: Mapping[str, str] | None = None
) -> Iterator[Reader]:
    """Let somebody read in a directory; `replaced` are words of the pages and what they stand for."""
    someone = Reader(directory, environment, replaced or {})
    try:
        yield someone
    finally:
        someone.close()
