"""Sessions that are lost: reads are asked once more, writes never, and nobody takes it for a defect."""

import asyncio

import pytest

from picopay_api.database_url import DatabaseUrl
from picopay_api.engine.ids import new_id
from picopay_api.errors import DatabaseUnavailable
from picopay_api.store.database import Database
from support.committing import Desk, committing, in_the_way
from support.journal import opened
from support.postgres import on_connection
from support.proxy import Proxy
from support.waiting import eventually

MAKE_LEDGER = "INSERT INTO picopay.ledger (ledger_id, name, created_at) VALUES ($1, $2, now())"
TERMINATE_OTHERS = (
    "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity"
    " WHERE datname = current_database() AND pid <> pg_backend_pid()"
)


async def terminate_others(url: DatabaseUrl) -> int:
    """End every session of the database but the one that does it."""
    return int(await on_connection(url, lambda owner: owner.fetchval(TERMINATE_OTHERS)))


async def test_reads_do_not_notice_that_idle_sessions_were_lost(
    database: Database, database_url: DatabaseUrl
) -> None:
    async with database.session(), database.session(), database.session():
        pass
    assert await terminate_others(database_url) == 3
    asked = [database.value("SELECT $1::int", n) for n in range(8)]
    assert await asyncio.gather(*asked) == list(range(8))


async def test_last_words_of_the_server_are_no_defect_of_ours(
    database_url: DatabaseUrl, proxy: Proxy
) -> None:
    # The driver takes the farewell of a server for an answer, until it sees that the session is lost.
    async with opened(proxy.url) as database:
        for ask in (database.value, database.run):
            async with database.session() as connection:
                pid = connection.get_server_pid()
            proxy.linger()
            await terminate_others(database_url)
            await proxy.hung_up()
            if ask == database.value:
                assert await ask("SELECT pg_backend_pid()") != pid
            else:
                with pytest.raises(DatabaseUnavailable):
                    await ask("SELECT 1")
                assert await ask("SELECT 1") == "SELECT 1"


async def kill_the_blocked(desk: Desk) -> None:
    """Kill the session that waits for a lock, and wait until it is gone."""
    await desk.until_blocked()
    pid = await desk.owner.fetchval(
        "SELECT pid FROM pg_stat_activity"
        " WHERE datname = current_database() AND wait_event_type = 'Lock'"
    )
    assert await desk.owner.fetchval("SELECT pg_terminate_backend($1)", pid)

    async def gone() -> bool:
        count = "SELECT count(*) FROM pg_stat_activity WHERE pid = $1"
        return int(await desk.owner.fetchval(count, pid)) == 0

    await eventually(gone)


WAITING_READ = "SELECT posted_minor FROM picopay.balance WHERE account_id = $1 FOR UPDATE"


async def test_a_read_is_asked_once_more_and_not_twice(database_url: DatabaseUrl) -> None:
    async with committing(database_url) as desk, opened(database_url) as database:
        account = await desk.book.account()
        async with in_the_way(database_url, desk.book.ledger, account):
            read = asyncio.create_task(database.value(WAITING_READ, account))
            await kill_the_blocked(desk)
            await desk.until_blocked()
        assert await read == 0
        async with in_the_way(database_url, desk.book.ledger, account):
            read = asyncio.create_task(database.value(WAITING_READ, account))
            await kill_the_blocked(desk)
            await kill_the_blocked(desk)
            with pytest.raises(DatabaseUnavailable):
                await read


async def test_a_write_is_never_asked_again(database_url: DatabaseUrl) -> None:
    async with committing(database_url) as desk, opened(database_url) as database:
        account = await desk.book.account()
        statement = "UPDATE picopay.balance SET posted_minor = posted_minor WHERE account_id = $1"
        async with in_the_way(database_url, desk.book.ledger, account):
            write = asyncio.create_task(database.run(statement, account))
            await kill_the_blocked(desk)
            with pytest.raises(DatabaseUnavailable):
                await write


async def test_a_write_whose_answer_is_lost_is_unavailable_and_done_once(
    database_url: DatabaseUrl, proxy: Proxy
) -> None:
    async with opened(database_url) as direct, opened(proxy.url) as database:
        await database.run(MAKE_LEDGER, new_id(), "warm")
        proxy.mute()
        write = asyncio.create_task(database.run(MAKE_LEDGER, new_id(), "once"))

        async def written() -> bool:
            return int(await direct.value("SELECT count(*) FROM picopay.ledger")) == 2

        await eventually(written)
        await proxy.cut()
        with pytest.raises(DatabaseUnavailable):
            await write
        assert await database.value("SELECT count(*) FROM picopay.ledger") == 2


async def test_who_is_cancelled_while_the_server_says_nothing_does_not_go_on(
    proxy: Proxy,
) -> None:
    database = await Database.open(proxy.url, connect_timeout_s=0.2)
    try:
        await database.value("SELECT 1")
        proxy.mute()
        read = asyncio.create_task(database.value("SELECT 1"))
        await asyncio.sleep(0.05)  # it may be anywhere on its way
        read.cancel()
        with pytest.raises(asyncio.CancelledError):
            await read
    finally:
        await database.close()


async def test_a_transaction_whose_session_is_lost_is_unavailable_and_not_done(
    database: Database, database_url: DatabaseUrl
) -> None:
    with pytest.raises(DatabaseUnavailable):
        async with database.transaction() as connection:
            await connection.execute(MAKE_LEDGER, new_id(), "no")
            await terminate_others(database_url)
            await connection.execute(MAKE_LEDGER, new_id(), "neither")
    assert await database.value("SELECT count(*) FROM picopay.ledger") == 0
