INSERT INTO picopay.{table} (ledger_id, id, kind, xid, idempotency_key, postings, created_at)
SELECT '{ledger}', fill.id(n), 1, (1 + n / {commit_rows})::text::xid8, fill.key(n),
       jsonb_build_array(jsonb_build_object(
           'source', payer.id, 'destination', payee.id, 'amount', fill.amount(n), 'asset', 'USD')),
       fill.moment(fill.ms(n / {commit_rows}))
  FROM generate_series({first}::bigint * {commit_rows}, {end}::bigint * {commit_rows} - 1) AS n
  JOIN fill.account AS payer ON payer.number = fill.payer(n)
  JOIN fill.account AS payee ON payee.number = fill.payee(n);
