"""Writes what was gathered for support into one file, with an index. The only module that writes files here.

Called by `commands.py`. The same content gives the same archive: names, order and modes do not depend on who
writes it, or where.
"""

import gzip
import io
import os
import tarfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from shlex import quote
from typing import BinaryIO

import msgspec

from picopay_operator.cache import Key
from picopay_operator.plugin.bundle import Bundle, Versions
from picopay_operator.plugin.changes import Refused
from picopay_operator.plugin.overview import LeftOut, Shown, SupportBundle

INDEX = "index.json"

_MODE = 0o600
"""What is in it concerns nobody else on the machine."""


class File(Shown, frozen=True):
    """A file in a bundle."""

    path: str
    bytes: int


class Index(Shown, frozen=True):
    """What is in a bundle: its files, and what is not there."""

    namespace: str
    name: str
    made_at: datetime
    versions: Versions
    files: list[File]
    left_out: list[LeftOut]


def path(key: Key, now: datetime) -> Path:
    """Return the name of a bundle for which nobody has chosen one."""
    return Path(f"{_folder(key)}-{now:%Y%m%dT%H%M%SZ}.tar.gz")


@contextmanager
def created(path: Path) -> Iterator[BinaryIO]:
    """Make a file; it goes again when what is to be in it does not come about.

    Raises:
        Refused: it is there already, or cannot be written.
    """
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, _MODE)
    except OSError as error:
        raise Refused(f"{path} cannot be written: {error.strerror}") from error
    try:
        with os.fdopen(descriptor, "wb") as file:
            yield file
    except OSError as error:
        path.unlink(missing_ok=True)
        raise Refused(f"{path} cannot be written: {error.strerror}") from error
    except BaseException:
        path.unlink(missing_ok=True)
        raise


def write(file: BinaryIO, bundle: Bundle, key: Key, now: datetime) -> None:
    """Write a bundle as a compressed archive with one folder in it."""
    files = [File(name, len(content)) for name, content in sorted(bundle.files.items())]
    index = Index(*key, now, bundle.versions, files, bundle.left_out)
    told = bundle.redaction.tree(msgspec.to_builtins(index))
    encoded = msgspec.json.format(msgspec.json.encode(told), indent=2) + b"\n"
    with (
        gzip.GzipFile("", "wb", fileobj=file, mtime=int(now.timestamp())) as packed,
        tarfile.open(fileobj=packed, mode="w", format=tarfile.PAX_FORMAT) as archive,
    ):
        for name, content in _in_order({INDEX: encoded, **bundle.files}):
            entry = tarfile.TarInfo(f"{_folder(key)}/{name}")
            entry.size, entry.mode, entry.mtime = len(content), _MODE, int(now.timestamp())
            archive.addfile(entry, io.BytesIO(content))


def written(path: Path, bundle: Bundle) -> SupportBundle:
    """Return what is to be told about a bundle."""
    return SupportBundle(
        file=str(path),
        bytes=path.stat().st_size,
        files=[INDEX, *sorted(bundle.files)],
        left_out=bundle.left_out,
        next=[
            f"tar -xzf {quote(str(path))}",
            "Look through it, then attach it to your request: logs and names of hosts are in it as they are.",
        ],
    )


def _in_order(files: Mapping[str, bytes]) -> list[tuple[str, bytes]]:
    """Return the index, and then the others by their names."""
    return sorted(files.items(), key=lambda one: (one[0] != INDEX, one[0]))


def _folder(key: Key) -> str:
    return f"picopay-support-{key.namespace}-{key.name}"
