"""Builds the control plane's programs from Kubernetes' and etcd's Go modules, as `go/go.sum` pins them.

Used by `programs.py`. All four are one program, which acts as the one by whose name it is called.
"""

import os
import re
import shutil
import subprocess
from pathlib import Path

from support.controlplane.wheels import installed

SOURCES = Path(__file__).parent / "go"

_PROGRAM = "controlplane"
_BUILD_TIMEOUT_S = 3_600
_LINES_SHOWN = 20
_VERSION_PACKAGES = ("k8s.io/component-base/version", "k8s.io/client-go/pkg/version")


class BuildError(Exception):
    """Go cannot build the programs; the last lines of what it said are the reason."""


def build(folder: Path, names: tuple[str, ...]) -> None:
    """Build the programs into a folder. What an interrupted build left there is used.

    Modules and objects, some 4 GB, are kept apart from the user's own, and deleted when it is done.

    Raises:
        BuildError: Go says no.
    """
    scratch = folder / "scratch"
    go = compiler(scratch / "go")
    temporary = scratch / "temporary"
    shutil.rmtree(temporary, ignore_errors=True)  # what an interrupted build left is of no use here
    temporary.mkdir(parents=True)
    environment = os.environ | {
        "CGO_ENABLED": "0",
        "GOFLAGS": "-buildvcs=false -trimpath -modcacherw",
        "GOMODCACHE": str(scratch / "modules"),
        "GOCACHE": str(scratch / "objects"),
        "GOTMPDIR": str(temporary),
        "GOTOOLCHAIN": "local",
    }
    # No debug information is kept, so none is made. What else runs on the machine goes first.
    options = ["-gcflags=all=-dwarf=false", f"-ldflags={_link_flags()}"]
    log = folder / "build.log"
    with log.open("wb") as file:
        ended = subprocess.run(
            ["nice", "-n", "10", str(go), "build", *options, "-o", str(folder / _PROGRAM), "."],
            cwd=SOURCES,
            env=environment,
            stdout=file,
            stderr=file,
            timeout=_BUILD_TIMEOUT_S,
            check=False,
        )
    if ended.returncode:
        last = log.read_text(encoding="utf-8", errors="replace").splitlines()[-_LINES_SHOWN:]
        raise BuildError("\n".join(["the control plane cannot be built:", *last]))
    for name in names:
        (folder / name).unlink(missing_ok=True)
        (folder / name).symlink_to(_PROGRAM)
    shutil.rmtree(scratch)


def module_version(module: str) -> str:
    """Return the version of a module in `go/go.mod`, such as "v1.37.2"."""
    found = re.search(rf"^\t{re.escape(module)} (v\S+)", _module_file(), re.MULTILINE)
    assert found, module
    return found[1]


def _link_flags() -> str:
    """Return flags that tell the programs their version: a build from modules would not know it."""
    version = module_version("k8s.io/kubernetes")
    major, minor, _ = version.removeprefix("v").split(".")
    told = {
        "gitVersion": version,
        "gitMajor": major,
        "gitMinor": minor,
        "gitTreeState": "clean",
        "gitCommit": "module",
    }
    values = [f"-X {package}.{key}={told[key]}" for package in _VERSION_PACKAGES for key in told]
    return " ".join(["-s -w", *values])


def compiler(folder: Path) -> Path:
    """Return Go: the machine's own if it is new enough, else one that a wheel brings."""
    wanted = re.search(r"^go (\d+)\.(\d+)", _module_file(), re.MULTILINE)
    assert wanted
    if own := shutil.which("go"):
        # Elsewhere than in a module, where Go would answer for the version that this one asks for.
        told = subprocess.run([own, "version"], cwd="/", capture_output=True, text=True, check=True)
        found = re.search(r"\bgo(\d+)\.(\d+)", told.stdout)
        if found and (int(found[1]), int(found[2])) >= (int(wanted[1]), int(wanted[2])):
            return Path(own)
    root = installed("go", folder) / "go"
    for program in [*(root / "bin").iterdir(), *(root / "pkg" / "tool").rglob("*")]:
        if program.is_file():
            program.chmod(0o755)  # pip does not keep who may run a file
    return root / "bin" / "go"


def _module_file() -> str:
    return (SOURCES / "go.mod").read_text(encoding="utf-8")
