-- One payment in seven statements, after a file that chooses the accounts: what a transaction per payment
-- does. A key that is there already, or funds that are not, end the run.
\set amount random(100, 999)
\set first_change CASE WHEN :first = :source THEN -:amount ELSE :amount END
\set second_change -(:first_change)
\set key random(1, 9000000000000000000)
BEGIN;
INSERT INTO plain.idempotency_key (key, fingerprint)
VALUES ((:key)::bigint::text, '\x00112233445566778899aabbccddeeff');
UPDATE plain.balance SET posted_minor = posted_minor + :first_change, sequence = sequence + 1
 WHERE account_id = :first AND posted_minor + :first_change >= floor_minor
RETURNING posted_minor AS first_after, sequence AS first_sequence \gset
UPDATE plain.balance SET posted_minor = posted_minor + :second_change, sequence = sequence + 1
 WHERE account_id = :second AND posted_minor + :second_change >= floor_minor
RETURNING posted_minor AS second_after, sequence AS second_sequence \gset
INSERT INTO plain.journal (source, destination, amount_minor, asset, idempotency_key)
VALUES (:source, :destination, :amount, 'USD', (:key)::bigint::text)
RETURNING id AS journal_id \gset
INSERT INTO plain.entry (account_id, sequence, journal_id, posted_minor, posted_after_minor)
VALUES (:first, :first_sequence, :journal_id, :first_change, :first_after),
       (:second, :second_sequence, :journal_id, :second_change, :second_after);
COMMIT;
