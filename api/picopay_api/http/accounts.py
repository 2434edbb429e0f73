"""The operations of accounts, and the statements that are streamed."""

import csv
import io
from collections.abc import AsyncIterator, Sequence
from typing import Any

import msgspec

from picopay_api.engine.accounts import AccountFilter, EntryFilter, NewAccount
from picopay_api.engine.views import Entry
from picopay_api.errors import (
    AccountNotEmpty,
    AccountNotFound,
    AccountStateConflict,
    AssetUnknown,
    IdempotencyKeyReused,
    InvalidCursor,
    ReferenceTaken,
)
from picopay_api.http import answers, parameters
from picopay_api.http.operations import Call, Keyed, Reply, operation
from picopay_api.http.requests import AccountRequest, MetadataRequest, signed_minor

_COLUMNS = ("created_at", "sequence", "transaction", "amount", "balance_after", "asset")


@operation(
    "POST",
    "/v1/accounts",
    scope="accounts:write",
    body=AccountRequest,
    answer=answers.Account,
    status=201,
    keyed=Keyed.OPTIONAL,
    errors=(AssetUnknown, ReferenceTaken, IdempotencyKeyReused),
    example={"reference": "carol", "asset": "USD", "metadata": {"tier": "gold"}},
)
async def create_account(call: Call) -> Reply:
    """Make an account.

    It holds one asset and begins empty. `min_balance` is its floor: 0 unless you say otherwise,
    negative for an overdraft, null for no floor at all.
    """
    request: AccountRequest = call.body
    wanted = NewAccount(
        asset=request.asset,
        reference=request.reference,
        min_balance_minor=signed_minor(request.min_balance, "/min_balance"),
        metadata=request.metadata,
    )
    made = await call.engine.accounts.create(call.ledger, wanted, call.key)
    return Reply(body=answers.account(made.value), status=201, replayed=made.replayed)


@operation(
    "GET",
    "/v1/accounts/{account}",
    scope="accounts:read",
    answer=answers.Account,
    errors=(AccountNotFound,),
)
async def get_account(call: Call) -> Reply:
    """Get an account with its balance."""
    found = await call.engine.accounts.get(call.ledger, call.path["account"])
    return Reply(body=answers.account(found))


@operation(
    "GET",
    "/v1/accounts",
    scope="accounts:read",
    answer=answers.Page[answers.Account],
    parameters=(
        *parameters.LISTED,
        *parameters.CREATED_AT,
        parameters.REFERENCE,
        parameters.ASSET,
        parameters.METADATA,
    ),
    errors=(InvalidCursor,),
)
async def list_accounts(call: Call) -> Reply:
    """List accounts, newest first."""
    filters = AccountFilter(
        reference=call.query.get("reference"),
        asset=call.query.get("asset"),
        metadata=call.query.get("metadata", {}),
        created_at=parameters.times(call.query),
    )
    page = await call.engine.accounts.list(
        call.ledger,
        filters,
        call.query.get("limit", parameters.LIMIT_DEFAULT),
        call.query.get("cursor"),
    )
    return Reply(body=answers.page(page, answers.account))


@operation(
    "PATCH",
    "/v1/accounts/{account}",
    scope="accounts:write",
    body=MetadataRequest,
    answer=answers.Account,
    errors=(AccountNotFound,),
    example={"metadata": {"tier": "silver", "campaign": None}},
)
async def update_account(call: Call) -> Reply:
    """Change the metadata of an account.

    Merges: keys that are not named stay, null removes a key.
    """
    request: MetadataRequest = call.body
    changed = await call.engine.accounts.update_metadata(
        call.ledger, call.path["account"], request.metadata
    )
    return Reply(body=answers.account(changed))


@operation(
    "POST",
    "/v1/accounts/{account}/freeze",
    scope="accounts:write",
    answer=answers.Account,
    errors=(AccountNotFound, AccountStateConflict),
)
async def freeze_account(call: Call) -> Reply:
    """Freeze an account.

    It takes no posting until it is unfrozen. Freezing a frozen account changes nothing.
    """
    moved = await call.engine.accounts.freeze(call.ledger, call.path["account"])
    return Reply(body=answers.account(moved))


