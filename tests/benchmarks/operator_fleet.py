"""Engines for the operator's benchmark, and when they came to what: seen through watches of the API server.

Used by `operator_bench.py`. Times are those at which the events arrive here.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from enum import Enum, auto
from time import perf_counter
from typing import NamedTuple

from benchmarks.servers import BenchmarkError
from picopay_operator import crd, names
from support.controlplane.api_server import ApiServer, Manifest
from support.controlplane.engine import engine
from support.waiting import eventually

_APPLIED_AT_ONCE = 16
_PATIENCE_S = 120.0
_PATIENCE_PER_ENGINE_S = 6.0


class Engine(NamedTuple):
    """Which engine."""

    namespace: str
    name: str


class Moment(Enum):
    """What an engine comes to, in this order."""

    APPLIED = auto()
    MIGRATES = auto()
    MIGRATED = auto()
    DEPLOYED = auto()
    READY = auto()


def fleet(engines: int, namespaces: int) -> list[Engine]:
    """Return so many engines, spread over namespaces."""
    return [Engine(f"bench-{one % namespaces}", f"engine-{one}") for one in range(engines)]


async def prepare(api: ApiServer, engines: Sequence[Engine]) -> None:
    """Make the definition, and namespaces with the Secret that engines refer to."""
    definition = crd.definition()
    name = definition["metadata"]["name"]
    await api.apply(definition)

    async def is_served() -> bool:
        found = await api.get("CustomResourceDefinition", name)
        return _holds(found, "Established")

    await eventually(is_served)
    for namespace in sorted({one.namespace for one in engines}):
        metadata = {"name": namespace}
        await api.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": metadata})
        secret = {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {"name": "picopay-secrets"},
            "stringData": {"database-url": "postgresql://picopay@db/picopay"},
        }
        await api.of(namespace).apply(secret)


class Fleet:
    """What has become of engines. Make it with `watched`."""

    def __init__(self, api: ApiServer) -> None:
        self._api = api
        self._seen: dict[tuple[Engine, Moment], float] = {}
        self._scheduled: dict[str, float] = {}
        self._told = asyncio.Event()
        self._lost = ""
        self.shown_s: list[float] = []
        """How long each pod had a node until its kubelet said something of it."""

    def between(self, first: Moment, second: Moment, engines: Sequence[Engine]) -> list[float]:
        """Return the seconds from one moment to another, for each engine."""
        return [self._seen[one, second] - self._seen[one, first] for one in engines]

    def lasted_s(self, engines: Sequence[Engine]) -> float:
        """Return the seconds from the first that was applied to the last that was ready."""
        return max(self._seen[one, Moment.READY] for one in engines) - min(
            self._seen[one, Moment.APPLIED] for one in engines
        )

    async def apply(self, engines: Sequence[Engine]) -> None:
        """Apply engines, many at once, and wait until all of them are ready."""
        room = asyncio.Semaphore(_APPLIED_AT_ONCE)

        async def apply_one(which: Engine) -> None:
            async with room:
                self._note(which, Moment.APPLIED)
                await self._api.of(which.namespace).apply(engine(name=which.name))

        await asyncio.gather(*map(apply_one, engines))
        await self._ready(engines)

    async def _ready(self, engines: Sequence[Engine]) -> None:
        waiting = set(engines)
        async with patience(len(engines)):
            while waiting:
                if self._lost:
                    raise BenchmarkError(f"the watch of {self._lost} has ended")
                self._told.clear()
                await self._told.wait()
                waiting = {one for one in waiting if (one, Moment.READY) not in self._seen}

    async def follow(self, path: str, see: Callable[[Manifest], None]) -> None:
        """Hand on what changes below a path."""
        version = (await self._api.request("GET", f"{path}?limit=1"))["metadata"]["resourceVersion"]
        async for kind, item in self._api.watch(path, version):
            if kind == "ERROR":
                break
            if kind in {"ADDED", "MODIFIED"}:
                see(item)
        self._lost = path
        self._told.set()

    def see_engine(self, found: Manifest) -> None:
        """Note whether an engine is ready."""
        metadata = found["metadata"]
        if _holds(found, "Ready"):
            self._note(Engine(metadata["namespace"], metadata["name"]), Moment.READY)

    def see_job(self, found: Manifest) -> None:
        """Note a migration, and its success."""
        which = _engine_of(found)
        if which and "-migrate-" in found["metadata"]["name"]:
            self._note(which, Moment.MIGRATES)
            if _holds(found, "Complete"):
                self._note(which, Moment.MIGRATED)

    def see_deployment(self, found: Manifest) -> None:
        """Note the Deployment of an API."""
        which = _engine_of(found)
        if which and found["metadata"]["name"] == names.api(which.name):
            self._note(which, Moment.DEPLOYED)

    def see_pod(self, found: Manifest) -> None:
        """Note how long the played kubelet takes."""
        uid = found["metadata"]["uid"]
        if "podIP" in found.get("status", {}):
            began_s = self._scheduled.pop(uid, None)
            if began_s is not None:
                self.shown_s.append(perf_counter() - began_s)
        elif "nodeName" in found["spec"]:
            self._scheduled.setdefault(uid, perf_counter())

    def _note(self, which: Engine, moment: Moment) -> None:
        self._seen.setdefault((which, moment), perf_counter())
        self._told.set()


@asynccontextmanager
async def patience(engines: int) -> AsyncIterator[None]:
    """End a block that takes far too long for so many engines.

    Raises:
        BenchmarkError: it does.
    """
    try:
        async with asyncio.timeout(_PATIENCE_S + _PATIENCE_PER_ENGINE_S * engines):
            yield
    except TimeoutError as error:
        raise BenchmarkError("the engines do not come to rest") from error


@asynccontextmanager
async def watched(api: ApiServer) -> AsyncIterator[Fleet]:
    """Watch engines until the end of the block."""
    fleet = Fleet(api)
    follows: tuple[Awaitable[None], ...] = (
        fleet.follow(f"/apis/{names.API_VERSION}/{names.PLURAL}", fleet.see_engine),
        fleet.follow("/apis/batch/v1/jobs", fleet.see_job),
        fleet.follow("/apis/apps/v1/deployments", fleet.see_deployment),
        fleet.follow("/api/v1/pods", fleet.see_pod),
    )
    following = asyncio.gather(*follows)
    try:
        yield fleet
    finally:
        following.cancel()
        await asyncio.gather(following, return_exceptions=True)


def _holds(found: Manifest, kind: str) -> bool:
    """Tell whether a condition is true, for the generation that there is."""
    generation = found["metadata"].get("generation")
    return any(
        one["type"] == kind
        and one["status"] == "True"
        and one.get("observedGeneration", generation) == generation
        for one in found.get("status", {}).get("conditions") or ()
    )


def _engine_of(found: Manifest) -> Engine | None:
    metadata = found["metadata"]
    name = metadata.get("labels", {}).get(names.ENGINE_LABEL)
    return Engine(metadata["namespace"], name) if name else None
