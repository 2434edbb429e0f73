"""Every setting of PicoPay, read once at start: the only reader of the environment.

Each field below is a variable: its name, type, bounds, default and meaning stand here and nowhere
else; docs/reference/settings.md is made from them. The command line and the tests make `Settings`,
everybody else is handed one. All problems are told at once, and a misspelt name is one.
"""

import re
import socket
from collections.abc import Mapping
from difflib import get_close_matches
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Self, get_args, get_type_hints

import msgspec
from msgspec import Meta
from msgspec.structs import FieldInfo

from picopay_api.database_url import DatabaseUrl, DatabaseUrlError

_PREFIX = "PICOPAY_"
_WITHOUT_PREFIX = frozenset({"database_url", "api_host", "api_port", "log_level", "hostname"})
_FILE = "_FILE"
_FILE_BYTES_MAX = 65_536

_SERVICE_LINK = re.compile(
    r"\w+_(SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)"
)
_SERVICE_LINK_PORT = re.compile(r"(tcp|udp|sctp)://.+")


class SettingsError(Exception):
    """Settings are missing, unknown or wrong: a sentence in `problems` for each, never a secret."""

    def __init__(self, problems: list[str]) -> None:
        lines = "\n".join(f"  - {problem}" for problem in problems)
        super().__init__(f"{len(problems)} problem(s) with the settings:\n{lines}")
        self.problems = problems


class LogLevel(StrEnum):
    """The least severity that is logged."""

    DEBUG = "DEBUG"
    INFO = "INFO"
    WARNING = "WARNING"
    ERROR = "ERROR"

    @classmethod
    def _missing_(cls, value: object) -> "LogLevel | None":
        return cls.__members__.get(str(value).upper())


class LogFormat(StrEnum):
    """The form of log lines."""

    JSON = "json"
    TEXT = "text"


class _Environment(msgspec.Struct, frozen=True, kw_only=True):
    """A struct whose fields are variables of the environment."""

    @classmethod
    def from_environment(cls, environ: Mapping[str, str]) -> Self:
        """Read the settings; a variable that is set to nothing counts as not set.

        Raises:
            SettingsError: with every problem there is.
        """
        environ = _without_service_links(environ)
        problems = _unknown(environ)
        values: dict[str, Any] = {}
        for field in msgspec.structs.fields(cls):
            try:
                text = _text(variable(field.name), environ)
                if text is not None:
                    values[field.name] = _value(field, text)
                elif field.required:
                    problems.append(f"{variable(field.name)} is required")
            except ValueError as error:
                problems.append(f"{variable(field.name)}: {error}")
        if not problems:
            settings = cls(**values)
            problems = settings.contradictions()
            if not problems:
                return settings
        raise SettingsError(problems)

    def contradictions(self) -> list[str]:
        """Return what cannot be true together."""
        return []


