"""Wheels that carry programs: installed into a folder, by the hashes in `locked/`.

Used by `building.py` and by `support.kube_tools`. They are no dependencies of the project: most machines have
what is in them, and nobody else should have to fetch them.
"""

import hashlib
import subprocess
from pathlib import Path

from support.installer import installer

_LOCKED = Path(__file__).parent / "locked"
_DOWNLOAD_TIMEOUT_S = 300


def installed(name: str, folder: Path) -> Path:
    """Install the wheel of `locked/<name>.txt` into a folder, and return the folder."""
    wanted = ["--no-deps", "--only-binary=:all:", "--require-hashes", "--target", str(folder)]
    subprocess.run(
        [*installer(), "install", "--quiet", *wanted, "-r", str(_lock(name))],
        check=True,
        timeout=_DOWNLOAD_TIMEOUT_S,
    )
    return folder


def digest(name: str) -> str:
    """Return what tells one release of a wheel from another: a name for a folder of the cache."""
    return hashlib.sha256(_lock(name).read_bytes()).hexdigest()[:12]


def _lock(name: str) -> Path:
    return _LOCKED / f"{name}.txt"
