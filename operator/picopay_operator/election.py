"""Which of several operators works: the holder of a Lease. The others stand by.

The library's election takes and renews the Lease; here it is given its Lease and its times, and is held to
them when the API server does not answer. Who loses ends, and is started again to stand by: nothing of a
former leader goes on. Who stops in good order lets the Lease go, once its work has stopped.
"""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from time import monotonic
from typing import Any

import aiohttp
from kubernetes.aio.client import ApiClient, V1Lease, V1ObjectMeta
from kubernetes.aio.client.exceptions import ApiException
from kubernetes.aio.leaderelection.electionconfig import Config
from kubernetes.aio.leaderelection.leaderelection import LeaderElection
from kubernetes.aio.leaderelection.leaderelectionrecord import LeaderElectionRecord
from kubernetes.aio.leaderelection.resourcelock.leaselock import LeaseLock

from picopay_operator.cache import Key

LEASE_S = 10
_RENEW_DEADLINE_S = 8
_RETRY_S = 2
"""A standby takes over at most LEASE_S + _RETRY_S after the last sign of life of the leader."""

_REQUEST_TIMEOUT_S = 3.0


class Lock(LeaseLock):
    """The Lease, which also knows when the API server last answered about it, and until when it is ours.

    Requests have a short time-out, and one that is not answered has failed like one that is refused: the
    library knows refusals only.
    """

    def __init__(self, lease: Key, identity: str, api: ApiClient) -> None:
        super().__init__(lease.name, lease.namespace, identity, api)
        self.answered_s = monotonic()
        self.renewed_s = 0.0
        """When the last request was made that has renewed the Lease."""

    async def get(self, name: str, namespace: str) -> Any:
        """Read the Lease."""
        try:
            async with asyncio.timeout(_REQUEST_TIMEOUT_S):
                answer = await super().get(name, namespace)
        except (aiohttp.ClientError, TimeoutError) as error:
            return False, ApiException(status=0, reason=type(error).__name__)
        self.answered_s = monotonic()
        return answer

    async def create(
        self, name: str, namespace: str, election_record: LeaderElectionRecord
    ) -> bool:
        """Create the Lease, as ours."""
        return await self._take(self._create(name, namespace, election_record))

    async def _create(self, name: str, namespace: str, record: LeaderElectionRecord) -> bool:
        # The library's own asks for an answer that is `pretty` in a way that its client refuses (37.0.2).
        body = V1Lease(metadata=V1ObjectMeta(name=name), spec=self.update_lease(record))
        try:
            await self.api_instance.create_namespaced_lease(namespace, body)
        except ApiException:
            return False
        return True

    async def update(self, name: str, namespace: str, updated_record: LeaderElectionRecord) -> bool:
        """Take the Lease, or renew it."""
        return await self._take(super().update(name, namespace, updated_record))

    async def _take(self, request: Awaitable[bool]) -> bool:
        asked_s = monotonic()
        try:
            async with asyncio.timeout(_REQUEST_TIMEOUT_S):
                taken = await request
        except (aiohttp.ClientError, TimeoutError):
            return False
        if taken:
            self.renewed_s = asked_s
        return taken

    async def lost(self) -> None:
        """Return when the Lease was not renewed in time."""
        while (left_s := self.renewed_s + _RENEW_DEADLINE_S - monotonic()) > 0:  # noqa: ASYNC110  # it moves on
            await asyncio.sleep(left_s)

    async def release(self) -> None:
        """Let the Lease go, if it is still ours, so that nobody has to wait until it ends."""
        if monotonic() > self.renewed_s + _RENEW_DEADLINE_S:
            return
        held, record = await self.get(self.name, self.namespace)
        lease = self.lease_reference
        spec = lease.spec if lease else None
        if not held or lease is None or spec is None or record.holder_identity != self.identity:
            return
        # The version that was read goes with it: if another one has taken it since, this is refused.
        spec.holder_identity = None
        spec.renew_time = datetime.now(UTC)
        try:
            async with asyncio.timeout(_REQUEST_TIMEOUT_S):
                await self.api_instance.replace_namespaced_lease(self.name, self.namespace, lease)
        except (ApiException, aiohttp.ClientError, TimeoutError):
            return  # it ends by itself


async def lead(lock: Lock, work: Callable[[], Awaitable[None]]) -> None:
    """Wait to become the leader, then work until the Lease is lost or the work ends."""
    won = asyncio.Event()

    async def begin() -> None:
        won.set()

    async def end() -> None:
        return

    election = LeaderElection(Config(lock, LEASE_S, _RENEW_DEADLINE_S, _RETRY_S, begin, end))
    renewing = asyncio.ensure_future(election.run())
    tasks: list[asyncio.Future[Any]] = [renewing, asyncio.ensure_future(won.wait())]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        if won.is_set():
            working = asyncio.ensure_future(work())
            tasks += [working, asyncio.ensure_future(lock.lost())]
            await asyncio.wait([renewing, *tasks[2:]], return_when=asyncio.FIRST_COMPLETED)
            if working.done():
                working.result()
        if renewing.done():
            renewing.result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if won.is_set():
            await lock.release()
