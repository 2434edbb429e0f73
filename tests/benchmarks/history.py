"""The arithmetic of a history that was never lived through: who paid whom, when, in which commit. Pure.

Used by `fill.py`, which has SQL compute the same for millions of rows at once (`sql/fill_*.sql`). Nothing
depends on the row before, so that no row has to be sorted, joined or added up to:

Payments go in turns. In each turn every account pays once and is paid once, the same amount, so that after
it all balances are zero again, and every account has two more entries. In turn t the payment at place p
goes from account `order(t, p)` to account `order(t, p + shift(t))`, where `order` is a permutation that
looks like chance. So the payer was paid before, in this turn, if `p >= shift`; and the payee has still
to pay if `p + shift < accounts`.
"""

import math
from collections.abc import Iterator
from datetime import UTC, date, datetime, time, timedelta

import msgspec

from support.key_days import DAYS_OF_KEYS, first_day_of_keys

COMMIT_ROWS = 100
"""Payments in a commit, about as many as under load."""

SPAN_DAYS = 30
_US = 1_000_000
_DAY_US = 86_400 * _US
_KEY_OVERLAP_US = 60 * _US
"""The first minute of a day, whose keys are written to the day before as well (store/decide.sql)."""

_DAY = timedelta(days=1)
_KEYS = timedelta(days=DAYS_OF_KEYS)

_GOLDEN = 0.618


class Span(msgspec.Struct, frozen=True):
    """A partition, or a day of one: how its name ends, its bounds, its commits (the last excluded)."""

    suffix: str
    lower: date
    upper: date
    first: int
    end: int


class History(msgspec.Struct, frozen=True, kw_only=True):
    """A history of `turns` turns of `accounts` payments each, over the days before `ended_at`."""

    accounts: int
    turns: int
    ended_at: datetime

    @classmethod
    def of(cls, rows: int, accounts: int, ended_at: datetime) -> "History":
        """Return a history of at least so many payments: of whole turns and whole commits."""
        turns = math.ceil(rows / accounts)
        # Whole commits: the turns are that many that their payments fill them.
        step = COMMIT_ROWS // math.gcd(accounts, COMMIT_ROWS)
        return cls(accounts=accounts, turns=math.ceil(turns / step) * step, ended_at=ended_at)

    @property
    def rows(self) -> int:
        """Payments in it."""
        return self.accounts * self.turns

    @property
    def commits(self) -> int:
        """Commits in it."""
        return self.rows // COMMIT_ROWS

    @property
    def began_us(self) -> int:
        """When the first commit was, in microseconds since 1970."""
        return int(self.ended_at.timestamp()) * _US - SPAN_DAYS * _DAY_US

    @property
    def step_us(self) -> int:
        """The time from one commit to the next."""
        return SPAN_DAYS * _DAY_US // self.commits

    @property
    def multiplier(self) -> int:
        """What makes places look like chance: near the golden section, coprime to the accounts."""
        start = max(1, round(_GOLDEN * self.accounts))
        return next(
            n for n in range(start, start + self.accounts) if math.gcd(n, self.accounts) == 1
        )

    def months(self) -> list[Span]:
        """Return the partitions of journal and entries, by month."""
        first = self._day(0).replace(day=1)
        spans = []
        while first <= self._day(self.commits - 1):
            following = (first + timedelta(days=31)).replace(day=1)
            span = self._span(f"{first:%Y%m}", first, following)
            spans.append(span)
            first = following
        return spans

    def keys(self, retention_days: int) -> list[Span]:
        """Return the partitions of idempotency keys of which a day is still remembered."""
        last = self._day(self.commits - 1)
        first = first_day_of_keys(last - timedelta(days=retention_days))
        count = (last - first).days // DAYS_OF_KEYS + 1
        return [self._of_keys(first + n * _KEYS, _KEYS) for n in range(count)]

    def days(self, keys: Span) -> list[Span]:
        """Return the days of a partition of idempotency keys."""
        return [self._of_keys(keys.lower + n * _DAY, _DAY) for n in range(DAYS_OF_KEYS)]

    def _of_keys(self, first: date, length: timedelta) -> Span:
        return self._span(f"{first:%Y%m%d}", first, first + length, _KEY_OVERLAP_US)

    def _day(self, commit: int) -> date:
        return datetime.fromtimestamp((self.began_us + commit * self.step_us) // _US, tz=UTC).date()

    def _span(self, suffix: str, lower: date, upper: date, overlap_us: int = 0) -> Span:
        first, end = (self._commit_from(_us(lower)), self._commit_from(_us(upper) + overlap_us))
        return Span(suffix, lower, upper, first, end)

    def _commit_from(self, moment_us: int) -> int:
        """Return the number of the first commit that is not before a moment."""
        number = -(-(moment_us - self.began_us) // self.step_us)
        return min(max(number, 0), self.commits)


def _us(day: date) -> int:
    return int(datetime.combine(day, time(), UTC).timestamp()) * _US


class Payment(msgspec.Struct, frozen=True):
    """A payment as `sql/fill_functions.sql` has it: the tests compare what follows from it."""

    payer: int
    payee: int
    amount: int
    payer_is_second: bool
    payee_is_second: bool


def payments(history: History) -> Iterator[Payment]:
    """Return every payment in order: for tests, of histories that are small."""
    accounts = history.accounts
    for turn in range(history.turns):
        shift = 1 + turn * history.multiplier % (accounts - 1)
        for place in range(accounts):
            yield Payment(
                payer=(place + turn) * history.multiplier % accounts,
                payee=(place + shift + turn) * history.multiplier % accounts,
                amount=100 + turn % 900,
                payer_is_second=place >= shift,
                payee_is_second=place + shift >= accounts,
            )
