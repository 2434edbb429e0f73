"""The only module that imports kopf: it hears of engines and their children, and wakes. Nothing else.

Only `on.event` handlers are used: they keep no state on objects and have no order. What they hear goes into
the cache, and the engine that it is about into the queue.
"""

import asyncio
import inspect
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from time import monotonic
from typing import Any

import kopf
from kubernetes.aio.client import Configuration

from picopay_operator import metrics, names
from picopay_operator.cache import Cache, Key
from picopay_operator.client import PAGE
from picopay_operator.conditions import Type
from picopay_operator.errors import OperatorError
from picopay_operator.queue import WorkQueue
from picopay_operator.resources import CHILDREN, OPTIONAL, RESOURCES, Ref, Resource

_LOGIN_FRESH = timedelta(minutes=30)
"""After so long kopf asks for the token again, which in a pod is replaced every hour."""
_END_S = 5.0


class Watch:
    """What kopf's watches tell: fills the cache, wakes engines, notes when anything was last heard."""

    def __init__(
        self,
        cache: Cache,
        queue: WorkQueue,
        on_engines: Callable[[], None],
        on_kinds: Callable[[], None],
    ) -> None:
        self._cache = cache
        self._queue = queue
        self._on_engines = on_engines
        self._on_kinds = on_kinds
        self.listed = asyncio.Event()
        """Set when a watch begins with what there is: nobody is told of what has gone before."""
        self.echo_s = monotonic()
        """When the operator's own Lease was last seen through the watch."""

    async def on_engine(self, event: kopf.RawEvent, **_: Any) -> None:
        """Take note of an engine, and have it looked at."""
        body: dict[str, Any] = dict(event["object"])
        key = Key(body["metadata"]["namespace"], body["metadata"]["name"])
        self._note(event)
        if event["type"] == "DELETED":
            self.gone(key)
        elif self._cache.note_engine(key, body):
            self._queue.wake_afresh(key)
        self._on_engines()

    def gone(self, key: Key) -> None:
        """Forget an engine that is there no more."""
        self._cache.forget_engine(key)
        self._queue.forget(key)
        metrics.forget_engine(key, list(Type))

    def on_child(self, resource: Resource) -> Callable[..., Any]:
        """Return a handler that takes note of a child, and has its engine looked at."""

        async def on_event(event: kopf.RawEvent, **_: Any) -> None:
            body = dict(event["object"])
            self._note(event)
            if event["type"] == "DELETED":
                key = self._cache.forget_child(resource.kind, body)
            else:
                key = self._cache.note_child(resource.kind, body)
            if key is not None and key in self._cache.engines:
                self._queue.wake(key)

        return on_event

    async def on_kind(self, event: kopf.RawEvent, **_: Any) -> None:
        """Have all engines looked at when an optional kind appears or goes, or their own has other fields."""
        kind = event["object"].get("spec", {}).get("names", {}).get("kind")
        if event["type"] and kind in OPTIONAL | {names.KIND}:
            self._on_kinds()

    async def on_lease(self, **_: Any) -> None:
        """Note that the watches move: the Lease is renewed every few seconds."""
        self.echo_s = monotonic()

    def _note(self, event: kopf.RawEvent) -> None:
        if event["type"] is None:  # of a list
            self.listed.set()


def wake_of(cache: Cache, queue: WorkQueue) -> Callable[[str, Ref], None]:
    """Return what wakes the engines that use a Secret or a ConfigMap which has changed, come or gone."""

    def wake(namespace: str, ref: Ref) -> None:
        for key in cache.in_namespace(namespace):
            if ref in cache.referred.get(key, ()):
                queue.wake(key)

    return wake


