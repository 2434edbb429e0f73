"""Manifests of whole engines, as they were read and found good.

What has changed on purpose is written anew by `PYTHONPATH=operator:tests python -m support.engines`.
"""

from pathlib import Path
from typing import Any

import msgspec
import pytest

from picopay_operator import drift
from picopay_operator.manifests.context import Manifest
from picopay_operator.spec.kinds import Kind
from support.engines import ENGINES, GOLDEN, context, golden, known, manifests


@pytest.mark.parametrize("source", ENGINES, ids=lambda source: source.stem)
def test_manifests_are_those_that_were_read(source: Path) -> None:
    assert golden(source) == (GOLDEN / source.name).read_text(encoding="utf-8")


def fields(kind: type[Kind], value: Kind, path: str = "spec") -> dict[str, Any]:
    """Return the fields of an object and of those in it, by path, with what is in them."""
    found: dict[str, Any] = {}
    for field in msgspec.structs.fields(kind):
        there, place = getattr(value, field.name), f"{path}.{field.encode_name}"
        if isinstance(there, Kind):
            found |= fields(type(there), there, place)
        else:
            found[place] = field.default, there
    return found


OTHERWISE = {
    "spec.replicas",  # the autoscaler's
    "spec.database.postgres",
    "spec.database.cloudNativePG",  # one kind of database is enough
    "spec.paused",
    "spec.suspended",  # nothing would be left to see
    "spec.podDisruptionBudget.enabled",
    "spec.rollout.strategy",
    "spec.rollout.blueGreen.autoPromote",
    "spec.rollout.blueGreen.scaleDownDelaySeconds",
}


def test_the_engine_that_has_everything_has_every_field_otherwise_than_without() -> None:
    spec = known("everything").spec
    same = {path for path, (default, there) in fields(type(spec), spec).items() if default == there}
    assert same <= OTHERWISE


def test_what_is_wanted_is_made_and_nothing_else() -> None:
    def kinds(name: str) -> dict[str, int]:
        found: dict[str, int] = {}
        for manifest in manifests(context(known(name))):
            found[manifest["kind"]] = found.get(manifest["kind"], 0) + 1
        return found

    least = {"Deployment": 2, "Service": 2, "PodDisruptionBudget": 1, "Job": 3}
    assert kinds("minimal") == least | {"StatefulSet": 1, "Service": 3}
    assert kinds("cloud_native_pg") == least | {"Cluster": 1}
    assert kinds("everything") == least | {
        "HorizontalPodAutoscaler": 1,
        "Ingress": 1,
        "HTTPRoute": 1,
        "NetworkPolicy": 2,
        "ServiceMonitor": 1,
        "PrometheusRule": 1,
        "ConfigMap": 1,
    }


def test_objects_have_a_place_labels_and_an_owner() -> None:
    for source in ENGINES:
        made = known(source.stem)
        for manifest in manifests(context(made)):
            check_metadata(manifest, made.metadata.name, made.metadata.namespace)


@pytest.mark.parametrize("name", [path.stem for path in ENGINES])
def test_what_is_there_as_it_was_applied_does_not_differ(name: str) -> None:
    twice = {"topologyKey": "zone", "maxSkew": 1}
    made = known(
        name,
        networkPolicy={"enabled": True},
        topologySpreadConstraints=[
            {**twice, "whenUnsatisfiable": "DoNotSchedule"},
            {**twice, "whenUnsatisfiable": "ScheduleAnyway"},
        ],
        httpRoute={"parentRefs": [{"name": "g", "sectionName": one} for one in ("a", "b")]},
    )
    for manifest in manifests(context(made)):
        marked = drift.marked(manifest)
        assert drift.differences(marked, marked) == []


def check_metadata(manifest: Manifest, name: str, namespace: str) -> None:
    metadata = manifest["metadata"]
    assert metadata["name"].startswith(f"{name}-")
    assert len(metadata["name"]) <= len(name) + 23
    assert metadata["namespace"] == namespace
    assert metadata["labels"]["picopay.io/engine"] == name
    assert metadata["labels"]["app.kubernetes.io/managed-by"] == "picopay-operator"
    if manifest["kind"] != "Cluster":
        (owner,) = metadata["ownerReferences"]
        assert owner["controller"]
        assert owner["blockOwnerDeletion"]
