"""Counts what becomes of each request that moves money, and tells when the funds were not there.

Used by `payments.py` and `transactions.py` around everything from planning to the outcome.
"""

from types import TracebackType
from uuid import UUID

from prometheus_client import Counter

from picopay_api.errors import InsufficientFunds, PicoPayError
from picopay_api.logs import Event, get_logger
from picopay_api.metrics import INSUFFICIENT_FUNDS, child

_log = get_logger(__name__)


class Counted:
    """Counts the block in `counter` by its outcome: `done`, or the code of the refusal.

    A class, and no generator, because it is on the path of every payment.
    """

    __slots__ = ("_counter", "_done", "_ledger")

    def __init__(self, counter: Counter, done: str, ledger: UUID) -> None:
        self._counter = counter
        self._done = done
        self._ledger = ledger

    def __enter__(self) -> None:
        """Begin; nothing is counted before the end."""

    def __exit__(
        self, _: type[BaseException] | None, error: BaseException | None, __: TracebackType | None
    ) -> None:
        """Count; what is neither an outcome nor a refusal is not counted."""
        if error is None:
            child(self._counter, self._done).inc()
        elif isinstance(error, PicoPayError):
            child(self._counter, error.code).inc()
            if isinstance(error, InsufficientFunds):
                INSUFFICIENT_FUNDS.inc()
                _log.info(Event.INSUFFICIENT_FUNDS, ledger=self._ledger, code=error.code)
