"""The nets under `picopay.decide`: rights, triggers, checks and the order of locks.

None of them is needed while the function does what it says; each stops another way of going wrong.
"""

import asyncio
import random
import re
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from itertools import pairwise
from uuid import UUID

import asyncpg
import pytest
from msgspec.structs import replace

from picopay_api.database_url import DatabaseUrl
from picopay_api.engine.commands import Command, Posting
from picopay_api.engine.ids import new_id
from picopay_api.store import decide as arbitration
from picopay_api.store.database import Database
from picopay_api.worker.sealer import Sealer
from support.invariants import broken_rules
from support.journal import WORLD_MINOR, Book, opened
from support.key_days import key_partitions
from support.scene import RETENTION_DAYS, Scene, ask

HISTORY = ("journal", "entry", "commit", "block", "reference", "reversal")


@pytest.fixture
async def owner(
    database_url: DatabaseUrl,
) -> AsyncIterator["asyncpg.Connection[asyncpg.Record]"]:
    connection = await asyncpg.connect(**database_url.connect_arguments())
    yield connection
    await connection.close()


# Rights and triggers.

FORBIDDEN = [
    *(
        statement.format(table)
        for table in (*HISTORY, "idempotency_key")
        for statement in (
            "UPDATE picopay.{} SET ledger_id = ledger_id",
            "DELETE FROM picopay.{}",
            "TRUNCATE picopay.{}",
        )
    ),
    "UPDATE picopay.balance SET asset = asset",
    "UPDATE picopay.balance SET floor_minor = NULL",
    "DELETE FROM picopay.balance",
    "UPDATE picopay.account SET reference = NULL",
    "DELETE FROM picopay.account",
    "UPDATE picopay.ledger SET name = name",
    "DELETE FROM picopay.ledger",
    "UPDATE picopay.api_key SET scopes = scopes",
    "DELETE FROM picopay.api_key",
    "UPDATE picopay.schema_version SET min_compatible = '0000'",
    "ALTER TABLE picopay.journal DISABLE TRIGGER ALL",
    "DROP TABLE picopay.block",
    "CREATE TABLE picopay.mine ()",
]


async def test_the_runtime_role_can_change_no_history(database: Database) -> None:
    async with database.session() as connection:
        assert await connection.fetchval("SELECT current_user") == "picopay_app"
        for statement in FORBIDDEN:
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await connection.execute(statement)


async def test_the_trigger_stops_the_owner_too(
    book: Book, owner: "asyncpg.Connection[asyncpg.Record]"
) -> None:
    await Scene.make(book)  # leaves a row in every table of history
    await Sealer(book.database).seal(book.ledger)
    for table in HISTORY:
        assert await owner.fetchval(f"SELECT count(*) FROM picopay.{table}")
        for statement in (
            f"UPDATE picopay.{table} SET ledger_id = ledger_id",
            f"DELETE FROM picopay.{table}",
            f"TRUNCATE picopay.{table} CASCADE",
        ):
            with pytest.raises(asyncpg.PostgresError) as raised:
                await owner.execute(statement)
            assert raised.value.sqlstate == "PP002", statement


@pytest.mark.parametrize("table", ["journal", "entry"])
async def test_the_trigger_stops_the_owner_on_a_partition(
    book: Book, owner: "asyncpg.Connection[asyncpg.Record]", table: str
) -> None:
    await book.funded()
    partitions = await owner.fetch("SELECT DISTINCT tableoid::regclass::text FROM picopay." + table)
    for [partition] in partitions:
        for statement in (
            f"UPDATE {partition} SET ledger_id = ledger_id",
            f"DELETE FROM {partition}",
            f"TRUNCATE {partition}",
        ):
            with pytest.raises(asyncpg.PostgresError) as raised:
                await owner.execute(statement)
            assert raised.value.sqlstate == "PP002", statement


# Checks.


@pytest.mark.parametrize(
    ("change", "constraint"),
    [
        ("posted_minor = -1", "balance_floor"),
        ("held_minor = posted_minor + 1", "balance_floor"),
        ("held_minor = -1", "balance_held"),
        ("state = 3", "balance_state"),
    ],
)
async def test_no_balance_can_be_written_that_cannot_be(
    book: Book, change: str, constraint: str
) -> None:
    account = await book.funded()
    with pytest.raises(asyncpg.CheckViolationError) as raised:
        await book.database.run(
            f"UPDATE picopay.balance SET {change} WHERE ledger_id = $1 AND account_id = $2",
            book.ledger,
            account,
        )
    assert raised.value.constraint_name == constraint


