"""The process that is a cluster: it takes namespaces of its own, and runs a control plane and a node in them.

Started by `cluster.py`: `python -m support.cluster.node FOLDER PROGRAMS…`. When pods can run, it has written
FOLDER/kubeconfig. When the first process of its namespaces is killed, or one of its programs ends, the kernel
ends everything in them.
"""

import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NoReturn

import httpx

from support.cluster import archives, configuration, ground
from support.cluster.ground import NODE
from support.cluster.programs import Programs
from support.cluster.volumes import Volumes
from support.controlplane.servers import ControlPlane, control_plane

_START_TIMEOUT_S = 120
_OWN_FOLDERS = ("run", "var/lib", "var/log")
"""Folders of the machine that are the node's own: containerd, the kubelet and plugins write there."""

_KERNEL = {
    # The kubelet wants these values, and would set them for the whole machine.
    "vm/overcommit_memory": 1,
    "vm/panic_on_oom": 0,
    "kernel/panic": 10,
    "kernel/panic_on_oops": 1,
    "kernel/keys/root_maxkeys": 1_000_000,
    "kernel/keys/root_maxbytes": 25_000_000,
}


class NodeError(Exception):
    """The node does not start, or does not stay."""


def main(folder: Path, programs: Programs) -> None:
    """Become the cluster. The process that calls this ends when pods can run; others go on."""
    ground.enter_cgroup()
    machine = os.open("/proc/self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    os.unshare(os.CLONE_NEWNS | os.CLONE_NEWNET | os.CLONE_NEWUTS | os.CLONE_NEWIPC)
    ground.run("mount", "--make-rslave", "/")  # nothing that is mounted here is seen outside
    ground.connect(f"/proc/{os.getpid()}/fd/{machine}")
    os.close(machine)
    _take_folders(folder)
    os.unshare(os.CLONE_NEWPID)
    if first := os.fork():
        _leave_when_ready(first, folder)
    # The first process of a namespace inherits the orphans of all others, and they end with it.
    ground.run("mount", "-t", "proc", "proc", "/proc")
    _pretend_kernel_values(folder)
    if worker := os.fork():
        _inherit(worker)
    _run(folder, programs)


def _leave_when_ready(first: int, folder: Path) -> NoReturn:
    while not (folder / "kubeconfig").exists():
        ended, status = os.waitpid(first, os.WNOHANG)
        if ended:
            os._exit(os.waitstatus_to_exitcode(status) or 1)
        time.sleep(0.05)
    os._exit(0)


def _inherit(worker: int) -> NoReturn:
    while True:
        ended, _ = os.wait()
        if ended == worker:
            os._exit(1)


def _take_folders(folder: Path) -> None:
    """Put folders of the node's in the place of the machine's, and its name."""
    for name in _OWN_FOLDERS:
        own = folder / name
        own.mkdir(parents=True)
        ground.run("mount", "--bind", str(own), f"/{name}")
    ground.run("mount", "--make-rshared", "/")  # pods may see what is mounted later
    Path("/proc/sys/kernel/hostname").write_text(NODE)


def _pretend_kernel_values(folder: Path) -> None:
    for name, value in _KERNEL.items():
        file = folder / name.replace("/", ".")
        file.write_text(f"{value}\n")
        ground.run("mount", "--bind", str(file), f"/proc/sys/{name}")


def _run(folder: Path, programs: Programs) -> None:
    surroundings = configuration.surroundings(folder)
    with control_plane(folder / "control-plane", programs.control_plane, surroundings) as plane:
        node = _Node(folder, programs, plane)
        with _client(plane) as client:
            node.start(client)
            volumes = Volumes(client, folder / "volumes")
            # Whoever waits for this file finds it whole.
            plane.admin_kubeconfig.rename(folder / "kubeconfig")
            while True:
                plane.check()
                with suppress(httpx.HTTPError):  # it was busy, or another was first: look again
                    volumes.look()
                time.sleep(0.3)


class _Node:
    """What runs on the node beside pods, in the order of its start."""

    def __init__(self, folder: Path, programs: Programs, plane: ControlPlane) -> None:
        self._folder = folder
        self._programs = programs
        self._plane = plane

    def start(self, client: httpx.Client) -> None:
        """Start everything, and wait until pods can run.

        Raises:
            NodeError: it takes too long.
        """
        folder, plane = self._folder, self._plane
        for name, content in configuration.files(folder, self._programs, plane).items():
            (folder / name).write_text(content, encoding="utf-8")
        options = configuration.command_lines(folder, self._programs)
        plane.run("containerd", options["containerd"])
        pause = folder / "pause.tar"
        archives.of_program(self._programs.node / "pause", configuration.PAUSE, 65_535, pause)
        self._until(lambda: _imported(pause), "containerd")
        for name in ("coredns", "kubelet", "kube-proxy"):
            plane.run(name, options[name])
        for path, manifest in configuration.objects():
            _created(client, path, manifest)
        self._until(lambda: _is_ready(client), "the kubelet")
        self._until(_answers_names, "CoreDNS")

    def _until(self, holds: Callable[[], bool], what: str) -> None:
        deadline = time.monotonic() + _START_TIMEOUT_S
        while not holds():
            self._plane.check()
            if time.monotonic() > deadline:
                raise NodeError(f"{what} is not ready in time: see its log in {self._folder}")
            time.sleep(0.1)


@contextmanager
def _client(plane: ControlPlane) -> Iterator[httpx.Client]:
    with httpx.Client(
        base_url=plane.url,
        verify=plane.context(),
        headers={"Authorization": f"Bearer {plane.admin_token}"},
        timeout=30,
    ) as client:
        yield client


def _imported(archive: Path) -> bool:
    """Give containerd an image, if it listens already."""
    return os.spawnlp(os.P_WAIT, "ctr", *configuration.IMPORT, str(archive)) == 0


def _created(client: httpx.Client, path: str, manifest: Mapping[str, Any]) -> None:
    client.post(path, json=manifest).raise_for_status()


def _is_ready(client: httpx.Client) -> bool:
    answer = client.get(f"/api/v1/nodes/{NODE}")
    if answer.status_code == httpx.codes.NOT_FOUND:
        return False
    conditions = answer.raise_for_status().json()["status"].get("conditions", [])
    return any(one["type"] == "Ready" and one["status"] == "True" for one in conditions)


def _answers_names() -> bool:
    try:
        return httpx.get(f"http://{ground.NODE_ADDRESS}:8181/ready").is_success
    except httpx.TransportError:
        return False


if __name__ == "__main__":
    main(Path(sys.argv[1]), Programs(*map(Path, sys.argv[2:])))
