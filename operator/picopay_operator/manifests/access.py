"""In which Secrets the way to an engine's database is, whichever kind of database that is.

Used by the plan, to look those Secrets up and to fill the `Context`.
"""

from picopay_operator import names
from picopay_operator.manifests import postgres
from picopay_operator.manifests.context import Access, SecretKey
from picopay_operator.manifests.secrets import DATABASE_URL_KEY
from picopay_operator.spec.database import Database, DatabaseSecret, TlsMode
from picopay_operator.spec.engine import Engine

_CNPG_URL_KEY = "uri"
_CNPG_CA_KEY = "ca.crt"


def access(engine: Engine, ports: tuple[int, ...] = ()) -> Access:
    """Return how pods reach the database; `ports` are those in addresses that others keep, where known."""
    database = engine.spec.database
    migration = database.migration_secret_ref
    if not (database.secret_ref or migration):
        ports = (postgres.PORT,)
    mode, ca = _tls(engine, database)
    return Access(
        url=_url(engine, database),
        migration_url=_key(migration) if migration else None,
        ca=ca,
        tls_mode=mode,
        ports=ports,
    )


def cluster_name(engine: Engine) -> str:
    """Return the name of the cluster of CloudNativePG, the engine's own or the one that it refers to."""
    wanted = engine.spec.database.cloud_native_pg
    if wanted and wanted.cluster_ref:
        return wanted.cluster_ref.name
    return names.postgres(engine.metadata.name)


def _url(engine: Engine, database: Database) -> SecretKey:
    if database.secret_ref:
        return _key(database.secret_ref)
    if database.cloud_native_pg:
        return SecretKey(f"{cluster_name(engine)}-app", _CNPG_URL_KEY)
    return SecretKey(names.postgres(engine.metadata.name), DATABASE_URL_KEY)


def _tls(engine: Engine, database: Database) -> tuple[TlsMode | None, SecretKey | None]:
    """Return mode and certificate: those given, else what is sure of a cluster that is our own."""
    if given := database.tls:
        ca = given.ca_secret_ref
        return given.mode, SecretKey(ca.name, ca.key) if ca else None
    if database.cloud_native_pg is None:
        return None, None
    if database.cloud_native_pg.cluster_ref:
        return TlsMode.REQUIRE, None  # whose authority signs there is not known
    return TlsMode.VERIFY_FULL, SecretKey(f"{cluster_name(engine)}-ca", _CNPG_CA_KEY)


def _key(secret: DatabaseSecret) -> SecretKey:
    return SecretKey(secret.name, secret.key)
