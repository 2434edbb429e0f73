"""Takes secrets out of what leaves a cluster: objects, messages, logs. Pure.

Called by `bundle.py`, through which everything passes that is written. There are two nets: the values of
Secrets, where they may be read, are struck out wherever they stand; and what looks like a secret goes, by the
name in front of it or by its shape. The second one takes too much rather than too little.
"""

import base64
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any
from urllib.parse import quote, unquote

REMOVED = "[removed]"

_VALUE_MIN = 6
"""Shorter values stand in many places by chance."""

_OPEN_KEYS = {
    "username",
    "user",
    "host",
    "hostname",
    "port",
    "dbname",
    "database",
    "ca.crt",
    "tls.crt",
}
"""Keys of Secrets whose values may be known to all."""

_SECRET_PARTS = (
    "passw",
    "passphrase",
    "pgpass",
    "secret",
    "token",
    "credential",
    "apikey",
    "cookie",
)
_SECRET_WORDS = {"pass", "pwd", "auth", "authorization", "dsn", "jwt", "bearer", "signature"}
_OPEN_KINDS_OF_KEY = {"idempotency", "public", "topology", "partition", "label", "map", "sort"}
_OF_SECRETS = {
    *("name", "names", "ref", "refs", "file", "path", "folder", "namespace", "class", "version"),
    *("type", "hash", "count", "seconds", "ms", "s"),
}
"""What a name ends with that tells about a secret, and is none."""

_WORDS = re.compile(r"[A-Z]?[a-z0-9]+|[A-Z0-9]+(?![a-z])")

# Whatever may be long has a bound or a beginning of its own: a log may be one line without a blank.
_NAME = r"[\w.-]*(?:passw|passphrase|pgpass|secret|token|credential|api[_-]?key|pwd)[\w.-]*"
_ASSIGNED = re.compile(
    rf"(?<![\w.-])(?P<name>{_NAME})(?P<between>\\*[\"']?[ \t]*[=:][ \t]*)"
    r"(?P<value>\\*\"(?:[^\"\\]|\\.)*\"?|'[^']*'?|[^\s\"']+)",
    re.IGNORECASE,
)
_FLAG = re.compile(rf"--?(?P<name>{_NAME})", re.IGNORECASE)
_FLAG_IN_TEXT = re.compile(
    rf"(?<![\w.-])(?P<flag>--(?P<name>{_NAME})[ \t]+)[^\s-]\S*", re.IGNORECASE
)
_HEADER = re.compile(
    r"((?:cookie|authorization)\\*[\"']?[ \t]*[:=][ \t]*\\*[\"']?)[^\r\n\"'\\]+", re.IGNORECASE
)
# Up to the last @: a password that is not encoded may have one.
_PASSWORD_IN_URL = re.compile(
    r"((?<![a-z])[a-z][a-z0-9+.-]{0,30}://[^\s/:@\"<>]{0,256}):[^\s\"<>]{0,1024}@", re.IGNORECASE
)
_USER_OF_WEB = re.compile(r"(https?://)[^\s/:@\"'<>]{1,1024}@", re.IGNORECASE)
_IN_URL = re.compile(r"://[^\s/:@]*:(\S*)@")
_IN_WORDS = re.compile(r"password\\*[\"']?\s*[=:]\s*\\*[\"']?([^\s\"',\\]+)", re.IGNORECASE)
"""How an address of a database holds its password: see address.py."""

_SHAPES = tuple(
    re.compile(shape)
    for shape in (
        r"ppk_\w+",
        r"(?i:(?<=bearer )|(?<=basic ))[\w.~+/=-]{8,}",
        r"(?<![\w-])eyJ[\w-]{10,}\.[\w-]*\.?[\w-]*",  # a JSON Web Token
        r"\b(?:AKIA|ASIA)[A-Z0-9]{16}\b",
        r"\b(?:gh[pousr]_|github_pat_|glpat-|xox[abeprs]-|sk_live_|rk_live_|whsec_)[\w-]{10,}",
        r"-----BEGIN [A-Z ]*PRIVATE KEY-----(?s:.*?)(?:-----END [A-Z ]*PRIVATE KEY-----|\Z)",
        # Its beginning is cut off.
        r"(?m:(?:^[\w+/]{40,76}\r?\n){0,100}^[\w+/=]{1,76}\r?\n)-----END [A-Z ]*PRIVATE KEY-----",
    )
)

_OPEN_DOMAIN = "picopay.io/"
"""The operator's own annotations and labels hold no secret."""

_DROPPED = {"managedFields", "kubectl.kubernetes.io/last-applied-configuration"}
"""What was applied, once more, and by whom."""


