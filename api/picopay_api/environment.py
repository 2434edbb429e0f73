"""How a frozen struct is read from the environment: bounds, files, and all problems at once.

`settings.py` says which variables there are; this module reads them, from a mapping that it is
handed, and describes them for people. A variable NAME can be given as a file whose path is in
NAME_FILE, as Docker and Swarm hand out secrets. Values of secrets are never part of a message.
"""

import re
from collections.abc import Collection, Mapping
from difflib import get_close_matches
from enum import StrEnum
from pathlib import Path
from typing import Any, Self, get_args

import msgspec
from msgspec import Meta
from msgspec.structs import FieldInfo

from picopay_api.database_url import DatabaseUrl, DatabaseUrlError

_PREFIX = "PICOPAY_"
_FILE = "_FILE"
_FILE_BYTES_MAX = 65_536
_UNITS = {"ms": "milliseconds", "s": "seconds", "days": "days", "bytes": "bytes"}

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


class Variables(msgspec.Struct, frozen=True, kw_only=True):
    """A struct whose fields are variables of the environment.

    Each field is `Annotated` with a `msgspec.Meta`: its description, its bounds, and as `extra` its
    name where that is not PICOPAY_ and the field's (`variable`), what it takes where its type does
    not say (`accepts`), and whether it is a `secret`.
    """

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
                text = _text(variable(field), environ)
                if text is not None:
                    values[field.name] = _value(field, text)
                elif field.required:
                    problems.append(f"{variable(field)} is required: {accepted(field)}")
            except ValueError as error:
                problems.append(f"{variable(field)}: {error}")
        if not problems:
            settings = cls(**values)
            problems = settings.contradictions()
            if not problems:
                return settings
        raise SettingsError(problems)

    def contradictions(self) -> list[str]:
        """Return what cannot be true together."""
        return []


def variable(field: FieldInfo) -> str:
    """Return the name that a setting has in the environment."""
    return str(_extra(field).get("variable", f"{_PREFIX}{field.name.upper()}"))


def is_given(name: str, environ: Mapping[str, str]) -> bool:
    """Tell whether a variable is set, by itself or by the file that NAME_FILE names."""
    return bool(environ.get(name) or environ.get(name + _FILE))


def with_defaults(environ: Mapping[str, str], defaults: Mapping[str, str]) -> dict[str, str]:
    """Return an environment in which these variables are set, unless they were already."""
    missing = {name: text for name, text in defaults.items() if not is_given(name, environ)}
    return {**environ, **missing}


def replaced(environ: Mapping[str, str], values: Mapping[str, str]) -> dict[str, str]:
    """Return an environment with these variables, whatever it said about them before."""
    names = {name for value in values for name in (value, value + _FILE)}
    return {**{name: text for name, text in environ.items() if name not in names}, **values}


def unit(field: FieldInfo) -> str:
    """Return the unit that the name of a setting says, if any."""
    parts = field.name.split("_")
    return next((word for part, word in _UNITS.items() if part in parts), "")


def meta(field: FieldInfo) -> Meta:
    """Return what a field's annotation says about it."""
    return next(item for item in get_args(field.type)[1:] if isinstance(item, Meta))


def accepted(field: FieldInfo) -> str:
    """Say which values a setting takes, for people."""
    kind, limits = get_args(field.type)[0], meta(field)
    if kind is bool:
        return "true or false"
    if kind is int:
        return f"a whole number from {limits.ge} to {limits.le}"
    if isinstance(kind, type) and issubclass(kind, StrEnum):
        return "one of " + ", ".join(kind)
    return str(_extra(field).get("accepts", "text"))


def _extra(field: FieldInfo) -> dict[str, Any]:
    return meta(field).extra or {}


def _value(field: FieldInfo, text: str) -> Any:
    """Return what a text means for a field.

    Raises:
        ValueError: nothing.
    """
    kind = get_args(field.type)[0]
    if DatabaseUrl in {kind, *get_args(kind)}:
        url = DatabaseUrl.parse(text)
        if missing := url.missing_files():
            raise DatabaseUrlError(f"there is no file {', '.join(missing)}")
        return url
    try:
        return msgspec.convert(text.strip(), field.type, strict=False)
    except msgspec.ValidationError:
        shown = "what is given" if _extra(field).get("secret") else repr(text[:60])
        raise ValueError(f"{shown} is not {accepted(field)}") from None


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
    known = {
        variable(field) + suffix
        for struct in Variables.__subclasses__()
        for field in msgspec.structs.fields(struct)
        for suffix in ("", _FILE)
    }
    strangers = sorted(name for name in environ if name.startswith(_PREFIX) and name not in known)
    return [f"{name} is not a setting{_suggestion(name, known)}" for name in strangers]


def _suggestion(name: str, known: Collection[str]) -> str:
    # The prefix is common to all and would make everything alike.
    bare = {one.removeprefix(_PREFIX): one for one in sorted(known)}
    near = get_close_matches(name.removeprefix(_PREFIX), bare, 1)
    return f"; did you mean {bare[near[0]]}?" if near else ""


def _without_service_links(environ: Mapping[str, str]) -> dict[str, str]:
    """Leave out what Kubernetes and Docker set by themselves for a service of our name."""
    return {
        name: value
        for name, value in environ.items()
        if not _SERVICE_LINK.fullmatch(name)
        and not (name.endswith("_PORT") and _SERVICE_LINK_PORT.fullmatch(value))
    }
