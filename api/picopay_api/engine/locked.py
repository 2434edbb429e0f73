"""Accounts that somebody else keeps locked, so that whoever needs them does not hold up the others.

Asked by `delivery.py`. A batch that waits for a row keeps the rows that it has locked already, and a session
that other payments need. It may do so once, for as long as the lock time-out. From then on it is looked up,
without waiting, whether the same transaction still has the account, and who needs it is told to come back.
"""

import asyncio
from collections.abc import Sequence
from time import monotonic
from uuid import UUID

import asyncpg
import msgspec

from picopay_api.engine.commands import Command
from picopay_api.errors import DatabaseUnavailable
from picopay_api.store import accounts as statements
from picopay_api.store.database import Database

_HELD_S = 0.25
"""Two looks so far apart see the same transaction where an account is held, and two where it is busy."""


_REMEMBERED_S = 600  # who is never asked for again must not be remembered for ever


class _Seen(msgspec.Struct, frozen=True):
    """Who had an account locked, and when that was seen first."""

    holder: str
    since_s: float


class LockedAccounts:
    """The accounts that were found locked when somebody had waited too long; usually none."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._seen: dict[UUID, _Seen] = {}

    async def suspect(self, commands: Sequence[Command]) -> set[UUID]:
        """Remember which accounts of commands of one ledger are locked now, and return them."""
        holders = await self._look(commands[0].ledger, _accounts(commands))
        now_s = monotonic()
        for account, each in list(self._seen.items()):
            if now_s - each.since_s > _REMEMBERED_S:
                del self._seen[account]
        for account, holder in holders.items():
            self._seen.setdefault(account, _Seen(holder, now_s))
        return set(holders)

    async def held(self, commands: Sequence[Command]) -> set[UUID]:
        """Return the accounts of commands of one ledger that are still held by whom they were seen with.

        Asks nobody, and takes no time, where none of them was seen locked.
        """
        if not self._seen:
            return set()
        seen = {account: self._seen[account] for account in _accounts(commands) & self._seen.keys()}
        if not seen:
            return set()
        await asyncio.sleep(max(each.since_s for each in seen.values()) + _HELD_S - monotonic())
        holders = await self._look(commands[0].ledger, set(seen))
        held = {account for account, each in seen.items() if holders.get(account) == each.holder}
        for account in seen.keys() - held:
            self._seen.pop(account, None)
        return held

    async def _look(self, ledger: UUID, accounts: set[UUID]) -> dict[UUID, str]:
        try:
            async with self._database.session() as connection:
                rows = await connection.fetch(statements.LOCKED, ledger, accounts)
        except (DatabaseUnavailable, asyncpg.LockNotAvailableError):
            return {}  # nothing is known; whoever tries will be told what is wrong
        return {row["account_id"]: row["holder"] for row in rows}


def touches(command: Command, accounts: set[UUID]) -> bool:
    """Tell whether a command needs one of these accounts."""
    return not accounts.isdisjoint(_accounts([command]))


def _accounts(commands: Sequence[Command]) -> set[UUID]:
    return {
        side.account
        for command in commands
        for sides in (command.legs, command.conditions)
        for side in sides
    }
