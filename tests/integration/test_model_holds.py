"""Legs that reserve money, in the database and in the model.

No request makes them yet; what decides them is there, and holds must find it right.
"""

import hashlib
from typing import NamedTuple
from uuid import UUID

from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from picopay_api.engine.commands import Command, Condition, Kind, Leg
from picopay_api.engine.ids import new_id
from picopay_api.engine.ledger import BALANCE_MAX_MINOR
from picopay_api.store.database import Database
from support import model
from support.invariants import broken_rules
from support.journal import Book
from support.scene import as_model, ask

FLOORS = (None, 0, 0, -10)


class Step(NamedTuple):
    """What a command does: amounts move between accounts, and are held (or released) on them."""

    moves: list[tuple[int, int, int]]
    holds: list[tuple[int, int]]
    available_at_least: int | None
    dry: bool


places = st.integers(0, len(FLOORS) - 1)
amounts = st.integers(1, 30) | st.just(BALANCE_MAX_MINOR // 2)
steps = st.builds(
    Step,
    st.lists(st.tuples(places, places, amounts), max_size=2),
    st.lists(st.tuples(places, st.integers(-20, 20) | amounts), max_size=2),
    st.none() | st.integers(-5, 15),
    st.sampled_from([False, False, False, True]),
)


@settings(
    max_examples=80,
    suppress_health_check=list(HealthCheck),
    phases=[Phase.explicit, Phase.reuse, Phase.generate],
)
@given(batches=st.lists(st.lists(steps, min_size=1, max_size=5), min_size=1, max_size=8))
async def test_what_is_held_is_decided_as_in_the_model(
    database: Database, batches: list[list[Step]]
) -> None:
    book, ledger = await Book.make(database), model.Ledger()
    ledger.accounts[book.world] = model.Account("USD", None)
    accounts = [await book.account(floor_minor=floor) for floor in FLOORS]
    for account, floor in zip(accounts, FLOORS, strict=True):
        ledger.accounts[account] = model.Account("USD", floor)
    for batch in batches:
        commands = [command_of(step, book, accounts) for step in batch]
        wanted = ledger.decide(commands)
        assert [as_model(outcome) for outcome in await ask(book, *commands)] == wanted
        records = await database.rows(
            "SELECT account_id, posted_minor, held_minor, sequence FROM picopay.balance"
            " WHERE ledger_id = $1",
            book.ledger,
        )
        assert {record[0]: tuple(record)[1:] for record in records} == {
            id: (account.posted_minor, account.held_minor, account.sequence)
            for id, account in ledger.accounts.items()
        }
    async with database.session() as connection:
        assert await broken_rules(connection, book.ledger) == []


def command_of(step: Step, book: Book, accounts: list[UUID]) -> Command:
    id = new_id()
    legs = [
        leg
        for source, destination, amount in step.moves
        for leg in (
            Leg(accounts[source], "USD", -amount),
            Leg(accounts[destination], "USD", amount),
        )
    ]
    bound = step.available_at_least
    return Command(
        ledger=book.ledger,
        id=id,
        kind=Kind.TRANSACTION,
        key=None if step.dry else id.hex,
        fingerprint=hashlib.sha256(id.bytes).digest(),
        postings=(),
        legs=(*legs, *(Leg(accounts[place], "USD", 0, held) for place, held in step.holds)),
        conditions=() if bound is None else (Condition(accounts[1], bound, None),),
    )