class Settings(_Environment, frozen=True, kw_only=True):
    """The settings of the servers and of the commands that work on the database."""

    database_url: Annotated[
        DatabaseUrl,
        Meta(
            description="The database: a libpq URL such as"
            " `postgresql://user:password@host:5432/picopay?sslmode=verify-full&sslrootcert=/ca.pem`;"
            " `key=value` strings, SQLAlchemy's URLs and an RDS secret's JSON are understood, too."
            " Special characters in the password are percent-encoded."
        ),
    ]
    migration_database_url: Annotated[
        DatabaseUrl | None,
        Meta(
            description="The database as the role that owns the tables reaches it, without a"
            " connection pooler in between. Used by `picopay migrate`, in place of `DATABASE_URL`."
        ),
    ] = None
    migrate_on_start: Annotated[
        bool,
        Meta(
            description="Whether `picopay serve` migrates the database before it serves. For a"
            " single machine; where several processes start at once, run `picopay migrate` first."
        ),
    ] = False
    pool_size: Annotated[
        int,
        Meta(
            ge=2, le=100, description="Sessions with the database that one process opens at most."
        ),
    ] = 8
    statement_timeout_ms: Annotated[
        int,
        Meta(
            ge=100,
            # Idempotency over midnight (store/decide.sql) relies on no transaction living a minute.
            le=50_000,
            description="How long the database may work on one statement before it is cancelled.",
        ),
    ] = 10_000
    lock_timeout_ms: Annotated[
        int,
        Meta(
            ge=10,
            le=50_000,
            description="How long a statement may wait for a lock. A payment that gives up here is"
            " tried again within its deadline.",
        ),
    ] = 5_000
    api_host: Annotated[str, Meta(min_length=1, description="The address to listen on.")] = (
        "0.0.0.0"  # noqa: S104  # a container is reached from outside
    )
    api_port: Annotated[
        int, Meta(ge=0, le=65_535, description="The port to listen on; 0 takes a free one.")
    ] = 8000
    workers: Annotated[
        int,
        Meta(
            ge=1,
            le=64,
            description="Server processes. One for each CPU is enough; each has a pool of its own.",
        ),
    ] = 1
    request_timeout_ms: Annotated[
        int,
        Meta(
            ge=100,
            le=60_000,
            description="How long a payment may wait for its outcome before it is answered 503"
            " `deadline_exceeded`.",
        ),
    ] = 10_000
    shutdown_grace_ms: Annotated[
        int,
        Meta(
            ge=0,
            le=600_000,
            description="How long a process that is told to stop may finish what it has accepted."
            " Set the platform's own limit some seconds higher.",
        ),
    ] = 25_000
    body_bytes_max: Annotated[
        int,
        Meta(
            ge=1_024,
            le=64 * 1024**2,
            description="The largest body of a request; larger ones are answered 413.",
        ),
    ] = 1024**2
    rate_limit_requests: Annotated[
        int,
        Meta(
            ge=1,
            le=1_000_000_000,
            description="Requests that one API key may make within a window; beyond them the answer"
            " is 429. Counted by each process for itself.",
        ),
    ] = 1_000_000
    rate_limit_window_s: Annotated[
        int, Meta(ge=1, le=86_400, description="The length of that window.")
    ] = 60
    docs_enabled: Annotated[
        bool, Meta(description="Whether `/docs` and `/openapi.json` are served.")
    ] = True
    error_type_base_url: Annotated[
        str,
        Meta(
            pattern=r"^https?://[^\s?#]+/$",
            description="What the `type` of every error begins with; the error's code follows. An"
            " http or https URL that ends in a slash.",
        ),
    ] = "https://picopay.io/errors/"
    commit_connections: Annotated[
        int,
        Meta(
            ge=1,
            le=32,
            description="Batches of payments that one process commits at the same time. More than"
            " two helps only where a commit takes long, as on a distant disk.",
        ),
    ] = 2
    batch_commands_max: Annotated[
        int,
        Meta(ge=1, le=10_000, description="Payments and transactions in one commit, at most."),
    ] = 512
    queue_commands_max: Annotated[
        int,
        Meta(
            ge=1,
            le=1_000_000,
            description="Payments and transactions that may wait in one process; beyond them the"
            " answer is 503 `overloaded`.",
        ),
    ] = 10_000
    queue_bytes_max: Annotated[
        int,
        Meta(ge=65_536, le=4 * 1024**3, description="The memory that those may take."),
    ] = 64 * 1024**2
    idempotency_retention_days: Annotated[
        int,
        Meta(
            ge=1,
            le=90,
            description="How long an `Idempotency-Key` is remembered. A `reference` is for ever.",
        ),
    ] = 3
    audit_interval_s: Annotated[
        int,
        Meta(
            ge=1,
            le=86_400,
            description="How long the worker's auditor rests once it has caught up with a ledger.",
        ),
    ] = 10
    log_level: Annotated[LogLevel, Meta(description="The least severity that is logged.")] = (
        LogLevel.INFO
    )
    log_format: Annotated[
        LogFormat,
        Meta(description="`json`: one JSON object a line, for machines; `text`: for a terminal."),
    ] = LogFormat.JSON
    hostname: Annotated[
        str,
        Meta(
            min_length=1, description="What this machine calls itself in logs and to the database."
        ),
    ] = msgspec.field(default_factory=socket.gethostname)

    def contradictions(self) -> list[str]:
        """Return what cannot be true together."""
        found = []
        if self.commit_connections >= self.pool_size:
            found.append(
                "PICOPAY_COMMIT_CONNECTIONS must be smaller than PICOPAY_POOL_SIZE: reading needs"
                " sessions, too"
            )
        if self.lock_timeout_ms > self.statement_timeout_ms:
            found.append(
                "PICOPAY_LOCK_TIMEOUT_MS must not be larger than PICOPAY_STATEMENT_TIMEOUT_MS,"
                " which would always be first"
            )
        if self.batch_commands_max > self.queue_commands_max:
            found.append(
                "PICOPAY_BATCH_COMMANDS_MAX must not be larger than PICOPAY_QUEUE_COMMANDS_MAX"
            )
        return found


