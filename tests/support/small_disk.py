"""A PostgreSQL server on a file system of its own, which can be filled: `No space left on device` is real.

Used by the test of a full disk. The file system is in memory, and exists only for this program and for the
server that it runs: `unshare` gives it a name space of mounts, which root may ask for, and everybody where
the kernel lets them. The test tells it what to do, a word a line: `fill`, `free`.
"""

import ctypes
import json
import os
import sys
import time
from pathlib import Path

from picopay_api.embedded import EmbeddedPostgres

DISK = "160m"
SETTINGS = {
    "shared_buffers": "32MB",
    "min_wal_size": "32MB",
    "max_wal_size": "64MB",
    "max_connections": "50",
}
_PIECE = bytes(65_536)


def command(directory: Path) -> list[str]:
    """Return the command that runs this program with its server in a directory."""
    # Without a change of user, root becomes nobody special in a name space of its own.
    as_ourselves = [] if os.geteuid() == 0 else ["--user", "--map-current-user", "--keep-caps"]
    name_space = ["unshare", *as_ourselves, "--mount"]
    return [*name_space, sys.executable, "-m", "support.small_disk", str(directory)]


def main(directory: Path) -> None:
    """Mount, start the server, and do what is asked until the input ends."""
    directory.mkdir(mode=0o755)
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.mount(b"tmpfs", bytes(directory), b"tmpfs", 0, f"size={DISK},mode=0755".encode()) != 0:
        sys.exit(f"mount: {os.strerror(ctypes.get_errno())}")
    postgres = EmbeddedPostgres(directory / "server", settings=SETTINGS)
    postgres.start()
    urls = (postgres.owner_url.text, postgres.superuser_url.text)
    print(json.dumps(urls), flush=True)
    try:
        for word in sys.stdin:
            if word.strip() == "fill":
                _fill(directory / "ballast")
            else:
                (directory / "ballast").unlink()
                _start_again(postgres)
            print("done", flush=True)
    finally:
        postgres.stop()


def _fill(ballast: Path) -> None:
    with ballast.open("wb", buffering=0) as file:
        try:
            while file.write(_PIECE):
                continue
        except OSError:
            return


def _start_again(postgres: EmbeddedPostgres) -> None:
    """Do what an operator does when the server has ended; one that recovers by itself is left alone."""
    time.sleep(1)  # one that is about to end has ended by then
    if not postgres.is_running():
        postgres.restart()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
