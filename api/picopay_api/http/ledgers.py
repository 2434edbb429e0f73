"""The operations of ledgers; for administrators."""

from picopay_api.engine.ids import LEDGER
from picopay_api.errors import InvalidCursor, LedgerNameTaken, LedgerNotFound
from picopay_api.http import answers, parameters
from picopay_api.http.operations import Call, Reply, operation
from picopay_api.http.requests import LedgerRequest


@operation(
    "POST",
    "/v1/ledgers",
    scope="ledgers:write",
    body=LedgerRequest,
    answer=answers.Ledger,
    status=201,
    errors=(LedgerNameTaken,),
    example={"name": "tenant-7"},
)
async def create_ledger(call: Call) -> Reply:
    """Make a ledger.

    It is empty, and nobody has a key for it yet: make one with `POST /v1/api_keys`.
    """
    request: LedgerRequest = call.body
    made = await call.engine.ledgers.create(request.name, request.metadata)
    return Reply(body=answers.ledger(made), status=201)


@operation(
    "GET",
    "/v1/ledgers/{ledger}",
    scope="ledgers:read",
    answer=answers.Ledger,
    errors=(LedgerNotFound,),
)
async def get_ledger(call: Call) -> Reply:
    """Get a ledger."""
    id = call.id("ledger", LEDGER, LedgerNotFound)
    return Reply(body=answers.ledger(await call.engine.ledgers.get(id)))


@operation(
    "GET",
    "/v1/ledgers",
    scope="ledgers:read",
    answer=answers.Page[answers.Ledger],
    parameters=parameters.LISTED,
    errors=(InvalidCursor,),
)
async def list_ledgers(call: Call) -> Reply:
    """List ledgers, newest first."""
    page = await call.engine.ledgers.list(
        call.query.get("limit", parameters.LIMIT_DEFAULT), call.query.get("cursor")
    )
    return Reply(body=answers.page(page, answers.ledger))


OPERATIONS = (create_ledger, get_ledger, list_ledgers)