class ClientSettings(_Environment, frozen=True, kw_only=True):
    """The settings of the commands that speak to a server over HTTP."""

    url: Annotated[
        str,
        Meta(pattern=r"^https?://[^\s?#]+$", description="Where the server is."),
    ] = "http://127.0.0.1:8000"
    api_key: Annotated[
        str | None,
        Meta(pattern=r"^[!-~]+$", description="The API key to use: `ppk_…`. A secret."),
    ] = None

    def __repr__(self) -> str:
        return f"ClientSettings(url={self.url!r}, api_key={'***' if self.api_key else None})"


def variable(field: str) -> str:
    """Return the name that a setting has in the environment."""
    return field.upper() if field in _WITHOUT_PREFIX else f"{_PREFIX}{field.upper()}"


def meta(field: FieldInfo) -> Meta:
    """Return what a field's annotation says about it."""
    return next(item for item in get_args(field.type)[1:] if isinstance(item, Meta))


def accepted(field: FieldInfo) -> str:
    """Say which values a setting takes, for people."""
    kind, limits = get_args(field.type)[0], meta(field)
    if kind is bool:
        return "`true` or `false`"
    if kind is int:
        return f"a whole number from {limits.ge} to {limits.le}"
    if isinstance(kind, type) and issubclass(kind, StrEnum):
        return "one of " + ", ".join(f"`{member}`" for member in kind)
    if DatabaseUrl in (kind, *get_args(kind)):
        return "the address of a database"
    if limits.pattern is not None and limits.pattern.startswith("^http"):
        return "a URL that ends in a slash" if limits.pattern.endswith("/$") else "a URL"
    return "text"


def _value(field: FieldInfo, text: str) -> Any:
    """Return what a text means for a field.

    Raises:
        ValueError: nothing.
    """
    kind = get_args(field.type)[0]
    if DatabaseUrl in (kind, *get_args(kind)):
        url = DatabaseUrl.parse(text)
        if missing := url.missing_files():
            raise DatabaseUrlError(f"there is no file {', '.join(missing)}")
        return url
    try:
        return msgspec.convert(text.strip(), field.type, strict=False)
    except msgspec.ValidationError:
        shown = "what is given" if field.name == "api_key" else repr(text[:60])
        raise ValueError(f"{shown} is not {accepted(field).replace('`', '')}") from None


def _text(name: str, environ: Mapping[str, str]) -> str | None:
    """Return a variable's text, from itself or from the file that NAME_FILE names."""
    text, path = environ.get(name), environ.get(name + _FILE)
    if text and path:
        raise ValueError(f"{name} and {name}{_FILE} are both set; only one may be")
    if not path:
        return text or None
    try:
        with Path(path).open("rb") as file:
            content = file.read(_FILE_BYTES_MAX + 1)
        if len(content) > _FILE_BYTES_MAX:
            raise ValueError(f"the file {path} is larger than {_FILE_BYTES_MAX} bytes")
        text = content.decode("utf-8").rstrip("\r\n")
    except OSError as error:
        raise ValueError(f"the file {path} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise ValueError(f"the file {path} is not UTF-8 text") from None
    if not text:
        raise ValueError(f"the file {path} is empty")
    return text


def _unknown(environ: Mapping[str, str]) -> list[str]:
    """Say which names look like settings and are none."""
    known = [
        variable(field) + suffix
        for struct in (Settings, ClientSettings)
        for field in get_type_hints(struct)
        for suffix in ("", _FILE)
    ]
    strangers = sorted(name for name in environ if name.startswith(_PREFIX) and name not in known)
    # PICOPAY_API_PORT is nearer to API_PORT than any other measure would tell.
    bare = {name: name.removeprefix(_PREFIX) for name in strangers}
    nearest = {
        name: next(
            iter([bare[name]] if bare[name] in known else get_close_matches(name, known, 1)), None
        )
        for name in strangers
    }
    return [
        f"{name} is not a setting" + (f"; did you mean {near}?" if near else "")
        for name, near in nearest.items()
    ]


def _without_service_links(environ: Mapping[str, str]) -> dict[str, str]:
    """Leave out what Kubernetes and Docker set by themselves for a service of our name."""
    return {
        name: value
        for name, value in environ.items()
        if not _SERVICE_LINK.fullmatch(name)
        and not (name.endswith("_PORT") and _SERVICE_LINK_PORT.fullmatch(value))
    }
