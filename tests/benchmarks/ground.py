"""The ground on which all is measured: a durable PostgreSQL of its own, and a fresh ledger for each round.

Used by `command.py` and `rounds.py`. A database is prepared once, with accounts that may be overdrawn, and
copied for each round: every round starts with the same empty journal, and its audit has a bound.
"""

import asyncio
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final
from uuid import UUID

import asyncpg
import httpx
import msgspec

from benchmarks import durable
from benchmarks.servers import BenchmarkError, Server
from picopay_api.database_url import DatabaseUrl
from picopay_api.embedded import EmbeddedPostgres
from picopay_api.embedded.processes import SystemUser
from picopay_api.embedded.software import Software
from picopay_api.engine.engine import Engine
from picopay_api.engine.ids import ACCOUNT, format_id, new_id
from picopay_api.engine.keys import ADMIN, new_secret
from picopay_api.settings import Settings
from picopay_api.store import migrate
from support.postgres import on_connection

Tell = Callable[[str], None]

FLOOR_MINOR: Final = -1_000_000_000
"""How far each account may be overdrawn: funds are checked, and never run out, without a first payment to
each account that would only make every audit longer. The accounts of pgbench have the same.
"""

_ASSET: Final = "USD"
_POSTINGS_MAX: Final = 1_000
_QUIET_ACCOUNTS: Final = 1_000
_TEMPLATE: Final = "template_bench"
_PLAIN: Final = Path(__file__).with_name("sql") / "plain.sql"


class Tenant(msgspec.Struct, frozen=True):
    """A ledger of its own: who may ask, between which accounts, and a file that lists them."""

    name: str
    ledger: UUID
    api_key: str
    accounts: Sequence[str]
    accounts_file: Path


class Ground:
    """A running server with a prepared database; made by `prepared`."""

    busy: Tenant
    quiet: Tenant
    """A small ledger beside the one that everything else is measured on."""

    def __init__(
        self, postgres: EmbeddedPostgres, directory: Path, programs: Path, version: str
    ) -> None:
        self.postgres = postgres
        self._directory = directory
        self.programs = programs
        self.version = version

    @classmethod
    @contextmanager
    def prepared(cls, directory: Path, accounts: int, tell: Tell) -> Iterator["Ground"]:
        """Start a server in a directory, prepare the database, and stop the server at the end."""
        postgres = EmbeddedPostgres(directory)
        software = Software.find()
        ground = None
        try:
            postgres.start(tell)
            user = SystemUser.for_server(directory / "postgres")
            programs = software.programs(user, directory / "software")
            ground = cls(postgres, directory, programs, software.version)
            tell(f"making {accounts:,} accounts")
            asyncio.run(ground._prepare(accounts, directory.parent))
            yield ground
        finally:
            if ground is not None:
                postgres = ground.postgres  # it may have been started anew
            postgres.stop()

    @contextmanager
    def database(self, name: str = "bench") -> Iterator[DatabaseUrl]:
        """Lend a fresh copy of the prepared database; drop it at the end of the block."""
        drop = f"DROP DATABASE IF EXISTS {name} WITH (FORCE)"
        make = f"CREATE DATABASE {name} OWNER picopay TEMPLATE {_TEMPLATE}"
        asyncio.run(self._administer(drop, make))
        yield self.postgres.owner_url_of(name)
        asyncio.run(self._administer(drop))  # after a failure the whole server goes

    async def _administer(self, *statements: str) -> None:
        async def work(connection: "asyncpg.Connection[Any]") -> None:
            for statement in statements:
                await connection.execute(statement)

        await on_connection(self.postgres.superuser_url, work)

    @contextmanager
    def hasty(self, settings: Mapping[str, str], tell: Tell) -> Iterator[None]:
        """Run the server with other settings while the block lasts, and durably again afterwards."""
        self._start_anew(settings, tell)
        yield  # after a failure there is nothing to be measured
        self._start_anew({}, tell)
        os.sync()  # what is left to be written would be, while something is measured
        asyncio.run(on_connection(self.postgres.superuser_url, durable.require_durable))

    def _start_anew(self, settings: Mapping[str, str], tell: Tell) -> None:
        self.postgres.stop()
        self.postgres = EmbeddedPostgres(self._directory, settings=settings)
        self.postgres.start(tell)

    @contextmanager
    def slow_commits(self, delay_ms: int) -> Iterator[None]:
        """Have every commit of the server take this much longer while the block lasts."""
        asyncio.run(durable.slow_commits(self.postgres.superuser_url, delay_ms))
        try:
            yield
        finally:
            asyncio.run(durable.slow_commits(self.postgres.superuser_url, 0))

    async def _prepare(self, accounts: int, work: Path) -> None:
        url = self.postgres.owner_url_of(_TEMPLATE)
        await self._administer(
            f"CREATE DATABASE {_TEMPLATE} OWNER picopay",
            # pgbench makes its sessions within the time that it measures: passwords that are quick
            # to check keep that small.
            "SET scram_iterations = 1",
            f"ALTER ROLE {url.user} PASSWORD '{url.password}'",
        )
        await migrate.upgrade_async(url)
        async with Engine.open(Settings(database_url=url)) as engine:
            self.busy = await make_tenant(engine, url, "busy", accounts, work)
            self.quiet = await make_tenant(engine, url, "quiet", _QUIET_ACCOUNTS, work)
        await on_connection(self.postgres.superuser_url, durable.require_durable)
        plain = _PLAIN.read_text(encoding="utf-8")
        for name, value in (("accounts", accounts), ("floor_minor", FLOOR_MINOR)):
            plain = plain.replace(f":{name}", str(value))
        await on_connection(url, lambda connection: connection.execute(plain))
        # What autovacuum would do in the middle of a round.
        await on_connection(url, lambda connection: connection.execute("VACUUM (ANALYZE)"))


