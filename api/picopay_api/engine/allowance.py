"""An allowance: so much at once, and so much more with time (a token bucket).

Used by `keys.py` for look-ups of API keys that may be guesses. Pure but for the clock that it is given.
"""


class Allowance:
    """`burst` at once, then `per_s` a second; the time is any that rises, in seconds."""

    def __init__(self, burst: int, per_s: float, now_s: float) -> None:
        self._burst = burst
        self._per_s = per_s
        self._left = float(burst)
        self._seen_s = now_s

    def is_left(self, now_s: float) -> bool:
        """Tell whether there is something left."""
        earned = (now_s - self._seen_s) * self._per_s
        self._left = min(float(self._burst), self._left + earned)
        self._seen_s = now_s
        return self._left >= 1

    def take(self) -> None:
        """Use one up; what is not left is owed, up to as much as the burst."""
        self._left = max(-float(self._burst), self._left - 1)
