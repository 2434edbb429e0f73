"""Looks at an engine for the plugin: the engine, and what belongs to it, as the operator's plan sees them.

Called by `commands.py` and `bundle.py`. No Secret is read.
"""

import asyncio
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any

import msgspec

from picopay_operator import names
from picopay_operator.cache import Key
from picopay_operator.client import Client
from picopay_operator.plan.outcome import Observed, Release
from picopay_operator.plugin.changes import Refused
from picopay_operator.resources import RESOURCES, Ref
from picopay_operator.spec.engine import Engine

_KINDS = ("Deployment", "StatefulSet", "Job", "Pod", "Service")
_UNKNOWN_RELEASE = Release(version="", image="", postgres_image="")
"""With which release the operator was made cannot be seen from here; nothing that is shown depends on it."""


async def observed(client: Client, key: Key) -> Observed:
    """Return an engine and what belongs to it.

    Raises:
        Refused: this release of the plugin does not understand it.
        ApiError: the API server refuses, or does not answer.
    """
    engine = understood(await client.get(RESOURCES[names.KIND].path(*key)))
    selector = f"{names.ENGINE_LABEL}={key.name}"
    lists = await asyncio.gather(
        *(client.list_objects(RESOURCES[kind].path(key.namespace), selector) for kind in _KINDS)
    )
    return seen(engine, dict(zip(_KINDS, lists, strict=True)))


def understood(body: Mapping[str, Any]) -> Engine:
    """Return an engine, of what the API server has.

    Raises:
        Refused: this release of the plugin does not understand it.
    """
    try:
        return msgspec.convert(body, Engine)
    except msgspec.ValidationError as error:
        name = body["metadata"]["name"]
        raise Refused(f"{name} is not understood: {error}; see `kubectl describe`") from error


def seen(engine: Engine, found: Mapping[str, Iterable[dict[str, Any]]]) -> Observed:
    """Return an engine with what belongs to it, by kind."""
    return Observed(
        engine=engine,
        children={
            Ref(kind, one["metadata"]["name"]): one for kind, some in found.items() for one in some
        },
        secrets={},
        apis=frozenset(),
        release=_UNKNOWN_RELEASE,
        now=datetime.now(UTC),
    )


async def pods(client: Client, key: Key, component: str) -> list[str]:
    """Return the names of the pods of a component, the oldest first."""
    selector = f"{names.ENGINE_LABEL}={key.name},{names.COMPONENT_LABEL}={component}"
    found = await client.list_objects(RESOURCES["Pod"].path(key.namespace), selector)
    found.sort(key=lambda one: str(one["metadata"].get("creationTimestamp", "")))
    return [one["metadata"]["name"] for one in found]
