"""What the cluster's benchmark puts up on a cluster, each for a block: the operator, and engines.

Used by the modules that measure, for `cluster_bench.py`. What was put up is removed at the end of its block,
also when something has failed or was interrupted.
"""

import json
import os
from base64 import b64decode
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from benchmarks.servers import BenchmarkError
from picopay_api import __version__
from picopay_api.cli.lifetime import survive_repeated_signals
from picopay_api.database_url import DatabaseUrl
from picopay_operator import names
from picopay_operator.names import Component
from support.e2e.installation import Installation
from support.e2e.kube import Kube, Manifest
from support.e2e.plugin import Options
from support.e2e.shop import NAME, Shop

REQUESTS: Manifest = {"cpu": "300m", "memory": "256Mi"}
"""What API, PostgreSQL and client ask for each, so that none is preferred where processors are short."""


def engine(replicas: int) -> Manifest:
    """Return an engine that may do as much as it can: no limit of requests, none of processors."""
    return {
        "replicas": replicas,
        "rateLimit": {"requests": 1_000_000_000},
        "resources": {"requests": REQUESTS},
        "worker": {"resources": {"requests": {"cpu": "50m", "memory": "128Mi"}}},
        "database": {"postgres": {"resources": {"requests": REQUESTS}}},
    }


@contextmanager
def room(options: Options) -> Iterator[Installation]:
    """Lend an installation of the operator that is not made yet; remove it at the end of the block.

    Raises:
        OccupiedError: there is one on the cluster already.
    """
    installation = Installation(options)
    installation.demand_room()
    with _ending(installation.clear):
        installation.kube.make_namespace()
        yield installation


@contextmanager
def shop_in(installation: Installation, name: str) -> Iterator[Shop]:
    """Lend a namespace for an engine; remove both at the end of the block.

    Raises:
        BenchmarkError: somebody else has a namespace of that name.
    """
    kube = installation.kube.of(f"picopay-bench-{name}")
    if kube.exists("namespace", kube.namespace):
        raise BenchmarkError(f"there is a namespace {kube.namespace} already")
    with _ending(lambda: kube("delete", "namespace", kube.namespace, "--timeout=3m")):
        kube.make_namespace()
        yield Shop(kube, f"{installation.api_image}:{__version__}")


@contextmanager
def _ending(remove: Callable[[], object]) -> Iterator[None]:
    try:
        yield
    except BaseException:
        survive_repeated_signals()  # whoever asks again does not hinder the removal
        raise
    finally:
        remove()


def database_of(shop: Shop) -> DatabaseUrl:
    """Return the address of an engine's own database, as this machine reaches it."""
    secret = shop.kube.get("secret", names.postgres(NAME))
    url = DatabaseUrl.parse(b64decode(secret["data"]["database-url"]).decode())
    (pod,) = shop.pods(Component.DATABASE)
    return url.replace(hosts=(pod["status"]["podIP"],))


def version_of(kube: Kube) -> str:
    """Return the version of Kubernetes."""
    told = json.loads(kube("version", "--output=json"))
    return str(told["serverVersion"]["gitVersion"]).removeprefix("v")


def processors_of(kube: Kube) -> list[str]:
    """Return how many processors each node has."""
    return [str(node["status"]["capacity"]["cpu"]) for node in kube.list("node")]


def kube_variables() -> dict[str, str]:
    """Return what kubectl has to know of this environment."""
    return {name: os.environ[name] for name in ("KUBECONFIG",) if name in os.environ}


def is_ready(pod: Any) -> bool:
    """Tell whether a pod takes requests."""
    conditions = pod["status"].get("conditions", ())
    return any(one["type"] == "Ready" and one["status"] == "True" for one in conditions)
