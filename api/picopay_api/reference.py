"""The reference pages that are made from the code, so that they cannot be wrong about it.

`python -m picopay_api.reference` writes them into docs/reference, `--check` (in `make check`) fails
when one is not as it would be written, or when an error lacks its page. What an error means and
what to do about it is written by hand, one page per code in docs/reference/errors; this module only
holds those pages to the code. A further page is one more function in `PAGES`.
"""

import argparse
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from picopay_api import errors, logs, metrics
from picopay_api.cli import reference as cli
from picopay_api.environment import accepted, meta, unit, variable
from picopay_api.http import reference as http
from picopay_api.settings import ClientSettings, Settings

_NOTICE = "<!-- Made by `python -m picopay_api.reference`; change the code instead. -->"

STAGES: tuple[tuple[str, tuple[str, ...]], ...] = (
    (
        "At the door",
        (
            "not_found",
            "method_not_allowed",
            "authentication_required",
            "api_key_invalid",
            "rate_limited",
            "scope_missing",
        ),
    ),
    (
        "Reading the request",
        (
            "idempotency_key_missing",
            "idempotency_key_invalid",
            "unsupported_media_type",
            "body_too_large",
            "malformed_body",
            "invalid_request",
            "invalid_cursor",
        ),
    ),
    (
        "Finding what the request names",
        (
            "ledger_not_found",
            "api_key_not_found",
            "event_not_found",
            "payment_not_found",
            "transaction_not_found",
            "transaction_not_reversible",
            "account_not_found",
            "asset_mismatch",
            "same_account",
            "balance_out_of_range",
        ),
    ),
    (
        "Taking a payment or transaction into the queue",
        (
            "idempotency_key_in_flight",
            "shutting_down",
            "overloaded",
            "schema_out_of_range",
            "database_unavailable",
        ),
    ),
    (
        "Deciding a payment or transaction, under the locks of its accounts",
        (
            "idempotency_key_reused",
            "reference_taken",
            "transaction_already_reversed",
            "account_not_found",
            "asset_mismatch",
            "account_closed",
            "account_frozen",
            "condition_failed",
            "balance_out_of_range",
            "insufficient_funds",
        ),
    ),
    (
        "Changing accounts, ledgers and API keys",
        (
            "asset_unknown",
            "idempotency_key_reused",
            "reference_taken",
            "ledger_name_taken",
            "api_key_inactive",
            "account_state_conflict",
            "account_not_empty",
        ),
    ),
    ("At any time", ("deadline_exceeded", "database_unavailable", "internal_error")),
)
"""The order in which a request is checked: the first check that fails gives the error."""

_AGAIN = (errors.UnavailableError, errors.RateLimited, errors.IdempotencyKeyInFlight)
_ERROR_PAGE = re.compile(
    r"# (?P<title>[^\n]+)\n\n`(?P<code>\w+)` · HTTP (?P<status>\d+)(?: · [^\n]+)?\n\n"
    r"## What it means\n\n.+\n\n## What to do\n\n- .+\n\n"
    r"## Example\n\n```json\n(?P<example>\{.+\})\n```\n",
    re.DOTALL,
)


def settings_page() -> str:
    """Every variable of the environment."""
    return _page(
        "Settings",
        """
PicoPay is set up by environment variables; `DATABASE_URL` is the only one that must be set. Each
variable `NAME` can be given as a file instead, whose path is in `NAME_FILE`: that is how Docker,
Swarm and Kubernetes hand out secrets. A variable that is set to nothing counts as not set. A value
out of its bounds, a contradiction, or a name that begins with `PICOPAY_` and is not listed here
keeps a process from starting; all problems are told at once.

## Servers, and commands on the database
""",
        _settings_table(Settings),
        """
## Commands that speak to a server

`picopay accounts`, `picopay pay` and their like are clients of the HTTP API.
""",
        _settings_table(ClientSettings),
    )


