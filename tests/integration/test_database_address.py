"""What `DatabaseUrl` gives to the driver, tried on a real server."""

import asyncpg
import pytest

from picopay_api.database_url import DatabaseUrl


async def test_parameters_reach_the_server(empty_database_url: DatabaseUrl) -> None:
    url = empty_database_url.replace(
        parameters=(
            *empty_database_url.parameters,
            ("application_name", "ledger & co"),
            ("options", "-c work_mem=5MB"),
        )
    )
    connection = await asyncpg.connect(**DatabaseUrl.parse(url.text).connect_arguments())
    try:
        assert await connection.fetchval("SHOW application_name") == "ledger & co"
        assert await connection.fetchval("SHOW work_mem") == "5MB"
        assert await connection.fetchval("SELECT current_database()") == url.database
    finally:
        await connection.close()


async def test_a_name_and_a_password_of_special_characters(empty_database_url: DatabaseUrl) -> None:
    role, password = "o'neil@ex/ample:#%?&=+ é", "p@ss/w:rd?#%&=+ '\"💶"
    owner = await asyncpg.connect(**empty_database_url.connect_arguments())
    try:
        quoted = await owner.fetchrow("SELECT quote_ident($1), quote_literal($2)", role, password)
        assert quoted is not None
        await owner.execute(f"CREATE ROLE {quoted[0]} LOGIN PASSWORD {quoted[1]}")
        try:
            url = empty_database_url.replace(user=role, password=password)
            arguments = DatabaseUrl.parse(url.text).connect_arguments()
            connection = await asyncpg.connect(**arguments)
            try:
                assert await connection.fetchval("SELECT current_user") == role
            finally:
                await connection.close()
            wrong = url.replace(password="p@ss")
            with pytest.raises(asyncpg.InvalidPasswordError):
                await asyncpg.connect(**wrong.connect_arguments())
        finally:
            await owner.execute(f"DROP ROLE {quoted[0]}")
    finally:
        await owner.close()
