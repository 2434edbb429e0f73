"""Sessions with the database: as whom and how they run, what is refused, what is asked once more."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import asyncpg
import msgspec
import pytest

from picopay_api.database_url import DatabaseUrl
from picopay_api.engine.ids import new_id
from picopay_api.engine.readiness import Readiness
from picopay_api.errors import DatabaseUnavailable, SchemaOutOfRange
from picopay_api.store.database import Database
from support.api import served
from support.journal import Book, opened
from support.postgres import Server, on_connection
from support.sql import value
from support.waiting import eventually

SETTINGS = {
    "role": "picopay_app",
    "transaction_isolation": "read committed",
    "default_transaction_isolation": "read committed",
    "synchronous_commit": "on",
    "TimeZone": "UTC",
    "statement_timeout": "1234ms",
    "lock_timeout": "567ms",
    "idle_in_transaction_session_timeout": "30s",
    "tcp_keepalives_idle": "15",
    "tcp_keepalives_interval": "5",
    "tcp_keepalives_count": "3",
    "tcp_user_timeout": "30000",
    "application_name": "sessions",
}
BOUNDS: dict[str, Any] = {
    "statement_timeout_ms": 1_234,
    "lock_timeout_ms": 567,
    "application_name": "sessions",
}
OPEN_SESSIONS = "SELECT count(*) FROM pg_stat_activity WHERE datname = $1"
MAKE_LEDGER = "INSERT INTO picopay.ledger (ledger_id, name, created_at) VALUES ($1, $2, now())"


async def as_superuser(server: Server, url: DatabaseUrl, *statements: str) -> None:
    superuser = server.postgres.superuser_url
    there = msgspec.structs.replace(url, user=superuser.user, password=superuser.password)
    await on_connection(there, lambda connection: connection.execute("; ".join(statements)))


async def settings_of(database: Database) -> dict[str, str]:
    """Return the settings of a session, in the same words as above."""
    async with database.session() as connection:
        assert await connection.fetchval("SELECT current_user") == "picopay_app"
        return {name: await connection.fetchval(f"SHOW {name}") for name in SETTINGS}


async def test_nothing_about_money_is_left_to_the_defaults_of_the_server(
    server: Server, database_url: DatabaseUrl
) -> None:
    name = database_url.database
    worse = {
        "synchronous_commit": "off",
        "default_transaction_isolation": "serializable",
        "timezone": "Asia/Kathmandu",
        "statement_timeout": "0",
        "lock_timeout": "0",
    }
    await as_superuser(
        server,
        database_url,
        *[f"ALTER DATABASE {name} SET {setting} = '{value}'" for setting, value in worse.items()],
        f"ALTER ROLE picopay IN DATABASE {name} SET synchronous_commit = 'local'",
    )
    options = "-c synchronous_commit=off -c lock_timeout=0 -c statement_timeout=0"
    given = msgspec.structs.replace(
        database_url,
        parameters=(*database_url.parameters, ("options", options), ("application_name", "mine")),
    )
    for url in (database_url, given):
        database = await Database.open(url, **BOUNDS)
        try:
            assert await settings_of(database) == SETTINGS
            async with database.session() as connection:
                now = await connection.fetchval("SELECT now()::text")
            assert now.endswith("+00")
        finally:
            await database.close()


async def test_history_is_out_of_reach(database: Database) -> None:
    book = await Book.make(database)
    await book.funded()
    for statement in (
        "UPDATE picopay.journal SET kind = 2",
        "DELETE FROM picopay.entry",
        "TRUNCATE picopay.commit",
        "UPDATE picopay.balance SET floor_minor = NULL",
        "ALTER TABLE picopay.journal DISABLE TRIGGER ALL",
        "DROP TABLE picopay.entry",
        "UPDATE picopay.schema_version SET min_compatible = '0'",
    ):
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await database.run(statement)


async def test_a_session_that_began_before_the_role_was_granted_is_not_kept(
    server: Server, database_url: DatabaseUrl
) -> None:
    role = f"late_{database_url.database}"
    await as_superuser(
        server,
        database_url,
        f"CREATE ROLE {role} LOGIN PASSWORD 'late'",
        f"GRANT USAGE ON SCHEMA picopay TO {role}",
    )
    try:
        late = msgspec.structs.replace(database_url, user=role, password="late")
        async with opened(late) as database:
            database.refusal = SchemaOutOfRange("the schema does not exist yet")
            async with database.unguarded_session() as connection:
                assert await connection.fetchval("SELECT current_user") == role
            await as_superuser(server, database_url, f"GRANT picopay_app TO {role}")
            database.refusal = None
            async with database.session() as connection:
                assert await connection.fetchval("SELECT current_user") == "picopay_app"
    finally:
        await as_superuser(
            server, database_url, f"DROP OWNED BY {role} CASCADE", f"DROP ROLE {role}"
        )


async def test_a_server_outlives_the_password_it_was_started_with(
    server: Server, database_url: DatabaseUrl
) -> None:
    role = f"rotated_{database_url.database}"
    opened_by_now = f"SELECT count(*) FROM pg_stat_activity WHERE usename = '{role}'"
    await as_superuser(
        server, database_url, f"CREATE ROLE {role} LOGIN PASSWORD 'old' IN ROLE picopay_app"
    )
    try:
        old = msgspec.structs.replace(database_url, user=role, password="old")
        async with served(old, pool_size=6) as api:
            await api.account("bob")

            async def is_filled() -> bool:
                # The server's own, and one of the engine by which the test makes keys.
                return bool(await value(database_url, opened_by_now) >= 7)

            await eventually(is_filled)
            # Not even the right password would do now.
            await as_superuser(server, database_url, f"ALTER ROLE {role} NOLOGIN")
            asked = [api.pay("@world", "@bob", 1) for _ in range(60)]
            asked += [api.client.get("/v1/accounts") for _ in range(60)]
            answers = await asyncio.gather(*asked)
            assert {answer.status_code for answer in answers} == {200, 201}
    finally:
        await as_superuser(
            server, database_url, f"DROP OWNED BY {role} CASCADE", f"DROP ROLE {role}"
        )


async def test_a_session_is_kept_however_much_it_has_done(database: Database) -> None:
    async with database.session() as connection:
        before = await connection.fetchval("SELECT pg_backend_pid()")
        for _ in range(50_001):  # after 50,000 the driver would replace it
            await connection.execute("SELECT")
    async with database.session() as connection:
        assert await connection.fetchval("SELECT pg_backend_pid()") == before


async def test_a_pool_that_is_not_admitted_is_filled_a_few_looks_later(
    server: Server, database_url: DatabaseUrl
) -> None:
    name = database_url.database
    await as_superuser(server, database_url, f"ALTER DATABASE {name} CONNECTION LIMIT 2")
    async with opened(database_url) as database:
        readiness = Readiness(database)
        readiness.stay()
        watching = asyncio.create_task(readiness.watch())
        try:

            async def is_ready() -> bool:
                return readiness.problem is None

            await eventually(is_ready)
            assert not await database.fill()
            await as_superuser(server, database_url, f"ALTER DATABASE {name} CONNECTION LIMIT -1")

            async def is_full() -> bool:
                return bool(await value(database_url, OPEN_SESSIONS, name) >= 8)

            await eventually(is_full)
            assert await database.fill()
        finally:
            watching.cancel()
            await asyncio.gather(watching, return_exceptions=True)


async def test_a_pool_gives_back_what_it_has_when_it_is_not_filled_to_the_end(
    database: Database,
) -> None:
    filling = asyncio.create_task(database.fill())
    await asyncio.sleep(0.02)
    filling.cancel()
    await asyncio.gather(filling, return_exceptions=True)
    assert await database.fill()  # nothing is lent for ever


async def test_while_there_is_a_refusal_no_session_is_lent(database: Database) -> None:
    async def in_session() -> None:
        async with database.session():
            raise AssertionError("it was lent")

    async def in_transaction() -> None:
        async with database.transaction():
            raise AssertionError("it was lent")

    asked: list[Callable[[], Awaitable[Any]]] = [
        in_session,
        in_transaction,
        lambda: database.rows("SELECT 1"),
        lambda: database.row("SELECT 1"),
        lambda: database.value("SELECT 1"),
        lambda: database.run(MAKE_LEDGER, new_id(), "no"),
    ]
    database.refusal = SchemaOutOfRange("too old")
    for ask in asked:
        with pytest.raises(SchemaOutOfRange, match="too old"):
            await ask()
    async with database.unguarded_session() as connection:
        assert await connection.fetchval("SELECT count(*) FROM picopay.ledger") == 0
    database.refusal = None
    assert await database.value("SELECT 1") == 1


AWAY: dict[str, Callable[[DatabaseUrl], DatabaseUrl]] = {
    "nobody listens": lambda url: msgspec.structs.replace(url, ports=(1,)),
    "no such host": lambda url: msgspec.structs.replace(url, hosts=("nowhere.invalid",)),
    "no such database": lambda url: msgspec.structs.replace(url, database="nothing"),
    "no such user": lambda url: msgspec.structs.replace(url, user="nobody"),
    "wrong password": lambda url: msgspec.structs.replace(url, password="wrong"),
    "no primary": lambda url: msgspec.structs.replace(
        url, parameters=(*url.parameters, ("target_session_attrs", "standby"))
    ),
}


@pytest.mark.parametrize("why", AWAY)
async def test_a_database_that_cannot_be_reached_is_unavailable(
    database_url: DatabaseUrl, why: str
) -> None:
    async with opened(AWAY[why](database_url)) as database:
        for ask in (
            lambda: database.value("SELECT 1"),
            lambda: database.run(MAKE_LEDGER, new_id(), "no"),
        ):
            with pytest.raises(DatabaseUnavailable) as refusal:
                await ask()
            assert refusal.value.status == 503
            assert refusal.value.__cause__ is not None
            assert "nobody" not in str(refusal.value)


async def test_a_server_that_takes_the_connection_and_says_nothing_is_unavailable() -> None:
    async def say_nothing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    async with await asyncio.start_server(say_nothing, "127.0.0.1", 0) as silent:
        port = silent.sockets[0].getsockname()[1]
        url = DatabaseUrl.parse(f"postgresql://a:b@127.0.0.1:{port}/c?sslmode=disable")
        database = await Database.open(url, connect_timeout_s=0.2)
        try:
            with pytest.raises(DatabaseUnavailable):
                await database.value("SELECT 1")
        finally:
            await database.close()


REFUSED: dict[str, tuple[str, tuple[Any, ...], type[BaseException]]] = {
    "a duplicate": (
        "INSERT INTO picopay.ledger SELECT * FROM picopay.ledger",
        (),
        asyncpg.UniqueViolationError,
    ),
    "a broken rule": (
        "UPDATE picopay.balance SET held_minor = -1",
        (),
        asyncpg.CheckViolationError,
    ),
    "no such table": ("SELECT * FROM picopay.nothing", (), asyncpg.UndefinedTableError),
    "what the driver cannot encode": ("SELECT $1::bigint", (2**63,), asyncpg.DataError),
    "what the database cannot keep": (
        "SELECT $1::jsonb",
        ('"\\u0000"',),
        asyncpg.UntranslatableCharacterError,
    ),
}


@pytest.mark.parametrize("what", REFUSED)
async def test_all_other_errors_pass_unchanged(database: Database, what: str) -> None:
    await Book.make(database)
    statement, arguments, error = REFUSED[what]
    for ask in (database.rows, database.run):
        with pytest.raises(error) as refusal:
            await ask(statement, *arguments)
        assert not isinstance(refusal.value, DatabaseUnavailable)
    assert await database.value("SELECT 1") == 1


async def test_a_write_in_a_session_that_only_reads_is_unavailable(database: Database) -> None:
    # A standby says the same after a failover: the primary is elsewhere now.
    with pytest.raises(DatabaseUnavailable):
        async with database.transaction(readonly=True) as connection:
            await connection.execute(MAKE_LEDGER, new_id(), "no")


async def test_a_server_that_is_full_is_unavailable(
    server: Server, database_url: DatabaseUrl
) -> None:
    await as_superuser(
        server, database_url, f"ALTER DATABASE {database_url.database} CONNECTION LIMIT 1"
    )
    async with opened(database_url) as one, opened(database_url) as another:
        async with one.session():
            with pytest.raises(DatabaseUnavailable) as refusal:
                await another.value("SELECT 1")
        assert isinstance(refusal.value.__cause__, asyncpg.TooManyConnectionsError)


async def test_a_read_that_took_too_long_is_not_asked_again(
    server: Server, database_url: DatabaseUrl
) -> None:
    await as_superuser(
        server,
        database_url,
        "CREATE SEQUENCE public.asked",
        "GRANT USAGE ON SEQUENCE public.asked TO picopay_app",
    )
    database = await Database.open(database_url, statement_timeout_ms=100, lock_timeout_ms=100)
    try:
        with pytest.raises(DatabaseUnavailable) as refusal:
            await database.value("SELECT pg_sleep(nextval('public.asked') + 60)")
    finally:
        await database.close()
    assert isinstance(refusal.value.__cause__, asyncpg.QueryCanceledError)
    async with opened(database_url) as another:
        assert await another.value("SELECT nextval('public.asked')") == 2


async def test_a_session_is_given_back_clean_whatever_happened(database: Database) -> None:
    async with database.session() as connection:
        pid = connection.get_server_pid()

    async def fail() -> None:
        async with database.transaction() as connection:
            await connection.execute(MAKE_LEDGER, new_id(), "no")
            raise ZeroDivisionError

    async def leave() -> None:
        async with database.session() as connection:
            await connection.execute("BEGIN")
            await connection.execute(MAKE_LEDGER, new_id(), "no")
            sleeping.set()
            await connection.execute("SELECT pg_sleep(60)")

    sleeping = asyncio.Event()
    with pytest.raises(ZeroDivisionError):
        await fail()
    task = asyncio.create_task(leave())
    await sleeping.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    async with database.session() as connection:
        assert connection.get_server_pid() == pid
        assert not connection.is_in_transaction()
        assert await connection.fetchval("SELECT count(*) FROM picopay.ledger") == 0
