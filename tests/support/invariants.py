"""What must hold of a ledger at every moment, asked of the tables in plain SQL.

Used by the tests of the rules of money. Kept apart from the product's auditor on purpose: the two were
written without a look at each other.
"""

from uuid import UUID

import asyncpg

from picopay_api.store.database import Connection

_RULES = {
    "the entries of a transaction add up to zero per asset": """
        SELECT FROM entry JOIN balance USING (account_id)
         GROUP BY journal_id, asset HAVING sum(posted_minor) <> 0""",
    "a balance is the sum of its entries": """
        SELECT FROM balance AS b
          LEFT JOIN (SELECT account_id, sum(posted_minor) AS posted, sum(held_minor) AS held
                       FROM entry GROUP BY account_id) AS e USING (account_id)
         WHERE (posted_balance, held_balance)
               IS DISTINCT FROM (coalesce(e.posted, 0), coalesce(e.held, 0))""",
    "no account is below its floor": """
        SELECT FROM balance WHERE posted_balance - held_balance < floor_minor""",
    "no transaction has led an account below its floor": """
        SELECT FROM (SELECT DISTINCT ON (account_id, journal_id) *
                       FROM entry ORDER BY account_id, journal_id, sequence DESC) AS last
          JOIN balance USING (account_id)
         WHERE posted_after_minor - held_after_minor < floor_minor""",
    "entries are numbered 1, 2, 3, … as many as the account has": """
        SELECT FROM balance
          LEFT JOIN (SELECT account_id, count(*) AS entries, count(DISTINCT sequence) AS numbers,
                            min(sequence) AS first, max(sequence) AS last
                       FROM entry GROUP BY account_id) AS e USING (account_id)
         WHERE (coalesce(entries, 0), coalesce(numbers, 0), coalesce(last, 0))
               <> (balance.sequence, balance.sequence, balance.sequence)
            OR first <> 1""",
    "every entry's balance is the one before it plus its change": """
        SELECT FROM (SELECT *, lag(posted_after_minor, 1, 0::bigint) OVER account AS posted_before,
                            lag(held_after_minor, 1, 0::bigint) OVER account AS held_before
                       FROM entry WINDOW account AS (PARTITION BY account_id ORDER BY sequence)) AS e
         WHERE posted_after_minor <> posted_before + posted_minor
            OR held_after_minor <> held_before + held_minor""",
    "an account's entries have the same order by time and by number": """
        SELECT FROM (SELECT created_at, lag(created_at) OVER
                            (PARTITION BY account_id ORDER BY sequence) AS before FROM entry) AS e
         WHERE created_at < before""",
    "every accepted key has one journal row, and every row its key": """
        SELECT FROM (SELECT DISTINCT key, operation, object_id FROM idempotency_key
                      WHERE outcome = 'ok' AND operation < 4) AS k
          FULL JOIN journal AS j
                 ON (j.id, j.idempotency_key, j.kind) = (k.object_id, k.key, k.operation)
         WHERE j.id IS NULL OR k.object_id IS NULL""",
    "a refused key has made nothing": """
        SELECT FROM idempotency_key WHERE (outcome = 'ok') <> (object_id IS NOT NULL)""",
    "a commit counts the rows that came with it": """
        SELECT FROM (SELECT xid, count(*) AS rows, min(id::text) AS first, max(id::text) AS last
                       FROM journal GROUP BY xid) AS j
          FULL JOIN commit AS c USING (xid)
         WHERE (rows, first, last) IS DISTINCT FROM (c.count, first_id::text, last_id::text)""",
}

_TABLES = """
WITH balance AS MATERIALIZED (
    SELECT account_id, asset, floor_minor, posted_minor AS posted_balance,
           held_minor AS held_balance, sequence
      FROM picopay.balance WHERE ledger_id = $1),
entry AS MATERIALIZED (SELECT * FROM picopay.entry WHERE ledger_id = $1),
journal AS MATERIALIZED (SELECT * FROM picopay.journal WHERE ledger_id = $1),
commit AS MATERIALIZED (SELECT * FROM picopay.commit WHERE ledger_id = $1),
idempotency_key AS MATERIALIZED (SELECT * FROM picopay.idempotency_key WHERE ledger_id = $1)
"""

BROKEN_RULES = _TABLES + " UNION ALL ".join(
    f"SELECT '{name.replace("'", "''")}' AS rule WHERE EXISTS ({sql})"
    for name, sql in _RULES.items()
)
"""The rules that do not hold of ledger $1, a row each."""


async def broken_rules(
    connection: "Connection | asyncpg.Connection[asyncpg.Record]", ledger: UUID
) -> list[str]:
    """Return the rules that do not hold of a ledger, in one snapshot."""
    return [record["rule"] for record in await connection.fetch(BROKEN_RULES, ledger)]
