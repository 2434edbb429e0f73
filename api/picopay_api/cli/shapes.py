"""The wire forms of ledgers and keys, for commands that do not ask a server.

Used by `ledgers` and `keys` with `--direct`, so that programs read the same either way.
"""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from picopay_api.engine.paging import Page
    from picopay_api.engine.views import ApiKey, Ledger


def ledger_shape(ledger: "Ledger") -> dict[str, Any]:
    """Return a ledger as the API shows it."""
    return {
        "id": f"ldg_{ledger.id.hex}",
        "object": "ledger",
        "name": ledger.name,
        "metadata": ledger.metadata,
        "created_at": _time(ledger.created_at),
    }


def key_shape(key: "ApiKey", secret: str | None = None) -> dict[str, Any]:
    """Return a key as the API shows it; with its secret only when it has just been made."""
    shape: dict[str, Any] = {
        "id": f"key_{key.id.hex}",
        "object": "api_key",
        "ledger": f"ldg_{key.ledger.hex}",
        "name": key.name,
        "scopes": key.scopes,
        "hint": key.hint,
        "created_at": _time(key.created_at),
        "expires_at": _time(key.expires_at),
        "revoked_at": _time(key.revoked_at),
    }
    return shape if secret is None else {**shape, "secret": secret}


def page_shape[T](page: "Page[T]", shape: Callable[[T], Any]) -> dict[str, Any]:
    """Return a page of a list as the API shows it."""
    return {
        "data": [shape(item) for item in page.data],
        "has_more": page.next_cursor is not None,
        "next_cursor": page.next_cursor,
    }


def _time(moment: datetime | None) -> str | None:
    if moment is None:
        return None
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
