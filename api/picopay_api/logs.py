"""Logging: one line per event, JSON for machines or text for a terminal, and never a secret in it.

`Event` is the closed list of what PicoPay logs; docs/reference/logs.md is made from it. Modules log
with `get_logger(__name__).info(Event.…, field=…)`; whoever starts a process calls `configure` once.
What libraries log through the standard library comes out in the same form. Logging never raises: a
full disk or a closed pipe must not fail a payment.
"""

import logging
import re
import sys
from contextlib import suppress
from datetime import UTC, datetime
from enum import StrEnum
from threading import Lock
from typing import Self, TextIO
from uuid import UUID

import msgspec
import structlog
from structlog.typing import EventDict, FilteringBoundLogger, WrappedLogger

from picopay_api.settings import LogFormat, LogLevel


class Event(StrEnum):
    """Every event: its name, the level it is logged at, what it means and the fields it carries."""

    level: str
    meaning: str
    fields: tuple[str, ...]

    def __new__(cls, name: str, level: str = "", meaning: str = "", *fields: str) -> Self:
        """Make a member; `Event(name)` finds one."""
        event = str.__new__(cls, name)
        event._value_ = name
        event.level, event.meaning, event.fields = level, meaning, fields
        return event

    SERVER_STARTED = (
        "server started",
        "info",
        "The HTTP server accepts connections.",
        "version",
    )
    SERVER_STOPPING = (
        "server stopping",
        "info",
        "The process was told to stop: it takes no new work and ends what it has accepted.",
    )
    SERVER_STOPPED = ("server stopped", "info", "All that was accepted is answered.")
    READY = ("ready", "info", "The process can serve: the database answers and its schema fits.")
    NOT_READY = (
        "not ready",
        "warning",
        "The process cannot serve for now; `/readyz` says the same.",
        "reason",
    )
    REQUEST = (
        "request",
        "debug",
        "A request was answered.",
        "method",
        "route",
        "status",
        "code",
        "ledger",
        "duration_ms",
    )
    IDEMPOTENCY_HIT = (
        "idempotency hit",
        "info",
        "A request was answered from what its Idempotency-Key had been answered before.",
        "ledger",
        "idempotency_key",
    )
    INSUFFICIENT_FUNDS = (
        "insufficient funds",
        "info",
        "A payment or transaction was refused: an account would be below its floor.",
        "ledger",
        "code",
    )
    FAILED_TRANSACTION = (
        "failed transaction",
        "error",
        "The database failed at a payment, by no rule of the ledger. The client was told 500.",
        "ledger",
        "id",
        "sqlstate",
        "error",
    )
    BATCH_RETRIED = (
        "batch retried",
        "warning",
        "A batch is sent again: another process was in the way, or the session was lost.",
        "reason",
        "commands",
    )
    RATE_LIMITED = (
        "rate limited",
        "info",
        "An API key has used up its requests for this window (told once in a window).",
        "ledger",
        "key",
    )
    AUTHENTICATION_FAILED = (
        "authentication failed",
        "info",
        "A request came without a valid API key. Which key it was is not told.",
        "code",
    )
    UNEXPECTED_ERROR = (
        "unexpected error",
        "error",
        "A defect of PicoPay, with its traceback. The client was told 500 and the `request_id`.",
        "error",
        "commands",
    )
    MIGRATION_APPLIED = (
        "migration applied",
        "info",
        "The database's schema has reached a revision.",
        "revision",
    )
    PROCESS_RESTARTED = (
        "process restarted",
        "warning",
        "A server, the worker or the database of `picopay up` has ended, and is started again.",
        "process",
        "reason",
        "pause_s",
    )
    WORKER_STARTED = ("worker started", "info", "The worker runs: sealer, auditor and partitions.")
    WORKER_STOPPED = ("worker stopped", "info", "The worker has ended its round and stopped.")
    WORKER_WAITING = (
        "worker waiting",
        "warning",
        "The worker cannot work now, mostly because the database is away, and tries again.",
        "task",
        "reason",
    )
    WORKER_FAILED = (
        "worker failed",
        "error",
        "A task of the worker met a defect; it is started again after a pause.",
        "task",
    )
    SEALING_STALLED = (
        "sealing stalled",
        "error",
        "A journal lacks rows that were committed: its feed stops here until a person looks.",
        "ledger",
        "detail",
    )
    AUDIT_FINDING = (
        "audit finding",
        "error",
        "The auditor has found something that must never be: page somebody.",
        "ledger",
        "kind",
        "subject",
        "detail",
    )
    PARTITION_CREATED = (
        "partition created",
        "info",
        "A partition was created ahead of the time it is for.",
        "name",
    )
    PARTITION_DROPPED = (
        "partition dropped",
        "info",
        "Ten days of idempotency keys have passed their retention and were dropped.",
        "name",
    )
    LIBRARY_MESSAGE = (
        "library message",
        "info",
        "A library has something to say, at whatever level it chose.",
        "message",
    )


