"""The database and the model of its rules, side by side: equal in every outcome, balance and entry.

Hypothesis makes up the lives of ledgers; what `support/model.py` says in Python, `picopay.decide` must say
and write, on the newest and on the oldest release of PostgreSQL. What the engine makes of many requests
at once is in `test_requests_at_once.py`.
"""

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import NamedTuple
from uuid import UUID

import msgspec
import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from picopay_api.engine.accounts import NewAccount
from picopay_api.engine.commands import (
    Command,
    ConditionRequest,
    Kind,
    Pay,
    PostingRequest,
    Reverse,
    Transact,
)
from picopay_api.engine.ids import ACCOUNT, format_id, new_id, parse_id
from picopay_api.engine.journal import JournalRow
from picopay_api.engine.ledger import (
    AMOUNT_MAX_MINOR,
    BALANCE_MAX_MINOR,
    FoundAccount,
    Stamp,
    addresses,
    plan_payment,
    plan_reversal,
    plan_transaction,
)
from picopay_api.engine.views import AccountState
from picopay_api.errors import (
    BalanceOutOfRange,
    PicoPayError,
    SameAccount,
    TransactionNotReversible,
)
from picopay_api.store import decide as arbitration
from support import model
from support.ground import RETENTION_DAYS, Ground
from support.invariants import BROKEN_RULES
from support.postgres import VERSIONS, Server
from support.scene import as_model

type Request = Pay | Transact | Reverse

BATCH_MAX = 6

