"""The address of a PostgreSQL database, in every form that its users are used to.

Understood are libpq's URLs and `key=value` strings (psql, psycopg), SQLAlchemy's URLs with a driver
in the scheme, and the JSON of an RDS secret. All of them become libpq's parameters first and are
judged once. Made by `settings.py`, used by whoever connects; nothing is read or opened here. The
password is in `text` and in what the driver is given, never in a message or a `repr`.
"""

import re
import ssl
from collections.abc import Iterator, Mapping
from enum import StrEnum
from pathlib import Path
from typing import Any, Self
from urllib.parse import quote, unquote

import msgspec

_DEFAULT_PORT = 5432
_TLS_VERSIONS = frozenset({"TLSv1", "TLSv1.1", "TLSv1.2", "TLSv1.3"})


class TlsMode(StrEnum):
    """How far a server is trusted: libpq's `sslmode`."""

    DISABLE = "disable"
    ALLOW = "allow"
    PREFER = "prefer"
    REQUIRE = "require"
    VERIFY_CA = "verify-ca"
    VERIFY_FULL = "verify-full"


_DRIVER: Mapping[str, frozenset[str] | None] = {
    "sslmode": frozenset(TlsMode),
    "sslnegotiation": frozenset({"postgres", "direct"}),
    "sslrootcert": None,
    "sslcert": None,
    "sslkey": None,
    "sslpassword": None,
    "sslcrl": None,
    "ssl_min_protocol_version": _TLS_VERSIONS,
    "ssl_max_protocol_version": _TLS_VERSIONS,
    "target_session_attrs": frozenset(
        {"any", "read-write", "read-only", "primary", "standby", "prefer-standby"}
    ),
    "passfile": None,
    "krbsrvname": None,
    "gsslib": None,
}
"""Parameters that the driver acts upon, with the values they may have (None: any)."""

_SERVER = frozenset({"application_name", "options"})
"""Parameters that are sent to the server."""

_SUPERFLUOUS = frozenset(
    {
        "client_encoding",
        "connect_timeout",
        "fallback_application_name",
        "gssencmode",
        "keepalives",
        "keepalives_count",
        "keepalives_idle",
        "keepalives_interval",
        "tcp_user_timeout",
    }
)
"""Parameters of usual URLs that are accepted and not passed on: PicoPay bounds its waits itself."""

_FILES = ("sslrootcert", "sslcert", "sslkey", "sslcrl")
_SYSTEM = "system"  # a sslrootcert that stands for the system's certificates
_UNVERIFIED = (TlsMode.DISABLE, TlsMode.ALLOW, TlsMode.PREFER)

_URL = re.compile(
    r"(?P<scheme>[A-Za-z0-9+.-]+)://(?P<authority>[^/?#]*)(?:/(?P<database>[^?#]*))?(?:\?(?P<query>[^#]*))?"
)
_PAIR = re.compile(r"\s*(\w+)\s*=\s*('(?:[^'\\]|\\.)*'|(?:[^\s'\\]|\\.)*)(?=\s|$)", re.DOTALL)
_STRAY_PERCENT = re.compile(r"%(?![0-9A-Fa-f]{2})")

_ENCODE = (
    "special characters in a user name or password must be percent-encoded: "
    "@ is %40, : is %3A, / is %2F, ? is %3F, # is %23, % is %25, a space is %20"
)


class DatabaseUrlError(ValueError):
    """The address cannot be understood. The message never holds the password."""


