"""An operator that has the rights which its chart gives it, and no others.

Used by the tests of these rights, of the charts and of k8s/. It asks through a proxy, which notes what it is
refused.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import NamedTuple

import httpx
import yaml

from support.chart_files import OPERATOR, helm
from support.controlplane.api_proxy import ApiProxy, proxied_api
from support.controlplane.api_server import ApiServer
from support.controlplane.operating import operating
from support.controlplane.servers import ControlPlane

ACCOUNT = "picopay-operator"
_KINDS = ("ServiceAccount", "Role", "RoleBinding", "ClusterRole", "ClusterRoleBinding")
_FORBIDDEN = 403


class Granted(NamedTuple):
    """An operator that is limited to its rights."""

    home: ApiServer
    proxy: ApiProxy
    token: str

    def refused(self, namespace: str = "") -> list[str]:
        """Return what it was refused: all of it, or in a namespace."""
        part = f"/namespaces/{namespace}/" if namespace else "/"
        return [one for one in self.proxy.refused(_FORBIDDEN) if part in one]

    async def reads_secrets(self, namespace: str) -> int:
        """Return what its account is answered when it asks for the Secrets of a namespace."""
        async with httpx.AsyncClient(headers={"Authorization": f"Bearer {self.token}"}) as http:
            path = await self.home.path("Secret", namespace=namespace)
            return (await http.get(self.proxy.url + path)).status_code


@asynccontextmanager
async def limited(plane: ControlPlane, home: ApiServer, *namespaces: str) -> AsyncIterator[Granted]:
    """Run an operator as the account that there is in its namespace, until the end of the block.

    It works in `namespaces`; in all of them when none is named.
    """
    token = await token_of(home, ACCOUNT)
    async with (
        proxied_api(plane) as proxy,
        operating(plane, home.namespace, proxy.configuration(token), namespaces=namespaces),
    ):
        yield Granted(home, proxy, token)


@asynccontextmanager
async def granted(plane: ControlPlane, home: ApiServer, *namespaces: str) -> AsyncIterator[Granted]:
    """Give an account the rights of the chart, and run an operator as it until the end of the block."""
    listed = ("--set", f"watchNamespaces={{{','.join(namespaces)}}}") if namespaces else ()
    text = helm("template", ACCOUNT, OPERATOR, "--namespace", home.namespace, *listed)
    made = [one for one in yaml.safe_load_all(text) if one and one["kind"] in _KINDS]
    for one in made:
        await home.apply(one)
    try:
        async with limited(plane, home, *namespaces) as operator:
            yield operator
    finally:
        for one in made:
            if one["kind"].startswith("Cluster"):
                await home.delete(one["kind"], one["metadata"]["name"])


async def token_of(home: ApiServer, account: str) -> str:
    """Return a token for a service account of a namespace."""
    path = await home.path("ServiceAccount", account)
    answer = await home.request("POST", f"{path}/token", json={"spec": {}})
    token: str = answer["status"]["token"]
    return token
