"""The fixtures that every test may ask for: databases on a real PostgreSQL."""

from collections.abc import AsyncIterator, Callable, Iterator

import pytest
from hypothesis import settings

from picopay_api.database_url import DatabaseUrl
from picopay_api.store.database import Database
from support.journal import Book, opened
from support.postgres import VERSIONS, Server
from support.proxy import Proxy, proxied

pytest_plugins = ["support.controlplane.plugin", "support.e2e.plugin"]

# How long an example takes says nothing on a busy machine; the time-out of each test is the bound.
settings.register_profile("picopay", deadline=None, print_blob=True)
settings.load_profile("picopay")


@pytest.fixture(scope="session")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], Server]]:
    """Return the server of a release, as in `support.postgres.VERSIONS`; one per process."""
    servers: dict[str, Server] = {}

    def of_version(version: str) -> Server:
        if version not in servers:
            directory = tmp_path_factory.mktemp(f"postgres-{version}-") / "server"
            servers[version] = Server.start(directory, version)
        return servers[version]

    yield of_version
    for server in servers.values():
        server.stop()


@pytest.fixture(scope="session")
def server(postgres: Callable[[str], Server]) -> Server:
    """Return the server of the newest release."""
    return postgres(VERSIONS[-1])


@pytest.fixture
def database_url(server: Server) -> Iterator[DatabaseUrl]:
    """Return the owner's address of a migrated, empty database that the test has for itself."""
    with server.database() as url:
        yield url


@pytest.fixture
def empty_database_url(server: Server) -> Iterator[DatabaseUrl]:
    """Return the owner's address of a database without a schema."""
    with server.database(migrated=False) as url:
        yield url


@pytest.fixture
async def database(database_url: DatabaseUrl) -> AsyncIterator[Database]:
    """Return a pool of sessions with the test's database."""
    async with opened(database_url) as database:
        yield database


@pytest.fixture
async def book(database: Database) -> Book:
    """Return a ledger with an outside account, without the engine above it."""
    return await Book.make(database)


@pytest.fixture
async def proxy(database_url: DatabaseUrl) -> AsyncIterator[Proxy]:
    """Return a proxy in front of the test's database, at which the network can be at fault."""
    async with proxied(database_url) as proxy:
        yield proxy
