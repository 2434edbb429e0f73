"""The committer's queue: what goes into a batch, who is answered what, and that nothing is forgotten."""

import asyncio
from collections.abc import Sequence
from typing import Any
from uuid import UUID

import pytest

from picopay_api.engine import committer as module
from picopay_api.engine.commands import Command, Condition
from picopay_api.engine.committer import Committer
from picopay_api.engine.ids import new_id
from picopay_api.errors import (
    DatabaseUnavailable,
    DeadlineExceeded,
    IdempotencyKeyInFlight,
    InternalError,
    Overloaded,
    PicoPayError,
    ShuttingDown,
    TransactionAlreadyReversed,
)
from picopay_api.metrics import QUEUE_COMMANDS, REGISTRY
from picopay_api.store.decide import Outcome
from support.clerk import LIMITS, Office, accepted, command, office, refused

LEDGER, OTHER, THIRD = sorted(new_id() for _ in range(3))


def numbers(batches: Sequence[Sequence[Command]], among: Sequence[Command]) -> list[list[int]]:
    """Name the commands of batches by their place of arrival."""
    places = {one.id: place for place, one in enumerate(among)}
    return [[places[one.id] for one in batch] for batch in batches]


async def busy(place: Office, ledger: UUID = LEDGER) -> "asyncio.Task[Outcome]":
    """Keep the only session busy with a command of its own, so that what comes has to wait."""
    (task,) = await place.submit(command(ledger))
    assert len(place.clerk.held) == 1
    return task


async def test_a_batch_is_what_waits_up_to_a_third_of_what_is_open_in_order_of_arrival() -> None:
    async with office() as place:
        first = await busy(place)
        commands = [command(LEDGER) for _ in range(90)]
        tasks = await place.submit(*reversed(commands))
        batches = await place.settle_all()
        # Thirds of 90 and of 60; then sixteen, of which each is worth a batch.
        assert [len(batch) for batch in batches] == [1, 30, 20, 16, 16, 8]
        places = numbers(batches[1:], commands[::-1])
        assert [place for batch in places for place in batch] == list(range(90))
        outcomes = [await task for task in (first, *tasks)]
        assert [one.id for one in outcomes[1:]] == [one.id for one in reversed(commands)]
        assert not any(one.replayed for one in outcomes)


async def test_a_batch_has_a_cap() -> None:
    async with office(batch_commands_max=4) as place:
        await busy(place)
        await place.submit(*[command(LEDGER) for _ in range(30)])
        sizes = [len(batch) for batch in await place.settle_all()]
        assert max(sizes) == 4
        assert sum(sizes) == 31


async def test_a_batch_is_bounded_by_its_postings_but_no_command_is_too_large_for_one() -> None:
    async with office(queue_bytes_max=64 * 1024**2) as place:
        await busy(place)
        (posting,) = command(LEDGER).postings
        sizes = [1_000, 999, 1, 1, 2_500, 3, 1_999]
        commands = [command(LEDGER, postings=(posting,) * size) for size in sizes]
        fillers = [command(OTHER) for _ in range(30)]  # so that a third of all is more than these
        await place.submit(*commands, *fillers)
        batches = [batch for batch in await place.settle_all() if batch[0] in commands]
        assert numbers(batches, commands) == [[0, 1, 2], [3], [4], [5], [6]]


@pytest.mark.parametrize("shared", ["reference", "parent"])
async def test_what_shares_a_reference_or_a_parent_is_decided_apart(shared: str) -> None:
    value: Any = "the same" if shared == "reference" else new_id()
    async with office() as place:
        await busy(place)
        fields: list[dict[str, Any]] = [{shared: value} if n % 3 == 0 else {} for n in range(7)]
        commands = [command(LEDGER, **field) for field in fields]
        await place.submit(*commands)
        await place.submit(*[command(OTHER) for _ in range(30)])
        batches = [batch for batch in await place.settle_all() if batch[0] in commands]
        assert numbers(batches, commands) == [[0, 1, 2], [3, 4, 5], [6]]


async def test_ledgers_take_turns() -> None:
    async with office(batch_commands_max=3) as place:
        await busy(place)
        await place.submit(*[command(LEDGER) for _ in range(9)])
        await place.submit(command(OTHER), command(THIRD), *[command(OTHER) for _ in range(4)])
        batches = await place.settle_all()
        turns = [(batch[0].ledger, len(batch)) for batch in batches]
        assert turns == [
            *[(LEDGER, 1), (LEDGER, 3), (OTHER, 3), (THIRD, 1)],
            *[(LEDGER, 3), (OTHER, 2), (LEDGER, 3)],
        ]
        assert all(one.ledger == batch[0].ledger for batch in batches for one in batch)


async def test_each_session_decides_a_batch_at_a_time() -> None:
    async with office(connections=2, batch_commands_max=2) as place:
        await place.submit(*[command(LEDGER) for _ in range(40)])
        first, second = place.clerk.held
        assert (len(first.commands), len(second.commands)) == (2, 2)
        second.settle(accepted)  # the later one may be ready first
        await place.rest()
        assert place.clerk.held[0] is first
        assert len(place.clerk.held) == 2
        await place.settle_all()


