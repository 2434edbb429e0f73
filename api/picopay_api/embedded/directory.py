"""The directory of an embedded server: whose it is, what it holds, what it remembers.

Used by `postgres.py`. One process at a time has it, by a lock on a file that the system gives back
however the process ends. It must not be taken from anybody who put other things there.

    lock            locked while a process has the directory
    server.json     the passwords and the last port, for our own user alone
    postgres/       the data; appears whole or not at all
    postgres.new/   the data while it is made
    postgres.log    what PostgreSQL said
    software/       the programs, when there was no better place for them
"""

import fcntl
import os
from pathlib import Path
from typing import IO, Final

import msgspec

from picopay_api.embedded.errors import DataDirectoryInUse, EmbeddedError

_OWN_NAMES: Final = {"lock", "postgres.new", "postgres.log", "software"}
_HARMLESS_NAMES: Final = {"lost+found", ".gitignore", ".gitkeep"}
_LOG_BYTES_MAX: Final = 4 * 1024 * 1024


class Memory(msgspec.Struct):
    """What is remembered beside the data: the passwords, and the port, that it may stay."""

    superuser_password: str
    owner_password: str
    port: int = 0


class ServerDirectory:
    """A directory on its way through `take`, reads and writes, and `give_back`."""

    def __init__(self, path: Path) -> None:
        self.path = path.resolve()
        self.data = self.path / "postgres"
        self.unfinished_data = self.path / "postgres.new"
        self.software = self.path / "software"
        self._memory = self.path / "server.json"
        self._log = self.path / "postgres.log"
        self._lock: IO[bytes] | None = None

    def take(self) -> None:
        """Make the directory if need be and lock it.

        Raises:
            DataDirectoryInUse: another process has it.
            EmbeddedError: it holds other things.
            OSError: it cannot be made or written.
        """
        self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
        names = {entry.name for entry in self.path.iterdir()} - _HARMLESS_NAMES
        if not self._memory.exists() and not names <= _OWN_NAMES:
            raise EmbeddedError(
                f"{self.path} is not empty and was not made by PicoPay: choose another directory"
            )
        lock = (self.path / "lock").open("wb")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.close()
            raise DataDirectoryInUse(
                f"another PicoPay is running on {self.path}: stop it or choose another directory"
            ) from None
        self._lock = lock

    def give_back(self) -> None:
        """Unlock the directory."""
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def major_version(self) -> int | None:
        """Return the release that made the data (18), None when there is none yet."""
        if not self.data.exists():
            return None
        return int((self.data / "PG_VERSION").read_text(encoding="ascii"))

    def recall(self) -> Memory:
        """Read what is remembered.

        Raises:
            EmbeddedError: the file is damaged.
        """
        try:
            return msgspec.json.decode(self._memory.read_bytes(), type=Memory)
        except msgspec.DecodeError as error:
            raise EmbeddedError(f"{self._memory} is damaged: {error}") from error

    def remember(self, memory: Memory) -> None:
        """Replace what is remembered, in one step."""
        working = self._memory.with_suffix(".json.new")
        working.unlink(missing_ok=True)
        working.touch(mode=0o600)
        with working.open("wb") as file:
            file.write(msgspec.json.encode(memory))
            file.flush()
            os.fsync(file.fileno())
        working.rename(self._memory)
        self._sync()

    def finish_data(self) -> None:
        """Let the data appear under its name, for good."""
        self.unfinished_data.rename(self.data)
        self._sync()

    def open_log(self) -> IO[bytes]:
        """Open the log for more, or anew when it has grown long."""
        full = self._log.exists() and self._log.stat().st_size > _LOG_BYTES_MAX
        return self._log.open("wb" if full else "ab")

    def last_words(self) -> str:
        """Return the end of the log."""
        lines = self._log.read_text(encoding="utf-8", errors="replace").splitlines()
        return "\n".join(lines[-5:])

    def _sync(self) -> None:
        descriptor = os.open(self.path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
