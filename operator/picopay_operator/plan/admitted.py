"""What pods were admitted with, written on the object that has them. Pure.

While a migration for something newer runs, waits or has failed, pods go on with exactly this, and are
repaired to exactly this: a new image, and a new database as well, comes in only after its migration. A
template is made once from what was admitted. Another release of the operator, which might make another one of
the same, leaves it as it is: pods are replaced when the engine asks for something new, and for nothing else.
"""

import re
from collections.abc import Mapping
from typing import Any

import msgspec
from msgspec import structs

from picopay_operator import names
from picopay_operator.manifests.context import Access, Context, Manifest
from picopay_operator.plan.outcome import Release
from picopay_operator.spec.engine import Engine, EngineSpec

_OF_PODS = (
    "version",
    "image",
    "image_pull_secrets",
    "database",
    "rate_limit",
    "log_level",
    "env",
    "worker",
    "resources",
    "node_selector",
    "tolerations",
    "affinity",
    "topology_spread_constraints",
    "priority_class_name",
    "pod_labels",
    "pod_annotations",
    "probes",
    "termination_grace_period_seconds",
)
"""The fields of a spec that pods are made from: what is new in them comes in with the new image."""

_LABEL = re.compile(r"[^A-Za-z0-9._-]")


class Admitted(msgspec.Struct, frozen=True):
    """What pods are made from: image, version, database, digest of the Secrets' data, and spec."""

    image: str
    version: str
    access: Access
    data_hash: str
    spec: EngineSpec

    @classmethod
    def of(cls, context: Context) -> "Admitted":
        """Return what pods of a context are made from: of its spec, what they depend on."""
        return cls(
            context.image,
            context.version,
            context.access,
            context.data_hash,
            pods_spec(context.engine.spec),
        )

    def context(self, engine: Engine) -> Context:
        """Return what manifests are made from: the spec of now, but for what pods are made from."""
        ours = {name: getattr(self.spec, name) for name in _OF_PODS}
        engine = structs.replace(engine, spec=structs.replace(engine.spec, **ours))
        return Context(engine, self.image, self.version, self.access, self.data_hash)


class Cleared(msgspec.Struct, frozen=True):
    """An image that may run on the database as it is, the Job that has found so, and the schema it wants."""

    image: str
    version: str
    job: str
    head: str | None = None


class Made[T](msgspec.Struct, frozen=True):
    """A template of pods: which release of the operator has made it, and what `of`."""

    by: str
    of: T
    template: Manifest


def pods_spec(spec: EngineSpec) -> EngineSpec:
    """Return the part of a spec that pods are made from."""
    return EngineSpec(**{name: getattr(spec, name) for name in _OF_PODS})


def write[T](
    manifest: Manifest, of: T, live: Mapping[str, Any] | None, release: Release
) -> Manifest:
    """Return an object with pods, with what they are made from; what is live may have their template."""
    made = Made(release.version, of, manifest["spec"]["template"])
    before = _read(live, type(of))
    if before is not None and before.by != release.version and before.of == of:
        made = before
    annotations = {names.ADMITTED: _encoded(made)}
    return {
        **manifest,
        "metadata": _annotated(manifest["metadata"], annotations),
        "spec": {**manifest["spec"], "template": made.template},
    }


def clear(manifest: Manifest, cleared: Cleared | None) -> Manifest:
    """Return a Deployment with a note of what has cleared its image."""
    if cleared is None:
        return manifest
    annotations = {names.CLEARED: _encoded(cleared)}
    return {**manifest, "metadata": _annotated(manifest["metadata"], annotations)}


def read(live: Mapping[str, Any] | None) -> Admitted | None:
    """Return what a Deployment was admitted with; None when that was not written, or is not understood."""
    made = _read(live, Admitted)
    return made.of if made else None


def cleared(live: Mapping[str, Any] | None) -> Cleared | None:
    """Return what has cleared a Deployment; None when that was not written, or is not understood."""
    return _decoded(live, names.CLEARED, Cleared)


def image_of(
    spec: EngineSpec, release: Release, serving: Admitted | None, served: str | None = None
) -> tuple[str, str]:
    """Return the image that an engine asks for, complete, and its version as far as that is said.

    An engine that names no version stays with the one that it has, or, while its pods are gone, with that of
    the image that has `served`; at first it gets the operator's release.
    """
    if serving and (serving.spec.image, serving.spec.version) == (spec.image, spec.version):
        return serving.image, serving.version
    repository, tag = _parted(release.image)
    has = _parted(serving.image if serving else served or "")[1]
    version = spec.image.tag or spec.version or has
    version = version or ("" if spec.image.repository else tag) or release.version
    image = f"{spec.image.repository or repository}:{version}"
    if spec.image.digest:
        image += f"@{spec.image.digest}"
    return image, _LABEL.sub("-", spec.version or version)[:63].strip("-._")


def _parted(image: str) -> tuple[str, str]:
    """Part an image into its repository, which may have a port, and its tag."""
    image = image.partition("@")[0]
    folder, slash, name = image.rpartition("/")
    name, _, tag = name.partition(":")
    return f"{folder}{slash}{name}", tag


def _annotated(metadata: Manifest, annotations: dict[str, str]) -> Manifest:
    return {**metadata, "annotations": {**metadata.get("annotations", {}), **annotations}}


def _encoded(value: msgspec.Struct) -> str:
    return msgspec.json.encode(value, order="deterministic").decode()


def _read[T](live: Mapping[str, Any] | None, of: type[T]) -> Made[T] | None:
    return _decoded(live, names.ADMITTED, Made[of])  # type: ignore[valid-type]  # a class at run time


def _decoded[T](live: Mapping[str, Any] | None, annotation: str, kind: type[T]) -> T | None:
    text = (live or {}).get("metadata", {}).get("annotations", {}).get(annotation, "")
    try:
        return msgspec.json.decode(text, type=kind)
    except msgspec.DecodeError:  # changed by hand, or of another release
        return None
