"""Fingerprints tell requests under one key apart: any change of what was asked changes them."""

from typing import Any
from uuid import UUID

import msgspec
import pytest
from msgspec.structs import replace

from picopay_api.engine.accounts import NewAccount
from picopay_api.engine.commands import ConditionRequest, Pay, PostingRequest, Reverse, Transact
from picopay_api.engine.ledger import fingerprint

THERE = PostingRequest(source="@alice", destination="@bob", amount_minor=5, asset="USD")
BACK = replace(THERE, source="@bob", destination="@alice")
AT_LEAST_ONE = ConditionRequest(account="@bob", available_gte_minor=1)

REQUESTS: list[tuple[msgspec.Struct, list[dict[str, Any]]]] = [
    (
        Pay(
            source="@alice",
            destination="@bob",
            amount_minor=5,
            asset="USD",
            reference="r",
            metadata={"a": "1"},
        ),
        [
            {"source": "@carol"},
            {"destination": "@carol"},
            {"source": "@bob", "destination": "@alice"},
            {"amount_minor": 6},
            {"asset": "EUR"},
            {"reference": None},
            {"reference": "s"},
            {"metadata": {}},
            {"metadata": {"a": "2"}},
            {"metadata": {"b": "1"}},
        ],
    ),
    (
        Transact(
            postings=(THERE, BACK),
            conditions=(AT_LEAST_ONE,),
            reference="r",
            metadata={"a": "1"},
        ),
        [
            {"postings": (BACK, THERE)},
            {"postings": (THERE,)},
            {"postings": (THERE, BACK, THERE)},
            {"conditions": ()},
            {"conditions": (replace(AT_LEAST_ONE, available_gte_minor=2),)},
            {"conditions": (ConditionRequest(account="@bob", available_lte_minor=1),)},
            {"reference": "s"},
            {"metadata": {"a": "1", "b": "1"}},
        ],
    ),
    (
        Reverse(transaction=UUID(int=9), reference="r", metadata={"a": "1"}),
        [{"transaction": UUID(int=8)}, {"reference": None}, {"metadata": {"a": ""}}],
    ),
    (
        NewAccount(asset="USD", reference="r", min_balance_minor=0, metadata={"a": "1"}),
        [
            {"asset": "EUR"},
            {"reference": None},
            {"min_balance_minor": None},
            {"min_balance_minor": -1},
            {"metadata": {}},
        ],
    ),
]


@pytest.mark.parametrize(
    ("asked", "changes"), [(asked, changes) for asked, all_ in REQUESTS for changes in all_]
)
def test_any_change_of_a_request_changes_its_fingerprint(
    asked: msgspec.Struct, changes: dict[str, Any]
) -> None:
    assert fingerprint(replace(asked, **changes)) != fingerprint(asked)


@pytest.mark.parametrize(("asked", "all_"), REQUESTS)
def test_every_field_of_the_request_is_among_the_changes(
    asked: msgspec.Struct, all_: list[dict[str, Any]]
) -> None:
    assert {field for changes in all_ for field in changes} == set(asked.__struct_fields__)


def test_a_payment_is_not_the_transaction_of_its_posting() -> None:
    payment = Pay(source="@alice", destination="@bob", amount_minor=5, asset="USD")
    assert fingerprint(payment) != fingerprint(Transact(postings=(THERE,)))


def test_what_is_left_out_is_what_it_is_by_default() -> None:
    assert fingerprint(Transact(postings=(THERE,))) == fingerprint(
        Transact(postings=(THERE,), conditions=(), reference=None, metadata={})
    )


def test_a_field_that_a_later_release_adds_does_not_change_what_is_remembered() -> None:
    class LaterPay(Pay, frozen=True, kw_only=True, omit_defaults=True, tag="pay"):
        capture: bool = True

    asked: dict[str, Any] = {"source": "@a", "destination": "@b", "amount_minor": 5, "asset": "USD"}
    assert fingerprint(LaterPay(**asked)) == fingerprint(Pay(**asked))
    assert fingerprint(LaterPay(**asked, capture=False)) != fingerprint(Pay(**asked))


def test_a_fingerprint_is_the_same_in_every_release() -> None:
    """Keys are remembered for weeks: another way of hashing would refuse every retry."""
    payment = Pay(source="@alice", destination="@bob", amount_minor=5, asset="USD")
    assert fingerprint(payment).hex() == "b81794c6c036d372a83c625845b9e1d4"
