"""Statements of sealing: which commits are settled, which rows they hold, what they become.

Called by `worker/sealer.py`; `ROWS` also by the auditor. The argument that nothing is skipped or
sealed twice rests on two facts. A transaction id below the `xmin` of a snapshot is decided for
good, and its rows are visible to that snapshot and to every later one. And a block covers a range
of ids of one cluster that begins where the cluster's last block of the ledger ended.
"""

TRY_LOCK = """
SELECT pg_try_advisory_xact_lock(hashtextextended('picopay.seal ' || $1::uuid::text, 0))
"""
"""One sealer per ledger; the primary key of `block` is the net."""

KNOWN_CLUSTERS = """
    (SELECT cluster FROM picopay.commit ORDER BY cluster LIMIT 1)
    UNION ALL
    SELECT later.cluster
      FROM known
     CROSS JOIN LATERAL (SELECT c.cluster FROM picopay.commit AS c
                          WHERE c.cluster > known.cluster ORDER BY c.cluster LIMIT 1) AS later
"""
"""Body of a recursive `known`: a look-up for each cluster that ever decided something here.

There is one, and one more for each restore into another cluster.
"""

CLUSTERS = f"""
WITH RECURSIVE known AS ({KNOWN_CLUSTERS})
SELECT cluster FROM known
"""  # noqa: S608  # composed of constants

SNAPSHOT = """
SELECT here.cluster, here.settled_before, unsettled.decided_at AS waiting_since
  FROM (SELECT system_identifier AS cluster,
               pg_snapshot_xmin(pg_current_snapshot()) AS settled_before
          FROM pg_control_system()) AS here
  LEFT JOIN LATERAL (
       SELECT k.decided_at FROM picopay.commit AS k
        WHERE k.cluster = here.cluster AND k.xid >= here.settled_before
        ORDER BY k.xid LIMIT 1) AS unsettled ON true
"""
"""This cluster, the id below which all is decided, and the oldest commit above it, if any."""

ACTIVE = """
SELECT DISTINCT ledger_id FROM picopay.commit WHERE cluster = $1 AND xid >= $2 AND xid < $3
"""
"""Ledgers that decided something in a range of ids, however many ledgers there are."""

UNSEALED_LEDGERS = """
SELECT l.ledger_id, EXISTS (
       SELECT FROM unnest($2::bigint[]) AS known(cluster)
        CROSS JOIN LATERAL (
              SELECT coalesce((SELECT b.xid_to FROM picopay.block AS b
                                WHERE b.ledger_id = l.ledger_id AND b.cluster = known.cluster
                                ORDER BY b.xid_from DESC LIMIT 1), '0'::xid8) AS xid) AS sealed
        CROSS JOIN LATERAL (
              SELECT FROM picopay.commit AS k
               WHERE k.ledger_id = l.ledger_id AND k.cluster = known.cluster AND k.xid >= sealed.xid
               LIMIT 1) AS unsealed) AS unsealed
  FROM picopay.ledger AS l WHERE l.ledger_id > $1 ORDER BY l.ledger_id LIMIT $3
"""
"""A page of all ledgers, and whether each has commits behind its last blocks."""

TIP = """
SELECT height, first_position + count AS next_position, hash FROM picopay.block
 WHERE ledger_id = $1 ORDER BY height DESC LIMIT 1
"""

UNSEALED = """
SELECT k.cluster, k.xid, k.first_id, k.last_id, k.count, k.decided_at, sealed.xid AS xid_from,
       k.cluster <> here.cluster OR k.xid < here.settled_before AS settled
  FROM (SELECT system_identifier AS cluster,
               pg_snapshot_xmin(pg_current_snapshot()) AS settled_before
          FROM pg_control_system()) AS here
 CROSS JOIN unnest($2::bigint[]) AS known(cluster)
 CROSS JOIN LATERAL (
       SELECT coalesce((SELECT b.xid_to FROM picopay.block AS b
                         WHERE b.ledger_id = $1 AND b.cluster = known.cluster
                         ORDER BY b.xid_from DESC LIMIT 1), '0'::xid8) AS xid) AS sealed
 CROSS JOIN LATERAL (
       SELECT * FROM picopay.commit AS c
        WHERE c.ledger_id = $1 AND c.cluster = known.cluster AND c.xid >= sealed.xid
        ORDER BY c.xid LIMIT $3) AS k
 -- What another cluster decided is older than what this one did: it was restored into it.
 ORDER BY k.cluster = here.cluster, k.cluster, k.xid
"""
"""The next commits of a ledger, by cluster and id, and whether they are settled.

The `xmin` and the commits come from one snapshot: the statement's.
"""

ROWS = """
SELECT k.decided_at, j.xid, j.id, j.kind, j.parent_id, j.reference, j.idempotency_key, j.postings,
       j.metadata, j.created_at
  FROM picopay.commit AS k
 CROSS JOIN LATERAL (
       SELECT * FROM picopay.journal AS row
        WHERE row.ledger_id = $1 AND row.id BETWEEN k.first_id AND k.last_id AND row.xid = k.xid
       -- One range of the index per commit: joined freely, all of the journal would be hashed.
       OFFSET 0
      ) AS j
 WHERE k.ledger_id = $1 AND k.cluster = $2 AND k.xid >= $3 AND k.xid < $4
 ORDER BY k.decided_at, k.xid, j.id
"""
"""The journal rows of a range of commits, in the order of their positions."""

INSERT = """
INSERT INTO picopay.block (ledger_id, height, cluster, xid_from, xid_to, first_position, count,
                           root, previous_hash, hash, sealed_at)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, clock_timestamp())
"""
