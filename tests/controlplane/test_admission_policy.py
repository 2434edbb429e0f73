"""The sample of an admission policy, judged by the API server: what it asks of engines in production."""

from collections.abc import AsyncIterator

import pytest
import yaml

from support.chart_files import PLAIN
from support.controlplane.api_server import ApiServer, Manifest
from support.controlplane.engine import SMALLEST, created, engine, overlaid, refusal
from support.waiting import eventually

_GOOD = overlaid(SMALLEST, {"image": {"digest": f"sha256:{'0' * 64}"}})
_BAD: dict[str, Manifest] = {
    "spec.database.postgres has no standby": {"database": {"secretRef": None, "postgres": {}}},
    "spec.image.digest is needed": {"image": None},
    "at least 2 replicas": {"replicas": 1},
    "spec.deletionPolicy must be Retain": {"deletionPolicy": "Delete"},
    "spec.migrations.policy must be": {"migrations": {"policy": "Automatic"}},
}
_RIGHT: list[Manifest] = [
    {},
    {"replicas": 2, "migrations": {"policy": "Manual"}},
    {"replicas": 1, "autoscaling": {"minReplicas": 2, "maxReplicas": 9}},
    {"database": {"secretRef": None, "cloudNativePG": {"instances": 3}}},
]


@pytest.fixture
async def production(api_server: ApiServer, definition: Manifest) -> AsyncIterator[list[str]]:
    """Have the policy hold in the namespace of the test; return its messages."""
    assert definition
    text = (PLAIN / "samples" / "admission-policy.yaml").read_text(encoding="utf-8")
    policy, binding = yaml.safe_load_all(text)
    for one in (policy, binding):
        await api_server.apply(one)
    labels = {"metadata": {"labels": {"environment": "production"}}}
    await api_server.merge("Namespace", api_server.namespace, labels)
    yield [one["message"] for one in policy["spec"]["validations"]]
    for one in (binding, policy):
        await api_server.delete(one["kind"], one["metadata"]["name"])


async def test_the_policy_refuses_what_production_does_not_stand(
    api_server: ApiServer, production: list[str]
) -> None:
    async def is_in_force() -> bool:
        try:
            await refusal(api_server, engine())
        except pytest.fail.Exception:  # it takes a moment until it is judged by
            return False
        return True

    await eventually(is_in_force)
    for message, change in _BAD.items():
        assert message in await refusal(api_server, engine(overlaid(_GOOD, change)))
    for change in _RIGHT:
        await created(api_server, engine(overlaid(_GOOD, change)))
    for message in production:
        assert any(part in message for part in _BAD), message
