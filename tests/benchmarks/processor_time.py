"""The processor time that a process and all below it have used.

Used by what measures (`load.py`, `pgbench.py`), before and after: the difference is what the work cost.
"""

import psutil

_TRIES_MAX = 10


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


def _used_s(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system + times.children_user + times.children_system)
