"""Bodies: strict JSON becomes the struct that an operation asked for, or a refusal with its place.

Pure functions of bytes, used by `operations.py`. Stricter than JSON readers are by themselves: a key
twice in one object, a number that is no integer, text that PostgreSQL cannot keep, and fields nobody
knows are refused, because money must not depend on which of two values a reader picked.
"""

import json
import re
from typing import Any

import msgspec

from picopay_api.errors import FieldFault, InvalidRequest, MalformedBody

DEPTH_MAX = 16
"""How deep arrays and objects may nest; the API's own need four."""

_NESTED = (dict, list)
_BLANKS_BEFORE_COLON = (b" :", b"\t:", b"\n:", b"\r:")
_PLACE = re.compile(r" - at (?:`key` in )?`\$(?P<path>[^`]*)`$")
_STEP = re.compile(r"\.(?P<name>[^.\[\]]+)|\[(?P<index>\d+|\.\.\.)\]")
_FIELD = re.compile(r"(?:unknown|required) field `(?P<name>.*)`$", re.DOTALL)


def decode[T](body: bytes, shape: type[T]) -> T:
    """Decode a body.

    Raises:
        MalformedBody: it is not one JSON document, or has a key twice, or nests too deep.
        InvalidRequest: it does not fit the type; `faults` has the JSON pointer.
    """
    tree = _parse(body)
    try:
        return msgspec.convert(tree, shape, strict=True)
    except msgspec.ValidationError as error:
        fault = _fault(str(error))
        raise InvalidRequest(f"{fault.pointer or 'the body'}: {fault.detail}", fault) from None


def _parse(body: bytes) -> Any:
    try:
        tree = msgspec.json.decode(body)
        if type(tree) is dict and _is_flat(body, len(tree)):
            return tree
        if not isinstance(tree, _NESTED):
            return tree
        keys = _count_keys(tree) if _is_plain(body) else _inspect(tree, "", 0)
    except msgspec.DecodeError as error:
        raise MalformedBody(str(error) if body.strip() else "the body is empty") from None
    except UnicodeDecodeError:
        raise MalformedBody("the body is not UTF-8") from None
    except RecursionError:
        raise MalformedBody("the body nests too deep") from None
    if not _are_single(keys, body):
        json.loads(body, object_pairs_hook=_without_doubles)
    return tree


def _is_flat(body: bytes, keys: int) -> bool:
    """Tell that an object of so many keys holds nothing to refuse, as most bodies that move money."""
    # As many colons as keys: none came twice, and no object within has any. No escape: no NUL.
    return body.count(b":") == keys and b"\\" not in body and b"[" not in body


def _is_plain(body: bytes) -> bool:
    """Tell that there is neither depth nor text to refuse, as in nearly every body, without a walk."""
    return b"\\u0000" not in body and body.count(b"{") + body.count(b"[") <= DEPTH_MAX


def _count_keys(value: Any) -> int:
    keys = 0
    if isinstance(value, dict):
        keys = len(value)
        value = value.values()
    for item in value:
        if isinstance(item, _NESTED):
            keys += _count_keys(item)
    return keys


def _are_single(keys: int, body: bytes) -> bool:
    """Tell that no key came twice; where that is not plain to see, the text must be read once more."""
    # As many colons as keys prove it. If texts hold colons, so does one `":` for each key, as compact
    # writers leave it, unless a blank before another colon hides one.
    return body.count(b":") == keys or (
        body.count(b'":') == keys and not any(blank in body for blank in _BLANKS_BEFORE_COLON)
    )


def _inspect(value: Any, pointer: str, depth: int) -> int:
    """Count the keys of all objects; refuse depth and text that cannot be kept."""
    if depth > DEPTH_MAX:
        raise MalformedBody(f"the body nests deeper than {DEPTH_MAX}")
    if isinstance(value, str):
        if "\x00" in value:
            raise InvalidRequest(
                "text must not contain NUL", FieldFault(pointer, "must not contain NUL (U+0000)")
            )
        return 0
    if isinstance(value, dict):
        keys = len(value)
        for key, item in value.items():
            place = f"{pointer}/{escape(key)}"
            _inspect(key, place, depth)
            if isinstance(item, str | list | dict):
                keys += _inspect(item, place, depth + 1)
        return keys
    if isinstance(value, list):
        return sum(_inspect(item, f"{pointer}/{n}", depth + 1) for n, item in enumerate(value))
    return 0


def _without_doubles(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise MalformedBody(f"the key {key!r} is there twice in one object")
        found[key] = value
    return found


def escape(key: str) -> str:
    """Write a key as a step of a JSON Pointer (RFC 6901)."""
    return key.replace("~", "~0").replace("/", "~1")


def _fault(message: str) -> FieldFault:
    """Turn msgspec's message into the place and what is wrong there."""
    place = _PLACE.search(message)
    pointer = ""
    if place is not None:
        message = message[: place.start()]
        for step in _STEP.finditer(place["path"]):
            if step["name"] is not None:
                pointer += "/" + escape(step["name"])
            elif step["index"] != "...":  # msgspec does not tell which key of a mapping
                pointer += "/" + step["index"]
    field = _FIELD.search(message)
    if field is not None:
        pointer += "/" + escape(field["name"])
        missing = "required" in field[0]
        return FieldFault(pointer, "is required" if missing else "is not a field of this object")
    return FieldFault(pointer, _readable(message))


def _readable(message: str) -> str:
    return "e" + message[1:].replace("`", "") if message.startswith("Expected") else message
