"""Go modules as they are published: fetched by Go itself, and held to their checksums.

Used for what other projects bring and no Python package has: `foreign.py`, `support/skaffold.py`.
"""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from support.controlplane.building import go

_DOWNLOAD_TIMEOUT_S = 600


class AlteredError(Exception):
    """A file is not what its project has published."""


class Module(NamedTuple):
    """A Go module; `checksum` is the one that its line in a go.sum would have."""

    path: str
    version: str
    checksum: str
    files: tuple[str, ...]
    """Patterns of the files that are wanted."""


def fetching(modules: Sequence[Module]) -> Callable[[Path], None]:
    """Return what puts the files of modules into a folder, for `cache.kept`."""

    def fetch(folder: Path) -> None:
        names = ", ".join(f"{module.path} {module.version}" for module in modules)
        print(f"Fetching files once, from {names}", file=sys.stderr, flush=True)
        scratch = folder / "scratch"
        scratch.mkdir(exist_ok=True)
        program = go(scratch / "go")
        for module in modules:
            source = _download(program, module, scratch)
            for pattern in module.files:
                for file in source.glob(pattern):
                    shutil.copyfile(file, folder / file.name)
        shutil.rmtree(scratch)

    return fetch


def _download(program: Path, module: Module, scratch: Path) -> Path:
    """Return the folder of a module that Go has fetched.

    Raises:
        AlteredError: it is not what it was when its checksum was noted.
    """
    environment = os.environ | {
        "GOFLAGS": "-modcacherw",
        "GOMODCACHE": str(scratch / "modules"),
        "GOSUMDB": "off",  # the checksum is known
        "GOTOOLCHAIN": "local",
        "GOWORK": "off",
    }
    done = subprocess.run(
        [program, "mod", "download", "-json", f"{module.path}@{module.version}"],
        cwd=scratch,
        env=environment,
        capture_output=True,
        text=True,
        timeout=_DOWNLOAD_TIMEOUT_S,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"{module.path} cannot be fetched: {done.stderr or done.stdout}")
    told = json.loads(done.stdout)
    if told["Sum"] != module.checksum:
        raise AlteredError(f"{module.path} {module.version}")
    return Path(told["Dir"])
