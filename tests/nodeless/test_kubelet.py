"""Who runs pods for the tests does with them what a kubelet does. Without a control plane."""

import asyncio
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from support.controlplane.api_server import ApiServer
from support.controlplane.kubelet import Kubelet
from support.controlplane.plays import CannotPull, Crashes, Exits, Play, Runs
from support.waiting import eventually

REPOSITORY = "picopay/picopay-api"
SERVER = """
import http.server, os, pathlib, sys
class Answers(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(503 if pathlib.Path(self.path[1:]).exists() else 200)
        self.end_headers()
http.server.HTTPServer((os.environ["API_HOST"], int(os.environ["API_PORT"])), Answers).serve_forever()
"""
"""Answers as long as there is no file in its folder that is called as the path."""
STUBBORN = """
import signal, sys, time
signal.signal(signal.SIGTERM, lambda *_: print("told to end", flush=True))
open(sys.argv[1] + "/begun", "w").close()
time.sleep(60)
time.sleep(60)
"""


class Stage:
    """Where pods are run, and what is shown of them."""

    def __init__(self, kubelet: Kubelet, folder: Path) -> None:
        self.kubelet = kubelet
        self.folder = folder
        self.ending: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self.shown: list[Play] = []

    async def show(self, play: Play) -> None:
        self.shown.append(play)

    def run(self, program: str, *arguments: str, **changes: Any) -> "asyncio.Task[Exits]":
        self.kubelet.images["1"] = [sys.executable, "-c", program]
        return asyncio.create_task(
            self.kubelet.run(pod(*arguments, **changes), self.ending, self.show)
        )

    async def until(self, *shown: Play) -> None:
        async def is_so() -> bool:
            return self.shown[: len(shown)] == list(shown)

        try:
            await eventually(is_so)
        except TimeoutError as failure:
            failure.add_note(repr(self.shown))
            raise

    async def until_begun(self) -> None:
        async def has_begun() -> bool:
            return self.has("volumes/tmp/begun")

        await eventually(has_begun)

    def has(self, file: str) -> bool:
        return (self.folder / file).exists()


def pod(*arguments: str, stays: bool = True, tag: str = "1", **container: Any) -> dict[str, Any]:
    made = {
        "name": "api",
        "image": f"{REPOSITORY}:{tag}",
        "args": list(arguments),
        "terminationMessagePath": "/dev/termination-log",
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "volumeMounts": [{"name": "tmp", "mountPath": "/tmp"}],
        **container,
    }
    return {
        "metadata": {"name": "one", "namespace": "test", "uid": "1"},
        "spec": {
            "restartPolicy": "Always" if stays else "Never",
            "terminationGracePeriodSeconds": 30,
            "containers": [made],
            "volumes": [{"name": "tmp", "emptyDir": {}}],
        },
    }


@pytest.fixture
async def stage(tmp_path: Path) -> AsyncIterator[Stage]:
    async with httpx.AsyncClient() as http:  # no pod here has anything that would be asked for
        yield Stage(Kubelet(ApiServer(http, "test"), REPOSITORY, tmp_path, {}), tmp_path / "one")


async def test_a_program_that_ends_is_started_again(stage: Stage) -> None:
    running = stage.run("import sys; sys.exit(3)")
    await stage.until(
        Runs(), Crashes(3, "", 1), Runs(restarts=1), Crashes(3, "", 2), Runs(restarts=2)
    )
    stage.ending.set_result(0)
    await running


async def test_a_job_leaves_its_code_and_its_message(stage: Stage) -> None:
    program = "import sys; open(sys.argv[1], 'w').write('done'); sys.exit(4)"
    ended = await stage.run(program, "/dev/termination-log", stays=False)
    assert ended == Exits(4, "done")
    assert stage.shown == [Runs()]


async def test_a_job_that_leaves_no_message_has_its_log_shown(stage: Stage) -> None:
    assert await stage.run("import sys; sys.exit('no')", stays=False) == Exits(1, "no\n")


async def test_who_does_not_end_in_time_is_killed(stage: Stage) -> None:
    running = stage.run(STUBBORN, "/tmp")
    await stage.until_begun()
    stage.ending.set_result(1)
    assert await running == Exits(137, "told to end\n")


async def test_before_it_is_told_to_end_a_program_goes_on_for_a_while(stage: Stage) -> None:
    program = "import sys, time; open(sys.argv[1] + '/begun', 'w').close(); time.sleep(1)"
    running = stage.run(program, "/tmp", lifecycle={"preStop": {"sleep": {"seconds": 20}}})
    await stage.until_begun()
    stage.ending.set_result(30)
    assert await running == Exits(0)


async def test_probes_are_asked_and_decide(stage: Stage) -> None:
    def probe(path: str, failures: int) -> dict[str, Any]:
        request = {"path": path, "port": "http"}
        times = {"periodSeconds": 0.05, "timeoutSeconds": 5, "failureThreshold": failures}
        return {"httpGet": request, **times}

    running = stage.run(
        SERVER,
        env=[{"name": "API_PORT", "value": "8000"}],
        ports=[{"name": "http", "containerPort": 8000}],
        terminationMessagePolicy="File",
        startupProbe=probe("/live", 600),
        readinessProbe=probe("/ready", 2),
        livenessProbe=probe("/live", 3),
    )
    seen: list[Play] = [Runs(ready=False), Runs()]
    await stage.until(*seen)
    (stage.folder / "ready").touch()
    seen.append(Runs(ready=False))
    await stage.until(*seen)
    (stage.folder / "ready").unlink()
    seen.append(Runs())
    await stage.until(*seen)
    (stage.folder / "live").touch()
    seen += [Crashes(143, "", 1), Runs(ready=False, restarts=1)]
    await stage.until(*seen)
    (stage.folder / "live").unlink()
    await stage.until(*seen, Runs(restarts=1))
    stage.ending.set_result(30)
    assert (await running).code == 143


async def test_an_image_that_is_not_there_is_not_run(stage: Stage) -> None:
    running = stage.run("", tag="2")
    await stage.until(CannotPull())
    stage.ending.set_result(30)
    await running


async def test_pods_of_others_are_left_alone(stage: Stage) -> None:
    assert stage.kubelet.concerns(pod())
    assert not stage.kubelet.concerns(pod() | {"metadata": {"namespace": "other"}})
    assert not stage.kubelet.concerns(pod(image="docker.io/library/postgres:18"))
