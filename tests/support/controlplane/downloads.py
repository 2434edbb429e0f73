"""Fetches the control plane's programs as Kubernetes and etcd publish them, where the network allows it.

Used by `programs.py`, before it builds them. `setup-envtest` fetches from the same places, but leaves out the
controller manager and the scheduler. Every file is checked against the checksum that is published beside it.
"""

import hashlib
import platform
import sys
import tarfile
from pathlib import Path
from typing import NamedTuple

import httpx

_CONNECT_TIMEOUT_S = 3.0  # a network that does not lead there often says nothing at all
_READ_TIMEOUT_S = 60.0
_CHUNK_BYTES = 1 << 20
_MACHINES = {"x86_64": "amd64", "aarch64": "arm64"}


class Places(NamedTuple):
    """Where the programs are published."""

    kubernetes: str
    etcd: str


OFFICIAL = Places("https://dl.k8s.io", "https://github.com/etcd-io/etcd/releases/download")


class UnavailableError(Exception):
    """The programs cannot be fetched: no network, or none for this machine."""


class CorruptError(Exception):
    """A file is not what its checksum says."""


def fetch(folder: Path, kubernetes: str, etcd: str, places: Places = OFFICIAL) -> None:
    """Put the programs of two releases ("v1.37.2", "v3.7.3") into a folder.

    Raises:
        UnavailableError: they cannot be fetched here.
        CorruptError: what came is not what was published.
    """
    machine = _MACHINES.get(platform.machine())
    if sys.platform != "linux" or machine is None:
        raise UnavailableError("there are none for this machine")
    timeout = httpx.Timeout(_READ_TIMEOUT_S, connect=_CONNECT_TIMEOUT_S)
    try:
        with httpx.Client(timeout=timeout, follow_redirects=True) as client:
            base = f"{places.kubernetes}/{kubernetes}/bin/linux/{machine}"
            for name in ("kube-apiserver", "kube-controller-manager", "kube-scheduler"):
                checksum = _text(client, f"{base}/{name}.sha256").strip()
                _download(client, f"{base}/{name}", checksum, folder / name)
            _fetch_etcd(client, f"{places.etcd}/{etcd}", f"etcd-{etcd}-linux-{machine}", folder)
    except httpx.HTTPError as error:
        raise UnavailableError(str(error) or type(error).__name__) from error


def _fetch_etcd(client: httpx.Client, base: str, name: str, folder: Path) -> None:
    archive = folder / f"{name}.tar.gz"
    lines = _text(client, f"{base}/SHA256SUMS").splitlines()
    (checksum,) = (line.split()[0] for line in lines if line.endswith(f" {archive.name}"))
    _download(client, f"{base}/{archive.name}", checksum, archive)
    with tarfile.open(archive) as files:
        etcd = files.extractfile(f"{name}/etcd")
        assert etcd is not None
        _program(folder / "etcd", etcd.read())
    archive.unlink()


def _text(client: httpx.Client, url: str) -> str:
    return client.get(url).raise_for_status().text


def _download(client: httpx.Client, url: str, checksum: str, path: Path) -> None:
    digest = hashlib.sha256()
    with client.stream("GET", url) as answer, path.open("wb") as file:
        answer.raise_for_status()
        for chunk in answer.iter_bytes(_CHUNK_BYTES):
            digest.update(chunk)
            file.write(chunk)
    if digest.hexdigest() != checksum:
        path.unlink()
        raise CorruptError(f"{url} is not what its checksum says")
    path.chmod(0o755)


def _program(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    path.chmod(0o755)
