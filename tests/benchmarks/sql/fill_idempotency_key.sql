-- The fingerprint, which only the engine can make, is as long as one.
INSERT INTO picopay.{table} (ledger_id, key, operation, day, fingerprint, outcome, object_id, created_at)
SELECT '{ledger}', fill.key(n), 1, '{lower}', decode(md5(fill.key(n)), 'hex'), 'ok', fill.id(n),
       fill.moment(fill.ms(n / {commit_rows}))
  FROM generate_series({first}::bigint * {commit_rows}, {end}::bigint * {commit_rows} - 1) AS n;
