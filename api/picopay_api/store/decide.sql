-- The only arbiter of what needs a lock: one call decides one batch of commands of one ledger.
--
-- Called by engine/committer.py as a transaction of its own, at READ COMMITTED. The caller has planned
-- each command (engine/ledger.py) and guarantees that no two commands of a batch share a key, a
-- reference or a parent; the primary keys are the net under that. A command that is refused is an
-- outcome of its own and never fails its neighbours. tests/support/model.py says the same in Python, and
-- a stateful property test holds the two together.
--
-- The signature never changes while a release that calls it may still run: a new one gets a new name.
--
-- Order of refusals within a command: idempotency_key_reused, reference_taken,
-- transaction_already_reversed; then, leg by leg, account_not_found, asset_mismatch, account_closed,
-- account_frozen; then condition_failed, balance_out_of_range, insufficient_funds.
CREATE OR REPLACE FUNCTION picopay.decide(
    p_ledger uuid,
    p_retention_days integer,   -- keys of older days are forgotten
    p_accounts uuid[],          -- every account of the batch once, ascending: the order of locking
    -- one element per command
    p_id uuid[],
    p_kind smallint[],
    p_key text[],               -- null: a dry run
    p_fingerprint bytea[],
    p_parent uuid[],
    p_reference text[],
    p_postings jsonb[],
    p_metadata jsonb[],
    p_leg_end integer[],        -- the command's last leg
    p_condition_end integer[],  -- the command's last condition
    -- one element per leg, in command order
    p_leg_account integer[],    -- an index into p_accounts
    p_leg_asset text[],
    p_leg_posted bigint[],      -- signed
    p_leg_held bigint[],        -- signed
    -- one element per condition, in command order: bounds of the available balance before the command
    p_condition_account integer[],
    p_condition_minimum bigint[],
    p_condition_maximum bigint[]
)
-- One row for command 0, which tells when everything new was decided, and one for each command whose
-- outcome is not a new `ok`: most payments are, and need no row.
RETURNS TABLE (command integer, outcome text, replayed boolean, decided_id uuid, decided_at timestamptz, detail jsonb)
LANGUAGE plpgsql
SET search_path = ''
-- One plan for all calls: the arrays are never large, and planning over partitions costs more than the
-- batch. Look-ups go through the primary keys whatever the statistics of a young table say.
SET plan_cache_mode = force_generic_plan
SET enable_seqscan = off
SET enable_hashjoin = off
SET enable_mergejoin = off
AS $decide$
#variable_conflict use_column
DECLARE
    c_balance_max CONSTANT bigint := 4000000000000000000;  -- engine/ledger.py BALANCE_MAX_MINOR
    v_commands CONSTANT integer := cardinality(p_id);
    v_legs CONSTANT integer := cardinality(p_leg_account);
    -- accounts, by index
    v_asset text[]; v_state smallint[]; v_floor bigint[];
    v_posted bigint[]; v_held bigint[]; v_sequence bigint[]; v_sequence_before bigint[];
    -- what is known of the commands' keys, references and parents
    v_known record; v_known_fingerprint bytea[] := array_fill(NULL::bytea, ARRAY[v_commands]);
    v_known_outcome text[]; v_known_id uuid[];
    v_known_at timestamptz[]; v_known_detail jsonb[];
    v_taken boolean[]; v_reversed boolean[];
    -- outcomes, by command
    v_outcome text[] := array_fill(NULL::text, ARRAY[v_commands]);
    v_replayed boolean[] := array_fill(false, ARRAY[v_commands]);
    v_id uuid[] := p_id;
    v_at timestamptz[];
    v_detail jsonb[] := array_fill(NULL::jsonb, ARRAY[v_commands]);
    v_written boolean[] := array_fill(false, ARRAY[v_commands]);
    -- entries, by leg; no sequence: not written
    v_entry_id uuid[] := array_fill(NULL::uuid, ARRAY[v_legs]);
    v_entry_sequence bigint[] := array_fill(NULL::bigint, ARRAY[v_legs]);
    v_entry_posted bigint[] := array_fill(NULL::bigint, ARRAY[v_legs]);
    v_entry_held bigint[] := array_fill(NULL::bigint, ARRAY[v_legs]);
    v_changed_at timestamptz; v_place tid[];
    v_now timestamptz; v_now_ms timestamptz; v_days date[]; v_oldest_day date;
    v_count integer := 0; v_first_id uuid; v_last_id uuid; v_decided integer := 0;
    v_code text; v_what jsonb; v_available bigint;
    v_leg integer := 1; v_condition integer := 1; a integer;
