"""The arithmetic of sealing: a Merkle tree over the rows of a block, blocks chained by hash.

Pure: used by the sealer to make blocks, by the auditor to make them again, and by anyone to verify
a proof offline. The tree is that of RFC 6962 (Certificate Transparency) with SHA-256. Leaves and
block headers are canonical JSON: no spaces, keys in order of code points, integers as strings of
digits, so that every language arrives at the same bytes.
"""

import hashlib
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, Protocol
from uuid import UUID

import msgspec

GENESIS = bytes(32)
"""What the first block of a ledger names as the hash before it."""

# Different first bytes keep a leaf, a node and a block from ever being taken for one another.
_LEAF, _NODE, _BLOCK = b"\x00", b"\x01", b"\x02"

_encoder = msgspec.json.Encoder(order="sorted")


class Row(Protocol):
    """A row of the database: values by the names of columns."""

    def __getitem__(self, column: str, /) -> Any:
        """Return the value of a column."""


class Block(msgspec.Struct, frozen=True, kw_only=True):
    """The header of a block: which commits it seals, at which positions, on top of which block."""

    ledger: UUID
    height: int
    cluster: int
    xid_from: int
    xid_to: int
    first_position: int
    count: int
    root: bytes
    previous_hash: bytes


class Proof(msgspec.Struct, frozen=True, kw_only=True):
    """That a journal row is the one sealed at a position.

    `document` is the row's canonical form, `path` the hashes of the tree from the leaf upwards.
    Encoded as JSON, hashes are in base64.
    """

    position: int
    document: str
    path: list[bytes]
    block: Block


def document(ledger: UUID, row: Row) -> bytes:
    """Return the canonical bytes of a journal row, columns as stored, `jsonb` as text."""
    return _canonical(
        {
            "created_at": _instant(row["created_at"]),
            "id": row["id"].hex,
            "idempotency_key": row["idempotency_key"],
            "kind": row["kind"],
            "ledger": ledger.hex,
            "metadata": msgspec.json.decode(row["metadata"] or "{}"),
            "parent": row["parent_id"].hex if row["parent_id"] else None,
            "postings": msgspec.json.decode(row["postings"]),
            "reference": row["reference"],
        }
    )


def block_of(ledger: UUID, record: Row) -> Block:
    """Make a block's header of its stored row."""
    names = (name for name in Block.__struct_fields__ if name != "ledger")
    return Block(ledger=ledger, **{name: record[name] for name in names})


def leaf_hash(document: bytes) -> bytes:
    """Hash a leaf of the tree."""
    return hashlib.sha256(_LEAF + document).digest()


def block_hash(block: Block) -> bytes:
    """Hash a block's header, and with it everything before it."""
    fields = msgspec.structs.asdict(block)
    header = {
        name: value.hex() if isinstance(value, bytes) else value for name, value in fields.items()
    }
    return hashlib.sha256(_BLOCK + _canonical({**header, "ledger": block.ledger.hex})).digest()


def merkle_root(leaves: Sequence[bytes]) -> bytes:
    """Return the root of the tree over leaf hashes, of which there is at least one."""
    level = list(leaves)
    while len(level) > 1:
        level = _level_above(level)
    return level[0]


def inclusion_path(leaves: Sequence[bytes], index: int) -> list[bytes]:
    """Return the hashes that lead from the leaf at `index` (from 0) to the root."""
    path: list[bytes] = []
    level = list(leaves)
    while len(level) > 1:
        if index ^ 1 < len(level):
            path.append(level[index ^ 1])
        level = _level_above(level)
        index //= 2
    return path


def verify(proof: Proof, trusted_hash: bytes) -> bool:
    """Tell whether a proof holds against the hash of its block, known from elsewhere."""
    block = proof.block
    index = proof.position - block.first_position
    return (
        0 <= index < block.count
        and block_hash(block) == trusted_hash
        and _climb(leaf_hash(proof.document.encode()), index, block.count, proof.path) == block.root
    )


def _climb(node: bytes, index: int, width: int, path: Sequence[bytes]) -> bytes | None:
    """Return the root that a path leads to; None when it is too short or too long for the tree."""
    remaining = iter(path)
    while width > 1:
        if index ^ 1 < width:
            sibling = next(remaining, None)
            if sibling is None:
                return None
            node = _node_hash(sibling, node) if index % 2 else _node_hash(node, sibling)
        index, width = index // 2, (width + 1) // 2
    return node if next(remaining, None) is None else None


def _level_above(level: Sequence[bytes]) -> list[bytes]:
    # A node without a sibling goes up as it is, which gives the same tree as RFC 6962's recursion.
    above = [_node_hash(level[n], level[n + 1]) for n in range(0, len(level) - 1, 2)]
    return [*above, level[-1]] if len(level) % 2 else above


def _node_hash(left: bytes, right: bytes) -> bytes:
    return hashlib.sha256(_NODE + left + right).digest()


def _canonical(value: Any) -> bytes:
    return _encoder.encode(_plain(value))


def _plain(value: Any) -> Any:
    """Write integers as digits: JSON numbers lose precision in many languages."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_plain(item) for item in value]
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


def _instant(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
