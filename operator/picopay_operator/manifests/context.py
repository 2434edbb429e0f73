"""What manifests are made from, beside the engine itself: what the plan has decided so far. Shapes only.

Made by `plan/`, given to every builder of this package.
"""

from typing import Any, NamedTuple

from msgspec import Struct

from picopay_operator.spec.database import TlsMode
from picopay_operator.spec.engine import Engine

type Manifest = dict[str, Any]
"""An object as it is applied: JSON, with `apiVersion`, `kind` and `metadata`."""


class SecretKey(NamedTuple):
    """A value in a Secret of the engine's namespace."""

    secret: str
    key: str


class Access(Struct, frozen=True):
    """How pods reach the database. `migration_url` is the owner's, where that is another one.

    `ports` are those in the addresses, all that a network policy can know of a database outside; none where
    they are not known.
    """

    url: SecretKey
    migration_url: SecretKey | None = None
    ca: SecretKey | None = None
    tls_mode: TlsMode | None = None
    ports: tuple[int, ...] = ()


class Context(Struct, frozen=True):
    """An engine and what was decided for it.

    `image` is complete, with tag or digest; `version` is the label's value. `data_hash` is the digest of what
    is in the Secrets that pods use. What `kubectl rollout restart` writes into a template is not here: it is
    kubectl's field, and stays as long as nobody else claims it.
    """

    engine: Engine
    image: str
    version: str
    access: Access
    data_hash: str

    @property
    def name(self) -> str:
        """The engine's name."""
        return self.engine.metadata.name
