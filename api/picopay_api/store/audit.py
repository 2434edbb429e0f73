"""Statements of auditing: what is to be checked, what was found, and how far it got.

Called by `worker/auditor.py`, `worker/audit_all.py`, `worker/audit_quick.py` and `engine/audit.py`. Every
checking statement is one snapshot; only SUMS and the statements named ALL_… read a ledger as a whole, or all.
"""

from picopay_api.store import seal

TRY_LOCK = """
SELECT pg_try_advisory_xact_lock(hashtextextended('picopay.audit ' || $1::uuid::text, 0))
"""

STATE = """
SELECT height, position, block_hash, account_id, sums, checked_at
  FROM picopay.audit WHERE ledger_id = $1
"""

SAVE_STATE = """
INSERT INTO picopay.audit (ledger_id, height, position, block_hash, account_id, sums, checked_at)
VALUES ($1, $2, $3, $4, $5, $6, clock_timestamp())
    ON CONFLICT (ledger_id) DO UPDATE
   SET height = excluded.height, position = excluded.position, block_hash = excluded.block_hash,
       account_id = excluded.account_id, sums = excluded.sums, checked_at = excluded.checked_at
"""

ADD_FINDING = """
INSERT INTO picopay.audit_finding (ledger_id, kind, subject, detail, found_at)
VALUES ($1, $2, $3, $4, clock_timestamp())
    ON CONFLICT (ledger_id, kind, subject) DO NOTHING
"""
"""The first sighting stays; a finding goes only when somebody deletes it."""

FINDINGS = """
SELECT kind, subject, detail, found_at FROM picopay.audit_finding
 WHERE ledger_id = $1 ORDER BY found_at DESC, kind, subject LIMIT $2
"""

COUNT_FINDINGS = "SELECT count(*) FROM picopay.audit_finding"

LEDGERS = "SELECT ledger_id FROM picopay.ledger WHERE ledger_id > $1 ORDER BY ledger_id LIMIT $2"

_BLOCK = """
SELECT height, cluster, xid_from, xid_to, first_position, count, root, previous_hash, hash
  FROM picopay.block
"""

BLOCKS_AFTER = f"{_BLOCK} WHERE ledger_id = $1 AND height > $2 ORDER BY height LIMIT $3"

BLOCK_AT = (
    f"{_BLOCK} WHERE ledger_id = $1 AND first_position <= $2 ORDER BY first_position DESC LIMIT 1"
)

BLOCK_HASH = "SELECT hash FROM picopay.block WHERE ledger_id = $1 AND height = $2"

COMMITS = """
SELECT cluster, xid, first_id, last_id, count, decided_at FROM picopay.commit
 WHERE ledger_id = $1 AND cluster = $2 AND xid >= $3 AND xid < $4
"""

_ENTRY = """account_id, created_at, sequence, journal_id, posted_minor, held_minor,
       posted_after_minor, held_after_minor"""

ENTRIES = f"""
SELECT e.*
  FROM unnest($2::uuid[], $3::timestamptz[], $4::timestamptz[]) AS touched(account, first, last)
 CROSS JOIN LATERAL (
       (SELECT {_ENTRY}, true AS base FROM picopay.entry
         WHERE ledger_id = $1 AND account_id = touched.account AND created_at < touched.first
         ORDER BY created_at DESC, sequence DESC LIMIT 1)
       UNION ALL
       SELECT {_ENTRY}, false FROM picopay.entry
        WHERE ledger_id = $1 AND account_id = touched.account
          AND created_at BETWEEN touched.first AND touched.last) AS e
 ORDER BY e.account_id, e.created_at, e.sequence
"""  # noqa: S608  # composed of constants
"""The entries of accounts within spans of time, each account's led by the one before (`base`)."""

ASSETS = """
SELECT account_id, asset FROM picopay.balance WHERE ledger_id = $1 AND account_id = ANY ($2)
"""

KNOWN_ROWS = "SELECT id FROM picopay.journal WHERE ledger_id = $1 AND id = ANY ($2)"

