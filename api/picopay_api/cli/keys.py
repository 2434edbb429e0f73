"""`picopay keys`: API keys made, listed, rolled and revoked; by asking a server, or on the database.

`--direct` makes the first key of a database, which no server can be asked for. A secret is shown once,
when it is made. Both ways give the same output.
"""

from collections.abc import Awaitable, Callable
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
import typer

from picopay_api.cli.client import ask, path, show_object, show_page
from picopay_api.cli.console import note
from picopay_api.cli.direct import ensure_ledger, find_ledger, with_engine
from picopay_api.cli.exits import CommandFailed, ExitCode
from picopay_api.cli.ledgers import ask_for_ledger
from picopay_api.cli.options import AsJson, Cursor, Direct, Limit, examples

if TYPE_CHECKING:
    from uuid import UUID

    from picopay_api.engine.engine import Engine

app = typer.Typer(add_completion=False, no_args_is_help=True)

OfLedger = Annotated[
    str | None,
    typer.Option(
        "--ledger",
        metavar="NAME",
        help="The ledger, by name or id; the one of PICOPAY_API_KEY, with --direct `main` otherwise.",
    ),
]
KeyId = Annotated[str, typer.Argument(metavar="KEY", help="The id of the key: key_….")]

_FIRST_LEDGER = "main"
_FIELDS = {
    "id": "id",
    "name": "name",
    "scopes": "scopes",
    "hint": "hint",
    "created_at": "created_at",
    "expires_at": "expires_at",
    "revoked_at": "revoked_at",
}
_ENSURED = {"id": "id", "ledger": "ledger", **_FIELDS}
_WITH_SECRET = {**_ENSURED, "secret": "secret"}
_OVERLAP_S = 86_400
_OVERLAP_S_MAX = 2_592_000
_SECRET_BYTES_MAX = 1_024


@app.callback(
    epilog=examples(
        "picopay keys list",
        "picopay keys create shop --scope payments:write --scope accounts:read",
        "picopay keys create first --scope admin --direct",
    )
)
def keys() -> None:
    """Make API keys, list, roll and revoke them.

    Asks the server at PICOPAY_URL with PICOPAY_API_KEY; with --direct, works on the database.
    """


@app.command(
    epilog=examples(
        "picopay keys create shop --scope payments:write --scope accounts:read",
        "picopay keys create reports --scope accounts:read --expires-at 2027-01-01T00:00:00Z",
        "picopay keys create first --scope admin --direct --json",
    )
)
def create(
    name: Annotated[str, typer.Argument(metavar="NAME", help="What or whom it is for.")],
    scopes: Annotated[
        list[str],
        typer.Option(
            "--scope",
            metavar="SCOPE",
            help="What it may do, `resource:action`; `*` for all, `admin` for every ledger.",
        ),
    ],
    expires_at: Annotated[
        str | None, typer.Option(metavar="TIME", help="When it ends, RFC 3339; never otherwise.")
    ] = None,
    ledger: OfLedger = None,
    direct: Direct = False,
    as_json: AsJson = False,
) -> None:
    """Make a key and show its secret, once."""

    async def work(engine: "Engine", ledger_id: "UUID") -> Any:
        from picopay_api.http import answers

        ends = None if expires_at is None else _time(expires_at)
        made = await engine.keys.create(ledger_id, name, scopes, ends)
        return answers.api_key(made.key, made.secret)

    if direct:
        made = _directly("making a key", ledger, work)
    else:
        body = {"name": name, "scopes": scopes, "expires_at": expires_at, **_ledger_member(ledger)}
        made = ask("POST", path("api_keys"), body=body).body
    _show_secret(made, as_json)


@app.command(
    epilog=examples(
        "picopay keys ensure administrator --scope admin --direct --secret-file /run/secrets/api-key",
        "picopay keys ensure shop --scope payments:write --direct --secret-file new "
        "--previous-secret-file old --overlap-s 3600",
    )
)
def ensure(
    name: Annotated[str, typer.Argument(metavar="NAME", help="What or whom it is for.")],
    scopes: Annotated[
        list[str], typer.Option("--scope", metavar="SCOPE", help="What it may do; may be repeated.")
    ],
    secret_file: Annotated[
        Path, typer.Option(metavar="FILE", help="Holds its secret: ppk_ and 64 hexadecimal digits.")
    ],
    previous_secret_file: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Holds the secret of the key it replaces.")
    ] = None,
    overlap_s: Annotated[
        int,
        typer.Option(
            metavar="SECONDS",
            min=0,
            max=_OVERLAP_S_MAX,
            help="How long the one it replaces stays valid beside it.",
        ),
    ] = _OVERLAP_S,
    ledger: OfLedger = None,
    direct: Direct = False,
    as_json: AsJson = False,
) -> None:
    """Have the key of a given secret be valid, in a ledger that is made if need be; for deployments.

    Done again, it changes nothing: the end of the key that is replaced is never put off. Needs --direct.
    A secret that has no such form, or whose key is revoked or expired, is refused.
    """
    if not direct:
        raise CommandFailed("a given secret needs --direct", ExitCode.USAGE)
    secret = _secret(secret_file)
    previous = None if previous_secret_file is None else _secret(previous_secret_file)
    if secret == previous:
        raise CommandFailed("a key cannot replace itself: both secrets are one", ExitCode.USAGE)

    async def work(engine: "Engine", _: Callable[[str], None]) -> Any:
        from picopay_api.http import answers

        found = await ensure_ledger(engine, ledger or _FIRST_LEDGER)
        key = await engine.keys.ensure(found.id, name, scopes, secret)
        if (key.ledger, set(key.scopes)) != (found.id, set(scopes)):
            raise CommandFailed(
                f"the secret is that of a key called {key.name!r}, of another ledger or with"
                f" other scopes ({', '.join(key.scopes)})",
                ExitCode.REFUSED,
                code="api_key_differs",
            )
        if previous is not None:  # only now: there is always a valid one
            await engine.keys.retire(found.id, previous, overlap_s)
        return msgspec.to_builtins(answers.api_key(key))

    show_object(with_engine("ensuring the key", work), _ENSURED, as_json=as_json)