async def make_tenant(
    engine: Engine, url: DatabaseUrl, name: str, accounts: int, work: Path
) -> Tenant:
    """Make a ledger with so many accounts, and a file in `work` that lists them."""
    ledger = (await engine.ledgers.create(name)).id
    api_key = new_secret()
    await engine.keys.create(ledger, "bench", [ADMIN], secret=api_key)
    ids = [new_id() for _ in range(accounts)]
    await on_connection(url, lambda connection: _make_accounts(connection, ledger, ids))
    shown = [format_id(ACCOUNT, id) for id in ids]
    file = work / f"accounts-{name}"
    file.write_text("\n".join(shown), encoding="ascii")
    return Tenant(name, ledger, api_key, shown, file)


async def _make_accounts(
    connection: "asyncpg.Connection[Any]", ledger: UUID, ids: list[UUID]
) -> None:
    now = datetime.now(UTC)
    await connection.copy_records_to_table(
        "account",
        schema_name="picopay",
        columns=("ledger_id", "id", "created_at"),
        records=((ledger, id, now) for id in ids),
    )
    await connection.copy_records_to_table(
        "balance",
        schema_name="picopay",
        columns=(
            *("ledger_id", "account_id", "asset", "state", "floor_minor"),
            *("posted_minor", "held_minor", "sequence", "changed_at"),
        ),
        records=((ledger, id, _ASSET, 0, FLOOR_MINOR, 0, 0, 0, now) for id in ids),
    )


def introduce_accounts(server: Server, tenant: Tenant) -> None:
    """Let each process look every account up, as one has that has run for a while; write nothing.

    Raises:
        BenchmarkError: the server answers something else than it should.
    """
    headers = {"Authorization": f"Bearer {tenant.api_key}"}
    with server.one_at_a_time() as turns:
        for _ in turns:
            with httpx.Client(
                base_url=server.url, headers=headers, trust_env=False, timeout=60
            ) as client:
                _introduce(client, tenant)


def _introduce(client: httpx.Client, tenant: Tenant) -> None:
    for at in range(0, len(tenant.accounts), _POSTINGS_MAX):
        some = tenant.accounts[at : at + _POSTINGS_MAX]
        # From each account to itself: refused once all are found, before anything is decided.
        postings = [
            {"source": account, "destination": account, "amount": 1, "asset": _ASSET}
            for account in some
        ]
        answer = client.post(
            "/v1/transactions",
            json={"postings": postings},
            headers={"Idempotency-Key": f"introduction-{at}"},
        )
        if not (answer.status_code == 422 and answer.json()["code"] == "same_account"):
            raise BenchmarkError(f"the introduction of accounts was answered {answer.text}")
