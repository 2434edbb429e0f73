"""Alembic's entry into the migrations: runs them on the connection that `store/migrate.py` hands over.

There is no offline mode and no configuration file: whoever migrates does it through `picopay migrate`.
"""

from alembic import context

from picopay_api.store.tables import SCHEMA, metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    version_table_schema=SCHEMA,
    transaction_per_migration=True,
    # Called within the transaction of each migration, at its end.
    on_version_apply=lambda **_: context.config.attributes["conclude"](),
)
with context.begin_transaction():
    context.run_migrations()
