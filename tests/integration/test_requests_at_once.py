"""Many requests at once, of two processes: whatever the order inside, what all orders share must hold.

Each key decides one request once and says the same for ever; the balances are what was accepted, each
once; what must hold of a ledger holds. Every request takes the whole way through the engine.
"""

import asyncio
from collections import Counter, defaultdict
from collections.abc import AsyncIterator
from typing import Any, NamedTuple
from uuid import UUID

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from picopay_api.database_url import DatabaseUrl
from picopay_api.engine.accounts import AccountFilter, NewAccount
from picopay_api.engine.commands import (
    ConditionRequest,
    Pay,
    Posting,
    PostingRequest,
    Reverse,
    Transact,
)
from picopay_api.engine.engine import Engine
from picopay_api.engine.ids import new_id
from picopay_api.engine.views import Made, Payment, Transaction
from picopay_api.errors import PicoPayError
from picopay_api.settings import Settings
from picopay_api.worker.audit_all import audit_everything
from support.invariants import broken_rules

type Request = Pay | Transact | Reverse


class Ask(NamedTuple):
    """A request to one of two engines on the same database, under one of a few keys."""

    engine: int
    request: Request
    key: str


class Answer(NamedTuple):
    """An accepted request: what it made. A refused one: the code and the members."""

    made: UUID | None
    said: Any
    replayed: bool


NAMES = ("@world", "@alice", "@bob", "@carol")
FUNDS = 100
BUSY = {"idempotency_key_reused", "idempotency_key_in_flight"}
REFUSALS = {
    "insufficient_funds",
    "condition_failed",
    "reference_taken",
    "transaction_already_reversed",
}

references = st.sampled_from([None] * 6 + [f"reference-{n}" for n in range(6)])
small_amounts = st.integers(1, 80)
sides = st.lists(st.sampled_from(NAMES), min_size=2, max_size=2, unique=True)
postings = st.builds(
    lambda names, amount: PostingRequest(
        source=names[0], destination=names[1], amount_minor=amount, asset="USD"
    ),
    sides,
    small_amounts,
)
payments = st.builds(
    lambda names, amount, reference: Pay(
        source=names[0],
        destination=names[1],
        amount_minor=amount,
        asset="USD",
        reference=reference,
    ),
    sides,
    small_amounts,
    references,
)
transactions = st.builds(
    Transact,
    postings=st.lists(postings, min_size=1, max_size=3).map(tuple),
    conditions=st.lists(
        st.builds(
            ConditionRequest,
            account=st.sampled_from(NAMES[1:]),
            available_gte_minor=st.none() | st.integers(0, 100),
        ),
        max_size=1,
    ).map(tuple),
    reference=references,
)
asks = st.builds(
    Ask,
    st.integers(0, 1),
    payments | payments | transactions,
    st.integers(0, 25).map(lambda n: f"key-{n}"),
)
undone = st.tuples(st.integers(0, 1), st.integers(0, 100), st.integers(0, 9))


@pytest.fixture
async def engines(database_url: DatabaseUrl) -> AsyncIterator[tuple[Engine, Engine]]:
    chosen = Settings(database_url=database_url, pool_size=6)
    async with Engine.open(chosen) as one, Engine.open(chosen) as other:
        yield one, other


@settings(max_examples=15, suppress_health_check=list(HealthCheck))
@given(
    first=st.lists(asks, min_size=20, max_size=60),
    reversals=st.lists(undone, min_size=5, max_size=20),
)
async def test_requests_at_once_come_to_what_some_order_would(
    engines: tuple[Engine, Engine], first: list[Ask], reversals: list[tuple[int, int, int]]
) -> None:
    ledger = (await engines[0].ledgers.create(new_id().hex)).id
    for name in NAMES[1:]:
        request = NewAccount(
            asset="USD", reference=name[1:], min_balance_minor=-20 if name == "@carol" else 0
        )
        await engines[0].accounts.create(ledger, request)
    fund = Pay(source="@world", destination="@alice", amount_minor=FUNDS, asset="USD")
    await engines[0].payments.create(ledger, fund, "fund")

    answers = await ask_at_once(engines, ledger, first)
    made = sorted({answer.made for _, answer in answers if answer.made})
    second = [
        Ask(engine, Reverse(transaction=made[place % len(made)]), f"undo-{key}")
        for engine, place, key in reversals
        if made
    ]
    answers += await ask_at_once(engines, ledger, second)

    await check_keys(engines, ledger, answers)
    await check_balances(engines[0], ledger, answers)


