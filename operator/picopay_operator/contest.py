"""Tells when somebody else undoes what the operator applies, as often as it is applied.

Used by `reconcile.py`. A webhook that rewrites images does so, and so does a second controller. Each pass
would find the same to do, and each correction wake another pass: what is contested is said, and left alone
for a while.
"""

from collections import defaultdict
from collections.abc import Mapping
from time import monotonic
from typing import Any

from picopay_operator import drift, names
from picopay_operator.cache import Key
from picopay_operator.errors import ChangesUndone
from picopay_operator.manifests.context import Manifest
from picopay_operator.resources import Ref

_TIMES = 5
"""So many corrections of an object are no accident."""

_WITHIN_S = 600.0
"""How long a correction is remembered: longer than the queue leaves alone what fails."""

_FIELDS_MAX = 5


class Contests:
    """Corrections of the objects of engines."""

    def __init__(self) -> None:
        self._corrections: defaultdict[Key, dict[Ref, list[float]]] = defaultdict(dict)

    def forget(self, key: Key) -> None:
        """Forget an engine that is gone."""
        self._corrections.pop(key, None)

    def corrected(
        self, key: Key, manifest: Manifest, live: Mapping[str, Any] | None
    ) -> ChangesUndone | None:
        """Take note that a manifest is applied to a live object; return what is wrong if it is contested."""
        wanted = manifest["metadata"].get("annotations", {}).get(names.APPLIED)
        if live is None or live["metadata"].get("annotations", {}).get(names.APPLIED) != wanted:
            return None  # something else is wanted than before
        ref, now_s = Ref.of(manifest), monotonic()
        earlier = self._corrections[key].get(ref, ())
        times = [*(one for one in earlier if one > now_s - _WITHIN_S), now_s][-_TIMES:]
        self._corrections[key][ref] = times
        if len(times) < _TIMES:
            return None
        fields = ", ".join(drift.differences(manifest, live)[:_FIELDS_MAX])
        return ChangesUndone(
            f"{ref.kind} {ref.name} is changed by somebody else each time it is applied: {fields};"
            " exempt it from the webhook or controller that does so, or ask for what that makes of it"
        )
