"""Holds what clients saw against what the ledger says; pure, without a clock, a network or a database.

Used by the bank simulation. An operation takes effect at one moment between the first sending of it and its
answer, whatever was lost in between and however often it was asked again. All that follows from that, and
can be seen, is in `faults`: each rule returns sentences, none for a history that could have been.
"""

from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence

import msgspec

OK = "ok"

Move = tuple[str, str, int]
"""Source, destination, amount in minor units."""


class Span(msgspec.Struct, frozen=True, kw_only=True):
    """Something that a client asked; times are of one clock, in seconds."""

    sent: float
    answered: float


class Operation(Span, frozen=True, kw_only=True):
    """A payment, transaction or reversal with its key; `told` is `ok` or the code of the refusal.

    `account` and `available` are what a refusal for lack of funds has said.
    """

    key: str
    moves: tuple[Move, ...]
    told: str
    id: str | None = None
    reverses: str | None = None
    account: str | None = None
    available: int | None = None


class Replay(Span, frozen=True, kw_only=True):
    """A key of an operation that had been answered, asked again: with the same body, or another."""

    key: str
    same: bool
    told: str
    id: str | None = None


class Reading(Span, frozen=True, kw_only=True):
    """A balance that a client read."""

    account: str
    balance: int


class StateChange(Span, frozen=True, kw_only=True):
    """An account became `open`, `frozen` or `closed`; of one account, one after the other."""

    account: str
    state: str


class History(msgspec.Struct):
    """Everything that the clients of a ledger saw."""

    operations: list[Operation] = []
    replays: list[Replay] = []
    readings: list[Reading] = []
    states: list[StateChange] = []


class Entry(msgspec.Struct, frozen=True):
    """One line of an account's statement: of which transaction, and the balance after it."""

    transaction: str
    amount: int
    after: int


class Row(msgspec.Struct, frozen=True):
    """One row of the journal."""

    id: str
    key: str
    moves: tuple[Move, ...]
    reverses: str | None


class Ledger(msgspec.Struct, frozen=True):
    """What the ledger says: its journal, each account's entries in order, the feed in order.

    In the feed are positions and transactions.
    """

    rows: Sequence[Row]
    entries: Mapping[str, Sequence[Entry]]
    feed: Sequence[tuple[int, str]]


def faults(history: History, ledger: Ledger) -> list[str]:
    """Return what cannot have been, in sentences."""
    booked = {one.id: one for one in history.operations if one.told == OK and one.id is not None}
    return [
        *_once(history, ledger),
        *_replays(history),
        *_orders(ledger, booked),
        *_feed(ledger, booked),
        *_balances(history, ledger, booked),
        *_states(history),
    ]


def _once(history: History, ledger: Ledger) -> Iterator[str]:
    """Each operation that was acknowledged is there once and as it was asked, and nothing else is."""
    rows = {row.id: row for row in ledger.rows}
    keys = Counter(row.key for row in ledger.rows)
    if len(rows) < len(ledger.rows):
        yield "an id is in the journal twice"
    for one in history.operations:
        row = rows.get(one.id or "")
        if one.told != OK:
            if keys[one.key]:
                yield f"{one.key} was refused ({one.told}) and is in the journal"
        elif row is None:
            yield f"{one.key} was acknowledged and {one.id} is not in the journal"
        elif (row.key, row.moves, row.reverses) != (one.key, one.moves, one.reverses):
            yield f"{one.key} is in the journal as another operation"
    asked = Counter(one.key for one in history.operations)
    yield from (f"{key} is in the journal {n} times" for key, n in keys.items() if n > 1)
    yield from (f"nobody has asked for {key}" for key in keys if not asked[key])
    parents = Counter(row.reverses for row in ledger.rows if row.reverses is not None)
    yield from (f"{id} is reversed {n} times" for id, n in parents.items() if n > 1)
    lines = Counter(entry.transaction for each in ledger.entries.values() for entry in each)
    for row in ledger.rows:
        if lines.pop(row.id, 0) != 2 * len(row.moves):
            yield f"{row.id} has not two entries for each posting"
    yield from (f"entries of {id} belong to no row of the journal" for id in lines)


def _replays(history: History) -> Iterator[str]:
    """A key that is asked again tells what it has told."""
    first = {one.key: one for one in history.operations}
    for again in history.replays:
        one = first[again.key]
        if not again.same:
            if again.told != "idempotency_key_reused":
                yield f"{again.key} with another body was told {again.told}"
        elif (again.told, again.id) != (one.told, one.id):
            yield f"{again.key} was told {one.told} {one.id}, and then {again.told} {again.id}"


def _orders(ledger: Ledger, booked: Mapping[str, Operation]) -> Iterator[str]:
    """Of two operations on an account, the one answered before the other was sent is before it."""
    for account, entries in ledger.entries.items():
        where = f"the entries of {account}"
        yield from _order(where, (entry.transaction for entry in entries), booked)


