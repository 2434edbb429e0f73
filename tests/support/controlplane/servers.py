"""A Kubernetes control plane on loopback: etcd, API server, controller manager and scheduler, without a node.

Used by the fixture `control_plane`. It ends with the process that has started it, however that one ends; and
with the thread, so it is started in the main one. What it writes is in one folder.
"""

import json
import os
import secrets
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import httpx

START_TIMEOUT_S = 90
_LAUNCH = Path(__file__).parent / "launch.py"
_TRIES = 3  # another process may take a port between the moment it was found free and its use
_USERS = {
    # user: groups. Controllers are trusted with everything: their rights are not what is tested.
    "admin": "system:masters",
    "system:kube-controller-manager": "system:masters",
    "system:kube-scheduler": "system:masters",
}


class ControlPlaneError(Exception):
    """The control plane does not start."""


class ControlPlane:
    """A running control plane. Make one with `control_plane`."""

    def __init__(self, folder: Path, programs: Path) -> None:
        self.folder = folder
        self.certificate = folder / "server.crt"
        """The API server's certificate, which vouches for itself."""
        self.url = ""
        self.programs = programs
        self._tokens = {user: secrets.token_hex(16) for user in _USERS}
        self._processes: dict[str, subprocess.Popen[bytes]] = {}

    @property
    def admin_token(self) -> str:
        """The bearer token of a user who may do everything."""
        return self._tokens["admin"]

    @property
    def admin_kubeconfig(self) -> Path:
        """The configuration for kubectl and helm, as that user."""
        return self.folder / "admin.kubeconfig"

    def kubeconfig(
        self, path: Path, token: str, *, server: str = "", namespace: str = "default"
    ) -> Path:
        """Write a configuration for a token; `server` is another address, such as that of a proxy."""
        user = {"token": token}
        cluster = {
            "server": server or self.url,
            "certificate-authority": str(self.certificate),
            "tls-server-name": "127.0.0.1",
        }
        context = {"cluster": "tests", "user": "tests", "namespace": namespace}
        content = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "tests", "cluster": cluster}],
            "users": [{"name": "tests", "user": user}],
            "contexts": [{"name": "tests", "context": context}],
            "current-context": "tests",
        }
        path.touch(0o600)
        path.write_text(json.dumps(content), encoding="utf-8")
        return path

    def context(self) -> ssl.SSLContext:
        """Return what a client verifies the API server with."""
        return ssl.create_default_context(cafile=str(self.certificate))

    def start(self) -> None:
        """Start everything, and wait until controllers work.

        Raises:
            ControlPlaneError: a program ends, or takes too long.
        """
        etcd, peer, api = _free_ports(3)
        self.url = f"https://127.0.0.1:{api}"
        self._run("etcd", _etcd_options(self.folder / "etcd", etcd, peer))
        self._run("kube-apiserver", _api_server_options(self.folder, etcd, api))
        with httpx.Client(
            base_url=self.url,
            verify=self.context(),
            headers={"Authorization": f"Bearer {self.admin_token}"},
        ) as client:
            self._wait_for(client, "/readyz")
            for name, options in _CONTROLLERS.items():
                user = self.folder / f"{name}.kubeconfig"
                self.kubeconfig(user, self._tokens[f"system:{name}"])
                self._run(name, {**options, "kubeconfig": str(user)} | _keys(self.folder, name))
            # A controller makes it: pods can be created from then on.
            self._wait_for(client, "/api/v1/namespaces/default/serviceaccounts/default")
        self.kubeconfig(self.admin_kubeconfig, self.admin_token)

    def stop(self) -> None:
        """End everything. Nothing is kept, so nobody is asked to end in good order."""
        for process in reversed(self._processes.values()):
            process.kill()
            process.wait()
        self._processes.clear()

    def prepare(self) -> None:
        """Write what the programs read: a certificate, and the tokens of their users."""
        _make_certificate(self.folder)
        lines = [f'{self._tokens[user]},{user},{user},"{_USERS[user]}"\n' for user in _USERS]
        tokens = self.folder / "tokens.csv"
        tokens.touch(0o600)
        tokens.write_text("".join(lines), encoding="utf-8")

    def _run(self, name: str, options: Mapping[str, str]) -> None:
        """Start a program that ends with this process, however this process ends."""
        command = [str(self.programs / name), *(f"--{key}={options[key]}" for key in options)]
        with (self.folder / f"{name}.log").open("ab") as log:
            self._processes[name] = subprocess.Popen(
                [sys.executable, "-I", "-S", str(_LAUNCH), str(os.getpid()), *command],
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )

    def _wait_for(self, client: httpx.Client, path: str) -> None:
        deadline = time.monotonic() + START_TIMEOUT_S
        while True:
            try:
                if client.get(path).is_success:
                    return
            except httpx.TransportError:
                pass  # it does not listen yet
            ended = [
                name for name, process in self._processes.items() if process.poll() is not None
            ]
            for name in ended or list(self._processes)[-1:]:
                if ended or time.monotonic() > deadline:
                    lines = (self.folder / f"{name}.log").read_text(errors="replace").splitlines()
                    raise ControlPlaneError("\n".join([f"{path}: {name}", *lines[-20:]]))
            time.sleep(0.05)


