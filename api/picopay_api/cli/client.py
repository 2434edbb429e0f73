"""Asks a running server over HTTP: what `accounts`, `pay`, `ledgers` and `keys` have in common.

Where the server is and with which key to ask comes from PICOPAY_URL and PICOPAY_API_KEY. Refusals end
the command with the server's own sentence and code; what cannot be reached ends it with another exit
code, as it may do later. Nothing is repeated behind the user's back.
"""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import quote

from picopay_api.cli.console import note, print_fields, print_json, print_table, progress
from picopay_api.cli.exits import CommandFailed, ExitCode

if TYPE_CHECKING:
    import httpx

LOST = "answer_lost"
"""The code of a failure after which nobody here knows what the server did."""

_TIMEOUT_S = 30.0
_TEXT_CHARACTERS_MAX = 200


class Answer(NamedTuple):
    """What a server answered: the decoded body, and whether it repeated an earlier answer."""

    body: Any
    replayed: bool


def path(*parts: str) -> str:
    """Return the path of a resource, its parts escaped: references may hold any character."""
    return "/v1/" + "/".join(quote(part, safe="@:") for part in parts)


def ask(
    method: str,
    resource: str,
    *,
    query: Mapping[str, str | int | None] | None = None,
    body: Any = None,
    idempotency_key: str | None = None,
) -> Answer:
    """Send one request and return the answer. Parameters that are None are left out.

    Raises:
        CommandFailed: the server refuses, or cannot be reached.
    """
    with _client() as client, progress(f"waiting for {client.base_url}"):
        answer = client.request(
            method,
            resource,
            params={name: value for name, value in (query or {}).items() if value is not None},
            json=body,
            headers={} if idempotency_key is None else {"Idempotency-Key": idempotency_key},
        )
        _refuse(answer)
        return Answer(_decoded(answer), answer.headers.get("Idempotent-Replayed") == "true")


def stream(resource: str, query: Mapping[str, str | None]) -> Iterator[bytes]:
    """Send a GET request and yield the body as it arrives.

    Raises:
        CommandFailed: the server refuses, or cannot be reached.
    """
    parameters = {name: value for name, value in query.items() if value is not None}
    with _client() as client, client.stream("GET", resource, params=parameters) as answer:
        if not answer.is_success:
            answer.read()
        _refuse(answer)
        yield from answer.iter_bytes()


def metadata_query(pairs: Mapping[str, str]) -> dict[str, str]:
    """Return metadata as the filters of a list."""
    return {f"metadata[{name}]": value for name, value in pairs.items()}


def show_page(page: Any, fields: Mapping[str, str], *, empty: str, as_json: bool) -> None:
    """Write a page of a list: as it came, or as a table of `fields` (column: dotted name)."""
    if as_json:
        print_json(page)
        return
    rows = [[pick(item, name) for name in fields.values()] for item in page["data"]]
    print_table(tuple(fields), rows, empty=empty)
    if page["has_more"]:
        note(f"there are more: --cursor {page['next_cursor']}")


def show_object(item: Any, fields: Mapping[str, str], *, as_json: bool) -> None:
    """Write one object: as it came, or its `fields` one a line."""
    if as_json:
        print_json(item)
    else:
        print_fields((label, pick(item, name)) for label, name in fields.items())


def pick(item: Any, dotted: str) -> Any:
    """Return a member of nested objects by its dotted name."""
    for name in dotted.split("."):
        item = item.get(name) if isinstance(item, dict) else None
    return item


@contextmanager
def _client() -> "Iterator[httpx.Client]":
    import httpx

    from picopay_api.settings import ClientSettings, SettingsError

    try:
        settings = ClientSettings.from_environment(os.environ)
    except SettingsError as error:
        raise CommandFailed(str(error), ExitCode.CONFIGURATION, code="settings_invalid") from error
    if settings.api_key is None:
        raise CommandFailed(
            "PICOPAY_API_KEY is not set",
            ExitCode.CONFIGURATION,
            code="authentication_required",
            hint="`picopay up` prints a key and keeps it in .picopay/api_key;"
            " `picopay keys create --direct` makes the first one of another database",
        )
    headers = {"Authorization": f"Bearer {settings.api_key}", "Accept": "*/*"}
    try:
        with httpx.Client(
            base_url=settings.url, headers=headers, timeout=_TIMEOUT_S, trust_env=False
        ) as client:
            yield client
    except (httpx.ConnectError, httpx.ConnectTimeout, httpx.InvalidURL) as error:
        raise CommandFailed(
            f"{settings.url} cannot be reached: {str(error) or type(error).__name__}",
            ExitCode.UNAVAILABLE,
            code="unreachable",
            hint="check PICOPAY_URL, and that the server runs",
        ) from error
    except httpx.TransportError as error:
        raise CommandFailed(
            f"{settings.url} has not answered: {str(error) or type(error).__name__}",
            ExitCode.UNAVAILABLE,
            code=LOST,
        ) from error


def _refuse(answer: "httpx.Response") -> None:
    if answer.is_success:
        return
    problem = _decoded(answer)
    if not isinstance(problem, dict) or "code" not in problem:
        raise _not_picopay(answer)
    code, detail = str(problem["code"]), str(problem.get("detail") or problem.get("title"))
    faults = [f"{each.get('pointer')}: {each.get('detail')}" for each in problem.get("errors", ())]
    exit_code = {
        400: ExitCode.USAGE,
        429: ExitCode.UNAVAILABLE,
        500: ExitCode.INTERNAL,
        503: ExitCode.UNAVAILABLE,
    }.get(answer.status_code, ExitCode.REFUSED)
    hint = None
    if answer.status_code == 401:
        hint = "check PICOPAY_API_KEY"
    elif "Retry-After" in answer.headers:
        hint = f"try again in {answer.headers['Retry-After']} s"
    elif exit_code is ExitCode.INTERNAL:
        hint = f"the server's log says more: request {problem.get('request_id')}"
    raise CommandFailed("; ".join([detail, *faults]), exit_code, code=code, hint=hint)


def _decoded(answer: "httpx.Response") -> Any:
    try:
        return answer.json()
    except ValueError:
        raise _not_picopay(answer) from None


def _not_picopay(answer: "httpx.Response") -> CommandFailed:
    text = answer.text[:_TEXT_CHARACTERS_MAX]
    return CommandFailed(
        f"{answer.url} does not answer as PicoPay does: {answer.status_code} {text!r}",
        ExitCode.UNAVAILABLE,
        code="not_picopay",
        hint="check PICOPAY_URL",
    )
