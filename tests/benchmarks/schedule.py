"""When requests are due: always (a closed loop), or at a constant rate (an open one). Pure.

Used by `client.py`. Latency counts from when a request was due. So a server that stands still for a second
is charged for each request of that second, not for the one that happened to be on its way.
"""

import math
from collections.abc import Sequence


class Schedule:
    """Hands out the times at which requests are due, from `began_s` on, in order."""

    def __init__(self, began_s: float, per_s: float | None) -> None:
        self._began_s = began_s
        self._interval_s = None if per_s is None else 1 / per_s
        self._taken = 0

    def is_due(self, now_s: float) -> bool:
        """Tell whether a request is due."""
        return self._interval_s is None or self._at_s(self._taken) <= now_s

    def take(self, now_s: float) -> float:
        """Take the next request; return when it was due."""
        self._taken += 1
        return now_s if self._interval_s is None else self._at_s(self._taken - 1)

    def next_s(self, now_s: float) -> float:
        """Return when the next request is due."""
        return now_s if self._interval_s is None else self._at_s(self._taken)

    def waiting_s(self, now_s: float) -> Sequence[float]:
        """Return for how long each request has been waiting that is due and was not taken."""
        if self._interval_s is None:
            return []
        due = math.ceil((now_s - self._began_s) / self._interval_s)  # those before now
        return [now_s - self._at_s(number) for number in range(self._taken, due)]

    def _at_s(self, number: int) -> float:
        assert self._interval_s is not None
        return self._began_s + number * self._interval_s
