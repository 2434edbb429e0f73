"""What support needs of an engine: gathered from the API server, without secrets, within bounds.

Called by `commands.py`; `archive.py` writes it. What cannot be had is left out, and listed with the reason:
whoever runs this may have few rights, and a cluster that needs support does not answer everything.
"""

import asyncio
import re
from collections import deque
from collections.abc import Awaitable, Iterable, Mapping, Sequence
from importlib.metadata import version
from typing import Any

import msgspec

from picopay_operator import names
from picopay_operator.cache import Key
from picopay_operator.client import Client
from picopay_operator.errors import ApiError, NotFound, PermissionDenied
from picopay_operator.plan import secrets
from picopay_operator.plugin import overview, reading, text
from picopay_operator.plugin.changes import Refused
from picopay_operator.plugin.overview import LeftOut, Shown
from picopay_operator.plugin.redaction import Redaction, keys_of, values_of
from picopay_operator.resources import CHILDREN, RESOURCES, Resource
from picopay_operator.spec.engine import Engine

_TIME_S = 120.0
"""How long is gathered at most; what is there by then is written."""

_LOG_TIME_S = 20.0
_LOGS_AT_ONCE = 4
_LOG_BYTES_MAX = 512 << 10
"""How much of a log is kept, its newest part."""

_LOG_READ_MAX = 4 << 20
_LOG_LINES = (10_000, 1_000, 100)
"""How many lines are asked for; fewer when so many are too much to read: the server cuts off the newest."""

_BYTES_MAX = 32 << 20
_OBJECTS_MAX = 200
_EVENTS_MAX = 1_000

_HOLDERS = ("Secret", "ConfigMap")
_KINDS = (
    *(kind for kind in CHILDREN if kind.kind not in _HOLDERS),
    Resource("apps/v1", "ReplicaSet", "replicasets"),
    Resource("discovery.k8s.io/v1", "EndpointSlice", "endpointslices"),
)
_LEASE = Resource("coordination.k8s.io/v1", "Lease", "leases")
_OPERATOR = f"{names.NAME_LABEL}=picopay-operator"
"""The label that the chart gives the operator's objects."""

_OF_ENGINE = "status.txt, secrets.json, configmaps.json"
"""What is made from the engine."""

_OF_CLOUD_NATIVE_PG = ("Pod", "Service", "PersistentVolumeClaim")

type Objects = list[dict[str, Any]]


class Versions(Shown, frozen=True):
    """Of what: the plugin, the API server, the engine, and the images of the operator."""

    plugin: str
    server: str | None = None
    engine: str | None = None
    operator: tuple[str, ...] = ()


