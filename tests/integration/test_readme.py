"""The README, followed from a clean clone as by somebody who has just found PicoPay."""

import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
import psutil
import pytest

from support.guides import Step, reader, steps
from support.installation import STOP_TIMEOUT_S, Installation, Ready, kill, tree
from support.postgres import CHECKOUT

# Settings, and what `make test` and pytest around this test say to the programs that they start.
_OURS = re.compile(
    r"(PICOPAY|API|PYTEST|COV|MAKE|MFLAGS|VIRTUAL_ENV|PYTHON|DATABASE_URL|LOG_LEVEL)"
)


def environment() -> dict[str, str]:
    """Return the environment of a user's terminal: how packages are installed is kept."""
    return {name: value for name, value in os.environ.items() if not _OURS.match(name)}


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """Return a clean clone of what is committed here."""
    for program in ("git", "make", "curl"):
        if shutil.which(program) is None:
            pytest.fail(f"following the README takes {program}, which is not installed")
    # The checkout may belong to somebody else, as in a container.
    (tmp_path / "gitconfig").write_text("[safe]\n\tdirectory = *\n", encoding="ascii")
    clone = tmp_path / "picopay"
    subprocess.run(
        ["git", "clone", "--quiet", str(CHECKOUT), str(clone)],
        check=True,
        env=environment() | {"GIT_CONFIG_GLOBAL": str(tmp_path / "gitconfig")},
        timeout=60,
    )
    return clone


@contextmanager
def made_up(clone: Path) -> Iterator[Installation]:
    """Run `make up`, so that it is in nobody's way, until the end of the block."""
    with (clone.parent / "make.log").open("a+", encoding="utf-8") as log:
        process = subprocess.Popen(
            ["make", "up", "ARGS=--json --data .picopay --port 0"],
            cwd=clone,
            env=environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            start_new_session=True,
        )
        family: list[psutil.Process] = []
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            log.seek(0)
            assert line, log.read()[-4000:]
            installation = Installation(process, msgspec.convert(json.loads(line), Ready))
            family = installation.processes()
            yield installation
        finally:
            kill([*family, *tree(process.pid)])
            process.wait(STOP_TIMEOUT_S)
            assert process.stdout is not None
            process.stdout.close()


def follow(clone: Path, installation: Installation, shown: list[Step]) -> None:
    """Do steps in a fresh terminal, with the URL that this start has printed."""
    replaced = {"http://127.0.0.1:8000": installation.ready.url}
    with reader(clone, environment(), replaced) as someone:
        for step in shown:
            someone.do(step, "README.md")


@pytest.mark.timeout(600)  # it makes an environment from nothing, as the first `make up` does
def test_the_readme_from_a_clean_clone(clone: Path) -> None:
    up, test, variables, pay, statement, crash = steps((clone / "README.md").read_text("utf-8"))
    assert (up.block.text, test.block.text) == ("make up\n", "make test\n")
    with made_up(clone) as installation:
        ready = installation.ready
        follow(clone, installation, [variables, pay, pay, statement])
        pattern, again = re.fullmatch(r"pkill -9 -f '(.+)'\n(.+\n)", crash.block.text).groups()  # type: ignore[union-attr]  # a README without it shall fail here
        assert again == up.block.text
        assert pattern in " ".join(psutil.Process(ready.pid).cmdline())
        installation.kill_everything()
    with made_up(clone) as installation:
        assert installation.ready.api_key == ready.api_key
        follow(clone, installation, [variables, statement, pay, statement])
        assert installation.stop() == 0
    # All tests would run this one again.
    subprocess.run(
        ["make", "test", "ARGS=--quiet tests/unit/test_environment.py"],
        cwd=clone,
        env=environment(),
        check=True,
        timeout=300,
    )
