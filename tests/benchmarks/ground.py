"""The ground on which all is measured: a durable PostgreSQL of its own, and a fresh ledger for each round.

Used by `command.py` and `rounds.py`. A database is prepared once, with accounts that may be overdrawn, and
copied for each round: every round starts with the same empty journal, and its audit has a bound.
"""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final
from uuid import UUID

import asyncpg
import httpx

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
from picopay_api.store.database import Database
from picopay_api.worker.audit_all import audit_everything
from support.postgres import on_connection

Tell = Callable[[str], None]

FLOOR_MINOR: Final = -1_000_000_000
"""How far each account may be overdrawn: funds are checked, and never run out, without a first payment to
each account that would only make every audit longer. The accounts of pgbench have the same.
"""

_ASSET: Final = "USD"
_POSTINGS_MAX: Final = 1_000
_TEMPLATE: Final = "template_bench"
_ROUND: Final = "bench"
_PLAIN: Final = Path(__file__).with_name("sql") / "plain.sql"


class Ground:
    """A running server with a prepared database; made by `prepared`."""

    def __init__(self, postgres: EmbeddedPostgres, programs: Path, version: str) -> None:
        self.postgres = postgres
        self.programs = programs
        self.version = version
        self.accounts: list[str] = []
        self.api_key = new_secret()

    @classmethod
    @contextmanager
    def prepared(cls, directory: Path, accounts: int, tell: Tell) -> Iterator["Ground"]:
        """Start a server in a directory, prepare the database, and stop the server at the end."""
        postgres = EmbeddedPostgres(directory)
        software = Software.find()
        try:
            postgres.start(tell)
            user = SystemUser.for_server(directory / "postgres")
            programs = software.programs(user, directory / "software")
            ground = cls(postgres, programs, software.version)
            tell(f"making {accounts:,} accounts")
            asyncio.run(ground._prepare(accounts))
            yield ground
        finally:
            postgres.stop()

    @contextmanager
    def database(self) -> Iterator[DatabaseUrl]:
        """Lend a fresh copy of the prepared database; drop it at the end of the block."""
        drop = f"DROP DATABASE IF EXISTS {_ROUND} WITH (FORCE)"
        make = f"CREATE DATABASE {_ROUND} OWNER picopay TEMPLATE {_TEMPLATE}"
        asyncio.run(self._administer(drop, make))
        yield self.postgres.owner_url_of(_ROUND)
        asyncio.run(self._administer(drop))  # after a failure the whole server goes

    async def _administer(self, *statements: str) -> None:
        async def work(connection: "asyncpg.Connection[Any]") -> None:
            for statement in statements:
                await connection.execute(statement)

        await on_connection(self.postgres.superuser_url, work)

    async def _prepare(self, accounts: int) -> None:
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
            ledger = (await engine.ledgers.create("bench")).id
            await engine.keys.create(ledger, "bench", [ADMIN], secret=self.api_key)
            ids = [new_id() for _ in range(accounts)]
            await on_connection(url, lambda connection: _make_accounts(connection, ledger, ids))
            self.accounts = [format_id(ACCOUNT, id) for id in ids]
        plain = _PLAIN.read_text(encoding="utf-8")
        for name, value in (("accounts", accounts), ("floor_minor", FLOOR_MINOR)):
            plain = plain.replace(f":{name}", str(value))
        await on_connection(url, lambda connection: connection.execute(plain))
        # What autovacuum would do in the middle of a round.
        await on_connection(url, lambda connection: connection.execute("VACUUM (ANALYZE)"))


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


def introduce_accounts(server: Server, ground: Ground) -> None:
    """Let a server look every account up, as a process has that has run for a while; write nothing.

    Raises:
        BenchmarkError: the server answers something else than it should.
    """
    headers = {"Authorization": f"Bearer {ground.api_key}"}
    with httpx.Client(base_url=server.url, headers=headers, trust_env=False, timeout=60) as client:
        for at in range(0, len(ground.accounts), _POSTINGS_MAX):
            some = ground.accounts[at : at + _POSTINGS_MAX]
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


async def audit(url: DatabaseUrl, acknowledged: int) -> None:
    """Audit the whole ledger and count: every payment that was acknowledged is there, once.

    Raises:
        BenchmarkError: something does not add up.
    """
    database = await Database.open(url, size=1)
    try:
        findings = await audit_everything(database, lambda _: None)
        payments = await database.value("SELECT count(*) FROM picopay.journal WHERE kind = 1")
    finally:
        await database.close()
    if findings:
        listed = "; ".join(f"{one.kind} {one.subject}: {one.detail}" for one in findings[:5])
        raise BenchmarkError(f"the audit has {len(findings)} findings: {listed}")
    if payments != acknowledged:
        raise BenchmarkError(f"{acknowledged} payments were acknowledged, {payments} are there")
