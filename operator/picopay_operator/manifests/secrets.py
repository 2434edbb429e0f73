"""What the Secrets that the operator makes look like. Values are made up by the caller, and go nowhere else.

Used by `reconcile.py`, never by the plan: no value of a Secret passes through it or through a log.
"""

from base64 import b64encode
from collections.abc import Mapping
from urllib.parse import quote

from picopay_operator import contract, names
from picopay_operator.manifests import postgres
from picopay_operator.manifests.context import Manifest
from picopay_operator.manifests.metadata import metadata
from picopay_operator.names import Component
from picopay_operator.spec.engine import Engine

DATABASE_URL_KEY = "database-url"


def database(engine: Engine, version: str, password: str, *, owned: bool) -> Manifest:
    """Return the Secret of the small PostgreSQL: its password, and the address with it."""
    address = (
        f"postgresql://{postgres.USER}:{quote(password, safe='')}"
        f"@{postgres.host(engine)}:{postgres.PORT}/{postgres.DATABASE}?sslmode=disable"
    )
    return _secret(
        engine,
        names.postgres(engine.metadata.name),
        Component.DATABASE,
        version,
        {postgres.PASSWORD_KEY: password, DATABASE_URL_KEY: address},
        owned=owned,
    )


def admin_key(
    engine: Engine,
    name: str,
    version: str,
    key: str,
    *,
    owned: bool,
    previous: str | None = None,
    rotation: str | None = None,
) -> Manifest:
    """Return the Secret of the administrator's key; `rotation` is the mark that had `previous` replaced."""
    values = {contract.ADMIN_KEY: key}
    if previous is not None:
        values[contract.PREVIOUS_ADMIN_KEY] = previous
    return _secret(
        engine,
        name,
        Component.ADMIN_KEY,
        version,
        values,
        owned=owned,
        annotations={names.ROTATE_KEY: rotation} if rotation else None,
    )


def _secret(
    engine: Engine,
    name: str,
    component: Component,
    version: str,
    values: Mapping[str, str],
    *,
    owned: bool,
    annotations: Mapping[str, str] | None = None,
) -> Manifest:
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": metadata(
            engine,
            name,
            component,
            version,
            annotations=annotations,
            owned=owned,
        ),
        "type": "Opaque",
        # Not stringData: the API server turns that into data, whose fields would then be nobody's.
        "data": {key: b64encode(value.encode()).decode() for key, value in values.items()},
    }
