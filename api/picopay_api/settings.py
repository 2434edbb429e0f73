"""Every setting of PicoPay: the only reader of the environment.

Each field below is a variable: its name, type, bounds, default and meaning stand here and nowhere
else; docs/reference/settings.md is made from them. How variables are read is in `environment.py`.
The command line and the tests make `Settings`, everybody else is handed one.
"""

import socket
from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Self

import msgspec
from msgspec import Meta

from picopay_api.database_url import DatabaseUrl, DatabaseUrlError, TlsMode
from picopay_api.environment import SettingsError, Variables

__all__ = ["ClientSettings", "LogFormat", "LogLevel", "Settings", "SettingsError"]

_ADDRESS = "an address such as postgresql://user:password@host:5432/picopay"

_ADDRESSES = {
    "database_url": "DATABASE_URL",
    "migration_database_url": "PICOPAY_MIGRATION_DATABASE_URL",
}


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


class Settings(Variables, frozen=True, kw_only=True):
    """The settings of the servers and of the commands that work on the database."""

    database_url: Annotated[
        DatabaseUrl,
        Meta(
            extra={"variable": "DATABASE_URL", "accepts": _ADDRESS, "secret": True},
            description="The database: a libpq URL such as"
            " `postgresql://user:password@host:5432/picopay?sslmode=verify-full&sslrootcert=/ca.pem`;"
            " `key=value` strings, SQLAlchemy's URLs and an RDS secret's JSON are understood, too."
            " Special characters in the password are percent-encoded.",
        ),
    ]
    migration_database_url: Annotated[
        DatabaseUrl | None,
        Meta(
            extra={"accepts": _ADDRESS, "secret": True},
            description="The database as the role that owns the tables reaches it, without a"
            " connection pooler in between. Used by `picopay migrate`, in place of `DATABASE_URL`.",
        ),
    ] = None
    database_tls_mode: Annotated[
        TlsMode | None,
        Meta(
            extra={"accepts": f"one of {', '.join(TlsMode)}"},
            description="How far the database's server is trusted. Takes the place of `sslmode` in both"
            " addresses.",
        ),
    ] = None
    database_tls_ca_file: Annotated[
        Annotated[str, Meta(min_length=1)] | None,
        Meta(
            extra={"accepts": "the path of a file of certificates (PEM)"},
            description="The authorities that the certificate of the database's server is verified with."
            " Takes the place of `sslrootcert` in both addresses.",
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
            ge=2, le=100, description="Sessions with the database that one process opens and keeps."
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
            description="How long a statement may wait for a lock. Payments with an account that"
            " another session holds for longer are answered 503 `database_unavailable` until it"
            " lets go; others do not wait for them.",
        ),
    ] = 1_000
    api_host: Annotated[
        str,
        Meta(extra={"variable": "API_HOST"}, min_length=1, description="The address to listen on."),
    ] = "0.0.0.0"  # noqa: S104  # a container is reached from outside
    api_port: Annotated[
        int,
        Meta(
            extra={"variable": "API_PORT"},
            ge=0,
            le=65_535,
            description="The port to listen on; 0 takes a free one.",
        ),
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
            extra={"accepts": "an http or https URL that ends in a slash"},
            pattern=r"^https?://[^\s?#]+/$",
            description="What the `type` of every error begins with; the error's code follows.",
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
    worker_metrics_port: Annotated[
        int,
        Meta(
            ge=0,
            le=65_535,
            description="The port on which `picopay worker` answers with its metrics, on any path;"
            " 0 is none. Servers have theirs at `/metrics`.",
        ),
    ] = 0
    log_level: Annotated[
        LogLevel,
        Meta(extra={"variable": "LOG_LEVEL"}, description="The least severity that is logged."),
    ] = LogLevel.INFO
    log_format: Annotated[
        LogFormat,
        Meta(description="`json`: one JSON object a line, for machines; `text`: for a terminal."),
    ] = LogFormat.JSON
    hostname: Annotated[
        str,
        Meta(
            extra={"variable": "HOSTNAME"},
            min_length=1,
            description="What this machine calls itself in logs and to the database.",
        ),
    ] = msgspec.field(default_factory=socket.gethostname)

    @classmethod
    def from_environment(cls, environ: Mapping[str, str]) -> Self:
        """Read the settings; what they say of TLS is in both addresses then.

        Raises:
            SettingsError: with every problem there is.
        """
        settings = super().from_environment(environ)
        urls = {name: _with_tls(settings, name) for name in _ADDRESSES}
        return msgspec.structs.replace(settings, **urls)

    def contradictions(self) -> list[str]:
        """Return what cannot be true together."""
        found = _tls_contradictions(self)
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


def _with_tls(settings: Settings, name: str) -> DatabaseUrl | None:
    url: DatabaseUrl | None = getattr(settings, name)
    return url and url.with_tls(settings.database_tls_mode, settings.database_tls_ca_file)


def _tls_contradictions(settings: Settings) -> list[str]:
    path = settings.database_tls_ca_file
    if path is not None and not Path(path).is_file():
        return [f"PICOPAY_DATABASE_TLS_CA_FILE: there is no file {path}"]
    found = []
    for name, variable in _ADDRESSES.items():
        try:
            _with_tls(settings, name)
        except DatabaseUrlError as error:
            found.append(
                "PICOPAY_DATABASE_TLS_MODE and PICOPAY_DATABASE_TLS_CA_FILE do not go with"
                f" {variable}: {error}"
            )
    return found


class ClientSettings(Variables, frozen=True, kw_only=True):
    """The settings of the commands that speak to a server over HTTP."""

    url: Annotated[
        str,
        Meta(
            extra={"accepts": "an http or https URL"},
            pattern=r"^https?://[^\s?#]+$",
            description="Where the server is.",
        ),
    ] = "http://127.0.0.1:8000"
    api_key: Annotated[
        Annotated[str, Meta(pattern=r"^[!-~]+$")] | None,
        Meta(
            extra={"accepts": "an API key, ppk_…", "secret": True},
            description="The API key to use: `ppk_…`. Needed by the commands that ask for one.",
        ),
    ] = None

    def __repr__(self) -> str:
        return f"ClientSettings(url={self.url!r}, api_key={'***' if self.api_key else None})"
