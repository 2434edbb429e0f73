"""Statements of the event feed: positions of journal rows, from blocks and commits.

Called by `engine/events.py`. No position is stored per row: a block gives its first one, its
commits follow in order of decision, their rows in order of id. Each statement reads the commits of
the blocks it needs and the rows of the commits it needs, however long the history.
"""

from picopay_api.store.seal import KNOWN_CLUSTERS

_IN_COMMIT_ORDER = """
SELECT b.first_position
       + sum(k.count) OVER (PARTITION BY b.height ORDER BY k.decided_at, k.xid) - k.count
       AS first_position, k.xid, k.first_id, k.last_id, k.count
  FROM wanted AS b
  JOIN picopay.commit AS k ON k.ledger_id = $1 AND k.cluster = b.cluster
                          AND k.xid >= b.xid_from AND k.xid < b.xid_to
"""

FEED = f"""
WITH wanted AS (
    (SELECT * FROM picopay.block
      WHERE ledger_id = $1 AND first_position <= $2::bigint + 1 ORDER BY first_position DESC LIMIT 1)
    UNION ALL
    (SELECT * FROM picopay.block
      WHERE ledger_id = $1 AND first_position > $2 + 1 AND first_position <= $2 + $3::bigint
      ORDER BY first_position LIMIT $3)),
numbered AS ({_IN_COMMIT_ORDER})
SELECT * FROM (
    SELECT k.first_position::bigint
           + row_number() OVER (PARTITION BY k.first_position ORDER BY j.id) - 1 AS position,
           j.*, NULL::uuid AS reversal_id
      FROM numbered AS k
     CROSS JOIN LATERAL (
           SELECT row.id, row.kind, row.parent_id, row.reference, row.idempotency_key, row.postings,
                  row.metadata, row.created_at
             FROM picopay.journal AS row
            WHERE row.ledger_id = $1 AND row.id BETWEEN k.first_id AND k.last_id AND row.xid = k.xid
           -- One range of the index per commit: joined freely, all of the journal would be hashed.
           OFFSET 0
          ) AS j
     WHERE k.first_position <= $2 + $3 AND k.first_position + k.count > $2 + 1) AS event
 WHERE position > $2 AND position <= $2 + $3
 ORDER BY position
"""  # noqa: S608  # composed of constants
"""The rows at positions $2 + 1 … $2 + $3, as they were when they were decided."""

POSITIONS = f"""
WITH RECURSIVE known AS ({KNOWN_CLUSTERS})
SELECT j.id, b.first_position + earlier.count + before.count AS position
  FROM picopay.journal AS j
 CROSS JOIN known
 CROSS JOIN LATERAL (
       SELECT * FROM picopay.commit AS c
        WHERE c.ledger_id = $1 AND c.cluster = known.cluster AND c.xid = j.xid
          AND j.id BETWEEN c.first_id AND c.last_id
       -- By the whole key: joined by xid alone, all commits would be hashed.
       OFFSET 0) AS k
 CROSS JOIN LATERAL (
       SELECT * FROM picopay.block AS block
        WHERE block.ledger_id = $1 AND block.cluster = k.cluster AND block.xid_from <= k.xid
        ORDER BY block.xid_from DESC LIMIT 1) AS b
 CROSS JOIN LATERAL (
       SELECT coalesce(sum(c.count), 0)::bigint AS count FROM picopay.commit AS c
        WHERE c.ledger_id = $1 AND c.cluster = b.cluster
          AND c.xid >= b.xid_from AND c.xid < b.xid_to
          AND (c.decided_at, c.xid) < (k.decided_at, k.xid)) AS earlier
 CROSS JOIN LATERAL (
       SELECT count(*) AS count FROM picopay.journal AS row
        WHERE row.ledger_id = $1 AND row.id >= k.first_id AND row.id < j.id
          AND row.xid = k.xid) AS before
 WHERE j.ledger_id = $1 AND j.id = ANY ($2) AND k.xid < b.xid_to
"""  # noqa: S608  # composed of constants
"""The positions of those rows among $2 that are sealed."""
