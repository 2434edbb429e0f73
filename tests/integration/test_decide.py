"""`picopay.decide` rule by rule: what it refuses and in which order, what it keeps, what it never writes.

The rules together, in all combinations, are `test_model.py`'s; here each has a name and an example.
"""

import re
from collections.abc import Callable
from importlib.resources import files
from itertools import combinations
from typing import Any, NamedTuple
from uuid import UUID

import asyncpg
import pytest
from msgspec.structs import replace

from picopay_api.engine.commands import Command, Condition, Leg, Posting
from picopay_api.engine.ids import new_id
from picopay_api.errors import BY_CODE
from picopay_api.store.database import Database
from support.invariants import broken_rules
from support.journal import Book
from support.scene import Scene, ask, available, everything, freeze, keys, renewed, told


@pytest.fixture
async def scene(book: Book) -> Scene:
    return await Scene.make(book)


# Every refusal.


class Refusal(NamedTuple):
    """A command of the scene, the code it is refused with and the members that are told."""

    code: str
    command: Callable[[Scene], Command]
    members: Callable[[Scene], dict[str, Any] | None]


def with_condition(
    command: Command, account: UUID, low: int | None, high: int | None = None
) -> Command:
    return replace(command, conditions=(*command.conditions, Condition(account, low, high)))


def with_held(command: Command, account: UUID, held: int) -> Command:
    return replace(command, legs=(*command.legs, Leg(account, "USD", 0, held)))


REFUSALS = [
    Refusal(
        "idempotency_key_reused",
        lambda s: replace(s.pays(s.alice, s.bob), key=s.once.key),
        lambda _: None,
    ),
    Refusal(
        "reference_taken",
        lambda s: replace(s.pays(s.alice, s.bob), reference="order-1"),
        lambda _: {"reference": "order-1"},
    ),
    Refusal("transaction_already_reversed", lambda s: s.book.reversal(s.once), lambda _: None),
    Refusal(
        "account_not_found",
        lambda s: s.pays(s.alice, s.nobody),
        lambda s: {"account": str(s.nobody)},
    ),
    Refusal(
        "account_not_found",
        lambda s: with_condition(s.pays(s.alice, s.bob), s.nobody, None),
        lambda s: {"account": str(s.nobody)},
    ),
    Refusal(
        "asset_mismatch", lambda s: s.pays(s.alice, s.euro), lambda s: {"account": str(s.euro)}
    ),
    Refusal(
        "account_frozen", lambda s: s.pays(s.frozen, s.bob), lambda s: {"account": str(s.frozen)}
    ),
    Refusal(
        "account_closed", lambda s: s.pays(s.alice, s.closed), lambda s: {"account": str(s.closed)}
    ),
    Refusal(
        "condition_failed",
        lambda s: with_condition(s.pays(s.alice, s.bob), s.poor, 11),
        lambda s: {"account": str(s.poor), "available": 10},
    ),
    Refusal(
        "condition_failed",
        lambda s: with_condition(s.pays(s.alice, s.bob), s.poor, None, 9),
        lambda s: {"account": str(s.poor), "available": 10},
    ),
    Refusal(
        "balance_out_of_range",
        lambda s: s.pays(s.alice, s.richest),
        lambda s: {"account": str(s.richest)},
    ),
    Refusal(
        "balance_out_of_range",
        lambda s: s.pays(s.debtor, s.bob),
        lambda s: {"account": str(s.debtor)},
    ),
    Refusal(  # more is released than was held
        "balance_out_of_range",
        lambda s: with_held(s.pays(s.alice, s.bob), s.alice, -1),
        lambda s: {"account": str(s.alice)},
    ),
    Refusal(
        "insufficient_funds",
        lambda s: s.pays(s.poor, s.bob, 16),
        lambda s: {"account": str(s.poor), "available": 10, "required": 16, "min_balance": -5},
    ),
    Refusal(  # what it takes on the whole: 20 out, 3 in
        "insufficient_funds",
        lambda s: s.book.transaction(
            Posting(s.poor, s.bob, 20, "USD"), Posting(s.alice, s.poor, 3, "USD")
        ),
        lambda s: {"account": str(s.poor), "available": 10, "required": 17, "min_balance": -5},
    ),
    Refusal(  # of two, the one that is named first
        "insufficient_funds",
        lambda s: s.book.transaction(
            Posting(s.bob, s.alice, 1, "USD"), Posting(s.poor, s.alice, 16, "USD")
        ),
        lambda s: {"account": str(s.bob), "available": 0, "required": 1, "min_balance": 0},
    ),
    Refusal(  # what is held cannot be spent
        "insufficient_funds",
        lambda s: with_held(s.pays(s.poor, s.bob, 10), s.poor, 6),
        lambda s: {"account": str(s.poor), "available": 10, "required": 16, "min_balance": -5},
    ),
]


