"""Merkle trees and chained blocks: proofs verify, and nothing that was changed does."""

import hashlib
from datetime import UTC, datetime
from uuid import UUID

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from picopay_api.engine import chain
from picopay_api.engine.chain import Block, Proof

LEDGER = UUID(int=7)
# No two rows are alike: their ids differ.
documents = st.lists(st.text(min_size=1), min_size=1, max_size=70, unique=True)


def rfc_6962(leaves: list[bytes]) -> bytes:
    """The definition of RFC 6962, section 2.1, word by word."""
    if len(leaves) == 1:
        return leaves[0]
    k = 1
    while k * 2 < len(leaves):
        k *= 2
    return hashlib.sha256(b"\x01" + rfc_6962(leaves[:k]) + rfc_6962(leaves[k:])).digest()


def proof_of(texts: list[str], index: int) -> Proof:
    leaves = [chain.leaf_hash(text.encode()) for text in texts]
    block = Block(
        ledger=LEDGER,
        height=3,
        cluster=-5,
        xid_from=10,
        xid_to=20,
        first_position=101,
        count=len(texts),
        root=chain.merkle_root(leaves),
        previous_hash=chain.GENESIS,
    )
    path = chain.inclusion_path(leaves, index)
    return Proof(position=101 + index, document=texts[index], path=path, block=block)


@given(documents)
def test_the_tree_is_that_of_rfc_6962(texts: list[str]) -> None:
    leaves = [chain.leaf_hash(text.encode()) for text in texts]
    assert chain.merkle_root(leaves) == rfc_6962(leaves)


@given(documents, st.data())
def test_a_proof_verifies_after_a_round_trip_through_json(
    texts: list[str], data: st.DataObject
) -> None:
    proof = proof_of(texts, data.draw(st.integers(0, len(texts) - 1)))
    sent = msgspec.json.decode(msgspec.json.encode(proof), type=Proof)
    assert chain.verify(sent, chain.block_hash(proof.block))


@given(documents, st.data())
def test_another_position_does_not_verify(texts: list[str], data: st.DataObject) -> None:
    proof = proof_of(texts, data.draw(st.integers(0, len(texts) - 1)))
    shift = data.draw(st.integers(-len(texts) - 2, len(texts) + 2).filter(bool))
    moved = msgspec.structs.replace(proof, position=proof.position + shift)
    assert not chain.verify(moved, chain.block_hash(proof.block))


@given(documents, st.data())
def test_a_changed_document_does_not_verify(texts: list[str], data: st.DataObject) -> None:
    proof = proof_of(texts, data.draw(st.integers(0, len(texts) - 1)))
    changed = msgspec.structs.replace(proof, document=data.draw(st.text()) + proof.document + "!")
    assert not chain.verify(changed, chain.block_hash(proof.block))


@given(documents, st.data())
def test_a_changed_path_does_not_verify(texts: list[str], data: st.DataObject) -> None:
    proof = proof_of(texts, data.draw(st.integers(0, len(texts) - 1)))
    trusted = chain.block_hash(proof.block)
    longer = msgspec.structs.replace(proof, path=[*proof.path, bytes(32)])
    assert not chain.verify(longer, trusted)
    if proof.path:
        shorter = msgspec.structs.replace(proof, path=proof.path[:-1])
        other = msgspec.structs.replace(proof, path=[bytes(32), *proof.path[1:]])
        assert not chain.verify(shorter, trusted)
        assert not chain.verify(other, trusted)


@pytest.mark.parametrize(
    "change",
    [
        {"ledger": UUID(int=8)},
        {"height": 4},
        {"cluster": 5},
        {"xid_from": 11},
        {"xid_to": 21},
        {"first_position": 100},
        {"count": 4},
        {"root": bytes(32)},
        {"previous_hash": bytes([1]) * 32},
    ],
    ids=lambda change: next(iter(change)),
)
def test_every_field_of_a_header_is_under_its_hash(change: dict[str, object]) -> None:
    proof = proof_of(["a", "b", "c"], 1)
    forged = msgspec.structs.replace(proof.block, **change)
    assert chain.block_hash(forged) != chain.block_hash(proof.block)
    assert not chain.verify(
        msgspec.structs.replace(proof, block=forged), chain.block_hash(proof.block)
    )


def test_a_leaf_is_never_taken_for_a_node() -> None:
    leaves = [chain.leaf_hash(text) for text in (b"a", b"b")]
    assert chain.leaf_hash(leaves[0] + leaves[1]) != chain.merkle_root(leaves)


ROW = {
    "id": UUID(int=1),
    "kind": 1,
    "parent_id": None,
    "reference": "order-1",
    "idempotency_key": "k",
    "postings": '[{"asset": "USD", "amount": 1000000000000000001, "source": "s"}]',
    "metadata": '{"b": "grüße", "a": "\\n"}',
    "created_at": datetime(2026, 11, 24, 10, 0, 0, 5_000, UTC),
}


def test_the_canonical_form_of_a_row() -> None:
    assert chain.document(LEDGER, ROW).decode() == (
        '{"created_at":"2026-11-24T10:00:00.005000Z","id":"00000000000000000000000000000001",'
        '"idempotency_key":"k","kind":"1","ledger":"00000000000000000000000000000007",'
        '"metadata":{"a":"\\n","b":"grüße"},"parent":null,"postings":[{"amount":"1000000000000000001",'
        '"asset":"USD","source":"s"}],"reference":"order-1"}'
    )


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("id", UUID(int=2)),
        ("kind", 2),
        ("parent_id", UUID(int=3)),
        ("reference", None),
        ("idempotency_key", "l"),
        ("postings", "[]"),
        ("metadata", None),
        ("created_at", datetime(2026, 11, 24, 10, 0, 0, 6_000, UTC)),
    ],
)
def test_every_column_is_in_the_canonical_form(column: str, value: object) -> None:
    assert chain.document(LEDGER, {**ROW, column: value}) != chain.document(LEDGER, ROW)
