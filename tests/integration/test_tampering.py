"""What a superuser changes by hand, column by column and row by row, is found by the full audit.

What cannot be found is in `UNSEEN`, each with its reason: a list that must be exact, in both directions.
Kinds of findings, and what the continuous auditor sees, are in `test_auditor.py`.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, NamedTuple

import asyncpg
import msgspec
import pytest

from picopay_api.database_url import DatabaseUrl
from picopay_api.engine import chain
from picopay_api.engine.accounts import NewAccount
from picopay_api.engine.audit import Audit
from picopay_api.engine.commands import Posting
from picopay_api.errors import InternalError, TransactionNotFound
from picopay_api.store.database import Database
from picopay_api.worker.audit_all import audit_everything
from picopay_api.worker.sealer import Sealer
from support.journal import Book
from support.scene import accounts_of, ask

TRIGGERED = ("journal", "entry", "commit", "block", "reference", "reversal")


class Target(NamedTuple):
    """Rows that are alike in what is known of them elsewhere."""

    table: str
    condition: str = "true"


TARGETS = {
    "journal": Target("journal"),
    "entry": Target("entry"),
    "commit": Target("commit"),
    "block": Target("block"),
    "reference": Target("reference"),
    "reversal": Target("reversal"),
    "metadata_item": Target("metadata_item"),
    "key of a payment": Target("idempotency_key", "object_id IS NOT NULL AND operation < 4"),
    "key of an account": Target("idempotency_key", "object_id IS NOT NULL AND operation = 4"),
    "key of a refusal": Target("idempotency_key", "object_id IS NULL"),
    "account": Target("account"),
    "balance": Target("balance"),
}

ROW = "the whole row"

_NOWHERE_ELSE = (
    "what was refused is written nowhere else; without its key it would be decided again"
)
_DESCRIBED = "what describes an account is configuration, written once and in one place"
_NAMED = "an account does not know the key that made it; without it, a second one could be made"
_ALLOWED = "whoever runs the ledger may set it at any time, and its past is not kept"

UNSEEN = {
    (
        "block",
        "sealed_at",
    ): "a note for people; nothing goes by it, and no hash could vouch for a clock",
    (
        "key of a payment",
        "fingerprint",
    ): "of what was asked, which is not kept; a retry is then refused",
    ("key of an account", "fingerprint"): "the same",
    ("key of an account", "key"): _NAMED,
    ("key of an account", ROW): _NAMED,
    ("key of a refusal", "key"): _NOWHERE_ELSE,
    ("key of a refusal", "operation"): _NOWHERE_ELSE,
    ("key of a refusal", "day"): _NOWHERE_ELSE,
    ("key of a refusal", "fingerprint"): _NOWHERE_ELSE,
    ("key of a refusal", "outcome"): _NOWHERE_ELSE,
    ("key of a refusal", "detail"): _NOWHERE_ELSE,
    ("key of a refusal", "created_at"): _NOWHERE_ELSE,
    ("key of a refusal", ROW): _NOWHERE_ELSE,
    ("account", "reference"): _DESCRIBED,
    ("account", "created_at"): _DESCRIBED,
    ("balance", "state"): _ALLOWED,
    ("balance", "floor_minor"): _ALLOWED,
}
"""What can be changed without a finding, and why."""

CHANGES = {
    "uuid": "gen_random_uuid()",
    "text": "coalesce({0}, '') || 'x'",
    "smallint": "({0} + 1) % 3",
    "integer": "{0} + 1",
    "bigint": "{0} + 1",
    "bytea": "sha256({0})",
    "date": "{0} + 1",
    "timestamp with time zone": "{0} + interval '1 ms'",
    "xid8": "({0}::text::bigint + 1)::text::xid8",
    "jsonb": "CASE jsonb_typeof({0}) WHEN 'array' THEN jsonb_set({0}, '{{0,amount}}', '9')"
    " ELSE coalesce({0}, '{{}}') || '{{\"x\": \"y\"}}' END",
}
"""The smallest change of a value, by its type; of what has no value, too."""

CHANGES_OF = {
    "operation": "5",
    "floor_minor": "coalesce({0}, 0) - 10000000",
    "height": "{0} + 100",
    "first_position": "{0} + 100",
}

_COLUMNS = """
SELECT attname, format_type(atttypid, NULL) FROM pg_attribute
 WHERE attrelid = $1::regclass AND attnum > 0 AND NOT attisdropped ORDER BY attnum
