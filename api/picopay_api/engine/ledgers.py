"""Ledgers: the isolated books of tenants. Called by `http/ledgers.py` and the command line."""

from typing import Any
from uuid import UUID

import msgspec

from picopay_api.engine.ids import LARGEST_ID, new_id
from picopay_api.engine.paging import Candidate, Page, list_name, scan_page
from picopay_api.engine.views import Ledger
from picopay_api.errors import LedgerNameTaken, LedgerNotFound
from picopay_api.store import ledgers as statements
from picopay_api.store.database import Database


class Ledgers:
    """All ledgers of the database; for administrators."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def create(self, name: str, metadata: dict[str, str] | None = None) -> Ledger:
        """Make a ledger.

        Raises:
            LedgerNameTaken: another one has the name.
        """
        async with self._database.transaction() as connection:
            record = await connection.fetchrow(
                statements.MAKE, new_id(), name, msgspec.json.encode(metadata or {}).decode()
            )
        if record is None:
            raise LedgerNameTaken(f"there is a ledger called {name!r} already")
        return _ledger(record)

    async def ensure(self, name: str) -> Ledger:
        """Return the ledger of a name; make it, if there is none."""
        try:
            return await self.find(name)
        except LedgerNotFound:
            try:
                return await self.create(name)
            except LedgerNameTaken:  # by somebody who does the same
                return await self.find(name)

    async def get(self, id: UUID) -> Ledger:
        """Return a ledger by its id.

        Raises:
            LedgerNotFound: there is none.
        """
        return _existing(await self._database.row(statements.BY_ID, id))

    async def find(self, name: str) -> Ledger:
        """Return a ledger by its name.

        Raises:
            LedgerNotFound: there is none.
        """
        return _existing(await self._database.row(statements.BY_NAME, name))

    async def list(self, limit: int, cursor: str | None = None) -> Page[Ledger]:
        """List ledgers, newest first.

        Raises:
            InvalidCursor: the cursor is of another list.
        """

        async def scan(after: bytes | None, count: int) -> list[Candidate[Ledger]]:
            before = UUID(bytes=after) if after else LARGEST_ID
            records = await self._database.rows(statements.PAGE, before, count)
            return [Candidate(r["ledger_id"].bytes, _ledger(r)) for r in records]

        name = list_name("ledgers", LARGEST_ID, None)
        return await scan_page(scan, lambda _: True, limit, cursor, name)


def _existing(record: Any) -> Ledger:
    if record is None:
        raise LedgerNotFound("there is no such ledger")
    return _ledger(record)


def _ledger(record: Any) -> Ledger:
    return Ledger(
        id=record["ledger_id"],
        name=record["name"],
        metadata=msgspec.json.decode(record["metadata"]),
        created_at=record["created_at"],
    )
