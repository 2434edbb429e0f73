-- The first schema: ledgers, accounts, journal and what keeps them honest (store/tables.py).

CREATE TABLE picopay.ledger (
    ledger_id uuid NOT NULL,
    name text COLLATE "C" NOT NULL,
    metadata jsonb DEFAULT '{}' NOT NULL,
    created_at timestamptz NOT NULL,
    CONSTRAINT ledger_pkey PRIMARY KEY (ledger_id),
    CONSTRAINT ledger_name_key UNIQUE (name)
);
COMMENT ON TABLE picopay.ledger IS 'A tenant''s isolated book.';

CREATE TABLE picopay.api_key (
    ledger_id uuid NOT NULL,
    id uuid NOT NULL,
    hash bytea NOT NULL,
    hint text NOT NULL,
    name text NOT NULL,
    scopes text[] NOT NULL,
    created_at timestamptz NOT NULL,
    expires_at timestamptz,
    retires_at timestamptz,
    revoked_at timestamptz,
    CONSTRAINT api_key_pkey PRIMARY KEY (ledger_id, id),
    CONSTRAINT api_key_hash_key UNIQUE (hash)
);
COMMENT ON TABLE picopay.api_key IS 'Who may ask. A key is valid until it expires, retires or is revoked.';
COMMENT ON COLUMN picopay.api_key.retires_at IS 'when the overlap with its successor ends, once it was rolled';
COMMENT ON COLUMN picopay.api_key.hash IS 'SHA-256 of the secret; never the secret';
COMMENT ON COLUMN picopay.api_key.hint IS 'the last four characters, for people';

CREATE TABLE picopay.account (
    ledger_id uuid NOT NULL,
    id uuid NOT NULL,
    reference text COLLATE "C",
    metadata jsonb DEFAULT '{}' NOT NULL,
    created_at timestamptz NOT NULL,
    CONSTRAINT account_pkey PRIMARY KEY (ledger_id, id),
    CONSTRAINT account_reference_key UNIQUE (ledger_id, reference)
);
COMMENT ON TABLE picopay.account IS 'What is described of an account; seldom written.';
COMMENT ON COLUMN picopay.account.reference IS 'never changes and is never given to another account';

CREATE TABLE picopay.balance (
    ledger_id uuid NOT NULL,
    account_id uuid NOT NULL,
    asset text COLLATE "C" NOT NULL,
    state smallint NOT NULL,
    floor_minor bigint,
    posted_minor bigint NOT NULL,
    held_minor bigint NOT NULL,
    sequence bigint NOT NULL,
    changed_at timestamptz NOT NULL,
    CONSTRAINT balance_pkey PRIMARY KEY (ledger_id, account_id),
    CONSTRAINT balance_floor CHECK (posted_minor - held_minor >= floor_minor),
    CONSTRAINT balance_held CHECK (held_minor >= 0),
    CONSTRAINT balance_state CHECK (state between 0 and 2)
)
 WITH (fillfactor = 50);
CREATE INDEX balance_asset ON picopay.balance (ledger_id, asset, account_id);
COMMENT ON TABLE picopay.balance IS 'The row that is locked: narrow, updated in place (HOT): no index on what changes.';
COMMENT ON COLUMN picopay.balance.state IS '0 open, 1 frozen, 2 closed';
COMMENT ON COLUMN picopay.balance.floor_minor IS 'lowest available balance; null: unbounded';
COMMENT ON COLUMN picopay.balance.sequence IS 'number of entries so far';

CREATE TABLE picopay.journal (
    ledger_id uuid NOT NULL,
    id uuid NOT NULL,
    kind smallint NOT NULL,
    xid xid8 NOT NULL,
    parent_id uuid,
    reference text,
    idempotency_key text,
    postings jsonb NOT NULL,
    metadata jsonb,
    created_at timestamptz NOT NULL,
    CONSTRAINT journal_pkey PRIMARY KEY (ledger_id, id)
) PARTITION BY RANGE (id);
CREATE INDEX journal_payment ON picopay.journal (ledger_id, id) WHERE kind = 1;
COMMENT ON TABLE picopay.journal IS 'One immutable row per accepted command; the event feed reads it.';
COMMENT ON COLUMN picopay.journal.id IS 'UUIDv7: the partition and the order of lists';
COMMENT ON COLUMN picopay.journal.kind IS '1 payment, 2 transaction, 3 reversal';
COMMENT ON COLUMN picopay.journal.xid IS 'the commit it came with';
COMMENT ON COLUMN picopay.journal.parent_id IS 'what it reverses';

