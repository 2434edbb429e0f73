"""Problem documents (RFC 9457): the one form in which every refusal leaves the edge.

A refusal of `errors.py` becomes status, headers and body; what the framework or a defect raises becomes
one of those refusals first. Nothing of a defect but its `request_id` is told to clients.
"""

from typing import Any
from urllib.parse import quote
from uuid import UUID

import msgspec
from litestar.exceptions import HTTPException, MethodNotAllowedException, NotFoundException

from picopay_api.engine.ids import ACCOUNT, format_id
from picopay_api.errors import (
    AccessError,
    IdempotencyKeyInFlight,
    InternalError,
    InvalidRequest,
    MethodNotAllowed,
    NotFound,
    PicoPayError,
    RequestError,
    UnavailableError,
)
from picopay_api.http.answers import EXACT_MAX

MEDIA_TYPE = "application/problem+json"
_RETRY_AFTER_S = 1
_PATH_SAFE = (
    "/%:@!$&'()*+,;=~"  # what a path holds as it is (RFC 3986), escapes made by the client too
)


def body(error: PicoPayError, base_url: str, instance: str, request_id: str) -> bytes:
    """Encode a refusal as a problem document."""
    document: dict[str, Any] = {
        "type": base_url + error.code,
        "title": error.title,
        "status": error.status,
        "detail": error.detail,
        "instance": quote(instance, safe=_PATH_SAFE),
        "code": error.code,
        "request_id": request_id,
    }
    if isinstance(error, RequestError) and error.faults:
        document["errors"] = [
            {"pointer": fault.pointer, "detail": fault.detail} for fault in error.faults
        ]
    document.update((name, _member(value)) for name, value in error.members.items())
    return msgspec.json.encode(document)


def headers(error: PicoPayError) -> dict[str, str]:
    """Return the headers that belong to a refusal."""
    found: dict[str, str] = {}
    if isinstance(error, AccessError) and error.status == 401:
        found["WWW-Authenticate"] = 'Bearer realm="picopay"'
    if isinstance(error, UnavailableError | IdempotencyKeyInFlight) or error.status == 429:
        after_s = getattr(error, "retry_after_s", _RETRY_AFTER_S)
        found["Retry-After"] = str(error.members.get("retry_after_s", after_s))
    if isinstance(error, MethodNotAllowed):
        found["Allow"] = ", ".join(error.members.get("allowed", ()))
    if error.replayed:
        found["Idempotent-Replayed"] = "true"
    return found


def of_exception(error: Exception) -> PicoPayError:
    """Say a refusal for what the framework or a defect has raised."""
    if isinstance(error, PicoPayError):
        return error
    if isinstance(error, NotFoundException):
        return NotFound("there is nothing at this path")
    if isinstance(error, MethodNotAllowedException):
        return MethodNotAllowed("this method is not for this path")
    if isinstance(error, HTTPException) and error.status_code < 500:
        return InvalidRequest(error.detail)
    return InternalError("a defect of PicoPay; the request_id finds it in the log")


def _member(value: Any) -> Any:
    if isinstance(value, UUID):
        return format_id(ACCOUNT, value)
    if isinstance(value, int) and not -EXACT_MAX <= value <= EXACT_MAX:
        return str(value)
    return value
