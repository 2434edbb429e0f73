"""Payments between accounts of an engine on a cluster, by the benchmark's client: from a pod, or from here.

Used by `cluster_speed.py`. The client is the same in both places. In the pod it runs in the API's image, from
a ConfigMap.
"""

import asyncio
import itertools
import socket
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

from benchmarks import client
from benchmarks.client import Job, Report
from benchmarks.cluster_ground import REQUESTS, database_of, kube_variables
from benchmarks.ground import Tenant, make_tenant
from benchmarks.load import Client, asking
from benchmarks.servers import BenchmarkError, Server
from benchmarks.soundness import Tally, add_up
from picopay_api.database_url import DatabaseUrl
from picopay_api.engine.engine import Engine
from picopay_api.settings import Settings
from picopay_operator import names
from support.e2e.kube import PATIENCE_S, Manifest
from support.e2e.shop import NAME, Shop

CONNECTIONS = 64
_ACCOUNTS = 1_000
_WARM_UP_S = 3.0
_PAY_ON_S = 1_800.0
"""How long a client pays that is not asked to stop."""
_REACH_S = 5.0

_POD = "bench"
_FOLDER = "/bench"
_MODULES = ("client.py", "arithmetic.py", "schedule.py")
_PID_FILE = "/tmp/client"


class Payers:
    """A ledger of its own in an engine's database, whose accounts pay each other."""

    def __init__(self, shop: Shop, work: Path) -> None:
        """Make the ledger, and put up the pod in which clients are started.

        Raises:
            BenchmarkError: this machine does not reach the database.
        """
        self.url = database_of(shop)
        _demand_reach(self.url)
        self._kube = shop.kube
        self._audited = f"deployment/{shop.deployment()}"
        self._tenant = asyncio.run(_tenant(self.url, work))
        self._tally = Tally()
        self._runs = itertools.count(1)
        files = {name: Path(client.__file__).with_name(name).read_text() for name in _MODULES}
        files["accounts"] = self._tenant.accounts_file.read_text()
        metadata = {"name": _POD}
        self._kube.apply(
            {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": files},
            {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": _pod(shop.image)},
        )
        ready = ("wait", "--for=condition=Ready", f"pod/{_POD}", f"--timeout={PATIENCE_S:.0f}s")
        self._kube(*ready)

    def from_pod(self, seconds: float) -> Report:
        """Pay through the Service from the pod, as fast as it goes."""
        with self._asking_in_pod(seconds) as asked:
            return self._reported(asked)

    def from_here(self, server: Server, seconds: float) -> Report:
        """Pay at a server on this machine, from this machine, as fast as it goes."""
        accounts = str(self._tenant.accounts_file)
        with asking(self._job(client.HOST, server.port, accounts, seconds)) as asked:
            return self._reported(asked)

    def from_pod_during(self, act: Callable[[], None], per_s: float) -> Report:
        """Pay through the Service from the pod at a constant rate, while something is done.

        Requests may fail: they are counted.
        """
        with self._asking_in_pod(_PAY_ON_S, per_s) as asked:
            asked.expect("measuring")
            act()
            self._kube("exec", _POD, "--", "sh", "-c", f"kill -TERM $(cat {_PID_FILE})")
            return self._reported(asked, began=True)

    def demand_soundness(self) -> None:
        """Have the books audited in a pod, and count the payments in them.

        Raises:
            CommandError: the audit has found something.
            BenchmarkError: a payment that was acknowledged is not there, or something does not add up.
        """
        self._kube("exec", self._audited, "--", "picopay", "audit")
        asyncio.run(add_up(self.url, self._tally))

    def _asking_in_pod(
        self, seconds: float, per_s: float | None = None
    ) -> AbstractContextManager[Client]:
        start = f"echo $$ > {_PID_FILE} && exec python -m benchmarks.client"
        command = self._kube.command("exec", "--stdin", _POD, "--", "sh", "-c", start)
        accounts = f"{_FOLDER}/benchmarks/accounts"
        job = self._job(names.api(NAME), 80, accounts, seconds, per_s)
        return asking(job, command, **kube_variables())

    def _job(
        self, host: str, port: int, accounts: str, seconds: float, per_s: float | None = None
    ) -> Job:
        return Job(
            host=host,
            port=port,
            connections=CONNECTIONS,
            warm_up_s=_WARM_UP_S,
            seconds=seconds,
            api_key=self._tenant.api_key,
            accounts_file=accounts,
            hot=False,
            run=f"run-{next(self._runs)}",
            per_s=per_s,
            failures_expected=per_s is not None,
        )

    def _reported(self, asked: Client, *, began: bool = False) -> Report:
        if not began:
            asked.expect("measuring")
        asked.expect("measured")
        report = asked.report()
        self._tally.add(report)
        return report


async def _tenant(url: DatabaseUrl, work: Path) -> Tenant:
    async with Engine.open(Settings(database_url=url)) as engine:
        return await make_tenant(engine, url, "bench", _ACCOUNTS, work)


def _demand_reach(url: DatabaseUrl) -> None:
    place = url.hosts[0], url.ports[0]
    try:
        socket.create_connection(place, timeout=_REACH_S).close()
    except OSError as error:
        raise BenchmarkError(
            f"this machine has to reach pods by their addresses, and {place[0]} says: {error}"
        ) from error


def _pod(image: str) -> Manifest:
    closed = {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    container = {
        "name": _POD,
        "image": image,
        "command": ["sleep", "infinity"],
        "env": [{"name": "PYTHONPATH", "value": _FOLDER}],
        "resources": {"requests": REQUESTS},
        "securityContext": closed,
        "volumeMounts": [
            {"name": "program", "mountPath": f"{_FOLDER}/benchmarks"},
            {"name": "tmp", "mountPath": "/tmp"},
        ],
    }
    return {
        "restartPolicy": "Never",
        "terminationGracePeriodSeconds": 1,
        "automountServiceAccountToken": False,
        "securityContext": {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}},
        "containers": [container],
        "volumes": [
            {"name": "program", "configMap": {"name": _POD}},
            {"name": "tmp", "emptyDir": {}},
        ],
    }