class Bundle:
    """Files by their path, each without secrets, and what was left out."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.left_out: list[LeftOut] = []
        self.versions = Versions(plugin=version("picopay"))
        self.redaction = Redaction()
        self._free = _BYTES_MAX

    def add(self, path: str, content: str) -> None:
        """Add a text; its secrets are taken out here."""
        self._put(path, self.redaction.text(content).encode())

    def add_objects(self, path: str, content: Any) -> None:
        """Add objects, likewise; nothing where there are none."""
        if not content:
            return
        encoded = msgspec.json.encode(self.redaction.tree(content))
        self._put(path, msgspec.json.format(encoded, indent=2) + b"\n")

    def leave_out(self, what: str, why: object) -> None:
        """Tell what is not there."""
        self.left_out.append(LeftOut(what, self.redaction.text(str(why))))

    def _put(self, path: str, content: bytes) -> None:
        if len(content) > self._free:
            self.leave_out(path, f"the bundle would be larger than {_BYTES_MAX >> 20} MiB")
            return
        self._free -= len(content)
        self.files[path] = content


async def gather(client: Client, key: Key, operator_namespace: str | None) -> Bundle:
    """Return what there is of an engine, and of the operator: of all of them when no namespace is named.

    Raises:
        Refused: nothing of it may be read.
        ApiError: there is no such engine, or the API server does not answer.
    """
    bundle = Bundle()
    gathering = _Gathering(client, key, bundle)
    try:
        async with asyncio.timeout(_TIME_S):
            await gathering.engine()
            await gathering.objects()
            await gathering.versions()
            await gathering.operator(operator_namespace)
            await gathering.logs()
    except TimeoutError:
        bundle.leave_out("the rest", f"it took longer than {_TIME_S:.0f} s")
    if not bundle.files:
        why = "; ".join(dict.fromkeys(one.why for one in bundle.left_out))
        raise Refused(f"nothing of {key.name} may be read: {why}")
    return bundle


class _Gathering:
    """Asks for one thing after the other, and for some logs at once."""

    def __init__(self, client: Client, key: Key, bundle: Bundle) -> None:
        self._client = client
        self._key = key
        self._bundle = bundle
        self._engine: Engine | None = None
        self._pods: Objects = []
        self._at_once = asyncio.Semaphore(_LOGS_AT_ONCE)

    async def engine(self) -> None:
        """Read the engine, and which values must not get out, before anything is added."""
        bundle, path = self._bundle, RESOURCES[names.KIND].path(*self._key)
        try:
            body = await self._client.get(path)
        except PermissionDenied as error:
            bundle.leave_out("engine.json", error)
            bundle.leave_out(_OF_ENGINE, "the engine may not be read")
            return
        try:
            self._engine = reading.understood(body)
        except Refused as refused:
            bundle.leave_out(_OF_ENGINE, refused)
        else:
            bundle.versions = msgspec.structs.replace(
                bundle.versions, engine=self._engine.status.version
            )
            await self._holders(self._engine)
        bundle.add_objects("engine.json", body)

    async def _holders(self, engine: Engine) -> None:
        """Read Secrets and ConfigMaps: keys are told, and values of Secrets struck out of everything."""
        found = await self._named("Secret", secrets.to_read(engine))
        self._bundle.redaction = Redaction([value for one in found for value in values_of(one)])
        self._bundle.add_objects("secrets.json", [keys_of(one) for one in found])
        maps = await self._named("ConfigMap", secrets.config_maps_to_read(engine))
        self._bundle.add_objects("configmaps.json", [keys_of(one) for one in maps])

    async def _named(self, kind: str, wanted: Iterable[str]) -> Objects:
        found = []
        for name in sorted(wanted):
            try:
                found.append(
                    await self._client.get(RESOURCES[kind].path(self._key.namespace, name))
                )
            except ApiError as error:
                self._bundle.leave_out(f"{kind} {name}", error)
        return found

    async def objects(self) -> None:
        """Read what belongs to the engine, and what has happened to it."""
        found = {resource.kind: await self._children(resource) for resource in _KINDS}
        for resource in _KINDS:
            self._bundle.add_objects(f"objects/{resource.plural}.json", found[resource.kind])
        if self._engine:
            observed = reading.seen(self._engine, found)
            shown = text.overview(
                overview.overview(observed), observed.now, text.Paint(enabled=False)
            )
            self._bundle.add("status.txt", f"{shown}\n")
        await self._events(found)
        self._pods = found["Pod"]

    async def logs(self) -> None:
        """Read what the engine's pods say: at the end, as it may be much."""
        await self._logs_of("logs", self._key.namespace, self._pods)

    async def _children(self, resource: Resource) -> Objects:
        place, what = resource.path(self._key.namespace), f"objects/{resource.plural}.json"
        found: dict[str, dict[str, Any]] = {}
        for selector in self._selectors(resource.kind):
            for one in await self._list(what, place, selector):
                found[one["metadata"]["name"]] = one
        return self._newest(what, found.values(), _OBJECTS_MAX)

    def _selectors(self, kind: str) -> list[str]:
        selectors = [f"{names.ENGINE_LABEL}={self._key.name}"]
        database = self._engine.spec.database.cloud_native_pg if self._engine else None
        if database and not database.cluster_ref and kind in _OF_CLOUD_NATIVE_PG:
            selectors.append(f"cnpg.io/cluster={names.postgres(self._key.name)}")
        return selectors

    async def _events(self, found: Mapping[str, Objects]) -> None:
        """Read the Events about the engine, what belongs to it, and what has belonged to it."""
        name = self._key.name
        belong = {(kind, one["metadata"]["name"]) for kind, some in found.items() for one in some}
        belong.add((names.KIND, name))
        # Pods that are gone are often what it is about: they are known by their names.
        gone = re.compile(rf"{re.escape(name)}-(api|worker|migrate|key|check|postgres)(-.+)?")
        bodies = [
            one
            for one in await self._list("events.json", RESOURCES["Event"].path(self._key.namespace))
            if (about := one.get("regarding") or {})
            and (
                (about.get("kind"), about.get("name")) in belong
                or gone.fullmatch(about.get("name", ""))
            )
        ]
        newest = self._newest("events.json", bodies, _EVENTS_MAX)
        self._bundle.add_objects("events.json", newest)

    async def versions(self) -> None:
        """Ask which release the API server is of: everybody may know that."""
        try:
            server = (await self._client.get("/version"))["gitVersion"]
        except ApiError as error:
            self._bundle.leave_out("version of the API server", error)
        else:
            self._bundle.versions = msgspec.structs.replace(self._bundle.versions, server=server)

    async def operator(self, namespace: str | None) -> None:
        """Read of the operators who holds their Leases, how they run, and what they say."""
        place = _LEASE.path(namespace or "")
        leases = await self._had("operator", self._client.find(place, names.FIELD_MANAGER))
        if not leases and not namespace:
            self._bundle.leave_out("operator", "--operator-namespace names where to look for it")
        homes = {one["metadata"]["namespace"] for one in leases} | (
            {namespace} if namespace else set()
        )
        for home in sorted(homes):
            folder = f"operator/{home}"
            of_home = [one for one in leases if one["metadata"]["namespace"] == home]
            self._bundle.add_objects(f"{folder}/leases.json", of_home)
            await self._operator_objects(folder, home, RESOURCES["Deployment"])
            pods = await self._operator_objects(folder, home, RESOURCES["Pod"])
            versions = self._bundle.versions
            images = {one["image"] for pod in pods for one in pod["spec"]["containers"]}
            self._bundle.versions = msgspec.structs.replace(
                versions, operator=tuple(sorted(images.union(versions.operator)))
            )
            await self._logs_of(f"{folder}/logs", home, pods)

    async def _operator_objects(self, folder: str, home: str, resource: Resource) -> Objects:
        what = f"{folder}/{resource.plural}.json"
        listed = await self._list(what, resource.path(home), _OPERATOR)
        found = self._newest(what, listed, _OBJECTS_MAX)
        self._bundle.add_objects(what, found)
        return found

    async def _list(self, what: str, place: str, selector: str = "") -> Objects:
        return await self._had(what, self._client.list_objects(place, selector))

    async def _had(self, what: str, asked: Awaitable[Objects]) -> Objects:
        """Return what is answered; tell where nothing is."""
        try:
            return await asked
        except NotFound:
            self._bundle.leave_out(what, "the cluster has no such kind")
        except ApiError as error:
            self._bundle.leave_out(what, error)
        return []

    def _newest(self, what: str, found: Iterable[dict[str, Any]], most: int) -> Objects:
        """Return the newest objects, in the order of their names; tell how many others there are."""
        by_age = sorted(
            found, key=lambda one: str(one["metadata"].get("creationTimestamp")), reverse=True
        )
        if len(by_age) > most:
            self._bundle.leave_out(what, f"{len(by_age) - most} older ones are not in it")
        return sorted(by_age[:most], key=lambda one: str(one["metadata"]["name"]))

    async def _logs_of(
        self, folder: str, namespace: str, pods: Sequence[Mapping[str, Any]]
    ) -> None:
        async with asyncio.TaskGroup() as group:
            for pod in pods:
                for container, restarts in _containers(pod).items():
                    place = f"{RESOURCES['Pod'].path(namespace, pod['metadata']['name'])}/log"
                    file = f"{folder}/{pod['metadata']['name']}/{container}"
                    group.create_task(self._log(f"{file}.log", place, {"container": container}))
                    if restarts:
                        before = {"container": container, "previous": "true"}
                        group.create_task(self._log(f"{file}.previous.log", place, before))

    async def _log(self, file: str, place: str, parameters: dict[str, str]) -> None:
        async with self._at_once:
            try:
                async with asyncio.timeout(_LOG_TIME_S):
                    content, whole = await self._read_log(place, parameters)
            except ApiError as error:
                self._bundle.leave_out(file, error)
            except TimeoutError:
                self._bundle.leave_out(file, f"it was not read within {_LOG_TIME_S:.0f} s")
            else:
                if not whole:
                    self._bundle.leave_out(file, "only its newest part is in it")
                self._bundle.add(file, content)

    async def _read_log(self, place: str, parameters: dict[str, str]) -> tuple[str, bool]:
        """Return the newest part of a log, and whether that is all of it."""
        kept: deque[str] = deque()
        lines = 0
        for tail in _LOG_LINES:
            kept.clear()
            lines = read = size = 0
            bounds = {"tailLines": str(tail), "limitBytes": str(_LOG_READ_MAX)}
            async for line in self._client.lines(place, parameters | bounds):
                lines, read = lines + 1, read + len(line.encode()) + 1
                kept.append(line)
                size += len(line.encode()) + 1
                while size > _LOG_BYTES_MAX:
                    size -= len(kept.popleft().encode()) + 1
            if read < _LOG_READ_MAX:
                break
            # The server has cut the last line, and of a secret in it some part might not be known again.
            if kept:
                kept.pop()
        return "".join(f"{line}\n" for line in kept), len(kept) == lines < _LOG_LINES[0]


def _containers(pod: Mapping[str, Any]) -> dict[str, int]:
    """Return the containers of a pod, and how often each was started again."""
    status = pod.get("status", {})
    restarts = {
        one["name"]: int(one.get("restartCount") or 0)
        for field in ("initContainerStatuses", "containerStatuses")
        for one in status.get(field) or ()
    }
    declared = (*pod["spec"].get("initContainers", ()), *pod["spec"]["containers"])
    return {one["name"]: restarts.get(one["name"], 0) for one in declared}
