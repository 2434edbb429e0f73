"""The schema of skaffold.yaml, as skaffold's Go module carries it: fetched once, into the user's cache.

Used by tests/charts/test_skaffold.py. What comes is held to the sum below.
"""

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

from support.controlplane.building import compiler
from support.controlplane.cache import kept

_MODULE = "github.com/GoogleContainerTools/skaffold/v2"
_VERSION = "v2.16.1"
_SUM = "h1:eMrp2qpn/5j2c1P/JqLo+mxcpEIdtokb/tCY2W/05ic="
_SCHEMAS = Path("docs-v2", "content", "en", "schemas")
_DOWNLOAD_TIMEOUT_S = 600


def schema(version: str) -> dict[str, Any]:
    """Return the schema of a version such as "v4beta13"."""
    path = kept(f"skaffold-schemas-{_VERSION}", _fetch) / f"{version}.json"
    document: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return document


def _fetch(folder: Path) -> None:
    scratch = folder / "scratch"
    go = compiler(scratch / "go")
    told = subprocess.run(
        [go, "mod", "download", "-json", f"{_MODULE}@{_VERSION}"],
        cwd="/",  # not in a module
        env=os.environ
        | {
            "GOFLAGS": "-modcacherw",
            "GOMODCACHE": str(scratch / "modules"),
            "GOTOOLCHAIN": "local",
        },
        stdout=subprocess.PIPE,
        timeout=_DOWNLOAD_TIMEOUT_S,
        check=True,
    )
    module = json.loads(told.stdout)
    assert module["Sum"] == _SUM, module
    for path in (Path(module["Dir"]) / _SCHEMAS).glob("*.json"):
        shutil.copy(path, folder)
    shutil.rmtree(scratch)