_ACCOUNTS = """
SELECT b.ledger_id, b.account_id, b.asset, b.floor_minor, b.posted_minor, b.held_minor, b.sequence,
       date_trunc('milliseconds', b.changed_at) AS changed_at, last.created_at AS booked_at,
       EXISTS (SELECT FROM picopay.account AS a
                WHERE a.ledger_id = b.ledger_id AND a.id = b.account_id) AS described,
       last.sequence AS last_sequence, last.posted_after_minor, last.held_after_minor,
       last.journal_id,
       EXISTS (SELECT FROM picopay.journal AS j
                WHERE j.ledger_id = b.ledger_id AND j.id = last.journal_id) AS known
  FROM (SELECT * FROM picopay.balance WHERE {chosen}) AS b
  LEFT JOIN LATERAL (
       SELECT e.created_at, e.sequence, e.posted_after_minor, e.held_after_minor, e.journal_id
         FROM picopay.entry AS e
        WHERE e.ledger_id = b.ledger_id AND e.account_id = b.account_id
        ORDER BY e.created_at DESC, e.sequence DESC LIMIT 1) AS last ON true
 ORDER BY b.account_id
"""

ACCOUNTS = _ACCOUNTS.format(
    chosen="ledger_id = $1 AND account_id > $2 ORDER BY account_id LIMIT $3"
)
"""A slice of accounts, each with its last entry."""

ACCOUNTS_NAMED = _ACCOUNTS.format(chosen="ledger_id = $1 AND account_id = ANY ($2)")
"""The same of accounts that were touched."""

_OUT_OF_BOUNDS = "held_minor <> 0 OR posted_minor < floor_minor"  # there are no holds yet

ALL_ACCOUNTS_OUT_OF_BOUNDS = _ACCOUNTS.format(chosen=f"{_OUT_OF_BOUNDS} LIMIT $1")

ALL_SUMS = f"""
SELECT ledger_id, asset, sum(posted_minor)::text AS sum, count(*) AS accounts,
       count(*) FILTER (WHERE {_OUT_OF_BOUNDS}) AS out_of_bounds
  FROM picopay.balance GROUP BY ledger_id, asset
"""  # noqa: S608  # composed of constants
"""All balances by ledger and asset, in one go: a narrow row for each account, and no history."""

NEWEST_COMMITS = f"""
WITH RECURSIVE known AS ({seal.KNOWN_CLUSTERS})
SELECT newest.*
  FROM known
 CROSS JOIN LATERAL (
       SELECT c.ledger_id, c.cluster, c.xid, c.first_id, c.last_id, c.count, c.decided_at
         FROM picopay.commit AS c
        WHERE c.cluster = known.cluster ORDER BY c.xid DESC LIMIT $1) AS newest
 ORDER BY newest.decided_at DESC LIMIT $1
"""  # noqa: S608  # composed of constants
"""What was decided last, of all ledgers."""

KNOWN_LEDGERS = "SELECT ledger_id FROM picopay.ledger WHERE ledger_id = ANY ($1)"

ALL_FINDINGS = """
SELECT ledger_id, kind, subject, detail, found_at FROM picopay.audit_finding
 ORDER BY found_at LIMIT $1
"""

SUMS = """
SELECT asset, sum(posted_minor)::text AS sum FROM picopay.balance
 WHERE ledger_id = $1 GROUP BY asset ORDER BY asset
"""
"""All balances by asset, as text: the sum of a corrupted ledger may exceed any integer."""

ALL_BLOCKS = f"{_BLOCK} WHERE ledger_id = $1 ORDER BY height"

ALL_UNSEALED = """
SELECT k.cluster, k.xid, k.first_id, k.last_id, k.count, k.decided_at FROM picopay.commit AS k
 WHERE k.ledger_id = $1
   AND NOT EXISTS (SELECT FROM (SELECT b.xid_to FROM picopay.block AS b
                                 WHERE b.ledger_id = k.ledger_id AND b.cluster = k.cluster
                                   AND b.xid_from <= k.xid
                                 ORDER BY b.xid_from DESC LIMIT 1) AS block
                    WHERE k.xid < block.xid_to)
 ORDER BY k.cluster, k.xid
"""

