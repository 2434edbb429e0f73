"""Requests to the Kubernetes API, as JSON. The only module that uses the client of Kubernetes.

Used by `cluster.py`, `referred_watch.py`, `election.py` and `plugin/`. Each request has a time-out, and each
failure is one of `errors.py`.
"""

import json
import re
from collections.abc import AsyncIterator, Mapping
from typing import Any

import aiohttp
import yaml
from kubernetes.aio import config
from kubernetes.aio.client import ApiClient, Configuration
from kubernetes.aio.client.exceptions import ApiException
from kubernetes.aio.dynamic import DynamicClient

from picopay_operator import names
from picopay_operator.errors import (
    AdmissionDenied,
    ApiError,
    ConfigurationError,
    Conflict,
    FieldUnknown,
    NotFound,
    PermissionDenied,
    Terminating,
    Unprocessable,
)

REQUEST_TIMEOUT_S = 15.0
PAGE = 50
"""How many objects are listed at once."""

_WATCH_S = 300
"""After so long the server ends a watch; a new one is begun."""

_LOG_S = 86_400.0
"""How long a log is followed at most."""

_METADATA_ONLY = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1"
_METADATA_LIST = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1"
_ERRORS = {403: PermissionDenied, 404: NotFound, 409: Conflict, 422: Unprocessable}

# These differ from other refusals of the same status and reason in nothing but what they say.
_ADMISSION_DENIED = re.compile(
    r"denied (the )?request"
)  # by a policy or a webhook, which choose the status
_FORBIDDEN = re.compile(r"is forbidden: (?!user )", re.IGNORECASE)  # and not for want of a right
_FIELD_UNKNOWN = re.compile(r"(\S+): field not declared in schema")


async def load_configuration() -> Configuration:
    """Find the API server: the cluster that the process is in, else what KUBECONFIG names."""
    configuration = Configuration()
    try:
        config.load_incluster_config(client_configuration=configuration)
    except config.ConfigException:
        await config.load_kube_config(client_configuration=configuration)
    return configuration


async def load_kubeconfig(path: str | None, context: str | None) -> tuple[Configuration, str]:
    """Find the API server as kubectl does; return also the namespace that is meant when none is named.

    Raises:
        ConfigurationError: there is no such file or context, or it cannot be used.
    """
    configuration = Configuration()
    try:
        loader = await config.load_kube_config(
            config_file=path, context=context, client_configuration=configuration
        )
    except (config.ConfigException, yaml.YAMLError, OSError, TypeError, AttributeError) as error:
        # The last two: it is YAML, and something else than a kubeconfig.
        which = path or "in KUBECONFIG or the home folder"
        raise ConfigurationError(f"the kubeconfig {which} cannot be used: {error}") from error
    return configuration, loader.current_context["context"].get("namespace") or "default"


class Client:
    """Asks the API server. Close it in the end."""

    def __init__(self, configuration: Configuration) -> None:
        # Each watch has a connection of its own: with a bound, many namespaces would leave none to ask.
        configuration.connection_pool_maxsize = 0
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

    async def find(self, path: str, name: str) -> list[dict[str, Any]]:
        """List the objects of a name, one in each namespace at most."""
        answer = await self._ask("get", path, field_selector=f"metadata.name={name}")
        found: list[dict[str, Any]] = answer["items"] or []
        return found

    async def apply(
        self, path: str, body: dict[str, Any], *, manager: str = names.FIELD_MANAGER
    ) -> dict[str, Any]:
        """Apply an object (server-side), with force; return it as it is then."""
        return await self._ask(
            "patch",
            path,
            body=body,
            content_type="application/apply-patch+yaml",
            field_manager=manager,
            force_conflicts=True,
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

    async def list_objects(self, path: str, selector: str = "") -> list[dict[str, Any]]:
        """List objects of a label, or all."""
        return [one async for page in self.pages(path, selector) for one in page]

    async def pages(self, path: str, selector: str = "") -> AsyncIterator[list[dict[str, Any]]]:
        """Yield objects of a label, or all, some at a time: what is kept of them is far less."""
        following = None
        while True:
            answer = await self._ask(
                "get", path, label_selector=selector or None, limit=PAGE, _continue=following
            )
            yield answer["items"] or []
            following = answer["metadata"].get("continue")
            if not following:
                return

    async def merge(self, path: str, body: dict[str, Any], field_manager: str) -> dict[str, Any]:
        """Change some fields of an object; those that are None are taken away. Return it as it is then."""
        return await self._ask(
            "patch",
            path,
            body=body,
            content_type="application/merge-patch+json",
            field_manager=field_manager,
        )

    async def lines(self, path: str, parameters: Mapping[str, str]) -> AsyncIterator[str]:
        """Yield the lines of a log until its end."""
        try:
            response: aiohttp.ClientResponse = await self._dynamic.request(
                "get",
                path,
                query_params=list(parameters.items()),
                header_params={"Accept": "*/*"},
                serialize=False,
                _request_timeout=_LOG_S,
            )
            async with response:
                async for line in _lines(response):
                    yield line.decode(errors="replace")
        except (ApiException, aiohttp.ClientError, TimeoutError) as error:
            raise _refusal(error, path) from error

    async def list_metadata(self, path: str, selector: str = "") -> dict[str, Any]:
        """List objects, those of a label or all, without their content."""
        headers = {"Accept": _METADATA_LIST}
        return await self._ask("get", path, label_selector=selector or None, header_params=headers)

    async def watch_metadata(
        self, path: str, resource_version: str
    ) -> AsyncIterator[dict[str, Any]]:
        """Yield the events of objects without their content, until the server ends that."""
        try:
            response: aiohttp.ClientResponse = await self._dynamic.request(
                "get",
                path,
                resource_version=resource_version,
                watch="true",
                timeout_seconds=_WATCH_S,
                header_params={"Accept": _METADATA_ONLY},
                serialize=False,
                _request_timeout=_WATCH_S + REQUEST_TIMEOUT_S,
            )
            async with response:
                async for line in _lines(response):
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


async def _lines(response: aiohttp.ClientResponse) -> AsyncIterator[bytes]:
    """Yield the lines of an answer, however long they are: aiohttp's own have a bound."""
    rest = b""
    async for chunk in response.content.iter_any():
        *whole, rest = (rest + chunk).split(b"\n")
        for line in whole:
            yield line
    if rest:
        yield rest


def _refusal(error: Exception, path: str) -> ApiError:
    """Return what a failed request comes to, without anything that was sent."""
    if not isinstance(error, ApiException):
        return ApiError(f"the API server does not answer ({type(error).__name__})")
    told: dict[str, Any] = {}
    try:
        told = json.loads(error.body or "")
        message = str(told["message"])
    except (ValueError, KeyError, TypeError):
        message = f"{error.reason or 'refused'} ({path})"
    after = (error.headers or {}).get("Retry-After")
    retry_after_s = float(after) if after and after.isdigit() else None
    status = int(error.status or 0)
    if found := _FIELD_UNKNOWN.search(message):
        return FieldUnknown(message, status, found[1].lstrip("."))
    kind = _ERRORS.get(status, ApiError)
    if _is_terminating(told):
        kind = Terminating
    elif _ADMISSION_DENIED.search(message) or (
        kind is PermissionDenied and _FORBIDDEN.search(message)
    ):
        kind = AdmissionDenied
    return kind(message, status, retry_after_s)


def _is_terminating(told: Any) -> bool:
    """Tell whether a refusal has its cause in the end of the namespace."""
    try:
        return any(one["reason"] == "NamespaceTerminating" for one in told["details"]["causes"])
    except (KeyError, TypeError):
        return False
