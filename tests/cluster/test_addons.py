"""The add-ons of a cluster work: requests come in, pods are measured, databases are kept."""

import asyncio
import base64
import json
import os
import time
from collections.abc import Callable, Iterator
from typing import Any

import asyncpg
import httpx
import pytest
import yaml

from support.cluster.addons import ADDONS
from support.cluster.cluster import down, kubectl, up
from support.cluster.postgres_image import REPOSITORY, STAND_IN_BASE, postgres_image
from support.images import Engine

pytestmark = pytest.mark.timeout(3_600)  # the first test may have to wait for programs to be built

IMAGE = "localhost/picopay-addons-test:1"
PATIENCE_S = 240
SERVER = """
import http.server, os

class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(os.environ["HOSTNAME"].encode())

http.server.HTTPServer(("0.0.0.0", 8080), Handler).serve_forever()
"""
HOSTS = {"Ingress": "ingress.example", "HTTPRoute": "route.example"}


@pytest.fixture(scope="module", autouse=True)
def _cluster(
    alone: None,  # noqa: ARG001  # a fixture may be needed without its value
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[None]:
    """Start a cluster with all add-ons, and images of PostgreSQL and of a system with Python."""
    folder = tmp_path_factory.mktemp("images")
    (folder / "Dockerfile").write_text("ARG BASE\nFROM $BASE\n")
    base = os.environ.get("BASE") or STAND_IN_BASE
    Engine(folder).make_another(IMAGE, folder, folder / "test.tar", base)
    down()
    up([folder / "test.tar", postgres_image(folder, base)], sorted(ADDONS))
    yield
    down()


def apply(*manifests: Any) -> None:
    kubectl("apply", "--filename=-", given=yaml.safe_dump_all(manifests))


def get(kind: str, name: str, namespace: str = "default") -> Any:
    return json.loads(kubectl("get", kind, name, f"--namespace={namespace}", "--output=json"))


def until(holds: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not holds():
        assert time.monotonic() < deadline, what
        time.sleep(0.5)


def deployment(name: str, program: str) -> Any:
    container = {
        "name": "only",
        "image": IMAGE,
        "command": ["python3", "-c", program],
        "resources": {"requests": {"cpu": "50m"}, "limits": {"cpu": "200m"}},
    }
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name},
        "spec": {
            "selector": {"matchLabels": {"app": name}},
            "template": {
                "metadata": {"labels": {"app": name}},
                "spec": {"containers": [container], "terminationGracePeriodSeconds": 0},
            },
        },
    }


def routes() -> Iterator[Any]:
    """Yield a Service, and an Ingress and an HTTPRoute that lead to it."""
    ports = [{"name": "http", "port": 80, "targetPort": 8080}]
    yield {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "web"},
        "spec": {"selector": {"app": "web"}, "ports": ports},
    }
    backend = {"service": {"name": "web", "port": {"name": "http"}}}
    paths = [{"path": "/", "pathType": "Prefix", "backend": backend}]
    yield {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "Ingress",
        "metadata": {"name": "web"},
        "spec": {
            "ingressClassName": "traefik",
            "rules": [{"host": HOSTS["Ingress"], "http": {"paths": paths}}],
        },
    }
    yield {
        "apiVersion": "gateway.networking.k8s.io/v1",
        "kind": "HTTPRoute",
        "metadata": {"name": "web"},
        "spec": {
            "parentRefs": [{"name": "traefik", "namespace": "ingress"}],
            "hostnames": [HOSTS["HTTPRoute"]],
            "rules": [{"backendRefs": [{"name": "web", "port": 80}]}],
        },
    }


@pytest.fixture(scope="module")
def _web() -> Iterator[None]:
    apply(deployment("web", SERVER), *routes())
    yield
    kubectl("delete", "deployment,service,ingress,httproute", "web")


@pytest.mark.usefixtures("_web")
@pytest.mark.parametrize("kind", HOSTS)
def test_a_request_from_outside_comes_to_a_pod(kind: str) -> None:
    until(lambda: asked(HOSTS[kind]).is_success, f"what the {kind} leads to")
    assert asked(HOSTS[kind]).text.startswith("web-")
    assert asked("other.example").status_code == httpx.codes.NOT_FOUND


@pytest.mark.usefixtures("_web")
def test_what_leads_requests_says_so_in_the_status() -> None:
    until(lambda: traefik() in json.dumps(get("ingress", "web")["status"]), "the address")
    until(lambda: bool(get("httproute", "web").get("status", {}).get("parents")), "the parent")
    (parent,) = get("httproute", "web")["status"]["parents"]
    assert {one["type"] for one in parent["conditions"] if one["status"] == "True"} >= {"Accepted"}


def traefik() -> str:
    address: str = get("service", "traefik", "ingress")["spec"]["clusterIP"]
    return address


def asked(host: str) -> httpx.Response:
    return httpx.get(f"http://{traefik()}/", headers={"Host": host})


def test_an_autoscaler_adds_pods_when_processors_are_busy() -> None:
    scaler = {
        "apiVersion": "autoscaling/v2",
        "kind": "HorizontalPodAutoscaler",
        "metadata": {"name": "busy"},
        "spec": {
            "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "busy"},
            "minReplicas": 1,
            "maxReplicas": 2,
            "metrics": [
                {
                    "type": "Resource",
                    "resource": {
                        "name": "cpu",
                        "target": {"type": "Utilization", "averageUtilization": 50},
                    },
                }
            ],
        },
    }
    apply(deployment("busy", "while True: pass"), scaler)
    until(lambda: get("deployment", "busy")["spec"]["replicas"] == 2, "another pod")
    assert "busy-" in kubectl("top", "pods")
    kubectl("delete", "deployment,horizontalpodautoscaler", "busy")


def test_cloudnativepg_keeps_a_database_on_two_instances() -> None:
    cluster = {
        "apiVersion": "postgresql.cnpg.io/v1",
        "kind": "Cluster",
        "metadata": {"name": "pg"},
        "spec": {"instances": 2, "imageName": f"{REPOSITORY}:18", "storage": {"size": "1Gi"}},
    }
    apply(cluster)
    kubectl("wait", "--for=condition=Ready", "cluster.postgresql.cnpg.io/pg", "--timeout=240s")
    assert get("cluster.postgresql.cnpg.io", "pg")["status"]["readyInstances"] == 2
    data = get("secret", "pg-app")["data"]
    wanted = {key: base64.b64decode(data[key]).decode() for key in ("user", "password", "dbname")}

    def told(service: str, statement: str) -> list[tuple[Any, ...]]:
        address = get("service", f"pg-{service}")["spec"]["clusterIP"]
        return asyncio.run(_told(address, wanted, statement))

    told("rw", "CREATE TABLE kept AS SELECT 7 AS number")
    until(lambda: told("ro", "SELECT to_regclass('kept') IS NOT NULL") == [(True,)], "the standby")
    question = "SELECT number, pg_is_in_recovery() FROM kept"
    assert told("rw", question) == [(7, False)]
    assert told("ro", question) == [(7, True)]
    kubectl("delete", "cluster.postgresql.cnpg.io", "pg")


async def _told(address: str, wanted: dict[str, str], statement: str) -> list[tuple[Any, ...]]:
    connection = await asyncpg.connect(
        host=address,
        user=wanted["user"],
        password=wanted["password"],
        database=wanted["dbname"],
    )
    try:
        return [tuple(row) for row in await connection.fetch(statement)]
    finally:
        await connection.close()
