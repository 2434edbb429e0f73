-- One payment in one call, after a file that chooses the accounts: what a transaction per payment comes to
-- when it makes one round trip only.
\set amount random(100, 999)
\set first_change CASE WHEN :first = :source THEN -:amount ELSE :amount END
\set key random(1, 9000000000000000000)
SELECT plain.pay(:source, :destination, :first, :second, :first_change, :amount, (:key)::bigint::text);
