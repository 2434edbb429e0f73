"""The cluster is real: pods of an image made here, Services, names, volumes, the operator's PostgreSQL."""

import asyncio
import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import asyncpg
import httpx
import pytest
import yaml

from picopay_operator import names
from picopay_operator.manifests import postgres
from support.cluster import cluster
from support.cluster.cluster import down, load, up
from support.cluster.postgres_image import REPOSITORY, STAND_IN_BASE, postgres_image
from support.engines import known
from support.images import Engine

pytestmark = pytest.mark.timeout(1_800)  # the first test may have to wait for programs to be built

IMAGE = "localhost/picopay-cluster-test:1"
NAMESPACE = "shop"
PASSWORD = "correct horse"
PATIENCE_S = 120
SERVER = """
import http.server, os, sys

class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(os.environ["HOSTNAME"].encode())

print("it listens", flush=True)
http.server.HTTPServer(("0.0.0.0", 8080), Handler).serve_forever()
"""
FETCH = "import urllib.request; print(urllib.request.urlopen('http://{}/').read().decode())"
RESTRICTED = {
    "runAsNonRoot": True,
    "runAsUser": 10001,
    "seccompProfile": {"type": "RuntimeDefault"},
}
CLOSED = {
    "allowPrivilegeEscalation": False,
    "capabilities": {"drop": ["ALL"]},
    "readOnlyRootFilesystem": True,
}


@pytest.fixture(scope="module", autouse=True)
def _cluster(
    alone: None,  # noqa: ARG001  # a fixture may be needed without its value
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[None]:
    """Start a cluster with two images, and a namespace that takes restricted pods only."""
    folder = tmp_path_factory.mktemp("images")
    (folder / "Dockerfile").write_text("ARG BASE\nFROM $BASE\nCOPY server.py /\n")
    (folder / "server.py").write_text(SERVER)
    base = os.environ.get("BASE") or STAND_IN_BASE
    Engine(folder).make_another(IMAGE, folder, folder / "test.tar", base)
    down()
    up([folder / "test.tar"])
    load([postgres_image(folder, base)])
    kubectl("create", "namespace", NAMESPACE)
    kubectl("label", "namespace", NAMESPACE, "pod-security.kubernetes.io/enforce=restricted")
    apply(deployment(), service())
    kubectl("rollout", "status", "deployment/web", f"--timeout={PATIENCE_S}s")
    yield
    down()


def kubectl(*words: str, given: str = "") -> str:
    return cluster.kubectl("--namespace", NAMESPACE, *words, given=given)


def apply(*manifests: Any) -> None:
    kubectl("apply", "-f", "-", given=yaml.safe_dump_all(manifests))


def get(kind: str, name: str) -> Any:
    return json.loads(kubectl("get", kind, name, "-o", "json"))


def deployment() -> Any:
    container = {
        "name": "web",
        "image": IMAGE,
        "imagePullPolicy": "IfNotPresent",
        "command": ["python3", "/server.py"],
        "ports": [{"containerPort": 8080}],
        "readinessProbe": {"httpGet": {"path": "/", "port": 8080}, "periodSeconds": 1},
        "securityContext": CLOSED,
    }
    template = {
        "metadata": {"labels": {"app": "web"}},
        "spec": {"containers": [container], "securityContext": RESTRICTED},
    }
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "web"},
        "spec": {
            "replicas": 2,
            "selector": {"matchLabels": {"app": "web"}},
            "template": template,
        },
    }


def service() -> Any:
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "web"},
        "spec": {"selector": {"app": "web"}, "ports": [{"port": 80, "targetPort": 8080}]},
    }


def test_a_service_leads_to_every_pod_from_the_machine() -> None:
    pods = {
        pod["metadata"]["name"]
        for pod in json.loads(kubectl("get", "pods", "-o", "json", "-l", "app=web"))["items"]
    }
    assert len(pods) == 2
    address = get("service", "web")["spec"]["clusterIP"]
    deadline = time.monotonic() + PATIENCE_S
    answered = set[str]()
    while answered != pods:
        assert time.monotonic() < deadline, answered
        try:
            answered.add(httpx.get(f"http://{address}/").text)
        except httpx.TransportError:
            time.sleep(0.1)  # kube-proxy may be behind the rollout


@pytest.mark.parametrize("name", ["web", f"web.{NAMESPACE}", f"web.{NAMESPACE}.svc.cluster.local"])
def test_a_pod_finds_a_service_by_name(name: str) -> None:
    assert kubectl("exec", "deployment/web", "--", "python3", "-c", FETCH.format(name)).startswith(
        "web-"
    )


def test_a_pod_says_what_it_prints() -> None:
    assert "it listens" in kubectl("logs", "deployment/web")


def test_a_pod_reaches_the_api_server_by_its_certificate() -> None:
    fetch = """
import ssl, urllib.request
place = "/var/run/secrets/kubernetes.io/serviceaccount/"
trusted = ssl.create_default_context(cafile=place + "ca.crt")
token = open(place + "token").read()
asked = urllib.request.Request(
    "https://kubernetes.default.svc/version", headers={"Authorization": "Bearer " + token})
print(urllib.request.urlopen(asked, context=trusted).read().decode())"""
    told = json.loads(kubectl("exec", "deployment/web", "--", "python3", "-c", fetch))
    assert told["major"] == "1"


def test_the_operators_postgresql_keeps_its_data_on_a_volume() -> None:
    engine = known("minimal")
    wanted = engine.spec.database.postgres
    assert wanted is not None
    name = names.postgres(engine.metadata.name)
    secret = {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": name},
        "stringData": {postgres.PASSWORD_KEY: PASSWORD},
    }
    stateful = postgres.stateful_set(engine, wanted, REPOSITORY)
    stateful["metadata"].pop("ownerReferences")  # there is no such engine
    apply(secret, stateful)
    rolled_out(name)
    claim = get("persistentvolumeclaim", postgres.claim_name(engine))
    assert claim["status"]["phase"] == "Bound"
    asyncio.run(told(name, "CREATE TABLE kept AS SELECT 7 AS number"))
    kubectl("delete", "pod", f"{name}-0")
    rolled_out(name)
    assert asyncio.run(told(name, "SELECT number FROM kept")) == [(7,)]

    place = Path(get("persistentvolume", claim["spec"]["volumeName"])["spec"]["local"]["path"])
    assert place.exists()
    kubectl("delete", "statefulset", name)
    kubectl("delete", "persistentvolumeclaim", claim["metadata"]["name"], "--ignore-not-found")
    kubectl("wait", "--for=delete", f"persistentvolume/{claim['spec']['volumeName']}")
    assert not place.exists()


def rolled_out(name: str) -> None:
    kubectl("rollout", "status", f"statefulset/{name}", f"--timeout={PATIENCE_S}s")


async def told(name: str, statement: str) -> list[tuple[Any, ...]]:
    connection = await asyncpg.connect(
        host=get("pod", f"{name}-0")["status"]["podIP"],
        port=postgres.PORT,
        user=postgres.USER,
        password=PASSWORD,
        database=postgres.DATABASE,
    )
    try:
        return [tuple(row) for row in await connection.fetch(statement)]
    finally:
        await connection.close()
