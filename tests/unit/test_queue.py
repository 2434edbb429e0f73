"""Engines wait in a queue: once each, one at a time, and later again when they fail."""

import asyncio

import pytest

from picopay_operator import queue
from picopay_operator.cache import Key
from picopay_operator.queue import WorkQueue
from support.waiting import eventually

ONE, TWO = Key("shop", "one"), Key("shop", "two")


class Worker:
    """Notes what is looked at; `gate` holds it up, `fail` makes it fail."""

    def __init__(self) -> None:
        self.seen: list[Key] = []
        self.now: set[Key] = set()
        self.gate = asyncio.Event()
        self.gate.set()
        self.fail: set[Key] = set()
        self.delays: dict[Key, float] = {}

    async def __call__(self, key: Key) -> float | None:
        assert key not in self.now
        self.now.add(key)
        self.seen.append(key)
        try:
            await self.gate.wait()
            if key in self.fail:
                raise RuntimeError("broken")
            return self.delays.pop(key, None)
        finally:
            self.now.discard(key)


@pytest.fixture
async def worker() -> Worker:
    return Worker()


async def until(worker: Worker, *seen: Key) -> None:
    async def done() -> bool:
        return worker.seen == list(seen) and not worker.now

    await eventually(done)


async def test_however_often_it_is_woken_an_engine_is_looked_at_once(worker: Worker) -> None:
    waiting = WorkQueue(worker, 2)
    for key in (ONE, ONE, TWO, ONE):
        waiting.wake(key)
    assert waiting.depth == 2
    task = asyncio.create_task(waiting.run())
    await until(worker, ONE, TWO)
    assert (waiting.depth, waiting.oldest_s) == (0, 0)
    task.cancel()


async def test_who_is_woken_meanwhile_is_looked_at_once_more_and_never_twice_at_once(
    worker: Worker,
) -> None:
    waiting = WorkQueue(worker, 4)
    task = asyncio.create_task(waiting.run())
    worker.gate.clear()
    waiting.wake(ONE)
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert worker.seen == [ONE]
    for _ in range(5):
        waiting.wake(ONE)
    waiting.wake(TWO)
    worker.gate.set()
    await until(worker, ONE, TWO, ONE)
    task.cancel()


async def test_a_broken_engine_is_repeated_and_disturbs_no_other(
    worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(queue, "_PAUSE_S", 0.001)
    waiting = WorkQueue(worker, 1)
    task = asyncio.create_task(waiting.run())
    worker.fail = {ONE}
    waiting.wake(ONE)

    async def tried(times: int) -> bool:
        return worker.seen.count(ONE) >= times

    await eventually(lambda: tried(4))
    waiting.wake(TWO)

    async def other() -> bool:
        return TWO in worker.seen

    await eventually(other)
    worker.fail.clear()
    count = worker.seen.count(ONE)
    await eventually(lambda: tried(count + 1))
    waiting.forget(ONE)
    task.cancel()


async def test_a_broken_engine_is_not_hurried_by_what_belongs_to_it(
    worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(queue, "_PAUSE_S", 500)
    monkeypatch.setattr(queue, "_WOKEN_PAUSE_S", 500)
    waiting = WorkQueue(worker, 1)
    task = asyncio.create_task(waiting.run())
    worker.fail = {ONE}
    worker.gate.clear()
    waiting.wake(ONE)

    async def is_looked_at() -> bool:
        return ONE in worker.now

    await eventually(is_looked_at)
    waiting.wake(ONE)  # while it is being looked at, and afterwards
    worker.gate.set()
    await until(worker, ONE)
    waiting.wake(ONE)
    waiting.wake(TWO)
    await until(worker, ONE, TWO)
    # What asks for something else is looked at, whatever has been before.
    waiting.wake_afresh(ONE)
    await until(worker, ONE, TWO, ONE)
    # After a while, what belongs to it has it looked at again, long before its pause is over.
    monkeypatch.setattr(queue, "_WOKEN_PAUSE_S", 0.01)
    waiting.wake(ONE)
    await until(worker, ONE, TWO, ONE, ONE)
    waiting.forget(ONE)
    task.cancel()


def test_pauses_grow_to_a_bound_and_are_never_shorter_than_asked_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("random.uniform", lambda *_: 1.0)
    waiting = WorkQueue(Worker.__call__, 1)  # type: ignore[arg-type]  # it is never run
    pauses = []
    for failures in range(1, 30):
        waiting._failures[ONE] = failures
        pauses.append(waiting._pause_s(ONE, None))
    assert pauses == sorted(pauses)
    assert (pauses[0], pauses[-1]) == (0.5, 300)
    assert waiting._pause_s(TWO if TWO in waiting._failures else ONE, 400) == 400


async def test_an_engine_is_looked_at_again_when_that_was_asked_for(worker: Worker) -> None:
    waiting = WorkQueue(worker, 1)
    task = asyncio.create_task(waiting.run())
    worker.delays[ONE] = 0.01
    waiting.wake(ONE)
    await until(worker, ONE, ONE)
    waiting.wake_later(ONE, 0.02)
    waiting.wake_later(ONE, 500)  # the sooner one counts
    await until(worker, ONE, ONE, ONE)
    waiting.wake_later(ONE, 0.01)
    waiting.forget(ONE)
    await asyncio.sleep(0.05)
    assert len(worker.seen) == 3
    task.cancel()