@app.command("list", epilog=examples("picopay keys list", "picopay keys list --direct --json"))
def list_keys(
    ledger: OfLedger = None,
    limit: Limit = 20,
    cursor: Cursor = None,
    direct: Direct = False,
    as_json: AsJson = False,
) -> None:
    """List keys, newest first, revoked ones included; never their secrets."""

    async def work(engine: "Engine", ledger_id: "UUID") -> Any:
        from picopay_api.http import answers

        return answers.page(await engine.keys.list(ledger_id, limit, cursor), answers.api_key)

    if direct:
        page = _directly("listing keys", ledger, work)
    else:
        query = {"limit": limit, "cursor": cursor, **_ledger_member(ledger)}
        page = ask("GET", path("api_keys"), query=query).body
    show_page(page, _FIELDS, empty="no keys", as_json=as_json)


@app.command(
    epilog=examples(
        "picopay keys roll key_0198c1f2a3b47c5d8e9f0a1b2c3d4e5f",
        "picopay keys roll key_0198c1f2a3b47c5d8e9f0a1b2c3d4e5f --overlap 0",
    )
)
def roll(
    key: KeyId,
    overlap_s: Annotated[
        int,
        typer.Option(
            "--overlap",
            metavar="SECONDS",
            min=0,
            max=_OVERLAP_S_MAX,
            help="How long the old one stays valid beside the new one.",
        ),
    ] = _OVERLAP_S,
    ledger: OfLedger = None,
    direct: Direct = False,
    as_json: AsJson = False,
) -> None:
    """Make a key like this one, show its secret once, and let the old one expire."""

    async def work(engine: "Engine", ledger_id: "UUID") -> Any:
        from picopay_api.http import answers

        made = await engine.keys.roll(ledger_id, _id(key), overlap_s)
        return answers.api_key(made.key, made.secret)

    if direct:
        made = _directly("rolling the key", ledger, work)
    else:
        query = _ledger_member(ledger)
        made = ask(
            "POST", path("api_keys", key, "roll"), query=query, body={"overlap_s": overlap_s}
        ).body
    _show_secret(made, as_json)


@app.command(epilog=examples("picopay keys revoke key_0198c1f2a3b47c5d8e9f0a1b2c3d4e5f"))
def revoke(
    key: KeyId, ledger: OfLedger = None, direct: Direct = False, as_json: AsJson = False
) -> None:
    """End a key; within seconds no server accepts it any more."""

    async def work(engine: "Engine", ledger_id: "UUID") -> Any:
        from picopay_api.http import answers

        return answers.api_key(await engine.keys.revoke(ledger_id, _id(key)))

    if direct:
        revoked = _directly("revoking the key", ledger, work)
    else:
        query = _ledger_member(ledger)
        revoked = ask("POST", path("api_keys", key, "revoke"), query=query).body
    show_object(revoked, _FIELDS, as_json=as_json)


def _directly(
    label: str, ledger: str | None, work: "Callable[[Engine, UUID], Awaitable[Any]]"
) -> Any:
    async def do(engine: "Engine", _: Callable[[str], None]) -> Any:
        found = await find_ledger(engine, ledger or _FIRST_LEDGER)
        return msgspec.to_builtins(await work(engine, found.id))

    return with_engine(label, do)


def _ledger_member(ledger: str | None) -> dict[str, str]:
    return {} if ledger is None else {"ledger": ask_for_ledger(ledger)["id"]}


def _show_secret(made: Any, as_json: bool) -> None:
    show_object(made, _WITH_SECRET, as_json=as_json)
    if not as_json:
        note("the secret is shown this once: keep it in a safe place")


def _secret(file: Path) -> str:
    from picopay_api.engine.keys import is_secret

    try:
        with file.open("rb") as opened:
            secret = opened.read(_SECRET_BYTES_MAX).decode("ascii", "replace").strip()
    except OSError as error:
        raise CommandFailed(
            f"{file} cannot be read: {error.strerror}", ExitCode.CONFIGURATION
        ) from error
    if not is_secret(secret):
        raise CommandFailed(
            f"{file} holds no secret of a key: ppk_ and 64 hexadecimal digits, at random",
            ExitCode.CONFIGURATION,
            code="secret_malformed",
        )
    return secret


def _id(key: str) -> "UUID":
    from picopay_api.engine.ids import API_KEY, parse_id

    found = parse_id(API_KEY, key)
    if found is None:
        raise CommandFailed(f"{key!r} is not the id of a key, key_…", ExitCode.USAGE)
    return found


def _time(text: str) -> datetime:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        moment = None
    if moment is None or moment.tzinfo is None:
        raise CommandFailed(
            f"{text!r} is not a time as 2027-01-01T00:00:00Z (RFC 3339)", ExitCode.USAGE
        )
    return moment
