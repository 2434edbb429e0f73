"""The call of `picopay.decide`: commands of one ledger become arrays, rows become outcomes.

Called by `engine/committer.py` with a batch in which no two commands share a key, a reference or a
parent. One round trip, one transaction, one commit. The commands themselves are plain values, which is
why this module, alone in `store`, may know `engine/commands.py`.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

import msgspec

from picopay_api.engine.commands import Command
from picopay_api.store.database import Connection

_DECIDE = (
    "SELECT outcome, replayed, decided_id, decided_at, detail FROM picopay.decide("
    "$1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20)"
)


class Outcome(msgspec.Struct, frozen=True):
    """What was decided: `code` is `ok` or the code of the refusal; `id` is set for `ok` only."""

    code: str
    replayed: bool
    id: UUID | None
    at: datetime
    detail: str | None


async def decide(
    connection: Connection, ledger: UUID, retention_days: int, commands: Sequence[Command]
) -> list[Outcome]:
    """Have a batch of commands decided and committed, in order.

    Raises:
        asyncpg.PostgresError: the batch as a whole failed and nothing was written, or, when the session
            was lost, it is not known whether it was: ask again with the same keys.
    """
    records = await connection.fetch(_DECIDE, ledger, retention_days, *_arrays(commands))
    return [Outcome(*record.values()) for record in records]


def _arrays(commands: Sequence[Command]) -> tuple[Any, ...]:
    accounts = sorted(
        {leg.account for command in commands for leg in command.legs}
        | {bound.account for command in commands for bound in command.conditions}
    )
    index = {account: n for n, account in enumerate(accounts, start=1)}
    legs = [leg for command in commands for leg in command.legs]
    bounds = [bound for command in commands for bound in command.conditions]
    return (
        accounts,
        [command.id for command in commands],
        [command.kind for command in commands],
        [command.key for command in commands],
        [command.fingerprint for command in commands],
        _unless_all_none([command.parent for command in commands]),
        _unless_all_none([command.reference for command in commands]),
        [msgspec.json.encode(command.postings).decode() for command in commands],
        _unless_all_none(
            [
                msgspec.json.encode(command.metadata).decode() if command.metadata else None
                for command in commands
            ]
        ),
        _ends([len(command.legs) for command in commands]),
        _ends([len(command.conditions) for command in commands]),
        [index[leg.account] for leg in legs],
        [leg.asset for leg in legs],
        [leg.posted_minor for leg in legs],
        [leg.held_minor for leg in legs],
        [index[bound.account] for bound in bounds],
        [bound.minimum_minor for bound in bounds],
        [bound.maximum_minor for bound in bounds],
    )


def _ends(counts: list[int]) -> list[int]:
    total = 0
    return [total := total + count for count in counts]


def _unless_all_none[T](values: list[T | None]) -> list[T | None] | None:
    return values if any(value is not None for value in values) else None
