"""`picopay accounts`: made, looked at, frozen and closed, by asking a running server."""

import sys
from enum import StrEnum
from typing import Annotated, Any

import typer

from picopay_api.cli.client import (
    ask,
    metadata_query,
    path,
    pick,
    show_object,
    show_page,
    stream,
)
from picopay_api.cli.exits import CommandFailed, ExitCode
from picopay_api.cli.options import AsJson, Cursor, Limit, Metadata, examples, pairs

app = typer.Typer(add_completion=False, no_args_is_help=True)

Account = Annotated[
    str, typer.Argument(metavar="ACCOUNT", help="The account: acct_… or @reference.")
]

_UNBOUNDED = "none"

_FIELDS = {
    "id": "id",
    "reference": "reference",
    "asset": "asset",
    "state": "state",
    "posted_minor": "balance.posted",
    "held_minor": "balance.held",
    "available_minor": "balance.available",
    "min_balance_minor": "min_balance",
    "metadata": "metadata",
    "created_at": "created_at",
}
_COLUMNS = {
    name: _FIELDS[name]
    for name in ("id", "reference", "asset", "state", "posted_minor", "available_minor")
}
_BALANCE = {
    "account": "account",
    "asset": "asset",
    "at": "at",
    "posted_minor": "balance.posted",
    "held_minor": "balance.held",
    "available_minor": "balance.available",
}
_ENTRY = {
    "sequence": "sequence",
    "created_at": "created_at",
    "amount_minor": "amount",
    "balance_after_minor": "balance_after",
    "transaction": "transaction",
}


class StatementFormat(StrEnum):
    """Forms in which a whole statement is streamed."""

    CSV = "csv"
    NDJSON = "ndjson"


@app.callback(epilog=examples("picopay accounts list", "picopay accounts balance @alice"))
def accounts() -> None:
    """Make accounts, look at them, freeze and close them.

    Asks the server at PICOPAY_URL with PICOPAY_API_KEY. Amounts are whole minor units.
    """


@app.command(
    epilog=examples(
        "picopay accounts create USD --reference carol",
        "picopay accounts create EUR --reference overdraft --min-balance -50000",
        "picopay accounts create BTC/8 -m tier=gold",
    )
)
def create(
    asset: Annotated[str, typer.Argument(metavar="ASSET", help="USD, EUR …, or BTC/8.")],
    reference: Annotated[
        str | None, typer.Option(help="A name of your own, unique in the ledger.")
    ] = None,
    min_balance: Annotated[
        str,
        typer.Option(
            metavar="MINOR", help=f"The floor of the balance; `{_UNBOUNDED}` for no floor."
        ),
    ] = "0",
    metadata: Metadata = None,
    key: Annotated[
        str | None, typer.Option("--key", help="An Idempotency-Key, to be able to repeat this.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Make an account: open, empty, for one asset."""
    body = {
        "asset": asset,
        "reference": reference,
        "min_balance": _floor(min_balance),
        "metadata": pairs(metadata),
    }
    made = ask("POST", path("accounts"), body=body, idempotency_key=key).body
    show_object(made, _FIELDS, as_json=as_json)


@app.command(
    "list",
    epilog=examples(
        "picopay accounts list",
        "picopay accounts list --asset USD --limit 100 --json",
        "picopay accounts list -m tier=gold",
    ),
)
def list_accounts(
    reference: Annotated[str | None, typer.Option(help="Only the one of this name.")] = None,
    asset: Annotated[str | None, typer.Option(help="Only those of this asset.")] = None,
    metadata: Metadata = None,
    limit: Limit = 20,
    cursor: Cursor = None,
    as_json: AsJson = False,
) -> None:
    """List accounts, newest first."""
    query = {"reference": reference, "asset": asset, "limit": limit, "cursor": cursor}
    page = ask("GET", path("accounts"), query=query | metadata_query(pairs(metadata))).body
    show_page(page, _COLUMNS, empty="no accounts", as_json=as_json)


@app.command(epilog=examples("picopay accounts get @alice", "picopay accounts get @alice --json"))
def get(account: Account, as_json: AsJson = False) -> None:
    """Show one account."""
    show_object(ask("GET", path("accounts", account)).body, _FIELDS, as_json=as_json)


@app.command(
    epilog=examples(
        "picopay accounts balance @alice",
        "picopay accounts balance @alice --at 2026-01-01T00:00:00Z",
    )
)
def balance(
    account: Account,
    at: Annotated[
        str | None, typer.Option(metavar="TIME", help="As of then, RFC 3339; now otherwise.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Show the balance of an account, now or at a moment of the past."""
    found = ask("GET", path("accounts", account, "balance"), query={"at": at}).body
    show_object(found, _BALANCE, as_json=as_json)


@app.command(
    epilog=examples(
        "picopay accounts statement @bob",
        "picopay accounts statement @bob --since 2026-01-01T00:00:00Z --limit 100",
        "picopay accounts statement @bob --format csv > bob.csv",
    )
)
def statement(
    account: Account,
    since: Annotated[
        str | None, typer.Option(metavar="TIME", help="From then on, RFC 3339.")
    ] = None,
    until: Annotated[str | None, typer.Option(metavar="TIME", help="Before then.")] = None,
    whole: Annotated[
        StatementFormat | None,
        typer.Option("--format", help="Stream all of it, oldest first, in this form."),
    ] = None,
    limit: Limit = 20,
    cursor: Cursor = None,
    as_json: AsJson = False,
) -> None:
    """Show what moved on an account, newest first."""
    resource = path("accounts", account, "entries")
    times = {"created_at[gte]": since, "created_at[lt]": until}
    if whole is not None:
        for chunk in stream(resource, times | {"format": whole}):
            sys.stdout.buffer.write(chunk)
        return
    page = ask("GET", resource, query={**times, "limit": limit, "cursor": cursor}).body
    show_page(page, _ENTRY, empty="nothing has moved", as_json=as_json)


@app.command(epilog=examples("picopay accounts freeze @alice"))
def freeze(account: Account, as_json: AsJson = False) -> None:
    """Refuse everything that would move money on an account, until `unfreeze`."""
    _move(account, "freeze", as_json=as_json)


@app.command(epilog=examples("picopay accounts unfreeze @alice"))
def unfreeze(account: Account, as_json: AsJson = False) -> None:
    """Let money move on an account again."""
    _move(account, "unfreeze", as_json=as_json)


@app.command(epilog=examples("picopay accounts close @alice"))
def close(account: Account, as_json: AsJson = False) -> None:
    """Close an empty account for ever."""
    _move(account, "close", as_json=as_json)


def _move(account: str, action: str, *, as_json: bool) -> None:
    moved: Any = ask("POST", path("accounts", account, action)).body
    if as_json:
        show_object(moved, _FIELDS, as_json=True)
    else:
        typer.echo(f"{pick(moved, 'id')} is {pick(moved, 'state')}")


def _floor(text: str) -> int | None:
    if text == _UNBOUNDED:
        return None
    try:
        return int(text)
    except ValueError:
        raise CommandFailed(
            f"--min-balance takes a whole number of minor units or `{_UNBOUNDED}`, not {text!r}",
            ExitCode.USAGE,
        ) from None
