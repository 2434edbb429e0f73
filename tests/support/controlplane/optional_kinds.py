"""Kinds that a cluster may lack, served by the API server with whatever is in their objects.

Used by tests in which it matters that such kinds are there, and not what their projects say of a field.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from picopay_operator.resources import RESOURCES, Resource
from support.controlplane.api_server import ApiServer, Manifest
from support.waiting import eventually

_KIND = "CustomResourceDefinition"


@asynccontextmanager
async def optional_kinds_in(api_server: ApiServer) -> AsyncIterator[None]:
    """Have the API server serve all optional kinds until the end of the block."""
    optional = [resource for resource in RESOURCES.values() if resource.optional]
    names = [f"{resource.plural}.{resource.group}" for resource in optional]
    for resource, name in zip(optional, names, strict=True):
        await api_server.apply(_definition(resource, name))
    try:
        yield
    finally:
        for name in names:
            await api_server.delete(_KIND, name)

        async def are_gone() -> bool:
            return not [name for name in names if await api_server.find(_KIND, name)]

        await eventually(are_gone)


def _definition(resource: Resource, name: str) -> Manifest:
    anything = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    version = {
        "name": resource.version,
        "served": True,
        "storage": True,
        "schema": {"openAPIV3Schema": anything},
        "subresources": {"status": {}},
    }
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": _KIND,
        "metadata": {
            "name": name,
            "annotations": {"api-approved.kubernetes.io": "unapproved, for tests"},
        },
        "spec": {
            "group": resource.group,
            "scope": "Namespaced",
            "names": {
                "kind": resource.kind,
                "plural": resource.plural,
                "singular": resource.kind.lower(),
            },
            "versions": [version],
        },
    }
