"""Definitions of the kinds that other projects bring, exactly as those projects publish them.

Used by the fixture `foreign_kinds`. Those that are in Go modules are fetched once, into the user's cache, and
held to the modules' checksums. CloudNativePG is in no registry of packages: its file is a copy of all of
release 1.30.0's `config/crd/bases/postgresql.cnpg.io_clusters.yaml`, under the Apache License 2.0.
"""

import hashlib
from pathlib import Path
from typing import Any

import yaml

from support.controlplane.cache import kept
from support.controlplane.modules import AlteredError, Module, fetching

_COPIES = Path(__file__).parent / "definitions"

GATEWAY_API = Module(
    "sigs.k8s.io/gateway-api",
    "v1.6.3",
    "h1:lKpJa5bGlraC/QeACvCpsHLdmO6y0iKfzVl6gzaFEYc=",
    ("config/crd/standard/gateway.networking.k8s.io_httproutes.yaml",),
)
_MODULES = (
    GATEWAY_API,
    Module(
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


def definitions() -> list[dict[str, Any]]:
    """Return the definition of every kind that the operator makes where there is one.

    Raises:
        AlteredError: a file is not what it was when its checksum was noted.
    """
    digest = hashlib.sha256(repr(_MODULES).encode()).hexdigest()[:12]
    fetched = kept(f"definitions-{digest}", fetching(_MODULES))
    texts = [path.read_bytes() for path in sorted(fetched.glob("*.yaml"))]
    for name, checksum in _CHECKSUMS.items():
        texts.append((_COPIES / name).read_bytes())
        if hashlib.sha256(texts[-1]).hexdigest() != checksum:
            raise AlteredError(name)
    # They are long, and libyaml reads them twenty times as fast.
    return [yaml.load(text, yaml.CSafeLoader) for text in texts]
