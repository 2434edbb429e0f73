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

_OF_A_POD = ("name", "namespace", "uid", "labels", "creationTimestamp", "deletionTimestamp")


class Cache:
    """Engines and their children."""

    def __init__(self) -> None:
        self.engines: dict[Key, Object] = {}
        self.secrets: dict[Key, frozenset[str]] = {}
        """The names of the Secrets that each engine was last seen to use, there or not."""
        self._children: defaultdict[Key, dict[Ref, Object]] = defaultdict(dict)

    def children(self, key: Key) -> Mapping[Ref, Object]:
        """Return what belongs to an engine."""
        return dict(self._children.get(key, {}))

    def in_namespace(self, namespace: str) -> Iterator[Key]:
        """Return the engines of a namespace."""
        return (key for key in list(self.engines) if key.namespace == namespace)

    def namespaces(self) -> set[str]:
        """Return the namespaces that have engines."""
        return {key.namespace for key in self.engines}

    def note_engine(self, key: Key, body: Object) -> bool:
        """Take a version of an engine; return whether it is new."""
        return _put(self.engines, key, _slim(body))

    def forget_engine(self, key: Key) -> None:
        """Take note that an engine is gone; its children go when the watches say so."""
        self.engines.pop(key, None)
        self.secrets.pop(key, None)

    def note_child(self, kind: str, body: Mapping[str, Any]) -> Key | None:
        """Take a version of a child; return its engine if that is news."""
        key = owner(body)
        if key is None:
            return None
        news = _put(self._children[key], Ref(kind, body["metadata"]["name"]), _slim(body, kind))
        return key if news else None

    def forget_child(self, kind: str, body: Mapping[str, Any]) -> Key | None:
        """Take note that a child is gone; return its engine."""
        key = owner(body)
        if key is None or key not in self._children:
            return key
        self._children[key].pop(Ref(kind, body["metadata"]["name"]), None)
        if not self._children[key]:
            del self._children[key]
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
            del self._children[key][ref]
        return {key for key, _ in lost}


def owner(body: Mapping[str, Any]) -> Key | None:
    """Return the engine that an object belongs to, by its label."""
    metadata = body["metadata"]
    engine = metadata.get("labels", {}).get(names.ENGINE_LABEL)
    return Key(metadata.get("namespace", ""), engine) if engine else None


def _put[K](objects: dict[K, Object], key: K, body: Object) -> bool:
    before = objects.get(key)
    if before is not None and before["metadata"].get("uid") == body["metadata"].get("uid"):
        old, new = (_version(one) for one in (before, body))
        if old is not None and new is not None and new <= old:
            return False
    objects[key] = body
    return True


def _until(body: Object, version: str) -> bool:
    """Tell whether an object is not newer than a version of all."""
    own = _version(body)
    return own is not None and version.isdigit() and own <= int(version)


def _version(body: Object) -> int | None:
    """Return the version as a number, which is how Kubernetes counts it (KEP-5504); None when it is none."""
    version = str(body["metadata"].get("resourceVersion", ""))
    return int(version) if version.isdigit() else None


def _slim(body: Mapping[str, Any], kind: str = "") -> Object:
    """Return an object without what nobody looks at: of a pod, only its state."""
    metadata = {name: value for name, value in body["metadata"].items() if name != "managedFields"}
    if kind == "Pod":
        few = {name: metadata[name] for name in _OF_A_POD if name in metadata}
        few["resourceVersion"] = metadata.get("resourceVersion", "")
        if image := metadata.get("annotations", {}).get(names.IMAGE):
            few["annotations"] = {names.IMAGE: image}
        return {"metadata": few, "status": dict(body.get("status", {}))}
    slim = {**body, "metadata": metadata}
    if kind == "Deployment":
        slim[REPLICAS_OURS] = any(
            entry.get("manager") == names.FIELD_MANAGER
            and "f:replicas" in entry.get("fieldsV1", {}).get("f:spec", {})
            for entry in body["metadata"].get("managedFields", ())
        )
    return slim