async def test_every_refusal_tells_its_members_is_kept_and_changes_nothing(scene: Scene) -> None:
    before = await everything(scene.book)
    for refusal in REFUSALS:
        command, members = refusal.command(scene), refusal.members(scene)
        dry = replace(command, key=None)
        if refusal.code != "idempotency_key_reused":
            [outcome] = await ask(scene.book, dry)
            assert (told(outcome), outcome.id) == ((refusal.code, members), None)
        [outcome] = await ask(scene.book, command)
        assert told(outcome) == (refusal.code, members)
        assert (outcome.id, outcome.replayed) == (None, False)
        [again] = await ask(scene.book, renewed(command, key=command.key))
        assert again.code == "idempotency_key_reused"
        [again] = await ask(scene.book, replace(command, id=new_id()))
        if refusal.code != "idempotency_key_reused":
            assert again == replace(outcome, replayed=True)
    assert await everything(scene.book) == before


def test_the_table_has_every_refusal_of_the_function() -> None:
    source = (files("picopay_api.store") / "decide.sql").read_text()
    codes = set(re.findall(r"'([a-z_]+)'", source[source.index("$decide$") :])) & set(BY_CODE)
    assert codes == {refusal.code for refusal in REFUSALS}


# The order of refusals, as the function's header documents it.

type Fault = Callable[[Scene, Command], Command]


def leg(name: str, asset: str = "USD") -> Fault:
    """Let a command move something to somebody of the scene."""
    return lambda scene, command: replace(
        command, legs=(*command.legs, Leg(getattr(scene, name), asset, 1))
    )


def reference_taken(_: Scene, command: Command) -> Command:
    return replace(command, reference="order-1")


FAULTS: list[tuple[str, Fault]] = [
    ("idempotency_key_reused", lambda s, c: replace(c, key=s.once.key)),
    ("reference_taken", reference_taken),
    ("transaction_already_reversed", lambda s, c: replace(c, parent=s.once.id)),
    ("account_not_found", leg("nobody")),
    ("asset_mismatch", leg("euro")),
    ("account_closed", leg("closed")),
    ("account_frozen", leg("frozen")),
    ("condition_failed", lambda s, c: with_condition(c, s.poor, 11)),
    ("balance_out_of_range", leg("richest")),
    (
        "insufficient_funds",
        lambda s, c: replace(c, legs=(*c.legs, Leg(s.poor, "USD", -16), Leg(s.bob, "USD", 16))),
    ),
]
LEGS = {"account_not_found", "asset_mismatch", "account_closed", "account_frozen"}


async def test_of_two_faults_the_first_in_the_documented_order_is_told(scene: Scene) -> None:
    for (first, one), (second, other) in combinations(FAULTS, 2):
        if {first, second} <= LEGS:
            continue  # leg by leg: below
        command = scene.pays(scene.alice, scene.bob)
        [outcome] = await ask(scene.book, one(scene, other(scene, command)))
        assert outcome.code == first, f"{first} comes before {second}"


