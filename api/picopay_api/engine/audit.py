"""What the auditor says of a ledger, and proofs that a transaction is in it.

Called by `http/audit.py` and the command line. The auditing itself happens in `worker/auditor.py`;
this module only reads what it stored.
"""

from datetime import datetime
from uuid import UUID

import msgspec

from picopay_api.engine import chain
from picopay_api.engine.chain import Proof
from picopay_api.errors import InternalError, TransactionNotFound
from picopay_api.store import audit as statements
from picopay_api.store import events, seal
from picopay_api.store.database import Database

_FINDINGS_MAX = 100


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """Something that does not add up; `subject` is an id, an asset or a height."""

    ledger: UUID
    kind: str
    subject: str
    detail: str
    found_at: datetime


class AuditState(msgspec.Struct, frozen=True, kw_only=True):
    """Where the auditor is in a ledger.

    `position` of `sealed_position` events were checked; `sealed_hash` is the hash of the last
    block (None before the first), worth keeping elsewhere: proofs of what that block holds can be
    verified against it, and no earlier block can change without it. `sums` are all balances by asset
    when they were last added up: zeros in a healthy ledger. `findings` are the newest hundred.
    """

    position: int
    sealed_position: int
    sealed_hash: bytes | None
    sums: dict[str, int]
    findings: list[Finding]
    checked_at: datetime | None


class Audit:
    """Reads the state of the auditor and makes proofs, for all ledgers."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def state(self, ledger: UUID) -> AuditState:
        """Return where the auditor is in a ledger, and what it found."""
        progress = await self._database.row(statements.STATE, ledger)
        tip = await self._database.row(seal.TIP, ledger)
        findings = await self._database.rows(statements.FINDINGS, ledger, _FINDINGS_MAX)
        return AuditState(
            position=progress["position"] if progress else 0,
            sealed_position=tip["next_position"] - 1 if tip else 0,
            sealed_hash=tip["hash"] if tip else None,
            sums=msgspec.json.decode(progress["sums"], type=dict[str, int]) if progress else {},
            findings=[Finding(ledger=ledger, **finding) for finding in findings],
            checked_at=progress["checked_at"] if progress else None,
        )

    async def proof(self, ledger: UUID, id: UUID) -> Proof:
        """Prove that a transaction (or payment) is sealed where it is; see `chain.verify`.

        Raises:
            TransactionNotFound: there is none of this id in the ledger, or it is not sealed yet.
            InternalError: its block has lost rows, which the auditor finds as well.
        """
        place = await self._database.row(events.POSITIONS, ledger, [id])
        if place is None:
            raise TransactionNotFound("there is no such sealed transaction in this ledger")
        block = await self._database.row(statements.BLOCK_AT, ledger, place["position"])
        assert block is not None  # the position was counted from it
        rows = await self._database.rows(
            seal.ROWS, ledger, block["cluster"], block["xid_from"], block["xid_to"]
        )
        index = place["position"] - block["first_position"]
        if index >= len(rows) or rows[index]["id"] != id:
            raise InternalError("the block of this transaction is not what was sealed; audit it")
        documents = [chain.document(ledger, row) for row in rows]
        return Proof(
            position=place["position"],
            document=documents[index].decode(),
            path=chain.inclusion_path([chain.leaf_hash(each) for each in documents], index),
            block=chain.block_of(ledger, block),
        )