async def test_a_few_wait_for_the_batch_before_and_no_longer(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with office(connections=2) as place:
        monkeypatch.setattr(module, "_PATIENCE_S", 60)
        await place.submit(command(LEDGER))
        await place.submit(*[command(LEDGER) for _ in range(15)])
        (only,) = place.clerk.held
        only.settle(accepted)
        await place.rest()
        (following,) = place.clerk.held
        assert len(following.commands) == 15
        await place.settle_all()
    async with office(connections=2) as place:
        monkeypatch.setattr(module, "_PATIENCE_S", 0.01)
        await place.submit(command(LEDGER))
        await place.submit(*[command(LEDGER) for _ in range(15)])
        await asyncio.sleep(0.05)
        assert [len(one.commands) for one in place.clerk.held] == [1, 15]
        await place.settle_all()


async def test_the_same_key_joins_the_first_one() -> None:
    async with office() as place:
        await busy(place)
        first = command(LEDGER, key="order-1")
        joined = [command(LEDGER, key="order-1") for _ in range(3)]
        elsewhere = command(OTHER, key="order-1")
        tasks = await place.submit(first, *joined, elsewhere)
        await place.settle_all()
        outcomes = [await task for task in tasks]
        assert [one.id for one in outcomes] == [first.id] * 4 + [elsewhere.id]
        assert [one.replayed for one in outcomes] == [False, True, True, True, False]
        assert [len(batch.commands) for batch in place.clerk.taken] == [1, 1, 1]


async def test_a_refusal_is_told_to_those_who_joined_as_a_replay() -> None:
    async with office() as place:
        tasks = await place.submit(*[command(LEDGER, key="order-1") for _ in range(2)])
        await place.settle(refused)
        errors = [task.exception() for task in tasks]
        assert all(isinstance(error, TransactionAlreadyReversed) for error in errors)
        assert [error.replayed for error in errors if isinstance(error, PicoPayError)] == [
            False,
            True,
        ]


async def test_the_same_key_with_another_body_is_refused_while_the_first_one_runs() -> None:
    async with office() as place:
        await place.submit(command(LEDGER, key="order-1"))
        (queued,) = await place.submit(command(LEDGER, key="order-2"))
        others = await place.submit(
            *[command(LEDGER, key=f"order-{n}", body=b"another") for n in (1, 2)]
        )
        for task in others:
            assert isinstance(task.exception(), IdempotencyKeyInFlight)
        await place.settle_all()
        assert not (await queued).replayed
        (later,) = await place.submit(command(LEDGER, key="order-1", body=b"another"))
        await place.settle()  # nobody runs any more: the database will tell
        assert later.done()


async def test_the_number_of_those_who_wait_for_one_key_is_bounded() -> None:
    async with office(queue_commands_max=3) as place:
        tasks = await place.submit(*[command(LEDGER, key="order-1") for _ in range(4)])
        assert isinstance(tasks[3].exception(), Overloaded)
        await place.settle()
        assert [(await task).replayed for task in tasks[:3]] == [False, True, True]


async def test_the_queue_is_bounded_in_commands() -> None:
    async with office(queue_commands_max=3) as place:
        await busy(place)
        tasks = await place.submit(*[command(LEDGER) for _ in range(5)])
        assert [type(task.exception()) for task in tasks if task.done()] == [Overloaded] * 2
        assert not any(task.done() for task in tasks[:3])
        decided = await place.settle_all()
        assert sum(map(len, decided)) == 4
        (after,) = await place.submit(command(LEDGER))
        await place.settle()
        assert (await after).code == "ok"


async def test_the_queue_is_bounded_in_bytes() -> None:
    async with office(queue_bytes_max=65_536) as place:
        await busy(place)
        large = {f"key-{n}": "€" * 500 for n in range(50)}  # three bytes to send, two to keep
        tasks = await place.submit(
            command(LEDGER, metadata=large),
            command(LEDGER, metadata=large),
            command(LEDGER),
            command(LEDGER, conditions=(Condition(LEDGER, 0, None),) * 100),
        )
        assert [task.done() for task in tasks] == [False, True, False, True]
        for task in (tasks[1], tasks[3]):
            assert isinstance(task.exception(), Overloaded)
        await place.settle_all()
        (after,) = await place.submit(command(LEDGER, metadata=large))
        assert not after.done()
        await place.settle()


async def test_who_leaves_takes_nothing_along() -> None:
    async with office() as place:
        await busy(place)
        alone, first, joined = await place.submit(
            command(LEDGER, key="order-1"),
            command(LEDGER, key="order-2"),
            command(LEDGER, key="order-2"),
        )
        alone.cancel()
        first.cancel()
        await place.settle()
        assert place.clerk.held[0].wanted(place.clerk.held[0].commands)
        decided = await place.settle_all()
        assert sum(map(len, decided)) == 2
        assert alone.cancelled()
        assert first.cancelled()
        assert (await joined).replayed


async def test_what_expires_in_the_queue_is_not_done() -> None:
    async with office(timeout_s=10) as place:
        deciding = await busy(place)
        await place.pass_time(1)
        tasks = await place.submit(command(LEDGER, key="order-1"), command(OTHER))
        await place.pass_time(8)
        (joined, late) = await place.submit(command(LEDGER, key="order-1"), command(LEDGER))
        await place.pass_time(2)
        for task in (*tasks, joined):  # who joins shares the deadline
            error = task.exception()
            assert isinstance(error, DeadlineExceeded)
            assert "nothing was done" in error.detail
        assert isinstance(deciding.exception(), DeadlineExceeded)
        batches = await place.settle_all()
        assert [len(batch) for batch in batches] == [1, 1]
        assert (await late).id == batches[1][0].id


async def test_what_expires_while_it_is_decided_is_found_by_its_key() -> None:
    async with office(timeout_s=10) as place:
        (task,) = await place.submit(command(LEDGER, key="order-1"))
        (batch,) = place.clerk.held
        assert batch.wanted(batch.commands)
        await place.pass_time(11)
        error = task.exception()
        assert isinstance(error, DeadlineExceeded)
        assert "the same key will tell" in error.detail
        assert not batch.wanted(batch.commands)
        # Who asks again joins what is still on its way, and is told that it was asked before.
        (again,) = await place.submit(command(LEDGER, key="order-1"))
        await place.pass_time(9)  # with a deadline of its own
        assert batch.wanted(batch.commands)
        await place.settle()
        outcome = await again
        assert (outcome.id, outcome.replayed) == (batch.commands[0].id, True)


async def test_the_gauge_of_the_queue_is_right_while_nothing_gets_through() -> None:
    async with office() as place:
        await busy(place)
        await place.submit(*[command(LEDGER) for _ in range(4)])
        assert REGISTRY.get_sample_value(QUEUE_COMMANDS._name) == 4
        await place.pass_time(11)
        assert REGISTRY.get_sample_value(QUEUE_COMMANDS._name) == 0
        await place.settle()


async def test_a_defect_answers_everybody_and_stops_nobody() -> None:
    async with office() as place:
        await busy(place)
        tasks = await place.submit(command(LEDGER, key="order-1"), command(LEDGER, key="order-1"))
        place.clerk.held[0].ended.set_exception(ZeroDivisionError("a defect"))
        await place.rest()
        place.clerk.held[0].ended.set_result(None)  # as if it had forgotten the commands
        await place.rest()
        for task in tasks:
            assert isinstance(task.exception(), InternalError)
        (after,) = await place.submit(command(LEDGER, key="order-1"))
        await place.settle()
        assert not (await after).replayed


async def test_everybody_gets_an_error_of_their_own() -> None:
    async with office() as place:
        tasks = await place.submit(*[command(LEDGER, key="order-1") for _ in range(2)])
        await place.settle(lambda _: DatabaseUnavailable("away", retry=1))
        first, second = (task.exception() for task in tasks)
        assert isinstance(first, DatabaseUnavailable)
        assert isinstance(second, DatabaseUnavailable)
        assert first is not second
        assert (first.detail, first.members) == (second.detail, second.members)
        assert (first.detail, first.members) == ("away", {"retry": 1})


async def test_a_shutdown_decides_what_was_accepted_and_refuses_the_rest() -> None:
    async with office() as place:
        deciding = await busy(place)
        tasks = await place.submit(*[command(LEDGER, key=f"order-{n}") for n in range(5)])
        place.committer.stop_accepting()
        new, joined = await place.submit(
            command(LEDGER, key="order-9"), command(LEDGER, key="order-1")
        )
        assert isinstance(new.exception(), ShuttingDown)
        closing = asyncio.ensure_future(place.committer.close())
        decided = await place.settle_all()
        await closing
        assert sum(map(len, decided)) == 6
        assert [(await task).code for task in (deciding, *tasks)] == ["ok"] * 6
        assert (await joined).replayed


async def test_a_shutdown_that_cannot_decide_answers_everybody_all_the_same() -> None:
    async with office(timeout_s=10) as place:
        deciding = await busy(place)
        tasks = await place.submit(command(LEDGER), command(OTHER))
        await place.pass_time(5)
        place.committer.stop_accepting()
        await place.pass_time(4.999)
        draining = asyncio.ensure_future(place.committer.drain())
        await place.rest()
        assert not draining.done()
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(module, "_SWEEP_S", 3_600)  # the drain is over before the next look
            await place.rest()
            place.now_s += 10
            await draining
            await place.committer.close()
        await place.rest()
        for task in (deciding, *tasks):
            assert isinstance(task.exception(), ShuttingDown | DeadlineExceeded)
        (late,) = await place.submit(command(LEDGER))
        assert isinstance(late.exception(), ShuttingDown)


async def test_a_committer_that_never_began_ends() -> None:
    async with office() as place:
        idle = Committer(place.clerk, LIMITS)
        await idle.close()