CREATE TABLE picopay.entry (
    ledger_id uuid NOT NULL,
    account_id uuid NOT NULL,
    created_at timestamptz NOT NULL,
    sequence bigint NOT NULL,
    journal_id uuid NOT NULL,
    posted_minor bigint NOT NULL,
    held_minor bigint NOT NULL,
    posted_after_minor bigint NOT NULL,
    held_after_minor bigint NOT NULL,
    CONSTRAINT entry_pkey PRIMARY KEY (ledger_id, account_id, created_at, sequence)
) PARTITION BY RANGE (created_at);
CREATE INDEX entry_created_at_brin ON picopay.entry USING brin (created_at);
COMMENT ON TABLE picopay.entry IS 'An account''s side of a posting, immutable, with the balance after it.';
COMMENT ON COLUMN picopay.entry.sequence IS 'dense per account, from 1';
COMMENT ON COLUMN picopay.entry.posted_minor IS 'signed change of posted';
COMMENT ON COLUMN picopay.entry.held_minor IS 'signed change of held';

CREATE TABLE picopay.idempotency_key (
    ledger_id uuid NOT NULL,
    key text COLLATE "C" NOT NULL,
    operation smallint NOT NULL,
    day date NOT NULL,
    fingerprint bytea NOT NULL,
    outcome text NOT NULL,
    object_id uuid,
    detail jsonb,
    created_at timestamptz NOT NULL,
    CONSTRAINT idempotency_key_pkey PRIMARY KEY (ledger_id, key, operation, day)
) PARTITION BY RANGE (day);
COMMENT ON TABLE picopay.idempotency_key IS 'Outcomes by key; forgotten by dropping the partition of ten days.';
COMMENT ON COLUMN picopay.idempotency_key.operation IS 'as journal.kind; 4 account';
COMMENT ON COLUMN picopay.idempotency_key.outcome IS 'ok, or the code of the refusal';
COMMENT ON COLUMN picopay.idempotency_key.object_id IS 'what it made';
COMMENT ON COLUMN picopay.idempotency_key.detail IS 'members of the refusal';

CREATE TABLE picopay.reference (
    ledger_id uuid NOT NULL,
    reference text COLLATE "C" NOT NULL,
    journal_id uuid NOT NULL,
    CONSTRAINT reference_pkey PRIMARY KEY (ledger_id, reference)
);
COMMENT ON TABLE picopay.reference IS 'A reference names one journal row for ever.';

CREATE TABLE picopay.reversal (
    ledger_id uuid NOT NULL,
    original_id uuid NOT NULL,
    reversal_id uuid NOT NULL,
    CONSTRAINT reversal_pkey PRIMARY KEY (ledger_id, original_id)
);
COMMENT ON TABLE picopay.reversal IS 'What has been reversed, at most once.';

CREATE TABLE picopay.metadata_item (
    ledger_id uuid NOT NULL,
    object smallint NOT NULL,
    key text COLLATE "C" NOT NULL,
    value text COLLATE "C" NOT NULL,
    id uuid NOT NULL,
    CONSTRAINT metadata_item_pkey PRIMARY KEY (ledger_id, object, key, value, id)
);
COMMENT ON TABLE picopay.metadata_item IS 'The index behind metadata[key] filters.';
COMMENT ON COLUMN picopay.metadata_item.object IS '0 account, else journal.kind';

CREATE TABLE picopay.commit (
    ledger_id uuid NOT NULL,
    cluster bigint NOT NULL,
    xid xid8 NOT NULL,
    first_id uuid NOT NULL,
    last_id uuid NOT NULL,
    count integer NOT NULL,
    decided_at timestamptz NOT NULL,
    CONSTRAINT commit_pkey PRIMARY KEY (ledger_id, cluster, xid)
);
CREATE INDEX commit_xid ON picopay.commit (cluster, xid);
COMMENT ON TABLE picopay.commit IS 'One row per batch and ledger: what the sealer reads.';
COMMENT ON COLUMN picopay.commit.cluster IS 'system identifier of the cluster';

