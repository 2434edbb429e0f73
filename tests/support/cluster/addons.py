"""What a cluster can have beside Kubernetes itself, of what PicoPay works with: a table of add-ons.

Used by `cluster.py`. An add-on is a folder of the user's cache, made once: archives of images, manifests of
what runs from them, and commands of kubectl that put them into a cluster. Programs are what their projects
have released: built from Go modules or taken from a wheel, and held to their checksums.
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

_SOURCES = Path(__file__).parent / "addons"
_GATEWAY_KINDS = foreign.GATEWAY_API._replace(files=("config/crd/standard/*.yaml",))
_METRICS_SERVER = "sigs.k8s.io/metrics-server"
_CLOUDNATIVEPG = "github.com/cloudnative-pg/cloudnative-pg"
_USER = 65_532
"""Whom programs run as: nobody's number on most machines."""


class Addon(NamedTuple):
    """One add-on."""

    brings: str
    make: Callable[[Path, Path], None]
    """Fills its folder; the other one is for `building.build`."""
    steps: tuple[tuple[str, ...], ...]
    """Commands of kubectl, in its folder. Each may fail until the cluster is ready for it."""
    pins: str = ""
    """Which releases it is made of, if files in its folder of `addons/` do not say it."""


def made(name: str, shared: Path) -> Path:
    """Return the folder of an add-on; what is not there yet is fetched or built, which takes minutes."""
    addon = ADDONS[name]

    def make(folder: Path) -> None:
        started_at = time.monotonic()
        _say(f"Making {addon.brings} for clusters once, in {folder.parent}")
        shutil.copytree(_SOURCES / name, folder, dirs_exist_ok=True)
        addon.make(folder, shared)
        _say(f"Made after {time.monotonic() - started_at:.0f} s")

    return kept(building.key(name, _SOURCES / name, addon.pins), make)


def _metrics(folder: Path, shared: Path) -> None:
    package = f"{_METRICS_SERVER}/cmd/metrics-server"
    _built(folder, shared, package, "metrics-server", "localhost/metrics-server:1")


def _ingress(folder: Path, _shared: Path) -> None:
    definitions = folder / "definitions"
    definitions.mkdir(exist_ok=True)
    modules.fetching([_GATEWAY_KINDS])(definitions)
    wheel = wheels.installed("traefik", folder / "wheel")
    archive = folder / "traefik.tar"
    archives.of_program(wheel / "bin" / "traefik", "localhost/traefik:1", _USER, archive)
    shutil.rmtree(wheel)


def _cloudnativepg(folder: Path, shared: Path) -> None:
    """Make the operator's image under its real name, which its release asks for and gives to its pods."""
    version = building.module_version(_CLOUDNATIVEPG, folder).removeprefix("v")
    name = f"ghcr.io/cloudnative-pg/cloudnative-pg:{version}"
    # It looks there for itself, in order to give itself to the pods of databases.
    link = f"operator/manager_{archives.architecture()}"
    _built(folder, shared, f"{_CLOUDNATIVEPG}/cmd/manager", "manager", name, link)
    released = building.module_folder(_CLOUDNATIVEPG, folder, shared) / "releases"
    manifest = (released / f"cnpg-{version}.yaml").read_text(encoding="utf-8")
    manifest = manifest.replace("imagePullPolicy: Always", "imagePullPolicy: IfNotPresent")
    (folder / "operator.yaml").write_text(manifest, encoding="utf-8")


def _built(folder: Path, shared: Path, package: str, program: str, name: str, *links: str) -> None:
    """Build a program from the module whose go.mod is in the folder, and make its image."""
    building.build(folder, folder, {package: (program,)}, shared=shared)
    archives.of_program(folder / program, name, _USER, folder / f"{program}.tar", *links)
    (folder / program).unlink()


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
            (*_APPLY, "definitions"),
            (*_APPLY, "ingress.yaml"),
            ("wait", "--for=condition=Programmed", "--namespace=ingress", "gateway/traefik"),
        ),
        pins=f"{wheels.digest('traefik')} {_GATEWAY_KINDS.checksum}",
    ),
    "cloudnativepg": Addon(
        brings="CloudNativePG's operator",
        make=_cloudnativepg,
        # Its webhooks answer a while after it is ready: they are asked about something.
        steps=((*_APPLY, "operator.yaml"), ("create", "--dry-run=server", "-f", "probe.yaml")),
    ),
}
"""By the names that `make cluster-up` takes."""
