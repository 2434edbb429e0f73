"""The call of `picopay.decide`: commands of one ledger become arrays, rows become outcomes.

Called by `engine/committer.py` with a batch in which no two commands share a key, a reference or a
parent. One round trip, one transaction, one commit. The commands themselves are plain values, which is
why this module, alone in `store`, may know `engine/commands.py`.
"""

from collections.abc import Callable, Sequence
from datetime import datetime
from itertools import accumulate
from typing import Any
from uuid import UUID

import msgspec

from picopay_api.engine.commands import Command
from picopay_api.store.database import Connection
from picopay_api.store.literals import binaries, integers, texts, uuids

_DECIDE = """
SELECT command, outcome, replayed, decided_id, decided_at, detail
  FROM picopay.decide(
       $1, $2, $3::text::uuid[],
       $4::text::uuid[], $5::text::smallint[], $6::text::text[], $7::text::bytea[], $8::text::uuid[],
       $9::text::text[], $10::text::jsonb[], $11::text::jsonb[], $12::text::integer[],
       $13::text::integer[],
       $14::text::integer[], $15::text::text[], $16::text::bigint[], $17::text::bigint[],
       $18::text::integer[], $19::text::bigint[], $20::text::bigint[])
"""


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
    first, *others = await connection.fetch(_DECIDE, ledger, retention_days, *_arrays(commands))
    at: datetime = first["decided_at"]
    outcomes = [_new(command, at) for command in commands]
    for record in others:
        number, *outcome = record.values()
        outcomes[number - 1] = Outcome(*outcome)
    return outcomes


def _new(command: Command, at: datetime) -> Outcome:
    """Return the outcome of what is booked now; a dry run has booked nothing."""
    id = None if command.key is None else command.id
    return Outcome(code="ok", replayed=False, id=id, at=at, detail=None)


def _arrays(commands: Sequence[Command]) -> tuple[str | None, ...]:
    """Return the arrays of a batch, in the order of `_DECIDE`."""
    legs = [leg for command in commands for leg in command.legs]
    bounds = [bound for command in commands for bound in command.conditions]
    accounts = sorted({side.account for sides in (legs, bounds) for side in sides})
    index = {account: n for n, account in enumerate(accounts, start=1)}
    return (
        uuids(accounts),
        uuids([command.id for command in commands]),
        integers([command.kind for command in commands]),
        texts([command.key for command in commands]),
        binaries([command.fingerprint for command in commands]),
        _unless_all_none(uuids, [command.parent for command in commands]),
        _unless_all_none(texts, [command.reference for command in commands]),
        texts([_json(command.postings) for command in commands]),
        _unless_all_none(
            texts, [_json(command.metadata) if command.metadata else None for command in commands]
        ),
        integers(accumulate([len(command.legs) for command in commands])),
        integers(accumulate([len(command.conditions) for command in commands])),
        integers([index[leg.account] for leg in legs]),
        texts([leg.asset for leg in legs]),
        integers([leg.posted_minor for leg in legs]),
        integers([leg.held_minor for leg in legs]),
        integers([index[bound.account] for bound in bounds]),
        integers([bound.minimum_minor for bound in bounds]),
        integers([bound.maximum_minor for bound in bounds]),
    )


def _json(value: Any) -> str:
    return msgspec.json.encode(value).decode()


def _unless_all_none[T](
    write: Callable[[Sequence[T | None]], str], values: Sequence[T | None]
) -> str | None:
    return write(values) if any(value is not None for value in values) else None