def _order(where: str, ids: Iterable[str], booked: Mapping[str, Operation]) -> Iterator[str]:
    latest: Operation | None = None
    for id in ids:
        one = booked.get(id)
        if one is None:
            continue  # said elsewhere: nobody was told of it
        if latest is not None and one.answered < latest.sent:
            yield f"{one.key} was answered before {latest.key} was sent, and is after it in {where}"
        if latest is None or one.sent > latest.sent:
            latest = one


def _feed(ledger: Ledger, booked: Mapping[str, Operation]) -> Iterator[str]:
    """The feed has each transaction once, at positions 1, 2, 3, …, and in an order that was seen."""
    if [position for position, _ in ledger.feed] != list(range(1, len(ledger.feed) + 1)):
        yield "the positions of the feed are not 1, 2, 3, …"
    counted = Counter(id for _, id in ledger.feed)
    yield from (f"{id} is in the feed {n} times" for id, n in counted.items() if n > 1)
    rows = {row.id for row in ledger.rows}
    yield from (f"{id} is not in the feed" for id in rows - counted.keys())
    yield from (f"{id} is in the feed and not in the journal" for id in counted.keys() - rows)
    yield from _order("the feed", (id for _, id in ledger.feed), booked)


def _balances(history: History, ledger: Ledger, booked: Mapping[str, Operation]) -> Iterator[str]:
    """A balance that was read is one that the account had while it was asked for.

    It has what was acknowledged before, nothing that was sent afterwards, and is not older than what
    was read before. What a refusal says of the balance is a reading, too.
    """
    readings: dict[str, list[Reading]] = defaultdict(list)
    for reading in history.readings:
        readings[reading.account].append(reading)
    for one in history.operations:
        if one.account is not None and one.available is not None:
            said = Reading(
                sent=one.sent, answered=one.answered, account=one.account, balance=one.available
            )
            readings[one.account].append(said)
    for account, each in readings.items():
        yield from _balances_of(account, each, ledger.entries.get(account, ()), booked)


def _balances_of(
    account: str,
    readings: Sequence[Reading],
    entries: Sequence[Entry],
    booked: Mapping[str, Operation],
) -> Iterator[str]:
    spans = [booked.get(entry.transaction) for entry in entries]
    # How many entries there are for sure at a time, and how many there can be: both only grow with it.
    sure, possible = _growing(spans)
    places: dict[int, list[int]] = defaultdict(list)
    for place, balance in enumerate((0, *(entry.after for entry in entries))):
        places[balance].append(place)
    known: list[
        tuple[float, int]
    ] = []  # when a reading was answered, how many entries it has at least
    for reading in sorted(readings, key=lambda one: one.answered):
        lowest = bisect_left(sure, reading.sent)
        highest = bisect_left(possible, reading.answered)
        # Those answered before are in order, and what they know only grows.
        if before := bisect_left(known, (reading.sent, -1)):
            lowest = max(lowest, known[before - 1][1])
        found = places.get(reading.balance, [])
        place = bisect_left(found, lowest)
        if place == len(found) or found[place] > highest:
            yield f"{account} was read as {reading.balance} at {reading.answered:.3f}: not so then"
        else:
            known.append((reading.answered, max(found[place], known[-1][1] if known else 0)))


def _growing(spans: Sequence[Operation | None]) -> tuple[list[float], list[float]]:
    """Return from when on the n-th entry is there for sure, and from when on it can be.

    An entry is there when a later one is, and cannot be before an earlier one can.
    """
    sure = [one.answered if one else float("inf") for one in spans]
    possible = [one.sent if one else float("-inf") for one in spans]
    for place in range(len(sure) - 2, -1, -1):
        sure[place] = min(sure[place], sure[place + 1])
    for place in range(1, len(possible)):
        possible[place] = max(possible[place], possible[place - 1])
    return sure, possible


def _states(history: History) -> Iterator[str]:
    """An account that is frozen or closed takes no posting, and only such an account is refused."""
    changes: dict[str, list[StateChange]] = defaultdict(list)
    for change in sorted(history.states, key=lambda one: one.sent):
        changes[change.account].append(change)
    starts = {account: [one.sent for one in each] for account, each in changes.items()}
    for one in history.operations:
        if one.told not in {OK, "account_frozen", "account_closed"}:
            continue
        accounts = {account for move in one.moves for account in move[:2]} & changes.keys()
        seen = {account: _seen(changes[account], starts[account], one) for account in accounts}
        if one.told == OK:
            for account, states in seen.items():
                if "open" not in states:
                    yield f"{one.key} was booked on {account} while it was {states}"
        elif not any(one.told.endswith(state) for states in seen.values() for state in states):
            yield f"{one.key} was refused ({one.told}) while no account of it was so"


def _seen(changes: Sequence[StateChange], starts: Sequence[float], span: Span) -> list[str]:
    """Return the states that an account can have had during a span."""
    after = bisect_left(starts, span.answered)  # those from here on were sent too late
    states: list[str] = []
    for change in reversed(changes[:after]):
        states.append(change.state)
        if change.answered < span.sent:
            return states
    return [*states, "open"]