class DatabaseUrl(msgspec.Struct, frozen=True, repr_omit_defaults=True):
    """Where a database is and how to reach it. Make one with `parse`."""

    database: str
    hosts: tuple[str, ...] = ()
    ports: tuple[int, ...] = ()
    user: str | None = None
    password: str | None = None
    parameters: tuple[tuple[str, str], ...] = ()

    @classmethod
    def parse(cls, text: str) -> Self:
        """Understand an address in any of the forms above.

        Raises:
            DatabaseUrlError: it cannot be understood, or says something that cannot be done.
        """
        text = text.strip()
        if not text.isprintable():
            raise DatabaseUrlError("the address holds control characters or line breaks")
        if text.startswith("{"):
            return cls._judge(_of_rds_secret(text))
        if "://" in text:
            return cls._judge(_of_url(text))
        return cls._judge(_of_pairs(text))

    @classmethod
    def _judge(cls, given: dict[str, str]) -> Self:
        parameters = {name: value for name, value in given.items() if value}
        if "ssl" in parameters:  # as SQLAlchemy's dialect for asyncpg calls it
            parameters.setdefault("sslmode", parameters.pop("ssl"))
        hosts = tuple(filter(None, parameters.pop("host", "").split(",")))
        ports = _ports(parameters.pop("port", ""), len(hosts))
        user = parameters.pop("user", None)
        password = parameters.pop("password", None)
        database = parameters.pop("dbname", None)
        if database is None:
            raise DatabaseUrlError(
                "the address names no database: it ends like …@host:5432/picopay"
            )
        return cls(database, hosts, ports, user, password, tuple(_understood(parameters)))

    def connect_arguments(self) -> dict[str, Any]:
        """Return keyword arguments for `asyncpg.connect` and `asyncpg.create_pool`.

        Raises:
            OSError, ssl.SSLError: the system's certificates are asked for and cannot be loaded.
        """
        parameters = dict(self.parameters)
        arguments: dict[str, Any] = {
            "server_settings": {
                name: parameters.pop(name) for name in _SERVER if name in parameters
            }
        }
        if parameters.get("sslrootcert") == _SYSTEM:
            arguments["ssl"] = _system_context(parameters)
            for name in [name for name in parameters if name.startswith("ssl")]:
                del parameters[name]
        return {"dsn": self._format(parameters, self.password), **arguments}

    def missing_files(self) -> list[str]:
        """Return the certificate files that the address names and that are not there."""
        named = [value for name, value in self.parameters if name in _FILES and value != _SYSTEM]
        return [name for name in named if not Path(name).is_file()]

    def replace(self, **changes: Any) -> Self:
        """Return the same address with some fields changed, such as `database`."""
        return msgspec.structs.replace(self, **changes)

    def with_tls(self, mode: TlsMode | None, ca_file: str | None) -> Self:
        """Return the same address with another `sslmode` and another authority, where they are given.

        Raises:
            DatabaseUrlError: an authority that nothing is verified with, or a mode that has none.
        """
        parameters = dict(self.parameters)
        if mode is not None:
            parameters["sslmode"] = mode.value
        if ca_file is not None:
            parameters["sslrootcert"] = ca_file
        effective = TlsMode(parameters.get("sslmode", TlsMode.PREFER))
        if effective in _UNVERIFIED:
            if ca_file is not None:
                raise DatabaseUrlError(
                    f"no certificate is verified with sslmode {effective}; verify-full does it"
                )
            if mode is not None:  # they would have it verified all the same, or refused
                for name in ("sslrootcert", "sslnegotiation"):
                    parameters.pop(name, None)
        authority = parameters.get("sslrootcert")
        if mode in {TlsMode.VERIFY_CA, TlsMode.VERIFY_FULL} and authority is None:
            raise DatabaseUrlError(f"sslmode {mode} needs the certificate of an authority")
        if mode not in {None, TlsMode.VERIFY_FULL} and authority == _SYSTEM:
            raise DatabaseUrlError(f"sslrootcert=system needs sslmode verify-full, not {mode}")
        return self.replace(parameters=tuple(parameters.items()))

    def secrets(self) -> list[str]:
        """Return the passwords in it, for those who must not show them."""
        hidden = [value for name, value in self.parameters if name == "sslpassword"]
        return [self.password, *hidden] if self.password else hidden

    @property
    def text(self) -> str:
        """The address as a libpq URL, with the password: for the environment of child processes."""
        return self._format(dict(self.parameters), self.password)

    def __str__(self) -> str:
        password = None if self.password is None else "***"
        shown = {name: "***" if name == "sslpassword" else value for name, value in self.parameters}
        return self._format(shown, password)

    def __repr__(self) -> str:
        return f"DatabaseUrl({str(self)!r})"

    def _format(self, parameters: Mapping[str, str], password: str | None) -> str:
        credentials = ""
        if self.user is not None or password is not None:
            secret = "" if password is None else f":{quote(password, safe='*')}"
            credentials = f"{quote(self.user or '', safe='')}{secret}@"
        places = ",".join(
            f"{f'[{host}]' if ':' in host else quote(host, safe='')}:{port}"
            for host, port in zip(self.hosts, self.ports, strict=True)
        )
        query = "&".join(f"{name}={quote(value, safe='/')}" for name, value in parameters.items())
        address = f"postgresql://{credentials}{places}/{quote(self.database, safe='')}"
        return f"{address}?{query}" if query else address


def _of_url(text: str) -> dict[str, str]:
    scheme, _, rest = text.partition("://")
    if scheme.partition("+")[0] not in {"postgresql", "postgres"}:
        raise DatabaseUrlError("the scheme must be postgresql:// or postgres://")
    if "#" in rest or _STRAY_PERCENT.search(rest) or " " in rest:
        raise DatabaseUrlError(f"the address holds a bare '#', '%' or space; {_ENCODE}")
    match = _URL.fullmatch(text)
    if match is None:
        raise DatabaseUrlError("the address is not of the form postgresql://user:password@host/db")
    credentials, at, places = match["authority"].rpartition("@")
    if "@" in credentials or (not at and "@" in rest) or "@" in (match["database"] or ""):
        raise DatabaseUrlError(f"the address holds '@', '/' or '?' out of place; {_ENCODE}")
    parameters = dict(_query(match["query"] or ""))
    user, _, password = credentials.partition(":")
    found = {
        "user": unquote(user),
        "password": unquote(password),
        "dbname": unquote(match["database"] or ""),
        **_places(places),
    }
    if "database" in parameters:
        parameters.setdefault("dbname", parameters.pop("database"))
    # As with libpq, what the query says counts where both say something.
    return {**found, **parameters}


