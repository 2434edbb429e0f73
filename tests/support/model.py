"""The rules of the ledger in Python: what `picopay.decide` (store/decide.sql) answers and writes.

Read it to learn how PicoPay decides. It knows no locks, no batches written as sets and no time: a command
is judged against everything decided before it, and is either refused or booked as a whole. The tests of
`integration/test_model.py` hold the database to it, outcome by outcome and balance by balance.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple
from uuid import UUID

from picopay_api.engine.commands import Command, Condition, Kind, Leg
from picopay_api.engine.ledger import BALANCE_MAX_MINOR
from picopay_api.engine.views import AccountState


@dataclass
class Account:
    """One asset's worth of money. `posted` is booked, `held` is the part of it that is reserved."""

    asset: str
    floor_minor: int | None  # the lowest available balance; None is unbounded
    state: AccountState = AccountState.OPEN
    posted_minor: int = 0
    held_minor: int = 0
    sequence: int = 0  # the number of entries so far

    @property
    def available_minor(self) -> int:
        return self.posted_minor - self.held_minor


class Entry(NamedTuple):
    """One leg of a command as an account's statement shows it: the change and what it led to."""

    account: UUID
    sequence: int
    journal_id: UUID
    posted_minor: int
    held_minor: int
    posted_after_minor: int
    held_after_minor: int


class Outcome(NamedTuple):
    """The answer to a command: `ok` with the id of what was booked, or a code and its members."""

    code: str
    id: UUID | None = None
    detail: dict[str, Any] | None = None
    replayed: bool = False


class Refused(Exception):
    """A rule says no. The members name the account by its UUID as text, as JSON does."""

    def __init__(self, code: str, **detail: Any) -> None:
        super().__init__(code)
        self.code = code
        self.detail = detail or None


@dataclass
class Ledger:
    """One book: its accounts, and all that was ever decided."""

    accounts: dict[UUID, Account] = field(default_factory=dict)
    journal: dict[UUID, Command] = field(default_factory=dict)
    entries: list[Entry] = field(default_factory=list)
    keys: dict[tuple[Kind, str], tuple[bytes, Outcome]] = field(default_factory=dict)
    references: set[str] = field(default_factory=set)
    reversals: dict[UUID, UUID] = field(default_factory=dict)  # original: what undid it

    def set_state(self, account: UUID, target: AccountState) -> None:
        """Freeze, unfreeze or close an account.

        Raises:
            Refused: closed is for ever, and only an account without money is closed.
        """
        found = self.accounts[account]
        if found.state is target:
            return
        if found.state is AccountState.CLOSED:
            raise Refused("account_state_conflict")
        if target is AccountState.CLOSED and (found.posted_minor or found.held_minor):
            raise Refused("account_not_empty")
        found.state = target

    def decide(self, commands: Iterable[Command]) -> list[Outcome]:
        """Decide commands in order: each sees what those before it have done."""
        return [self._decide(command) for command in commands]

    def _decide(self, command: Command) -> Outcome:
        # A key belongs to one request of one operation. Asked again, it answers what was decided then,
        # whatever has become of the accounts; for another request it is refused, and nothing is kept.
        if command.key is not None and (command.kind, command.key) in self.keys:
            fingerprint, first = self.keys[command.kind, command.key]
            if fingerprint != command.fingerprint:
                return Outcome("idempotency_key_reused")
            return first._replace(replayed=True)
        try:
            after, entries = self._judge(command)
        except Refused as refused:
            outcome = Outcome(refused.code, detail=refused.detail)
        else:
            if command.key is None:
                return Outcome("ok")  # a dry run: judged, never booked
            self._book(command, after, entries)
            outcome = Outcome("ok", command.id)
        # A refusal is an outcome like any other: the key keeps it.
        if command.key is not None:
            self.keys[command.kind, command.key] = (command.fingerprint, outcome)
        return outcome

    def _judge(self, command: Command) -> tuple[dict[UUID, Account], list[Entry]]:
        """Return what a command would lead to; the first rule that it breaks refuses it.

        Raises:
            Refused: with the code of that rule.
        """
        if command.reference in self.references:
            raise Refused("reference_taken", reference=command.reference)
        if command.parent in self.reversals:
            raise Refused("transaction_already_reversed")
        for leg in command.legs:
            self._require_admitted(leg)
        for condition in command.conditions:
            self._require_met(condition)
        after, entries = self._moved(command)
        for id, account in after.items():
            _require_in_range(id, account)
        for id, account in after.items():
            self._require_funds(id, account)
        return after, entries

    def _require_admitted(self, leg: Leg) -> None:
        """Money moves on open accounts of its own asset only."""
        account = self.accounts.get(leg.account)
        if account is None:
            code = "account_not_found"
        elif account.asset != leg.asset:
            code = "asset_mismatch"
        elif account.state is not AccountState.OPEN:
            code = f"account_{account.state}"  # account_frozen, account_closed
        else:
            return
        raise Refused(code, account=str(leg.account))

    def _require_met(self, condition: Condition) -> None:
        """A condition bounds what is available before the command, both ends inclusive."""
        account = self.accounts.get(condition.account)
        if account is None:
            raise Refused("account_not_found", account=str(condition.account))
        available = account.available_minor
        low, high = condition.minimum_minor, condition.maximum_minor
        if (low is not None and available < low) or (high is not None and available > high):
            raise Refused("condition_failed", account=str(condition.account), available=available)

    def _moved(self, command: Command) -> tuple[dict[UUID, Account], list[Entry]]:
        """Move the legs of a command, on copies of its accounts."""
        after = {leg.account: replace(self.accounts[leg.account]) for leg in command.legs}
        entries = []
        for leg in command.legs:
            account = after[leg.account]
            account.sequence += 1
            account.posted_minor += leg.posted_minor
            account.held_minor += leg.held_minor
            entries.append(
                Entry(
                    account=leg.account,
                    sequence=account.sequence,
                    journal_id=command.id,
                    posted_minor=leg.posted_minor,
                    held_minor=leg.held_minor,
                    posted_after_minor=account.posted_minor,
                    held_after_minor=account.held_minor,
                )
            )
        return after, entries

    def _require_funds(self, id: UUID, after: Account) -> None:
        """No command leads an account below its floor; on the way there, its legs may."""
        if after.floor_minor is not None and after.available_minor < after.floor_minor:
            available = self.accounts[id].available_minor
            raise Refused(
                "insufficient_funds",
                account=str(id),
                available=available,
                required=available - after.available_minor,
                min_balance=after.floor_minor,
            )

    def _book(self, command: Command, after: dict[UUID, Account], entries: Sequence[Entry]) -> None:
        """Write what was accepted: never changed again, undone only by a reversal."""
        self.journal[command.id] = command
        self.entries += entries
        self.accounts |= after
        if command.reference is not None:
            self.references.add(command.reference)
        if command.parent is not None:
            self.reversals[command.parent] = command.id


def _require_in_range(id: UUID, after: Account) -> None:
    """Balances stay where a sum of them and of what one command moves fits 64 bits."""
    posted_in_range = -BALANCE_MAX_MINOR <= after.posted_minor <= BALANCE_MAX_MINOR
    if not posted_in_range or not 0 <= after.held_minor <= BALANCE_MAX_MINOR:
        raise Refused("balance_out_of_range", account=str(id))