class Redaction:
    """Knows the values of some Secrets, and takes out what it knows and what looks like one."""

    def __init__(self, known: Sequence[str] = ()) -> None:
        forms = {one for value in known for one in _forms(value) if len(one) >= _VALUE_MIN}
        # The longest first: one may be a part of another.
        found = sorted(forms, key=lambda one: (-len(one), one))
        self._known = re.compile("|".join(map(re.escape, found))) if found else None

    def text(self, text: str) -> str:
        """Take secrets out of a text; JSON in it, as a whole or as a line, stays JSON."""
        return self._rest("\n".join(self._line(line) for line in text.split("\n")))

    def tree(self, tree: Any) -> Any:
        """Take secrets out of an object as the API server gives it."""
        try:
            return self._tree(tree)
        except RecursionError:
            return REMOVED

    def _tree(self, tree: Any) -> Any:
        if isinstance(tree, Mapping):
            return {self._rest(str(key)): one for key, one in self._fields(tree)}
        if isinstance(tree, Sequence) and not isinstance(tree, str):
            return list(self._items(tree))
        return self.text(tree) if isinstance(tree, str) else tree

    def _fields(self, tree: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
        named = tree.get("name")
        is_secret = tree.get("kind") == "Secret"
        for key, one in tree.items():
            if key in _DROPPED:
                continue
            if is_secret and key in {"data", "stringData"}:
                yield key, _emptied(one)
            elif _is_value(one) and (
                looks_secret(key)
                or (key == "value" and isinstance(named, str) and looks_secret(named))
            ):
                yield key, REMOVED
            else:
                yield key, self._tree(one)

    def _items(self, items: Sequence[Any]) -> Iterator[Any]:
        hidden = False
        for one in items:
            yield REMOVED if hidden else self._tree(one)
            flag = _FLAG.fullmatch(one) if isinstance(one, str) else None
            hidden = flag is not None and looks_secret(flag["name"])

    def _line(self, line: str) -> str:
        stripped = line.strip()
        if not stripped.startswith(("{", "[")):
            return line
        try:
            tree = json.loads(stripped)
            cleaned = self.tree(tree)
        except (ValueError, RecursionError):
            return line
        return line if cleaned == tree else json.dumps(cleaned, ensure_ascii=False)

    def _rest(self, text: str) -> str:
        if self._known:
            text = self._known.sub(REMOVED, text)
        text = _HEADER.sub(rf"\1{REMOVED}", text)
        for shape in _SHAPES:
            text = shape.sub(REMOVED, text)
        text = _PASSWORD_IN_URL.sub(rf"\1:{REMOVED}@", text)
        text = _USER_OF_WEB.sub(rf"\1{REMOVED}@", text)
        text = _FLAG_IN_TEXT.sub(
            lambda found: found["flag"] + REMOVED if looks_secret(found["name"]) else found[0], text
        )
        return _ASSIGNED.sub(_unassigned, text)


def looks_secret(name: str) -> bool:
    """Tell whether a field, a variable or an annotation of this name holds a secret."""
    if name.startswith(_OPEN_DOMAIN):
        return False
    words = [word.lower() for word in _WORDS.findall(name)]
    if not words or words[-1] in _OF_SECRETS:
        return False
    if any(part in word for word in words for part in _SECRET_PARTS):
        return True
    if not _SECRET_WORDS.isdisjoint(words):
        return True
    return len(words) > 1 and words[-1] in {"key", "keys"} and words[-2] not in _OPEN_KINDS_OF_KEY


def values_of(secret: Mapping[str, Any]) -> list[str]:
    """Return what is to be struck out of everything, of a Secret as the API server has it.

    Of an address that is its password: where something was to be reached helps.
    """
    found: list[str] = []
    for key, encoded in (secret.get("data") or {}).items():
        value = base64.b64decode(encoded).decode(errors="replace").strip()
        if passwords := [*_IN_URL.findall(value), *_IN_WORDS.findall(value)]:
            found += passwords
        elif key.lower() not in _OPEN_KEYS:
            found.append(value)
    return [value for value in found if len(value) >= _VALUE_MIN]


def keys_of(holder: Mapping[str, Any]) -> dict[str, Any]:
    """Return of a Secret, or a ConfigMap, what may be told: everything but what it holds."""
    metadata = holder["metadata"]
    kept = {"name", "namespace", "uid", "labels", "creationTimestamp", "ownerReferences"}
    told = {key: one for key, one in metadata.items() if key in kept}
    told["annotations"] = sorted(metadata.get("annotations") or ())
    data = {**(holder.get("data") or {}), **(holder.get("binaryData") or {})}
    return {"metadata": told, "type": holder.get("type"), "keys": sorted(data)}


def _unassigned(found: re.Match[str]) -> str:
    value = found["value"]
    if not looks_secret(found["name"]) or REMOVED in value:
        return found[0]
    mark = re.match(r"\\*[\"']", value)
    quote_mark = mark[0] if mark else ""
    return f"{found['name']}{found['between']}{quote_mark}{REMOVED}{quote_mark}"


def _forms(value: str) -> set[str]:
    """Return how a value may be written."""
    plain = {value, unquote(value)}
    encoded = {base64.b64encode(one.encode()).decode() for one in plain}
    escaped = {json.dumps(one)[1:-1] for one in plain}
    return plain | encoded | escaped | {quote(one, safe="") for one in plain}


def _is_value(one: Any) -> bool:
    """Tell whether something may be a secret itself, and is no structure around one."""
    if isinstance(one, list):
        return bool(one) and all(map(_is_value, one))
    return isinstance(one, str | int | float) and not isinstance(one, bool)


def _emptied(data: Any) -> Any:
    return dict.fromkeys(data, REMOVED) if isinstance(data, Mapping) else REMOVED
