"""Planning: a request becomes a command that conserves money, or is refused in a fixed order."""

from collections import Counter
from typing import Any
from uuid import UUID

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from picopay_api.engine.commands import (
    Command,
    Condition,
    ConditionRequest,
    Kind,
    Leg,
    Pay,
    Posting,
    PostingRequest,
    Reverse,
    Transact,
)
from picopay_api.engine.ledger import (
    AMOUNT_MAX_MINOR,
    BALANCE_MAX_MINOR,
    MOVED_MAX_MINOR,
    Found,
    FoundAccount,
    Stamp,
    addresses,
    fingerprint,
    plan_payment,
    plan_reversal,
    plan_transaction,
)
from picopay_api.errors import (
    AccountNotFound,
    AssetMismatch,
    BalanceOutOfRange,
    InvalidRequest,
    PicoPayError,
    SameAccount,
    TransactionNotReversible,
)

INT64_MAX = 2**63 - 1
STAMP = Stamp(ledger=UUID(int=1), id=UUID(int=2), key="order-1")

# Accounts by reference; the last two are one account under two names.
ACCOUNTS = {
    "@alice": FoundAccount(UUID(int=11), "USD"),
    "@bob": FoundAccount(UUID(int=12), "USD"),
    "@carol": FoundAccount(UUID(int=13), "USD"),
    "@euro": FoundAccount(UUID(int=14), "EUR"),
    "@cent": FoundAccount(UUID(int=15), "EUR"),
    "@alice-again": FoundAccount(UUID(int=11), "USD"),
}
ALICE, BOB, CAROL, EURO = (ACCOUNTS[name].id for name in ("@alice", "@bob", "@carol", "@euro"))


def found(request: Pay | Transact) -> Found:
    """Find what the directory would: accounts whatever asset is asked for."""
    return {
        address: ACCOUNTS[address[0]] for address in addresses(request) if address[0] in ACCOUNTS
    }


def pay(source: str, destination: str, amount: int = 5, asset: str = "USD", **other: Any) -> Pay:
    return Pay(source=source, destination=destination, amount_minor=amount, asset=asset, **other)


def move(source: str, destination: str, amount: int = 5, asset: str = "USD") -> PostingRequest:
    return PostingRequest(source=source, destination=destination, amount_minor=amount, asset=asset)


def plan(request: Pay | Transact, stamp: Stamp = STAMP) -> Command:
    if isinstance(request, Pay):
        return plan_payment(request, found(request), stamp)
    return plan_transaction(request, found(request), stamp)


# What a plan says.


def test_a_payment_is_one_posting() -> None:
    request = pay("@alice", "@bob", 1250, reference="order-1841", metadata={"tier": "gold"})
    assert plan(request) == Command(
        ledger=STAMP.ledger,
        id=STAMP.id,
        kind=Kind.PAYMENT,
        key="order-1",
        fingerprint=fingerprint(request),
        postings=(Posting(ALICE, BOB, 1250, "USD"),),
        legs=(Leg(ALICE, "USD", -1250), Leg(BOB, "USD", 1250)),
        reference="order-1841",
        metadata={"tier": "gold"},
    )


@pytest.mark.parametrize("amount", [-5, 0, AMOUNT_MAX_MINOR + 1])
def test_an_amount_that_is_none_is_refused_whoever_asks(amount: int) -> None:
    for request in (
        pay("@alice", "@bob", amount),
        Transact(postings=(move("@alice", "@bob"), move("@bob", "@alice", amount))),
    ):
        with pytest.raises(InvalidRequest):
            plan(request)


def test_a_transaction_keeps_the_order_of_its_postings_and_conditions() -> None:
    request = Transact(
        postings=(move("@alice", "@bob", 5), move("@euro", "@cent", 2, "EUR")),
        conditions=(
            ConditionRequest(account="@bob", available_gte_minor=1),
            ConditionRequest(account="@euro", available_lte_minor=9),
        ),
        reference="r",
    )
    command = plan(request)
    assert (command.kind, command.reference, command.parent) == (Kind.TRANSACTION, "r", None)
    assert command.postings == (
        Posting(ALICE, BOB, 5, "USD"),
        Posting(EURO, ACCOUNTS["@cent"].id, 2, "EUR"),
    )
    assert [leg.posted_minor for leg in command.legs] == [-5, 5, -2, 2]
    assert command.conditions == (Condition(BOB, 1, None), Condition(EURO, None, 9))


def test_a_reversal_mirrors_the_postings_from_the_last_to_the_first() -> None:
    original = (Posting(ALICE, BOB, 5, "USD"), Posting(BOB, CAROL, 3, "USD"))
    request = Reverse(transaction=UUID(int=99), reference="undone", metadata={"a": "b"})
    command = plan_reversal(request, Kind.TRANSACTION, original, STAMP)
    assert command.postings == (Posting(CAROL, BOB, 3, "USD"), Posting(BOB, ALICE, 5, "USD"))
    assert (command.kind, command.parent) == (Kind.REVERSAL, UUID(int=99))
    assert (command.reference, command.metadata) == ("undone", {"a": "b"})
    assert command.fingerprint == fingerprint(request)


