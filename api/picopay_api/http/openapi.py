"""The OpenAPI 3.1 document, made from the operations, their types and the tree of errors.

Nothing is described twice: what `operations.py` checks is what this document says.
"""

from collections.abc import Iterable, Iterator
from functools import cache
from itertools import groupby
from typing import Any

import msgspec

from picopay_api import __version__, errors
from picopay_api.errors import PicoPayError
from picopay_api.http import problems
from picopay_api.http.operations import JSON, VERSION, Keyed, Operation
from picopay_api.http.parameters import Parameter
from picopay_api.http.resources import OPERATIONS

_REFS = "#/components/schemas/{name}"

ANY_CALL: tuple[type[PicoPayError], ...] = (
    errors.AuthenticationRequired,
    errors.ApiKeyInvalid,
    errors.RateLimited,
    errors.ScopeMissing,
    errors.InvalidRequest,
    errors.DatabaseUnavailable,
    errors.SchemaOutOfRange,
    errors.InternalError,
)
"""What every operation may refuse."""

ANY_BODY: tuple[type[PicoPayError], ...] = (
    errors.UnsupportedMediaType,
    errors.BodyTooLarge,
    errors.MalformedBody,
)
"""What every operation that takes a body may refuse, too."""

_NAMED_ID = (("account", "An account: its id, `acct_…`, or `@` and its reference, escaped."),)
_IDEMPOTENCY_KEY = {
    "name": "Idempotency-Key",
    "in": "header",
    "description": "A name of yours for this operation: sent again, it is done once.",
    "schema": {"type": "string", "minLength": 1, "maxLength": 255, "pattern": "^[\\x20-\\x7e]+$"},
}
_VERSION = {
    "name": "PicoPay-Version",
    "in": "header",
    "required": False,
    "description": "The version of the contract that you rely on.",
    "schema": {"type": "string", "const": VERSION},
}
_EVERY_ANSWER = ("Request-Id", "PicoPay-Version")
_COUNTED = ("RateLimit-Policy", "RateLimit")
_REFUSED = {
    401: ("WWW-Authenticate",),
    403: _COUNTED,
    429: (*_COUNTED, "Retry-After"),
    503: ("Retry-After",),
}
"""Headers of refusals by status, beside those of every answer."""

_STREAMED = ("text/csv", "application/x-ndjson")
_OPEN = (
    ("/health", "Is it healthy", "As `/readyz`: for load balancers and people."),
    ("/livez", "Is it alive", "Without any input or output: for liveness probes."),
    ("/readyz", "Can it serve", "The database answers and its schema fits: for readiness probes."),
)


def errors_of(operation: Operation) -> list[type[PicoPayError]]:
    """Every refusal that an operation can answer, by status and code."""
    found = {*ANY_CALL, *operation.errors}
    if operation.body is not None:
        found.update(ANY_BODY)
    if operation.keyed is not Keyed.NEVER:
        found.add(errors.IdempotencyKeyInvalid)
    if operation.keyed is Keyed.REQUIRED:
        found.add(errors.IdempotencyKeyMissing)
    return sorted(found, key=lambda error: (error.status, error.code))


@cache
def document() -> dict[str, Any]:
    """Make the document."""
    types = [operation.answer for operation in OPERATIONS]
    types += [operation.body for operation in OPERATIONS if operation.body is not None]
    shapes, components = msgspec.json.schema_components(types, ref_template=_REFS)
    shape_of = dict(zip(types, shapes, strict=True))
    paths: dict[str, dict[str, Any]] = {}
    for operation in OPERATIONS:
        paths.setdefault(operation.path, {})[operation.method.lower()] = _operation(
            operation, shape_of
        )
    for path, summary, description in _OPEN:
        paths[path] = {"get": _probe(path, summary, description)}
    paths["/metrics"] = {"get": _metrics()}
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "PicoPay",
            "version": __version__,
            "summary": "Moves money on a double-entry ledger, exactly once.",
            "description": "Amounts are integers of minor units. Every operation that moves money "
            f"takes an `Idempotency-Key`. This is version {VERSION} of the contract.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "/"}],
        "security": [{"bearer": []}, {"key": []}],
        "tags": [{"name": name} for name in _resources()],
        "paths": paths,
        "components": {
            "schemas": components | {"Problem": _problem()},
            "securitySchemes": {
                "bearer": {
                    "type": "http",
                    "scheme": "bearer",
                    "description": "An API key, `ppk_…`.",
                },
                "key": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
            },
        },
    }


def _resources() -> list[str]:
    return list(dict.fromkeys(operation.resource for operation in OPERATIONS))