ALL_ENTRIES = f"""
SELECT {_ENTRY}, false AS base FROM picopay.entry
 WHERE ledger_id = $1 ORDER BY account_id, created_at, sequence
"""  # noqa: S608  # composed of constants

ALL_COUNTS = """
SELECT (SELECT count(*) FROM picopay.journal WHERE ledger_id = $1) AS rows,
       (SELECT coalesce(sum(count), 0)
          FROM picopay.commit WHERE ledger_id = $1)::bigint AS committed,
       (SELECT coalesce(sum(count), 0) FROM picopay.block WHERE ledger_id = $1)::bigint AS sealed,
       (SELECT count(*) FROM picopay.entry WHERE ledger_id = $1) AS entries,
       (SELECT count(*) FROM picopay.balance WHERE ledger_id = $1) AS accounts
"""

ALL_STRAY_ENTRIES = """
SELECT DISTINCT e.journal_id FROM picopay.entry AS e
 WHERE e.ledger_id = $1
   AND NOT EXISTS (SELECT FROM picopay.journal AS j
                    WHERE j.ledger_id = e.ledger_id AND j.id = e.journal_id)
 LIMIT $2
"""

ALL_STRAY_ACCOUNTS = """
SELECT DISTINCT e.account_id FROM picopay.entry AS e
 WHERE e.ledger_id = $1
   AND NOT EXISTS (SELECT FROM picopay.balance AS b
                    WHERE b.ledger_id = e.ledger_id AND b.account_id = e.account_id)
 LIMIT $2
"""

ALL_STRAY_REVERSALS = """
SELECT coalesce(r.original_id, j.parent_id) AS original_id
  FROM (SELECT * FROM picopay.reversal WHERE ledger_id = $1) AS r
  FULL JOIN (SELECT * FROM picopay.journal WHERE ledger_id = $1 AND kind = 3) AS j
         ON r.original_id = j.parent_id AND r.reversal_id = j.id
 WHERE r.original_id IS NULL OR j.id IS NULL
 LIMIT $2
"""

ALL_STRAY_REFERENCES = """
SELECT coalesce(r.journal_id, j.id) AS journal_id
  FROM (SELECT * FROM picopay.reference WHERE ledger_id = $1) AS r
  FULL JOIN (SELECT * FROM picopay.journal WHERE ledger_id = $1 AND reference IS NOT NULL) AS j
         ON r.journal_id = j.id AND r.reference = j.reference
 WHERE r.journal_id IS NULL OR j.id IS NULL
 LIMIT $2
"""

ALL_ACCOUNTS_WITHOUT_BALANCE = """
SELECT a.id FROM picopay.account AS a
 WHERE a.ledger_id = $1
   AND NOT EXISTS (SELECT FROM picopay.balance AS b
                    WHERE b.ledger_id = a.ledger_id AND b.account_id = a.id)
 LIMIT $2
"""

ALL_STRAY_KEYS = """
SELECT k.object_id FROM picopay.idempotency_key AS k
 WHERE k.ledger_id = $1 AND k.object_id IS NOT NULL
   AND NOT EXISTS (
       SELECT FROM picopay.journal AS j
        WHERE j.ledger_id = k.ledger_id AND j.id = k.object_id AND j.idempotency_key = k.key
          AND j.kind = k.operation AND j.created_at = k.created_at
          AND k.outcome = 'ok' AND k.detail IS NULL
          -- In the first minute of a day it is written to the day before as well.
          AND k.day BETWEEN (j.created_at AT TIME ZONE 'UTC' - interval '1 minute')::date
                        AND (j.created_at AT TIME ZONE 'UTC')::date)
   AND NOT EXISTS (
       SELECT FROM picopay.account AS a
        WHERE a.ledger_id = k.ledger_id AND a.id = k.object_id AND k.operation = 4
          AND a.created_at = k.created_at AND k.outcome = 'ok' AND k.detail IS NULL
          -- The clock is read once more for the key: midnight may lie in between.
          AND k.day BETWEEN (a.created_at AT TIME ZONE 'UTC' - interval '1 minute')::date
                        AND (a.created_at AT TIME ZONE 'UTC' + interval '1 minute')::date)
 LIMIT $2
"""
"""Keys that say of something that it was made with them, and it was not."""

