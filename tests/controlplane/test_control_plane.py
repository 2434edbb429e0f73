"""The control plane of the tests: Kubernetes' own admission and controllers, and pods that are played."""

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

from support.controlplane.api_server import ApiServer, Manifest, RefusedError
from support.controlplane.player import Player
from support.controlplane.plays import CannotPull, Crashes, Exits, Hangs, Runs
from support.controlplane.servers import ControlPlane
from support.postgres import CHECKOUT
from support.waiting import eventually

RESTRICTED = {
    "allowPrivilegeEscalation": False,
    "capabilities": {"drop": ["ALL"]},
    "runAsNonRoot": True,
    "seccompProfile": {"type": "RuntimeDefault"},
}
LABELS = {"app": "some"}


def pod_spec(*args: str, **fields: Any) -> Manifest:
    container = {
        "name": "some",
        "image": "some:1",
        "args": list(args),
        "securityContext": RESTRICTED,
    }
    return {"containers": [container], **fields}


def deployment(*args: str, replicas: int = 2) -> Manifest:
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "some"},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": LABELS},
            "template": {"metadata": {"labels": LABELS}, "spec": pod_spec(*args)},
        },
    }


def job(*args: str) -> Manifest:
    rule = {"action": "FailJob", "onExitCodes": {"operator": "In", "values": [5]}}
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": "some"},
        "spec": {
            "backoffLimit": 3,
            "podFailurePolicy": {"rules": [rule]},
            "template": {"spec": pod_spec(*args, restartPolicy="Never")},
        },
    }


def holds(item: Manifest, condition: str) -> bool:
    found = item.get("status", {}).get("conditions", ())
    return any(one["type"] == condition and one["status"] == "True" for one in found)


async def pods(api_server: ApiServer) -> list[Manifest]:
    return await api_server.list("Pod", "app=some")


async def available(api_server: ApiServer, number: int) -> None:
    async def is_so() -> bool:
        found = await api_server.get("Deployment", "some")
        return bool(found.get("status", {}).get("availableReplicas", 0) == number)

    await eventually(is_so)


async def ended(api_server: ApiServer, condition: str) -> Manifest:
    async def is_so() -> bool:
        return holds(await api_server.get("Job", "some"), condition)

    await eventually(is_so)
    return await api_server.get("Job", "some")


async def test_a_pod_that_is_not_restricted_is_refused(api_server: ApiServer) -> None:
    spec = {"containers": [{"name": "some", "image": "some:1"}]}
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "some"}, "spec": spec}

    async def is_refused() -> bool:
        with pytest.raises(RefusedError) as refused:
            await api_server.create(pod)
        # The service account of a namespace comes a moment after it.
        return "restricted" in refused.value.message

    await eventually(is_refused)


async def test_pods_of_a_deployment_become_ready_on_all_nodes(
    api_server: ApiServer, player: Player
) -> None:
    await api_server.apply(deployment(replicas=3))
    await available(api_server, 3)
    found = await pods(api_server)
    assert len({pod["spec"]["nodeName"] for pod in found}) == 3
    assert len({pod["status"]["podIP"] for pod in found}) == 3
    player.plays(Runs(ready=False), argument="nobody")  # concerns no pod
    await available(api_server, 3)


async def test_pods_lose_and_regain_their_readiness(api_server: ApiServer, player: Player) -> None:
    await api_server.apply(deployment())
    await available(api_server, 2)
    player.plays(Runs(ready=False))
    await available(api_server, 0)
    player.plays(Runs())
    await available(api_server, 2)


@pytest.mark.usefixtures("player")
async def test_a_deployment_that_is_deleted_takes_its_pods_along(api_server: ApiServer) -> None:
    await api_server.apply(deployment())
    await available(api_server, 2)
    await api_server.delete("Deployment", "some")

    async def are_gone() -> bool:
        return not await pods(api_server)

    await eventually(are_gone)


