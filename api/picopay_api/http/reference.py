"""The text of docs/reference/http.md: every operation, what it takes, answers and refuses.

Called by `picopay_api.reference`, which writes it and checks that it is as the code would have it. The
operations and their types are described where they are declared; only what all have in common is
said here.
"""

from collections.abc import Iterable, Iterator

import msgspec

from picopay_api.engine.keys import SCOPES
from picopay_api.engine.ledger import AMOUNT_MAX_MINOR, BALANCE_MAX_MINOR
from picopay_api.errors import IdempotencyKeyInvalid, IdempotencyKeyMissing, PicoPayError
from picopay_api.http import answers, describing, openapi, requests
from picopay_api.http.operations import VERSION, Keyed, Operation
from picopay_api.http.parameters import LIMIT_DEFAULT, LIMIT_MAX
from picopay_api.http.resources import OPERATIONS

_KEYS = {
    Keyed.NEVER: "",
    Keyed.OPTIONAL: " An `Idempotency-Key` may be sent.",
    Keyed.REQUIRED: " An `Idempotency-Key` is required.",
}
_OBJECTS: tuple[type[msgspec.Struct], ...] = (
    requests.PostingRequest,
    requests.ConditionRequest,
    answers.Payment,
    answers.Transaction,
    answers.Posting,
    answers.Account,
    answers.Balance,
    answers.AccountBalance,
    answers.Entry,
    answers.Event,
    answers.Audit,
    answers.Finding,
    answers.ApiKey,
    answers.Ledger,
)
"""What bodies and answers consist of, in the order of the page."""

INTRODUCTION = f"""
A server describes itself, too: `/docs` for people, `/openapi.json` (OpenAPI 3.1) for programs.

## What all operations have in common

**Who asks.** Send an API key as `Authorization: Bearer ppk_…` or `X-API-Key: ppk_…`. A key belongs to
one ledger and sees nothing of another one: what is not yours is not there (404). What a key may do is
in its scopes: {", ".join(f"`{scope}`" for scope in SCOPES)}. `*` is everything within the ledger;
`admin` is that, and ledgers and the keys of all ledgers.

**Amounts** are whole minor units: `1250` in `USD` is $12.50. An asset is a code of ISO 4217, or a code
and its number of decimals, such as `BTC/8`. A posting moves 1 to {AMOUNT_MAX_MINOR}; a balance stays
within ±{BALANCE_MAX_MINOR}. Fractions and exponents are refused. Where an amount is beyond ±(2^53-1),
which not every JSON reader keeps exactly, the answer has a string of digits; requests may always have
one.

**Ids** are a prefix and 32 hexadecimal digits, and rise with time. Wherever an account's id is taken,
`@` and its reference is taken, too; in a path it is escaped. `@world` is the outside: money comes from
it and goes to it, and there is one for each asset as soon as it is needed. **Times** are RFC 3339 in
UTC, to the millisecond.

**Idempotency.** Everything that moves money takes an `Idempotency-Key` of your own, 1 to 255
printable ASCII characters. Sent again with the same body, it is done once and answered as the first
time, with `Idempotent-Replayed: true`; refusals that were decided, such as `insufficient_funds`, are
kept as well. Another body with the same key is refused (422 `idempotency_key_reused`), or 409 with
`Retry-After` while the first one is still running. What failed before it was decided (400, 401, 403,
404, 413, 415, 429, 503) keeps nothing: the key stays free. Keys belong to a ledger and an operation and
are remembered for `PICOPAY_IDEMPOTENCY_RETENTION_DAYS`; a `reference` stays unique for ever.

**Lists** are newest first: `limit` is 1 to {LIMIT_MAX}, {LIMIT_DEFAULT} by default; while `has_more`,
ask again with `cursor=next_cursor` and the same filters. A page costs the same however long the
history is: when several filters are combined, it may hold fewer items than `limit`, even none, and
still have a successor.

**Refusals** are `application/problem+json` with a stable `code`: see [errors](errors.md).

**Headers.** Every answer has `Request-Id` (yours, if you sent a sane one) and `PicoPay-Version`
({VERSION}, which you may send to be sure of it). `traceparent` is taken over into the log.
`RateLimit-Policy` and `RateLimit` tell how many requests the key has left in its window; beyond it the
answer is 429 with `Retry-After`.
"""


def operations() -> str:
    """Return a section for each operation, by resource."""
    blocks: list[str] = []
    resource = ""
    for operation in OPERATIONS:
        if operation.resource != resource:
            resource = operation.resource
            blocks.append(f"## {resource.replace('_', ' ').capitalize().replace('Api', 'API')}")
        blocks += _section(operation)
    return "\n\n".join(blocks)


def refusals() -> str:
    """Return a section about what any operation may refuse."""
    return "\n\n".join(
        (
            "## What any operation refuses",
            f"{', '.join(map(_refusal, openapi.ANY_CALL))}.",
            f"If it takes a body: {', '.join(map(_refusal, openapi.ANY_BODY))}.",
            f"If it takes an `Idempotency-Key`: {_refusal(IdempotencyKeyInvalid)}.",
            f"If it requires one: {_refusal(IdempotencyKeyMissing)}.",
        )
    )


def objects() -> str:
    """Return a section for each kind of object that bodies and answers hold."""
    blocks = ["## Objects"]
    for shape in _OBJECTS:
        blocks += [
            f"### {describing.title(shape)}",
            (shape.__doc__ or "").strip(),
            _list(describing.members(shape)),
        ]
    return "\n\n".join(blocks)


def _section(operation: Operation) -> Iterator[str]:
    yield f"### {operation.summary}"
    yield f"`{operation.method} {operation.path}` · scope `{operation.scope}`"
    said = operation.description
    if "`Idempotency-Key`" not in said:
        said += _KEYS[operation.keyed]
    if said:
        yield said.strip()
    yield f"```sh\n{describing.example(operation)}\n```"
    if operation.parameters:
        yield "In the query:"
        yield _list((parameter.name, parameter.description) for parameter in operation.parameters)
    if operation.body is not None:
        yield "In the body:"
        yield _list(describing.members(operation.body))
    yield f"Answers {operation.status}: `{describing.title(operation.answer)}`."
    own = sorted(operation.errors, key=lambda error: (error.status, error.code))
    common = "[what any operation refuses](#what-any-operation-refuses)"
    yield f"Refuses: {', '.join([*map(_refusal, own), common])}."


def _refusal(error: type[PicoPayError]) -> str:
    return f"{error.status} [`{error.code}`](errors/{error.code}.md)"


def _list(rows: Iterable[tuple[str, str]]) -> str:
    return "\n".join(f"- `{name}`: {said}" for name, said in rows)
