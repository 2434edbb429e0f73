"""Holds every answer that a client gets to the OpenAPI document, as the answer arrives.

Used by the tests of the HTTP edge: `hold(client)` once, then every operation, status, media type, header
and body of that client's answers must be in the document; members that the document does not know fail,
too.
"""

import copy
import re
from functools import cache
from typing import Any

import httpx
from jsonschema import Draft202012Validator

from picopay_api.http import openapi

_PROBLEM = "Problem"
_PARAMETER = re.compile(r"\{\w+\}")


def hold(client: httpx.AsyncClient) -> None:
    """Check each answer to this client from now on."""
    client.event_hooks = {"response": [_check]}


def described(method: str, path: str) -> dict[str, Any] | None:
    """Return the operation of a path as it was sent; None where the document has none."""
    for template, operations in openapi.document()["paths"].items():
        if re.fullmatch(_PARAMETER.sub("[^/]+", template), path):
            operation: dict[str, Any] | None = operations.get(method.lower())
            return operation
    return None


def request_schema(method: str, path: str) -> Draft202012Validator:
    """Return what checks the body of a request."""
    operation = described(method, path)
    assert operation is not None, path
    schema = operation["requestBody"]["content"]["application/json"]["schema"]
    return Draft202012Validator({**schema, "components": openapi.document()["components"]})


async def _check(response: httpx.Response) -> None:
    await response.aread()
    request = response.request
    path = request.url.raw_path.partition(b"?")[0].decode("ascii")
    operation = described(request.method, path)
    if operation is not None:
        check(response, operation)
    elif path not in {"/openapi.json", "/docs"}:
        # Nothing that was asked for exists, and the answer says so.
        assert response.status_code in {404, 405}, (request.method, path, response.text)
        validate({"$ref": f"#/components/schemas/{_PROBLEM}"}, response.json())


def check(response: httpx.Response, operation: dict[str, Any]) -> None:
    """Hold one answer to the operation that it answers."""
    shown = (operation["operationId"], response.status_code, response.text[:2_000])
    responses = operation["responses"]
    assert str(response.status_code) in responses, shown
    promised = responses[str(response.status_code)]
    media_type = response.headers["Content-Type"].partition(";")[0]
    assert media_type in promised["content"], (media_type, *shown)
    missing = [
        name
        for name in promised.get("headers", ())
        if name not in response.headers and name != "Idempotent-Replayed"
    ]
    assert missing == [], shown
    if media_type.endswith("json") and "ndjson" not in media_type:
        validate(promised["content"][media_type]["schema"], response.json())


def validate(schema: dict[str, Any], value: Any) -> None:
    """Hold a value to a schema of the document."""
    whole = {**schema, "components": _closed_components()}
    Draft202012Validator(whole).validate(value)


@cache
def _closed_components() -> dict[str, Any]:
    """Return the document's schemas, in which objects have no members but those described."""
    components: dict[str, Any] = copy.deepcopy(openapi.document()["components"])
    for name, schema in components["schemas"].items():
        if name != _PROBLEM and "properties" in schema:
            schema.setdefault("additionalProperties", False)
    return components