@pytest.mark.parametrize(
    ("play", "reason"),
    [
        (CannotPull(), "ImagePullBackOff"),
        (Crashes(), "CrashLoopBackOff"),
        (Hangs(), "ContainerCreating"),
    ],
)
async def test_pods_that_do_not_come_up_say_why(
    api_server: ApiServer, player: Player, play: CannotPull | Crashes | Hangs, reason: str
) -> None:
    player.plays(play, image="some:")
    await api_server.apply(deployment(replicas=1))

    async def is_told() -> bool:
        found = [pod["status"].get("containerStatuses", [{}])[0] for pod in await pods(api_server)]
        states = [one.get("state", {}).get("waiting", {}) for one in found]
        return any(state.get("reason") == reason for state in states)

    await eventually(is_told)


async def test_a_job_succeeds(api_server: ApiServer, player: Player) -> None:
    player.plays(Exits(message='{"ok": true}'), argument="migrate")
    await api_server.apply(job("migrate"))
    assert (await ended(api_server, "Complete"))["status"]["succeeded"] == 1
    (pod,) = await api_server.list("Pod", "job-name=some")
    (container,) = pod["status"]["containerStatuses"]
    assert container["state"]["terminated"]["message"] == '{"ok": true}'


async def test_a_job_fails_by_its_policy_for_exit_codes(
    api_server: ApiServer, player: Player
) -> None:
    player.plays(Exits(5), argument="migrate")
    await api_server.apply(job("migrate"))
    found = await ended(api_server, "Failed")
    assert found["status"]["failed"] == 1
    assert "exit code 5" in found["status"]["conditions"][0]["message"]


@pytest.mark.usefixtures("player")
async def test_a_claim_of_a_stateful_set_gets_a_volume(api_server: ApiServer) -> None:
    claim = {
        "metadata": {"name": "data"},
        "spec": {
            "accessModes": ["ReadWriteOnce"],
            "resources": {"requests": {"storage": "1Gi"}},
        },
    }
    template = {"metadata": {"labels": LABELS}, "spec": pod_spec()}
    spec = {
        "serviceName": "some",
        "selector": {"matchLabels": LABELS},
        "template": template,
        "volumeClaimTemplates": [claim],
    }
    item = {"apiVersion": "apps/v1", "kind": "StatefulSet", "metadata": {"name": "some"}}
    await api_server.apply({**item, "spec": spec})

    async def is_ready() -> bool:
        found = await api_server.get("StatefulSet", "some")
        return bool(found.get("status", {}).get("readyReplicas") == 1)

    await eventually(is_ready)
    bound = await api_server.get("PersistentVolumeClaim", "data-some-0")
    assert bound["status"]["phase"] == "Bound"


async def test_the_control_plane_is_the_version_that_is_pinned(
    api_server: ApiServer, control_plane: ControlPlane
) -> None:
    version = await api_server.request("GET", "/version")
    assert (version["major"], version["minor"]) == ("1", "37")
    assert control_plane.url.startswith("https://127.0.0.1:")


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux ends a child with its parent")
def test_another_one_beside_it_ends_with_whoever_has_started_it(
    control_plane: ControlPlane, tmp_path: Path
) -> None:
    script = (
        "import sys, time\n"
        "from pathlib import Path\n"
        "from support.controlplane.servers import control_plane\n"
        "with control_plane(Path(sys.argv[1]), Path(sys.argv[2])) as plane:\n"
        "    print(plane.url, flush=True)\n"
        "    time.sleep(600)\n"
    )
    paths = os.pathsep.join([str(CHECKOUT / "api"), str(CHECKOUT / "tests")])
    with subprocess.Popen(
        [sys.executable, "-c", script, tmp_path, control_plane.programs],
        env=os.environ | {"PYTHONPATH": paths},
        stdout=subprocess.PIPE,
    ) as parent:
        assert parent.stdout is not None
        assert parent.stdout.readline().startswith(b"https://")
        children = psutil.Process(parent.pid).children()
        assert len(children) == 4
        parent.kill()
    deadline = time.monotonic() + 60
    while any(child.is_running() and child.status() != "zombie" for child in children):
        assert time.monotonic() < deadline, "it goes on without its parent"
        time.sleep(0.1)
