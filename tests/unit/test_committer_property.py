"""Whatever happens in whatever order, the committer answers everybody and forgets everything."""

import asyncio
from typing import Any
from uuid import UUID

from hypothesis import given
from hypothesis import strategies as st

from picopay_api.engine.commands import Command
from picopay_api.engine.ids import new_id
from picopay_api.errors import DatabaseUnavailable, PicoPayError
from picopay_api.store.decide import Outcome
from support.clerk import Office, accepted, command, office, refused
from support.committing import heard

LEDGER, OTHER = sorted(new_id() for _ in range(2))


class Move:
    """What may happen next, for the property below."""

    submit = st.tuples(
        st.just("submit"),
        st.sampled_from([LEDGER, OTHER]),
        st.sampled_from(["a", "b", "c", None]),
        st.sampled_from([b"one", b"one", b"two"]),
        st.sampled_from([None, None, "r", "s"]),
    )
    cancel = st.tuples(st.just("cancel"), st.integers(0, 30))
    settle = st.tuples(st.just("settle"), st.integers(0, 1), st.sampled_from("argud"))
    wait = st.tuples(st.just("wait"), st.sampled_from([1, 4, 11]))
    any = st.one_of(submit, submit, submit, cancel, settle, settle, wait)


@given(moves=st.lists(Move.any, max_size=40), connections=st.integers(1, 2), ends=st.booleans())
def test_whatever_happens_everybody_is_answered_and_nothing_is_left(
    moves: list[tuple[Any, ...]], connections: int, ends: bool
) -> None:
    asyncio.run(Play(connections).run(moves, ends=ends))


class Play:
    """Plays moves against an office, and watches what must hold of every batch and answer."""

    def __init__(self, connections: int) -> None:
        self._connections = connections
        self._asked: list[tuple[Command, asyncio.Task[Outcome]]] = []

    async def run(self, moves: list[tuple[Any, ...]], *, ends: bool) -> None:
        """Play, then let everything come to an end; `ends`: by closing instead of deciding."""
        limits = {"batch_commands_max": 3, "queue_commands_max": 5, "timeout_s": 10.0}
        async with heard(), office(connections=self._connections, **limits) as place:
            for name, *arguments in moves:
                await getattr(self, f"_{name}")(place, *arguments)
                await place.rest()
                self._look_at_batches(place)
            if ends:
                place.committer.stop_accepting()
                place.now_s += 1_000
                await place.committer.close()
            else:
                await place.settle_all()
            await place.rest()
            self._look_at_answers(place)

    async def _submit(
        self, place: Office, ledger: UUID, key: str | None, body: bytes, reference: str | None
    ) -> None:
        asked = command(ledger, key, body, reference=reference)
        self._asked.append((asked, asyncio.create_task(place.committer.submit(asked))))

    async def _cancel(self, _: Office, number: int) -> None:
        if number < len(self._asked):
            self._asked[number][1].cancel()

    async def _settle(self, place: Office, number: int, how: str) -> None:
        if number >= len(place.clerk.held):
            return
        batch = place.clerk.held[number]
        match how:
            case "a":
                batch.settle(accepted)
            case "r":
                batch.settle(refused)
            case "g":
                batch.settle(lambda _: DatabaseUnavailable("gone"))
            case "u":
                batch.ended.set_result(None)
            case _:
                batch.ended.set_exception(ZeroDivisionError("a defect"))

    async def _wait(self, place: Office, seconds: float) -> None:
        await place.pass_time(seconds)

    def _look_at_batches(self, place: Office) -> None:
        arrival = {asked.id: number for number, (asked, _) in enumerate(self._asked)}
        seen: dict[UUID, list[int]] = {}
        for batch in place.clerk.taken:
            assert 1 <= len(batch.commands) <= 3
            assert len({one.ledger for one in batch.commands}) == 1
            references = [one.reference for one in batch.commands if one.reference]
            assert len(references) == len(set(references))
            seen.setdefault(batch.commands[0].ledger, []).extend(
                arrival[one.id] for one in batch.commands
            )
        for places in seen.values():  # in order of arrival, none twice
            assert places == sorted(set(places))
        deciding = [(c.ledger, c.key) for batch in place.clerk.held for c in batch.commands]
        assert len(deciding) == len(set(deciding))

    def _look_at_answers(self, place: Office) -> None:
        sent = {one.id for batch in place.clerk.taken for one in batch.commands}
        for asked, task in self._asked:
            assert task.done()
            if task.cancelled():
                continue
            error = task.exception()
            if error is None:
                outcome = task.result()
                assert outcome.id in sent
                assert outcome.replayed == (outcome.id != asked.id)
                continue
            assert isinstance(error, PicoPayError)
            if "nothing was done" in error.detail:
                assert asked.id not in sent
