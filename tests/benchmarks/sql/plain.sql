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
