"""Every operation of the API, in the order of the documents, and which of them take the lean path."""

from picopay_api.http import accounts, events, keys, ledgers, payments, transactions
from picopay_api.http.operations import Operation

OPERATIONS: tuple[Operation, ...] = (
    *payments.OPERATIONS,
    *transactions.OPERATIONS,
    *accounts.OPERATIONS,
    *events.OPERATIONS,
    *keys.OPERATIONS,
    *ledgers.OPERATIONS,
)

LEAN: tuple[Operation, ...] = (payments.create_payment,)
"""What is asked most of all, and is answered in front of the framework (`front.py`)."""


def methods_of(path: str) -> list[str]:
    """Return the methods that a path has."""
    segments = path.rstrip("/").split("/")
    found = {
        operation.method
        for operation in OPERATIONS
        if len(operation.path.split("/")) == len(segments)
        and all(
            asked == known or known.startswith("{")
            for asked, known in zip(segments, operation.path.split("/"), strict=True)
        )
    }
    return sorted(found or {"GET"})
