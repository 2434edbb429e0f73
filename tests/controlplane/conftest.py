"""Fixtures of the tests of the operator: an engine with its surroundings, and an operator beside it."""

from collections.abc import AsyncIterator

import pytest

from picopay_operator.__main__ import Operator
from support.controlplane.api_server import ApiServer
from support.controlplane.operating import Case, operating
from support.controlplane.player import Player
from support.controlplane.servers import ControlPlane


@pytest.fixture
async def case(api_server: ApiServer, player: Player) -> Case:
    """Return an engine that is not applied yet, in a namespace of its own; nothing is there that it needs."""
    return Case(api_server, player)


@pytest.fixture
async def operator(control_plane: ControlPlane, case: Case) -> AsyncIterator[Operator]:
    """Run an operator for the namespace of the engine."""
    async with operating(control_plane, case.api.namespace) as operator:
        yield operator