async def ask_at_once(
    engines: tuple[Engine, Engine], ledger: UUID, asked: list[Ask]
) -> list[tuple[Ask, Answer]]:
    answers = await asyncio.gather(*(answer(engines[ask.engine], ledger, ask) for ask in asked))
    return list(zip(asked, answers, strict=True))


async def answer(engine: Engine, ledger: UUID, ask: Ask) -> Answer:
    request, key = ask.request, ask.key
    try:
        made: Made[Payment] | Made[Transaction]
        if isinstance(request, Pay):
            made = await engine.payments.create(ledger, request, key)
        elif isinstance(request, Transact):
            made = await engine.transactions.create(ledger, request, key)
        else:
            made = await engine.transactions.reverse(ledger, request, key)
    except PicoPayError as error:
        return Answer(None, (error.code, error.members), error.replayed)
    return Answer(made.value.id, made.value, made.replayed)


async def check_keys(
    engines: tuple[Engine, Engine], ledger: UUID, answers: list[tuple[Ask, Answer]]
) -> None:
    """Each key has decided one request once; whoever asks again, or asks elsewhere, hears that."""
    by_key: defaultdict[tuple[type, str], list[tuple[Ask, Answer]]] = defaultdict(list)
    for ask, heard in answers:
        if heard.made is None:
            check_refusal(*heard.said)
        by_key[type(ask.request), ask.key].append((ask, heard))
    for group in by_key.values():
        decided = [(ask, heard) for ask, heard in group if not is_busy(heard)]
        [first] = [(ask, heard) for ask, heard in decided if not heard.replayed]
        kept = first[1]._replace(replayed=True)
        for ask, heard in decided:
            assert ask.request == first[0].request
            assert heard in (first[1], kept)
        for ask, _ in group:
            again = await answer(engines[1 - ask.engine], ledger, ask)
            if ask.request == first[0].request:
                assert again == kept
            else:
                assert again.said == ("idempotency_key_reused", {})


def check_refusal(code: str, members: dict[str, Any]) -> None:
    assert code in BUSY | REFUSALS
    if code == "insufficient_funds":
        assert members["available"] - members["required"] < members["min_balance"]


def is_busy(heard: Answer) -> bool:
    return heard.made is None and heard.said[0] in BUSY


async def check_balances(engine: Engine, ledger: UUID, answers: list[tuple[Ask, Answer]]) -> None:
    """The balances are what the accepted requests come to, each once."""
    world = (await engine.accounts.get(ledger, "@world/USD")).id
    alice = (await engine.accounts.get(ledger, "@alice")).id
    wanted = Counter({world: -FUNDS, alice: FUNDS})
    booked = {
        heard.made: [Posting(said.source, said.destination, said.amount_minor, said.asset)]
        if isinstance(said := heard.said, Payment)
        else said.postings
        for _, heard in answers
        if heard.made
    }
    for moved in booked.values():
        for posting in moved:
            wanted[posting.source] -= posting.amount
            wanted[posting.destination] += posting.amount
    for account in (await engine.accounts.list(ledger, AccountFilter(), 100)).data:
        assert account.balance.posted_minor == wanted[account.id]
    assert await audit_everything(engine.database, lambda _: None) == []
    async with engine.database.session() as connection:
        assert await broken_rules(connection, ledger) == []
        rows = await connection.fetchval(
            "SELECT count(*) FROM picopay.journal WHERE ledger_id = $1", ledger
        )
    assert rows == 1 + len(booked)
