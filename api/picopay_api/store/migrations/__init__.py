"""The migrations of the schema: one file per revision, numbered, forward only.

Run by `store/migrate.py` through Alembic. A revision is never edited once released; it names the oldest
release head that may still write to the schema it leaves behind (`min_compatible`), and says whether it
takes away what an older one wrote (`destructive`): such a plan may have to be approved. The functions of
the release come after its last revision: one that needs a function runs its script itself.
"""

from pathlib import Path

from alembic import op
from sqlalchemy import Connection


def run_script(path: Path) -> None:
    """Run the statements of an SQL file within the transaction of the migration."""
    run_statements(op.get_bind(), path.read_text(encoding="utf-8"))


def run_statements(bind: Connection, script: str) -> None:
    """Run several statements within the transaction of a connection.

    The driver takes several statements in one call only outside its prepared statements, hence the
    step down to its own connection; the first statement opens the transaction there.
    """
    bind.exec_driver_sql("SELECT 1")
    bind.connection.dbapi_connection.run_async(lambda driver: driver.execute(script))  # type: ignore[union-attr]  # the asyncpg adapter has it, the DBAPI protocol does not
