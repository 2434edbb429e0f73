"""What kinds of owners and databases can be migrated and served: those that may make roles and others."""

from collections.abc import AsyncIterator, Callable, Iterator

import asyncpg
import msgspec
import pytest

from picopay_api.database_url import DatabaseUrl
from picopay_api.store import migrate
from picopay_api.store.migrate import MigrationError
from picopay_api.worker.audit_all import audit_everything
from picopay_api.worker.auditor import Auditor
from picopay_api.worker.partitions import INTERVAL_S, Partitions
from picopay_api.worker.sealer import Sealer
from support.api import served
from support.journal import Book, opened
from support.postgres import VERSIONS, Server
from support.sql import execute, rows, value

FORGET = """
SELECT format('DROP DATABASE %I WITH (FORCE)', datname) FROM pg_database
 WHERE NOT datistemplate AND datname <> ALL ($1)
UNION ALL
SELECT 'DROP ROLE ' || string_agg(quote_ident(rolname), ', ') FROM pg_roles
 WHERE rolname NOT LIKE 'pg\\_%' AND rolname <> ALL ($1)
"""


class Cluster:
    """A server on which no role of PicoPay's is known yet. Passwords are the roles' names."""

    def __init__(self, server: Server) -> None:
        self._server = server

    async def make_role(self, name: str, rights: str = "") -> None:
        """Make a role that can log in, as the administrator of the server."""
        quoted = name.replace('"', '""')
        await self.run(f"CREATE ROLE \"{quoted}\" LOGIN PASSWORD '{name}' {rights}")

    async def make_database(
        self, owner: str, name: str = "ledger", options: str = ""
    ) -> DatabaseUrl:
        """Make a database; return its address as its owner reaches it."""
        quoted = owner.replace('"', '""')
        await self.run(f'CREATE DATABASE {name} OWNER "{quoted}" TEMPLATE template0 {options}')
        return as_role(self._server.postgres.owner_url_of(name), owner)

    async def run(self, sql: str) -> None:
        """Run a statement as the superuser."""
        await execute(self._server.postgres.superuser_url, sql)

    async def forget(self) -> None:
        """Drop all that was made here."""
        own = ["postgres", "picopay"]
        for (statement,) in await rows(self._server.postgres.superuser_url, FORGET, own):
            await self.run(statement or "")


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], Server]]:
    servers: dict[str, Server] = {}

    def of_version(version: str) -> Server:
        if version not in servers:
            servers[version] = Server.start(tmp_path_factory.mktemp("bare") / "server", version)
        return servers[version]

    yield of_version
    for server in servers.values():
        server.stop()


@pytest.fixture(params=(VERSIONS[0], VERSIONS[-1]))
async def cluster(
    request: pytest.FixtureRequest, bare: Callable[[str], Server]
) -> AsyncIterator[Cluster]:
    cluster = Cluster(bare(request.param))
    yield cluster
    await cluster.forget()


def as_role(url: DatabaseUrl, role: str) -> DatabaseUrl:
    return msgspec.structs.replace(url, user=role, password=role)


async def require_working(url: DatabaseUrl, runs_as: str) -> None:
    """Require that a server and a worker do all they have to do, as a role."""
    async with served(url) as api:
        assert await api.engine.database.value("SELECT current_user") == runs_as
        await api.account("alice", 1_000)
        await api.account("bob")
        assert (await api.pay("@alice", "@bob", 250)).status_code == 201
        assert (await api.post("/v1/accounts/@bob/freeze")).status_code == 200
        answer = await api.client.patch("/v1/accounts/@bob", json={"metadata": {"a": "b"}})
        assert answer.status_code == 200
        made = await api.client.post("/v1/api_keys", json={"name": "n", "scopes": ["*"]})
        answer = await api.client.post(f"/v1/api_keys/{made.json()['id']}/revoke")
        assert answer.status_code == 200
        database = api.engine.database
        await Sealer(database).step()
        await Auditor(database, 0).step()
        assert await Partitions(database, 3).step() == INTERVAL_S
        events = await api.client.get("/v1/events")
        assert [event["position"] for event in events.json()["data"]] == [1, 2]
        assert (await api.client.get("/v1/audit")).json()["position"] == 2
        assert await audit_everything(database, lambda _: None) == []


