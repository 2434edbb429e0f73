UPDATE picopay.balance AS b SET sequence = 2 * {turns}, changed_at = last.moment
  FROM (SELECT account.id, fill.moment(fill.ms(max(n) / {commit_rows})) AS moment
          FROM generate_series(({turns}::bigint - 1) * {accounts}, {turns}::bigint * {accounts} - 1) AS n
         CROSS JOIN LATERAL (VALUES (fill.payer(n)), (fill.payee(n))) AS leg(account)
          JOIN fill.account AS account ON account.number = leg.account
         GROUP BY account.id) AS last
 WHERE b.ledger_id = '{ledger}' AND b.account_id = last.id;