amounts = st.one_of(
    st.integers(1, 20),
    st.integers(1, 200),
    st.sampled_from([AMOUNT_MAX_MINOR // 2, AMOUNT_MAX_MINOR - 1, AMOUNT_MAX_MINOR]),
)
floors = st.sampled_from([0, 0, 0, -1, -50, -BALANCE_MAX_MINOR, None])
assets = st.sampled_from(["USD", "USD", "EUR", "BTC/8"])
references = st.sampled_from([None] * 6 + [f"reference-{n}" for n in range(6)])
metadata = st.sampled_from([{}, {}, {"note": "grüße"}, {"a": "1", "b": "2"}])
sizes = st.integers(1, BATCH_MAX)
seldom = st.sampled_from([False] * 7 + [True])
distances = st.none() | st.integers(-2, 2)


class LedgerMachine(RuleBasedStateMachine):
    """The life of one ledger, in the database and in the model."""

    def __init__(self, ground: Ground) -> None:
        super().__init__()
        self.ground = ground
        self.model = model.Ledger()
        self.ledger = ground.run(ground.make_ledger())
        self.asked: list[tuple[Request, str]] = []  # every request with a key
        self.times: dict[tuple[Kind, str], datetime] = {}  # when each key was decided first
        self.nobody = [new_id()]  # accounts that do not exist

    def teardown(self) -> None:
        assert self.ground.run(self.ground.end(self.ledger)) == []

    # What happens to accounts.

    @initialize(rich=st.booleans())
    def begin(self, rich: bool) -> None:
        """An outside world of two assets, and somebody to pay to; some own all that one can."""
        for asset in ("USD", "EUR"):
            self.make_account(asset, None)
            self.make_account(asset, 0)
        self.make_account("USD", -50)
        if rich:
            world, richest = list(self.model.accounts)[:2]
            posting = PostingRequest(
                source=format_id(ACCOUNT, world),
                destination=format_id(ACCOUNT, richest),
                amount_minor=AMOUNT_MAX_MINOR,
                asset="USD",
            )
            gift = self.plan(Transact(postings=(posting,) * 4), "gift")
            assert gift is not None
            self.decide([gift])

    @precondition(lambda self: len(self.model.accounts) < 12)
    @rule(asset=assets, floor=floors)
    def make_account(self, asset: str, floor: int | None) -> None:
        request = NewAccount(asset=asset, min_balance_minor=floor)
        made = self.ground.run(self.ground.accounts.create(self.ledger, request))
        self.model.accounts[made.value.id] = model.Account(asset, floor)

    @rule(data=st.data(), state=st.sampled_from([*AccountState, AccountState.OPEN]))
    def change_a_state(self, data: st.DataObject, state: AccountState) -> None:
        account = data.draw(st.sampled_from(list(self.model.accounts)))
        accounts = self.ground.accounts
        change = {
            AccountState.OPEN: accounts.unfreeze,
            AccountState.FROZEN: accounts.freeze,
            AccountState.CLOSED: accounts.close,
        }[state]
        wanted = answered = None
        try:
            self.model.set_state(account, state)
        except model.Refused as refused:
            wanted = refused.code
        try:
            self.ground.run(change(self.ledger, format_id(ACCOUNT, account)))
        except PicoPayError as error:
            answered = error.code
        assert answered == wanted

    # What is asked.

    @rule(data=st.data(), size=sizes)
    def decide_payments(self, data: st.DataObject, size: int) -> None:
        self.decide(self.draw_batch(data, [self.pay] * size))

    @rule(data=st.data(), size=sizes)
    def decide_transactions(self, data: st.DataObject, size: int) -> None:
        self.decide(self.draw_batch(data, [self.transact] * size))

    @precondition(lambda self: self.model.journal)
    @rule(data=st.data(), size=sizes)
    def decide_reversals(self, data: st.DataObject, size: int) -> None:
        self.decide(self.draw_batch(data, [self.reverse] * size))

    @rule(data=st.data(), size=sizes)
    def decide_a_mixture(self, data: st.DataObject, size: int) -> None:
        of_each: list[Callable[[st.DataObject], Request]]
        of_each = [self.pay, self.transact, self.reverse]
        self.decide(self.draw_batch(data, (of_each * BATCH_MAX)[:size]))

    @precondition(lambda self: self.asked)
    @rule(data=st.data())
    def ask_again(self, data: st.DataObject) -> None:
        """Repeat a request under its key."""
        request, key = data.draw(st.sampled_from(self.asked))
        command = self.plan(request, key)
        assert command is not None
        self.decide([command])

    def draw_batch(
        self, data: st.DataObject, makers: Sequence[Callable[[st.DataObject], Request]]
    ) -> list[Command]:
        """Make up requests and plan them; some are refused at that, some do not fit the batch."""
        batch: list[Command] = []
        for make in makers:
            request = make(data)
            # Few keys, so that many requests meet one that was used before.
            key: str | None = f"key-{data.draw(st.integers(0, 80))}"
            if isinstance(request, Transact) and data.draw(seldom):
                key = None  # a dry run
            command = self.plan(request, key)
            if command is None or any(clash(command, other) for other in batch):
                continue
            batch.append(command)
            if key is not None:
                self.asked.append((request, key))
        return batch

    def pay(self, data: st.DataObject) -> Pay:
        posting = self.posting(data)
        return Pay(
            source=posting.source,
            destination=posting.destination,
            amount_minor=posting.amount_minor,
            asset=posting.asset,
            reference=data.draw(references),
            metadata=data.draw(metadata),
        )

    def transact(self, data: st.DataObject) -> Transact:
        return Transact(
            postings=tuple(self.posting(data) for _ in range(data.draw(st.integers(1, 6)))),
            conditions=tuple(self.condition(data) for _ in range(data.draw(st.integers(0, 2)))),
            reference=data.draw(references),
            metadata=data.draw(metadata),
        )

    def reverse(self, data: st.DataObject) -> Request:
        if not self.model.journal:
            return self.pay(data)
        return Reverse(
            transaction=data.draw(st.sampled_from(list(self.model.journal))),
            reference=data.draw(references),
            metadata=data.draw(metadata),
        )

    def posting(self, data: st.DataObject) -> PostingRequest:
        """Mostly between accounts of one asset; now and then from or to what cannot be."""
        accounts = self.model.accounts
        source = data.draw(st.sampled_from(list(accounts)))
        asset = accounts[source].asset
        others = [id for id, account in accounts.items() if account.asset == asset]
        others.remove(source)
        if not others or data.draw(seldom):
            others = [*self.nobody, *accounts]
        destination = data.draw(st.sampled_from(others))
        return PostingRequest(
            source=format_id(ACCOUNT, source),
            destination=format_id(ACCOUNT, destination),
            amount_minor=data.draw(amounts),
            asset=asset,
        )

    def condition(self, data: st.DataObject) -> ConditionRequest:
        """Bounds close to what is available now."""
        accounts = self.model.accounts
        account = data.draw(st.sampled_from(list(accounts) * 8 + self.nobody))
        available = accounts[account].available_minor if account in accounts else 0
        low, high = data.draw(distances), data.draw(distances)
        return ConditionRequest(
            account=format_id(ACCOUNT, account),
            available_gte_minor=None if low is None else available + low,
            available_lte_minor=None if high is None else available + high,
        )

    def plan(self, request: Request, key: str | None) -> Command | None:
        stamp = Stamp(ledger=self.ledger, id=new_id(), key=key)
        try:
            return plan(request, stamp, self.model)
        except (SameAccount, BalanceOutOfRange, TransactionNotReversible):
            return None

    # What is answered, and what must hold.

    def decide(self, batch: list[Command]) -> None:
        if not batch:
            return
        wanted = self.model.decide(batch)
        outcomes = self.ground.run(self.ask(batch))
        assert [as_model(outcome) for outcome in outcomes] == wanted
        for command, outcome in zip(batch, outcomes, strict=True):
            if command.key is not None and outcome.code != "idempotency_key_reused":
                first = self.times.setdefault((command.kind, command.key), outcome.at)
                assert outcome.at == first

    async def ask(self, batch: list[Command]) -> list[arbitration.Outcome]:
        async with self.ground.database.session() as connection:
            return await arbitration.decide(connection, self.ledger, RETENTION_DAYS, batch)

    @invariant()
    def the_database_is_as_the_model(self) -> None:
        self.ground.run(self.compare())

    async def compare(self) -> None:
        state = await self.ground.database.value(STATE, self.ledger)
        broken, balances, entries, journal = decode_state(state)
        assert broken == []
        assert {balance.id: balance.account() for balance in balances} == self.model.accounts
        assert sorted(entries) == sorted(self.model.entries)
        assert journal == [
            self.row_of(command) for _, command in sorted(self.model.journal.items())
        ]

    def row_of(self, command: Command) -> JournalRow:
        """Return what the journal must say of an accepted command."""
        assert command.key is not None
        return JournalRow(
            id=command.id,
            kind=command.kind,
            parent_id=command.parent,
            reference=command.reference,
            idempotency_key=command.key,
            postings=command.postings,
            metadata=command.metadata,
            created_at=self.times[command.kind, command.key],
            reversal_id=self.model.reversals.get(command.id),
        )


class Balance(NamedTuple):
    """A row of the table of balances."""

    id: UUID
    asset: str
    floor_minor: int | None
    state: int
    posted_minor: int
    held_minor: int
    sequence: int

    def account(self) -> model.Account:
        states = list(AccountState)
        return model.Account(
            self.asset,
            self.floor_minor,
            states[self.state],
            self.posted_minor,
            self.held_minor,
            self.sequence,
        )


# All that a step can have changed, as JSON, in one round trip.
STATE = f"""
SELECT json_build_array(
    ARRAY(SELECT rule FROM ({BROKEN_RULES}) AS broken),
    ARRAY(SELECT json_build_array(account_id, asset, floor_minor, state, posted_minor, held_minor,
                                  sequence)
            FROM picopay.balance WHERE ledger_id = $1),
    ARRAY(SELECT json_build_array(account_id, sequence, journal_id, posted_minor, held_minor,
                                  posted_after_minor, held_after_minor)
            FROM picopay.entry WHERE ledger_id = $1),
    ARRAY(SELECT json_build_object('id', j.id, 'kind', j.kind, 'parent_id', j.parent_id,
                                   'reference', j.reference, 'idempotency_key', j.idempotency_key,
                                   'postings', j.postings, 'metadata', coalesce(j.metadata, '{{}}'),
                                   'created_at', j.created_at, 'reversal_id', r.reversal_id)
            FROM picopay.journal AS j
            LEFT JOIN picopay.reversal AS r ON r.ledger_id = j.ledger_id AND r.original_id = j.id
           WHERE j.ledger_id = $1 ORDER BY j.id))
"""
decode_state = msgspec.json.Decoder(
    tuple[list[str], list[Balance], list[model.Entry], list[JournalRow]]
).decode


def plan(request: Request, stamp: Stamp, ledger: model.Ledger) -> Command:
    """Plan with whatever account an address names, there or not, and believing in its asset.

    The directory would never say so; what it leaves to the database is tried this way.
    """
    if isinstance(request, Reverse):
        original = ledger.journal[request.transaction]
        return plan_reversal(request, original.kind, original.postings, stamp)
    found = {}
    for address in addresses(request):
        id = parse_id(ACCOUNT, address[0])
        assert id is not None
        found[address] = FoundAccount(id, address[1] or "")
    if isinstance(request, Pay):
        return plan_payment(request, found, stamp)
    return plan_transaction(request, found, stamp)


def clash(one: Command, other: Command) -> bool:
    """Tell what the committer never puts into one batch."""
    return (
        (one.key is not None and (one.kind, one.key) == (other.kind, other.key))
        or (one.reference is not None and one.reference == other.reference)
        or (one.parent is not None and one.parent == other.parent)
    )


@pytest.mark.parametrize(("version", "examples"), [(VERSIONS[-1], 30), (VERSIONS[0], 10)])
def test_the_database_decides_as_the_model_does(
    postgres: Callable[[str], Server], version: str, examples: int
) -> None:
    with Ground.on(postgres(version)) as ground:

        class Machine(LedgerMachine):
            def __init__(self) -> None:
                super().__init__(ground)

        run_state_machine_as_test(
            Machine,
            settings=settings(
                max_examples=examples,
                stateful_step_count=30,
                suppress_health_check=list(HealthCheck),
                # Looking for the smallest failure can outlast the time-out of a test. Take Phase.shrink
                # in to have it: Hypothesis goes on from the failure that it remembers.
                phases=[Phase.explicit, Phase.reuse, Phase.generate],
            ),
        )
