"""An engine from its manifest to its payments: the operator, the control plane, and pods that really run.

Used by the tests of the whole chain. The API is asked as somebody in the cluster asks its Service: only pods
that the Service's EndpointSlices call ready are.
"""

import asyncio
import sys
from base64 import b64decode
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import httpx

from picopay_api.database_url import DatabaseUrl
from picopay_operator import names
from picopay_operator.names import Component
from picopay_operator.settings import Settings
from support.api import as_key
from support.balancer import Balancer, balanced
from support.controlplane.api_server import ApiServer
from support.controlplane.kubelet import Kubelet
from support.controlplane.operating import NAME, Case
from support.controlplane.player import Player
from support.customers import PAYMENT
from support.waiting import PROMPT_S, eventually

RELEASE = Settings().release
"""What engines get that ask for no other one."""

_LOOK_S = 0.1


class Nodeless(Case):
    """A case whose pods run."""

    patience_s = 180  # pods start one after the other, beside all that runs on the machine

    def __init__(self, api_server: ApiServer, player: Player, kubelet: Kubelet) -> None:
        super().__init__(api_server, player)
        self.kubelet = kubelet

    async def database(self, url: DatabaseUrl) -> None:
        """Create the Secret with the address of the database."""
        await self.secret(database_url=url.text)

    async def admin_key(self, key: str = "api-key") -> str:
        """Return the administrator's key, or the one before it, as it is delivered."""
        secret = await self.api.get("Secret", names.admin_key(NAME))
        return b64decode(secret["data"][key]).decode()

    async def pods(self) -> dict[str, int]:
        """Return how often the program of each pod of the API was started again."""
        found = await self.api.list("Pod", f"{names.COMPONENT_LABEL}={Component.API.value}")
        return {
            pod["metadata"]["name"]: pod["status"]["containerStatuses"][0]["restartCount"]
            for pod in found
        }

    async def jobs_ever(self, part: str) -> set[str]:
        """Return the names of the Jobs of a kind, those included that are gone."""
        jobs = [
            one["involvedObject"]["name"]
            for one in await self.api.list("Event")
            if one["involvedObject"]["kind"] == "Job"
        ]
        return {name for name in jobs if f"-{part}-" in name}

    async def only_pods_of(self, version: str) -> None:
        """Wait until the last pod of another version has gone."""

        async def are_gone() -> bool:
            pods = await self.api.list("Pod", f"{names.COMPONENT_LABEL}={Component.API.value}")
            return all(
                pod["spec"]["containers"][0]["image"].endswith(f":{version}") for pod in pods
            )

        await eventually(are_gone, self.patience_s)

    async def ports(self) -> list[int]:
        """Return where the pods are to which the Service leads."""
        label = f"kubernetes.io/service-name={names.api(NAME)}"
        return [
            self.kubelet.port(endpoint["targetRef"]["name"], names.HTTP_PORT)
            for part in await self.api.list("EndpointSlice", label)
            for endpoint in part.get("endpoints") or ()
            if endpoint["conditions"]["ready"]
        ]

    @asynccontextmanager
    async def client(self, secret: str) -> AsyncIterator[httpx.AsyncClient]:
        """Return a client of one of the pods, with a key."""
        port = (await self.ports())[0]
        async with httpx.AsyncClient(
            base_url=f"http://127.0.0.1:{port}",
            headers=as_key(secret),
            timeout=PROMPT_S,
            trust_env=False,
        ) as client:
            yield client

    @asynccontextmanager
    async def service(self) -> AsyncIterator[Balancer]:
        """Carry connections to the pods to which the Service leads, as long as they are ready."""
        async with balanced(await self.ports()) as balancer:
            following = asyncio.create_task(self._follow(balancer))
            try:
                yield balancer
            finally:
                following.cancel()
                with suppress(asyncio.CancelledError):
                    await following

    async def _follow(self, balancer: Balancer) -> None:
        while True:
            balancer.lead_to(await self.ports())
            await asyncio.sleep(_LOOK_S)


def own_image() -> list[str]:
    """Return the program of this checkout's image."""
    return [sys.executable, "-m", "picopay_api"]


def image_of(version: str, store: Path) -> list[str]:
    """Return the program of another release's image, with its migrations and functions."""
    return [sys.executable, "-m", "support.released", version, str(store)]


async def make_shop(client: httpx.AsyncClient) -> None:
    """Make an account that can be paid to."""
    made = await client.post(
        "/v1/accounts",
        json={"reference": "shop", "asset": "USD"},
        headers={"Idempotency-Key": "shop"},
    )
    assert made.status_code == httpx.codes.CREATED, made.text


async def pay(client: httpx.AsyncClient, key: str) -> None:
    """Pay, once."""
    paid = await client.post("/v1/payments", json=PAYMENT, headers={"Idempotency-Key": key})
    assert paid.status_code == httpx.codes.CREATED, paid.text
