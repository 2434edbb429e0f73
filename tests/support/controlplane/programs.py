"""Where the programs of Kubernetes' control plane are: found, fetched or built, once for a user.

Called by the fixtures in `plugin.py`, which also run it as a program, and by hand: it prints the folder.
"""

import os
import sys
import time
from functools import partial
from pathlib import Path

from support.controlplane import building, downloads
from support.controlplane.cache import cache, kept

NAMES = ("etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler")


def programs(shared: Path | None = None) -> Path:
    """Return the folder of the programs. `shared` is for `building.build`.

    They are looked for in `KUBEBUILDER_ASSETS`, then in the user's cache; then they are fetched where the
    network leads to their releases, else built, which takes some ten minutes.
    """
    return _assets() or kept(key(), partial(_make, shared=shared))


def are_there() -> bool:
    """Tell whether they need not be fetched or built."""
    return _assets() is not None or (cache() / key()).is_dir()


def _assets() -> Path | None:
    chosen = os.environ.get("KUBEBUILDER_ASSETS")
    if not chosen:
        return None
    missing = [name for name in NAMES if not (Path(chosen) / name).exists()]
    if missing:
        _say(f"KUBEBUILDER_ASSETS is left alone: {', '.join(missing)} not there")
        return None
    return Path(chosen)


def key() -> str:
    """Return the name of their folder in the cache."""
    return building.key("control-plane", building.SOURCES)


def _make(folder: Path, shared: Path | None) -> None:
    started_at = time.monotonic()
    kubernetes = building.module_version("k8s.io/kubernetes")
    etcd = building.module_version("go.etcd.io/etcd/server/v3")
    what = f"Kubernetes {kubernetes} and etcd {etcd} for the tests of the operator"
    try:
        _say(f"Fetching {what}, once, into {folder.parent}")
        downloads.fetch(folder, kubernetes, etcd)
    except downloads.UnavailableError as error:
        _say(f"Their releases cannot be fetched ({error}).")
        _say(
            f"Building {what} from Go modules, once: some ten minutes on two cores, 700 MB to fetch,"
            f" 5 GB of disk meanwhile and 130 MB afterwards, in {folder.parent}"
        )
        building.build(folder, building.SOURCES, {".": NAMES}, shared=shared)
    _say(f"{what} are ready after {time.monotonic() - started_at:.0f} s")


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    try:
        print(programs())
    except KeyboardInterrupt:
        sys.exit("Making them was interrupted; the next time goes on from there.")
