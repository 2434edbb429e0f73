"""Delivers batches to a real database as the committer does, and reads what each command was told.

Used by the tests of `engine/delivery.py`.
"""

from collections.abc import Callable, Sequence
from typing import Any

from picopay_api.engine.commands import Command
from picopay_api.errors import PicoPayError
from picopay_api.store.decide import Outcome
from support.committing import Desk

Answer = Outcome | PicoPayError

TERMINATE_BLOCKED = (
    "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity"
    " WHERE datname = current_database() AND wait_event_type = 'Lock'"
)


async def deliver(
    desk: Desk,
    batch: Sequence[Command],
    wanted: "Callable[[Sequence[Command]], bool]" = lambda _: True,
) -> list[Answer]:
    """Deliver a batch as the committer does; return what each command was answered, once."""
    answers: dict[Any, Answer] = {}

    def settle(command: Command, answer: Answer) -> None:
        assert command.id not in answers
        answers[command.id] = answer

    await desk.delivery.deliver(batch, settle, wanted)
    return [answers[command.id] for command in batch]


def codes(answers: Sequence[Answer]) -> list[str]:
    return [answer.code for answer in answers]


def replays(answers: Sequence[Answer]) -> list[bool]:
    return [isinstance(answer, Outcome) and answer.replayed for answer in answers]


async def warm(desk: Desk) -> None:
    """Have each statement prepared, so that what comes next is one question and one answer."""
    command = desk.book.payment(desk.book.world, await desk.book.account(), 1)
    assert codes(await deliver(desk, [command])) == ["ok"]