def _places(text: str) -> dict[str, str]:
    """Take `host:port,[::1]:port` apart into libpq's lists of hosts and of ports."""
    hosts, ports = [], []
    for place in filter(None, text.split(",")):
        match = re.fullmatch(
            r"(?:\[(?P<six>[0-9A-Fa-f:.%]+)\]|(?P<name>[^:\[\]]*))(?::(?P<port>.*))?", place
        )
        if match is None:
            raise DatabaseUrlError(
                f"the host cannot be read; an IPv6 address is written in brackets, and {_ENCODE}"
            )
        hosts.append(unquote(match["six"] or match["name"]))
        ports.append(match["port"] or "")
    return {"host": ",".join(hosts), "port": ",".join(ports) if any(ports) else ""}


def _query(text: str) -> Iterator[tuple[str, str]]:
    for pair in filter(None, text.split("&")):
        name, equals, value = pair.partition("=")
        if not equals:
            raise DatabaseUrlError("a parameter after '?' is not of the form name=value")
        yield unquote(name), unquote(value)


def _of_pairs(text: str) -> dict[str, str]:
    found, end = {}, 0
    while end < len(text):
        match = _PAIR.match(text, end)
        if match is None:
            raise DatabaseUrlError(
                "the address is neither postgresql://user:password@host:5432/database"
                " nor host=… port=… user=… password=… dbname=…"
            )
        name, value = match.groups()
        found[name] = re.sub(r"\\(.)", r"\1", value.strip("'") if value[:1] == "'" else value)
        end = match.end()
    return found


class _RdsSecret(msgspec.Struct):
    """A secret as AWS Secrets Manager keeps it for RDS; further members are of no use here."""

    host: str
    username: str
    password: str
    port: int | str = _DEFAULT_PORT
    dbname: str = ""


def _of_rds_secret(text: str) -> dict[str, str]:
    try:
        secret = msgspec.json.decode(text, type=_RdsSecret)
    except msgspec.DecodeError as error:
        # The cause could quote the secret.
        raise DatabaseUrlError(
            "the JSON is not an RDS secret with host, port, username, password and dbname"
            + (f": {error}" if isinstance(error, msgspec.ValidationError) else "")
        ) from None
    return {
        "host": secret.host,
        "port": str(secret.port),
        "user": secret.username,
        "password": secret.password,
        "dbname": secret.dbname,
    }


def _ports(text: str, hosts: int) -> tuple[int, ...]:
    """Return a port for each host: one for all, or as many as there are hosts."""
    given = text.split(",") if text else [str(_DEFAULT_PORT)]
    if not all(port == "" or (port.isascii() and port.isdigit()) for port in given):
        raise DatabaseUrlError(
            f"the port is not a number, or an IPv6 address is not in brackets; {_ENCODE}"
        )
    ports = [int(port or _DEFAULT_PORT) for port in given]
    if not all(1 <= port <= 65_535 for port in ports):
        raise DatabaseUrlError("the port is not between 1 and 65535")
    if len(ports) == 1:
        ports *= hosts
    if len(ports) != hosts:
        raise DatabaseUrlError("there are not as many ports as hosts")
    return tuple(ports)


def _understood(parameters: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """Yield the parameters to keep, and refuse those that would be silently without effect."""
    for name, value in parameters.items():
        if name in _DRIVER:
            values = _DRIVER[name]
            if values is not None and value not in values:
                raise DatabaseUrlError(f"{name} must be one of {', '.join(sorted(values))}")
            yield name, value
        elif name in _SERVER:
            yield name, value
        elif name == "channel_binding" and value == "require":
            raise DatabaseUrlError(
                "channel_binding=require is not possible with this driver;"
                " leave it out and use sslmode=verify-full"
            )
        elif name not in _SUPERFLUOUS and name != "channel_binding":
            known = ", ".join(sorted({*_DRIVER, *_SERVER}))
            raise DatabaseUrlError(f"the parameter {name[:40]!r} is not known; known are {known}")


def _system_context(parameters: Mapping[str, str]) -> ssl.SSLContext:
    """Return what libpq means by `sslrootcert=system`: the system's authorities, names verified."""
    context = ssl.create_default_context()
    if "sslcert" in parameters:
        context.load_cert_chain(
            parameters["sslcert"], parameters.get("sslkey"), parameters.get("sslpassword")
        )
    return context
