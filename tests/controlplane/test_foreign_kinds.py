"""Kinds of other projects, as those define them: the Gateway API, Prometheus' operator, CloudNativePG.

What a project's definition does not know of an object is dropped without a word: here it would be noticed.
"""

from functools import partial
from typing import Any

import msgspec
import pytest
import yaml

from picopay_operator import drift, names
from picopay_operator.conditions import Type
from picopay_operator.manifests.context import Manifest
from picopay_operator.resources import OPTIONAL
from picopay_operator.spec.engine import Engine
from support.controlplane.api_server import ApiServer
from support.controlplane.operating import NAME, Case, operating, steady
from support.controlplane.plugin import foreign_kinds_served
from support.controlplane.rights import granted
from support.controlplane.servers import ControlPlane
from support.engines import ENGINES, context, manifests, source
from support.waiting import eventually

pytestmark = pytest.mark.usefixtures("definition")

NOW = "2026-11-25T10:00:00Z"
CLUSTER = names.postgres(NAME)
EVERYTHING: Manifest = {
    "database": {"secretRef": None, "cloudNativePG": {"storage": {"className": "standard"}}},
    "httpRoute": {
        "parentRefs": [{"name": "public", "namespace": "gateways", "sectionName": "https"}],
        "hostnames": ["pay.example.com"],
    },
    "monitoring": {
        "serviceMonitor": {"enabled": True, "labels": {"release": "prometheus"}},
        "prometheusRule": {"enabled": True, "labels": {"release": "prometheus"}},
    },
}
MADE = {
    "HTTPRoute": names.api(NAME),
    "ServiceMonitor": names.monitoring(NAME),
    "PrometheusRule": names.monitoring(NAME),
    "Cluster": CLUSTER,
}


async def made(case: Case) -> dict[str, Manifest]:
    """Return what the operator has made of these kinds."""
    found = {kind: await case.api.find(kind, name) for kind, name in MADE.items()}
    return {kind: one for kind, one in found.items() if one is not None}


async def written(case: Case) -> dict[str, Any]:
    """Return what changes when the operator writes one of them, or the engine."""
    found = {kind: one["metadata"]["resourceVersion"] for kind, one in (await made(case)).items()}
    return found | await case.versions()


def credentials(namespace: str) -> dict[str, str]:
    """Return what CloudNativePG writes into the Secret of the owner of a database."""
    host = f"{CLUSTER}-rw"
    return {
        "username": "picopay",
        "user": "picopay",
        "password": "secret",
        "dbname": "picopay",
        "host": host,
        "port": "5432",
        "pgpass": f"{host}:5432:picopay:picopay:secret\n",
        "uri": f"postgresql://picopay:secret@{host}.{namespace}:5432/picopay",
        "jdbc-uri": f"jdbc:postgresql://{host}.{namespace}:5432/picopay?user=picopay",
    }


def healthy() -> Manifest:
    """Return the status that CloudNativePG writes for a Cluster that is up."""
    pods = [f"{CLUSTER}-{number}" for number in range(1, 4)]
    ready = {"type": "Ready", "status": "True", "reason": "ClusterIsReady"}
    return {
        "phase": "Cluster in healthy state",
        "instances": 3,
        "readyInstances": 3,
        "currentPrimary": pods[0],
        "targetPrimary": pods[0],
        "instanceNames": pods,
        "instancesStatus": {"healthy": pods},
        "healthyPVC": pods,
        "pvcCount": 3,
        "latestGeneratedNode": 3,
        "readService": f"{CLUSTER}-r",
        "writeService": f"{CLUSTER}-rw",
        "certificates": {"serverCASecret": f"{CLUSTER}-ca", "clientCASecret": f"{CLUSTER}-ca"},
        "conditions": [ready | {"message": "Cluster is Ready", "lastTransitionTime": NOW}],
    }


async def play_cloud_native_pg(case: Case) -> None:
    """Do to the Cluster what CloudNativePG 1.30 does to one that comes up: defaults, Secrets, status.

    Its operator does not run here: what is said is as in its `api/v1` and `pkg/specs/secrets.go`.
    """
    await case.api.merge(
        "Cluster",
        CLUSTER,
        {
            "spec": {
                "imageName": "postgresql:18",
                "postgresql": {"parameters": {"wal_level": "logical"}},
            }
        },
    )
    owner = (await case.api.get("Cluster", CLUSTER))["metadata"]
    reference = {"apiVersion": "postgresql.cnpg.io/v1", "kind": "Cluster", "name": CLUSTER}
    metadata = {
        "labels": {"cnpg.io/cluster": CLUSTER, "cnpg.io/reload": "true"},
        "ownerReferences": [reference | {"uid": owner["uid"], "controller": True}],
    }
    secrets = (
        ("ca", "Opaque", {"ca.crt": "certificate", "ca.key": "key"}),
        ("app", "kubernetes.io/basic-auth", credentials(case.api.namespace)),
    )
    for suffix, kind, data in secrets:
        await case.api.create(
            {
                "apiVersion": "v1",
                "kind": "Secret",
                "metadata": {"name": f"{CLUSTER}-{suffix}", **metadata},
                "type": kind,
                "stringData": data,
            }
        )
    status = healthy()
    taken = await case.api.merge("Cluster", CLUSTER, {"status": status}, subresource="/status")
    assert taken["status"].items() >= status.items()


