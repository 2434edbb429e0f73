"""The operations of payments."""

from picopay_api.engine.commands import Pay
from picopay_api.engine.ids import PAYMENT
from picopay_api.engine.payments import PaymentFilter
from picopay_api.errors import (
    AccountClosed,
    AccountFrozen,
    AccountNotFound,
    AssetMismatch,
    AssetUnknown,
    BalanceOutOfRange,
    DeadlineExceeded,
    FieldFault,
    IdempotencyKeyInFlight,
    IdempotencyKeyReused,
    InsufficientFunds,
    InvalidCursor,
    InvalidRequest,
    Overloaded,
    PaymentNotFound,
    ReferenceTaken,
    SameAccount,
    ShuttingDown,
)
from picopay_api.http import answers, parameters
from picopay_api.http.operations import Call, Keyed, Reply, operation
from picopay_api.http.requests import PaymentRequest, minor

MOVING = (
    IdempotencyKeyInFlight,
    IdempotencyKeyReused,
    AccountClosed,
    AccountFrozen,
    InsufficientFunds,
    BalanceOutOfRange,
    ReferenceTaken,
    Overloaded,
    DeadlineExceeded,
    ShuttingDown,
)
"""What can become of any operation that moves money."""

NAMING = (AccountNotFound, SameAccount, AssetMismatch, AssetUnknown)
"""What can be wrong with the postings of a body; `@world` takes any asset that there is."""


def pay(request: PaymentRequest) -> Pay:
    """Turn the body of a payment into what the engine is asked.

    Raises:
        InvalidRequest: the amount is out of range, or it is not to be captured at once.
    """
    if not request.capture:
        fault = FieldFault("/capture", "can only be true so far")
        raise InvalidRequest("payments are captured at once so far", fault)
    return Pay(
        source=request.source,
        destination=request.destination,
        amount_minor=minor(request.amount, "/amount"),
        asset=request.asset,
        reference=request.reference,
        metadata=request.metadata,
    )


@operation(
    "POST",
    "/v1/payments",
    scope="payments:write",
    body=PaymentRequest,
    answer=answers.Payment,
    status=201,
    keyed=Keyed.REQUIRED,
    errors=(*NAMING, *MOVING),
    example={"source": "@alice", "destination": "@bob", "amount": 1250, "asset": "USD"},
)
async def create_payment(call: Call) -> Reply:
    """Pay.

    Moves an amount from one account to another at once, and answers when that is on disk.
    """
    assert call.key is not None
    made = await call.engine.payments.create(call.ledger, pay(call.body), call.key)
    return Reply(body=answers.payment(made.value), status=201, replayed=made.replayed)


@operation(
    "GET",
    "/v1/payments/{payment}",
    scope="payments:read",
    answer=answers.Payment,
    errors=(PaymentNotFound,),
)
async def get_payment(call: Call) -> Reply:
    """Get a payment."""
    id = call.id("payment", PAYMENT, PaymentNotFound)
    return Reply(body=answers.payment(await call.engine.payments.get(call.ledger, id)))


@operation(
    "GET",
    "/v1/payments",
    scope="payments:read",
    answer=answers.Page[answers.Payment],
    parameters=(
        *parameters.LISTED,
        *parameters.CREATED_AT,
        parameters.ACCOUNT,
        parameters.STATUS,
        parameters.REFERENCE,
        parameters.IDEMPOTENCY_KEY,
        parameters.METADATA,
    ),
    errors=(InvalidCursor,),
)
async def list_payments(call: Call) -> Reply:
    """List payments, newest first."""
    filters = PaymentFilter(
        account=call.query.get("account"),
        status=call.query.get("status"),
        reference=call.query.get("reference"),
        idempotency_key=call.query.get("idempotency_key"),
        metadata=call.query.get("metadata", {}),
        created_at=parameters.times(call.query),
    )
    page = await call.engine.payments.list(
        call.ledger,
        filters,
        call.query.get("limit", parameters.LIMIT_DEFAULT),
        call.query.get("cursor"),
    )
    return Reply(body=answers.page(page, answers.payment))


OPERATIONS = (create_payment, get_payment, list_payments)