async def test_an_owner_that_may_make_roles_makes_the_runtime_role_and_lends_it(
    cluster: Cluster,
) -> None:
    """What the master user of RDS is: no superuser, but it may make roles."""
    await cluster.make_role("owner", "CREATEROLE")
    url = await cluster.make_database("owner")
    await migrate.upgrade_async(url)
    await require_working(url, "picopay_app")
    await execute(url, "CREATE ROLE app LOGIN PASSWORD 'app'")
    await execute(url, "GRANT picopay_app TO app")
    await require_working(as_role(url, "app"), "picopay_app")
    # A second owner finds the role, and on later releases of PostgreSQL may not lend it to itself.
    await cluster.make_role("second", "CREATEROLE")
    second = await cluster.make_database("second", "second")
    await migrate.upgrade_async(second)
    is_member = await value(second, "SELECT pg_has_role('picopay_app', 'MEMBER')")
    await require_working(second, "picopay_app" if is_member else "second")
    assert await migrate.drift(second) == []


async def test_an_owner_that_may_not_make_roles_finds_the_one_an_administrator_made(
    cluster: Cluster,
) -> None:
    await cluster.run("CREATE ROLE picopay_app NOLOGIN")
    await cluster.make_role("owner")
    await cluster.make_role("app", "IN ROLE picopay_app")
    await cluster.make_role("heir", "INHERIT IN ROLE picopay_app")
    url = await cluster.make_database("owner")
    await migrate.upgrade_async(url)
    assert (await migrate.read_state(url)).is_head()
    await require_working(as_role(url, "app"), "picopay_app")
    await require_working(url, "owner")
    major = await value(url, "SELECT current_setting('server_version_num')::integer / 10000")
    if major >= 16:  # a member can be kept from becoming the role: it has its rights all the same
        await cluster.run("GRANT picopay_app TO heir WITH SET FALSE")
        await require_working(as_role(url, "heir"), "heir")
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await migrate.upgrade_async(as_role(url, "app"))
    assert (await migrate.read_state(as_role(url, "app"))).is_head()


async def test_an_owner_without_the_runtime_role_serves_as_itself(cluster: Cluster) -> None:
    await cluster.make_role("owner")
    url = await cluster.make_database("owner")
    await migrate.upgrade_async(url)
    assert await value(url, "SELECT to_regrole('picopay_app')") is None
    await require_working(url, "owner")
    with pytest.raises(asyncpg.PostgresError) as refused:
        await execute(url, "DELETE FROM picopay.journal")
    assert refused.value.sqlstate == "PP002"


async def test_a_runtime_role_made_later_gets_its_rights_with_the_next_migration(
    cluster: Cluster,
) -> None:
    await cluster.make_role("owner")
    url = await cluster.make_database("owner")
    await migrate.upgrade_async(url)
    await cluster.run("CREATE ROLE picopay_app NOLOGIN")
    await cluster.make_role("app", "IN ROLE picopay_app")
    assert await migrate.upgrade_async(url) == []
    await require_working(as_role(url, "app"), "picopay_app")


async def test_an_owner_may_be_given_the_schema_and_nothing_else(cluster: Cluster) -> None:
    await cluster.make_role("landlord")
    await cluster.make_role("owner")
    landlord = await cluster.make_database("landlord")
    owner = as_role(landlord, "owner")
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await migrate.upgrade_async(owner)
    await execute(landlord, "CREATE SCHEMA picopay; GRANT CREATE, USAGE ON SCHEMA picopay TO owner")
    await migrate.upgrade_async(owner)
    assert (await migrate.read_state(owner)).is_head()


async def test_the_owner_may_have_any_name(cluster: Cluster) -> None:
    names = ["public_owner", "Größe und Gewicht", 'a "quoted" one', "journal", "$user"]
    for number, name in enumerate(names):
        await cluster.make_role(name, "CREATEROLE")
        url = await cluster.make_database(name, f"ledger_{number}")
        await migrate.upgrade_async(url)
        assert await migrate.drift(url) == []
        async with opened(url) as database:
            await (await Book.make(database)).funded()


@pytest.mark.parametrize("encoding", ["LATIN1", "SQL_ASCII"])
async def test_a_database_that_cannot_hold_every_text_is_refused(
    cluster: Cluster, encoding: str
) -> None:
    await cluster.make_role("owner", "CREATEROLE")
    options = f"ENCODING '{encoding}' LOCALE 'C'"
    url = await cluster.make_database("owner", options=options)
    with pytest.raises(MigrationError, match=f"encoded in {encoding}.*ENCODING 'UTF8'"):
        await migrate.upgrade_async(url)
    assert await value(url, "SELECT to_regnamespace('picopay')") is None
