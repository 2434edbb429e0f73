-- A long history of the ledger :ledger, made without the engine: :rows rows of the journal, 20 seconds
-- apart, so that the five minutes by which ids may differ from times are a few rows.
--
-- What lists are asked for (tests/integration/test_list_indexes.py) is old and rare, and everything newer
-- is like it in all but the one thing that is asked for: a list that finds it in any other way than by an
-- index for that one thing reads thousands of rows.
SET search_path = picopay, pg_temp;
CREATE TEMP TABLE step AS
SELECT n, uuid_at(t) AS id, t FROM (
    SELECT n, date_trunc('milliseconds', now()) - (:rows - n) * interval '20 s' - interval '1 h'
      FROM generate_series(1, :rows) AS n) AS made(n, t);
ALTER TABLE step ADD PRIMARY KEY (n);
ANALYZE step;

INSERT INTO account (ledger_id, id, reference, metadata, created_at)
SELECT :ledger, id, 'a' || n,
       jsonb_build_object('tier', CASE WHEN n <= 3 THEN 'rare' ELSE 'common' END), t
  FROM step WHERE n <= 10000;
INSERT INTO balance (ledger_id, account_id, asset, state, floor_minor, posted_minor, held_minor,
                     sequence, changed_at)
SELECT :ledger, id, CASE WHEN n <= 3 THEN 'KWD' ELSE 'USD' END, 0, NULL, 0, 0, :rows, t
  FROM step WHERE n <= 10000;
INSERT INTO metadata_item (ledger_id, object, key, value, id)
SELECT ledger_id, 0, 'tier', metadata ->> 'tier', id FROM account;

-- Payments are old, reversals of the three oldest are new, and what lies between is neither.
INSERT INTO journal (ledger_id, id, kind, xid, parent_id, reference, idempotency_key, postings, metadata,
                     created_at)
SELECT :ledger, s.id, CASE WHEN s.n <= 200 THEN 1 WHEN p.n IS NULL THEN 2 ELSE 3 END,
       ((s.n + 9) / 10)::text::xid8, p.id, 'r' || s.n, 'k' || s.n,
       jsonb_build_array(jsonb_build_object('source', a.id, 'destination', b.id, 'amount', 1,
                                            'asset', 'USD')),
       jsonb_build_object('tier', CASE WHEN s.n <= 3 THEN 'rare' ELSE 'common' END), s.t
  FROM step AS s
  LEFT JOIN step AS p ON p.n = s.n - :rows + 3 AND p.n BETWEEN 1 AND 3
  JOIN step AS a ON a.n = CASE WHEN s.n <= 3 THEN 1 ELSE 11 END
  JOIN step AS b ON b.n = CASE WHEN s.n <= 3 THEN 2 ELSE 12 END;
INSERT INTO entry (ledger_id, account_id, created_at, sequence, journal_id, posted_minor, held_minor,
                   posted_after_minor, held_after_minor)
SELECT :ledger, a.id, s.t, s.n, s.id, side.amount, 0, side.amount * s.n, 0
  FROM step AS s CROSS JOIN (VALUES (1, -1), (2, 1)) AS side(place, amount)
  JOIN step AS a ON a.n = CASE WHEN s.n <= 3 THEN side.place ELSE side.place + 10 END;
INSERT INTO reference (ledger_id, reference, journal_id)
SELECT ledger_id, reference, id FROM journal;
INSERT INTO reversal (ledger_id, original_id, reversal_id)
SELECT ledger_id, parent_id, id FROM journal WHERE parent_id IS NOT NULL;
INSERT INTO metadata_item (ledger_id, object, key, value, id)
SELECT ledger_id, kind, 'tier', metadata ->> 'tier', id FROM journal;
INSERT INTO idempotency_key (ledger_id, key, operation, day, fingerprint, outcome, object_id, created_at)
SELECT ledger_id, idempotency_key, kind, (now() AT TIME ZONE 'UTC')::date, '', 'ok', id, created_at
  FROM journal;

-- All of it decided by another cluster, before this database was restored into this one.
INSERT INTO commit (ledger_id, cluster, xid, first_id, last_id, count, decided_at)
SELECT :ledger, 42, (f.n / 10 + 1)::text::xid8, f.id, l.id, 10, l.t
  FROM step AS f JOIN step AS l ON l.n = f.n + 9 WHERE f.n % 10 = 1;
INSERT INTO block (ledger_id, height, cluster, xid_from, xid_to, first_position, count, root,
                   previous_hash, hash, sealed_at)
SELECT :ledger, h, 42, (h * 100 - 99)::text::xid8, (h * 100 + 1)::text::xid8, h * 1000 - 999, 1000,
       '', '', '', now()
  FROM generate_series(1, :rows / 1000) AS h;

INSERT INTO api_key (ledger_id, id, hash, hint, name, scopes, created_at)
SELECT :ledger, id, sha256(n::text::bytea), 'hint', 'n', '{*}', t FROM step WHERE n <= 5000;
INSERT INTO ledger (ledger_id, name, created_at) SELECT id, 'l' || n, t FROM step WHERE n <= 5000;
ANALYZE;
