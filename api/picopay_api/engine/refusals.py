"""What `store/decide.sql` refuses, as errors: the stored code and detail become an exception.

Called by `engine/committer.py`. Fresh refusals and replayed ones go the same way, so that a key answers
with the same problem each time.
"""

from typing import Any
from uuid import UUID

import msgspec

from picopay_api.errors import BY_CODE, PicoPayError

_DETAILS = {
    "account_not_found": "the account does not exist in this ledger",
    "account_closed": "the account is closed and takes no posting",
    "account_frozen": "the account is frozen and takes no posting until it is unfrozen",
    "asset_mismatch": "the account holds another asset than the posting moves",
    "balance_out_of_range": "the balance would leave the range of amounts",
    "condition_failed": "a condition on the available balance does not hold: it is {available}",
    "idempotency_key_reused": "the Idempotency-Key was used before with another body",
    "insufficient_funds": "the account has {available} available, {required} is required",
    "reference_taken": "the reference {reference!r} already names something in this ledger",
    "transaction_already_reversed": "the transaction is reversed already",
}


def refusal(code: str, detail: str | None, *, replayed: bool) -> PicoPayError:
    """Make the error of a stored refusal; `detail` is its JSON object of members."""
    members: dict[str, Any] = msgspec.json.decode(detail) if detail else {}
    text = _DETAILS[code].format_map(members)
    if "account" in members:
        members["account"] = UUID(members["account"])
    error = BY_CODE[code](text, **members)
    error.replayed = replayed
    return error
