"""How long `picopay.decide` remembers a key, and what time it goes by.

Accounts never see time run backwards, so that an account that was changed tomorrow makes it tomorrow:
days and midnights are tried without waiting for them.
"""

from datetime import UTC, date, datetime, time, timedelta
from uuid import UUID

import asyncpg
import pytest
from msgspec.structs import replace

from picopay_api.engine.commands import Command
from picopay_api.engine.ids import first_id_at, new_id
from support.journal import Book
from support.scene import RETENTION_DAYS, ask, everything, keys

NOON = datetime(2035, 5, 17, 12, tzinfo=UTC)


async def make_it(book: Book, account: UUID, moment: datetime) -> None:
    """Let the clock of an account stand at a moment of the future."""
    owner_sets = (
        "UPDATE picopay.balance SET changed_at = $3 WHERE ledger_id = $1 AND account_id = $2"
    )
    await book.database.run(owner_sets, book.ledger, account, moment)


def at(moment: datetime, command: Command) -> Command:
    """Return a command with an id of a moment."""
    tail = new_id().int & ((1 << 80) - 1)
    return replace(command, id=UUID(int=first_id_at(moment).int | tail))


async def remember(book: Book, key: str, fingerprint: bytes, day: date) -> None:
    await book.database.run(
        "INSERT INTO picopay.idempotency_key (ledger_id, key, operation, day, fingerprint, outcome,"
        " created_at) VALUES ($1, $2, 1, $3, $4, 'account_frozen', now())",
        book.ledger,
        key,
        day,
        fingerprint,
    )


@pytest.mark.parametrize(
    ("days_ago", "found"),
    [(0, True), (1, True), (RETENTION_DAYS, True), (RETENTION_DAYS + 1, False)],
)
async def test_a_key_is_known_for_as_long_as_it_is_retained(
    book: Book, days_ago: int, found: bool
) -> None:
    alice, bob = await book.funded(), await book.account()
    await make_it(book, alice, NOON)
    payment = at(NOON, book.payment(alice, bob, 1))
    assert payment.key is not None
    day = NOON.date() - timedelta(days=days_ago)
    await remember(book, payment.key, payment.fingerprint, day)
    [outcome] = await ask(book, payment)
    assert (outcome.code, outcome.replayed) == (
        ("account_frozen", True) if found else ("ok", False)
    )


async def days_of(book: Book, command: Command) -> list[date]:
    records = await book.database.rows(
        "SELECT day FROM picopay.idempotency_key WHERE ledger_id = $1 AND key = $2 ORDER BY day",
        book.ledger,
        command.key,
    )
    return [record["day"] for record in records]


async def test_who_began_before_midnight_meets_the_key_of_who_came_after(book: Book) -> None:
    """In the first minute of a day a key is written to the day before, too."""
    alice, bob = await book.funded(), await book.account()
    carol, dave = await book.funded(), await book.account()
    midnight = datetime.combine(NOON, time(), UTC)
    before, after = midnight - timedelta(seconds=1), midnight + timedelta(seconds=30)
    await make_it(book, alice, after)
    await make_it(book, carol, before)
    first = at(after, book.payment(alice, bob, 1))
    assert [o.code for o in await ask(book, first)] == ["ok"]
    assert await days_of(book, first) == [before.date(), after.date()]
    # The same key on other accounts, whose clock still says the day before: it is not missed.
    late = at(before, replace(book.payment(carol, dave, 1), key=first.key))
    [outcome] = await ask(book, late)
    assert outcome.code == "idempotency_key_reused"


@pytest.mark.parametrize(("seconds", "days"), [(-1, [-1]), (59, [-1, 0]), (60, [0]), (43_200, [0])])
async def test_a_key_is_written_to_the_day_and_in_its_first_minute_to_the_one_before(
    book: Book, seconds: int, days: list[int]
) -> None:
    alice, bob = await book.funded(), await book.account()
    midnight = datetime.combine(NOON, time(), UTC)
    moment = midnight + timedelta(seconds=seconds)
    await make_it(book, alice, moment)
    payment = at(moment, book.payment(alice, bob, 1))
    assert [o.code for o in await ask(book, payment)] == ["ok"]
    assert await days_of(book, payment) == [NOON.date() + timedelta(days=n) for n in days]


async def test_time_never_runs_backwards_on_an_account(book: Book) -> None:
    alice, bob = await book.funded(), await book.account()
    ahead = datetime.now(UTC) + timedelta(minutes=2)
    await make_it(book, alice, ahead)
    for _ in range(2):
        await ask(book, book.payment(alice, bob, 1))
    times = await book.database.rows(
        "SELECT created_at FROM picopay.entry WHERE ledger_id = $1 AND account_id = $2"
        " ORDER BY sequence OFFSET 1",
        book.ledger,
        alice,
    )
    assert ahead - timedelta(milliseconds=1) < times[0][0] <= times[1][0]


@pytest.mark.parametrize("minutes", [-6, 6])
async def test_an_id_of_another_time_is_refused_as_a_whole(book: Book, minutes: int) -> None:
    alice, bob = await book.funded(), await book.account()
    before = await everything(book), await keys(book)
    wrong = at(datetime.now(UTC) + timedelta(minutes=minutes), book.payment(alice, bob, 1))
    with pytest.raises(asyncpg.PostgresError) as raised:
        await ask(book, wrong)
    assert raised.value.sqlstate == "PP001"
    assert (await everything(book), await keys(book)) == before