@pytest.mark.parametrize(
    ("shared", "constraint"),
    [
        ("key", "idempotency_key_pkey"),
        ("reference", "reference_pkey"),
        ("parent", "reversal_pkey"),
        ("id", "journal_pkey"),
    ],
)
async def test_what_no_two_commands_of_a_batch_may_share_is_a_primary_key(
    book: Book, shared: str, constraint: str
) -> None:
    alice, bob = await book.funded(), await book.funded()
    paid = book.payment(alice, bob, 1)
    await book.decide(paid)
    one, other = book.reversal(paid), book.reversal(paid)
    one = replace(one, reference="same")
    other = replace(other, reference="other", parent=one.id)
    other = replace(other, **{shared: getattr(one, shared)})
    with pytest.raises(asyncpg.UniqueViolationError) as raised:
        await ask(book, one, other)
    assert constraint in {raised.value.constraint_name, partitioned(raised.value)}


def partitioned(error: asyncpg.UniqueViolationError) -> str:
    """Return the constraint of the whole table for that of a partition of it."""
    return re.sub(r"_(\d{6,8}|default)_pkey$", "_pkey", error.constraint_name or "")


# Locks.

SESSIONS = 8
ROUNDS = 12


async def test_overlapping_accounts_in_opposite_orders_never_deadlock(
    database_url: DatabaseUrl, book: Book
) -> None:
    """Every session decides batches over the same few accounts, in an order of its own."""
    accounts = [await book.funded() for _ in range(6)]
    async with asyncio.TaskGroup() as group:
        for seed in range(SESSIONS):
            group.create_task(decide_batches(database_url, book, accounts, random.Random(seed)))
    async with book.database.session() as connection:
        assert await broken_rules(connection, book.ledger) == []
    total = await book.database.value(
        "SELECT sum(posted_minor)::bigint FROM picopay.balance"
        " WHERE ledger_id = $1 AND account_id = ANY ($2)",
        book.ledger,
        accounts,
    )
    assert total == len(accounts) * WORLD_MINOR


async def decide_batches(
    url: DatabaseUrl, book: Book, accounts: list[UUID], chance: random.Random
) -> None:
    async with opened(url) as database:
        mine = Book(database, book.ledger, book.world)
        for _ in range(ROUNDS):
            order = chance.sample(accounts, len(accounts))
            there = [mine.payment(*pair, chance.randint(1, 9)) for pair in pairwise(order)]
            back = [
                Posting(*pair, chance.randint(1, 9), "USD") for pair in pairwise(reversed(order))
            ]
            outcomes = await ask(mine, *there, mine.transaction(*back))
            assert {outcome.code for outcome in outcomes} == {"ok"}


async def test_sessions_with_the_same_key_and_reference_pay_once(
    database_url: DatabaseUrl, book: Book
) -> None:
    """Other sessions that were there first show as a unique violation: what a retry then finds."""
    alice, bob = await book.funded(), await book.account()
    payment = replace(book.payment(alice, bob, 1), reference="order-1")

    async def once() -> UUID | None:
        async with opened(database_url) as database:
            mine = Book(database, book.ledger, book.world)
            for _ in range(SESSIONS):
                try:
                    [outcome] = await ask(mine, replace(payment, id=new_id()))
                except asyncpg.UniqueViolationError:
                    continue
                assert outcome.code == "ok"
                return outcome.id
        raise AssertionError("there is always somebody else")

    ids = await asyncio.gather(*(once() for _ in range(SESSIONS)))
    assert len(set(ids)) == 1


# Costs.


async def test_a_call_reads_by_primary_keys_only(book: Book) -> None:
    alice, bob = await book.funded(), await book.account()
    paid = book.payment(alice, bob, 1)
    await book.decide(paid)
    batch: list[Command] = [
        replace(book.payment(alice, bob, 1), reference="order-1"),
        replace(book.payment(alice, bob, 1), key=paid.key),
        book.reversal(paid),
    ]
    async with book.database.transaction() as connection:
        await arbitration.decide(connection, book.ledger, RETENTION_DAYS, batch)
        records = await connection.fetch(
            "SELECT relname, seq_scan, idx_scan FROM pg_stat_xact_user_tables"
            " WHERE schemaname = 'picopay' AND seq_scan + idx_scan > 0"
        )
    read = {record["relname"] for record in records}
    assert {record["relname"] for record in records if record["seq_scan"]} == set()
    keys = {name for name in read if name.startswith("idempotency_key_")}
    assert read - keys == {"balance", "reference", "reversal"}
    # Those that hold a day of the window, and what slipped through the partitions.
    today = datetime.now(UTC).date()
    assert keys <= key_partitions(today, range(-RETENTION_DAYS - 1, 1)) | {
        "idempotency_key_default"
    }
