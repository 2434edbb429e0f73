-- How many payments there are; the rest is zero in a sound ledger that has nothing but payments.
WITH booked AS (
    SELECT ledger_id, account_id, sum(posted_minor) AS posted_minor, count(*) AS entries,
           max(sequence) AS sequence
      FROM picopay.entry GROUP BY ledger_id, account_id),
compared AS (
    SELECT count(*) FILTER (WHERE coalesce(e.posted_minor, 0) IS DISTINCT FROM b.posted_minor
                               OR coalesce(e.entries, 0) IS DISTINCT FROM b.sequence
                               OR coalesce(e.sequence, 0) IS DISTINCT FROM b.sequence) AS differing,
           sum(b.posted_minor) AS surplus, sum(e.entries) AS entries
      FROM picopay.balance AS b FULL JOIN booked AS e USING (ledger_id, account_id)),
counted AS (SELECT count(*) AS rows FROM picopay.journal)
SELECT counted.rows AS payments, compared.differing AS balances_that_differ,
       compared.surplus AS money_from_nowhere,
       coalesce(compared.entries, 0) - 2 * counted.rows AS entries_too_many,
       (SELECT coalesce(sum(count), 0) FROM picopay.commit) - counted.rows AS committed_too_many
  FROM counted, compared;
