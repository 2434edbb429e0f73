"""A Kubernetes cluster of one node on this machine: starts it, gives it images, ends it.

Called by `__main__.py`, and by the tests in tests/cluster. There is one cluster on a machine at a time. It
outlives the process that starts it, and keeps nothing when it ends.
"""

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from support.cluster import addons, archives, ground
from support.cluster.configuration import IMPORT
from support.cluster.programs import Programs, all_programs, check_machine, check_rights
from support.controlplane import building
from support.controlplane.cache import cache
from support.kube_tools import program
from support.postgres import CHECKOUT

FOLDER = cache().parent / "cluster"
KUBECONFIG = FOLDER / "kubeconfig"
"""For kubectl, helm and the operator, as an administrator."""

_START_TIMEOUT_S = 600
_LOAD_TIMEOUT_S = 600
_ADD_TIMEOUT_S = _KUBECTL_TIMEOUT_S = 300
_LINES_SHOWN = 30


class ClusterError(Exception):
    """What was asked for cannot be done, and why."""


def up(images: Sequence[Path], wanted: Sequence[str] = ()) -> None:
    """Start a cluster, and give it images and add-ons: `wanted` has names of `addons.ADDONS`.

    Raises:
        UnsuitedError: this machine cannot be a node.
        ClusterError: there is a cluster already, or it does not start.
    """
    check_machine()
    if ground.processes():
        raise ClusterError("There is a cluster already: make cluster-down ends it.")
    down()  # what is left of one that was not ended
    found, folders = prepare(wanted)
    client = program("kubectl")
    started_at = time.monotonic()
    try:
        _start(found)
        load(images)
        for name, folder in folders.items():
            _add(name, folder)
    except BaseException:
        ground.clear()  # its logs stay
        raise
    _say(f"The cluster is up after {time.monotonic() - started_at:.0f} s.")
    _say(f"Next: export KUBECONFIG={KUBECONFIG}; {client} get nodes")


def prepare(wanted: Sequence[str] = ()) -> tuple[Programs, dict[str, Path]]:
    """Return the programs of a cluster and the folders of add-ons; make what is not there, in minutes.

    Raises:
        UnsuitedError: this machine cannot be a node.
    """
    check_machine()
    with building.scratch() as shared:
        return all_programs(shared), {name: addons.made(name, shared) for name in wanted}


def load(images: Sequence[Path]) -> None:
    """Give the node images, from archives as `docker save` and `make images` write them.

    Raises:
        ClusterError: there is no cluster, or an archive is not one.
    """
    if not images:
        return
    process = ground.node_process()
    if process is None:
        raise ClusterError("There is no cluster: make cluster-up starts one.")
    for archive in images:
        with archive.open("rb") as content:
            done = subprocess.run(
                ["nsenter", f"--mount=/proc/{process}/ns/mnt", *IMPORT, "-"],
                stdin=content,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                timeout=_LOAD_TIMEOUT_S,
                check=False,
            )
        if done.returncode:
            raise ClusterError(f"{archive} cannot be loaded: {done.stdout}")
        for name in archives.names(archive):
            _say(f"The node has {name}")


def kubectl(*words: str, given: str = "", folder: Path | None = None) -> str:
    """Run kubectl as an administrator, with some input, in a folder; return what it prints.

    Raises:
        ClusterError: it ends with an error.
    """
    ended = subprocess.run(
        [program("kubectl"), *words],
        cwd=folder,
        env=os.environ | {"KUBECONFIG": str(KUBECONFIG), "KUBECACHEDIR": str(FOLDER / "kubectl")},
        input=given,
        capture_output=True,
        text=True,
        timeout=_KUBECTL_TIMEOUT_S,
        check=False,
    )
    if ended.returncode:
        raise ClusterError(f"kubectl {' '.join(words)}: {ended.stderr}")
    return ended.stdout


def down() -> None:
    """End the cluster, if there is one, and remove all that it has left.

    Raises:
        UnsuitedError: it cannot be done by this user.
    """
    check_rights()
    ground.clear()
    if FOLDER.exists():
        shutil.rmtree(FOLDER)


def _start(programs: Programs) -> None:
    FOLDER.mkdir(0o700, parents=True)
    log = FOLDER / "node.log"
    with log.open("wb") as file:
        ended = subprocess.run(
            [sys.executable, "-m", "support.cluster.node", FOLDER, *programs],
            cwd=CHECKOUT / "tests",
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=file,
            start_new_session=True,
            timeout=_START_TIMEOUT_S,
            check=False,
        )
    if ended.returncode:
        lines = log.read_text(errors="replace").splitlines()[-_LINES_SHOWN:]
        raise ClusterError("\n".join([f"The cluster does not start; {log} ends with:", *lines]))


def _add(name: str, folder: Path) -> None:
    """Give a cluster an add-on, and wait until it works.

    Raises:
        ClusterError: it takes too long.
    """
    load(sorted(folder.glob("*.tar")))
    deadline = time.monotonic() + _ADD_TIMEOUT_S
    for step in addons.ADDONS[name].steps:
        words = [word.format(made=folder) for word in step]
        while True:
            try:
                kubectl(*words, folder=addons.MANIFESTS / name)
                break
            except ClusterError:
                if time.monotonic() > deadline:
                    raise
            time.sleep(0.5)
    _say(f"The cluster has {addons.ADDONS[name].brings}")


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
