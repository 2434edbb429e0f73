"""Fixtures of a real control plane, and the making of its programs beside the other tests.

A plugin of pytest, named in `conftest.py`. Programs that are not there yet are made by a process of its own,
which begins as soon as it is known that a test needs them; those tests wait for it before their time counts.
"""

import itertools
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Generator, Iterator
from contextlib import asynccontextmanager, suppress
from functools import cache
from pathlib import Path

import pytest

from picopay_operator import crd, names
from support.controlplane import foreign
from support.controlplane.api_server import ApiServer, Manifest, RefusedError, connected
from support.controlplane.player import Player, playing
from support.controlplane.programs import are_there, programs
from support.controlplane.servers import ControlPlane
from support.controlplane.servers import control_plane as running
from support.waiting import eventually

_FIXTURE = "control_plane"
_TESTS = Path(__file__).parents[2]
_maker = pytest.StashKey[subprocess.Popen[bytes]]()
_numbers = itertools.count(1)


def pytest_collection_finish(session: pytest.Session) -> None:
    """Begin to make the programs, when a test needs them and they are not there."""
    config = session.config
    needed = any(_needs_control_plane(item) for item in session.items)
    if not needed or config.option.collectonly or _worker(config) != "gw0" or are_there():
        return
    capture = config.pluginmanager.getplugin("capturemanager")
    assert capture is not None
    with capture.global_and_fixture_disabled():  # it tells people what it does
        config.stash[_maker] = subprocess.Popen(
            [sys.executable, "-m", "support.controlplane.programs"],
            env=os.environ | {"PYTHONPATH": os.pathsep.join([str(_TESTS), *sys.path])},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
        )


@pytest.hookimpl(tryfirst=True, wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    """Wait for the programs before the time of a test begins to count."""
    if _needs_control_plane(item):
        _programs()
    return (yield)


def pytest_unconfigure(config: pytest.Config) -> None:
    """End what makes the programs, if nobody waits for them any more."""
    maker = config.stash.get(_maker, None)
    if maker is not None and maker.poll() is None:
        maker.send_signal(signal.SIGINT)
        maker.wait()


@cache
def _programs() -> Path | Exception:
    """Return the folder of the programs, or why there is none: that is found out once."""
    try:
        return programs()
    except Exception as error:  # noqa: BLE001  # shown by every test that needs them
        return error


def _needs_control_plane(item: pytest.Item) -> bool:
    return _FIXTURE in getattr(item, "fixturenames", ())


def _worker(config: pytest.Config) -> str:
    """Return the name of this process among those of pytest-xdist."""
    name: str = getattr(config, "workerinput", {"workerid": "gw0"})["workerid"]
    return name


@pytest.fixture(scope="session")
def control_plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    """Return a control plane that runs; one per process."""
    found = _programs()
    if isinstance(found, Exception):
        raise found
    with running(tmp_path_factory.mktemp("control-plane"), found) as plane:
        yield plane


@pytest.fixture
async def api_server(control_plane: ControlPlane) -> AsyncIterator[ApiServer]:
    """Return a client, and a namespace of the test's own in which Pod Security is `restricted`."""
    name = f"test-{next(_numbers)}"
    labels = {"pod-security.kubernetes.io/enforce": "restricted"}
    async with connected(control_plane, name) as client:
        metadata = {"name": name, "labels": labels}
        await client.create({"apiVersion": "v1", "kind": "Namespace", "metadata": metadata})
        yield client
        await client.delete("Namespace", name)


@pytest.fixture
async def player(api_server: ApiServer) -> AsyncIterator[Player]:
    """Return who plays the kubelet on the control plane's nodes."""
    async with playing(api_server) as player:
        yield player


@pytest.fixture
async def definition(api_server: ApiServer) -> Manifest:
    """Return the definition of a `PicoPayEngine`, which the API server serves."""
    return await served(api_server, crd.definition())


@pytest.fixture
async def no_definition(api_server: ApiServer) -> AsyncIterator[None]:
    """Have the API server know no `PicoPayEngine`: as before an operator is installed, and afterwards."""
    await _without_engines(api_server)
    yield
    await _without_engines(api_server)


@pytest.fixture
async def foreign_kinds(api_server: ApiServer) -> AsyncIterator[None]:
    """Have the API server serve the kinds that a cluster may lack, as their projects define them."""
    async with foreign_kinds_served(api_server):
        yield


@asynccontextmanager
async def foreign_kinds_served(api_server: ApiServer) -> AsyncIterator[None]:
    """Have them served until the end of the block, and gone afterwards with all their objects."""
    wanted = foreign.definitions()
    for one in wanted:
        await served(api_server, one)
    yield
    for one in wanted:
        await _undefine(api_server, one["metadata"]["name"])


async def served(api_server: ApiServer, wanted: Manifest) -> Manifest:
    """Apply a definition, and return it once its kind is served."""
    name = wanted["metadata"]["name"]

    async def is_served() -> bool:
        await api_server.apply(wanted)
        found = await api_server.get("CustomResourceDefinition", name)
        conditions = {one["type"]: one["status"] for one in found["status"].get("conditions") or ()}
        return conditions.get("Established") == "True" and "Terminating" not in conditions

    await eventually(is_served)
    return await api_server.get("CustomResourceDefinition", name)


async def _undefine(api_server: ApiServer, name: str) -> None:
    """Delete a definition, and wait until its kind is gone with all its objects."""

    async def is_gone() -> bool:
        return await api_server.find("CustomResourceDefinition", name) is None

    if not await is_gone():
        await api_server.delete("CustomResourceDefinition", name)
        await eventually(is_gone)


async def _without_engines(api_server: ApiServer) -> None:
    """Undefine engines; those that other tests have left are held back by no operator any more."""
    name = crd.definition()["metadata"]["name"]
    if await api_server.find("CustomResourceDefinition", name) is None:
        return
    listed: Manifest = {}

    async def are_listed() -> bool:
        try:
            answer = await api_server.request("GET", f"/apis/{names.API_VERSION}/{names.PLURAL}")
        except RefusedError:  # it has changed a moment ago, and is not served again yet
            return False
        listed.update(answer)
        return True

    await eventually(are_listed)
    for one in listed["items"]:
        place = one["metadata"]
        if place.get("finalizers"):
            free = {"metadata": {"finalizers": None}}
            with suppress(RefusedError):  # it goes with its namespace meanwhile
                await api_server.merge(names.KIND, place["name"], free, place["namespace"])
    await _undefine(api_server, name)