async def test_faults_of_accounts_are_told_leg_by_leg(scene: Scene) -> None:
    faults = [fault for fault in FAULTS if fault[0] in LEGS]
    for (first, one), (_, other) in [*combinations(faults, 2), *combinations(faults[::-1], 2)]:
        command = replace(scene.pays(scene.alice, scene.bob), legs=())
        [outcome] = await ask(scene.book, other(scene, one(scene, command)))
        assert outcome.code == first
    wrong_in_two_ways = scene.pays(scene.alice, scene.closed_euro)
    [outcome] = await ask(scene.book, wrong_in_two_ways)
    assert outcome.code == "asset_mismatch"


async def test_accounts_of_legs_come_before_accounts_of_conditions(scene: Scene) -> None:
    command = with_condition(scene.pays(scene.alice, scene.frozen), scene.nobody, None)
    [outcome] = await ask(scene.book, command)
    assert told(outcome) == ("account_frozen", {"account": str(scene.frozen)})


# A batch: commands see what those before them did, and nothing of what those were refused.


async def test_a_refused_command_does_not_touch_its_neighbours(scene: Scene) -> None:
    book, alice, bob, poor = scene.book, scene.alice, scene.bob, scene.poor
    good = [scene.pays(alice, bob, n) for n in (1, 2, 4)]
    bad = [command(scene) for _, command, _ in REFUSALS]
    bad = [command for command in bad if (command.reference, command.parent) == (None, None)]
    batch = [good[0], *bad, good[1], scene.pays(poor, bob, 16), good[2]]
    outcomes = await ask(book, *batch)
    assert [outcome.id for outcome in outcomes if outcome.code == "ok"] == [c.id for c in good]
    assert await available(book, bob) == 7
    assert await available(book, poor) == 10
    lines = await book.database.rows(
        "SELECT sequence, posted_minor, posted_after_minor FROM picopay.entry"
        " WHERE ledger_id = $1 AND account_id = $2 ORDER BY sequence OFFSET 2",
        book.ledger,
        bob,
    )
    assert [tuple(line) for line in lines] == [(3, 1, 1), (4, 2, 3), (5, 4, 7)]
    async with book.database.session() as connection:
        assert await broken_rules(connection, book.ledger) == []


async def test_a_refusal_takes_neither_its_reference_nor_what_it_would_reverse(
    scene: Scene,
) -> None:
    """Nor does a dry run; also not when a neighbour is accepted."""
    book, alice, bob = scene.book, scene.alice, scene.bob
    paid = scene.pays(alice, bob, 50)
    spent = scene.pays(bob, alice, 50)
    await book.decide(paid, spent)
    undo = replace(book.reversal(paid), reference="order-2")
    outcomes = await ask(
        book,
        scene.pays(alice, scene.poor),
        undo,
        replace(scene.pays(alice, bob), key=None, reference="order-3"),
    )
    assert [outcome.code for outcome in outcomes] == ["ok", "insufficient_funds", "ok"]
    await book.decide(scene.pays(alice, bob, 50))
    again = renewed(undo), replace(scene.pays(alice, bob), reference="order-3")
    assert [outcome.code for outcome in await ask(book, *again)] == ["ok", "ok"]


async def test_money_received_in_a_batch_is_spent_in_it(book: Book) -> None:
    alice, bob, carol = await book.funded(), await book.account(), await book.account()
    chain = [book.payment(alice, bob, 5), book.payment(bob, carol, 5), book.payment(carol, bob, 2)]
    assert [outcome.code for outcome in await ask(book, *chain)] == ["ok"] * 3
    assert [await available(book, account) for account in (bob, carol)] == [2, 3]
    early = [book.payment(carol, bob, 4), book.payment(bob, carol, 2), book.payment(carol, bob, 4)]
    outcomes = await ask(book, *early)
    assert [outcome.code for outcome in outcomes] == ["insufficient_funds", "ok", "ok"]


