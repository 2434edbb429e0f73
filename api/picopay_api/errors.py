"""Every refusal PicoPay can give: one class each, with a stable code, an HTTP status and a title.

Raised by every layer, rendered in one place (`http/problems.py`) as RFC 9457 problem documents, and
listed in `docs/reference/errors.md` by `catalogue()`. Imports the standard library only. The code is
the contract with clients: a code is never renamed, and a new meaning gets a new code.

    PicoPayError
    ├── RequestError       400…  the request cannot be understood; nothing was looked at
    ├── AccessError        401 403 429  who asks, what they may, how often
    ├── MissingError       404   not there, or not yours
    ├── ConflictError      409   the state of the thing forbids it
    ├── RefusedError       422   understood, decided and refused
    └── UnavailableError   503   not now: nothing was done, try again
"""

from collections.abc import Iterator
from typing import Any, ClassVar


class PicoPayError(Exception):
    """A refusal: `detail` for people, `members` for programs, `replayed` if decided by an earlier request."""

    code: ClassVar[str]
    status: ClassVar[int]
    title: ClassVar[str]

    def __init__(self, detail: str = "", **members: Any) -> None:
        super().__init__(detail or self.title)
        self.detail = detail or self.title
        self.members = members
        self.replayed = False


class FieldFault:
    """One fault of a body or a parameter: where it is (a JSON Pointer) and what is wrong."""

    __slots__ = ("detail", "pointer")

    def __init__(self, pointer: str, detail: str) -> None:
        self.pointer = pointer
        self.detail = detail


class RequestError(PicoPayError):
    """The request cannot be read. `faults` name the places."""

    status = 400

    def __init__(self, detail: str = "", *faults: FieldFault, **members: Any) -> None:
        super().__init__(detail, **members)
        self.faults = faults


class MalformedBody(RequestError):
    """The body is not one well-formed JSON document."""

    code = "malformed_body"
    title = "The body is not well-formed JSON"


class InvalidRequest(RequestError):
    """The body or a parameter breaks the schema."""

    code = "invalid_request"
    title = "The request breaks the schema"


class IdempotencyKeyMissing(RequestError):
    """A request that moves money came without an `Idempotency-Key`."""

    code = "idempotency_key_missing"
    title = "An Idempotency-Key is required"


class IdempotencyKeyInvalid(RequestError):
    """The `Idempotency-Key` is not 1 to 255 printable ASCII characters."""

    code = "idempotency_key_invalid"
    title = "The Idempotency-Key is not valid"


class InvalidCursor(RequestError):
    """The cursor was not made by this API, or for other filters."""

    code = "invalid_cursor"
    title = "The cursor is not valid here"


class MethodNotAllowed(RequestError):
    """The resource exists, the method does not."""

    code = "method_not_allowed"
    status = 405
    title = "The method is not allowed here"


class BodyTooLarge(RequestError):
    """The body is larger than the limit."""

    code = "body_too_large"
    status = 413
    title = "The body is too large"


class UnsupportedMediaType(RequestError):
    """The body is not `application/json`."""

    code = "unsupported_media_type"
    status = 415
    title = "The body must be application/json"


class AccessError(PicoPayError):
    """Who asks, what they may and how often."""


class AuthenticationRequired(AccessError):
    """No API key was sent."""

    code = "authentication_required"
    status = 401
    title = "An API key is required"


class ApiKeyInvalid(AccessError):
    """The API key is unknown, expired or revoked; which of them is not told."""

    code = "api_key_invalid"
    status = 401
    title = "The API key is not valid"


class ScopeMissing(AccessError):
    """The API key lacks the scope of this operation."""

    code = "scope_missing"
    status = 403
    title = "The API key lacks a scope"


class RateLimited(AccessError):
    """The API key has used up its requests for this window."""

    code = "rate_limited"
    status = 429
    title = "Too many requests"


class MissingError(PicoPayError):
    """It does not exist in the caller's ledger."""

    status = 404


class NotFound(MissingError):
    """No such route."""

    code = "not_found"
    title = "There is nothing here"


class AccountNotFound(MissingError):
    """No such account in this ledger."""

    code = "account_not_found"
    title = "Account not found"


class PaymentNotFound(MissingError):
    """No such payment in this ledger."""

    code = "payment_not_found"
    title = "Payment not found"


class TransactionNotFound(MissingError):
    """No such transaction in this ledger."""

    code = "transaction_not_found"
    title = "Transaction not found"


class ApiKeyNotFound(MissingError):
    """No such API key in this ledger."""

    code = "api_key_not_found"
    title = "API key not found"


class LedgerNotFound(MissingError):
    """No such ledger."""

    code = "ledger_not_found"
    title = "Ledger not found"