def metrics_page() -> str:
    """Every metric of PicoPay's own."""
    rows = []
    for metric in metrics.catalogue():
        (family,) = metric.describe()
        name = f"{family.name}_total" if family.type == "counter" else family.name
        rows.append(
            (f"`{name}`", family.type, _codes(metrics.labels(metric)), family.documentation)
        )
    return _page(
        "Metrics",
        """
`GET /metrics` answers in Prometheus' text format, without an API key. Server processes that share a
socket answer as one; a worker by itself answers on `PICOPAY_WORKER_METRICS_PORT`. Labels never hold
ids or texts of clients. The usual `process_…` and `python_…` metrics of the Prometheus client are
there, too, where a process answers for itself.
""",
        _table(("Metric", "Type", "Labels", "Meaning"), rows),
        f"""
A histogram `x` consists of `x_bucket` (with the label `le`), `x_sum` and `x_count`. The buckets of
`picopay_batch_commands` are {_bounds(metrics.BATCH_COMMANDS_BUCKETS)}; those of seconds are
{_bounds(metrics.SECONDS_BUCKETS)}.
""",
    )


def logs_page() -> str:
    """Every event that is logged, and the fields of lines."""
    events = [(event, event.level, _codes(event.fields), event.meaning) for event in logs.Event]
    return _page(
        "Log events",
        """
Logs go to standard output, one JSON object a line (`PICOPAY_LOG_FORMAT=text` is for terminals).
`event` is one of the names below and never changes its meaning: filters and alerts can rely on it.
API keys, passwords and bodies of requests are never part of a line.

## Events
""",
        _table(("`event`", "Level", "Fields", "Meaning"), events),
        "## Fields that any line can have",
        _table(("Field", "Meaning"), _described(logs.COMMON_FIELDS)),
        "## Fields of events",
        _table(("Field", "Meaning"), _described(logs.FIELDS)),
    )


def errors_page() -> str:
    """Every error by status, and the order of checks."""
    found = sorted(errors.BY_CODE.values(), key=lambda error: error.status)
    rows = [
        (str(error.status), _link(error.code), error.title, "yes" if _again(error) else "no")
        for error in found
    ]
    order = [
        f"{number}. {title}: {', '.join(map(_link, codes))}"
        for number, (title, codes) in enumerate(STAGES, start=1)
    ]
    return _page(
        "Errors",
        """
Every error is a problem document (RFC 9457, `application/problem+json`). Its `code` is stable:
write programs against it, not against `title` or `detail`, which are for people. `request_id` finds
the request in the server's log. Each code has a page with its meaning, what to do, and an example.

A refusal that was *decided*, such as `insufficient_funds`, is kept with its `Idempotency-Key`: the
same request gets the same answer, with `Idempotent-Replayed: true`, for as long as keys are kept
(`PICOPAY_IDEMPOTENCY_RETENTION_DAYS`). Errors from before the decision are not kept: the key stays
free.

## All errors

*Again* says whether the same request, unchanged and with the same `Idempotency-Key`, can succeed
later. Wait for `Retry-After`, and double the pause each time.
""",
        _table(("Status", "Code", "Title", "Again"), rows),
        """
## Order of checks

Checks run in this order and the first that fails gives the error, so that one request always gets
the same one. Postings are checked one by one, and of each its source first.
""",
        "\n".join(order),
    )


def cli_page() -> str:
    """Every command, and the exit codes."""
    return _page(
        "The command line",
        cli.INTRODUCTION,
        "## Exit codes",
        _table(("Code", "Meaning"), cli.exit_codes()),
        cli.commands(),
    )


def http_page() -> str:
    """Every operation of the API."""
    return _page(
        "The HTTP API", http.INTRODUCTION, http.operations(), http.refusals(), http.objects()
    )


PAGES: dict[str, Callable[[], str]] = {
    "settings.md": settings_page,
    "metrics.md": metrics_page,
    "logs.md": logs_page,
    "errors.md": errors_page,
    "cli.md": cli_page,
    "http.md": http_page,
}
"""The pages that are written whole, by their name below docs/reference."""


