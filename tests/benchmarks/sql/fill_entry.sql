INSERT INTO picopay.{table} (ledger_id, account_id, created_at, sequence, journal_id, posted_minor,
                             held_minor, posted_after_minor, held_after_minor)
SELECT '{ledger}', account.id, payment.moment, 2 * payment.turn + 1 + leg.is_second::integer, payment.id,
       leg.posted, 0,
       -- The second of an account's two entries in a turn undoes the first.
       CASE WHEN leg.is_second THEN 0 ELSE leg.posted END, 0
  FROM (SELECT fill.id(n) AS id, fill.moment(fill.ms(n / {commit_rows})) AS moment, fill.turn(n) AS turn,
               fill.place(n) AS place, fill.shift(n) AS shift, fill.payer(n) AS payer,
               fill.payee(n) AS payee, fill.amount(n) AS amount
          FROM generate_series({first}::bigint * {commit_rows}, {end}::bigint * {commit_rows} - 1) AS n
        OFFSET 0  -- computed once for both legs
       ) AS payment
 CROSS JOIN LATERAL (VALUES (payer, -amount, place >= shift), (payee, amount, place + shift >= {accounts})
       ) AS leg(account, posted, is_second)
  JOIN fill.account AS account ON account.number = leg.account;
