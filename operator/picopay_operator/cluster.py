"""Carries plans out: applies, deletes, makes Secrets up, writes the status, posts Events.

Used by `reconcile.py`. Nothing is taken over that was there before and is not the engine's; values of Secrets
that are read leave this module as digests only.
"""

import asyncio
import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from picopay_operator import address, drift, logs, names, secret_values
from picopay_operator.cache import REPLICAS_OURS, Cache, Key, owner
from picopay_operator.client import Client
from picopay_operator.conditions import Notice
from picopay_operator.errors import (
    AdoptionRefused,
    ApiError,
    Conflict,
    DefinitionOutdated,
    FieldUnknown,
    NotFound,
    OperatorError,
    PermissionDenied,
    SeenLate,
    Terminating,
    Unprocessable,
)
from picopay_operator.logs import Event
from picopay_operator.manifests.context import Manifest
from picopay_operator.plan.outcome import Generated, SecretSeen
from picopay_operator.resources import OPTIONAL, RESOURCES, Ref
from picopay_operator.spec.engine import Engine, ObjectMeta
from picopay_operator.spec.status import EngineStatus

_NOTE_CHARACTERS_MAX = 1_024  # of an Event
_KIND_PAUSE_S = 1.0
_log = logs.get_logger(__name__)


class Cluster:
    """The API server, as the operator uses it. `account` is the operator's own, in its namespace.

    Where `binds` is true, the operator gives itself the right to Secrets in namespaces that have engines, and
    in no other; else somebody has given it.
    """

    def __init__(self, client: Client, cache: Cache, account: Key, *, binds: bool) -> None:
        self._client = client
        self._cache = cache
        self._account = account
        self._binds = binds
        self._own: dict[tuple[str, str], dict[str, Any]] = {}
        """Secrets that `secret` has read, until `make_up` wants them: both are a part of the same pass."""

    async def until_served(self) -> None:
        """Wait until there is the kind of engines: watches that begin before may never find it."""
        while True:
            try:
                if names.PLURAL in await self._served(names.API_VERSION):
                    return
                error = None
            except ApiError as refusal:
                error = refusal
            _log.info(Event.WAITING, kind=names.KIND, error=error)
            await asyncio.sleep(_KIND_PAUSE_S)

    async def optional_kinds(self) -> frozenset[str]:
        """Return those of the optional kinds that the API server has."""
        versions = sorted({RESOURCES[kind].api_version for kind in OPTIONAL})
        served = dict(
            zip(versions, await asyncio.gather(*map(self._served, versions)), strict=True)
        )
        return frozenset(
            kind
            for kind in OPTIONAL
            if RESOURCES[kind].plural in served[RESOURCES[kind].api_version]
        )

    async def _served(self, api_version: str) -> frozenset[str]:
        """Return the kinds that a version of an API has, by their plural; none where it is not there."""
        try:
            served = await self._client.get(f"/apis/{api_version}")
        except NotFound:
            return frozenset()
        return frozenset(one["name"] for one in served["resources"])

    async def secret(self, key: Key, name: str) -> SecretSeen | None:
        """Read a Secret, as digests; None when it is not there, or is lost with its namespace."""
        self._own.pop((key.namespace, name), None)
        try:
            body = await self._secret(key.namespace, name)
        except (NotFound, Terminating):
            return None
        metadata = body["metadata"]
        owners = {reference["name"] for reference in metadata.get("ownerReferences", ())}
        labels = metadata.get("labels", {})
        ours = labels.get(names.MANAGED_BY_LABEL) == names.FIELD_MANAGER and owner(body) == key
        if ours:
            self._own[key.namespace, name] = body
        return SecretSeen(
            digests={
                one: hashlib.sha256(value.encode()).hexdigest()
                for one, value in (body.get("data") or {}).items()
            },
            ports={
                one: address.ports(secret_values.decoded(value))
                for one, value in (body.get("data") or {}).items()
            },
            annotations=metadata.get("annotations", {}),
            ours=ours,
            owned=key.name in owners,
        )

    async def config_map(self, key: Key, name: str) -> dict[str, str] | None:
        """Read a ConfigMap, as digests; None when it is not there."""
        try:
            body = await self._client.get(RESOURCES["ConfigMap"].path(key.namespace, name))
        except NotFound:
            return None
        data = body.get("data") or {}
        return {one: hashlib.sha256(value.encode()).hexdigest() for one, value in data.items()}

    async def make_up(self, engine: Engine, wanted: Generated, version: str) -> bool:
        """Have a Secret with values of our own making; return whether it has new ones.

        What is there keeps its values: only its owner, or a rotation, can change.
        """
        key = Key(engine.metadata.namespace, engine.metadata.name)
        path = RESOURCES["Secret"].path(key.namespace, wanted.name)
        there = self._own.pop((key.namespace, wanted.name), None)
        try:
            there = there or await self._secret(key.namespace, wanted.name)
        except NotFound:
            there = None
        if there is not None and owner(there) != key:
            raise AdoptionRefused(f"the Secret {wanted.name} is not the engine's: it is left alone")
        values = secret_values.read(there)
        manifest = drift.marked(secret_values.made_up(engine, wanted, version, values, there))
        if there is not None and not drift.differences(manifest, there):
            return False
        await self._client.apply(path, manifest)
        return there is None or secret_values.read(manifest) != values

    async def taken(self, key: Key, manifests: Sequence[Manifest]) -> dict[Ref, OperatorError]:
        """Look, all at once, for new objects whose names are taken; return what stands in the way of which.

        Raises:
            SeenLate: one is there, and is the engine's, though no watch has told of it yet.
        """
        there = self._cache.children(key)
        new = [one for one in manifests if Ref.of(one) not in there]
        found = await asyncio.gather(*(self._why_not(key, one) for one in new))
        if late := next((one for one in found if isinstance(one, SeenLate)), None):
            raise late
        return {Ref.of(one): why for one, why in zip(new, found, strict=True) if why}

    async def apply(self, key: Key, manifest: Manifest) -> None:
        """Apply a manifest, whose name is not `taken`."""
        ref = Ref.of(manifest)
        resource = RESOURCES[ref.kind]
        path = resource.path(key.namespace, ref.name)
        live = self._cache.children(key).get(ref)
        if (
            live is not None
            and live.get(REPLICAS_OURS)
            and "replicas" not in manifest["spec"]
            and live["spec"]["replicas"]
        ):
            await self._leave_replicas(path, live)
        try:
            answer = await self._client.apply(path, manifest)
        except Unprocessable:
            if live is None or ref.kind != "Service":
                raise
            # Somebody may have changed the number of a port, by which ports are told apart: ours came beside
            # it then, as a second one of its name.
            ports = {"spec": {"ports": manifest["spec"]["ports"]}}
            await self._client.merge(path, ports, names.FIELD_MANAGER)
            answer = await self._client.apply(path, manifest)
        self._cache.note_child(ref.kind, answer)

    async def _leave_replicas(self, path: str, live: Mapping[str, Any]) -> None:
        """Keep the number of pods as it is when an autoscaler takes it over from us.

        A field that its only manager no longer applies goes back to its default, which is one pod. So another
        manager, which never applies again, holds the number until the autoscaler changes it (Kubernetes,
        "Server-Side Apply", transferring ownership). No pods at all are not handed over: an autoscaler
        leaves what has none alone.
        """
        body = {
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": {"name": live["metadata"]["name"]},
            "spec": {"replicas": live["spec"]["replicas"]},
        }
        await self._client.apply(path, body, manager=f"{names.FIELD_MANAGER}-handover")

    async def _why_not(self, key: Key, manifest: Manifest) -> OperatorError | None:
        """Return why a new object cannot be made: something of its name is there, or that cannot be seen."""
        ref = Ref.of(manifest)
        path = RESOURCES[ref.kind].path(key.namespace, ref.name)
        try:
            there = await self._client.get(path)
            if owner(there) != key:
                if not _is_owned(there, manifest):
                    return AdoptionRefused(
                        f"{ref.kind} {ref.name} is there and is not the engine's: it is left alone;"
                        " delete it, or give the engine another name"
                    )
                # Somebody has taken off the label by which it is found.
                labels = {"metadata": {"labels": manifest["metadata"]["labels"]}}
                there = await self._client.merge(path, labels, names.FIELD_MANAGER)
        except NotFound:
            return None
        except OperatorError as error:
            return error
        self._cache.note_child(ref.kind, there)
        return SeenLate(f"{ref.kind} {ref.name} was there already")

    async def delete(self, key: Key, ref: Ref) -> None:
        """Delete an object; one that is gone already is all right."""
        live = self._cache.children(key).get(ref, {})
        try:
            uid = live.get("metadata", {}).get("uid")
            await self._client.delete(RESOURCES[ref.kind].path(key.namespace, ref.name), uid)
        except (NotFound, Conflict):  # gone, or another one of that name by now
            return

    async def write_status(self, engine: ObjectMeta, status: EngineStatus) -> None:
        """Write the status of an engine; the answer is what the cache has then."""
        key = Key(engine.namespace, engine.name)
        body = _bare(names.KIND, key, key.name) | {"status": msgspec.to_builtins(status)}
        body["metadata"]["uid"] = engine.uid
        path = RESOURCES[names.KIND].path(*key) + "/status"
        try:
            answer = await self._client.apply(path, body)
        except FieldUnknown as error:
            raise DefinitionOutdated(
                f"the definition of {names.KIND} in the cluster is older than the operator: it lacks"
                f" {error.field}; apply the definition of the operator's release"
            ) from error
        self._cache.note_engine(key, answer)

    async def set_finalizer(self, engine: ObjectMeta, *, held: bool) -> None:
        """Hold an engine back from being deleted, or let it go. Finalizers of others are theirs."""
        key = Key(engine.namespace, engine.name)
        body = _bare(names.KIND, key, key.name)
        # With its uid, so that an engine that is gone is not made anew.
        body["metadata"] |= {"uid": engine.uid}
        if held:
            body["metadata"]["finalizers"] = [names.FINALIZER]
        answer = await self._client.apply(RESOURCES[names.KIND].path(*key), body)
        if held:
            self._cache.note_engine(key, answer)
        else:
            self._cache.note_let_go(key, engine.uid)

    async def let_go(self, engine: ObjectMeta) -> None:
        """Let an engine go, and with the last one of a namespace the right to its Secrets.

        The right goes first: afterwards nobody would know of it. Who needs it still, takes it again.
        """
        if self._binds and not any(self._cache.staying(engine.namespace)):
            await self._unbind(engine.namespace)
        await self.set_finalizer(engine, held=False)

    async def post(self, engine: ObjectMeta, notice: Notice, now: str) -> None:
        """Post an Event, once: it is named after what it says."""
        said = [engine.uid, engine.generation, notice.reason, notice.message]
        body = {
            "apiVersion": "events.k8s.io/v1",
            "kind": "Event",
            "metadata": {
                "name": f"{engine.name}.{drift.digest(said)}",
                "namespace": engine.namespace,
            },
            "eventTime": f"{now.removesuffix('+00:00')}.000000Z",
            "reportingController": f"{names.GROUP}/{names.FIELD_MANAGER}",
            "reportingInstance": self._account.name,
            "action": "Reconcile",
            "type": "Warning" if notice.warning else "Normal",
            "reason": notice.reason,
            "note": notice.message[:_NOTE_CHARACTERS_MAX],
            "regarding": {
                "apiVersion": names.API_VERSION,
                "kind": names.KIND,
                "namespace": engine.namespace,
                "name": engine.name,
                "uid": engine.uid,
            },
        }
        try:
            await self._client.create(RESOURCES["Event"].path(engine.namespace), body)
        except (Conflict, Terminating):
            return

    async def _secret(self, namespace: str, name: str) -> dict[str, Any]:
        path = RESOURCES["Secret"].path(namespace, name)
        try:
            return await self._client.get(path)
        except PermissionDenied:
            if not self._binds:
                raise
        await self._bind(namespace)
        return await self._client.get(path)

    async def _bind(self, namespace: str) -> None:
        """Give the operator's account the right to Secrets in a namespace that has engines."""
        group = "rbac.authorization.k8s.io"
        account = {"kind": "ServiceAccount", "namespace": self._account.namespace}
        binding = {
            "apiVersion": f"{group}/v1",
            "kind": "RoleBinding",
            "metadata": {
                "name": names.SECRETS_ROLE,
                "namespace": namespace,
                "labels": {names.MANAGED_BY_LABEL: names.FIELD_MANAGER},
            },
            "roleRef": {"apiGroup": group, "kind": "ClusterRole", "name": names.SECRETS_ROLE},
            "subjects": [{**account, "name": self._account.name}],
        }
        path = RESOURCES["RoleBinding"].path(namespace, names.SECRETS_ROLE)
        await self._client.apply(path, binding)

    async def _unbind(self, namespace: str) -> None:
        """Give that right up again; a binding of somebody else's is left alone."""
        path = RESOURCES["RoleBinding"].path(namespace, names.SECRETS_ROLE)
        try:
            metadata = (await self._client.get(path))["metadata"]
            if metadata.get("labels", {}).get(names.MANAGED_BY_LABEL) == names.FIELD_MANAGER:
                await self._client.delete(path, metadata["uid"])
        except (NotFound, Conflict):  # gone, or another one of that name by now
            return


def _bare(kind: str, key: Key, name: str) -> dict[str, Any]:
    return {
        "apiVersion": RESOURCES[kind].api_version,
        "kind": kind,
        "metadata": {"name": name, "namespace": key.namespace},
    }


def _is_owned(there: Mapping[str, Any], manifest: Manifest) -> bool:
    """Tell whether an object has the same owner as it will have."""
    owners, wanted = (
        {reference["uid"] for reference in one["metadata"].get("ownerReferences", ())}
        for one in (there, manifest)
    )
    return bool(owners & wanted)
