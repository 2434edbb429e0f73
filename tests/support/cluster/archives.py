"""Archives of container images: a small one made by hand, and their names.

Used by `node.py` for the image that holds a pod's namespaces, which has a single file in it.
"""

import hashlib
import io
import json
import platform
import tarfile
from pathlib import Path

_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}


def of_program(program: Path, name: str, user: int, archive: Path) -> None:
    """Write an archive, as `docker save` would, of an image in which there is one static program."""
    layer = io.BytesIO()
    with tarfile.open(fileobj=layer, mode="w") as files:
        _add(files, program.name, program.read_bytes())
    digest = hashlib.sha256(layer.getvalue()).hexdigest()
    config = {
        "architecture": _ARCHITECTURES[platform.machine()],
        "os": "linux",
        "config": {"Entrypoint": [f"/{program.name}"], "User": str(user)},
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{digest}"]},
    }
    manifest = [{"Config": "config.json", "RepoTags": [name], "Layers": ["layer.tar"]}]
    with tarfile.open(archive, "w") as files:
        _add(files, "layer.tar", layer.getvalue())
        _add(files, "config.json", json.dumps(config).encode())
        _add(files, "manifest.json", json.dumps(manifest).encode())


def names(archive: Path) -> list[str]:
    """Return what the images in an archive are called."""
    with tarfile.open(archive) as files:
        content = files.extractfile("manifest.json")
        assert content is not None
        return [name for image in json.load(content) for name in image["RepoTags"]]


def _add(files: tarfile.TarFile, name: str, content: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(content)
    member.mode = 0o755
    files.addfile(member, io.BytesIO(content))
