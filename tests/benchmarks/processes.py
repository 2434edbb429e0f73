"""The processor time that a process and all below it have used, and the memory that a process takes.

Used by what measures (`load.py`, `pgbench.py`), before and after: the difference is what the work cost.
"""

import resource
import threading
import time
from collections.abc import Sequence
from typing import Self

import psutil

from benchmarks.results import Sample

_TRIES_MAX = 10
_MB = 1_000_000


def cpu_s(pid: int) -> float:
    """Return the seconds used by a process, its descendants, and those that have ended."""
    head = psutil.Process(pid)
    total = 0.0
    # A child that ends between two looks would be counted twice, by itself and by its parent, or not at
    # all. So look again until the family has stayed the same.
    for _ in range(_TRIES_MAX):
        family = head.children(recursive=True)
        try:
            total = sum(map(_used_s, [head, *family]))
        except psutil.NoSuchProcess:
            continue
        if head.children(recursive=True) == family:
            break
    return total


def memory_mb(pid: int) -> float:
    """Return the memory that a process itself has resident, in millions of bytes."""
    return float(psutil.Process(pid).memory_info().rss) / _MB


class MemoryWatch:
    """Notes the memory of the largest of some processes now and then, while the block lasts."""

    def __init__(self, pids: Sequence[int], every_s: float) -> None:
        self._pids = pids
        self._every_s = every_s
        self._began_s = time.monotonic()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self.samples: list[Sample] = []
        self._look()

    @property
    def peak_mb(self) -> float:
        """The most that was seen."""
        return max(sample.memory_mb for sample in self.samples)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._ended.wait(self._every_s):
            self._look()

    def _look(self) -> None:
        taken_s = round(time.monotonic() - self._began_s, 1)
        self.samples.append(Sample(taken_s, max(map(memory_mb, self._pids))))


def allow_many_files() -> int:
    """Let this process and those it starts open as many files as the system lets them; say how many."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    if most == resource.RLIM_INFINITY:
        most = 1 << 16
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    return most


def _used_s(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system + times.children_user + times.children_system)