def _operation(operation: Operation, shape_of: dict[type, dict[str, Any]]) -> dict[str, Any]:
    described: dict[str, Any] = {
        "operationId": operation.name,
        "summary": operation.summary,
        "description": f"{operation.description} Scope: `{operation.scope}`.".strip(),
        "tags": [operation.resource],
        "parameters": list(_parameters(operation)),
        "responses": _responses(operation, shape_of[operation.answer]),
    }
    if operation.body is not None:
        content = {"schema": shape_of[operation.body]}
        if operation.example is not None:
            content["example"] = operation.example
        described["requestBody"] = {
            "required": not operation.body_optional,
            "content": {JSON: content},
        }
    return described


def _parameters(operation: Operation) -> Iterator[dict[str, Any]]:
    descriptions = dict(_NAMED_ID)
    for name in operation.path_parameters:
        yield {
            "name": name,
            "in": "path",
            "required": True,
            "description": descriptions.get(name, "Its id."),
            "schema": {"type": "string"},
        }
    for parameter in operation.parameters:
        yield _query(parameter)
    if operation.keyed is not Keyed.NEVER:
        yield _IDEMPOTENCY_KEY | {"required": operation.keyed is Keyed.REQUIRED}
    yield _VERSION


def _query(parameter: Parameter) -> dict[str, Any]:
    described = {
        "name": parameter.name,
        "in": "query",
        "required": False,
        "description": parameter.description,
        "schema": parameter.schema,
    }
    if parameter.schema["type"] == "object":
        described |= {"style": "deepObject", "explode": True}
    return described


def _responses(operation: Operation, shape: dict[str, Any]) -> dict[str, Any]:
    content: dict[str, Any] = {JSON: {"schema": shape}}
    if any(parameter.name == "format" for parameter in operation.parameters):
        content |= {media_type: {"schema": {"type": "string"}} for media_type in _STREAMED}
    replayed = () if operation.keyed is Keyed.NEVER else ("Idempotent-Replayed",)
    headers = _headers(*_COUNTED, *replayed)
    done = {"description": operation.summary, "headers": headers, "content": content}
    responses = {str(operation.status): done}
    if any(field.name == "dry_run" for field in _fields(operation.body)):
        responses["200"] = {**done, "description": "What would be; nothing is written"}
    for status, refusals in groupby(errors_of(operation), key=lambda error: error.status):
        responses[str(status)] = _refusal(status, refusals)
    return responses


def _fields(body: type | None) -> tuple[msgspec.structs.FieldInfo, ...]:
    return () if body is None else msgspec.structs.fields(body)


def _headers(*names: str) -> dict[str, Any]:
    return {name: {"schema": {"type": "string"}} for name in (*_EVERY_ANSWER, *names)}


def _refusal(status: int, refusals: Iterable[type[PicoPayError]]) -> dict[str, Any]:
    codes = {error.code: error.title for error in refusals}
    problem = {"$ref": _REFS.format(name="Problem")}
    return {
        "description": "; ".join(f"`{code}`: {title}" for code, title in codes.items()),
        "headers": _headers(*_REFUSED.get(status, ())),
        "content": {
            problems.MEDIA_TYPE: {
                "schema": {"allOf": [problem, {"properties": {"code": {"enum": list(codes)}}}]}
            }
        },
    }


def _problem() -> dict[str, Any]:
    text = {"type": "string"}
    fault = {"type": "object", "properties": {"pointer": text, "detail": text}}
    return {
        "title": "Problem",
        "description": "Why it was refused (RFC 9457); more members tell the circumstances.",
        "type": "object",
        "properties": {
            "type": {"type": "string", "format": "uri"},
            "title": text,
            "status": {"type": "integer"},
            "detail": text,
            "instance": text,
            "code": text,
            "request_id": text,
            "errors": {"type": "array", "items": fault},
        },
        "required": ["type", "title", "status", "detail", "instance", "code", "request_id"],
    }


def _probe(path: str, summary: str, description: str) -> dict[str, Any]:
    content = {
        JSON: {
            "schema": {
                "type": "object",
                "properties": {"status": {"type": "string"}, "reason": {"type": "string"}},
                "required": ["status"],
            }
        }
    }
    responses = {"200": {"description": "Yes", "content": content}}
    if path != "/livez":
        responses["503"] = {"description": "No; `reason` says why", "content": content}
    return {
        "operationId": path[1:],
        "summary": summary,
        "description": description,
        "security": [],
        "responses": responses,
    }


def _metrics() -> dict[str, Any]:
    return {
        "operationId": "metrics",
        "summary": "Metrics",
        "description": "In Prometheus' text format.",
        "security": [],
        "responses": {
            "200": {
                "description": "The metrics",
                "content": {"text/plain": {"schema": {"type": "string"}}},
            }
        },
    }
