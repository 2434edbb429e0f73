"""The operator is killed after every single write that it makes, and started again: nothing comes of that.

What it reads changes nothing, so to end after a read is to end after the write before it. No answer to the
last write arrives: whoever is killed meanwhile does not learn of it either.
"""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable

import pytest

from picopay_operator.__main__ import Operator
from support.controlplane.api_proxy import Answered, proxied_api
from support.controlplane.api_server import Manifest
from support.controlplane.operating import NAME, Case, settings_of
from support.controlplane.plays import Exits
from support.controlplane.servers import ControlPlane
from support.world import report

pytestmark = [pytest.mark.usefixtures("definition"), pytest.mark.timeout(1_200)]

_LIVES_MIN = 10  # far fewer than it takes: the test would have lost its sense
_LIVES_MAX = 150
_CREATED = 201
_QUIET_S = 1.0


class Lives:
    """One operator after the other, of which each is killed after its first write."""

    def __init__(self, plane: ControlPlane, case: Case) -> None:
        self._plane = plane
        self._case = case
        self.written: list[Answered] = []
        self.keys: set[str] = set()
        """The administrator's keys that there were so far."""

    async def go_on(self, until: Callable[[], Awaitable[bool]]) -> int:
        """Start operators until something is so and one of them writes nothing; return their number."""
        for number in range(1, _LIVES_MAX):
            if not await self._live(until):
                return number
        last = [f"{one.asked.method} {one.asked.path}" for one in self.written[-20:]]
        raise AssertionError("\n".join(["it never comes to rest:", *last]))

    async def _live(self, until: Callable[[], Awaitable[bool]]) -> bool:
        """Run an operator; return whether it was killed."""
        async with proxied_api(self._plane) as proxy:
            proxy.last = self._is_last
            settings = settings_of(self._case.api.namespace)
            running = asyncio.create_task(
                Operator(settings, proxy.configuration()).run(asyncio.Event())
            )
            killed = asyncio.create_task(proxy.ended.wait())
            try:
                while not killed.done():
                    assert not running.done(), running.exception()
                    await asyncio.wait({killed, running}, timeout=_QUIET_S)
                    if not killed.done() and await until():
                        # Nobody wrote for a while, and what is waited for is there.
                        await asyncio.wait({killed}, timeout=_QUIET_S)
                        break
            finally:
                await proxy.close()  # nothing that it does in its end comes through
                for task in (running, killed):
                    task.cancel()
                await asyncio.gather(running, killed, return_exceptions=True)
            await self._note_key()
            return proxy.ended.is_set()

    def _is_last(self, answered: Answered) -> bool:
        if not answered.changes or answered.asked.is_of_election:
            return False
        self.written.append(answered)
        return True

    async def _note_key(self) -> None:
        secret = await self._case.api.find("Secret", f"{NAME}-admin-key")
        if secret:
            self.keys.add(secret["data"]["api-key"])

    def created(self) -> Counter[str]:
        """Return what was created, and how often, but for Events."""
        paths = [one.asked.path for one in self.written if one.status == _CREATED]
        return Counter(path for path in paths if not path.endswith("/events"))


@pytest.mark.parametrize(
    "spec",
    [
        pytest.param({}, id="the smallest"),
        pytest.param(
            {
                "database": {"secretRef": None, "postgres": {"storage": {"size": "1Gi"}}},
                "rollout": {"strategy": "BlueGreen"},
            },
            id="blue-green on a database of its own",
        ),
    ],
)
async def test_nothing_comes_of_a_kill_after_any_write(
    control_plane: ControlPlane, case: Case, spec: Manifest
) -> None:
    lives = Lives(control_plane, case)
    await case.secret()
    await case.apply(spec | {"version": "1.0.0"})
    assert await lives.go_on(case.is_ready) > _LIVES_MIN
    told = Counter(await case.events())
    # What nobody was there to see begin is not told of; and nothing is told twice.
    assert (told["RolloutCompleted"], max(told.values())) == (1, 1), told

    release = report(release="1.1.0")
    case.player.plays(Exits(0, release), argument="migrate", image="1.1.0")
    await case.apply(spec | {"version": "1.1.0"})
    await lives.go_on(case.is_ready)
    image = await case.image(await case.serving())
    assert image.endswith(":1.1.0")

    # One migration for each image, one key; and whoever has the key may go on using it.
    created = lives.created()
    assert set(created.values()) == {1}, created
    assert sum("/jobs/demo-migrate-" in path for path in created) == 2, created
    assert sum("/jobs/demo-key-" in path for path in created) == 1, created
    assert len(lives.keys) == 1

    await case.api.delete("PicoPayEngine", NAME)
    await lives.go_on(case.is_gone)
    assert lives.created() == created
    secret = await case.api.get("Secret", f"{NAME}-admin-key")
    assert lives.keys == {secret["data"]["api-key"]}
