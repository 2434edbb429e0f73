"""Plays the kubelet: pods that the scheduler has put on made-up nodes get the status that a test asks for.

Used through the fixture `player`. Nothing runs, unless there is an executor (`kubelet.py`). What it stands
for, and no more: the nodes themselves, the status of pods, the end of pods that are deleted, and volumes for
claims. All else is Kubernetes' own doing.
"""

import asyncio
import itertools
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from datetime import UTC, datetime
from typing import NamedTuple, Protocol

import httpx

from support.controlplane.api_server import ApiServer, Manifest, RefusedError
from support.controlplane.plays import Circumstances, Exits, Play, Runs, statuses

_NODES = 3
_PODS = "/api/v1/pods"
_CLAIMS = "/api/v1/persistentvolumeclaims"
_ROOM = {"cpu": "1000", "memory": "1Ti", "ephemeral-storage": "1Ti", "pods": "10000"}
_STORAGE_CLASS = {
    "apiVersion": "storage.k8s.io/v1",
    "kind": "StorageClass",
    "metadata": {
        "name": "standard",
        "annotations": {"storageclass.kubernetes.io/is-default-class": "true"},
    },
    "provisioner": "tests.picopay.io/player",
    "allowVolumeExpansion": True,
}
_GONE = {httpx.codes.NOT_FOUND, httpx.codes.CONFLICT}
_TERMINATED_EXIT_CODE = 143  # of a program that SIGTERM has ended


class _Rule(NamedTuple):
    play: Play
    argument: str
    engine: str
    image: str

    def concerns(self, pod: Manifest) -> bool:
        container = pod["spec"]["containers"][0]
        engine = pod["metadata"].get("labels", {}).get("picopay.io/engine", "")
        return (
            (not self.argument or self.argument in container.get("args", []))
            and self.engine in {"", engine}
            and self.image in container["image"]
        )


type Show = Callable[[Play], Awaitable[None]]


class Executor(Protocol):
    """Who really runs some of the pods."""

    def concerns(self, pod: Manifest) -> bool:
        """Tell whether it runs a pod."""
        ...

    async def run(self, pod: Manifest, ending: "asyncio.Future[int]", show: Show) -> Exits:
        """Run a pod and show what becomes of it, until it has ended; return how.

        A pod that stays ends after `ending` is there: the seconds that it has for that.
        """
        ...


