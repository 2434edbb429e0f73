"""Statements that read the journal: rows by id, and the candidates of lists in the order of an index.

Called by `engine/journal.py`. Every page statement returns `id` and the 16-byte position of its order,
newest first, and touches at most the rows it returns; those that know `created_at` pass over the rows
between a bound of time and the ids that are certain to lie beyond it (`engine/paging.py`).
"""

BY_IDS = """
SELECT j.id, j.kind, j.parent_id, j.reference, j.idempotency_key, j.postings, j.metadata, j.created_at,
       r.reversal_id
  FROM picopay.journal AS j
  LEFT JOIN picopay.reversal AS r ON r.ledger_id = j.ledger_id AND r.original_id = j.id
 WHERE j.ledger_id = $1 AND j.id = ANY ($2)
"""

PAGE = """
SELECT id FROM picopay.journal
 WHERE ledger_id = $1 AND id < $2 AND id >= $3 AND created_at BETWEEN $5 AND $6
 ORDER BY id DESC LIMIT $4
"""

PAGE_OF_PAYMENTS = """
SELECT id FROM picopay.journal
 WHERE ledger_id = $1 AND kind = 1 AND id < $2 AND id >= $3 AND created_at BETWEEN $5 AND $6
 ORDER BY id DESC LIMIT $4
"""

PAGE_BY_REFERENCE = """
SELECT journal_id AS id FROM picopay.reference
 WHERE ledger_id = $1 AND reference = $5 AND journal_id < $2 AND journal_id >= $3 LIMIT $4
"""

PAGE_REVERSED = """
SELECT original_id AS id FROM picopay.reversal
 WHERE ledger_id = $1 AND original_id < $2 AND original_id >= $3 ORDER BY original_id DESC LIMIT $4
"""

PAGE_BY_METADATA = """
SELECT id FROM (
    (SELECT id FROM picopay.metadata_item
      WHERE ledger_id = $1 AND object = 1 AND key = $5 AND value = $6 AND id < $2 AND id >= $3
      ORDER BY id DESC LIMIT $4)
    UNION ALL
    (SELECT id FROM picopay.metadata_item
      WHERE ledger_id = $1 AND object = 2 AND key = $5 AND value = $6 AND id < $2 AND id >= $3
      ORDER BY id DESC LIMIT $4)
    UNION ALL
    (SELECT id FROM picopay.metadata_item
      WHERE ledger_id = $1 AND object = 3 AND key = $5 AND value = $6 AND id < $2 AND id >= $3
      ORDER BY id DESC LIMIT $4)) AS item
 ORDER BY id DESC LIMIT $4
"""

PAGE_OF_PAYMENTS_BY_METADATA = """
SELECT id FROM picopay.metadata_item
 WHERE ledger_id = $1 AND object = 1 AND key = $5 AND value = $6 AND id < $2 AND id >= $3
 ORDER BY id DESC LIMIT $4
"""

PAGE_BY_ACCOUNT = """
SELECT e.journal_id AS id, e.created_at, e.sequence FROM picopay.entry AS e
 WHERE e.ledger_id = $1 AND e.account_id = $2 AND (e.created_at, e.sequence) < ($3, $4)
   AND e.created_at >= $5
   -- Of several entries of one transaction only the first counts; they are neighbours.
   AND NOT EXISTS (SELECT FROM picopay.entry AS before
                    WHERE before.ledger_id = e.ledger_id AND before.account_id = e.account_id
                      AND before.created_at = e.created_at AND before.sequence = e.sequence - 1
                      AND before.journal_id = e.journal_id)
 ORDER BY e.created_at DESC, e.sequence DESC LIMIT $6
"""
