"""`picopay pay`: one payment, by asking a running server; safe to repeat by its Idempotency-Key."""

import secrets
import shlex
from collections.abc import Mapping
from typing import Annotated

import typer

from picopay_api.cli.client import LOST, Answer, ask, path, show_object
from picopay_api.cli.console import note
from picopay_api.cli.exits import CommandFailed, ExitCode
from picopay_api.cli.options import AsJson, Metadata, examples, pairs

app = typer.Typer(add_completion=False)

_FIELDS = {
    "payment": "id",
    "status": "status",
    "amount_minor": "amount",
    "asset": "asset",
    "source": "source",
    "destination": "destination",
    "reference": "reference",
    "metadata": "metadata",
    "created_at": "created_at",
    "idempotency_key": "idempotency_key",
}


@app.command(
    epilog=examples(
        "picopay pay @alice @bob 1250 USD",
        "picopay pay @alice @bob 1250 USD --reference order-1841 -m channel=shop",
        "picopay pay @alice @bob 1250 USD --key order-1841 --json",
    )
)
def pay(
    source: Annotated[str, typer.Argument(metavar="SOURCE", help="Who pays: acct_… or @name.")],
    destination: Annotated[str, typer.Argument(metavar="DESTINATION", help="Who is paid.")],
    amount: Annotated[int, typer.Argument(metavar="AMOUNT", min=1, help="In minor units.")],
    asset: Annotated[str, typer.Argument(metavar="ASSET", help="USD, EUR …, or BTC/8.")],
    reference: Annotated[
        str | None, typer.Option(help="Your name for the payment, unique in the ledger for ever.")
    ] = None,
    key: Annotated[
        str | None,
        typer.Option("--key", help="The Idempotency-Key; a fresh one is made when none is given."),
    ] = None,
    metadata: Metadata = None,
    as_json: AsJson = False,
) -> None:
    """Pay AMOUNT minor units of ASSET from SOURCE to DESTINATION.

    Asks the server at PICOPAY_URL with PICOPAY_API_KEY. The Idempotency-Key is shown; the same command
    with `--key` and that key pays at most once, however often it is given. When the answer is lost, the
    command to repeat is shown.
    """
    idempotency_key = key or f"cli-{secrets.token_hex(16)}"
    body = {
        "source": source,
        "destination": destination,
        "amount": str(amount),
        "asset": asset,
        "reference": reference,
        "metadata": pairs(metadata),
    }
    again = _again(source, destination, amount, asset, reference, idempotency_key, metadata)
    made = _pay(body, idempotency_key, again)
    if made.replayed and not as_json:
        note("this payment was made before, with the same key; nothing was paid again")
    told = {**made.body, "idempotency_key": idempotency_key, "replayed": made.replayed}
    show_object(told, _FIELDS, as_json=as_json)


def _pay(body: Mapping[str, object], idempotency_key: str, again: str) -> Answer:
    try:
        return ask("POST", path("payments"), body=body, idempotency_key=idempotency_key)
    except CommandFailed as failure:
        lost = failure.exit_code in {ExitCode.UNAVAILABLE, ExitCode.INTERNAL}
        if not lost and failure.code != "idempotency_key_in_flight":
            raise
        unknown = "; whether the payment was made is not known" if failure.code == LOST else ""
        raise CommandFailed(
            failure.message + unknown,
            failure.exit_code,
            code=failure.code,
            hint=f"repeat it, it is paid at most once: {again}",
        ) from failure
    except KeyboardInterrupt:
        note(f"whether the payment was made is not known; to repeat it, at most once: {again}")
        raise


def _again(
    source: str,
    destination: str,
    amount: int,
    asset: str,
    reference: str | None,
    idempotency_key: str,
    metadata: list[str] | None,
) -> str:
    """Return the command that repeats this payment."""
    words = ["picopay", "pay", source, destination, str(amount), asset, "--key", idempotency_key]
    if reference is not None:
        words += ["--reference", reference]
    for pair in metadata or ():
        words += ["--metadata", pair]
    return shlex.join(words)
