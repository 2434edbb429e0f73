"""Makes both images as `make images` does, looks into their archives, and runs containers of them.

Used by tests/images and `support.cluster`. It takes docker or podman, whichever works. What it makes
has names of its own and is removed at the end; the builder keeps its cache of layers, as for every build.
"""

import json
import os
import re
import shutil
import subprocess
import tarfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec

from support.postgres import CHECKOUT

PROGRAMS = ("api", "operator")
UID = 10001

_REPOSITORY = "localhost/picopay-images-test"
_BUILD_TIMEOUT_S = 1_500
_RUN_TIMEOUT_S = 300

# As little as is needed where containers are run inside a container: no network, no limits of their own.
_PODMAN = """
[containers]
default_ulimits = ["nofile=4096:4096", "nproc=4096:4096"]
netns = "host"
[engine]
cgroup_manager = "cgroupfs"
"""


class Image(msgspec.Struct, frozen=True):
    """An image as its archive has it: its configuration, and its layers with their sizes in bytes."""

    name: str
    config: dict[str, Any]
    layers: tuple[str, ...]
    sizes: tuple[int, ...]
    bill_of_materials: dict[str, Any]


class Engine:
    """docker or podman on this machine."""

    def __init__(self, folder: Path) -> None:
        configuration = folder / "containers.conf"
        # crun, which podman would take, does not know every way in which cgroups are mounted; runc does.
        runtime = 'runtime = "runc"\n' if shutil.which("runc") else ""
        configuration.write_text(_PODMAN + runtime, encoding="utf-8")
        self._environment = {**os.environ, "CONTAINERS_CONF": str(configuration)}
        chosen = os.environ.get("BUILDER")
        candidates = (chosen,) if chosen else ("docker", "podman")
        self._program = next(one for one in candidates if self._works(one))

    def make(self, folder: Path, *options: str) -> dict[str, Image]:
        """Make the images with `.ci/images`; put their archives into a folder, and read them."""
        made = self.make_own(folder, _REPOSITORY, *options)
        names = {name.partition(":")[0].rpartition("-")[2]: name for name in made}
        return {program: _read(program, name, folder) for program, name in names.items()}

    def make_own(self, folder: Path, repository: str, *options: str) -> list[str]:
        """Make the images with `.ci/images`; put their archives into a folder, and return all their names."""
        told = subprocess.run(
            [CHECKOUT / ".ci" / "images", "--save", folder, *options],
            env={**self._environment, "BUILDER": self._program, "REPOSITORY": repository},
            stdout=subprocess.PIPE,
            text=True,
            timeout=_BUILD_TIMEOUT_S,
            check=True,
        )
        return told.stdout.split()

    def make_another(self, name: str, context: Path, archive: Path, base: str) -> None:
        """Write the archive of an image that a folder with a Dockerfile makes; only the archive is left."""
        options = ("--quiet", "--network", "host", "--build-arg", f"BASE={base}", "--tag", name)
        self._told("build", *options, str(context))
        archive.unlink(missing_ok=True)
        plain = () if self._program == "docker" else ("--format", "docker-archive")
        self._told("save", *plain, "--output", str(archive), name)
        self._told("rmi", "--no-prune", name)

    def base_layers(self) -> tuple[str, ...]:
        """Return the layers of the base image."""
        base = os.environ.get("BASE") or default_base()
        return tuple(json.loads(self._told("image", "inspect", base))[0]["RootFS"]["Layers"])

    def run(self, image: Image, *arguments: str, **environment: str) -> "Ended":
        """Run a container to its end, with a read-only root and without any right."""
        ended = subprocess.run(
            [*self._command(environment), "--rm", image.name, *arguments],
            env=self._environment,
            capture_output=True,
            text=True,
            timeout=_RUN_TIMEOUT_S,
            check=False,
        )
        return Ended(ended.returncode, ended.stdout, ended.stderr)

    def python(self, image: Image, program: str) -> Any:
        """Run a Python program in a container; return what it prints, which is JSON."""
        command = [*self._command({}), "--rm", "--entrypoint", "python", image.name, "-c", program]
        return json.loads(self._told(*command[1:]))

    @contextmanager
    def running(self, image: Image, *arguments: str, **environment: str) -> Iterator["Container"]:
        """Run a container in the background; remove it at the end."""
        container = self._told(
            *self._command(environment)[1:], "--detach", image.name, *arguments
        ).strip()
        try:
            yield Container(self, container)
        finally:
            self._told("rm", "--force", container)

    def remove(self) -> None:
        """Remove what the tests have named."""
        listed = self._told("images", "--format", "{{.Repository}}:{{.Tag}}").split()
        ours = [name for name in listed if name.startswith(_REPOSITORY)]
        self._told("rmi", "--force", *ours)

    def tell(self, *arguments: str) -> "Ended":
        """Give the engine a command."""
        ended = subprocess.run(
            [self._program, *arguments],
            env=self._environment,
            capture_output=True,
            text=True,
            timeout=_RUN_TIMEOUT_S,
            check=False,
        )
        return Ended(ended.returncode, ended.stdout, ended.stderr)

    def _told(self, *arguments: str) -> str:
        ended = self.tell(*arguments)
        assert ended.exit_code == 0, (arguments, ended)
        return ended.stdout

    def _command(self, environment: Mapping[str, str]) -> list[str]:
        """Return the beginning of a `run`: as restricted as the operator's pods are."""
        told = [
            word for name, value in environment.items() for word in ("--env", f"{name}={value}")
        ]
        closed = ("--read-only", "--cap-drop", "ALL", "--security-opt", "no-new-privileges")
        return [self._program, "run", *closed, "--network", "host", *told]

    def _works(self, program: str) -> bool:
        if shutil.which(program) is None:
            return False
        return not subprocess.run(
            [program, "info"], env=self._environment, capture_output=True, check=False
        ).returncode


