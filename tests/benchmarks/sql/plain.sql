-- What pgbench pays on: a ledger as one would write it first, as small as it can be and still do the
-- same work. In the database of the ledger that it is compared with, with as many accounts (:accounts) that may
-- be overdrawn as far (:floor_minor).
CREATE SCHEMA plain;

CREATE TABLE plain.balance (
    account_id bigint PRIMARY KEY,
    asset text NOT NULL,
    floor_minor bigint NOT NULL,
    posted_minor bigint NOT NULL CHECK (posted_minor >= floor_minor),
    sequence bigint NOT NULL
) WITH (fillfactor = 50);

CREATE TABLE plain.journal (
    id uuid PRIMARY KEY DEFAULT uuidv7(),
    source bigint NOT NULL,
    destination bigint NOT NULL,
    amount_minor bigint NOT NULL,
    asset text NOT NULL,
    idempotency_key text NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE plain.entry (
    account_id bigint NOT NULL,
    sequence bigint NOT NULL,
    journal_id uuid NOT NULL,
    posted_minor bigint NOT NULL,
    posted_after_minor bigint NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (account_id, sequence)
);

CREATE TABLE plain.idempotency_key (
    key text PRIMARY KEY,
    fingerprint bytea NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now()
);

INSERT INTO plain.balance SELECT n, 'USD', :floor_minor, 0, 0 FROM generate_series(1, :accounts) AS n;

-- The seven statements of statements.pgbench.sql in one call; its transaction is the call.
CREATE FUNCTION plain.pay(
    p_source bigint, p_destination bigint, p_first bigint, p_second bigint, p_first_change bigint,
    p_amount bigint, p_key text
) RETURNS uuid LANGUAGE plpgsql AS $pay$
DECLARE
    v_first_after bigint; v_first_sequence bigint; v_second_after bigint; v_second_sequence bigint;
    v_journal_id uuid;
BEGIN
    INSERT INTO plain.idempotency_key (key, fingerprint)
    VALUES (p_key, '\x00112233445566778899aabbccddeeff');
    UPDATE plain.balance SET posted_minor = posted_minor + p_first_change, sequence = sequence + 1
     WHERE account_id = p_first AND posted_minor + p_first_change >= floor_minor
    RETURNING posted_minor, sequence INTO STRICT v_first_after, v_first_sequence;
    UPDATE plain.balance SET posted_minor = posted_minor - p_first_change, sequence = sequence + 1
     WHERE account_id = p_second AND posted_minor - p_first_change >= floor_minor
    RETURNING posted_minor, sequence INTO STRICT v_second_after, v_second_sequence;
    INSERT INTO plain.journal (source, destination, amount_minor, asset, idempotency_key)
    VALUES (p_source, p_destination, p_amount, 'USD', p_key)
    RETURNING id INTO v_journal_id;
    INSERT INTO plain.entry (account_id, sequence, journal_id, posted_minor, posted_after_minor)
    VALUES (p_first, v_first_sequence, v_journal_id, p_first_change, v_first_after),
           (p_second, v_second_sequence, v_journal_id, -p_first_change, v_second_after);
    RETURN v_journal_id;
END
$pay$;
