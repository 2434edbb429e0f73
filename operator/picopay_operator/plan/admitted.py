"""What the pods of a Deployment were admitted with, written on the Deployment itself. Pure.

While a migration for something newer runs, waits or has failed, pods go on with exactly this, and are
repaired to exactly this: a new image, and a new database as well, comes in only after its migration.
"""

from collections.abc import Mapping
from typing import Any

import msgspec

from picopay_operator import names
from picopay_operator.manifests.context import Access, Context
from picopay_operator.spec.engine import Engine


class Admitted(msgspec.Struct, frozen=True):
    """An image, its version, the database that it was migrated for, and the digest of the Secrets' data."""

    image: str
    version: str
    access: Access
    data_hash: str

    def context(self, engine: Engine) -> Context:
        """Return what manifests of an engine are made from."""
        return Context(engine, self.image, self.version, self.access, self.data_hash)


def written(context: Context) -> str:
    """Return the annotation for a Deployment that is made from a context."""
    admitted = Admitted(context.image, context.version, context.access, context.data_hash)
    return msgspec.json.encode(admitted, order="deterministic").decode()


def read(deployment: Mapping[str, Any]) -> Admitted | None:
    """Return what a Deployment was admitted with; None when that was not written, or is not understood."""
    text = deployment["metadata"].get("annotations", {}).get(names.ADMITTED, "")
    try:
        return msgspec.json.decode(text, type=Admitted)
    except msgspec.DecodeError:  # changed by hand, or of another release
        return None
