"""Which of several operators works: the holder of a Lease. The others stand by.

The library's election renews the Lease; here it is given its Lease, its times, and what to do on winning and
losing. Who loses ends, and is started again to stand by: nothing of a former leader goes on.
"""

import asyncio
from collections.abc import Awaitable, Callable
from time import monotonic
from typing import Any

from kubernetes.aio.client import ApiClient
from kubernetes.aio.leaderelection.electionconfig import Config
from kubernetes.aio.leaderelection.leaderelection import LeaderElection
from kubernetes.aio.leaderelection.resourcelock.leaselock import LeaseLock

from picopay_operator.cache import Key

LEASE_S = 10
_RENEW_DEADLINE_S = 7
_RETRY_S = 2
"""A standby takes over at most LEASE_S + _RETRY_S after the last sign of life of the leader."""


class Lock(LeaseLock):
    """The Lease, which also knows when the API server last answered about it."""

    def __init__(self, lease: Key, identity: str, api: ApiClient) -> None:
        super().__init__(lease.name, lease.namespace, identity, api)
        self.answered_s = monotonic()

    async def get(self, name: str, namespace: str) -> Any:
        """Read the Lease."""
        answer = await super().get(name, namespace)
        self.answered_s = monotonic()
        return answer


async def lead(lock: Lock, work: Callable[[], Awaitable[None]]) -> None:
    """Wait to become the leader, then work until the Lease is lost or the work ends."""
    ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def begin() -> None:
        try:
            await work()
        except BaseException as error:
            if not ended.done():
                ended.set_exception(
                    error if isinstance(error, Exception) else RuntimeError("cancelled")
                )
            raise
        if not ended.done():
            ended.set_result(None)

    async def end() -> None:
        return

    election = LeaderElection(Config(lock, LEASE_S, _RENEW_DEADLINE_S, _RETRY_S, begin, end))
    running = asyncio.ensure_future(election.run())
    try:
        await asyncio.wait({running, ended}, return_when=asyncio.FIRST_COMPLETED)
        if ended.done():
            ended.result()
        elif running.done():
            running.result()
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        if ended.done() and not ended.cancelled():
            ended.exception()  # it is told above, or the Lease was lost before