CREATE TABLE picopay.block (
    ledger_id uuid NOT NULL,
    height bigint NOT NULL,
    cluster bigint NOT NULL,
    xid_from xid8 NOT NULL,
    xid_to xid8 NOT NULL,
    first_position bigint NOT NULL,
    count integer NOT NULL,
    root bytea NOT NULL,
    previous_hash bytea NOT NULL,
    hash bytea NOT NULL,
    sealed_at timestamptz NOT NULL,
    CONSTRAINT block_pkey PRIMARY KEY (ledger_id, height),
    CONSTRAINT block_position_key UNIQUE (ledger_id, first_position),
    CONSTRAINT block_xid_key UNIQUE (ledger_id, cluster, xid_from)
);
COMMENT ON TABLE picopay.block IS 'Sealed journal rows in their final order, chained by hash.';
COMMENT ON COLUMN picopay.block.xid_from IS 'inclusive';
COMMENT ON COLUMN picopay.block.xid_to IS 'exclusive';
COMMENT ON COLUMN picopay.block.root IS 'Merkle root of the rows';

CREATE TABLE picopay.audit (
    ledger_id uuid NOT NULL,
    height bigint NOT NULL,
    position bigint NOT NULL,
    block_hash bytea NOT NULL,
    account_id uuid,
    sums jsonb NOT NULL,
    checked_at timestamptz NOT NULL,
    CONSTRAINT audit_pkey PRIMARY KEY (ledger_id)
);
COMMENT ON TABLE picopay.audit IS 'Where the continuous auditor is.';
COMMENT ON COLUMN picopay.audit.height IS 'blocks checked so far';
COMMENT ON COLUMN picopay.audit.position IS 'events checked so far';
COMMENT ON COLUMN picopay.audit.block_hash IS 'hash of the last block checked';
COMMENT ON COLUMN picopay.audit.account_id IS 'accounts checked so far in this round; null: start';
COMMENT ON COLUMN picopay.audit.sums IS 'sum of all balances by asset: zeros';

CREATE TABLE picopay.audit_finding (
    ledger_id uuid NOT NULL,
    kind text COLLATE "C" NOT NULL,
    subject text COLLATE "C" NOT NULL,
    detail text NOT NULL,
    found_at timestamptz NOT NULL,
    CONSTRAINT audit_finding_pkey PRIMARY KEY (ledger_id, kind, subject)
);
COMMENT ON TABLE picopay.audit_finding IS 'What the auditor found wrong. Empty in a healthy ledger.';
COMMENT ON COLUMN picopay.audit_finding.subject IS 'what it is about: an id, an asset, a height';

CREATE TABLE picopay.schema_version (
    one smallint DEFAULT 1 NOT NULL,
    min_compatible text NOT NULL,
    functions_digest text NOT NULL,
    CONSTRAINT schema_version_pkey PRIMARY KEY (one),
    CONSTRAINT schema_version_single CHECK (one = 1)
);
COMMENT ON TABLE picopay.schema_version IS 'What a process must know of before it writes.';
COMMENT ON COLUMN picopay.schema_version.min_compatible IS 'oldest release head that may write';

-- What slips through the partitions made ahead is kept here.
CREATE TABLE picopay.journal_default PARTITION OF picopay.journal DEFAULT;
CREATE TABLE picopay.entry_default PARTITION OF picopay.entry DEFAULT;
CREATE TABLE picopay.idempotency_key_default PARTITION OF picopay.idempotency_key DEFAULT;

-- History: the trigger is the net under the grants (store/grants.sql).
DO $history$
DECLARE
    v_table text;
BEGIN
    FOREACH v_table IN ARRAY ARRAY['journal', 'entry', 'commit', 'block', 'reference', 'reversal'] LOOP
        EXECUTE format('CREATE TRIGGER refuse_change BEFORE UPDATE OR DELETE ON picopay.%I '
                       'FOR EACH ROW EXECUTE FUNCTION picopay.refuse_change()', v_table);
    END LOOP;
    -- A trigger on statements is not inherited: partitions made later get theirs in partitions.sql.
    FOREACH v_table IN ARRAY ARRAY['journal', 'journal_default', 'entry', 'entry_default', 'commit',
                                   'block', 'reference', 'reversal'] LOOP
        EXECUTE format('CREATE TRIGGER refuse_truncate BEFORE TRUNCATE ON picopay.%I '
                       'FOR EACH STATEMENT EXECUTE FUNCTION picopay.refuse_change()', v_table);
    END LOOP;
END
$history$;