BEGIN
    -- 1. Lock. The locking statement itself returns the newest version of each row.
    SELECT array_agg(b.asset ORDER BY n), array_agg(b.state ORDER BY n),
           array_agg(b.floor_minor ORDER BY n), array_agg(b.posted_minor ORDER BY n),
           array_agg(b.held_minor ORDER BY n), array_agg(b.sequence ORDER BY n), max(b.changed_at),
           array_agg(b.place ORDER BY n)
      INTO v_asset, v_state, v_floor, v_posted, v_held, v_sequence, v_changed_at, v_place
      FROM unnest(p_accounts) WITH ORDINALITY AS a(account_id, n)
      -- One look-up after the other, in the order of the array.
      LEFT JOIN LATERAL (SELECT l.ctid AS place, l.* FROM picopay.balance AS l
                          WHERE l.ledger_id = p_ledger AND l.account_id = a.account_id
                            FOR NO KEY UPDATE) AS b ON true;
    v_sequence_before := v_sequence;

    -- Time is read under the locks and never runs backwards on an account, so that an account's entries
    -- have the same order by time and by sequence, and balances in the past are one look-up.
    v_now := greatest(clock_timestamp(), v_changed_at + interval '1 microsecond');
    v_now_ms := date_trunc('milliseconds', v_now);
    v_at := array_fill(v_now_ms, ARRAY[v_commands]);
    v_days := ARRAY[(v_now AT TIME ZONE 'UTC')::date];
    v_oldest_day := v_days[1] - p_retention_days;
    -- A key is unique within its day only. In the first minute of a day it is written to the day before
    -- as well, where it meets whatever began before midnight: no transaction lives for a minute.
    IF (v_now AT TIME ZONE 'UTC')::time < time '00:01' THEN
        v_days := v_days || (v_days[1] - 1);
    END IF;

    -- 2. Look up, in new statements: their snapshots see all that was committed before the locks came.
    -- One scan for all keys of the batch in each partition of the window: a scan for each key would pay
    -- for its beginning and its end each time, which is most of it.
    FOR v_known IN
        WITH k AS MATERIALIZED (
            SELECT i.key, i.operation, i.fingerprint, i.outcome, i.object_id, i.created_at, i.detail
              FROM picopay.idempotency_key AS i
             WHERE i.ledger_id = p_ledger AND i.key = ANY (p_key)
               AND i.day BETWEEN v_oldest_day AND v_days[1])
        SELECT c.n, k.fingerprint, k.outcome, k.object_id, k.created_at, k.detail
          FROM k
          JOIN unnest(p_key, p_kind) WITH ORDINALITY AS c(key, operation, n)
            ON c.key = k.key AND c.operation = k.operation
    LOOP
        v_known_fingerprint[v_known.n] := v_known.fingerprint;
        v_known_outcome[v_known.n] := v_known.outcome;
        v_known_id[v_known.n] := v_known.object_id;
        v_known_at[v_known.n] := v_known.created_at;
        v_known_detail[v_known.n] := v_known.detail;
    END LOOP;
    IF p_reference IS NOT NULL THEN
        SELECT array_agg(r.reference IS NOT NULL ORDER BY n) INTO v_taken
          FROM unnest(p_reference) WITH ORDINALITY AS c(reference, n)
          LEFT JOIN picopay.reference AS r ON r.ledger_id = p_ledger AND r.reference = c.reference;
    END IF;
    IF p_parent IS NOT NULL THEN
        SELECT array_agg(r.original_id IS NOT NULL ORDER BY n) INTO v_reversed
          FROM unnest(p_parent) WITH ORDINALITY AS c(parent, n)
          LEFT JOIN picopay.reversal AS r ON r.ledger_id = p_ledger AND r.original_id = c.parent;
    END IF;

    -- 3. Decide, in order, over arrays in memory.
    FOR c IN 1 .. v_commands LOOP
        v_code := NULL;
        v_what := NULL;
        IF v_known_fingerprint[c] = p_fingerprint[c] THEN
            v_outcome[c] := v_known_outcome[c];
            v_replayed[c] := true;
            v_id[c] := v_known_id[c];
            v_at[c] := v_known_at[c];
            v_detail[c] := v_known_detail[c];
        ELSIF v_known_fingerprint[c] IS NOT NULL THEN
            v_outcome[c] := 'idempotency_key_reused';
            v_id[c] := NULL;
        ELSE
            IF v_taken[c] THEN
                v_code := 'reference_taken';
                v_what := jsonb_build_object('reference', p_reference[c]);
            ELSIF v_reversed[c] THEN
                v_code := 'transaction_already_reversed';
            END IF;
            IF v_code IS NULL THEN
                FOR l IN v_leg .. p_leg_end[c] LOOP
                    a := p_leg_account[l];
                    IF v_state[a] = 0 AND v_asset[a] = p_leg_asset[l] THEN
                        CONTINUE;
                    END IF;
                    v_code := CASE
                        WHEN v_state[a] IS NULL THEN 'account_not_found'
                        WHEN v_asset[a] <> p_leg_asset[l] THEN 'asset_mismatch'
                        WHEN v_state[a] = 2 THEN 'account_closed'
                        ELSE 'account_frozen' END;
                    v_what := jsonb_build_object('account', p_accounts[a]);
                    EXIT;
                END LOOP;
            END IF;
            IF v_code IS NULL THEN
                FOR k IN v_condition .. p_condition_end[c] LOOP
                    a := p_condition_account[k];
                    v_available := v_posted[a] - v_held[a];
                    IF v_available IS NULL THEN
                        v_code := 'account_not_found';
                        v_what := jsonb_build_object('account', p_accounts[a]);
                    ELSIF v_available < p_condition_minimum[k]
                       OR v_available > p_condition_maximum[k] THEN
                        v_code := 'condition_failed';
                        v_what := jsonb_build_object(
                            'account', p_accounts[a], 'available', v_available);
                    END IF;
                    EXIT WHEN v_code IS NOT NULL;
                END LOOP;
            END IF;
            IF v_code IS NULL THEN
                -- Move all legs, then judge where the command as a whole has led.
                FOR l IN v_leg .. p_leg_end[c] LOOP
                    a := p_leg_account[l];
                    v_posted[a] := v_posted[a] + p_leg_posted[l];
                    v_held[a] := v_held[a] + p_leg_held[l];
                    v_sequence[a] := v_sequence[a] + 1;
                    v_entry_id[l] := p_id[c];
                    v_entry_sequence[l] := v_sequence[a];
                    v_entry_posted[l] := v_posted[a];
                    v_entry_held[l] := v_held[a];
                END LOOP;
                FOR l IN v_leg .. p_leg_end[c] LOOP
                    a := p_leg_account[l];
                    IF v_posted[a] NOT BETWEEN -c_balance_max AND c_balance_max
                       OR v_held[a] NOT BETWEEN 0 AND c_balance_max THEN
                        v_code := 'balance_out_of_range';
                        v_what := jsonb_build_object('account', p_accounts[a]);
                        EXIT;
                    ELSIF v_posted[a] - v_held[a] < v_floor[a]
                      AND (p_leg_posted[l] < 0 OR p_leg_held[l] > 0) THEN
                        v_code := 'insufficient_funds';
                    END IF;
                END LOOP;
                IF v_code IS NOT NULL OR p_key[c] IS NULL THEN
                    FOR l IN v_leg .. p_leg_end[c] LOOP
                        a := p_leg_account[l];
                        v_posted[a] := v_posted[a] - p_leg_posted[l];
                        v_held[a] := v_held[a] - p_leg_held[l];
                        v_sequence[a] := v_sequence[a] - 1;
                        v_entry_sequence[l] := NULL;
                    END LOOP;
                END IF;
                IF v_code = 'insufficient_funds' THEN
                    -- What there was before the command, and what the command would have taken on the whole.
                    SELECT jsonb_build_object('account', p_accounts[s.a],
                               'available', v_posted[s.a] - v_held[s.a],
                               'required', s.required, 'min_balance', v_floor[s.a])
                      INTO v_what
                      FROM (SELECT p_leg_account[l] AS a, min(l) AS first,
                                   sum(p_leg_held[l] - p_leg_posted[l])::bigint AS required
                              FROM generate_series(v_leg, p_leg_end[c]) AS l
                             GROUP BY 1) AS s
                     WHERE s.required > v_posted[s.a] - v_held[s.a] - v_floor[s.a]
                     ORDER BY s.first LIMIT 1;
                END IF;
            END IF;
            v_outcome[c] := coalesce(v_code, 'ok');
            v_detail[c] := v_what;
            IF p_key[c] IS NOT NULL THEN
                v_decided := v_decided + 1;
                v_written[c] := v_code IS NULL;
            END IF;
            IF v_written[c] THEN
                v_count := v_count + 1;
                v_first_id := least(v_first_id, p_id[c]);
                v_last_id := greatest(v_last_id, p_id[c]);
            ELSE
                v_id[c] := NULL;
            END IF;
        END IF;
        v_leg := p_leg_end[c] + 1;
        v_condition := p_condition_end[c] + 1;
    END LOOP;

    -- 4. Write, as sets.
    IF v_count > 0 THEN
        -- Ids carry time: partitions, lists and ranges of commits rely on it.
        IF abs(('x' || left(replace(v_last_id::text, '-', ''), 12))::bit(48)::bigint
               - extract(epoch FROM v_now) * 1000) > 300000 THEN
            RAISE EXCEPTION 'the clocks of this process and of the database differ by over five minutes'
                USING ERRCODE = 'PP001';
        END IF;
        INSERT INTO picopay.journal (ledger_id, id, kind, xid, parent_id, reference, idempotency_key,
                                     postings, metadata, created_at)
        SELECT p_ledger, w.id, w.kind, pg_catalog.pg_current_xact_id(), w.parent, w.reference, w.key,
               w.postings, w.metadata, v_now_ms
          FROM unnest(p_id, p_kind, p_parent, p_reference, p_key, p_postings, p_metadata, v_written)
               AS w(id, kind, parent, reference, key, postings, metadata, written)
         WHERE w.written;
        INSERT INTO picopay.entry (ledger_id, account_id, created_at, sequence, journal_id,
                                   posted_minor, held_minor, posted_after_minor, held_after_minor)
        SELECT p_ledger, p_accounts[e.a], v_now_ms, e.sequence, e.id, e.posted, e.held,
               e.posted_after, e.held_after
          FROM unnest(p_leg_account, p_leg_posted, p_leg_held, v_entry_id, v_entry_sequence,
                      v_entry_posted, v_entry_held)
               AS e(a, posted, held, id, sequence, posted_after, held_after)
         WHERE e.sequence IS NOT NULL;
        UPDATE picopay.balance AS b
           SET posted_minor = s.posted, held_minor = s.held, sequence = s.sequence, changed_at = v_now
          FROM unnest(v_place, p_accounts, v_posted, v_held, v_sequence, v_sequence_before)
               AS s(place, account_id, posted, held, sequence, sequence_before)
         -- A locked row stays where it is: no index has to find it again.
         WHERE b.ctid = s.place AND b.ledger_id = p_ledger AND b.account_id = s.account_id
           AND s.sequence <> s.sequence_before;
        INSERT INTO picopay.commit (ledger_id, cluster, xid, first_id, last_id, count, decided_at)
        SELECT p_ledger, s.system_identifier, pg_catalog.pg_current_xact_id(),
               v_first_id, v_last_id, v_count, v_now
          FROM pg_catalog.pg_control_system() AS s;
        IF p_reference IS NOT NULL THEN
            INSERT INTO picopay.reference (ledger_id, reference, journal_id)
            SELECT p_ledger, w.reference, w.id
              FROM unnest(p_reference, p_id, v_written) AS w(reference, id, written)
             WHERE w.written AND w.reference IS NOT NULL ORDER BY w.reference;
        END IF;
        IF p_parent IS NOT NULL THEN
            INSERT INTO picopay.reversal (ledger_id, original_id, reversal_id)
            SELECT p_ledger, w.parent, w.id
              FROM unnest(p_parent, p_id, v_written) AS w(parent, id, written)
             WHERE w.written AND w.parent IS NOT NULL ORDER BY w.parent;
        END IF;
        IF p_metadata IS NOT NULL THEN
            INSERT INTO picopay.metadata_item (ledger_id, object, key, value, id)
            SELECT p_ledger, w.kind, m.key, m.value, w.id
              FROM unnest(p_kind, p_id, p_metadata, v_written) AS w(kind, id, metadata, written),
                   jsonb_each_text(w.metadata) AS m
             WHERE w.written;
        END IF;
    END IF;
    IF v_decided > 0 THEN
        INSERT INTO picopay.idempotency_key (ledger_id, key, operation, day, fingerprint, outcome,
                                             object_id, detail, created_at)
        SELECT p_ledger, w.key, w.kind, d.day, w.fingerprint, w.outcome, w.id, w.detail, v_now_ms
          FROM unnest(p_key, p_kind, p_fingerprint, v_outcome, v_id, v_detail, v_known_fingerprint)
               AS w(key, kind, fingerprint, outcome, id, detail, known),
               unnest(v_days) AS d(day)
         WHERE w.key IS NOT NULL AND w.known IS NULL
         ORDER BY w.key;
    END IF;
    RETURN QUERY
        SELECT 0, 'ok', false, NULL::uuid, v_now_ms, NULL::jsonb
         UNION ALL
        SELECT o.n::integer, o.outcome, o.replayed, o.id, o.at, o.detail
          FROM unnest(v_outcome, v_replayed, v_id, v_at, v_detail)
               WITH ORDINALITY AS o(outcome, replayed, id, at, detail, n)
         WHERE o.replayed OR o.outcome <> 'ok';
END
$decide$;