def test_without_a_key_it_is_a_dry_run() -> None:
    dry = Stamp(ledger=STAMP.ledger, id=STAMP.id, key=None)
    assert plan(pay("@alice", "@bob"), dry) == replace(plan(pay("@alice", "@bob")), key=None)


def test_every_account_that_a_request_names_is_asked_for() -> None:
    request = Transact(
        postings=(move("@alice", "@bob"), move("@euro", "@cent", asset="EUR")),
        conditions=(ConditionRequest(account="@carol"),),
    )
    assert list(addresses(request)) == [
        ("@alice", "USD"),
        ("@bob", "USD"),
        ("@euro", "EUR"),
        ("@cent", "EUR"),
        ("@carol", None),
    ]
    assert list(addresses(pay("@alice", "@bob"))) == [("@alice", "USD"), ("@bob", "USD")]


# Refusals, and their order.

AT_MOST = AMOUNT_MAX_MINOR
TOO_MUCH = (move("@alice", "@bob", AT_MOST),) * (MOVED_MAX_MINOR // AT_MOST + 1)


@pytest.mark.parametrize(
    ("request_", "refusal", "members"),
    [
        (pay("@nobody", "@bob"), AccountNotFound, {}),
        (pay("@alice", "@nobody"), AccountNotFound, {}),
        (pay("@alice", "@euro"), AssetMismatch, {"account": EURO, "asset": "EUR"}),
        (pay("@alice", "@bob", asset="EUR"), AssetMismatch, {"account": ALICE, "asset": "USD"}),
        (pay("@alice", "@alice"), SameAccount, {"account": ALICE}),
        (pay("@alice", "@alice-again"), SameAccount, {"account": ALICE}),
        (Transact(postings=TOO_MUCH), BalanceOutOfRange, {"account": ALICE}),
        (
            Transact(
                postings=(move("@alice", "@bob"),),
                conditions=(ConditionRequest(account="@nobody"),),
            ),
            AccountNotFound,
            {},
        ),
        # Two faults: the first in the documented order.
        (pay("@euro", "@nobody"), AccountNotFound, {}),
        (pay("@euro", "@euro"), AssetMismatch, {"account": EURO, "asset": "EUR"}),
        (Transact(postings=(*TOO_MUCH, move("@alice", "@alice"))), SameAccount, {"account": ALICE}),
        (Transact(postings=(*TOO_MUCH, move("@alice", "@nobody"))), AccountNotFound, {}),
        (
            Transact(postings=TOO_MUCH, conditions=(ConditionRequest(account="@nobody"),)),
            AccountNotFound,
            {},
        ),
        # Posting by posting: the first posting's fault.
        (
            Transact(postings=(move("@alice", "@alice"), move("@alice", "@nobody"))),
            SameAccount,
            {"account": ALICE},
        ),
    ],
)
def test_what_cannot_be_is_refused(
    request_: Pay | Transact, refusal: type[PicoPayError], members: dict[str, Any]
) -> None:
    with pytest.raises(refusal) as raised:
        plan(request_)
    assert type(raised.value) is refusal
    assert raised.value.members == members


def test_a_reversal_is_not_reversed() -> None:
    with pytest.raises(TransactionNotReversible):
        plan_reversal(
            Reverse(transaction=UUID(int=9)),
            Kind.REVERSAL,
            (Posting(ALICE, BOB, 5, "USD"),),
            STAMP,
        )


# Properties.

amounts = st.one_of(
    st.integers(1, 1_000), st.integers(1, AMOUNT_MAX_MINOR), st.just(AMOUNT_MAX_MINOR)
)
dollars = st.sampled_from(["@alice", "@bob", "@carol", "@alice-again"])
euros = st.sampled_from(["@euro", "@cent"])


@st.composite
def moves(draw: st.DrawFn) -> PostingRequest:
    side, asset = draw(st.sampled_from([(dollars, "USD"), (dollars, "USD"), (euros, "EUR")]))
    source = draw(side)
    others = side.filter(lambda name: ACCOUNTS[name].id != ACCOUNTS[source].id)
    return move(source, draw(others), draw(amounts), asset)


metadata = st.dictionaries(st.text(max_size=5), st.text(max_size=5), max_size=3)
texts = st.none() | st.text(min_size=1, max_size=8)
payments = st.builds(
    lambda m, reference, more: pay(
        m.source, m.destination, m.amount_minor, m.asset, reference=reference, metadata=more
    ),
    moves(),
    texts,
    metadata,
)
bounds = st.none() | st.integers(-BALANCE_MAX_MINOR, BALANCE_MAX_MINOR)
transactions = st.builds(
    Transact,
    postings=st.lists(moves(), min_size=1, max_size=12).map(tuple),
    conditions=st.lists(
        st.builds(
            ConditionRequest,
            account=st.sampled_from(sorted(ACCOUNTS)),
            available_gte_minor=bounds,
            available_lte_minor=bounds,
        ),
        max_size=2,
    ).map(tuple),
    reference=texts,
    metadata=metadata,
)
reversals = st.builds(Reverse, transaction=st.uuids(), reference=texts, metadata=metadata)


def sums(command: Command) -> Counter[str]:
    total: Counter[str] = Counter()
    for leg in command.legs:
        total[leg.asset] += leg.posted_minor
    return total


def moved(postings: tuple[Posting, ...]) -> Counter[UUID]:
    """Return what goes into and out of each account, without sign."""
    total: Counter[UUID] = Counter()
    for posting in postings:
        total[posting.source] += posting.amount
        total[posting.destination] += posting.amount
    return total


@given(payments | transactions)
def test_the_legs_are_the_two_sides_of_each_posting(request: Pay | Transact) -> None:
    try:
        command = plan(request)
    except BalanceOutOfRange:
        return
    assert not any(sums(command).values())
    for posting, source, destination in zip(
        command.postings, command.legs[::2], command.legs[1::2], strict=True
    ):
        assert source == Leg(posting.source, posting.asset, -posting.amount)
        assert destination == Leg(posting.destination, posting.asset, posting.amount)


@given(transactions)
def test_a_transaction_moves_up_to_the_bound_and_no_more(request: Transact) -> None:
    postings = tuple(
        Posting(
            ACCOUNTS[posting.source].id,
            ACCOUNTS[posting.destination].id,
            posting.amount_minor,
            posting.asset,
        )
        for posting in request.postings
    )
    too_much = [account for account, sum_ in moved(postings).items() if sum_ > MOVED_MAX_MINOR]
    if too_much:
        with pytest.raises(BalanceOutOfRange) as raised:
            plan(request)
        assert raised.value.members["account"] in too_much
    else:
        assert plan(request).postings == postings


def test_sums_of_balances_and_of_what_a_command_moves_fit_64_bits() -> None:
    assert BALANCE_MAX_MINOR + MOVED_MAX_MINOR <= INT64_MAX
    assert AMOUNT_MAX_MINOR <= MOVED_MAX_MINOR  # a payment is not summed up: it is within anyway
    assert 2 * BALANCE_MAX_MINOR <= INT64_MAX  # the distance of a balance from a hold or a floor


@given(
    payments | transactions,
    st.sampled_from([-BALANCE_MAX_MINOR, BALANCE_MAX_MINOR])
    | st.integers(-BALANCE_MAX_MINOR, BALANCE_MAX_MINOR),
)
def test_no_balance_overflows_64_bits_on_its_way_through_a_command(
    request: Pay | Transact, balance: int
) -> None:
    """The function adds the legs one by one, from wherever the accounts are."""
    try:
        legs = plan(request).legs
    except BalanceOutOfRange:
        return
    balances = {leg.account: balance for leg in legs}
    for leg in legs:
        balances[leg.account] += leg.posted_minor
        assert -INT64_MAX <= balances[leg.account] <= INT64_MAX


@given(payments | transactions, reversals)
def test_a_reversal_undoes_all_that_was_done(original: Pay | Transact, request: Reverse) -> None:
    try:
        command = plan(original)
    except BalanceOutOfRange:
        return
    undone = plan_reversal(request, command.kind, command.postings, STAMP)
    # The last thing that was done is undone first.
    assert undone.legs == tuple(
        replace(leg, posted_minor=-leg.posted_minor) for leg in reversed(command.legs)
    )
    again = plan_reversal(request, Kind.TRANSACTION, undone.postings, STAMP)
    assert again.postings == command.postings


# Fingerprints.


@given(payments | transactions | reversals)
def test_the_same_request_has_the_same_fingerprint_however_it_was_spelled(
    request: Pay | Transact | Reverse,
) -> None:
    backwards = dict(reversed(list(request.metadata.items())))
    assert fingerprint(replace(request, metadata=backwards)) == fingerprint(request)
    read_back = msgspec.json.decode(msgspec.json.encode(request), type=type(request))
    assert fingerprint(read_back) == fingerprint(request)
    assert len(fingerprint(request)) == 16


@given(payments | transactions | reversals, payments | transactions | reversals)
def test_different_requests_have_different_fingerprints(
    one: Pay | Transact | Reverse, other: Pay | Transact | Reverse
) -> None:
    assert (fingerprint(one) == fingerprint(other)) == (one == other)
