"""Which engine is to be looked at next: once each, one at a time, and later again when it fails.

Fed by `handlers.py`, worked off by `reconcile.py`. However often an engine is woken while it waits, it is
looked at once; woken while it is being looked at, once more after that. Failures are repeated with growing,
jittered pauses, so that a broken engine costs little and disturbs no other: not even its own children, busy
as they may be, have it looked at again much sooner.
"""

import asyncio
import random
from collections.abc import Awaitable, Callable
from time import monotonic

from picopay_operator.cache import Key

_PAUSE_S = 0.5
_PAUSE_MAX_S = 300.0
_WOKEN_PAUSE_S = 5.0
"""How long an engine that has failed is left alone at least when it is woken, unless its pause is shorter."""

type Work = Callable[[Key], Awaitable[float | None]]
"""Looks at an engine; returns when to look again, in seconds. An exception means: try again later."""


class WorkQueue:
    """Engines that wait. `work` is asked by up to `workers` tasks; `run` never ends by itself."""

    def __init__(self, work: Work, workers: int) -> None:
        self._work = work
        self._workers = workers
        self._ready: asyncio.Queue[Key] = asyncio.Queue()
        self._waiting: dict[Key, float] = {}
        self._busy: set[Key] = set()
        self._again: set[Key] = set()
        self._timers: dict[Key, tuple[float, asyncio.TimerHandle]] = {}
        self._failures: dict[Key, int] = {}
        self._failed_s: dict[Key, float] = {}

    @property
    def depth(self) -> int:
        """How many engines wait."""
        return len(self._waiting)

    @property
    def oldest_s(self) -> float:
        """How long the first of them has waited."""
        return monotonic() - min(self._waiting.values()) if self._waiting else 0.0

    def wake(self, key: Key) -> None:
        """Have an engine looked at now; one that fails, after a while."""
        if key in self._failures and key not in self._busy and key not in self._waiting:
            self.wake_later(key, self._failed_s[key] + _WOKEN_PAUSE_S - monotonic())
        else:
            self._put(key)

    def wake_afresh(self, key: Key) -> None:
        """Have an engine looked at now, whether it has failed before or not: it asks for something else."""
        self._forgive(key)
        self._put(key)

    def _put(self, key: Key) -> None:
        self._cancel(key)
        if key in self._busy:
            self._again.add(key)
        elif key not in self._waiting:
            self._waiting[key] = monotonic()
            self._ready.put_nowait(key)

    def wake_later(self, key: Key, delay_s: float) -> None:
        """Have an engine looked at after a while, unless something wakes it before."""
        at_s = monotonic() + delay_s
        if key in self._timers and self._timers[key][0] <= at_s:
            return
        self._cancel(key)
        timer = asyncio.get_running_loop().call_later(delay_s, self._put, key)
        self._timers[key] = at_s, timer

    def forget(self, key: Key) -> None:
        """Look at an engine no more: it is gone."""
        self._cancel(key)
        self._forgive(key)

    async def run(self) -> None:
        """Work until cancelled."""
        async with asyncio.TaskGroup() as group:
            for _ in range(self._workers):
                group.create_task(self._work_off())

    async def _work_off(self) -> None:
        while True:
            key = await self._ready.get()
            del self._waiting[key]
            self._busy.add(key)
            try:
                delay_s = await self._work(key)
            except Exception as error:  # noqa: BLE001  # the work has logged and shown it: nothing may end this loop
                self._failures[key] = self._failures.get(key, 0) + 1
                self._failed_s[key] = monotonic()
                delay_s = self._pause_s(key, getattr(error, "retry_after_s", None))
            else:
                self._forgive(key)
            finally:
                self._busy.discard(key)
            if delay_s is not None:
                self.wake_later(key, delay_s)
            if key in self._again:
                self._again.discard(key)
                self.wake(key)

    def _pause_s(self, key: Key, asked_s: float | None) -> float:
        grown_s = _PAUSE_S * 2.0 ** min(self._failures[key] - 1, 16)
        pause_s: float = max(min(_PAUSE_MAX_S, grown_s), asked_s or 0.0)
        return pause_s * random.uniform(0.75, 1.25)  # noqa: S311  # not for secrets

    def _forgive(self, key: Key) -> None:
        self._failures.pop(key, None)
        self._failed_s.pop(key, None)

    def _cancel(self, key: Key) -> None:
        if key in self._timers:
            self._timers.pop(key)[1].cancel()
