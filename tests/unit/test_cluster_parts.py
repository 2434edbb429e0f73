"""The parts of the tests' cluster that need no node: archives, releases, and what it asks of a machine."""

import hashlib
import json
import os
import shutil
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from support.cluster import archives
from support.cluster.__main__ import main
from support.cluster.cluster import down, up
from support.cluster.programs import SOURCES, UnsuitedError
from support.controlplane import building


def test_the_node_is_of_the_same_release_as_the_control_plane() -> None:
    node = building.module_version("k8s.io/kubernetes", SOURCES)
    assert node == building.module_version("k8s.io/kubernetes")


def test_programs_have_another_name_in_the_cache_when_their_sources_change(tmp_path: Path) -> None:
    (tmp_path / "below").mkdir()
    source = tmp_path / "below" / "main.go"
    source.write_text("package main")
    before = building.key("node", tmp_path)
    assert building.key("node", tmp_path, "v2") != before
    source.write_text("package other")
    assert building.key("node", tmp_path) != before
    assert before.startswith("node-")


def test_builds_share_a_folder_until_all_of_them_are_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with pytest.raises(building.BuildError), building.scratch() as shared:
        (shared / "objects").mkdir(parents=True)
        raise building.BuildError
    with building.scratch() as again:
        assert (again / "objects").exists()  # the next one goes on from there
    assert not shared.exists()


def test_an_archive_has_the_image_that_docker_would_save(tmp_path: Path) -> None:
    program = tmp_path / "pause"
    program.write_bytes(b"\x7fELF")
    archive = tmp_path / "pause.tar"
    archives.of_program(program, "localhost/pause:1", 65_535, archive)
    assert archives.names(archive) == ["localhost/pause:1"]
    with tarfile.open(archive) as files:
        layer, config = (files.extractfile(name) for name in ("layer.tar", "config.json"))
        assert layer is not None
        assert config is not None
        told = json.load(config)
        digest = hashlib.sha256(layer.read()).hexdigest()
        layer.seek(0)
        with tarfile.open(fileobj=layer) as inner:
            (member,) = inner.getmembers()
    assert told["rootfs"]["diff_ids"] == [f"sha256:{digest}"]
    assert told["config"] == {"Entrypoint": ["/pause"], "User": "65535"}
    assert (member.name, member.mode) == ("pause", 0o755)


def test_a_program_is_found_by_further_paths_of_its_image(tmp_path: Path) -> None:
    program = tmp_path / "manager"
    program.write_bytes(b"\x7fELF")
    archives.of_program(program, "localhost/one:1", 1, tmp_path / "one.tar", "operator/manager_it")
    with tarfile.open(tmp_path / "one.tar") as files:
        layer = files.extractfile("layer.tar")
        assert layer is not None
        with tarfile.open(fileobj=layer) as inner:
            link = inner.getmember("operator/manager_it")
    assert (link.issym(), link.linkname) == (True, "/manager")


def test_an_add_on_that_there_is_not_is_refused_at_once(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["cluster", "up", "--with", "everything"])
    with pytest.raises(SystemExit):
        main()
    assert "cloudnativepg, ingress, metrics" in capsys.readouterr().err.replace("'", "")


@pytest.mark.parametrize("command", [lambda: up([]), down])
def test_it_says_plainly_that_it_needs_root(
    command: Callable[[], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(UnsuitedError, match="needs root"):
        command()


def test_it_says_what_has_to_be_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(shutil, "which", lambda name: None if name in {"ctr", "runc"} else name)
    with pytest.raises(UnsuitedError, match=r"apt-get install .* containerd .*runc"):
        up([])