def write(directory: Path) -> None:
    """Write every page into a directory."""
    directory.mkdir(parents=True, exist_ok=True)
    for name, make in PAGES.items():
        (directory / name).write_text(make(), encoding="utf-8")


def check(directory: Path) -> Iterator[str]:
    """Yield what is wrong with the pages in a directory: a sentence each."""
    for name, make in PAGES.items():
        page = directory / name
        if not page.is_file() or page.read_text(encoding="utf-8") != make():
            yield f"{page} is not as the code would have it: run python -m picopay_api.reference"
    pages = {page.stem: page for page in (directory / "errors").glob("*.md")}
    for code, error in errors.BY_CODE.items():
        if code not in pages:
            yield f"{directory / 'errors'} has no page {code}.md"
        else:
            yield from _check_error_page(pages[code], error)
    for stray in sorted(set(pages) - set(errors.BY_CODE)):
        yield f"{pages[stray]} is about no error that there is"


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the pages, or check them, and return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m picopay_api.reference", description=__doc__)
    parser.add_argument("directory", nargs="?", type=Path, default=Path("docs/reference"))
    parser.add_argument("--check", action="store_true", help="write nothing; fail on a difference")
    options = parser.parse_args(arguments)
    if not options.check:
        write(options.directory)
    problems = list(check(options.directory))
    sys.stderr.writelines(f"{problem}\n" for problem in problems)
    return 1 if problems else 0


def _check_error_page(page: Path, error: type[errors.PicoPayError]) -> Iterator[str]:
    match = _ERROR_PAGE.fullmatch(page.read_text(encoding="utf-8"))
    if match is None:
        yield f"{page} lacks a title, its code and status, or one of its three sections"
        return
    if (match["title"], match["code"], match["status"]) != (
        error.title,
        error.code,
        str(error.status),
    ):
        yield f"{page} has another title, code or status than errors.py"
    try:
        example = msgspec.json.decode(match["example"], type=dict[str, Any])
    except msgspec.DecodeError as reason:
        yield f"{page} has an example that is not JSON: {reason}"
        return
    expected = {"title": error.title, "status": error.status, "code": error.code}
    if not expected.items() <= example.items():
        yield f"{page} has an example with another title, status or code than errors.py"
    if not str(example.get("type")).endswith(f"/{error.code}"):
        yield f"{page} has an example of another type"
    if lacking := {"detail", "instance", "request_id"} - example.keys():
        yield f"{page} has an example without {', '.join(sorted(lacking))}"


def _settings_table(struct: type[msgspec.Struct]) -> str:
    rows = []
    for field in msgspec.structs.fields(struct):
        measured = f", {unit(field)}" if unit(field) else ""
        rows.append(
            (
                f"`{variable(field)}`",
                f"{accepted(field)}{measured}",
                _default(field),
                meta(field).description or "",
            )
        )
    return _table(("Variable", "Takes", "Default", "Meaning"), rows)


def _default(field: msgspec.structs.FieldInfo) -> str:
    if field.required:
        return "**required**"
    if field.default is msgspec.NODEFAULT:
        return "the machine's name"
    if field.default is None:
        return "none"
    shown = str(field.default)
    return f"`{shown.lower() if isinstance(field.default, bool) else shown}`"


def _bounds(buckets: Iterable[float]) -> str:
    return ", ".join(f"{bound:g}" for bound in buckets)


def _codes(names: Iterable[str]) -> str:
    return ", ".join(f"`{name}`" for name in names) or "none"


def _described(names: Mapping[str, str]) -> list[tuple[str, str]]:
    return [(f"`{name}`", meaning) for name, meaning in names.items()]


def _again(error: type[errors.PicoPayError]) -> bool:
    return issubclass(error, _AGAIN)


def _link(code: str) -> str:
    return f"[`{code}`](errors/{code}.md)"


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(cell.replace('|', '\\|') for cell in row)} |" for row in lines)


def _page(title: str, *blocks: str) -> str:
    return "\n\n".join((f"# {title}", _NOTICE, *map(str.strip, blocks))) + "\n"


if __name__ == "__main__":
    sys.exit(main())
