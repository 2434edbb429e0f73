"""The check of what clients saw against the ledger: it accepts what can have been, and finds what cannot."""

import random
from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from support.bank_history import (
    Entry,
    History,
    Ledger,
    Operation,
    Reading,
    Replay,
    Row,
    StateChange,
    faults,
)

ACCOUNTS = ("alice", "bob", "carol", "dave")
Story = tuple[History, Ledger]


def story(seed: int = 1, count: int = 300) -> Story:
    """Make a history as clients that ask at once have it, and the ledger that belongs to it."""
    chance = random.Random(seed)
    history = History(operations=[], replays=[], readings=[], states=[])
    balances = dict.fromkeys(ACCOUNTS, 0)
    entries: dict[str, list[Entry]] = {account: [] for account in ACCOUNTS}
    rows: list[Row] = []
    for number in range(count):
        now = float(number)  # when it takes effect; spans overlap with some of the neighbours'
        span: dict[str, Any] = {
            "sent": now - chance.uniform(0, 4),
            "answered": now + chance.uniform(0, 4),
        }
        account, other = chance.sample(ACCOUNTS[:3], 2)
        if chance.random() < 0.3:
            history.readings.append(Reading(account=account, balance=balances[account], **span))
            continue
        key, move = f"key-{number}", (account, other, chance.randrange(1, 9))
        if chance.random() < 0.1:
            said: dict[str, Any] = {"account": account, "available": balances[account]}
            history.operations.append(
                Operation(key=key, moves=(move,), told="insufficient_funds", **said, **span)
            )
            continue
        id = f"id-{number}"
        history.operations.append(Operation(key=key, moves=(move,), told="ok", id=id, **span))
        rows.append(Row(id, key, (move,), None))
        for name, amount in ((account, -move[2]), (other, move[2])):
            balances[name] += amount
            entries[name].append(Entry(id, amount, balances[name]))
        history.replays.append(
            Replay(key=key, same=True, told="ok", id=id, sent=now + 9, answered=now + 10)
        )
    feed = [(position, row.id) for position, row in enumerate(rows, 1)]
    return history, Ledger(rows, entries, feed)


@pytest.mark.parametrize("seed", range(20))
def test_what_can_have_been_is_accepted(seed: int) -> None:
    assert faults(*story(seed)) == []


def lose(history: History, ledger: Ledger) -> Story:
    return history, msgspec.structs.replace(ledger, rows=ledger.rows[1:])


def double(history: History, ledger: Ledger) -> Story:
    twin = msgspec.structs.replace(ledger.rows[3], id="id-twin")
    return history, msgspec.structs.replace(ledger, rows=[*ledger.rows, twin])


def double_the_entries(history: History, ledger: Ledger) -> Story:
    entries = {**ledger.entries, "bob": [*ledger.entries["bob"], ledger.entries["bob"][-1]]}
    return history, msgspec.structs.replace(ledger, entries=entries)


def change_the_amount(history: History, ledger: Ledger) -> Story:
    source, destination, amount = ledger.rows[5].moves[0]
    other = msgspec.structs.replace(ledger.rows[5], moves=((source, destination, amount + 1),))
    rows = [*ledger.rows[:5], other, *ledger.rows[6:]]
    return history, msgspec.structs.replace(ledger, rows=rows)


def invent(history: History, ledger: Ledger) -> Story:
    phantom = Row("id-phantom", "key-phantom", (("alice", "bob", 1),), None)
    return history, msgspec.structs.replace(ledger, rows=[*ledger.rows, phantom])


def book_what_was_refused(history: History, ledger: Ledger) -> Story:
    one = next(each for each in history.operations if each.told != "ok")
    row = Row("id-refused", one.key, one.moves, None)
    return history, msgspec.structs.replace(ledger, rows=[*ledger.rows, row])


def reverse_twice(history: History, ledger: Ledger) -> Story:
    rows = list(ledger.rows)
    for place in (7, 8):
        rows[place] = msgspec.structs.replace(rows[place], reverses=rows[0].id)
    return history, msgspec.structs.replace(ledger, rows=rows)


def swap_entries(history: History, ledger: Ledger) -> Story:
    each = list(ledger.entries["bob"])
    each[2], each[30] = each[30], each[2]
    return history, msgspec.structs.replace(ledger, entries={**ledger.entries, "bob": each})


def swap_the_feed(history: History, ledger: Ledger) -> Story:
    ids = [id for _, id in ledger.feed]
    ids[2], ids[40] = ids[40], ids[2]
    return history, msgspec.structs.replace(ledger, feed=list(enumerate(ids, 1)))


def skip_in_the_feed(history: History, ledger: Ledger) -> Story:
    return history, msgspec.structs.replace(ledger, feed=[*ledger.feed[:9], *ledger.feed[10:]])


