"""The programs of the control plane: fetched whole or not at all, made once, and kept for everybody."""

import hashlib
import io
import os
import platform
import sys
import tarfile
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from support.controlplane import programs
from support.controlplane.cache import cache, kept
from support.controlplane.downloads import CorruptError, Places, UnavailableError, fetch

KUBERNETES, ETCD = "v1.37.2", "v3.7.3"


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(autouse=True)
def machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Have a cache of the test's own, on a machine that programs are published for."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("KUBEBUILDER_ASSETS", raising=False)
    monkeypatch.setattr(platform, "machine", lambda: "x86_64")
    monkeypatch.setattr(sys, "platform", "linux")


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """Return a folder with small programs, laid out as they are published."""
    folder = tmp_path / "site"
    bin_folder = folder / KUBERNETES / "bin" / "linux" / "amd64"
    bin_folder.mkdir(parents=True)
    for name in programs.NAMES[1:]:
        content = f"I am {name}".encode()
        (bin_folder / name).write_bytes(content)
        (bin_folder / f"{name}.sha256").write_text(hashlib.sha256(content).hexdigest())
    archive = io.BytesIO()
    name = f"etcd-{ETCD}-linux-amd64"
    with tarfile.open(fileobj=archive, mode="w:gz") as files:
        member = tarfile.TarInfo(f"{name}/etcd")
        member.size = len(b"I am etcd")
        files.addfile(member, io.BytesIO(b"I am etcd"))
    (folder / ETCD).mkdir()
    (folder / ETCD / f"{name}.tar.gz").write_bytes(archive.getvalue())
    checksum = hashlib.sha256(archive.getvalue()).hexdigest()
    (folder / ETCD / "SHA256SUMS").write_text(f"{'0' * 64}  other.zip\n{checksum}  {name}.tar.gz\n")
    return folder


@pytest.fixture
def places(site: Path) -> Iterator[Places]:
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=site)) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        url = f"http://127.0.0.1:{server.server_port}"
        yield Places(url, url)
        server.shutdown()
        thread.join()


def test_what_is_published_is_fetched_and_can_be_run(places: Places, tmp_path: Path) -> None:
    folder = tmp_path / "programs"
    folder.mkdir()
    fetch(folder, KUBERNETES, ETCD, places)
    assert sorted(path.name for path in folder.iterdir()) == sorted(programs.NAMES)
    for name in programs.NAMES:
        assert (folder / name).read_text() == f"I am {name}"
        assert os.access(folder / name, os.X_OK)


@pytest.mark.parametrize("damaged", ["kube-scheduler", f"etcd-{ETCD}-linux-amd64.tar.gz"])
def test_a_program_that_is_not_what_its_checksum_says_is_not_kept(
    places: Places, site: Path, tmp_path: Path, damaged: str
) -> None:
    (found,) = site.rglob(damaged)
    found.write_bytes(b"something else")
    with pytest.raises(CorruptError):
        fetch(tmp_path, KUBERNETES, ETCD, places)
    assert not (tmp_path / damaged).exists()


def test_a_release_that_is_not_published_is_unavailable(places: Places, tmp_path: Path) -> None:
    with pytest.raises(UnavailableError):
        fetch(tmp_path, "v1.999.0", ETCD, places)


def test_a_network_that_leads_nowhere_is_told(tmp_path: Path) -> None:
    with ThreadingHTTPServer(("127.0.0.1", 0), Quiet) as server:
        url = f"http://127.0.0.1:{server.server_port}"
    with pytest.raises(UnavailableError):
        fetch(tmp_path, KUBERNETES, ETCD, Places(url, url))


def test_nothing_is_published_for_other_machines(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(platform, "machine", lambda: "riscv64")
    with pytest.raises(UnavailableError):
        fetch(tmp_path, KUBERNETES, ETCD, Places("http://127.0.0.1:9", "http://127.0.0.1:9"))


def test_what_is_kept_is_made_once_however_many_want_it() -> None:
    made = []

    def make(folder: Path) -> None:
        made.append(folder)
        (folder / "program").write_text("done")

    threads = [threading.Thread(target=kept, args=("things", make)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(made) == 1
    assert (cache() / "things" / "program").read_text() == "done"


def test_what_was_interrupted_is_not_kept_and_goes_on() -> None:
    def interrupted(folder: Path) -> None:
        (folder / "half").touch()
        raise KeyboardInterrupt

    def finish(folder: Path) -> None:
        (folder / "half").rename(folder / "whole")

    with pytest.raises(KeyboardInterrupt):
        kept("things", interrupted)
    assert not (cache() / "things").exists()
    assert [path.name for path in kept("things", finish).iterdir()] == ["whole"]


def test_the_assets_of_kubebuilder_are_taken_when_they_are_complete(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("KUBEBUILDER_ASSETS", str(tmp_path))
    for name in programs.NAMES[:-1]:
        (tmp_path / name).touch()
    assert not programs.are_there()
    assert "kube-scheduler not there" in capsys.readouterr().err
    (tmp_path / "kube-scheduler").touch()
    assert programs.are_there()
    assert programs.programs() == tmp_path


def test_what_the_cache_has_is_taken() -> None:
    folder = cache() / programs.key()
    folder.mkdir(parents=True)
    assert programs.are_there()
    assert programs.programs() == folder
