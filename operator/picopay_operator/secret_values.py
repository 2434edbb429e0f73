"""The values of Secrets that the operator makes up: passwords and keys. Pure but for chance.

Used by `cluster.py`, the only module that ever holds such values.
"""

import base64
import secrets
from collections.abc import Mapping
from typing import Any

from picopay_operator import contract, names
from picopay_operator.manifests import secrets as manifests
from picopay_operator.manifests.context import Manifest
from picopay_operator.plan.outcome import Generated
from picopay_operator.spec.engine import Engine

_PASSWORD_BYTES = 24


def read(secret: Mapping[str, Any] | None) -> dict[str, str]:
    """Return what is in a Secret, as text; nothing where there is none."""
    data = (secret or {}).get("data") or {}
    return {name: decoded(value) for name, value in data.items()}


def decoded(value: str) -> str:
    """Return a value as text; a binary one is of no use to us and must do no harm."""
    return base64.b64decode(value).decode(errors="replace")


def made_up(
    engine: Engine,
    wanted: Generated,
    version: str,
    known: Mapping[str, str],
    there: Mapping[str, Any] | None,
) -> Manifest:
    """Return a Secret with values of our own making; those that are known stay, unless it is rotated."""
    if wanted.kind == "postgres":
        password = known.get("password") or secrets.token_urlsafe(_PASSWORD_BYTES)
        return manifests.database(engine, version, password, owned=wanted.owned)
    annotations = (there or {}).get("metadata", {}).get("annotations", {})
    rotated = annotations.get(names.ROTATE_KEY)
    api_key = known.get(contract.ADMIN_KEY)
    previous = known.get(contract.PREVIOUS_ADMIN_KEY)
    if api_key is None:
        api_key = _api_key()
    elif wanted.rotate is not None and wanted.rotate != rotated:
        api_key, previous = _api_key(), api_key
    return manifests.admin_key(
        engine,
        wanted.name,
        version,
        api_key,
        owned=wanted.owned,
        previous=previous,
        rotation=wanted.rotate or rotated,
    )


def _api_key() -> str:
    """Make a key up: 32 random bytes, as the API makes them."""
    return f"ppk_{secrets.token_hex(32)}"
