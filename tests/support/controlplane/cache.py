"""The user's cache of programs for the tests: made once, and used by every checkout of the project.

Used by `programs.py` and by `support.kube_tools`. What is there is whole: it is made beside, and moved in
when it is done.
"""

import fcntl
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path


def cache() -> Path:
    """Return the folder, which may not be there yet."""
    if chosen := os.environ.get("XDG_CACHE_HOME"):
        base = Path(chosen)
    elif sys.platform == "darwin":
        base = Path.home() / "Library" / "Caches"
    else:
        base = Path.home() / ".cache"
    return base / "picopay" / "test-programs"


def kept(name: str, make: Callable[[Path], None]) -> Path:
    """Return a folder of the cache; when it is not there, `make` fills it.

    One process makes it, and others wait for it meanwhile. When it is interrupted, the next one finds the
    folder as it was left, and goes on.
    """
    root = cache()
    place = root / name
    if place.is_dir():
        return place
    with locked(name):
        if not place.is_dir():
            working = root / f"{name}.new"
            working.mkdir(exist_ok=True)
            make(working)
            working.rename(place)
    return place


@contextmanager
def locked(name: str) -> Iterator[None]:
    """Have a folder of the cache for this process alone; say so when another one has it."""
    root = cache()
    root.mkdir(parents=True, exist_ok=True)
    with (root / f"{name}.lock").open("wb") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print(f"Waiting for the process that makes {root / name}", file=sys.stderr, flush=True)
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield
