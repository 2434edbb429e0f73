"""The API server as the tests ask it: plain objects in, plain objects out, as an administrator.

Used by the tests of the control plane and by `player.py`. It is another one than the operator's, so that what
is wrong there does not hide itself.
"""

import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import httpx

from support.controlplane.servers import ControlPlane

type Manifest = dict[str, Any]

MANAGER = "tests"

_VERSIONS = {
    "Cluster": "postgresql.cnpg.io/v1",
    "ClusterRole": "rbac.authorization.k8s.io/v1",
    "ClusterRoleBinding": "rbac.authorization.k8s.io/v1",
    "CustomResourceDefinition": "apiextensions.k8s.io/v1",
    "Deployment": "apps/v1",
    "EndpointSlice": "discovery.k8s.io/v1",
    "HTTPRoute": "gateway.networking.k8s.io/v1",
    "HorizontalPodAutoscaler": "autoscaling/v2",
    "Ingress": "networking.k8s.io/v1",
    "Job": "batch/v1",
    "Lease": "coordination.k8s.io/v1",
    "MutatingAdmissionPolicy": "admissionregistration.k8s.io/v1",
    "MutatingAdmissionPolicyBinding": "admissionregistration.k8s.io/v1",
    "NetworkPolicy": "networking.k8s.io/v1",
    "PicoPayEngine": "picopay.io/v1beta1",
    "PodDisruptionBudget": "policy/v1",
    "PrometheusRule": "monitoring.coreos.com/v1",
    "ReplicaSet": "apps/v1",
    "RoleBinding": "rbac.authorization.k8s.io/v1",
    "ServiceMonitor": "monitoring.coreos.com/v1",
    "StatefulSet": "apps/v1",
    "StorageClass": "storage.k8s.io/v1",
    "ValidatingAdmissionPolicy": "admissionregistration.k8s.io/v1",
    "ValidatingAdmissionPolicyBinding": "admissionregistration.k8s.io/v1",
}
_REQUEST_TIMEOUT_S = 60.0
_CONNECTIONS = httpx.Limits(max_connections=64, max_keepalive_connections=16)


class RefusedError(Exception):
    """The API server has refused something; `message` is what a person is told."""

    def __init__(self, status: int, reason: str, message: str) -> None:
        super().__init__(f"{status} {reason}: {message}")
        self.status = status
        self.reason = reason
        self.message = message