COMMON_FIELDS = {
    "time": "When, RFC 3339 in UTC with milliseconds.",
    "level": "`debug`, `info`, `warning` or `error`.",
    "event": "Which of the events below.",
    "logger": "The module that logs.",
    "request_id": "The request that it happened in, as in the `Request-Id` header of its answer.",
    "trace_id": "The trace of that request, when it came with a `traceparent`.",
    "exception": "A traceback, where there is one.",
}
"""Fields that any line can have; the first four are on all of them."""

FIELDS = {
    "code": "The error's code, as in the answer.",
    "commands": "How many payments and transactions were in the batch.",
    "detail": "What is wrong, for people.",
    "duration_ms": "How long the request took.",
    "error": "What the database or the program said.",
    "id": "The payment or transaction, 32 hexadecimal digits: the id after its prefix.",
    "idempotency_key": "The `Idempotency-Key` of the request.",
    "key": "The id of the API key, never the key itself.",
    "kind": "Which rule is broken, such as `balance_differs`.",
    "ledger": "The ledger, `ldg_…`.",
    "message": "What the library says.",
    "method": "The HTTP method.",
    "name": "The name of the partition.",
    "pause_s": "After how many seconds.",
    "process": "Which process: worker, PostgreSQL, or a server with its number.",
    "reason": "Why, for people.",
    "revision": "The revision of the schema.",
    "route": "The pattern of the route, never the path.",
    "sqlstate": "PostgreSQL's code of the error.",
    "status": "The HTTP status of the answer.",
    "subject": "What the finding is about: an account, a transaction, a block.",
    "task": "Which task of the worker: sealer, auditor or partitions.",
    "version": "The version of PicoPay.",
}
"""Fields that events carry of their own."""

_HIDDEN = "[hidden]"
_SECRETS = (
    # API keys, wherever they stand.
    (re.compile(r"ppk_[A-Za-z0-9_\-]+"), f"ppk_{_HIDDEN}"),
    # Passwords in URLs and in connection strings.
    (re.compile(r'(://[^\s/:@"\\]*:)[^\s@"]+@'), rf"\1{_HIDDEN}@"),
    (re.compile(r"\b((?:ssl)?password\s*=\s*)('[^']*'|[^\s\"']+)", re.IGNORECASE), rf"\1{_HIDDEN}"),
    (re.compile(r"\b(Bearer|Basic)\s+[^\s\"\\]+", re.IGNORECASE), rf"\1 {_HIDDEN}"),
    # Whole values, by the name of their field or header.
    (
        re.compile(
            r'("(?:authorization|cookie|x-api-key|api_key|password|secret|token)"\s*:\s*)'
            r'"(?:[^"\\]|\\.)*"',
            re.IGNORECASE,
        ),
        rf'\1"{_HIDDEN}"',
    ),
    # Rows, keys and arguments that the database and its driver show with an error: what clients wrote.
    (
        re.compile(
            r"\b(Failing row contains |Key (?=\()|invalid input for query argument \$\d+: )"
            r'(?:[^"\\]|\\[^n])*'
        ),
        rf"\1{_HIDDEN}",
    ),
)

_LINE_CHARACTERS_MAX = 32_768
_CHATTY = ("alembic", "asyncio", "httpcore", "httpx", "sqlalchemy")  # heard from warnings on


_told = {"from": logging.WARNING}


def debugging() -> bool:
    """Tell whether lines for debugging are told; to ask is cheaper than to log one in vain."""
    return _told["from"] <= logging.DEBUG


def get_logger(name: str) -> FilteringBoundLogger:
    """Return the logger of a module; its lines carry the name as `logger`."""
    logger: FilteringBoundLogger = structlog.get_logger(name)
    return logger


