"""An operator in the test's own process, for the namespace of the test, against the real API server.

Used by the tests of the operator. `Case` is an engine with its surroundings: what a test wants to happen to
its pods is said to the player, what came of it is read from the API server.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import msgspec
from kubernetes.aio import config
from kubernetes.aio.client import Configuration

from picopay_operator import names
from picopay_operator.__main__ import Operator
from picopay_operator.conditions import Type
from picopay_operator.settings import Settings
from support.controlplane.api_server import ApiServer, Manifest
from support.controlplane.engine import SMALLEST, engine, overlaid
from support.controlplane.player import Player
from support.controlplane.plays import Exits
from support.controlplane.servers import ControlPlane
from support.waiting import PROMPT_S, eventually
from support.world import report

NAME = "demo"


async def configuration_of(plane: ControlPlane) -> Configuration:
    """Return what an operator needs to know to reach the control plane as an administrator."""
    made = Configuration()
    await config.load_kube_config(
        config_file=str(plane.admin_kubeconfig), client_configuration=made
    )
    return made


def settings_of(namespace: str, **changes: Any) -> Settings:
    """Return the settings of an operator for a namespace, in which it also is."""
    settings = Settings(
        namespaces=(namespace,), pod_namespace=namespace, pod_name="operator-1", port=0
    )
    return msgspec.structs.replace(settings, **changes)


@asynccontextmanager
async def operating(
    plane: ControlPlane, namespace: str, through: Configuration | None = None, **changes: Any
) -> AsyncIterator[Operator]:
    """Run an operator until the end of the block; `through` is another way to the API server.

    `changes` are of its settings.
    """
    operator = Operator(settings_of(namespace, **changes), through or await configuration_of(plane))
    stop = asyncio.Event()
    running = asyncio.create_task(operator.run(stop))
    try:
        yield operator
    finally:
        stop.set()
        await running


class Case:
    """An engine, and ways to look at what becomes of it."""

    patience_s: float = PROMPT_S
    """How long a condition is waited for."""

    def __init__(self, api_server: ApiServer, player: Player) -> None:
        self.api = api_server
        self.player = player
        player.plays(Exits(0, report()), argument="migrate")

    async def secret(self, name: str = "picopay-secrets", **values: str) -> None:
        """Create or change a Secret of somebody else's."""
        data = {key.replace("_", "-"): value for key, value in values.items()}
        await self.api.apply(
            {
                "apiVersion": "v1",
                "kind": "Secret",
                "metadata": {"name": name},
                "stringData": data or {"database-url": "postgresql://picopay@db/picopay"},
            }
        )

    async def apply(self, change: Manifest | None = None, name: str = NAME) -> None:
        """Apply an engine: the smallest one, with a change."""
        await self.api.apply(engine(overlaid(SMALLEST, change or {}), name))

    async def annotate(self, **annotations: str) -> None:
        """Annotate the engine, with names of ours."""
        named = {f"picopay.io/{key.replace('_', '-')}": value for key, value in annotations.items()}
        await self.api.merge("PicoPayEngine", NAME, {"metadata": {"annotations": named}})

    async def conditions(self, name: str = NAME) -> dict[str, Manifest]:
        """Return the conditions of the engine."""
        found = await self.api.get("PicoPayEngine", name)
        return {one["type"]: one for one in found.get("status", {}).get("conditions", ())}

    async def until(self, kind: Type, status: str, reason: str = "", name: str = NAME) -> Manifest:
        """Wait until a condition is so, for the generation that there is; return it."""
        last: Manifest = {}

        async def is_so() -> bool:
            nonlocal last
            found = await self.api.get("PicoPayEngine", name)
            conditions = found.get("status", {}).get("conditions", ())
            last = {one["type"]: one for one in conditions}
            one = last.get(kind, {})
            return bool(
                one.get("status") == status
                and (not reason or one["reason"] == reason)
                and one["observedGeneration"] == found["metadata"]["generation"]
            )

        try:
            await eventually(is_so, self.patience_s)
        except TimeoutError as failure:
            shown = [
                f"{one['type']}={one['status']} {one['reason']}: {one['message']}"
                for one in last.values()
            ]
            failure.add_note("\n".join(shown))
            raise
        found: Manifest = last[kind]
        return found

    async def ready(self, name: str = NAME) -> None:
        """Wait until the engine is ready."""
        await self.until(Type.READY, "True", name=name)

    async def is_ready(self, name: str = NAME) -> bool:
        """Tell whether the engine is ready, in the generation that there is."""
        found = await self.api.get("PicoPayEngine", name)
        generation = found["metadata"]["generation"]
        return any(
            (one["type"], one["status"], one["observedGeneration"])
            == (Type.READY, "True", generation)
            for one in found.get("status", {}).get("conditions", ())
        )

    async def is_gone(self, name: str = NAME) -> bool:
        """Tell whether the engine and what belonged to it are not there any more."""
        return not (
            await self.api.find("PicoPayEngine", name)
            or await self.api.list("Deployment", f"{names.ENGINE_LABEL}={name}")
        )

    async def serving(self, name: str = NAME) -> str:
        """Return the name of the Deployment to which the Service leads."""
        service = await self.api.get("Service", names.api(name))
        active = service["metadata"].get("annotations", {}).get(names.ACTIVE)
        return str(active or names.api(name))

    async def image(self, name: str = f"{NAME}-api") -> str:
        """Return the image of a Deployment."""
        found = await self.api.get("Deployment", name)
        return str(found["spec"]["template"]["spec"]["containers"][0]["image"])

    async def jobs(self, part: str) -> list[str]:
        """Return the names of the Jobs of a kind."""
        found = await self.api.list("Job")
        return [one["metadata"]["name"] for one in found if f"-{part}-" in one["metadata"]["name"]]

    async def events(self) -> list[str]:
        """Return the reasons of the Events about engines, in their order."""
        found = await self.api.list("Event")
        own = [one for one in found if one["involvedObject"]["kind"] == "PicoPayEngine"]
        return [one["reason"] for one in sorted(own, key=lambda one: str(one["eventTime"]))]

    async def versions(self) -> dict[str, str]:
        """Return the version of everything that the operator looks after: what is written, changes it."""
        kinds = ("Deployment", "Service", "Job", "PodDisruptionBudget", "Secret", "PicoPayEngine")
        return {
            f"{kind}/{one['metadata']['name']}": one["metadata"]["resourceVersion"]
            for kind in kinds
            for one in await self.api.list(kind)
        }


async def steady(look: Callable[[], Awaitable[Any]], seconds: float = 0.5) -> Any:
    """Wait until something has stayed the same for a while; return it."""
    last = await look()

    async def same() -> bool:
        nonlocal last
        await asyncio.sleep(seconds)
        now = await look()
        is_same, last = now == last, now
        return bool(is_same)

    await eventually(same)
    return last