"""


@pytest.fixture
async def book(book: Book) -> Book:
    """A ledger with something in every column."""
    alice, bob = await book.funded(), await book.account()
    paid = book.payment(alice, bob, 250)
    named = msgspec.structs.replace(book.payment(alice, bob, 50), reference="order-1")
    await book.decide(paid, named)
    await Sealer(book.database).seal(book.ledger)
    await book.decide(book.transaction(*(Posting(alice, bob, n, "USD") for n in (1, 2))))
    await book.decide(book.reversal(paid))
    (refused,) = await ask(book, book.payment(bob, alice, 10_000))
    assert refused.code == "insufficient_funds"
    await accounts_of(book).create(
        book.ledger, NewAccount(asset="USD", reference="shop", metadata={"tier": "gold"}), "made"
    )
    await Sealer(book.database).seal(book.ledger)
    return book


class Superuser:
    """Changes rows behind the triggers' back, and puts everything as it was."""

    def __init__(self, connection: "asyncpg.Connection[Any]") -> None:
        self._connection = connection

    @classmethod
    @asynccontextmanager
    async def of(cls, url: DatabaseUrl) -> "AsyncIterator[Superuser]":
        connection = await asyncpg.connect(**url.connect_arguments())
        try:
            await connection.execute("CREATE SCHEMA saved")
            for table in {target.table for target in TARGETS.values()}:
                await connection.execute(f"CREATE TABLE saved.{table} AS TABLE picopay.{table}")
            for table in TRIGGERED:
                await connection.execute(f"ALTER TABLE picopay.{table} DISABLE TRIGGER USER")
            yield cls(connection)
        finally:
            await connection.close()

    async def columns(self, table: str) -> dict[str, str]:
        records = await self._connection.fetch(_COLUMNS, f"picopay.{table}")
        return dict(tuple(record) for record in records)

    async def change(self, target: Target, column: str, type_: str, condition: str) -> bool:
        """Change a column of the first row of which the condition holds, if there is one."""
        change = CHANGES_OF.get(column, CHANGES[type_]).format(column)
        return await self._first(
            f"UPDATE picopay.{target.table} SET {column} = {change}", target, condition
        )

    async def delete(self, target: Target) -> bool:
        """Delete the first row."""
        return await self._first(f"DELETE FROM picopay.{target.table}", target, "true")

    async def _first(self, statement: str, target: Target, condition: str) -> bool:
        tag = await self._connection.execute(
            f"{statement} WHERE (tableoid, ctid) = (SELECT tableoid, ctid"
            f" FROM picopay.{target.table} AS t WHERE {target.condition} AND {condition}"
            " ORDER BY t::text LIMIT 1)"
        )
        return bool(tag.endswith(" 1"))

    async def restore(self, table: str) -> None:
        await self._connection.execute(
            f"DELETE FROM picopay.{table}; INSERT INTO picopay.{table} SELECT * FROM saved.{table}"
        )


async def found(database: Database) -> set[str]:
    return {finding.kind for finding in await audit_everything(database, lambda _: None)}


@pytest.mark.usefixtures("book")
async def test_every_change_is_found_but_those_that_are_listed(
    database: Database, database_url: DatabaseUrl
) -> None:
    assert await found(database) == set()
    unseen = set()
    async with Superuser.of(database_url) as superuser:
        for name, target in TARGETS.items():
            for column, type_ in (await superuser.columns(target.table)).items():
                changed = []
                for condition in (f"{column} IS NOT NULL", f"{column} IS NULL"):
                    if not await superuser.change(target, column, type_, condition):
                        continue
                    changed.append(column)
                    if not await found(database):
                        unseen.add((name, column))
                    await superuser.restore(target.table)
                assert changed, (name, column)
            assert await superuser.delete(target)
            if not await found(database):
                unseen.add((name, ROW))
            await superuser.restore(target.table)
    assert unseen == set(UNSEEN)
    assert await found(database) == set()


async def proofs(database: Database, book: Book) -> dict[str, chain.Proof]:
    """Prove everything that can be proved."""
    made = {}
    audit = Audit(database)
    for record in await database.rows("SELECT id FROM picopay.journal"):
        try:
            made[record["id"].hex] = await audit.proof(book.ledger, record["id"])
        except (TransactionNotFound, InternalError):
            continue  # it has left its block, or its block is not whole
    return made


async def test_nothing_of_a_transaction_changes_without_its_proof(
    database: Database, database_url: DatabaseUrl, book: Book
) -> None:
    """Whoever has kept the hash of a block needs no audit: what was changed is proved no more."""
    kept = {
        id: chain.block_hash(proof.block) for id, proof in (await proofs(database, book)).items()
    }
    assert len(kept) == 5
    target = TARGETS["journal"]
    async with Superuser.of(database_url) as superuser:
        for column, type_ in (await superuser.columns("journal")).items():
            assert await superuser.change(target, column, type_, f"{column} IS NOT NULL")
            now = await proofs(database, book)
            proved = [id for id in kept if id in now and chain.verify(now[id], kept[id])]
            assert len(proved) < len(kept), column
            await superuser.restore("journal")
    assert all(
        chain.verify(proof, kept[id]) for id, proof in (await proofs(database, book)).items()
    )