ALL_FORGOTTEN_KEYS = """
-- The days whose keys are kept for certain, and those before them whose partition has not been dropped: of
-- the longest retention, and what else is in its oldest partition. Whether it has is asked by a name, which
-- sees what is there now, as the look-up of the keys does.
WITH kept AS MATERIALIZED (
    SELECT min(d.day) AT TIME ZONE 'UTC' AS since
      FROM (SELECT today.day - back AS day, back
              FROM (SELECT (clock_timestamp() AT TIME ZONE 'UTC')::date AS day) AS today,
                   generate_series(0, 100) AS back) AS d
     WHERE d.back <= 1
        OR to_regclass('picopay.idempotency_key_'
                       || to_char(picopay.first_day_of_keys(d.day), 'YYYYMMDD')) IS NOT NULL)
SELECT j.id FROM picopay.journal AS j
 WHERE j.ledger_id = $1 AND j.idempotency_key IS NOT NULL
   AND j.created_at >= (SELECT since FROM kept)
   -- Ids and times differ by minutes at most: older partitions are not read.
   AND j.id >= (SELECT picopay.uuid_at(since - interval '1 hour') FROM kept)
   AND NOT EXISTS (
       SELECT FROM picopay.idempotency_key AS k
        WHERE k.ledger_id = j.ledger_id AND k.key = j.idempotency_key AND k.operation = j.kind
          AND k.day = (j.created_at AT TIME ZONE 'UTC')::date AND k.object_id = j.id)
 LIMIT $2
"""
"""What was made with a key that is not known any more, though its day is: it could be made again."""

ALL_STRAY_METADATA = """
WITH described AS (
    SELECT 0::smallint AS object, a.id, m.key, m.value
      FROM picopay.account AS a CROSS JOIN LATERAL jsonb_each_text(a.metadata) AS m
     WHERE a.ledger_id = $1
    UNION ALL
    SELECT j.kind, j.id, m.key, m.value
      FROM picopay.journal AS j CROSS JOIN LATERAL jsonb_each_text(j.metadata) AS m
     WHERE j.ledger_id = $1),
item AS (SELECT object, id, key, value FROM picopay.metadata_item WHERE ledger_id = $1)
SELECT coalesce(item.object, described.object) AS object, coalesce(item.id, described.id) AS id
  FROM described
  FULL JOIN item ON item.object = described.object AND item.id = described.id
                AND item.key = described.key AND item.value = described.value
 WHERE item.id IS NULL OR described.id IS NULL
 LIMIT $2
"""

_OF_LEDGERS = (
    *("account", "api_key", "balance", "block", "commit", "entry"),
    *("idempotency_key", "journal", "metadata_item", "reference", "reversal"),
)

ALL_UNKNOWN_LEDGERS = " UNION ".join(
    f"""
(WITH RECURSIVE known AS (
    (SELECT ledger_id FROM picopay.{table} ORDER BY ledger_id LIMIT 1)
    UNION ALL
    SELECT later.ledger_id FROM known
     CROSS JOIN LATERAL (SELECT t.ledger_id FROM picopay.{table} AS t
                          WHERE t.ledger_id > known.ledger_id ORDER BY t.ledger_id LIMIT 1) AS later)
SELECT ledger_id FROM known WHERE ledger_id NOT IN (SELECT ledger_id FROM picopay.ledger) LIMIT $1)
"""  # noqa: S608  # composed of constants
    for table in _OF_LEDGERS
)
"""Ledgers that have rows and are not on the list, which every audit goes by: a look-up for each ledger."""
