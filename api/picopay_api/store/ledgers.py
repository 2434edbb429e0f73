"""Statements about ledgers. Called by `engine/ledgers.py`."""

MAKE = """
INSERT INTO picopay.ledger (ledger_id, name, metadata, created_at)
VALUES ($1, $2, $3, date_trunc('milliseconds', clock_timestamp()))
ON CONFLICT ON CONSTRAINT ledger_name_key DO NOTHING
RETURNING ledger_id, name, metadata, created_at
"""

BY_ID = "SELECT ledger_id, name, metadata, created_at FROM picopay.ledger WHERE ledger_id = $1"

BY_NAME = "SELECT ledger_id, name, metadata, created_at FROM picopay.ledger WHERE name = $1"

PAGE = """
SELECT ledger_id, name, metadata, created_at FROM picopay.ledger
 WHERE ledger_id < $1 ORDER BY ledger_id DESC LIMIT $2
"""
