"""A Kubernetes control plane on loopback: etcd, API server, controller manager, scheduler; without a node.

Used by the fixture `control_plane`, and by `support.cluster`, which adds a node. It ends with the process
that has started it, however that one ends; and with the thread, so it is started in the main one. What it
writes is in one folder.
"""

import json
import os
import secrets
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import httpx

START_TIMEOUT_S = 90
_LAUNCH = Path(__file__).parent / "launch.py"
_TRIES = 3  # another process may take a port between the moment it was found free and its use
_SERVICE_ADDRESS = "10.96.0.1"  # of the Service `kubernetes`: the first of the range below
_USERS = {
    # user: groups. Controllers are trusted with everything: their rights are not what is tested.
    "admin": "system:masters",
    "system:kube-controller-manager": "system:masters",
    "system:kube-scheduler": "system:masters",
}


class ControlPlaneError(Exception):
    """The control plane does not start."""


class Surroundings(NamedTuple):
    """What a control plane has around it; the default is nothing."""

    name: str = "tests"
    """What configurations of clients call it."""
    address: str = "127.0.0.1"
    """Where the API server listens."""
    users: Mapping[str, str] = {}
    """Further users, with the group of each."""
    options: Mapping[str, Mapping[str, str]] = {}
    """Further options, by program. They win over those that every control plane is given."""


_ALONE = Surroundings()


class ControlPlane:
    """A running control plane. Make one with `control_plane`."""

    def __init__(self, folder: Path, programs: Path, surroundings: Surroundings = _ALONE) -> None:
        self.folder = folder
        self.certificate = folder / "server.crt"
        """The API server's certificate, which vouches for itself."""
        self.url = ""
        self.programs = programs
        self._surroundings = surroundings
        self._users = {**_USERS, **surroundings.users}
        self._tokens = {user: secrets.token_hex(16) for user in self._users}
        self._processes: dict[str, subprocess.Popen[bytes]] = {}

    @property
    def admin_token(self) -> str:
        """The bearer token of a user who may do everything."""
        return self._tokens["admin"]

    def token(self, user: str) -> str:
        """Return the bearer token of one of its users."""
        return self._tokens[user]

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
        name = self._surroundings.name
        context = {"cluster": name, "user": name, "namespace": namespace}
        content = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": name, "cluster": cluster}],
            "users": [{"name": name, "user": user}],
            "contexts": [{"name": name, "context": context}],
            "current-context": name,
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
        self.url = f"https://{self._surroundings.address}:{api}"
        self._run("etcd", _etcd_options(self.folder / "etcd", etcd, peer))
        self._run("kube-apiserver", _api_server_options(self.folder, etcd, self.url))
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
        _make_certificate(self.folder, self._surroundings.address)
        lines = [
            f'{self._tokens[user]},{user},{user},"{group}"\n' for user, group in self._users.items()
        ]
        tokens = self.folder / "tokens.csv"
        tokens.touch(0o600)
        tokens.write_text("".join(lines), encoding="utf-8")

    def run(self, name: str, command: Sequence[str | Path]) -> None:
        """Start a program that ends with this process, however this process ends."""
        with (self.folder / f"{name}.log").open("ab") as log:
            self._processes[name] = subprocess.Popen(
                [sys.executable, "-I", "-S", _LAUNCH, str(os.getpid()), *command],
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )

    def check(self) -> None:
        """See whether everything runs.

        Raises:
            ControlPlaneError: a program has ended.
        """
        for name, process in self._processes.items():
            if process.poll() is not None:
                raise ControlPlaneError(f"{name} has ended: {self._last_lines(name)}")

    def _run(self, name: str, options: Mapping[str, str]) -> None:
        options = {**options, **self._surroundings.options.get(name, {})}
        self.run(name, [self.programs / name, *(f"--{key}={options[key]}" for key in options)])

    def _wait_for(self, client: httpx.Client, path: str) -> None:
        deadline = time.monotonic() + START_TIMEOUT_S
        while True:
            try:
                if client.get(path).is_success:
                    return
            except httpx.TransportError:
                pass  # it does not listen yet
            self.check()
            if time.monotonic() > deadline:
                name = list(self._processes)[-1]
                raise ControlPlaneError(f"{path} is not there: {self._last_lines(name)}")
            time.sleep(0.05)

    def _last_lines(self, name: str) -> str:
        lines = (self.folder / f"{name}.log").read_text(errors="replace").splitlines()
        return "\n".join([name, *lines[-20:]])


@contextmanager
def control_plane(
    folder: Path, programs: Path, surroundings: Surroundings = _ALONE
) -> Iterator[ControlPlane]:
    """Run a control plane until the end of the block, with its data in a folder."""
    for trial in range(1, _TRIES + 1):
        with ExitStack() as stack:
            plane = ControlPlane(folder / str(trial), programs, surroundings)
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


def _make_certificate(folder: Path, address: str) -> None:
    """Make the API server's certificate and its key, which signs the tokens of service accounts as well.

    It shows the certificate to a kubelet, too, where there is one.
    """
    names = [
        *("IP:127.0.0.1", f"IP:{address}", f"IP:{_SERVICE_ADDRESS}"),
        *("DNS:localhost", "DNS:kubernetes.default", "DNS:kubernetes.default.svc"),
    ]
    extensions = (
        "basicConstraints=critical,CA:TRUE",
        "keyUsage=critical,digitalSignature,keyCertSign",
        "extendedKeyUsage=serverAuth,clientAuth",
        f"subjectAltName={','.join(dict.fromkeys(names))}",
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


def _api_server_options(folder: Path, etcd_port: int, url: str) -> dict[str, Any]:
    address = httpx.URL(url)
    key = str(folder / "server.key")
    return {
        "etcd-servers": f"http://127.0.0.1:{etcd_port}",
        "bind-address": address.host,
        "secure-port": str(address.port),
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
