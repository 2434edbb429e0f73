"""What the figures were measured on: they mean nothing without it.

Used by `command.py`. Names nobody and no place.
"""

import os
import platform
import statistics
import tempfile
import time
from pathlib import Path

import msgspec
import psutil

from picopay_api import __version__

_FSYNCS = 50
_PAGE = b"\0" * 8_192


class Machine(msgspec.Struct, frozen=True, kw_only=True):
    """A machine and the programs on it.

    `fsync_ms` is the median time that its disk takes to keep eight kilobytes, `load_before` how many
    processes wanted to run in the minute before: what others did with it.
    """

    cpus: int | None
    memory_bytes: int
    system: str
    python: str
    postgresql: str
    picopay: str
    fsync_ms: float
    load_before: float


def describe(directory: Path, postgresql: str) -> Machine:
    """Describe this machine; `directory` is on the disk that the database is on."""
    return Machine(
        cpus=os.cpu_count(),
        memory_bytes=psutil.virtual_memory().total,
        system=f"{platform.system()} {platform.machine()}",
        python=platform.python_version(),
        postgresql=postgresql,
        picopay=__version__,
        fsync_ms=_fsync_ms(directory),
        load_before=round(psutil.getloadavg()[0], 2),
    )


def _fsync_ms(directory: Path) -> float:
    taken_ms = []
    with tempfile.TemporaryFile(dir=directory, buffering=0) as file:
        for _ in range(_FSYNCS):
            file.write(_PAGE)
            began_s = time.perf_counter()
            os.fsync(file.fileno())
            taken_ms.append(1000 * (time.perf_counter() - began_s))
    return statistics.median(taken_ms)
