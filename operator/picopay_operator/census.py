"""Finds out what is there before any engine is looked at, and later what is there no more.

Run beside the watches, which do not say when they have told of everything, so that something might be taken
for missing that is there. And a watch that begins anew, because what it wants to go on with is forgotten,
does not tell of what has gone meanwhile. So the cache is held against lists, of metadata only: after each
such beginning, and now and then in any case.
"""

import asyncio
from collections.abc import Callable, Sequence

from picopay_operator import logs, names
from picopay_operator.cache import Cache, Key
from picopay_operator.client import Client
from picopay_operator.errors import ApiError, NotFound, PermissionDenied
from picopay_operator.logs import Event
from picopay_operator.resources import CHILDREN, RESOURCES, Resource

_QUIET_S = 1.0
"""How long after a watch has begun anew: the others mostly do so at the same time."""

_PAUSE_S = 5.0
_PRIME_PAUSE_S = 0.5
_PRIME_MAX_S = 15.0
_log = logs.get_logger(__name__)


class Census:
    """Takes a census every `every_s` seconds, and when it is `due`; of all namespaces when none is named.

    `gone` is told of engines that are no more, `wake` of those of which a part has gone.
    """

    def __init__(
        self,
        client: Client,
        cache: Cache,
        namespaces: Sequence[str],
        every_s: float,
        gone: Callable[[Key], None],
        wake: Callable[[Key], None],
        due: asyncio.Event,
    ) -> None:
        self._client = client
        self._cache = cache
        self._namespaces = namespaces or ("",)
        self._every_s = every_s
        self._gone = gone
        self._wake = wake
        self._due = due

    async def prime(self) -> None:
        """Fill the cache with what there is; go on without after a while, rather than never to begin."""
        try:
            async with asyncio.timeout(_PRIME_MAX_S):
                for namespace in self._namespaces:
                    for resource in CHILDREN:
                        await self._fill(resource, namespace)
        except TimeoutError:
            _log.warning(Event.CENSUS_FAILED, error="not all could be listed")

    async def _fill(self, resource: Resource, namespace: str) -> None:
        kind = {"apiVersion": resource.api_version, "kind": resource.kind}  # lists leave it out
        while True:
            try:
                async for page in self._client.pages(resource.path(namespace), names.MANAGED):
                    for body in page:
                        self._cache.note_child(resource.kind, kind | body)
            except ApiError as error:
                if resource.optional and isinstance(error, NotFound):
                    return
                _log.warning(Event.CENSUS_FAILED, kind=resource.kind, error=error)
                if isinstance(error, PermissionDenied):
                    return  # to ask again would only use up the time of the other kinds
                await asyncio.sleep(_PRIME_PAUSE_S)
            else:
                return

    async def run(self) -> None:
        """Take one census after the other, until cancelled."""
        while True:
            try:
                async with asyncio.timeout(self._every_s):
                    await self._due.wait()
            except TimeoutError:
                pass
            await asyncio.sleep(_QUIET_S)
            self._due.clear()
            try:
                await self.take()
            except ApiError as error:
                _log.warning(Event.CENSUS_FAILED, error=error)
                await asyncio.sleep(_PAUSE_S)
                self._due.set()

    async def take(self) -> None:
        """Forget what is not there, and have the engines looked at to which it belonged."""
        for namespace in self._namespaces:
            for key in await self._missing(RESOURCES[names.KIND], namespace):
                self._gone(key)
            for resource in CHILDREN:
                for key in await self._missing(resource, namespace):
                    self._wake(key)

    async def _missing(self, resource: Resource, namespace: str) -> set[Key]:
        selector = "" if resource.kind == names.KIND else names.MANAGED
        try:
            listed = await self._client.list_metadata(resource.path(namespace), selector)
        except NotFound:
            if not resource.optional:
                raise
            return set()  # watches end with their kind
        there = {
            (one["metadata"]["namespace"], one["metadata"]["name"]) for one in listed["items"] or ()
        }
        version = listed["metadata"]["resourceVersion"]
        return self._cache.without(resource.kind, namespace, there, version)
