"""The cluster of the tests, which a machine has one of at a time: other processes of the tests wait."""

import fcntl
from collections.abc import Iterator

import pytest

from support.cluster import ground
from support.cluster.cluster import down
from support.cluster.programs import all_programs, check_machine
from support.controlplane import building
from support.controlplane.cache import cache


@pytest.fixture(scope="session")
def _machine() -> None:
    """See to it that there can be a cluster. Programs that are not there are built, which takes minutes."""
    check_machine()
    with building.scratch() as shared:
        all_programs(shared)


@pytest.fixture(scope="module")
def alone(_machine: None) -> Iterator[None]:
    """Keep others from the cluster for the tests of a module; end it when they are done."""
    with (cache() / "cluster.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if ground.processes():
            pytest.fail("There is a cluster, which somebody may need: make cluster-down ends it.")
        yield
        down()
