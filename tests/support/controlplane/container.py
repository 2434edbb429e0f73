"""A container as a process of this machine: its variables, its ports, and its files, below a folder.

Used by `kubelet.py`. There is no file system of its own: where the manifest or a variable names a path that
is mounted into the container, the process is told the one where that is. Ports are free ones, for the same
reason: variables that say which port to listen on say another one.
"""

import os
import socket
from base64 import b64decode
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

from support.controlplane.api_server import ApiServer, Manifest
from support.installation import environment
from support.postgres import CHECKOUT

_PORT_VARIABLES = ("API_PORT", "PICOPAY_WORKER_METRICS_PORT")
_MESSAGE_BYTES_MAX = 4_096
_LOG_BYTES_SHOWN = 2_048
"""What Kubernetes takes of a termination message, and of a log in its place."""


class Container:
    """The first container of a pod. Make one with `prepared`."""

    def __init__(self, pod: Manifest, folder: Path) -> None:
        self.spec: Manifest = pod["spec"]["containers"][0]
        self.folder = folder
        self.log = folder / "log"
        self.grace_s: int = pod["spec"]["terminationGracePeriodSeconds"]
        self.environment: dict[str, str] = {}
        self.ports = _free_ports([one["containerPort"] for one in self.spec.get("ports", ())])
        """By the port that the container has for itself, the one at which it is on this machine."""
        self._message = folder / "termination-log"
        self._paths = {self.spec["terminationMessagePath"]: self._message} | {
            mount["mountPath"]: folder / "volumes" / mount["name"]
            for mount in self.spec.get("volumeMounts", ())
        }

    @property
    def arguments(self) -> list[str]:
        """What its program is told."""
        return [self._here(argument) for argument in self.spec["args"]]

    def set_environment(self, pod: Manifest, variables: Mapping[str, str]) -> None:
        """Set the variables of the manifest, beside those that a container has anyway."""
        there = {"TMPDIR": "/tmp", **variables}
        there |= {
            name: str(self.ports[int(there[name])]) for name in _PORT_VARIABLES if name in there
        }
        self.environment = environment() | {
            "API_HOST": "127.0.0.1",  # of all, it listens on this one only
            "HOSTNAME": pod["metadata"]["name"],
            "PYTHONPATH": os.pathsep.join(str(CHECKOUT / name) for name in ("api", "tests")),
            **{name: self._here(value) for name, value in there.items()},
        }

    def add_volume(self, name: str, files: Mapping[str, bytes]) -> None:
        """Make a volume with files, which only their owner and group can read."""
        place = self.folder / "volumes" / name
        place.mkdir(parents=True)
        for file, content in files.items():
            (place / file).write_bytes(content)
            (place / file).chmod(0o440)

    def port_of(self, probe: Manifest) -> int:
        """Return the port of this machine that a probe asks, which is named."""
        (port,) = (
            one["containerPort"] for one in self.spec["ports"] if one["name"] == probe["port"]
        )
        return self.ports[port]

    def begin(self) -> None:
        """Empty what it leaves behind in the end."""
        self._message.write_bytes(b"")
        self.log.write_bytes(b"")

    def message(self, exit_code: int) -> str:
        """Return its termination message: what it has written there, or where that fails, has logged."""
        said = self._message.read_bytes()[:_MESSAGE_BYTES_MAX]
        falls_back = self.spec["terminationMessagePolicy"] == "FallbackToLogsOnError"
        if not said and exit_code and falls_back:
            said = self.log.read_bytes()[-_LOG_BYTES_SHOWN:]
        return said.decode(errors="replace")

    def _here(self, text: str) -> str:
        """Return a text that may be a path of the container as that path on this machine."""
        for path, here in self._paths.items():
            if text == path or text.startswith(f"{path}/"):
                return f"{here}{text.removeprefix(path)}"
        return text


async def prepared(api_server: ApiServer, pod: Manifest, folder: Path) -> Container:
    """Return the container of a pod, with its variables and files."""
    container = Container(pod, folder)
    values = Values(api_server, pod["metadata"]["namespace"])
    variables = {
        variable["name"]: await values.of_variable(variable)
        for variable in container.spec.get("env", ())
    }
    container.set_environment(pod, variables)
    for volume in pod["spec"].get("volumes", ()):
        assert volume.keys() <= {"name", "emptyDir", "secret"}, volume
        source = volume.get("secret")
        container.add_volume(volume["name"], await values.files(source) if source else {})
    return container


class Values:
    """What is in the Secrets and ConfigMaps of a namespace."""

    def __init__(self, api_server: ApiServer, namespace: str) -> None:
        self._api_server = api_server
        self._namespace = namespace

    async def of_variable(self, variable: Manifest) -> str:
        """Return the value of a variable."""
        source = variable.get("valueFrom", {})
        if reference := source.get("secretKeyRef"):
            return (await self._secret(reference["name"]))[reference["key"]].decode()
        if reference := source.get("configMapKeyRef"):
            found = await self._get("ConfigMap", reference["name"])
            return str(found["data"][reference["key"]])
        assert not source, variable
        return str(variable.get("value", ""))

    async def files(self, source: Manifest) -> dict[str, bytes]:
        """Return the files of a Secret as a volume: all keys, or those that are chosen."""
        values = await self._secret(source["secretName"])
        chosen = source.get("items") or [{"key": key, "path": key} for key in values]
        return {item["path"]: values[item["key"]] for item in chosen}

    async def _secret(self, name: str) -> dict[str, bytes]:
        data = (await self._get("Secret", name)).get("data", {})
        return {key: b64decode(value) for key, value in data.items()}

    async def _get(self, kind: str, name: str) -> Manifest:
        found = await self._api_server.find(kind, name, self._namespace)
        assert found is not None, f"a pod was made before the {kind} {name}"
        return found


def _free_ports(wanted: Sequence[int]) -> dict[int, int]:
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in wanted]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return {port: one.getsockname()[1] for port, one in zip(wanted, sockets, strict=True)}