class EventNotFound(MissingError):
    """No such event in this ledger, or not sealed yet."""

    code = "event_not_found"
    title = "Event not found"


class ConflictError(PicoPayError):
    """The state of the thing forbids it."""

    status = 409


class IdempotencyKeyInFlight(ConflictError):
    """The first request with this key, with another body, is still running."""

    code = "idempotency_key_in_flight"
    title = "A request with this Idempotency-Key is still running"


class ReferenceTaken(ConflictError):
    """A reference names one thing in a ledger, for ever."""

    code = "reference_taken"
    title = "The reference is taken"


class LedgerNameTaken(ConflictError):
    """Another ledger has this name."""

    code = "ledger_name_taken"
    title = "The name of the ledger is taken"


class TransactionAlreadyReversed(ConflictError):
    """A transaction is reversed at most once."""

    code = "transaction_already_reversed"
    title = "The transaction is already reversed"


class TransactionNotReversible(ConflictError):
    """A reversal is not itself reversed; book a new transaction instead."""

    code = "transaction_not_reversible"
    title = "The transaction cannot be reversed"


class ApiKeyInactive(ConflictError):
    """A key that is revoked or expired is not rolled."""

    code = "api_key_inactive"
    title = "The API key is not active"


class AccountNotEmpty(ConflictError):
    """An account is closed only at a balance of zero."""

    code = "account_not_empty"
    title = "The account is not empty"


class AccountStateConflict(ConflictError):
    """The account's state does not allow this change: a closed account stays closed."""

    code = "account_state_conflict"
    title = "The account's state does not allow this"


class RefusedError(PicoPayError):
    """Understood and refused by the rules of the ledger."""

    status = 422


class IdempotencyKeyReused(RefusedError):
    """The key was used before with another body."""

    code = "idempotency_key_reused"
    title = "The Idempotency-Key was used for another request"


class AssetMismatch(RefusedError):
    """The account holds another asset than the posting moves."""

    code = "asset_mismatch"
    title = "The account holds another asset"


class AssetUnknown(RefusedError):
    """The asset is neither an ISO 4217 code nor `CODE/exponent`."""

    code = "asset_unknown"
    title = "The asset is not known"


class AccountClosed(RefusedError):
    """A closed account takes no posting."""

    code = "account_closed"
    title = "The account is closed"


class AccountFrozen(RefusedError):
    """A frozen account takes no posting until it is unfrozen."""

    code = "account_frozen"
    title = "The account is frozen"


class SameAccount(RefusedError):
    """Source and destination of a posting are the same account."""

    code = "same_account"
    title = "Source and destination are the same account"


class ConditionFailed(RefusedError):
    """A precondition of the transaction does not hold."""

    code = "condition_failed"
    title = "A condition does not hold"


class BalanceOutOfRange(RefusedError):
    """The balance would leave the range of amounts."""

    code = "balance_out_of_range"
    title = "The balance would leave the range of amounts"


class InsufficientFunds(RefusedError):
    """The available balance would fall below the account's floor."""

    code = "insufficient_funds"
    title = "Insufficient funds"


class UnavailableError(PicoPayError):
    """Nothing was done, or what was done is found again by its key: try again."""

    status = 503
    retry_after_s: ClassVar[int] = 1


class Overloaded(UnavailableError):
    """The queue is full."""

    code = "overloaded"
    title = "Too much work is waiting"


class DeadlineExceeded(UnavailableError):
    """The outcome was not known within the deadline; the same key tells it later."""

    code = "deadline_exceeded"
    title = "The deadline has passed"


class DatabaseUnavailable(UnavailableError):
    """The database cannot be reached."""

    code = "database_unavailable"
    title = "The database is not available"


class SchemaOutOfRange(UnavailableError):
    """The schema of the database is older or newer than this release can work with."""

    code = "schema_out_of_range"
    title = "The database schema does not fit this release"
    retry_after_s = 10


class ShuttingDown(UnavailableError):
    """This process is about to exit; another one serves."""

    code = "shutting_down"
    title = "The server is shutting down"


class InternalError(PicoPayError):
    """A defect of PicoPay. Never the answer to bad input."""

    code = "internal_error"
    status = 500
    title = "Something went wrong on our side"


def catalogue() -> Iterator[type[PicoPayError]]:
    """Every error that a client can see, by order of definition in this module."""

    def leaves(parent: type[PicoPayError]) -> Iterator[type[PicoPayError]]:
        for child in parent.__subclasses__():
            if "code" in vars(child):
                yield child
            yield from leaves(child)

    return leaves(PicoPayError)


BY_CODE: dict[str, type[PicoPayError]] = {error.code: error for error in catalogue()}
