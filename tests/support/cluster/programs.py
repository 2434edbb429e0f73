"""The programs of a node: Kubernetes' own, built once for a user, and those that the machine must have.

Called by `cluster.py` before a cluster starts. containerd, runc and the network plugins are the machine's,
for every distribution has them; CoreDNS and pause would come in images only.
"""

import os
import shutil
import sys
import time
from functools import partial
from pathlib import Path
from typing import NamedTuple

from support.controlplane import building, programs
from support.controlplane.cache import kept

SOURCES = Path(__file__).parent / "go"
_NAMES = {
    ".": ("kubelet", "kube-proxy"),
    "./coredns": ("coredns",),
    "./pause": ("pause",),
}

_NEEDED = {
    # program: the package of Debian that has it
    "containerd": "containerd",
    "ctr": "containerd",
    "runc": "runc",
    "iptables": "iptables",
    "ip": "iproute2",
    "mount": "mount",
    "nsenter": "util-linux",
}
_PLUGINS = ("ptp", "host-local", "loopback", "portmap")
_PLUGIN_FOLDERS = (Path("/usr/lib/cni"), Path("/opt/cni/bin"), Path("/usr/libexec/cni"))


class UnsuitedError(Exception):
    """This machine cannot be a node, and why."""


class Programs(NamedTuple):
    """Folders of programs."""

    control_plane: Path
    node: Path
    plugins: Path


def check_rights() -> None:
    """See whether this user may have a node.

    Raises:
        UnsuitedError: no.
    """
    if sys.platform != "linux":
        raise UnsuitedError("A node needs Linux.")
    if os.geteuid() != 0:
        raise UnsuitedError("A node needs root: it has namespaces, mounts and cgroups of its own.")


def check_machine() -> None:
    """See whether this machine can be a node at all, before anything is built for it.

    Raises:
        UnsuitedError: it cannot.
    """
    check_rights()
    missing = {package for name, package in _NEEDED.items() if shutil.which(name) is None}
    if _plugins() is None:
        missing.add("containernetworking-plugins")
    if missing:
        raise UnsuitedError(
            "A node needs programs that are not there:"
            f" apt-get install --no-install-recommends {' '.join(sorted(missing))}"
        )


def all_programs(shared: Path) -> Programs:
    """Return the programs; what is not there yet is fetched or built, which takes minutes.

    Most packages of the control plane are packages of a node: `shared` is `building.scratch()`, and together
    they take hardly longer than alone.
    """
    plugins = _plugins()
    assert plugins is not None
    control_plane = programs.programs(shared)
    node = kept(building.key("node", SOURCES), partial(_make, shared=shared))
    return Programs(control_plane, node, plugins)


def _plugins() -> Path | None:
    for folder in _PLUGIN_FOLDERS:
        if all((folder / name).exists() for name in _PLUGINS):
            return folder
    return None


def _make(folder: Path, shared: Path) -> None:
    started_at = time.monotonic()
    kubernetes = building.module_version("k8s.io/kubernetes", SOURCES)
    coredns = building.module_version("github.com/coredns/coredns", SOURCES)
    what = f"a node's programs of Kubernetes {kubernetes} and CoreDNS {coredns[1:]}"
    _say(
        f"Building {what} from Go modules, once: two minutes on two cores where the control"
        " plane's have just been built, else some twelve, with 600 MB to fetch; 4 GB of disk"
        f" meanwhile and 150 MB afterwards, in {folder.parent}"
    )
    building.build(folder, SOURCES, _NAMES, shared=shared)
    _say(f"They are ready after {time.monotonic() - started_at:.0f} s")


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
