"""Where the schema of a database is, beside what this release wants.

Asked by every process before it writes, and by `migrate.py`. It knows the numbers of the migrations, not how
they are run: who serves payments needs none of what that takes.
"""

from functools import cache
from pathlib import Path
from typing import Any

import asyncpg
import msgspec

MIN_COMPATIBLE_SCHEMA = "0001"
"""The oldest schema that this release can work with."""

FOLDER = Path(__file__).parent
"""Where migrations and functions are; tests put those of another release in its place."""

_STATE = """
SELECT a.version_num, s.min_compatible
  FROM picopay.alembic_version AS a LEFT JOIN picopay.schema_version AS s ON true
"""


class SchemaState(msgspec.Struct, frozen=True):
    """Where a database is, beside what this release wants.

    `current` is null before the first migration. `min_compatible` is the oldest schema this release
    works with; `oldest_release` is the oldest release head that the database admits. Whether the
    functions are this release's is looked at by `read_state` only.
    """

    current: str | None
    head: str
    min_compatible: str
    oldest_release: str | None = None
    functions_current: bool = False

    def problem(self) -> str | None:
        """Say in a sentence why this release must not write to the database; None when it may."""
        if self.current is None:
            return "the schema does not exist yet: run `picopay migrate`"
        if self.current < self.min_compatible:
            return (
                f"the schema is at {self.current}, this release needs at least "
                f"{self.min_compatible}: run `picopay migrate`"
            )
        if self.oldest_release is not None and self.head < self.oldest_release:
            return (
                f"the schema is at {self.current} and admits releases from {self.oldest_release} "
                f"on, this one is {self.head}: deploy a newer release"
            )
        return None

    def is_ahead(self) -> bool:
        """Tell whether a newer release has migrated the database."""
        return self.current is not None and self.current > self.head

    def is_head(self) -> bool:
        """Tell whether nothing is left to migrate."""
        return self.is_ahead() or (self.current == self.head and self.functions_current)


def head() -> str:
    """Return the revision this release wants: that of the last file of the migrations."""
    return _head_in(FOLDER)


async def state(connection: "asyncpg.Connection[Any]") -> SchemaState:
    """Read where the database of a connection is; any role that may use the schema can."""
    current = oldest_release = None
    if await connection.fetchval("SELECT to_regclass('picopay.schema_version') IS NOT NULL"):
        current, oldest_release = await connection.fetchrow(_STATE) or (None, None)
    return SchemaState(
        current=current,
        head=head(),
        min_compatible=MIN_COMPATIBLE_SCHEMA,
        oldest_release=oldest_release,
    )


@cache
def _head_in(folder: Path) -> str:
    files = (folder / "migrations" / "versions").glob("[0-9]*.py")
    return max(file.name.partition("_")[0] for file in files)