@contextmanager
def control_plane(folder: Path, programs: Path) -> Iterator[ControlPlane]:
    """Run a control plane until the end of the block, with its data in a folder."""
    for trial in range(1, _TRIES + 1):
        with ExitStack() as stack:
            plane = ControlPlane(folder / str(trial), programs)
            plane.folder.mkdir(parents=True)
            plane.prepare()
            stack.callback(plane.stop)
            try:
                plane.start()
            except ControlPlaneError as error:
                if "address already in use" not in str(error) or trial == _TRIES:
                    raise
                continue
            yield plane
            return


def _free_ports(number: int) -> list[int]:
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(number)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]


def _make_certificate(folder: Path) -> None:
    """Make the API server's certificate and its key, which signs the tokens of service accounts as well."""
    extensions = (
        "basicConstraints=critical,CA:TRUE",
        "keyUsage=critical,digitalSignature,keyCertSign",
        "extendedKeyUsage=serverAuth",
        "subjectAltName=IP:127.0.0.1,DNS:localhost,DNS:kubernetes.default.svc",
    )
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"),
            *("-nodes", "-days", "7", "-subj", "/CN=kube-apiserver", "-config", "/dev/null"),
            *("-keyout", "server.key", "-out", "server.crt"),
            *(word for extension in extensions for word in ("-addext", extension)),
        ],
        cwd=folder,
        check=True,
        capture_output=True,
        timeout=60,
    )


def _etcd_options(data: Path, port: int, peer_port: int) -> dict[str, str]:
    client, peer = f"http://127.0.0.1:{port}", f"http://127.0.0.1:{peer_port}"
    return {
        "data-dir": str(data),
        "listen-client-urls": client,
        "advertise-client-urls": client,
        "listen-peer-urls": peer,
        "initial-advertise-peer-urls": peer,
        "initial-cluster": f"default={peer}",
        "unsafe-no-fsync": "true",
        "log-level": "warn",
    }


def _api_server_options(folder: Path, etcd_port: int, port: int) -> dict[str, Any]:
    key = str(folder / "server.key")
    return {
        "etcd-servers": f"http://127.0.0.1:{etcd_port}",
        "bind-address": "127.0.0.1",
        "secure-port": str(port),
        # It refuses a loopback address as the endpoint of the Service `kubernetes`: there is none then.
        "advertise-address": "192.0.2.1",
        "endpoint-reconciler-type": "none",
        "tls-cert-file": str(folder / "server.crt"),
        "tls-private-key-file": key,
        "token-auth-file": str(folder / "tokens.csv"),
        "anonymous-auth": "false",
        "authorization-mode": "RBAC",
        "service-account-issuer": "https://kubernetes.default.svc",
        "service-account-key-file": str(folder / "server.crt"),
        "service-account-signing-key-file": key,
        "service-cluster-ip-range": "10.96.0.0/16",
        # Nobody is there to find a new node ready: see the controllers below.
        "disable-admission-plugins": "TaintNodesByCondition",
        "profiling": "false",
    }


_COMMON = {
    "leader-elect": "false",
    "secure-port": "0",
    "kube-api-qps": "500",
    "kube-api-burst": "1000",
    "profiling": "false",
}
_CONTROLLERS = {
    "kube-controller-manager": {
        **_COMMON,
        # The nodes are made up, and nobody renews their leases.
        "controllers": "*,-node-lifecycle-controller,-taint-eviction-controller",
    },
    "kube-scheduler": _COMMON,
}


def _keys(folder: Path, name: str) -> dict[str, str]:
    if name != "kube-controller-manager":
        return {}
    return {
        "root-ca-file": str(folder / "server.crt"),
        "service-account-private-key-file": str(folder / "server.key"),
    }
