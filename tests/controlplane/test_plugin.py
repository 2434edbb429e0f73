"""`kubectl picopay` against a real API server and a real operator; only logs come from a stand-in."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from picopay_operator.conditions import Type
from picopay_operator.contract import ExitCode
from picopay_operator.plugin import commands
from support.controlplane.api_server import ApiServer
from support.controlplane.operating import NAME, Case, operating
from support.controlplane.player import Player
from support.controlplane.plays import Exits
from support.controlplane.servers import ControlPlane
from support.controlplane.terminal import Terminal, kubeconfig
from support.waiting import eventually
from support.world import report

HELD = {
    "ok": False,
    "exit_code": 8,
    "head": "0002",
    "steps": [{"revision": "0002", "title": "Drop the old keys", "destructive": True}],
    "plan_hash": "abc123",
}


@pytest.fixture
async def case(definition: object, api_server: ApiServer, player: Player) -> Case:
    del definition  # it is there
    return Case(api_server, player)


@pytest.fixture
async def terminal(control_plane: ControlPlane, case: Case) -> AsyncIterator[Terminal]:
    async with operating(control_plane, case.api.namespace):
        yield Terminal(control_plane.admin_kubeconfig, case.api.namespace)


async def test_from_an_upgrade_that_waits_to_the_release_before(
    terminal: Terminal, case: Case
) -> None:
    await case.secret()
    case.player.plays(Exits(0, report(release="1.0.0")), argument="migrate", image="1.0.0")
    await case.apply({"version": "1.0.0"})
    await terminal.run("status", NAME, "--exit-code", exit_code=ExitCode.FAILED)
    await case.ready()
    shown = await terminal.json("status", NAME, "--exit-code")
    assert (shown["ready"], shown["readyReplicas"]) == (True, 2)
    assert [len(one["pods"]) for one in shown["workloads"]] == [2, 1]
    assert all(pod["ready"] for one in shown["workloads"] for pod in one["pods"])

    case.player.plays(Exits(8, report(**HELD)), argument="migrate", image="1.1.0")
    await case.apply({"version": "1.1.0"})
    await case.until(Type.SCHEMA_MIGRATED, "False", "ApprovalPending")
    text = await terminal.run("status", NAME, "--exit-code", exit_code=ExitCode.FAILED)
    assert "not ready: ApprovalPending" in text
    assert f"kubectl picopay approve {NAME} --namespace {case.api.namespace}" in text
    assert "0002 Drop the old keys (destructive)" in await terminal.run("plan", NAME)

    refused = await terminal.failure("approve", NAME, "--plan-hash", "other")
    assert refused.exit_code is ExitCode.REFUSED
    migrated = report(release="1.1.0", current="0002", head="0002", applied=["0002"])
    case.player.plays(Exits(0, migrated), argument="abc123", image="1.1.0")
    assert "approved the plan abc123" in await terminal.run("approve", NAME)
    await case.ready()
    assert (await case.image()).endswith(":1.1.0")

    told = await terminal.json("rollback", NAME)
    assert told["patch"] == {"spec": {"version": "1.0.0"}}
    await case.ready()
    assert (await case.image()).endswith(":1.0.0")


async def test_a_failed_migration_and_what_has_happened(terminal: Terminal, case: Case) -> None:
    await case.secret()
    case.player.plays(Exits(5, report(exit_code=5, detail="no such column")), argument="migrate")
    await case.apply()
    await case.until(Type.STALLED, "True", "MigrationFailed")
    assert "no such column" in await terminal.run("status", NAME)
    assert "MigrationFailed" in await terminal.run("events", NAME)
    case.player.plays(Exits(0, report()), argument="migrate")
    assert "tries demo again" in await terminal.run("retry", NAME)
    await case.ready()
    assert (await terminal.failure("retry", NAME)).exit_code is ExitCode.REFUSED


async def test_the_new_version_takes_over_when_it_is_promoted(
    terminal: Terminal, case: Case
) -> None:
    rollout = {"strategy": "BlueGreen", "blueGreen": {"autoPromote": False}}
    await case.secret()
    await case.apply({"version": "1.0.0", "rollout": rollout})
    await case.ready()
    await case.apply({"version": "1.1.0", "rollout": rollout})
    await case.until(Type.ROLLOUT_COMPLETE, "False", "PromotionPending")
    api = [one for one in (await terminal.json("status", NAME))["workloads"] if one["pods"]]
    assert [one["serves"] for one in api] == [True, False, False]
    await terminal.run("promote", NAME)
    await case.ready()
    api = (await terminal.json("status", NAME))["workloads"]
    assert api[0]["serves"]
    assert api[0]["image"].endswith(":1.1.0")


async def test_the_key_is_replaced(terminal: Terminal, case: Case) -> None:
    await case.secret()
    await case.apply()
    await case.ready()
    shown = await terminal.json("keys", "show", NAME)
    before = (await case.api.get("Secret", shown["secret"]))["data"]
    await terminal.run("keys", "rotate", NAME)

    async def replaced() -> bool:
        now = (await case.api.get("Secret", shown["secret"]))["data"]
        return bool(now.get(shown["previousKey"]) == before[shown["key"]] != now[shown["key"]])

    await eventually(replaced)
    assert (await terminal.json("keys", "show", NAME))["rotation"]


async def test_what_is_not_there_or_not_reached(
    terminal: Terminal, case: Case, tmp_path: Path
) -> None:
    for command in (["status"], ["approve"], ["keys", "show"], ["events"]):
        failed = await terminal.failure(*command, "nobody")
        assert failed.exit_code is ExitCode.REFUSED
        assert '"nobody" not found' in failed.message
    failed = await terminal.failure("logs", "nobody")
    assert "no pods of the component api" in failed.message
    # Nobody listens there.
    away = Terminal(kubeconfig(tmp_path, "http://127.0.0.1:9"), case.api.namespace)
    assert (await away.failure("status", NAME)).exit_code is ExitCode.UNAVAILABLE


@asynccontextmanager
async def logging(
    folder: Path, logs: dict[str, bytes], first: asyncio.Event | None = None
) -> AsyncIterator[tuple[Path, list[Any]]]:
    """Stand in for an API server whose nodes run: it has pods, and their logs, some of them.

    The log of the pod `one` goes on until `first` is set.
    """
    asked: list[Any] = []

    async def pods(request: web.Request) -> web.Response:
        asked.append(request.query["labelSelector"])
        items = [{"metadata": {"name": name}} for name in logs]
        return web.json_response({"metadata": {}, "items": items})

    async def log(request: web.Request) -> web.Response:
        asked.append(dict(request.query))
        content = logs[request.match_info["pod"]]
        if first and request.match_info["pod"] == "one":
            await first.wait()
        if not content:
            message = "container is waiting to start"
            return web.json_response({"message": message}, status=400)
        return web.Response(body=content, content_type="text/plain")

    app = web.Application()
    app.router.add_get("/api/v1/namespaces/shop/pods", pods)
    app.router.add_get("/api/v1/namespaces/shop/pods/{pod}/log", log)
    runner = web.AppRunner(app)
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        port = runner.addresses[0][1]
        yield kubeconfig(folder, f"http://127.0.0.1:{port}"), asked
    finally:
        await runner.cleanup()


@pytest.mark.parametrize("follow", [[], ["--follow"]])
async def test_logs_of_all_pods(follow: list[str], tmp_path: Path) -> None:
    long = b"x" * 300_000
    content = {"one": b"a\nb\n", "two": b"", "three": long + b"\nwithout an end"}
    async with logging(tmp_path, content) as (file, asked):
        terminal = Terminal(file, "shop")
        words = ["logs", NAME, "-c", "worker", "--previous", "--tail", "7", *follow]
        shown = (await terminal.run(*words)).splitlines()
    selector, *queries = asked
    assert selector == f"picopay.io/engine={NAME},app.kubernetes.io/component=worker"
    wanted = {"tailLines": "7", "container": "worker", "previous": "true"}
    if follow:  # the one without a log is asked again
        wanted["follow"] = "true"
        queries.remove(selector)
        assert queries == [wanted] * 4
    else:
        assert queries == [wanted] * 3
    assert [line for line in shown if line.startswith("one")] == ["one a", "one b"]
    assert f"three {long.decode()}" in shown
    assert "three without an end" in shown
    assert shown[-1] == "container is waiting to start"


async def test_logs_of_pods_that_begin_while_logs_are_followed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(commands, "_LOOK_S", 0.05)
    logs, first = {"one": b"a\n"}, asyncio.Event()
    async with logging(tmp_path, logs, first) as (file, asked):
        following = asyncio.create_task(Terminal(file, "shop").run("logs", NAME, "--follow"))

        async def has_begun() -> bool:
            return any(isinstance(one, dict) for one in asked)

        await eventually(has_begun)
        logs["two"] = b"b\n"

        async def has_found() -> bool:
            return sum(isinstance(one, dict) for one in asked) == 2

        await eventually(has_found)
        first.set()
        assert (await following).splitlines() == ["two b", "one a"]


async def test_logs_of_which_there_are_none(tmp_path: Path) -> None:
    async with logging(tmp_path, {"one": b""}) as (file, _):
        failed = await Terminal(file, "shop").failure("logs", NAME)
    assert (failed.message, failed.exit_code) == (
        "container is waiting to start",
        ExitCode.REFUSED,
    )
