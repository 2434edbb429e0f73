"""What the watches have told of: engines, and the objects that belong to each. In memory, never asked for.

Fed by `handlers.py` and by the answers to what `cluster.py` has written; read by `reconcile.py`. An older
version of an object never takes the place of a newer one, so that an event that is late does no harm.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping
from collections.abc import Set as AbstractSet
from typing import Any, NamedTuple

from picopay_operator import names
from picopay_operator.resources import Ref


class Key(NamedTuple):
    """Which engine."""

    namespace: str
    name: str


type Object = dict[str, Any]

REPLICAS_OURS = "replicasOurs"
"""In a cached Deployment: whether the number of its pods is a field of the operator's."""

_STATUS_READ = frozenset({"Deployment", "StatefulSet", "Cluster", "Job", "Pod", "HTTPRoute"})
"""Children whose status the plan looks at. That of others is not kept: some are written all the time."""

_VERSION = "resourceVersion"
_OF_A_POD = ("name", "namespace", "uid", "labels", "creationTimestamp", "deletionTimestamp")


class Cache:
    """Engines and their children."""

    def __init__(self) -> None:
        self.engines: dict[Key, Object] = {}
        self.referred: dict[Key, frozenset[Ref]] = {}
        """The Secrets and ConfigMaps that each engine was last seen to use, there or not."""
        self._children: defaultdict[Key, dict[Ref, Object]] = defaultdict(dict)
        self._owners: dict[tuple[str, Ref], Key] = {}
        """Under which engine the child of a namespace is kept."""

    def children(self, key: Key) -> Mapping[Ref, Object]:
        """Return what belongs to an engine."""
        return dict(self._children.get(key, {}))

    def in_namespace(self, namespace: str) -> Iterator[Key]:
        """Return the engines of a namespace."""
        return (key for key in list(self.engines) if key.namespace == namespace)

    def staying(self, namespace: str) -> Iterator[Key]:
        """Return the engines of a namespace that nobody is deleting."""
        return (
            key
            for key in self.in_namespace(namespace)
            if not self.engines[key]["metadata"].get("deletionTimestamp")
        )

    def referring(self, kind: str) -> set[str]:
        """Return the namespaces whose engines use Secrets, or ConfigMaps; not those that were let go."""
        return {
            key.namespace
            for key, body in self.engines.items()
            if not is_let_go(body) and (kind == "Secret" or _uses_config_maps(body))
        }

    def note_engine(self, key: Key, body: Object) -> bool:
        """Take a version of an engine; return whether it asks for something else.

        Its status is the operator's own, and asks for nothing.
        """
        before = self.engines.get(key)
        if not _put(self.engines, key, _slim(body)):
            return False
        return _content(before, "status") != _content(self.engines[key], "status")

    def note_let_go(self, key: Key, uid: str) -> None:
        """Take note that our finalizer is off an engine, of which the watch may have told already.

        The answer to the request that took it off does not say so: of an object that is gone with that, it is
        the version before.
        """
        body = self.engines.get(key)
        if body is not None and body["metadata"].get("uid") == uid:
            finalizers = [
                one for one in body["metadata"].get("finalizers", ()) if one != names.FINALIZER
            ]
            self.engines[key] = body | {"metadata": body["metadata"] | {"finalizers": finalizers}}

    def forget_engine(self, key: Key) -> None:
        """Take note that an engine is gone; its children go when the watches say so."""
        self.engines.pop(key, None)
        self.referred.pop(key, None)

    def note_child(self, kind: str, body: Mapping[str, Any]) -> Key | None:
        """Take a version of a child; return its engine if that is news.

        Of a child whose label was taken off or changed by hand, that is the engine it belonged to.
        """
        ref, namespace = Ref(kind, body["metadata"]["name"]), body["metadata"].get("namespace", "")
        key, before = owner(body), self._owners.get((namespace, ref))
        old = self._children[before].get(ref) if before else None
        if before is not None and before != key:
            if _is_late(body, old):
                return None
            self._drop(before, ref)
        if key is None:
            return before
        if not _put(self._children[key], ref, _slim(body, kind)):
            return None
        self._owners[namespace, ref] = key
        if before not in {None, key}:
            return before
        return key if _content(old) != _content(self._children[key][ref]) else None

    def forget_child(self, kind: str, body: Mapping[str, Any]) -> Key | None:
        """Take note that a child is gone; return its engine."""
        ref = Ref(kind, body["metadata"]["name"])
        key = self._owners.get((body["metadata"].get("namespace", ""), ref)) or owner(body)
        if key is not None:
            self._drop(key, ref)
        return key

    def without(
        self, kind: str, namespace: str, there: AbstractSet[tuple[str, str]], version: str
    ) -> set[Key]:
        """Forget children, or find engines, that are not there in a version of all; return the engines.

        `there` are namespaces and names; `namespace` limits what was looked at. What is newer than that
        version stays.
        """
        if kind == names.KIND:
            return {
                key
                for key, body in self.engines.items()
                if namespace in {"", key.namespace} and key not in there and _until(body, version)
            }
        lost = [
            (key, ref)
            for key, children in self._children.items()
            for ref, body in children.items()
            if ref.kind == kind
            and namespace in {"", key.namespace}
            and (key.namespace, ref.name) not in there
            and _until(body, version)
        ]
        for key, ref in lost:
            self._drop(key, ref)
        return {key for key, _ in lost}

    def _drop(self, key: Key, ref: Ref) -> None:
        self._owners.pop((key.namespace, ref), None)
        children = self._children.get(key, {})
        children.pop(ref, None)
        if not children:
            self._children.pop(key, None)