async def test_a_transaction_may_pass_below_a_floor_on_its_way(book: Book) -> None:
    alice, bob = await book.funded(), await book.account()
    through = book.transaction(
        Posting(bob, book.world, 100, "USD"), Posting(alice, bob, 100, "USD")
    )
    [outcome] = await ask(book, through)
    assert outcome.code == "ok"
    assert await available(book, bob) == 0


async def test_conditions_see_what_was_there_before_the_command(book: Book) -> None:
    alice, bob = await book.funded(), await book.account()
    first = with_condition(book.payment(alice, bob, 10), bob, 0, 0)
    second = with_condition(book.payment(alice, bob, 10), bob, 10, 10)
    third = with_condition(book.payment(alice, bob, 10), bob, None, 10)
    outcomes = await ask(book, first, second, third)
    assert [outcome.code for outcome in outcomes] == ["ok", "ok", "condition_failed"]


# Dry runs.


async def test_a_dry_run_judges_and_writes_nothing(scene: Scene) -> None:
    book = scene.book
    before = await everything(book), await keys(book)
    for amount, code in ((15, "ok"), (16, "insufficient_funds")):
        dry = replace(scene.pays(scene.poor, scene.bob, amount), key=None, reference="order-2")
        [outcome] = await ask(book, dry)
        assert (outcome.code, outcome.id, outcome.replayed) == (code, None, False)
        assert (await everything(book), await keys(book)) == before


async def test_a_dry_run_sees_the_batch_before_it_and_leaves_no_trace_in_it(scene: Scene) -> None:
    book, poor, bob = scene.book, scene.poor, scene.bob
    dry = replace(scene.pays(poor, bob, 10), key=None)
    batch = [scene.pays(poor, bob, 4), dry, scene.pays(poor, bob, 11), dry]
    outcomes = await ask(book, *(replace(command, id=new_id()) for command in batch))
    assert [o.code for o in outcomes] == ["ok", "ok", "ok", "insufficient_funds"]
    assert [o.id is None for o in outcomes] == [False, True, False, True]
    assert await available(book, poor) == -5


# Keys.


async def test_a_replay_says_what_was_decided_whatever_has_happened_since(scene: Scene) -> None:
    book = scene.book
    accepted, refused = scene.pays(scene.alice, scene.bob), scene.pays(scene.bob, scene.alice, 99)
    refused = replace(refused, key="k" * 255)
    first = await ask(book, refused, accepted)
    assert [outcome.code for outcome in first] == ["insufficient_funds", "ok"]
    await ask(book, scene.pays(scene.alice, scene.bob, 500))
    await freeze(book, scene.alice)
    before = await everything(book), await keys(book)
    again = [replace(command, id=new_id()) for command in (accepted, refused)]
    assert await ask(book, *again) == [replace(o, replayed=True) for o in first[::-1]]
    assert (await everything(book), await keys(book)) == before


async def test_a_key_belongs_to_a_ledger_and_an_operation(database: Database, book: Book) -> None:
    alice, bob = await book.funded(), await book.account()
    payment = replace(book.payment(alice, bob, 1), key="same")
    transaction = replace(book.transaction(Posting(alice, bob, 2, "USD")), key="same")
    other = await Book.make(database)
    elsewhere = replace(other.payment(other.world, await other.account(), 4), key="same")
    assert [o.code for o in await ask(book, payment, transaction)] == ["ok", "ok"]
    assert [o.code for o in await ask(other, elsewhere)] == ["ok"]
    reversal = replace(book.reversal(payment), key="same")
    assert [o.code for o in await ask(book, reversal)] == ["ok"]


async def test_commands_that_share_a_key_in_one_batch_are_stopped_by_the_primary_key(
    book: Book,
) -> None:
    alice, bob = await book.funded(), await book.account()
    one, other = (replace(book.payment(alice, bob, n), key="same") for n in (1, 2))
    with pytest.raises(asyncpg.UniqueViolationError):
        await ask(book, one, other)
    assert await available(book, bob) == 0
