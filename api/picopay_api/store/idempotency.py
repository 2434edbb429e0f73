"""Statements about idempotency keys outside of `decide.sql`: for operations that move no money.

Called by `engine/accounts.py`. As in `decide.sql`, a key is looked up in the open window only, and in
the first minute of a day it is written to the day before as well.
"""

ACCOUNT_OPERATION = 4
"""Number of the creation of an account in `idempotency_key.operation`; journal kinds come before."""

FIND = """
SELECT fingerprint, object_id, created_at FROM picopay.idempotency_key
 WHERE ledger_id = $1 AND key = $2 AND operation = $3
   AND day BETWEEN (clock_timestamp() AT TIME ZONE 'UTC')::date - $4::integer
               AND (clock_timestamp() AT TIME ZONE 'UTC')::date
 LIMIT 1
"""

KEEP = """
INSERT INTO picopay.idempotency_key (ledger_id, key, operation, day, fingerprint, outcome, object_id,
                                     created_at)
SELECT $1, $2, $3, (t.now - back.days)::date, $4, 'ok', $5, $6
  FROM (SELECT clock_timestamp() AT TIME ZONE 'UTC' AS now) AS t,
       (VALUES (interval '0'), (interval '1 day')) AS back(days)
 WHERE back.days = interval '0' OR t.now::time < time '00:01'
"""

OBJECT = """
SELECT object_id FROM picopay.idempotency_key
 WHERE ledger_id = $1 AND key = $2 AND operation = ANY ($3::smallint[]) AND object_id IS NOT NULL
   AND day >= (clock_timestamp() AT TIME ZONE 'UTC')::date - $4::integer
"""
"""What a key made, by operation; for lists filtered by key."""
