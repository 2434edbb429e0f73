"""Tells whether an object is as it was wanted. Pure.

Called by the plan: what is as it should be is not applied again. An object differs when the operator wants
something else than what it applied last (a digest in an annotation knows), or when somebody has changed what
the operator had applied. What others have added is theirs, but for what Kubernetes replaces as a whole; lists
that it merges by a key are compared by that key.
"""

import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from decimal import Decimal
from typing import Any

import msgspec

from picopay_operator import names
from picopay_operator.manifests.context import Manifest

_MERGE_KEYS = ("name", "mountPath", "containerPort", "topologyKey", "port", "uid")
"""By which of these the elements of a list are told apart: the first that all have, each another one."""

_ATOMIC = frozenset(
    {
        *("rules", "ingress", "egress", "tls", "args", "command", "groups", "metrics"),
        *("parentRefs", "hostnames"),
    }
)
"""Lists that Kubernetes replaces as a whole, whatever their elements have."""

_SELECTORS = frozenset({"selector", "podSelector", "namespaceSelector", "matchLabels"})
"""Maps that Kubernetes replaces as a whole, too: one more label selects other pods, or none at all."""

_QUANTITIES = frozenset({"requests", "limits", "sizeLimit"})
_QUANTITY = re.compile(r"([+-]?[0-9.]+)([eE][+-]?[0-9]+|[numkKMGTPE]i?)?")
_SUFFIXES = {
    "n": Decimal("1e-9"),
    "u": Decimal("1e-6"),
    "m": Decimal("1e-3"),
    "k": Decimal(1000),
    **{letter: Decimal(1000) ** power for power, letter in enumerate("MGTPE", 2)},
    **{f"{letter}i": Decimal(1024) ** power for power, letter in enumerate("KMGTPE", 1)},
}


def marked(manifest: Manifest) -> Manifest:
    """Return a manifest with its digest in the annotation that `differences` looks for."""
    metadata = manifest["metadata"]
    annotations = {**metadata.get("annotations", {}), names.APPLIED: digest(manifest)}
    return {**manifest, "metadata": {**metadata, "annotations": annotations}}


def digest(value: Any, length: int = 16) -> str:
    """Return a short digest of something made of JSON, the same whatever the order of keys."""
    encoded = msgspec.json.encode(value, order="deterministic")
    return hashlib.sha256(encoded).hexdigest()[:length]


def differences(wanted: Manifest, live: Mapping[str, Any]) -> list[str]:
    """Return the fields of a marked manifest that a live object has otherwise, as paths."""
    return list(_differences(wanted, live, ""))


def _differences(wanted: Any, live: Any, path: str, *, whole: bool = False) -> Iterator[str]:
    """Yield the differences; `whole` is inside a list that Kubernetes replaces as a whole."""
    key = path.rpartition(".")[2]
    if isinstance(wanted, Mapping):
        if not isinstance(live, Mapping):
            if wanted or live is not None:
                yield path
            return
        for name, value in wanted.items():
            place = f"{path}.{name}" if path else name
            if key in _QUANTITIES:
                if quantity(value) != quantity(live.get(name)):
                    yield place
            else:
                yield from _differences(value, live.get(name), place, whole=whole)
        if key in _SELECTORS:
            yield from (f"{path}.{name}" for name in live if name not in wanted)
    elif isinstance(wanted, Sequence) and not isinstance(wanted, str):
        yield from _in_list(wanted, live, path, whole=whole or key in _ATOMIC)
    elif wanted != live and not (
        live is None and not wanted
    ):  # the server leaves out what is empty
        yield path


def _in_list(wanted: Sequence[Any], live: Any, path: str, *, whole: bool) -> Iterator[str]:
    if not isinstance(live, Sequence):
        if wanted or live is not None:
            yield path
        return
    merge_key = None if whole else _merge_key(wanted)
    if merge_key is None:
        if len(wanted) != len(live):
            yield path
            return
        for number, (one, other) in enumerate(zip(wanted, live, strict=True)):
            yield from _differences(one, other, f"{path}[{number}]", whole=whole)
        return
    there = {element.get(merge_key): element for element in live if isinstance(element, Mapping)}
    for element in wanted:
        name = element[merge_key]
        if name in there:
            yield from _differences(element, there[name], f"{path}[{name}]")
        else:
            yield f"{path}[{name}]"


def _merge_key(elements: Sequence[Any]) -> str | None:
    if not elements or not all(isinstance(element, Mapping) for element in elements):
        return None
    for key in _MERGE_KEYS:
        values = [one[key] for one in elements if key in one]
        if len(values) == len(set(values)) == len(elements):
            return key
    return None


def quantity(written: Any) -> Any:
    """Return the value of a quantity, which may be written in several ways; what is none, as it is."""
    if written is None or isinstance(written, Mapping):
        return written
    found = _QUANTITY.fullmatch(str(written))
    if found is None:
        return written
    digits, suffix = found.groups()
    if suffix and suffix not in _SUFFIXES:
        return Decimal(digits + suffix)  # an exponent
    return Decimal(digits) * _SUFFIXES.get(suffix or "", Decimal(1))
