INSERT INTO picopay.{table} (ledger_id, account_id, created_at, sequence, journal_id, posted_minor,
                             held_minor, posted_after_minor, held_after_minor)
SELECT '{ledger}', account.id, fill.moment(fill.ms(n / {commit_rows})),
       2 * fill.turn(n) + 1 + leg.is_second::integer, fill.id(n), leg.posted, 0,
       -- The second of an account's two entries in a turn undoes the first.
       CASE WHEN leg.is_second THEN 0 ELSE leg.posted END, 0
  FROM generate_series({first}::bigint * {commit_rows}, {end}::bigint * {commit_rows} - 1) AS n
 CROSS JOIN LATERAL (
       VALUES (fill.payer(n), -fill.amount(n), fill.place(n) >= fill.shift(n)),
              (fill.payee(n), fill.amount(n), fill.place(n) + fill.shift(n) >= {accounts})
       ) AS leg(account, posted, is_second)
  JOIN fill.account AS account ON account.number = leg.account;