class Ended(msgspec.Struct, frozen=True):
    """How a command ended, and what it printed."""

    exit_code: int
    stdout: str
    stderr: str


class Container:
    """A container that runs in the background."""

    def __init__(self, engine: Engine, name: str) -> None:
        self._engine = engine
        self._name = name

    def execute(self, *command: str) -> int:
        """Run a command in it; return its exit code."""
        return self._engine.tell("exec", self._name, *command).exit_code

    def logs(self) -> str:
        """Return what it has printed."""
        ended = self._engine.tell("logs", self._name)
        return ended.stdout + ended.stderr

    def stop(self) -> int:
        """End it by SIGTERM, and return its exit code."""
        self._engine.tell("stop", "--time", "30", self._name)
        return int(
            self._engine.tell("inspect", "--format", "{{.State.ExitCode}}", self._name).stdout
        )


def default_base() -> str:
    """Return the base that the images have where nobody chooses another one."""
    text = (CHECKOUT / "Dockerfile.api").read_text(encoding="utf-8")
    found = re.search(r"^ARG BASE=(\S+)", text, re.MULTILINE)
    assert found
    return found[1]


def _read(program: str, name: str, folder: Path) -> Image:
    (archive,) = folder.glob(f"picopay-{program}-*.tar")
    (bill,) = folder.glob(f"picopay-{program}-*.cdx.json")
    with tarfile.open(archive) as files:

        def read(path: str) -> Any:
            content = files.extractfile(path)
            assert content
            return json.load(content)

        (manifest,) = read("manifest.json")
        config = read(manifest["Config"])
        sizes = tuple(files.getmember(layer).size for layer in manifest["Layers"])
    layers = tuple(config["rootfs"]["diff_ids"])
    return Image(
        name, config["config"], layers, sizes, json.loads(bill.read_text(encoding="utf-8"))
    )
