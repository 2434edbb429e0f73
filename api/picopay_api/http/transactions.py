"""The operations of transactions."""

from picopay_api.engine.commands import ConditionRequest, PostingRequest, Reverse, Transact
from picopay_api.engine.ids import TRANSACTION
from picopay_api.engine.transactions import TransactionFilter
from picopay_api.errors import (
    ConditionFailed,
    IdempotencyKeyMissing,
    InvalidCursor,
    TransactionAlreadyReversed,
    TransactionNotFound,
    TransactionNotReversible,
)
from picopay_api.http import answers, parameters
from picopay_api.http.operations import Call, Keyed, Reply, operation
from picopay_api.http.payments import MOVING, NAMING
from picopay_api.http.requests import ReversalRequest, TransactionRequest, minor, signed_minor


def transact(request: TransactionRequest) -> Transact:
    """Turn the body of a transaction into what the engine is asked.

    Raises:
        InvalidRequest: an amount is out of range.
    """
    return Transact(
        postings=tuple(
            PostingRequest(
                source=posting.source,
                destination=posting.destination,
                amount_minor=minor(posting.amount, f"/postings/{place}/amount"),
                asset=posting.asset,
            )
            for place, posting in enumerate(request.postings)
        ),
        conditions=tuple(
            ConditionRequest(
                account=condition.account,
                available_gte_minor=signed_minor(
                    condition.available_gte, f"/conditions/{place}/available_gte"
                ),
                available_lte_minor=signed_minor(
                    condition.available_lte, f"/conditions/{place}/available_lte"
                ),
            )
            for place, condition in enumerate(request.conditions)
        ),
        reference=request.reference,
        metadata=request.metadata,
    )


@operation(
    "POST",
    "/v1/transactions",
    scope="transactions:write",
    body=TransactionRequest,
    answer=answers.Transaction,
    status=201,
    keyed=Keyed.OPTIONAL,
    errors=(IdempotencyKeyMissing, *NAMING, *MOVING, ConditionFailed),
    example={
        "postings": [
            {"source": "@world", "destination": "@alice", "amount": 5000, "asset": "USD"},
            {"source": "@alice", "destination": "@bob", "amount": 200, "asset": "USD"},
        ],
        "conditions": [{"account": "@alice", "available_gte": 0}],
    },
)
async def create_transaction(call: Call) -> Reply:
    """Book postings together.

    All of them happen, or none. An `Idempotency-Key` is required, except for a dry run
    (`"dry_run": true`), which answers 200 with the transaction that would be and writes nothing.
    """
    request: TransactionRequest = call.body
    if request.dry_run:
        judged = await call.engine.transactions.dry_run(call.ledger, transact(request))
        return Reply(body=answers.transaction(judged))
    if call.key is None:
        raise IdempotencyKeyMissing("send an `Idempotency-Key` of your own for each operation")
    made = await call.engine.transactions.create(call.ledger, transact(request), call.key)
    return Reply(body=answers.transaction(made.value), status=201, replayed=made.replayed)


@operation(
    "POST",
    "/v1/transactions/{transaction}/reverse",
    scope="transactions:write",
    body=ReversalRequest,
    body_optional=True,
    answer=answers.Transaction,
    status=201,
    keyed=Keyed.REQUIRED,
    errors=(TransactionNotFound, TransactionNotReversible, TransactionAlreadyReversed, *MOVING),
    example={"reference": "order-1841-undone"},
)
async def reverse_transaction(call: Call) -> Reply:
    """Reverse a transaction.

    Books its mirror image, at most once. The transaction of a payment can be reversed, too: the
    payment is `refunded` then.
    """
    assert call.key is not None
    request: ReversalRequest = call.body
    id = call.id("transaction", TRANSACTION, TransactionNotFound)
    made = await call.engine.transactions.reverse(
        call.ledger,
        Reverse(transaction=id, reference=request.reference, metadata=request.metadata),
        call.key,
    )
    return Reply(body=answers.transaction(made.value), status=201, replayed=made.replayed)


@operation(
    "GET",
    "/v1/transactions/{transaction}",
    scope="transactions:read",
    answer=answers.Transaction,
    errors=(TransactionNotFound,),
)
async def get_transaction(call: Call) -> Reply:
    """Get a transaction."""
    id = call.id("transaction", TRANSACTION, TransactionNotFound)
    return Reply(body=answers.transaction(await call.engine.transactions.get(call.ledger, id)))


@operation(
    "GET",
    "/v1/transactions",
    scope="transactions:read",
    answer=answers.Page[answers.Transaction],
    parameters=(
        *parameters.LISTED,
        *parameters.CREATED_AT,
        parameters.ACCOUNT,
        parameters.REFERENCE,
        parameters.IDEMPOTENCY_KEY,
        parameters.METADATA,
    ),
    errors=(InvalidCursor,),
)
async def list_transactions(call: Call) -> Reply:
    """List transactions, newest first; payments are among them."""
    filters = TransactionFilter(
        account=call.query.get("account"),
        reference=call.query.get("reference"),
        idempotency_key=call.query.get("idempotency_key"),
        metadata=call.query.get("metadata", {}),
        created_at=parameters.times(call.query),
    )
    page = await call.engine.transactions.list(
        call.ledger,
        filters,
        call.query.get("limit", parameters.LIMIT_DEFAULT),
        call.query.get("cursor"),
    )
    return Reply(body=answers.page(page, answers.transaction))


OPERATIONS = (
    create_transaction,
    get_transaction,
    list_transactions,
    reverse_transaction,
)
