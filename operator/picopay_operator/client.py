"""Requests to the Kubernetes API, as JSON. The only module that uses the client of Kubernetes.

Used by `cluster.py`, `secret_watch.py` and `election.py`. Each request has a time-out, and each failure is
one of `errors.py`.
"""

import json
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
from kubernetes.aio import config
from kubernetes.aio.client import ApiClient, Configuration
from kubernetes.aio.client.exceptions import ApiException
from kubernetes.aio.dynamic import DynamicClient

from picopay_operator import names
from picopay_operator.errors import (
    ApiError,
    Conflict,
    NotFound,
    PermissionDenied,
    Unprocessable,
)

REQUEST_TIMEOUT_S = 15.0
_WATCH_S = 300
"""After so long the server ends a watch; a new one is begun."""

_METADATA_ONLY = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1"
_METADATA_LIST = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1"
_ERRORS = {403: PermissionDenied, 404: NotFound, 409: Conflict, 422: Unprocessable}


async def load_configuration() -> Configuration:
    """Find the API server: the cluster that the process is in, else what KUBECONFIG names."""
    configuration = Configuration()
    try:
        config.load_incluster_config(client_configuration=configuration)
    except config.ConfigException:
        await config.load_kube_config(client_configuration=configuration)
    return configuration


class Client:
    """Asks the API server. Close it in the end."""

    def __init__(self, configuration: Configuration) -> None:
        self.api = ApiClient(configuration)
        self._dynamic = DynamicClient(self.api)
        self.requests = 0
        """How many requests there were so far."""

    async def close(self) -> None:
        """Close its connections."""
        await self.api.close()

    async def get(self, path: str) -> dict[str, Any]:
        """Read an object, a list, or what an API has."""
        return await self._ask("get", path)

    async def apply(self, path: str, body: dict[str, Any], *, force: bool = True) -> dict[str, Any]:
        """Apply an object (server-side); return it as it is then."""
        return await self._ask(
            "patch",
            path,
            body=body,
            content_type="application/apply-patch+yaml",
            field_manager=names.FIELD_MANAGER,
            force_conflicts=force,
        )

    async def create(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        """Create an object."""
        return await self._ask("post", path, body=body, field_manager=names.FIELD_MANAGER)

    async def delete(self, path: str, uid: str | None) -> None:
        """Delete an object, and what it owns after it; with a uid, that one only."""
        body: dict[str, Any] = {"propagationPolicy": "Background"}
        if uid:
            body["preconditions"] = {"uid": uid}
        await self._ask("delete", path, body=body)

    async def list_metadata(self, path: str, selector: str) -> dict[str, Any]:
        """List objects of a label without their content."""
        headers = {"Accept": _METADATA_LIST}
        return await self._ask("get", path, label_selector=selector, header_params=headers)

    async def watch_metadata(
        self, path: str, selector: str, resource_version: str
    ) -> AsyncIterator[dict[str, Any]]:
        """Yield the events of objects of a label without their content, until the server ends that."""
        try:
            response: aiohttp.ClientResponse = await self._dynamic.request(
                "get",
                path,
                label_selector=selector,
                resource_version=resource_version,
                watch="true",
                timeout_seconds=_WATCH_S,
                header_params={"Accept": _METADATA_ONLY},
                serialize=False,
                _request_timeout=_WATCH_S + REQUEST_TIMEOUT_S,
            )
            async with response:
                async for line in response.content:
                    if line.strip():
                        yield json.loads(line)
        except (ApiException, aiohttp.ClientError, TimeoutError) as error:
            raise _refusal(error, path) from error

    async def _ask(self, method: str, path: str, **parameters: Any) -> dict[str, Any]:
        self.requests += 1
        try:
            answer: dict[str, Any] = await self._dynamic.request(
                method,
                path,
                serializer=lambda _, data: data,
                _request_timeout=REQUEST_TIMEOUT_S,
                **parameters,
            )
        except (ApiException, aiohttp.ClientError, TimeoutError) as error:
            raise _refusal(error, path) from error
        return answer


def _refusal(error: Exception, path: str) -> ApiError:
    """Return what a failed request comes to, without anything that was sent."""
    if not isinstance(error, ApiException):
        return ApiError(f"the API server does not answer ({type(error).__name__})")
    message = error.reason or "refused"
    try:
        message = json.loads(error.body or "")["message"]
    except (ValueError, KeyError, TypeError):
        message = f"{message} ({path})"
    after = (error.headers or {}).get("Retry-After")
    retry_after_s = float(after) if after and after.isdigit() else None
    status = int(error.status or 0)
    return _ERRORS.get(status, ApiError)(message, status, retry_after_s)