def is_let_go(engine: Mapping[str, Any]) -> bool:
    """Tell whether an engine is as good as gone: at most others hold it back from that."""
    metadata = engine["metadata"]
    held = names.FINALIZER in metadata.get("finalizers", ())
    return bool(metadata.get("deletionTimestamp")) and not held


def _uses_config_maps(engine: Mapping[str, Any]) -> bool:
    variables = engine.get("spec", {}).get("env", ())
    return any("configMapKeyRef" in one.get("valueFrom", {}) for one in variables)


def owner(body: Mapping[str, Any]) -> Key | None:
    """Return the engine that an object belongs to, by its label."""
    metadata = body["metadata"]
    engine = metadata.get("labels", {}).get(names.ENGINE_LABEL)
    return Key(metadata.get("namespace", ""), engine) if engine else None


def _put[K](objects: dict[K, Object], key: K, body: Object) -> bool:
    """Keep a version of an object; return whether it is newer than the one that was there."""
    if _is_late(body, objects.get(key)):
        return False
    objects[key] = body
    return True


def _is_late(body: Mapping[str, Any], before: Object | None) -> bool:
    """Tell whether a version of an object is not newer than another one."""
    if before is None or before["metadata"].get("uid") != body["metadata"].get("uid"):
        return False
    old, new = _version(before), _version(body)
    return old is not None and new is not None and new <= old


def _content(body: Object | None, *unread: str) -> Object | None:
    """Return what is in an object, without its version."""
    if body is None:
        return None
    metadata = {name: value for name, value in body["metadata"].items() if name != _VERSION}
    return {name: value for name, value in body.items() if name not in unread} | {
        "metadata": metadata
    }


def _until(body: Object, version: str) -> bool:
    """Tell whether an object is not newer than a version of all."""
    own = _version(body)
    return own is not None and version.isdigit() and own <= int(version)


def _version(body: Mapping[str, Any]) -> int | None:
    """Return the version as a number, which is how Kubernetes counts it (KEP-5504); None when it is none."""
    version = str(body["metadata"].get(_VERSION, ""))
    return int(version) if version.isdigit() else None


def _slim(body: Mapping[str, Any], kind: str = "") -> Object:
    """Return an object without what nobody looks at: of a pod, only its state."""
    metadata = {name: value for name, value in body["metadata"].items() if name != "managedFields"}
    if kind == "Pod":
        few = {name: metadata[name] for name in _OF_A_POD if name in metadata}
        few[_VERSION] = metadata.get(_VERSION, "")
        if image := metadata.get("annotations", {}).get(names.IMAGE):
            few["annotations"] = {names.IMAGE: image}
        return {"metadata": few, "status": dict(body.get("status", {}))}
    slim = {**body, "metadata": metadata}
    if kind and kind not in _STATUS_READ:
        slim.pop("status", None)
    if kind == "Deployment":
        slim[REPLICAS_OURS] = any(
            entry.get("manager") == names.FIELD_MANAGER
            and "f:replicas" in entry.get("fieldsV1", {}).get("f:spec", {})
            for entry in body["metadata"].get("managedFields", ())
        )
    return slim
