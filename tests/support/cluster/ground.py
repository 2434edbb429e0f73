"""What a cluster takes of the machine: a branch of the cgroups, by which it is found again, and one link.

Used by `cluster.py`, which starts and ends clusters, and by `node.py`, which runs in one. All else that a
node makes, mounts and rules of iptables among it, is in namespaces of its own and goes with its processes.
"""

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

NODE = "picopay-node"
NAME = CGROUP = "picopay-cluster"
LINK = "picopay0"
"""The machine's end of the link to the node."""
MACHINE_ADDRESS, NODE_ADDRESS = "10.222.0.1", "10.222.0.2"
POD_RANGE, SERVICE_RANGE = "10.244.0.0/16", "10.96.0.0/16"

_CGROUPS = Path("/sys/fs/cgroup")
_PROGRAMS = "programs"  # of the node itself; the kubelet makes others, for pods
_GONE_TIMEOUT_S = 30


def run(*command: str) -> None:
    """Run a program of the machine; what it says belongs to what we say."""
    subprocess.run(command, check=True, timeout=60)


def enter_cgroup() -> None:
    """Make the cluster's branch, and move this process into it, with all that it will start.

    The processes of the node are told by it, not limited: one hierarchy is enough, if there are several. The
    kubelet needs the branch in each.
    """
    for root in _roots():
        branch = root / CGROUP
        branch.mkdir(exist_ok=True)
        for name in ("cpuset.cpus", "cpuset.mems"):
            # In version 1 a new cgroup may use no processor until it is told which.
            if (root / name).exists():
                (branch / name).write_text((root / name).read_text())
    ours = _programs_folder()
    ours.mkdir(exist_ok=True)
    (ours / "cgroup.procs").write_text(str(os.getpid()))


def processes() -> list[int]:
    """Return the processes of the cluster, those in pods as well."""
    found = set[int]()
    for folder in _folders():
        with suppress(FileNotFoundError):
            found.update(map(int, (folder / "cgroup.procs").read_text().split()))
    return sorted(found)


def node_process() -> int | None:
    """Return a process in the node's namespaces, if there is a node."""
    with suppress(FileNotFoundError):
        if found := (_programs_folder() / "cgroup.procs").read_text().split():
            return int(found[0])
    return None


def connect(namespace: str) -> None:
    """Make the link between the machine and the node, in whose network this process already is.

    `namespace` is the path of the machine's own.
    """
    run("ip", "link", "add", "eth0", "type", "veth", "peer", "name", LINK, "netns", namespace)
    run("ip", "link", "set", "lo", "up")
    run("ip", "address", "add", f"{NODE_ADDRESS}/30", "dev", "eth0")
    run("ip", "link", "set", "eth0", "up")
    # A packet to a Service needs a route before kube-proxy gives it another address.
    run("ip", "route", "add", SERVICE_RANGE, "via", MACHINE_ADDRESS)
    machine = ("nsenter", f"--net={namespace}", "ip")
    run(*machine, "address", "add", f"{MACHINE_ADDRESS}/30", "dev", LINK)
    run(*machine, "link", "set", LINK, "up")
    for addresses in (POD_RANGE, SERVICE_RANGE):  # so that tests reach pods and Services
        run(*machine, "route", "add", addresses, "via", NODE_ADDRESS)
    Path("/proc/sys/net/ipv4/ip_forward").write_text("1")


def clear() -> None:
    """End every process of the cluster, and remove what it took. It does not matter what there is."""
    deadline = time.monotonic() + _GONE_TIMEOUT_S
    while found := processes():
        for process in found:
            with suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)
        _wait(deadline, f"processes {found} do not end")
    # The kernel removes a link with either end's network; but that may take it a moment.
    if Path("/sys/class/net", LINK).exists():
        subprocess.run(["ip", "link", "delete", LINK], check=False, capture_output=True, timeout=60)
    while found_folders := list(_folders()):
        for folder in found_folders:
            with suppress(OSError):  # a process that was killed may still be leaving
                folder.rmdir()
        _wait(deadline, f"cgroups {found_folders} are not free")


def _wait(deadline: float, trouble: str) -> None:
    if time.monotonic() > deadline:
        raise TimeoutError(trouble)
    time.sleep(0.05)


def _roots() -> list[Path]:
    """Return the root of the cgroups; in version 1 there are several."""
    if (_CGROUPS / "cgroup.controllers").exists():
        return [_CGROUPS]
    return sorted(root for root in _CGROUPS.iterdir() if (root / "cgroup.procs").exists())


def _programs_folder() -> Path:
    pids = _CGROUPS / "pids"
    return (pids if pids.exists() else _CGROUPS) / CGROUP / _PROGRAMS


def _folders() -> Iterator[Path]:
    """Yield the cluster's cgroups, the innermost first."""
    for root in _roots():
        for folder, _, _ in os.walk(root / CGROUP, topdown=False):
            yield Path(folder)
