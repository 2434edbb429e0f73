"""The migrations of the schema: one file per revision, numbered, forward only.

Run by `store/migrate.py` through Alembic. A revision is never edited once released; it names the oldest
release head that may still write to the schema it leaves behind (`min_compatible`).
"""

from pathlib import Path

from alembic import op


def run_script(path: Path) -> None:
    """Run the statements of an SQL file within the transaction of the migration.

    The driver takes several statements in one call only outside its prepared statements, hence the
    step down to its own connection; the first statement opens the transaction there.
    """
    bind = op.get_bind()
    bind.exec_driver_sql("SELECT 1")
    script = path.read_text(encoding="utf-8")
    bind.connection.dbapi_connection.run_async(lambda driver: driver.execute(script))  # type: ignore[union-attr]  # the asyncpg adapter has it, the DBAPI protocol does not