@operation(
    "POST",
    "/v1/accounts/{account}/unfreeze",
    scope="accounts:write",
    answer=answers.Account,
    errors=(AccountNotFound, AccountStateConflict),
)
async def unfreeze_account(call: Call) -> Reply:
    """Unfreeze an account."""
    moved = await call.engine.accounts.unfreeze(call.ledger, call.path["account"])
    return Reply(body=answers.account(moved))


@operation(
    "POST",
    "/v1/accounts/{account}/close",
    scope="accounts:write",
    answer=answers.Account,
    errors=(AccountNotFound, AccountNotEmpty, AccountStateConflict),
)
async def close_account(call: Call) -> Reply:
    """Close an account, for ever.

    Its balance must be zero. Its statement stays. Closing a closed account changes nothing.
    `@world` is never closed.
    """
    moved = await call.engine.accounts.close(call.ledger, call.path["account"])
    return Reply(body=answers.account(moved))


@operation(
    "GET",
    "/v1/accounts/{account}/balance",
    scope="accounts:read",
    answer=answers.AccountBalance,
    parameters=(parameters.AT,),
    errors=(AccountNotFound,),
)
async def get_balance(call: Call) -> Reply:
    """Get a balance, now or as it was."""
    found = await call.engine.accounts.balance(
        call.ledger, call.path["account"], call.query.get("at")
    )
    return Reply(body=answers.account_balance(found))


@operation(
    "GET",
    "/v1/accounts/{account}/entries",
    scope="accounts:read",
    answer=answers.Page[answers.Entry],
    parameters=(*parameters.LISTED, *parameters.CREATED_AT, parameters.FORMAT),
    errors=(AccountNotFound, InvalidCursor),
)
async def list_entries(call: Call) -> Reply:
    """Get the statement of an account.

    Pages are newest first. With `format=csv` or `format=ndjson` the whole statement is streamed,
    oldest first, as it was when the stream began; `limit` and `cursor` are not for streams.
    """
    account, form = call.path["account"], call.query.get("format")
    filters = EntryFilter(created_at=parameters.times(call.query))
    if form is not None:
        return await _stream(call, account, filters, form)
    page = await call.engine.accounts.entries(
        call.ledger,
        account,
        filters,
        call.query.get("limit", parameters.LIMIT_DEFAULT),
        call.query.get("cursor"),
    )
    return Reply(body=answers.page(page, answers.entry))


async def _stream(call: Call, account: str, filters: EntryFilter, form: str) -> Reply:
    for name in ("limit", "cursor"):
        if name in call.query:
            raise parameters.refused(name, "is not for a stream, which is the whole statement")
    chunks = call.engine.accounts.stream_entries(call.ledger, account, filters)
    # The first chunk is read before the answer begins, so that what is wrong can still be told.
    first: Sequence[Entry] = await anext(chunks, ())
    lines = _csv if form == "csv" else _ndjson
    media_type = "text/csv" if form == "csv" else "application/x-ndjson"
    return Reply(
        stream=_encoded(first, chunks, lines),
        media_type=media_type,
        headers={"Content-Disposition": f'attachment; filename="statement.{form}"'},
    )


async def _encoded(
    first: Sequence[Entry], rest: AsyncIterator[Sequence[Entry]], lines: Any
) -> AsyncIterator[bytes]:
    yield lines(first, is_first=True)
    async for chunk in rest:
        yield lines(chunk, is_first=False)


def _csv(entries: Sequence[Entry], *, is_first: bool) -> bytes:
    text = io.StringIO()
    writer = csv.writer(text)
    if is_first:
        writer.writerow(_COLUMNS)
    for view in entries:
        entry = answers.entry(view)
        writer.writerow([getattr(entry, column) for column in _COLUMNS])
    return text.getvalue().encode()


def _ndjson(entries: Sequence[Entry], *, is_first: bool) -> bytes:  # noqa: ARG001  # CSV has a first line
    return b"".join(msgspec.json.encode(answers.entry(view)) + b"\n" for view in entries)


OPERATIONS = (
    create_account,
    get_account,
    list_accounts,
    update_account,
    freeze_account,
    unfreeze_account,
    close_account,
    get_balance,
    list_entries,
)
