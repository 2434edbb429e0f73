"""Hears of Secrets and ConfigMaps that engines refer to, namespace by namespace, without what is in them.

Run beside kopf, whose watches are of the whole cluster, and of what the operator has made itself: nobody lets
an operator read all Secrets of a cluster, and this one may read them only where there are engines. Of each
object, only the metadata is asked for.
"""

import asyncio
import random
from collections.abc import Callable

from picopay_operator import logs
from picopay_operator.client import Client
from picopay_operator.errors import ApiError
from picopay_operator.logs import Event
from picopay_operator.resources import RESOURCES, Ref

_PAUSE_S = 1.0
_log = logs.get_logger(__name__)


class ReferredWatch:
    """Watches the objects of a kind in some namespaces; `wake` is told of one that has changed."""

    def __init__(self, kind: str, client: Client, wake: Callable[[str, Ref], None]) -> None:
        self.kind = kind
        self._client = client
        self._wake = wake
        self._tasks: dict[str, asyncio.Task[None]] = {}

    def follow(self, namespaces: set[str]) -> None:
        """Watch these namespaces from now on, and no others."""
        for namespace in set(self._tasks) - namespaces:
            self._tasks.pop(namespace).cancel()
        for namespace in namespaces - set(self._tasks):
            self._tasks[namespace] = asyncio.create_task(self._watch(namespace))

    async def close(self) -> None:
        """Watch nothing any more."""
        tasks = list(self._tasks.values())
        self.follow(set())
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _watch(self, namespace: str) -> None:
        seen: dict[str, str] = {}
        while True:
            try:
                await self._follow(namespace, seen)
            except ApiError as error:
                # Without the right to it yet, or the API server is away: engines are looked at all the same.
                _log.debug(
                    Event.REFERRED_WATCH_FAILED, kind=self.kind, namespace=namespace, error=error
                )
            except Exception as error:  # noqa: BLE001  # whatever it is, the watch must go on
                _log.warning(
                    Event.REFERRED_WATCH_FAILED, kind=self.kind, namespace=namespace, error=error
                )
            await asyncio.sleep(_PAUSE_S * random.uniform(0.75, 1.25))  # noqa: S311  # not for secrets

    async def _follow(self, namespace: str, seen: dict[str, str]) -> None:
        path = RESOURCES[self.kind].path(namespace)
        listed = await self._client.list_metadata(path)
        there = {
            one["metadata"]["name"]: one["metadata"]["resourceVersion"]
            for one in listed["items"] or ()
        }
        for name in {name for name, version in there.items() if seen.get(name) != version} | (
            set(seen) - set(there)
        ):
            self._wake(namespace, Ref(self.kind, name))
        seen.clear()
        seen.update(there)
        version = listed["metadata"]["resourceVersion"]
        async for event in self._client.watch_metadata(path, version):
            if event["type"] == "ERROR":  # too old a version: begin anew
                return
            metadata = event["object"]["metadata"]
            if event["type"] == "DELETED":
                seen.pop(metadata["name"], None)
            else:
                seen[metadata["name"]] = metadata["resourceVersion"]
            self._wake(namespace, Ref(self.kind, metadata["name"]))
