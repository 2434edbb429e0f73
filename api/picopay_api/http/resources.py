"""Every operation of the API, in the order of the documents."""

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