class Player:
    """Pods of Jobs end with success, and all others run, unless a test says something else."""

    def __init__(self, api_server: ApiServer, executor: Executor | None = None) -> None:
        self._api_server = api_server
        self._executor = executor
        self._endings: dict[str, asyncio.Future[int]] = {}
        self._rules: list[_Rule] = []
        self._pods: dict[str, Manifest] = {}
        self._played: dict[str, Play] = {}
        self._addresses: dict[str, str] = {}
        self._numbers = itertools.count(1)
        self._waiting: asyncio.Queue[str] = asyncio.Queue()

    def plays(self, play: Play, *, argument: str = "", engine: str = "", image: str = "") -> None:
        """Say what becomes of pods from now on, those that there are included; the last word counts.

        `argument` is one of their first container's, such as "migrate"; `image` is a part of its image.
        """
        self._rules.insert(0, _Rule(play, argument, engine, image))
        for uid in self._pods:
            self._waiting.put_nowait(uid)

    async def run(self) -> None:
        """Play until this is cancelled; `prepare` comes first."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._follow(_PODS, self._see_pod))
            tasks.create_task(self._follow(_CLAIMS, self._see_claim))
            tasks.create_task(self._play_on(tasks))

    async def prepare(self) -> None:
        """Make the nodes, and a class for volumes."""
        await self._api_server.apply(_STORAGE_CLASS)
        for number in range(1, _NODES + 1):
            name = f"node-{number}"
            zone = {"topology.kubernetes.io/zone": f"zone-{number}", "kubernetes.io/hostname": name}
            metadata = {"name": name, "labels": {**zone, "kubernetes.io/os": "linux"}}
            node = {"apiVersion": "v1", "kind": "Node", "metadata": metadata}
            await self._api_server.apply(node)
            ready = {"type": "Ready", "status": "True", "reason": "KubeletReady", "message": ""}
            status = {"capacity": _ROOM, "allocatable": _ROOM, "conditions": [ready]}
            await self._api_server.apply({**node, "status": status}, subresource="/status")

    async def _follow(self, path: str, see: Callable[[str, Manifest], Awaitable[None]]) -> None:
        """Hand on all objects below a path, and whatever happens to them."""
        while True:
            listed = await self._api_server.request("GET", path)
            for item in listed["items"]:
                await see("ADDED", item)
            version = listed["metadata"]["resourceVersion"]
            async for kind, item in self._api_server.watch(path, version):
                if (
                    kind == "ERROR"
                ):  # what has happened since was forgotten: look at all of them again
                    break
                if kind != "BOOKMARK":
                    await see(kind, item)

    async def _see_pod(self, kind: str, pod: Manifest) -> None:
        uid = pod["metadata"]["uid"]
        if kind == "DELETED":
            self._end_executed(uid, 0)
            for known in (self._pods, self._played, self._addresses, self._endings):
                known.pop(uid, None)
        else:
            self._pods[uid] = pod
            self._waiting.put_nowait(uid)

    async def _play_on(self, tasks: asyncio.TaskGroup) -> None:
        while True:
            pod = self._pods.get(await self._waiting.get())
            if pod is None or "nodeName" not in pod["spec"]:
                continue
            uid, is_leaving = pod["metadata"]["uid"], "deletionTimestamp" in pod["metadata"]
            if uid in self._endings:
                if is_leaving:
                    self._end_executed(uid, pod["metadata"]["deletionGracePeriodSeconds"])
            elif self._executor and not is_leaving and self._executor.concerns(pod):
                self._endings[uid] = asyncio.get_running_loop().create_future()
                tasks.create_task(self._execute(pod, self._executor))
            else:
                with _may_be_gone():
                    await (self._end(pod) if is_leaving else self._play(pod))

    async def _execute(self, pod: Manifest, executor: Executor) -> None:
        ending = self._endings[pod["metadata"]["uid"]]
        with _may_be_gone():
            last = await executor.run(pod, ending, lambda play: self._write(pod, play))
            await self._write(pod, last)
            await ending
            await self._remove(pod)

    def _end_executed(self, uid: str, grace_s: int) -> None:
        ending = self._endings.get(uid)
        if ending is not None and not ending.done():
            ending.set_result(grace_s)

    async def _play(self, pod: Manifest) -> None:
        uid = pod["metadata"]["uid"]
        play = self._play_for(pod)
        if _has_ended(pod) or self._played.get(uid) == play:
            return
        self._played[uid] = play
        await self._write(pod, play)

    def _play_for(self, pod: Manifest) -> Play:
        found = (rule.play for rule in self._rules if rule.concerns(pod))
        return next(found, Runs() if pod["spec"]["restartPolicy"] == "Always" else Exits())

    async def _end(self, pod: Manifest) -> None:
        """End a pod that somebody has deleted: its containers stop, then it is gone."""
        if not _has_ended(pod):
            stays = pod["spec"]["restartPolicy"] == "Always"
            await self._write(pod, Exits(0 if stays else _TERMINATED_EXIT_CODE))
        await self._remove(pod)

    async def _remove(self, pod: Manifest) -> None:
        metadata = pod["metadata"]
        await self._api_server.delete(
            "Pod",
            metadata["name"],
            metadata["namespace"],
            gracePeriodSeconds=0,
            preconditions={"uid": metadata["uid"]},
        )

    async def _write(self, pod: Manifest, play: Play) -> None:
        metadata = pod["metadata"]
        where = Circumstances(self._address_of(metadata["uid"]), _now())
        for status in statuses(pod, play, where):
            await self._api_server.merge(
                "Pod",
                metadata["name"],
                # The name of another pod may be this one's: a StatefulSet's, for example.
                {"metadata": {"uid": metadata["uid"]}, "status": status},
                metadata["namespace"],
                subresource="/status",
            )

    def _address_of(self, uid: str) -> str:
        if uid not in self._addresses:
            number = next(self._numbers)
            self._addresses[uid] = f"10.244.{number // 250 % 250}.{number % 250 + 1}"
        return self._addresses[uid]

    async def _see_claim(self, kind: str, claim: Manifest) -> None:
        """Give a claim the volume that it asks for; Kubernetes binds the two."""
        if kind == "DELETED" or claim["spec"].get("storageClassName") != "standard":
            return
        metadata = claim["metadata"]
        await self._api_server.apply(
            {
                "apiVersion": "v1",
                "kind": "PersistentVolume",
                "metadata": {"name": f"volume-{metadata['uid']}"},
                "spec": {
                    "capacity": {"storage": claim["spec"]["resources"]["requests"]["storage"]},
                    "accessModes": claim["spec"]["accessModes"],
                    "storageClassName": "standard",
                    "persistentVolumeReclaimPolicy": "Retain",
                    "hostPath": {"path": "/nowhere"},
                    "claimRef": {
                        "kind": "PersistentVolumeClaim",
                        "namespace": metadata["namespace"],
                        "name": metadata["name"],
                        "uid": metadata["uid"],
                    },
                },
            }
        )


@asynccontextmanager
async def playing(api_server: ApiServer, executor: Executor | None = None) -> AsyncIterator[Player]:
    """Play the kubelet until the end of the block, where what went wrong with it is raised."""
    player = Player(api_server, executor)
    await player.prepare()
    task = asyncio.create_task(player.run())
    try:
        yield player
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


@contextmanager
def _may_be_gone() -> Iterator[None]:
    """Pass over that a pod is not there any more, or that another one has its name."""
    try:
        yield
    except RefusedError as error:
        if error.status not in _GONE:
            raise


def _has_ended(pod: Manifest) -> bool:
    return pod.get("status", {}).get("phase") in {"Succeeded", "Failed"}


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
