"""Statements about partitions: making them ahead of time, and seeing what slipped past them.

Called by `worker/partitions.py`. The work itself is `picopay.maintain_partitions`
(`partitions.sql`), which alone has the right to it.
"""

SHORT_LOCKS = "SET LOCAL lock_timeout = '200ms'"
"""Making a partition locks its parent: while that waits for a long read, every payment waits too.

Better to give up at once and to come back; partitions are made long before they are needed.
"""

MAINTAIN = "SELECT action, partition_name FROM picopay.maintain_partitions($1)"
"""Actions: `created`, `dropped`, and `blocked` by rows in the default partition or by a partition."""

DEFAULT_ROWS = """
SELECT 'journal' AS parent, count(*) AS rows
  FROM (SELECT FROM picopay.journal_default LIMIT $1) AS d
UNION ALL
SELECT 'entry', count(*) FROM (SELECT FROM picopay.entry_default LIMIT $1) AS d
UNION ALL
SELECT 'idempotency_key', count(*) FROM (SELECT FROM picopay.idempotency_key_default LIMIT $1) AS d
"""
"""Rows in the partitions that should be empty, counted up to a bound."""
