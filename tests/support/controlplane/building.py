"""Builds the control plane's programs from Kubernetes' and etcd's Go modules, as `go/go.sum` pins them.

Used by `programs.py`, by `support.cluster` for those of a node and of its add-ons, and by `modules.py`, which
needs Go as well. What one package makes is one program, which acts as the one by whose name it is called.
"""

import hashlib
import os
import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from support.controlplane.cache import cache, locked
from support.controlplane.wheels import installed

SOURCES = Path(__file__).parent / "go"

_BUILD_TIMEOUT_S = 3_600
_LINES_SHOWN = 20
_KUBERNETES = "k8s.io/kubernetes"
_VERSION_PACKAGES = ("k8s.io/component-base/version", "k8s.io/client-go/pkg/version")


class BuildError(Exception):
    """Go cannot build the programs; the last lines of what it said are the reason."""


def build(
    folder: Path,
    sources: Path,
    names: Mapping[str, tuple[str, ...]],
    *,
    shared: Path | None = None,
) -> None:
    """Build programs into a folder. What an interrupted build left there is used.

    `names` has, for each package of the module in `sources`, what its program is called by. Modules and
    objects, some 4 GB, are kept apart from the user's own, and deleted when it is done; a folder that several
    builds share for them is left to the caller.

    Raises:
        BuildError: Go says no.
    """
    scratch = shared or folder / "scratch"
    toolchain = go(scratch / "go")
    temporary = folder / "temporary"
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
    for package, (first, *others) in names.items():
        _build(toolchain, environment, sources, package, folder / first)
        for name in others:
            (folder / name).unlink(missing_ok=True)
            (folder / name).symlink_to(first)
    shutil.rmtree(temporary)
    if shared is None:
        shutil.rmtree(scratch)


@contextmanager
def scratch() -> Iterator[Path]:
    """Have a folder that several builds share, so that what is common to them is built once.

    One process has it at a time. It is deleted at the end, but when something goes wrong it is left: the next
    one goes on from there.
    """
    place = cache() / "scratch"
    with locked(place.name):
        yield place
        shutil.rmtree(place, ignore_errors=True)


def key(name: str, sources: Path, *pins: str) -> str:
    """Return a name that changes with whatever the programs are made from: files, and other `pins`."""
    digest = hashlib.sha256(" ".join([sys.platform, platform.machine(), *pins]).encode())
    for path in sorted(sources.rglob("*")):
        if path.is_file():
            digest.update(path.read_bytes())
    return f"{name}-{digest.hexdigest()[:12]}"


def module_version(module: str, sources: Path = SOURCES) -> str:
    """Return the version of a module in the `go.mod` of a folder, such as "v1.37.2"."""
    found = re.search(rf"^\t{re.escape(module)} (v\S+)", _module_file(sources), re.MULTILINE)
    assert found, module
    return found[1]


def module_folder(module: str, sources: Path, shared: Path) -> Path:
    """Return the folder of a module, as a build with `shared` has fetched it."""
    return shared / "modules" / f"{module}@{module_version(module, sources)}"


def go(folder: Path) -> Path:
    """Return Go: the machine's own if it is new enough, else one that a wheel brings into a folder."""
    wanted = re.search(r"^go (\d+)\.(\d+)", _module_file(SOURCES), re.MULTILINE)
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


def _build(
    toolchain: Path, environment: dict[str, str], sources: Path, package: str, program: Path
) -> None:
    # No debug information is kept, so none is made. What else runs on the machine goes first.
    options = ["-gcflags=all=-dwarf=false", f"-ldflags={_link_flags(sources)}"]
    log = program.parent / "build.log"
    with log.open("wb") as file:
        ended = subprocess.run(
            [
                *("nice", "-n", "10"),
                *(str(toolchain), "build", *options, "-o", str(program), package),
            ],
            cwd=sources,
            env=environment,
            stdout=file,
            stderr=file,
            timeout=_BUILD_TIMEOUT_S,
            check=False,
        )
    if ended.returncode:
        last = log.read_text(encoding="utf-8", errors="replace").splitlines()[-_LINES_SHOWN:]
        raise BuildError("\n".join([f"{program.name} cannot be built:", *last]))


def _link_flags(sources: Path) -> str:
    """Return flags that tell Kubernetes' programs their version: a build from modules would not know it."""
    if _KUBERNETES not in _module_file(sources):
        return "-s -w"
    version = module_version(_KUBERNETES, sources)
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


def _module_file(sources: Path) -> str:
    return (sources / "go.mod").read_text(encoding="utf-8")
