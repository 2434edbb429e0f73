"""Archives of container images: small ones made by hand, and their names.

Used by `node.py` for the image that holds a pod's namespaces, and by `addons.py`: images of one program each.
"""

import hashlib
import io
import json
import platform
import tarfile
import tempfile
from pathlib import Path

_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}


def architecture() -> str:
    """Return what images call the kind of this machine's processor."""
    return _ARCHITECTURES[platform.machine()]


def of_program(program: Path, name: str, user: int, archive: Path, *links: str) -> None:
    """Write an archive, as `docker save` would, of an image in which there is one static program.

    It is in the root folder, and `links` are further paths, without a slash before them, that lead to it.
    """
    with tempfile.TemporaryFile() as layer:
        with tarfile.open(fileobj=layer, mode="w") as files:
            files.add(program.resolve(), program.name, filter=_as_roots)
            for link in links:
                member = tarfile.TarInfo(link)
                member.type, member.linkname = tarfile.SYMTYPE, f"/{program.name}"
                files.addfile(member)
        size = layer.tell()
        layer.seek(0)
        config = {
            "architecture": architecture(),
            "os": "linux",
            "config": {"Entrypoint": [f"/{program.name}"], "User": str(user)},
            "rootfs": {
                "type": "layers",
                "diff_ids": [f"sha256:{hashlib.file_digest(layer, 'sha256').hexdigest()}"],
            },
        }
        manifest = [{"Config": "config.json", "RepoTags": [name], "Layers": ["layer.tar"]}]
        with tarfile.open(archive, "w") as files:
            member = tarfile.TarInfo("layer.tar")
            member.size = size
            layer.seek(0)
            files.addfile(member, layer)
            for file, content in (("config.json", config), ("manifest.json", manifest)):
                text = json.dumps(content).encode()
                member = tarfile.TarInfo(file)
                member.size = len(text)
                files.addfile(member, io.BytesIO(text))


def names(archive: Path) -> list[str]:
    """Return what the images in an archive are called."""
    with tarfile.open(archive) as files:
        content = files.extractfile("manifest.json")
        assert content is not None
        return [name for image in json.load(content) for name in image["RepoTags"]]


def _as_roots(member: tarfile.TarInfo) -> tarfile.TarInfo:
    member.uid = member.gid = 0
    member.uname = member.gname = ""
    member.mode = 0o755
    member.mtime = 0
    return member
