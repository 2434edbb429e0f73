"""Engines as people write them, for tests against the API server; and what it says of them.

Used by the tests of the definition. A `change` is a dictionary that is laid over the smallest engine.
"""

from typing import Any

import pytest

from support.controlplane.api_server import ApiServer, Manifest, RefusedError

SMALLEST: Manifest = {"database": {"secretRef": {"name": "picopay-secrets"}}}
"""Three lines of YAML."""

EVERY_KIND: Manifest = {
    "autoscaling": {"maxReplicas": 4},
    "ingress": {"host": "pay.example.com"},
    "networkPolicy": {"enabled": True},
    "httpRoute": {"parentRefs": [{"name": "public"}], "hostnames": ["api.example.com"]},
    "monitoring": {
        "serviceMonitor": {"enabled": True},
        "prometheusRule": {"enabled": True},
        "dashboard": {"enabled": True},
    },
}
"""A change by which an object of every kind beside the database's is made."""


def engine(spec: Manifest = SMALLEST, name: str = "demo") -> Manifest:
    """Return an engine with a spec."""
    return {
        "apiVersion": "picopay.io/v1beta1",
        "kind": "PicoPayEngine",
        "metadata": {"name": name},
        "spec": spec,
    }


def overlaid(spec: Manifest, change: Manifest) -> Manifest:
    """Return a spec with a change laid over it; None takes a field away."""
    result = dict(spec)
    for key, value in change.items():
        if value is None:
            result.pop(key, None)
        elif isinstance(value, dict) and isinstance(result.get(key), dict):
            result[key] = overlaid(result[key], value)
        else:
            result[key] = value
    return result


async def created(api_server: ApiServer, manifest: Manifest) -> Manifest:
    """Return an engine as it would be kept; nothing is."""
    return await api_server.create(manifest, dryRun="All", fieldValidation="Strict")


async def refusal(api_server: ApiServer, manifest: Manifest) -> str:
    """Return what a person is told whose engine is refused."""
    with pytest.raises(RefusedError) as refused:
        await created(api_server, manifest)
    return refused.value.message


def at(path: str, value: Any) -> Manifest:
    """Return a change of one field, such as "rollout.maxSurge"."""
    for key in reversed(path.split(".")):
        value = {key: value}
    result: Manifest = value
    return result
