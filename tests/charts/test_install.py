"""The installer of k8s/: it waits for the kind of an engine, and tells what is wrong with one."""

import json
import sys
from asyncio import create_subprocess_exec, subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import yaml
from aiohttp import web

ENGINE = {
    "apiVersion": "picopay.io/v1beta1",
    "kind": "PicoPayEngine",
    "metadata": {"name": "picopay", "namespace": "payments"},
    "spec": {"database": {"secretRef": {"name": "picopay-secrets"}}},
}
PATH = "/apis/picopay.io/v1beta1/namespaces/payments/picopayengines/picopay"


class Server:
    """Answers each request with the next of its statuses, the last one for ever, and keeps what came."""

    def __init__(self, *statuses: int) -> None:
        self._statuses: Iterator[int] = iter(statuses)
        self._status = 0
        self.came: list[tuple[str, str, dict[str, str], Any]] = []

    async def answer(self, request: web.Request) -> web.Response:
        self._status = next(self._statuses, self._status)
        headers = {"type": request.content_type, **request.query}
        self.came.append((request.method, request.path, headers, await request.json()))
        refusal = {"kind": "Status", "message": f"the server says {self._status}"}
        return web.json_response(ENGINE if self._status == 200 else refusal, status=self._status)


@asynccontextmanager
async def listening(server: Server, folder: Path) -> AsyncIterator[Path]:
    """Serve on loopback; yield a kubeconfig for it."""
    application = web.Application()
    application.router.add_route("*", "/{path:.*}", server.answer)
    runner = web.AppRunner(application)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        host, port = runner.addresses[0][:2]
        kubeconfig = folder / "kubeconfig"
        kubeconfig.write_text(
            json.dumps(
                {
                    "current-context": "it",
                    "contexts": [{"name": "it", "context": {"cluster": "it", "user": "it"}}],
                    "clusters": [{"name": "it", "cluster": {"server": f"http://{host}:{port}"}}],
                    "users": [{"name": "it", "user": {}}],
                }
            ),
            encoding="utf-8",
        )
        yield kubeconfig
    finally:
        await runner.cleanup()


async def installed(server: Server, folder: Path) -> tuple[int | None, str]:
    """Run the installer; return its exit code and all that it says."""
    engines = folder / "engines"
    engines.mkdir()
    (engines / "engine.yaml").write_text(yaml.safe_dump(ENGINE), encoding="utf-8")
    async with listening(server, folder) as kubeconfig:
        process = await create_subprocess_exec(
            *(sys.executable, "-m", "picopay_operator.install", engines),
            env={"KUBECONFIG": str(kubeconfig)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        said, _ = await process.communicate()
        return process.returncode, said.decode()


async def test_it_waits_for_the_kind_and_applies_the_engine(tmp_path: Path) -> None:
    server = Server(404, 503, 403, 200)
    assert await installed(server, tmp_path) == (0, "PicoPayEngine picopay applied\n")
    assert len(server.came) == 4
    assert server.came[-1] == (
        "PATCH",
        PATH,
        {
            "type": "application/apply-patch+yaml",
            "fieldManager": "picopay-install",
            "force": "true",
        },
        ENGINE,
    )


async def test_an_engine_that_is_refused_is_not_tried_again(tmp_path: Path) -> None:
    server = Server(422)
    code, said = await installed(server, tmp_path)
    assert code == 1
    assert "the server says 422" in said
    assert len(server.came) == 1
