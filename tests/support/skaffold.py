"""The schema of skaffold.yaml, as skaffold's Go module carries it: fetched once, into the user's cache.

Used by tests/charts/test_skaffold.py.
"""

import json
from typing import Any

from support.controlplane.cache import kept
from support.controlplane.modules import Module, fetching

_MODULE = Module(
    "github.com/GoogleContainerTools/skaffold/v2",
    "v2.16.1",
    "h1:eMrp2qpn/5j2c1P/JqLo+mxcpEIdtokb/tCY2W/05ic=",
    ("docs-v2/content/en/schemas/*.json",),
)


def schema(version: str) -> dict[str, Any]:
    """Return the schema of a version such as "v4beta13"."""
    folder = kept(f"skaffold-schemas-{_MODULE.version}", fetching([_MODULE]))
    document: dict[str, Any] = json.loads((folder / f"{version}.json").read_text(encoding="utf-8"))
    return document
