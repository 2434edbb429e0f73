"""Definitions of the kinds that other projects bring, exactly as those projects publish them.

Used by the fixture `foreign_kinds`. Those that are in Go modules are fetched once, into the user's cache, and
held to the modules' checksums. CloudNativePG is in no registry of packages: its file is a copy of all of
release 1.30.0's `config/crd/bases/postgresql.cnpg.io_clusters.yaml`, under the Apache License 2.0.
"""

import hashlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from support.controlplane.building import go
from support.controlplane.cache import kept

_COPIES = Path(__file__).parent / "definitions"
_DOWNLOAD_TIMEOUT_S = 300


class _Module(NamedTuple):
    """A Go module; `checksum` is the one that its line in a go.sum would have."""

    path: str
    version: str
    checksum: str
    files: tuple[str, ...]


_MODULES = (
    _Module(
        "sigs.k8s.io/gateway-api",
        "v1.6.3",
        "h1:lKpJa5bGlraC/QeACvCpsHLdmO6y0iKfzVl6gzaFEYc=",
        ("config/crd/standard/gateway.networking.k8s.io_httproutes.yaml",),
    ),
    _Module(
        "github.com/prometheus-operator/prometheus-operator",
        "v0.85.0",
        "h1:M5xLCLEoaW2IJfnuCwFzzpL+jSVQu3KGT84Pye+fW8s=",
        (
            "example/prometheus-operator-crd/monitoring.coreos.com_servicemonitors.yaml",
            "example/prometheus-operator-crd/monitoring.coreos.com_prometheusrules.yaml",
        ),
    ),
)
_CHECKSUMS = {
    "postgresql.cnpg.io_clusters.yaml": (
        "ae47f4a00f6e998faef57e480f9a3960cd48ea16a79270861fc7442601507472"
    ),
}


class AlteredError(Exception):
    """A file is not what its project has published."""


def definitions() -> list[dict[str, Any]]:
    """Return the definition of every kind that the operator makes where there is one.

    Raises:
        AlteredError: a file is not what it was when its checksum was noted.
    """
    digest = hashlib.sha256(repr(_MODULES).encode()).hexdigest()[:12]
    fetched = kept(f"definitions-{digest}", _fetch)
    texts = [path.read_bytes() for path in sorted(fetched.glob("*.yaml"))]
    for name, checksum in _CHECKSUMS.items():
        texts.append((_COPIES / name).read_bytes())
        if hashlib.sha256(texts[-1]).hexdigest() != checksum:
            raise AlteredError(name)
    # They are long, and libyaml reads them twenty times as fast.
    return [yaml.load(text, yaml.CSafeLoader) for text in texts]


def _fetch(folder: Path) -> None:
    names = ", ".join(f"{module.path} {module.version}" for module in _MODULES)
    print(f"Fetching definitions once, 3 MB, from {names}", file=sys.stderr, flush=True)
    scratch = folder / "scratch"
    scratch.mkdir(exist_ok=True)
    program = go(scratch / "go")
    for module in _MODULES:
        source = _download(program, module, scratch)
        for file in module.files:
            shutil.copyfile(source / file, folder / Path(file).name)
    shutil.rmtree(scratch)


def _download(program: Path, module: _Module, scratch: Path) -> Path:
    """Return the folder of a module that Go has fetched."""
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