class ApiServer:
    """A client of the API server. Objects are looked for in `namespace` unless another one is named."""

    def __init__(self, http: httpx.AsyncClient, namespace: str) -> None:
        self.namespace = namespace
        self.warnings: list[str] = []
        """What the API server has remarked on, so far."""
        self._http = http
        self._places: dict[str, dict[str, tuple[str, bool]]] = {}

    def of(self, namespace: str) -> "ApiServer":
        """Return a client of another namespace."""
        return ApiServer(self._http, namespace)

    async def create(self, manifest: Manifest, **options: str) -> Manifest:
        """Create an object; unknown fields are remarked on."""
        path = await self._path_of(manifest, named=False)
        return await self.request("POST", path, json=manifest, params=options)

    async def apply(
        self, manifest: Manifest, manager: str = MANAGER, *, subresource: str = "", **options: str
    ) -> Manifest:
        """Apply an object, with force; its fields are then those of `manager`."""
        return await self.request(
            "PATCH",
            await self._path_of(manifest) + subresource,
            content=json.dumps(manifest),
            headers={"Content-Type": "application/apply-patch+yaml"},
            params={"fieldManager": manager, "force": "true", **options},
        )

    async def replace(self, manifest: Manifest) -> Manifest:
        """Replace an object as a whole."""
        return await self.request("PUT", await self._path_of(manifest), json=manifest)

    async def merge(
        self, kind: str, name: str, patch: Manifest, namespace: str = "", *, subresource: str = ""
    ) -> Manifest:
        """Change some fields of an object; `subresource` is, for example, "/status"."""
        return await self.request(
            "PATCH",
            await self.path(kind, name, namespace) + subresource,
            content=json.dumps(patch),
            headers={"Content-Type": "application/merge-patch+json"},
            params={"fieldManager": MANAGER},
        )

    async def get(self, kind: str, name: str, namespace: str = "") -> Manifest:
        """Return an object; `RefusedError` with status 404 when there is none."""
        return await self.request("GET", await self.path(kind, name, namespace))

    async def find(self, kind: str, name: str, namespace: str = "") -> Manifest | None:
        """Return an object, or None."""
        try:
            return await self.get(kind, name, namespace)
        except RefusedError as error:
            if error.status != httpx.codes.NOT_FOUND:
                raise
        return None

    async def list(self, kind: str, labels: str = "", namespace: str = "") -> list[Manifest]:
        """Return the objects of a kind in a namespace that have some labels."""
        path = await self.path(kind, "", namespace)
        answer = await self.request("GET", path, params={"labelSelector": labels})
        found: list[Manifest] = answer["items"]
        return found

    async def delete(self, kind: str, name: str, namespace: str = "", **options: Any) -> None:
        """Delete an object, with what depends on it."""
        path = await self.path(kind, name, namespace)
        await self.request("DELETE", path, json={"propagationPolicy": "Background", **options})

    async def watch(self, path: str, version: str) -> AsyncIterator[tuple[str, Manifest]]:
        """Yield what happens below a path from a version on: type of event, object."""
        params = {"watch": "true", "resourceVersion": version, "allowWatchBookmarks": "true"}
        async with self._http.stream("GET", path, params=params, timeout=None) as answer:
            await _refuse(answer)
            async for line in answer.aiter_lines():
                event = json.loads(line)
                yield event["type"], event["object"]

    async def path(self, kind: str, name: str = "", namespace: str = "") -> str:
        """Return the path of an object, or of all in a namespace."""
        return await self._path(_VERSIONS.get(kind, "v1"), kind, name, namespace)

    async def request(self, method: str, path: str, **options: Any) -> Manifest:
        """Ask the API server.

        Raises:
            RefusedError: it says no.
        """
        answer = await self._http.request(method, path, **options)
        await _refuse(answer)
        self.warnings += answer.headers.get_list("Warning")
        result: Manifest = answer.json()
        return result

    async def _path_of(self, manifest: Mapping[str, Any], *, named: bool = True) -> str:
        metadata = manifest["metadata"]
        return await self._path(
            manifest["apiVersion"],
            manifest["kind"],
            metadata["name"] if named else "",
            metadata.get("namespace", ""),
        )

    async def _path(self, version: str, kind: str, name: str, namespace: str) -> str:
        root = f"/apis/{version}" if "/" in version else f"/api/{version}"
        if kind not in self._places.get(root, {}):
            known = (await self.request("GET", root))["resources"]
            self._places[root] = {
                one["kind"]: (one["name"], one["namespaced"])
                for one in known
                if "/" not in one["name"]
            }
        plural, namespaced = self._places[root][kind]
        place = f"{root}/namespaces/{namespace or self.namespace}" if namespaced else root
        return f"{place}/{plural}/{name}".rstrip("/")


@asynccontextmanager
async def connected(plane: ControlPlane, namespace: str = "default") -> AsyncIterator[ApiServer]:
    """Return a client of a control plane until the end of the block."""
    async with httpx.AsyncClient(
        base_url=plane.url,
        verify=plane.context(),
        headers={"Authorization": f"Bearer {plane.admin_token}"},
        timeout=_REQUEST_TIMEOUT_S,
        limits=_CONNECTIONS,
    ) as http:
        yield ApiServer(http, namespace)


async def _refuse(answer: httpx.Response) -> None:
    if answer.is_success:
        return
    await answer.aread()
    try:
        status = answer.json()
    except ValueError:
        raise RefusedError(answer.status_code, "", answer.text) from None
    raise RefusedError(answer.status_code, status.get("reason", ""), status.get("message", ""))
