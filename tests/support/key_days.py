"""Which partition holds the idempotency keys of a day, as `picopay.first_day_of_keys` has it.

Used by the tests of partitions and by the benchmark that fills them.
"""

from collections.abc import Iterable
from datetime import date, timedelta

DAYS_OF_KEYS = 10
"""Days in a partition."""

_ORIGIN = date(2000, 1, 1)


def first_day_of_keys(day: date) -> date:
    """Return the first day of the partition that holds a day."""
    return day - timedelta(days=(day - _ORIGIN).days % DAYS_OF_KEYS)


def key_partition(day: date) -> str:
    """Return the name of the partition that holds a day."""
    return f"idempotency_key_{first_day_of_keys(day):%Y%m%d}"


def key_partitions(today: date, days: Iterable[int]) -> set[str]:
    """Return the names of the partitions that hold days, counted from today."""
    return {key_partition(today + timedelta(days=n)) for n in days}
