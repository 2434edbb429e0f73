"""A ledger with somebody for every refusal, and short ways to ask `picopay.decide` what it says and wrote.

Used by the tests of single rules.
"""

import hashlib
from typing import Any
from uuid import UUID

import msgspec
from msgspec.structs import replace

from picopay_api.engine.accounts import Accounts
from picopay_api.engine.commands import Command, Posting
from picopay_api.engine.directory import Directory
from picopay_api.engine.ids import ACCOUNT, format_id, new_id
from picopay_api.engine.ledger import AMOUNT_MAX_MINOR, BALANCE_MAX_MINOR
from picopay_api.store import decide as arbitration
from picopay_api.store.decide import Outcome
from support import model
from support.journal import Book

RETENTION_DAYS = 3


async def ask(book: Book, *commands: Command) -> list[Outcome]:
    """Have a batch decided, whatever the outcomes."""
    async with book.database.session() as connection:
        return await arbitration.decide(connection, book.ledger, RETENTION_DAYS, commands)


def told(outcome: Outcome) -> tuple[str, Any]:
    """Return the code and the members of an outcome."""
    return outcome.code, msgspec.json.decode(outcome.detail) if outcome.detail else None


def as_model(outcome: Outcome) -> model.Outcome:
    """Return an outcome as the model says it."""
    code, detail = told(outcome)
    return model.Outcome(code, outcome.id, detail, outcome.replayed)


async def available(book: Book, account: UUID) -> int:
    return int(
        await book.database.value(
            "SELECT posted_minor - held_minor FROM picopay.balance"
            " WHERE ledger_id = $1 AND account_id = $2",
            book.ledger,
            account,
        )
    )


def renewed(command: Command, **changes: Any) -> Command:
    """Return a command as another request: with an id, a key and a fingerprint of its own."""
    id = new_id()
    own = {"id": id, "key": id.hex, "fingerprint": hashlib.sha256(id.bytes).digest()}
    return replace(command, **own | changes)


def accounts_of(book: Book) -> Accounts:
    return Accounts(book.database, Directory(book.database), RETENTION_DAYS)


async def freeze(book: Book, account: UUID) -> None:
    await accounts_of(book).freeze(book.ledger, format_id(ACCOUNT, account))


class Scene:
    """A ledger with somebody for every refusal."""

    book: Book
    alice: UUID  # 1,000,000
    bob: UUID  # nothing
    poor: UUID  # 10, may go down to -5
    euro: UUID
    frozen: UUID
    closed: UUID
    closed_euro: UUID
    richest: UUID  # all that one can own
    debtor: UUID  # who owes all that one can owe; unbounded
    nobody: UUID  # not an account
    once: Command  # a payment that was made and reversed

    @classmethod
    async def make(cls, book: Book) -> "Scene":
        scene = cls()
        scene.book = book
        scene.alice, scene.bob = await book.funded(), await book.account()
        scene.poor = await book.account(floor_minor=-5)
        scene.euro = await book.account("EUR")
        scene.frozen, scene.closed = await book.account(), await book.account()
        scene.closed_euro = await book.account("EUR")
        scene.richest, scene.debtor = await book.account(), await book.account(floor_minor=None)
        scene.nobody = new_id()
        gift = Posting(scene.debtor, scene.richest, AMOUNT_MAX_MINOR, "USD")
        scene.once = book.payment(scene.alice, scene.bob, 7)
        await book.decide(
            replace(scene.once, reference="order-1"),
            book.payment(book.world, scene.poor, 10),
            book.transaction(*[gift] * (BALANCE_MAX_MINOR // AMOUNT_MAX_MINOR)),
        )
        await book.decide(book.reversal(scene.once))
        await freeze(book, scene.frozen)
        for account in (scene.closed, scene.closed_euro):
            await accounts_of(book).close(book.ledger, format_id(ACCOUNT, account))
        return scene

    def pays(self, source: UUID, destination: UUID, amount: int = 1, asset: str = "USD") -> Command:
        return self.book.payment(source, destination, amount, asset)


async def everything(book: Book) -> dict[str, list[Any]]:
    """Read all that a ledger has, but for its keys."""
    tables = ("balance", "journal", "entry", "reference", "reversal", "commit", "metadata_item")
    async with book.database.session() as connection:
        return {
            table: await connection.fetch(
                f"SELECT t::text FROM picopay.{table} AS t WHERE ledger_id = $1 ORDER BY 1",
                book.ledger,
            )
            for table in tables
        }


async def keys(book: Book) -> list[Any]:
    return await book.database.rows(
        "SELECT k::text FROM picopay.idempotency_key AS k WHERE ledger_id = $1 ORDER BY 1",
        book.ledger,
    )
