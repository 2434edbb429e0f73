"""A clock for the database of a test, which can be set to any moment and goes on from there.

Used by the tests of what happens over months. The functions are this release's, but for the clock that they
ask; so are the statements of the store that ask for the time.
"""

from datetime import datetime
from types import ModuleType
from uuid import UUID

import pytest
from msgspec.structs import replace

from picopay_api.database_url import DatabaseUrl
from picopay_api.engine.commands import Command
from picopay_api.engine.ids import first_id_at, new_id
from picopay_api.store import audit, idempotency
from picopay_api.worker import audit_all
from support.postgres import CHECKOUT
from support.sql import execute, value

_STORE = CHECKOUT / "api" / "picopay_api" / "store"
_MODULES: tuple[ModuleType, ...] = (audit, idempotency)
_ASKED, _INSTEAD = "clock_timestamp()", "moved.now()"

_MAKE = """
CREATE SCHEMA moved;
CREATE TABLE moved.clock (ahead interval NOT NULL);
INSERT INTO moved.clock VALUES ('0');
CREATE FUNCTION moved.now() RETURNS timestamptz LANGUAGE sql
RETURN (SELECT pg_catalog.clock_timestamp() + ahead FROM moved.clock);
GRANT USAGE ON SCHEMA moved TO picopay_app;
GRANT SELECT ON moved.clock TO picopay_app;
"""


class Clock:
    """The clock of a database."""

    def __init__(self, url: DatabaseUrl) -> None:
        self._url = url

    @classmethod
    async def of(cls, url: DatabaseUrl, patch: pytest.MonkeyPatch) -> "Clock":
        """Let a database go by a clock that the test can set."""
        await execute(url, _MAKE)
        for script in ("decide.sql", "partitions.sql"):
            text = (_STORE / script).read_text(encoding="utf-8")
            assert _ASKED in text
            await execute(url, text.replace(_ASKED, _INSTEAD))
        for module in _MODULES:
            for name, text in vars(module).items():
                if isinstance(text, str) and _ASKED in text:
                    patch.setattr(module, name, text.replace(_ASKED, _INSTEAD))
        strays = [(sql.replace(_ASKED, _INSTEAD), *about) for sql, *about in audit_all._STRAYS]
        patch.setattr(audit_all, "_STRAYS", strays)
        return cls(url)

    async def set(self, moment: datetime) -> None:
        """Set the clock."""
        await execute(self._url, "UPDATE moved.clock SET ahead = $1 - clock_timestamp()", moment)

    async def now(self) -> datetime:
        """Read the clock."""
        moment: datetime = await value(self._url, "SELECT moved.now()")
        return moment

    async def timed(self, command: Command) -> Command:
        """Return a command with an id of now, as a process with the right time makes it."""
        tail = new_id().int & ((1 << 80) - 1)
        return replace(command, id=UUID(int=first_id_at(await self.now()).int | tail))