async def watch(
    told: Watch,
    configuration: Configuration,
    lease: Key,
    namespaces: Sequence[str],
    take_signals: Callable[[], None],
) -> None:
    """Watch these namespaces, all where none is named, until cancelled.

    kopf's own way to run would, in the end, wait for every task of the process that is younger than itself,
    as if it were one of its own. `take_signals` is called after it has taken the signals of the process.

    With a list of namespaces nothing is asked of the cluster as a whole: kinds that are installed later are
    found at the next look at an engine, and the Lease is not watched, unless it is in one of them.
    """
    everywhere = not namespaces
    tasks = await kopf.spawn_tasks(
        registry=_registry(told, configuration, scans=everywhere, echoes=echoes(lease, namespaces)),
        settings=_settings(lease, scans=everywhere),
        namespaces=namespaces,
        clusterwide=everywhere,
        standalone=True,
    )
    take_signals()
    try:
        ended, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        why = [error for task in ended if (error := task.exception())]
        raise OperatorError(f"the watches have ended: {why or ''}")
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks, timeout=_END_S)


def echoes(lease: Key, namespaces: Sequence[str]) -> bool:
    """Tell whether the Lease is seen through the watches."""
    return not namespaces or lease.namespace in namespaces


def _registry(
    told: Watch, configuration: Configuration, *, scans: bool, echoes: bool
) -> kopf.OperatorRegistry:
    registry = kopf.OperatorRegistry()

    @kopf.on.login(registry=registry)
    async def log_in(**_: Any) -> kopf.ConnectionInfo:
        refresh: Any = configuration.refresh_api_key_hook
        if refresh is not None:  # the token of a pod is replaced every hour
            refreshed = refresh(configuration)
            if inspect.isawaitable(refreshed):
                await refreshed
        return _connection(configuration)

    engine = RESOURCES[names.KIND]
    kopf.on.event(engine.group, engine.version, engine.plural, registry=registry)(told.on_engine)
    for resource in CHILDREN:
        # kopf takes an empty group for any; the core's is left out.
        place = [one for one in (resource.group, resource.version, resource.plural) if one]
        handler = told.on_child(resource)
        kopf.on.event(*place, id=resource.kind, registry=registry)(handler)
    if scans:
        kinds = ("apiextensions.k8s.io", "v1", "customresourcedefinitions")
        kopf.on.event(*kinds, registry=registry)(told.on_kind)
    if echoes:
        kopf.on.event("coordination.k8s.io", "v1", "leases", registry=registry)(told.on_lease)
    return registry


def _settings(lease: Key, *, scans: bool) -> kopf.OperatorSettings:
    settings = kopf.OperatorSettings()
    # To look for namespaces and kinds that come and go takes rights that a list does not give.
    settings.scanning.disabled = not scans
    settings.posting.enabled = False
    # Handlers of events keep nothing on objects; should kopf ever do so, then under our name.
    settings.persistence.finalizer = f"{names.GROUP}/kopf"
    settings.persistence.progress_storage = kopf.AnnotationsProgressStorage(prefix=names.GROUP)
    settings.persistence.diffbase_storage = kopf.AnnotationsDiffBaseStorage(prefix=names.GROUP)
    # Watches have been seen to stall for ever without any of these.
    settings.watching.server_timeout = 600
    settings.watching.client_timeout = 660
    settings.watching.connect_timeout = 30
    settings.watching.chunk_size = PAGE
    # Until then the task of an object holds on to it whole: at the start, that of every object there is.
    settings.queueing.idle_timeout = 0.1
    settings.networking.request_timeout = 60
    settings.networking.connect_timeout = 10
    for resource in CHILDREN:
        settings.watching.label_selectors[resource.plural] = names.MANAGED
    settings.watching.field_selectors["leases"] = f"metadata.name={lease.name}"
    return settings


def _connection(configuration: Configuration) -> kopf.ConnectionInfo:
    """Return what kopf needs to know of the API server: the same as our own client knows."""
    authorization = configuration.api_key.get("BearerToken", "")
    return kopf.ConnectionInfo(
        server=configuration.host,
        ca_path=configuration.ssl_ca_cert,
        insecure=not configuration.verify_ssl,
        token=authorization.removeprefix("Bearer ").removeprefix("bearer ") or None,
        certificate_path=configuration.cert_file,
        private_key_path=configuration.key_file,
        # kopf never takes back what was refused once, though it may be good again: so it is never the same.
        expiration=datetime.now(UTC) + _LOGIN_FRESH,
    )