def configure(level: LogLevel | str, form: LogFormat | str, stream: TextIO | None = None) -> None:
    """Log from this level on, in this form, to this stream (stdout), libraries included.

    To be called once at the start of a process; a second call replaces the first.

    Raises:
        ValueError: there is no such level or format.
    """
    number = logging.getLevelNamesMapping()[LogLevel(level)]
    _configure_structlog(number, LogFormat(form), sys.stdout if stream is None else stream)
    root = logging.getLogger()
    root.handlers = [_Forward()]
    root.setLevel(number)
    logging.captureWarnings(capture=True)
    for name in list(root.manager.loggerDict):
        library = logging.getLogger(name)
        library.handlers, library.propagate = [], True
    for name in _CHATTY:
        logging.getLogger(name).setLevel(max(number, logging.WARNING))


def redact(text: str) -> str:
    """Return the text without the secrets that can be recognised in it."""
    for pattern, replacement in _SECRETS:
        text = pattern.sub(replacement, text)
    return text


def _configure_structlog(level: int, form: LogFormat, stream: TextIO) -> None:
    _told["from"] = level
    render = _json_line if form is LogFormat.JSON else _TextLine(colors=stream.isatty())
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.format_exc_info,
            _complete,
            render,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=lambda name="": _Sink(stream, name),
        # Loggers of modules live longer than a configuration of a test.
        cache_logger_on_first_use=False,
    )


class _Sink:
    """Writes whole lines, one at a time."""

    _lock = Lock()

    def __init__(self, stream: TextIO, name: str) -> None:
        self.name = name  # of the module that logs
        self._stream = stream

    def _write(self, line: str) -> None:
        # A closed pipe is an OSError, a closed file a ValueError: nobody reads, and work goes on.
        with suppress(OSError, ValueError), self._lock:
            self._stream.write(line + "\n")
            self._stream.flush()

    debug = info = warning = error = critical = exception = msg = log = _write


def _complete(sink: WrappedLogger, level: str, fields: EventDict) -> EventDict:
    """Put what every line has first."""
    now = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    level = {"exception": "error", "warn": "warning"}.get(level, level)
    event = str(fields.pop("event", ""))
    if isinstance(ledger := fields.get("ledger"), UUID):
        fields["ledger"] = f"ldg_{ledger.hex}"
    own = {"time": now, "level": level, "event": event, "logger": sink.name}
    return {**own, **fields, **own}


def _json_line(_: WrappedLogger, __: str, fields: EventDict) -> str:
    """Return one line of JSON without secrets, whatever the fields are."""
    try:
        line = msgspec.json.encode(fields, enc_hook=str).decode()
    except (TypeError, ValueError, RecursionError):
        # Lone surrogates, huge integers, keys that are no text: escaped, so that the line arrives.
        line = msgspec.json.encode({_plain(k): _plain(v) for k, v in fields.items()}).decode()
    line = redact(line)
    if len(line) > _LINE_CHARACTERS_MAX:
        return _json_line(_, __, _shortened(fields))
    return line


def _plain(value: object) -> str:
    return str(value).encode("ascii", "backslashreplace").decode()


def _shortened(fields: EventDict) -> EventDict:
    """Return the fields, each cut to a length with which the line is within its bound."""
    kept = list(fields.items())[:30]
    return {str(name)[:40]: str(value)[:800] for name, value in kept}


class _TextLine:
    """Renders for people what the JSON line says, which has no secrets any more."""

    def __init__(self, *, colors: bool) -> None:
        # repr keeps control characters away from the terminal.
        self._render = structlog.dev.ConsoleRenderer(
            colors=colors, timestamp_key="time", repr_native_str=True, pad_event_to=24
        )

    def __call__(self, logger: WrappedLogger, level: str, fields: EventDict) -> str:
        shown = msgspec.json.decode(_json_line(logger, level, fields))
        # Both are printed below the line, as they are.
        shown.update({name: str(shown[name]) for name in ("exception", "stack") if name in shown})
        return self._render(logger, level, shown)


class _Forward(logging.Handler):
    """Hands what libraries log to the one pipe that there is."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            message = record.getMessage()
        except (TypeError, ValueError):
            message = str(record.msg)
        structlog.get_logger(record.name).log(
            min(max(record.levelno // 10 * 10, logging.DEBUG), logging.CRITICAL),
            Event.LIBRARY_MESSAGE,
            message=message,
            **({"exc_info": record.exc_info} if record.exc_info else {}),
        )


# Until `configure` is called, only warnings are told, and aside: commands print results to stdout.
_configure_structlog(logging.WARNING, LogFormat.TEXT, sys.stderr)
