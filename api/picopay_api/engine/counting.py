"""Counts what becomes of each request that moves money, and tells when the funds were not there.

Used by `payments.py` and `transactions.py` around everything from planning to the outcome.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from uuid import UUID

from prometheus_client import Counter

from picopay_api.errors import InsufficientFunds, PicoPayError
from picopay_api.logs import Event, get_logger
from picopay_api.metrics import INSUFFICIENT_FUNDS, child

_log = get_logger(__name__)


@contextmanager
def counted(counter: Counter, done: str, ledger: UUID) -> Iterator[None]:
    """Count the block in `counter` by its outcome: `done`, or the code of the refusal."""
    try:
        yield
    except PicoPayError as error:
        child(counter, error.code).inc()
        if isinstance(error, InsufficientFunds):
            INSUFFICIENT_FUNDS.inc()
            _log.info(Event.INSUFFICIENT_FUNDS, ledger=ledger, code=error.code)
        raise
    child(counter, done).inc()
