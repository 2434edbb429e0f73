"""Statements about accounts: making, finding, describing them, their state and their balances.

Called by `engine/accounts.py` and `engine/directory.py`. Money never moves here.
"""

MAKE = """
WITH made AS (
    INSERT INTO picopay.account (ledger_id, id, reference, metadata, created_at)
    VALUES ($1, $2, $3, $4, date_trunc('milliseconds', clock_timestamp()))
    ON CONFLICT ON CONSTRAINT account_reference_key DO NOTHING
    RETURNING ledger_id, id, created_at),
balanced AS (
    INSERT INTO picopay.balance (ledger_id, account_id, asset, state, floor_minor, posted_minor,
                                 held_minor, sequence, changed_at)
    SELECT ledger_id, id, $5, 0, $6, 0, 0, 0, created_at FROM made),
described AS (
    INSERT INTO picopay.metadata_item (ledger_id, object, key, value, id)
    SELECT ledger_id, 0, m.key, m.value, id FROM made, jsonb_each_text($4::jsonb) AS m)
SELECT created_at FROM made
"""
"""No row: the reference is taken. Arguments: ledger, id, reference, metadata, asset, floor."""

_COLUMNS = """
SELECT a.id, a.reference, b.asset, b.floor_minor, b.state, b.posted_minor, b.held_minor, a.metadata,
       a.created_at
  FROM picopay.account AS a
  JOIN picopay.balance AS b ON b.ledger_id = a.ledger_id AND b.account_id = a.id
"""

BY_IDS = _COLUMNS + "WHERE a.ledger_id = $1 AND a.id = ANY ($2) ORDER BY a.id DESC"

FIND = """
SELECT a.id, a.reference, b.asset
  FROM picopay.account AS a
  JOIN picopay.balance AS b ON b.ledger_id = a.ledger_id AND b.account_id = a.id
 WHERE a.ledger_id = $1 AND a.reference = ANY ($2)
UNION ALL
SELECT b.account_id, NULL, b.asset
  FROM picopay.balance AS b
 WHERE b.ledger_id = $1 AND b.account_id = ANY ($3)
"""
"""What the directory keeps: id and asset, by reference or by id."""

OUTSIDE = """
SELECT a.id, b.asset
  FROM picopay.account AS a
  JOIN picopay.balance AS b ON b.ledger_id = a.ledger_id AND b.account_id = a.id
 WHERE a.ledger_id = $1 AND a.reference >= 'world/' AND a.reference < 'world0'
 ORDER BY a.reference LIMIT 2
"""
"""The accounts of the outside world; two are enough to know that `@world` alone names none."""

PAGE = """
SELECT id FROM picopay.account
 WHERE ledger_id = $1 AND id < $2 AND id >= $3 AND created_at BETWEEN $5 AND $6
 ORDER BY id DESC LIMIT $4
"""

PAGE_BY_METADATA = """
SELECT id FROM picopay.metadata_item
 WHERE ledger_id = $1 AND object = 0 AND key = $5 AND value = $6 AND id < $2 AND id >= $3
 ORDER BY id DESC LIMIT $4
"""

PAGE_BY_ASSET = """
SELECT account_id AS id FROM picopay.balance
 WHERE ledger_id = $1 AND asset = $5 AND account_id < $2 AND account_id >= $3
 ORDER BY account_id DESC LIMIT $4
"""

PAGE_BY_REFERENCE = """
SELECT id FROM picopay.account
 WHERE ledger_id = $1 AND reference = $5 AND id < $2 AND id >= $3 LIMIT $4
"""

LOCK_METADATA = """
SELECT metadata FROM picopay.account WHERE ledger_id = $1 AND id = $2 FOR NO KEY UPDATE
"""

DESCRIBE = "UPDATE picopay.account SET metadata = $3 WHERE ledger_id = $1 AND id = $2"

FORGET_ITEMS = """
DELETE FROM picopay.metadata_item
 WHERE ledger_id = $1 AND object = 0 AND id = $2 AND (key, value) IN (
       SELECT key, value FROM jsonb_each_text($3::jsonb))
"""

ADD_ITEMS = """
INSERT INTO picopay.metadata_item (ledger_id, object, key, value, id)
SELECT $1, 0, m.key, m.value, $2 FROM jsonb_each_text($3::jsonb) AS m
"""

LOCK_BALANCE = """
SELECT state, posted_minor, held_minor
  FROM picopay.balance WHERE ledger_id = $1 AND account_id = $2 FOR NO KEY UPDATE
"""

SET_STATE = "UPDATE picopay.balance SET state = $3 WHERE ledger_id = $1 AND account_id = $2"

BALANCE = """
SELECT posted_minor, held_minor, sequence
  FROM picopay.balance WHERE ledger_id = $1 AND account_id = $2
"""

BALANCE_AT = """
SELECT posted_after_minor, held_after_minor FROM picopay.entry
 WHERE ledger_id = $1 AND account_id = $2 AND created_at <= $3
 ORDER BY created_at DESC, sequence DESC LIMIT 1
"""

ENTRIES_NEWEST_FIRST = """
SELECT journal_id, sequence, posted_minor, posted_after_minor, created_at FROM picopay.entry
 WHERE ledger_id = $1 AND account_id = $2 AND (created_at, sequence) < ($3, $4)
   AND created_at >= $5 AND posted_minor <> 0
 ORDER BY created_at DESC, sequence DESC LIMIT $6
"""

ENTRIES_OLDEST_FIRST = """
SELECT journal_id, sequence, posted_minor, posted_after_minor, created_at FROM picopay.entry
 WHERE ledger_id = $1 AND account_id = $2 AND (created_at, sequence) > ($3, $4)
   AND created_at <= $5 AND sequence <= $6 AND posted_minor <> 0
 ORDER BY created_at, sequence LIMIT $7
"""

LOCKED = """
WITH free AS (
    SELECT b.account_id FROM picopay.balance AS b
     WHERE b.ledger_id = $1 AND b.account_id = ANY ($2) FOR NO KEY UPDATE SKIP LOCKED)
SELECT b.account_id, b.xmax::text AS holder
  FROM picopay.balance AS b
 WHERE b.ledger_id = $1 AND b.account_id = ANY ($2) AND b.account_id NOT IN (SELECT account_id FROM free)
"""
"""Which balances are locked now, and by which transaction; waits for nobody."""
