"""The operations of API keys.

Nobody hands out more than they have: a key makes and rolls keys with scopes of its own only. An
administrator does so in every ledger.
"""

from datetime import UTC, datetime
from uuid import UUID

from picopay_api.engine.ids import API_KEY, LEDGER, parse_id
from picopay_api.engine.keys import check_scopes
from picopay_api.errors import (
    ApiKeyInactive,
    ApiKeyNotFound,
    FieldFault,
    InvalidCursor,
    InvalidRequest,
    LedgerNotFound,
    ScopeMissing,
)
from picopay_api.http import answers, parameters
from picopay_api.http.operations import Call, Reply, operation
from picopay_api.http.requests import ApiKeyRequest, RollRequest


@operation(
    "POST",
    "/v1/api_keys",
    scope="api_keys:write",
    body=ApiKeyRequest,
    answer=answers.ApiKey,
    status=201,
    errors=(LedgerNotFound,),
    example={"name": "checkout", "scopes": ["payments:write", "payments:read"]},
)
async def create_api_key(call: Call) -> Reply:
    """Make an API key.

    The `secret` in the answer is shown this once. `scopes` can be no more than the asking key has, and
    it cannot be valid for longer; `ledger` is for administrators.
    """
    request: ApiKeyRequest = call.body
    ledger = call.ledger
    if request.ledger is not None:
        named = parse_id(LEDGER, request.ledger)
        if named is None:
            fault = FieldFault("/ledger", "must be the id of a ledger, ldg_…")
            raise InvalidRequest(f"{fault.pointer}: {fault.detail}", fault)
        ledger = await _other_ledger(call, named)
    check_scopes(request.scopes)
    _require_own(call, request.scopes)
    expires_at = _in_utc(request.expires_at)
    if not call.principal.outlives(expires_at):
        fault = FieldFault("/expires_at", "must not be later than the end of the asking key")
        raise InvalidRequest("a key that expires makes none that outlives it", fault)
    made = await call.engine.keys.create(ledger, request.name, request.scopes, expires_at)
    return Reply(body=answers.api_key(made.key, made.secret), status=201)


@operation(
    "GET",
    "/v1/api_keys/{api_key}",
    scope="api_keys:read",
    answer=answers.ApiKey,
    parameters=(parameters.OF_LEDGER,),
    errors=(ApiKeyNotFound, LedgerNotFound),
)
async def get_api_key(call: Call) -> Reply:
    """Get an API key, without its secret."""
    id = call.id("api_key", API_KEY, ApiKeyNotFound)
    return Reply(body=answers.api_key(await call.engine.keys.get(await _ledger(call), id)))


@operation(
    "GET",
    "/v1/api_keys",
    scope="api_keys:read",
    answer=answers.Page[answers.ApiKey],
    parameters=(*parameters.LISTED, parameters.OF_LEDGER),
    errors=(InvalidCursor, LedgerNotFound),
)
async def list_api_keys(call: Call) -> Reply:
    """List API keys, newest first, revoked ones included."""
    page = await call.engine.keys.list(
        await _ledger(call),
        call.query.get("limit", parameters.LIMIT_DEFAULT),
        call.query.get("cursor"),
    )
    return Reply(body=answers.page(page, answers.api_key))


@operation(
    "POST",
    "/v1/api_keys/{api_key}/roll",
    scope="api_keys:write",
    body=RollRequest,
    body_optional=True,
    answer=answers.ApiKey,
    status=201,
    parameters=(parameters.OF_LEDGER,),
    errors=(ApiKeyNotFound, LedgerNotFound, ApiKeyInactive),
    example={"overlap_s": 3600},
)
async def roll_api_key(call: Call) -> Reply:
    """Roll an API key.

    Makes one like it, with a new secret that is shown this once. Both are valid for `overlap_s`
    seconds, a day unless you say otherwise; then the old one expires.
    """
    ledger, id = await _ledger(call), call.id("api_key", API_KEY, ApiKeyNotFound)
    old = await call.engine.keys.get(ledger, id)
    _require_own(call, old.scopes)
    if not call.principal.outlives(old.term_ends_at):
        raise InvalidRequest("a key that expires rolls none that outlives it")
    made = await call.engine.keys.roll(ledger, id, call.body.overlap_s)
    return Reply(body=answers.api_key(made.key, made.secret), status=201)


@operation(
    "POST",
    "/v1/api_keys/{api_key}/revoke",
    scope="api_keys:write",
    answer=answers.ApiKey,
    parameters=(parameters.OF_LEDGER,),
    errors=(ApiKeyNotFound, LedgerNotFound),
)
async def revoke_api_key(call: Call) -> Reply:
    """Revoke an API key.

    No process accepts it any more within two seconds. Revoking it again changes nothing.
    """
    ledger, id = await _ledger(call), call.id("api_key", API_KEY, ApiKeyNotFound)
    _require_own(call, (await call.engine.keys.get(ledger, id)).scopes)
    return Reply(body=answers.api_key(await call.engine.keys.revoke(ledger, id)))


def _in_utc(moment: datetime | None) -> datetime | None:
    try:
        return None if moment is None else moment.astimezone(UTC)
    except OverflowError:
        fault = FieldFault("/expires_at", "must lie between the years 1 and 9999, in UTC")
        raise InvalidRequest(f"{fault.pointer}: {fault.detail}", fault) from None


async def _ledger(call: Call) -> UUID:
    named: UUID | None = call.query.get("ledger")
    return call.ledger if named is None else await _other_ledger(call, named)


async def _other_ledger(call: Call, named: UUID) -> UUID:
    """Return a ledger that the asking key may act for."""
    if named == call.ledger:
        return named
    if not call.principal.is_admin:
        raise LedgerNotFound("there is no such ledger")
    return (await call.engine.ledgers.get(named)).id


def _require_own(call: Call, scopes: list[str]) -> None:
    for scope in scopes:
        if not (call.principal.allows(scope) or call.principal.is_admin):
            raise ScopeMissing(f"a key without {scope} does not manage keys with it", scope=scope)


OPERATIONS = (create_api_key, get_api_key, list_api_keys, roll_api_key, revoke_api_key)
