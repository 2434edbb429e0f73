"""Metadata of what the operator applies: name, labels, and the engine as the owner.

Used by every builder of this package.
"""

from collections.abc import Mapping

from picopay_operator import names
from picopay_operator.manifests.context import Manifest
from picopay_operator.names import Component
from picopay_operator.spec.engine import Engine


def metadata(
    engine: Engine,
    name: str,
    component: Component,
    version: str,
    *,
    labels: Mapping[str, str] | None = None,
    annotations: Mapping[str, str] | None = None,
    owned: bool = True,
) -> Manifest:
    """Return the metadata of an object; one that is not `owned` outlives its engine.

    Of labels with the same key, the operator's count: it finds its objects by them.
    """
    made: Manifest = {
        "name": name,
        "namespace": engine.metadata.namespace,
        "labels": {**(labels or {}), **names.labels(engine.metadata.name, component, version)},
    }
    if annotations:
        made["annotations"] = dict(annotations)
    if owned:
        made["ownerReferences"] = [owner(engine)]
    return made


def owner(engine: Engine) -> Manifest:
    """Return the reference by which an object is deleted together with its engine, and before it is gone."""
    return {
        "apiVersion": names.API_VERSION,
        "kind": names.KIND,
        "name": engine.metadata.name,
        "uid": engine.metadata.uid,
        "controller": True,
        "blockOwnerDeletion": True,
    }
