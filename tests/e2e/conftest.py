"""The operator on a cluster, engines in namespaces of their own, and what is saved when a test fails.

The tests are run one after the other: each may do to the node and to the operator what it likes.
"""

import hashlib
import re
from collections.abc import Generator, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from picopay_api import __version__
from support.e2e import diagnostics
from support.e2e.installation import Installation
from support.e2e.kube import CommandError, Kube
from support.e2e.plugin import Options, options
from support.e2e.shop import Shop

_kubes = pytest.StashKey[list[Kube]]()
"""What a test that runs has to do with: the operator's namespace and its own."""

_ending = pytest.StashKey[list[Kube]]()
"""Namespaces that are about to be gone."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Give each test the time that a small node may need; those that want no operator are first."""
    here = Path(__file__).parent
    for item in items:
        if item.path.is_relative_to(here) and not item.get_closest_marker("timeout"):
            item.add_marker(pytest.mark.timeout(900))
    # There is one operator on a cluster, and the fixture's stays until the end of the session.
    items.sort(
        key=lambda item: (
            item.path.is_relative_to(here) and "operator" in getattr(item, "fixturenames", ())
        )
    )


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Save the state of the cluster as a test leaves it that fails, before its fixtures clean up."""
    report = yield
    kubes = item.session.stash.get(_kubes, [])
    if report.failed and kubes:
        folder = options(item.config).diagnostics / re.sub(r"\W+", "-", item.nodeid)
        diagnostics.save(kubes, folder)
        report.sections.append(("diagnostics", f"The state of the cluster is in {folder}."))
    return report


@pytest.fixture(scope="session")
def chosen(request: pytest.FixtureRequest) -> Options:
    """Return what was said of the cluster on the command line."""
    return options(request.config)


@pytest.fixture
def saved(request: pytest.FixtureRequest) -> list[Kube]:
    """Return the namespaces whose state is saved when the test fails; it may add some."""
    return request.session.stash.setdefault(_kubes, [])


@pytest.fixture
def bare(chosen: Options, saved: list[Kube]) -> Iterator[Installation]:
    """Return an operator that is not installed yet: the test does it, and it is gone afterwards."""
    installation = Installation(chosen)
    installation.demand_room()
    saved.append(installation.kube)
    yield installation
    saved.remove(installation.kube)
    installation.clear()


@pytest.fixture(scope="session")
def operator(chosen: Options, request: pytest.FixtureRequest) -> Iterator[Installation]:
    """Install the operator, with a second pod that stands by, in a namespace for restricted pods."""
    installation = Installation(chosen)
    installation.demand_room()
    request.session.stash[_kubes] = [installation.kube]
    request.session.stash[_ending] = []
    try:
        installation.kube.make_namespace()
        installation.install("replicaCount=2")
        yield installation
    finally:
        # Engines are let go by the operator.
        for kube in request.session.stash[_ending]:
            with suppress(CommandError):  # what holds it up is seen when the definition is deleted
                kube("delete", "namespace", kube.namespace, "--ignore-not-found", "--timeout=3m")
        installation.clear()


@pytest.fixture
def shop(operator: Installation, request: pytest.FixtureRequest) -> Iterator[Shop]:
    """Return an engine that is not applied yet, in a namespace of its own for restricted pods."""
    # The namespace of the test before may still be on its way out, so each has a name of its own.
    words = re.sub(r"[^a-z0-9]+", "-", request.node.name.lower())
    own = hashlib.sha256(request.node.nodeid.encode()).hexdigest()[:6]
    kube = operator.kube.of(f"e2e-{words[:45]}-{own}")
    kube.make_namespace()
    kubes = request.session.stash[_kubes]
    kubes.append(kube)
    yield Shop(kube, f"{operator.api_image}:{__version__}")
    kubes.remove(kube)
    request.session.stash[_ending].append(kube)
    # It takes the better part of a minute, in which the next test can begin.
    kube("delete", "namespace", kube.namespace, "--wait=false")
