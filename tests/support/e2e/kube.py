"""kubectl and helm for the end-to-end tests, as a user runs them: in one context, and in one namespace.

Used by all of `support.e2e`. Nothing here knows what PicoPay is.
"""

import json
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import yaml

from support.kube_tools import program

type Manifest = dict[str, Any]

PATIENCE_S = 180.0
"""What anything may take on a small node that does other things, too; no test waits as long for nothing."""

_COMMAND_TIMEOUT_S = 600
_LOOK_S = 0.25


class CommandError(Exception):
    """kubectl or helm has said no; the message is what it said."""


class Kube:
    """A namespace of a cluster, which need not be there yet."""

    def __init__(self, context: str, namespace: str) -> None:
        self.context = context
        self.namespace = namespace

    def of(self, namespace: str) -> "Kube":
        """Return another namespace of the cluster."""
        return Kube(self.context, namespace)

    def __call__(self, *words: str, given: str = "") -> str:
        """Run kubectl; return what it printed.

        Raises:
            CommandError: it has failed.
        """
        return _told(self.command(*words), given)

    def command(self, *words: str) -> Sequence[str | Path]:
        """Return how kubectl is run, for who talks to it while it runs."""
        place = ("--context", self.context, "--namespace", self.namespace)
        return [program("kubectl"), *place, *words]

    def helm(self, *words: str) -> str:
        """Run helm; return what it printed.

        Raises:
            CommandError: it has failed.
        """
        place = ("--kube-context", self.context, "--namespace", self.namespace)
        return _told([program("helm"), *words, *place], "")

    def apply(self, *manifests: Manifest) -> None:
        """Apply objects as a user does, from a file."""
        self("apply", "--filename=-", given=yaml.safe_dump_all(manifests))

    def make_namespace(self) -> None:
        """Make the namespace, which takes restricted pods only."""
        enforced = {"pod-security.kubernetes.io/enforce": "restricted"}
        metadata = {"name": self.namespace, "labels": enforced}
        self.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": metadata})

    def get(self, kind: str, name: str) -> Any:
        """Return an object."""
        return json.loads(self("get", kind, name, "--output=json"))

    def find(self, kind: str, name: str) -> Any:
        """Return an object, or None when it is not there."""
        told = self("get", kind, name, "--output=json", "--ignore-not-found")
        return json.loads(told) if told else None

    def list(self, kind: str, selector: str = "") -> list[Any]:
        """Return the objects of a kind, with all of the labels in a selector."""
        told = self("get", kind, f"--selector={selector}", "--output=json")
        found: list[Any] = json.loads(told)["items"]
        return found

    def exists(self, kind: str, name: str) -> bool:
        """Tell whether an object is there."""
        return self.find(kind, name) is not None


def until[T](look: Callable[[], T], what: str, within_s: float = PATIENCE_S) -> T:
    """Look again and again until there is something true; return it.

    Raises:
        TimeoutError: there is nothing in time; it says `what` was waited for, and what was seen last.
    """
    deadline = time.monotonic() + within_s
    while not (seen := look()):
        if time.monotonic() > deadline:
            raise TimeoutError(f"{what}: not within {within_s:.0f} s; {seen!r} was seen last")
        time.sleep(_LOOK_S)
    return seen


def _told(command: Sequence[str | Path], given: str) -> str:
    ended = subprocess.run(
        command,
        input=given,
        capture_output=True,
        text=True,
        timeout=_COMMAND_TIMEOUT_S,
        start_new_session=True,  # Ctrl-C is for who runs it: it may be what cleans up
        check=False,
    )
    if ended.returncode:
        raise CommandError(f"{' '.join(map(str, command[1:]))}: {ended.stderr or ended.stdout}")
    return ended.stdout
