"""Statements about API keys; only hashes of secrets are ever stored. Called by `engine/keys.py`."""

_ENDS = "least(expires_at, retires_at)"

_COLUMNS = (
    f"id, ledger_id, name, scopes, hint, created_at, {_ENDS} AS expires_at, revoked_at,"
    " expires_at AS term_ends_at"
)

BY_HASH = f"""
SELECT id, ledger_id, scopes, {_ENDS} AS expires_at
  FROM picopay.api_key WHERE hash = $1 AND revoked_at IS NULL
"""  # noqa: S608  # a constant of this module

MAKE = f"""
INSERT INTO picopay.api_key (ledger_id, id, hash, hint, name, scopes, created_at, expires_at)
VALUES ($1, $2, $3, $4, $5, $6, date_trunc('milliseconds', clock_timestamp()), $7)
RETURNING {_COLUMNS}
"""  # noqa: S608  # a constant of this module

MAKE_UNLESS_THERE = MAKE.replace(
    "RETURNING", "ON CONFLICT ON CONSTRAINT api_key_hash_key DO NOTHING RETURNING"
)

ANY_BY_HASH = f"SELECT {_COLUMNS} FROM picopay.api_key WHERE hash = $1"  # noqa: S608  # a constant of this module
"""The key of a hash, valid or not."""

BY_ID = f"SELECT {_COLUMNS} FROM picopay.api_key WHERE ledger_id = $1 AND id = $2"  # noqa: S608  # a constant of this module

LOCK = BY_ID + " FOR NO KEY UPDATE"

PAGE = f"""
SELECT {_COLUMNS} FROM picopay.api_key
 WHERE ledger_id = $1 AND id < $2 ORDER BY id DESC LIMIT $3
"""  # noqa: S608  # a constant of this module

RETIRE = """
UPDATE picopay.api_key
   SET retires_at = least(retires_at, clock_timestamp() + make_interval(secs => $3))
 WHERE ledger_id = $1 AND id = $2
"""

RETIRE_BY_HASH = """
UPDATE picopay.api_key
   SET retires_at = least(retires_at, clock_timestamp() + make_interval(secs => $3))
 WHERE ledger_id = $1 AND hash = $2
"""

REVOKE = f"""
UPDATE picopay.api_key SET revoked_at = coalesce(revoked_at, clock_timestamp())
 WHERE ledger_id = $1 AND id = $2
RETURNING {_COLUMNS}
"""  # noqa: S608  # a constant of this module