def drop_from_the_feed(history: History, ledger: Ledger) -> Story:
    return history, msgspec.structs.replace(ledger, feed=ledger.feed[:-1])


def repeat_in_the_feed(history: History, ledger: Ledger) -> Story:
    feed = [*ledger.feed, (len(ledger.feed) + 1, ledger.feed[-1][1])]
    return history, msgspec.structs.replace(ledger, feed=feed)


def tell_another_id(history: History, ledger: Ledger) -> Story:
    history.replays[4] = msgspec.structs.replace(history.replays[4], id="id-other")
    return history, ledger


def accept_another_body(history: History, ledger: Ledger) -> Story:
    history.replays[4] = msgspec.structs.replace(history.replays[4], same=False)
    return history, ledger


def read_what_was_long_ago(history: History, ledger: Ledger) -> Story:
    then = Reading(sent=290, answered=291, account="bob", balance=0)
    assert all(entry.after != 0 for entry in ledger.entries["bob"][-40:])
    history.readings.append(then)
    return history, ledger


def read_what_is_to_come(history: History, ledger: Ledger) -> Story:
    early = {0, *(entry.after for entry in ledger.entries["bob"][:40])}
    last = next(entry.after for entry in ledger.entries["bob"][40:] if entry.after not in early)
    history.readings.append(Reading(sent=1, answered=2, account="bob", balance=last))
    return history, ledger


def read_backwards(history: History, ledger: Ledger) -> Story:
    """Two readings while one long payment is on its way: the first one has it, the second has not."""
    move = ("carol", "dave", 5)
    history.operations.append(
        Operation(key="slow", moves=(move,), told="ok", id="id-slow", sent=400, answered=500)
    )
    after = ledger.entries["carol"][-1].after - 5 if ledger.entries["carol"] else -5
    entries = {
        **ledger.entries,
        "carol": [*ledger.entries["carol"], Entry("id-slow", -5, after)],
        "dave": [Entry("id-slow", 5, 5)],
    }
    rows = [*ledger.rows, Row("id-slow", "slow", (move,), None)]
    feed = [*ledger.feed, (len(ledger.feed) + 1, "id-slow")]
    history.readings += [
        Reading(sent=410, answered=411, account="dave", balance=5),
        Reading(sent=420, answered=421, account="dave", balance=0),
    ]
    return history, Ledger(rows, entries, feed)


def book_on_a_frozen_account(history: History, ledger: Ledger) -> Story:
    history.states.append(StateChange(account="bob", state="frozen", sent=100, answered=101))
    return history, ledger


def refuse_for_a_frost_that_is_over(history: History, ledger: Ledger) -> Story:
    history.states += [
        StateChange(account="dave", state="frozen", sent=100, answered=101),
        StateChange(account="dave", state="open", sent=110, answered=111),
    ]
    move = ("dave", "alice", 1)
    history.operations.append(
        Operation(key="frosty", moves=(move,), told="account_frozen", sent=120, answered=121)
    )
    return history, ledger


@pytest.mark.parametrize(
    ("plant", "found"),
    [
        (lose, "is not in the journal"),
        (double, "times"),
        (double_the_entries, "two entries for each posting"),
        (change_the_amount, "as another operation"),
        (invent, "nobody has asked for key-phantom"),
        (book_what_was_refused, "was refused (insufficient_funds) and is in the journal"),
        (reverse_twice, "is reversed 2 times"),
        (swap_entries, "is after it in the entries of bob"),
        (swap_the_feed, "is after it in the feed"),
        (skip_in_the_feed, "are not 1, 2, 3"),
        (drop_from_the_feed, "is not in the feed"),
        (repeat_in_the_feed, "is in the feed 2 times"),
        (tell_another_id, "and then ok id-other"),
        (accept_another_body, "with another body was told ok"),
        (read_what_was_long_ago, "bob was read as 0"),
        (read_what_is_to_come, "bob was read as"),
        (read_backwards, "dave was read as 0"),
        (book_on_a_frozen_account, "was booked on bob while it was"),
        (refuse_for_a_frost_that_is_over, "while no account of it was so"),
    ],
)
def test_what_cannot_have_been_is_found(plant: Callable[..., Story], found: str) -> None:
    said = faults(*plant(*story()))
    assert any(found in sentence for sentence in said), said


def test_what_was_asked_on_both_sides_of_a_change_may_have_seen_either() -> None:
    history, ledger = story(count=0)
    history.states.append(StateChange(account="dave", state="frozen", sent=10, answered=12))
    move = ("dave", "alice", 1)
    for number, (sent, answered) in enumerate([(9, 11), (11, 13), (1, 20)]):
        history.operations.append(
            Operation(
                key=str(number), moves=(move,), told="account_frozen", sent=sent, answered=answered
            )
        )
    assert faults(history, ledger) == []
