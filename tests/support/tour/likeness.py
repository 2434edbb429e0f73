"""Whether a run of the tour has shown what another one did, but for what is another in every run.

Used by `player.py`. Pure.
"""

import difflib
import re
from collections.abc import Iterator

_SAFE = "[bcdfghjklmnpqrstvwxz2456789]"  # of what Kubernetes makes names at random
_IN_EVERY_RUN = {
    r"\b\d+[dhms](?:\d+[hms])?\b": "AGE",
    rf"-(?:[0-9a-f]{{8}}|{_SAFE}{{5,10}})-{_SAFE}{{5}}\b": "-POD",
    r"-[0-9a-f]{8}\b": "-JOB",
    # `picopay` says what it waits for, when it waits for long.
    r"^waiting for http\S+ …\n": "",
    # What containerd or docker says is for people.
    r"(?<=cannot pull )(\S+): .*": r"\1: REASON",
    # Columns are as wide as the longest name in them.
    r" {2,}": "  ",
}
"""What is put aside, and what stands in its place."""

_KEPT = {
    r"(?<=_)[0-9a-f]{32}\b": "ID",
    r"\b\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z": "TIME",
    r"^\d+$": "NUMBER",
}
"""What is another in every run, but the same whenever it is shown again."""


class Memory:
    """One run: its outputs are given one after the other, and each is returned without what is its own."""

    def __init__(self) -> None:
        self._names: dict[str, str] = {}

    def settled(self, text: str) -> str:
        """Return an output as every run shows it."""
        for pattern, kind in _KEPT.items():
            for found in re.findall(pattern, text, re.MULTILINE):
                self._names.setdefault(found, f"{kind}-{len(self._names) + 1}")
        for found, name in self._names.items():
            text = re.sub(rf"(?<![0-9a-f]){found}\b", name, text)
        for pattern, name in _IN_EVERY_RUN.items():
            text = re.sub(pattern, name, text, flags=re.MULTILINE)
        return text


def differences(was: str, shown: str) -> Iterator[str]:
    """Yield the lines in which two settled outputs differ, as diff does."""
    yield from difflib.unified_diff(
        was.splitlines(), shown.splitlines(), "the page", "this run", lineterm=""
    )
