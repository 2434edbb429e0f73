"""An operator of another release takes over: no pod is replaced, but for what an engine asks for next."""

import pytest

from picopay_operator import settings
from picopay_operator.manifests import api, postgres, worker
from picopay_operator.manifests.context import Manifest
from support.controlplane.operating import Case, operating, steady
from support.controlplane.servers import ControlPlane
from support.waiting import eventually

pytestmark = pytest.mark.usefixtures("definition")

_MORE = "picopay.io/more"
_WITH_PODS = ("Deployment", "StatefulSet")


def another_release(patch: pytest.MonkeyPatch) -> None:
    """Let operators that start from now on be of a release with more in every pod."""

    def more(made: Manifest) -> Manifest:
        made["spec"]["template"]["metadata"]["annotations"][_MORE] = "of it"
        return made

    of_api, of_worker, of_server = api.deployment, worker.deployment, postgres.stateful_set
    patch.setattr(settings, "version", lambda _: "0.2.0")
    patch.setattr(api, "deployment", lambda *given: more(of_api(*given)))
    patch.setattr(worker, "deployment", lambda *given: more(of_worker(*given)))
    patch.setattr(postgres, "stateful_set", lambda *given: more(of_server(*given)))


@pytest.mark.parametrize("strategy", ["RollingUpdate", "BlueGreen"])
async def test_no_pod_is_replaced(
    control_plane: ControlPlane, case: Case, strategy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = {"secretRef": None, "postgres": {"storage": {"size": "1Gi"}}}
    asked: Manifest = {"database": own, "rollout": {"strategy": strategy}}
    await case.apply(asked)
    async with operating(control_plane, case.api.namespace):
        await case.ready()

    async def pods() -> dict[str, str]:
        return {
            one["metadata"]["name"]: one["metadata"]["uid"] for one in await case.api.list("Pod")
        }

    async def generations() -> dict[str, int]:
        return {
            one["metadata"]["name"]: one["metadata"]["generation"]
            for kind in _WITH_PODS
            for one in await case.api.list(kind)
        }

    before, there = await steady(generations), await steady(pods)
    image = await case.image(await case.serving())
    another_release(monkeypatch)
    async with operating(control_plane, case.api.namespace):
        await case.annotate(looked="at")
        await case.ready()
        assert await steady(generations) == before
        assert await steady(pods) == there
        assert await case.image(await case.serving()) == image
        # It looks after what the other one has made.
        changed = {
            "spec": {"template": {"metadata": {"labels": {"app.kubernetes.io/version": "x"}}}}
        }
        await case.api.merge("Deployment", "demo-worker", changed)

        async def is_repaired() -> bool:
            found = await case.api.get("Deployment", "demo-worker")
            labels = found["spec"]["template"]["metadata"]["labels"]
            return bool(labels["app.kubernetes.io/version"] != "x")

        await eventually(is_repaired)
        await case.apply({**asked, "version": "0.2.0"})
        await case.ready()
        serving = await case.serving()
        assert (await case.image(serving)).endswith(":0.2.0")
        found = await case.api.get("Deployment", serving)
        assert _MORE in found["spec"]["template"]["metadata"]["annotations"]
        server = await case.api.get("StatefulSet", "demo-postgres")
        assert _MORE not in server["spec"]["template"]["metadata"]["annotations"]
