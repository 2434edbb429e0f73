"""The cluster ends and leaves nothing behind, whatever became of it."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.cluster import ground
from support.cluster.cluster import FOLDER, KUBECONFIG, ClusterError, down, load, up
from support.postgres import CHECKOUT

pytestmark = [pytest.mark.timeout(1_800), pytest.mark.usefixtures("alone")]

PATIENCE_S = 120
KERNEL = ("vm/overcommit_memory", "vm/panic_on_oom", "kernel/panic", "kernel/panic_on_oops")


@pytest.fixture(autouse=True)
def _nothing_there() -> Iterator[None]:
    down()
    yield
    down()


def remains() -> list[str]:
    """Return what there still is of a cluster."""
    mounts = Path("/proc/self/mounts").read_text().splitlines()
    routes = subprocess.check_output(["ip", "route"], text=True).splitlines()
    rules = subprocess.check_output(["iptables-save"], text=True).splitlines()
    return [
        *(str(place) for place in Path("/sys/fs/cgroup").glob(f"**/{ground.CGROUP}")),
        *(str(place) for place in Path("/sys/class/net").glob(ground.LINK)),
        *(line for line in mounts if str(FOLDER) in line),
        *(line for line in routes if ground.LINK in line),
        *(line for line in rules if "KUBE-" in line),
        *_processes_with(str(FOLDER)),
        *([str(FOLDER)] if FOLDER.exists() else []),
    ]


def test_nothing_is_left_when_it_has_ended() -> None:
    before = kernel_values()
    up([])
    there = remains()
    assert any("kubelet" in line for line in there)
    assert any(ground.LINK in line for line in there)
    assert kernel_values() == before
    down()
    assert remains() == []


def test_nothing_is_left_of_one_whose_start_was_killed() -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "support.cluster", "up"],
        cwd=CHECKOUT / "tests",
        stderr=subprocess.PIPE,
    )
    deadline = time.monotonic() + PATIENCE_S
    while not (FOLDER / "kubelet.yaml").exists():  # programs run already, and mounts are made
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.kill()
    process.communicate()
    assert ground.processes()
    down()
    assert remains() == []


def test_the_node_ends_with_any_of_its_programs() -> None:
    up([])
    (kubelet,) = (pid for pid in ground.processes() if "kubelet" in _command(pid).partition(" ")[0])
    os.kill(kubelet, signal.SIGKILL)
    deadline = time.monotonic() + PATIENCE_S
    while ground.processes():
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert "kubelet has ended" in (FOLDER / "node.log").read_text()
    down()
    assert remains() == []


def test_a_second_one_is_refused_and_the_first_stays() -> None:
    up([])
    with pytest.raises(ClusterError, match="make cluster-down"):
        up([])
    assert KUBECONFIG.exists()
    assert ground.processes()


def test_images_need_a_node(tmp_path: Path) -> None:
    with pytest.raises(ClusterError, match="make cluster-up"):
        load([tmp_path / "image.tar"])


def kernel_values() -> list[str]:
    """Return what a kubelet would like to change for the whole machine."""
    return [Path("/proc/sys", name).read_text() for name in KERNEL]


def _processes_with(word: str) -> list[str]:
    numbers = [int(place.name) for place in Path("/proc").iterdir() if place.name.isdigit()]
    return [line for line in map(_command, numbers) if word in line]


def _command(process: int) -> str:
    try:
        return Path(f"/proc/{process}/cmdline").read_text().replace("\0", " ")
    except (FileNotFoundError, ProcessLookupError):
        return ""
