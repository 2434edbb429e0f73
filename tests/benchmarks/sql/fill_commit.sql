-- Decided by another cluster, before this database was restored into this one: its ids begin anew here.
INSERT INTO picopay.commit (ledger_id, cluster, xid, first_id, last_id, count, decided_at)
SELECT '{ledger}', 1, (1 + c)::text::xid8, fill.id(c * {commit_rows}),
       fill.id((c + 1) * {commit_rows} - 1), {commit_rows}, fill.moment(fill.ms(c))
  FROM generate_series(0, {commits}::bigint - 1) AS c;