@pytest.mark.usefixtures("foreign_kinds")
async def test_their_definitions_know_everything_that_the_operator_says(
    api_server: ApiServer,
) -> None:
    kinds = set()
    for path in ENGINES:
        document = yaml.safe_load(source(path.stem))
        document["metadata"] = {"name": document["metadata"]["name"]}
        engine = msgspec.convert(await api_server.create(document), Engine)
        for one in manifests(context(engine)):
            if one["kind"] not in OPTIONAL:
                continue
            kinds.add(one["kind"])
            wanted = drift.marked(one)
            live = await api_server.apply(wanted, names.FIELD_MANAGER, fieldValidation="Strict")
            assert drift.differences(wanted, live) == []
            again = await api_server.apply(wanted, names.FIELD_MANAGER)
            assert again["metadata"]["generation"] == live["metadata"]["generation"]
    assert kinds == OPTIONAL
    assert api_server.warnings == []


@pytest.mark.usefixtures("foreign_kinds")
@pytest.mark.parametrize("is_listed", [False, True], ids=["in the cluster", "in a namespace"])
async def test_an_engine_uses_them_all_with_the_rights_of_the_chart(
    control_plane: ControlPlane, case: Case, *, is_listed: bool
) -> None:
    listed = [case.api.namespace] if is_listed else []
    async with granted(control_plane, case.api, *listed) as operator:
        await case.apply(EVERYTHING)
        await case.until(Type.DATABASE_REACHABLE, "Unknown", "DatabaseStarting")
        await play_cloud_native_pg(case)
        await case.ready()
        assert set(await made(case)) == set(MADE)
        conditions = await case.conditions()
        assert conditions[Type.MONITORED]["reason"] == "Applied"
        assert conditions[Type.EXPOSED]["reason"] == "Exposed"
        # What CloudNativePG and the definitions have added is left alone, and not written over.
        before = await steady(partial(written, case))
        cluster = (await made(case))["Cluster"]
        assert cluster["spec"]["postgresql"]["parameters"] == {"wal_level": "logical"}
        await case.annotate(retry="now")
        await case.ready()
        after = await steady(partial(written, case))
        assert {kind: after[kind] for kind in MADE} == {kind: before[kind] for kind in MADE}

        # A refusal of the Gateway is told, and something that somebody deletes comes again.
        await case.api.delete("ServiceMonitor", MADE["ServiceMonitor"])
        refused = {"type": "Accepted", "status": "False", "reason": "NotAllowedByListeners"}
        condition = refused | {
            "message": "no listener takes it",
            "lastTransitionTime": NOW,
        }
        parent = {
            "parentRef": EVERYTHING["httpRoute"]["parentRefs"][0],
            "controllerName": "example.com/gateway",
            "conditions": [condition],
        }
        await case.api.merge(
            "HTTPRoute", MADE["HTTPRoute"], {"status": {"parents": [parent]}}, subresource="/status"
        )
        told = await case.until(Type.EXPOSED, "False", "Progressing")
        assert "no listener takes it" in told["message"]

        async def all_there() -> bool:
            return set(await made(case)) == set(MADE)

        await eventually(all_there)
        await case.api.delete("PicoPayEngine", NAME)
        await eventually(case.is_gone)
        # The Cluster is the data: it is kept, as the policy says, and with it the way to it.
        assert await case.api.find("Cluster", CLUSTER)
        assert all("/secrets" in one for one in operator.refused(case.api.namespace))


async def test_they_appear_when_they_are_installed_later(
    control_plane: ControlPlane, case: Case
) -> None:
    async with operating(control_plane, case.api.namespace, namespaces=()):
        await case.apply(EVERYTHING)
        told = await case.until(Type.DATABASE_REACHABLE, "False", "OptionalAPIMissing")
        assert "CloudNativePG is not installed" in told["message"]
        async with foreign_kinds_served(case.api):
            await case.until(Type.DATABASE_REACHABLE, "Unknown", "DatabaseStarting")
            await play_cloud_native_pg(case)
            await case.ready()
            assert set(await made(case)) == set(MADE)
