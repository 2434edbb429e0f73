-- Partitions are made ahead of time and idempotency keys forgotten by dropping theirs.
--
-- Called by the migration and by the worker. SECURITY DEFINER, because the runtime role owns nothing:
-- it can ask for this and for nothing else. A DEFAULT partition catches what slips through; money is
-- never dropped. Each step takes a short lock (the caller sets lock_timeout).
--
-- The search paths name pg_temp, and last: unnamed, it would come first, and a type that the caller made
-- there, called like one of ours, would run the caller's code with the owner's rights.

-- The smallest UUIDv7 of an instant: the bound of a journal partition.
CREATE OR REPLACE FUNCTION picopay.uuid_at(p_time timestamptz) RETURNS uuid
LANGUAGE sql IMMUTABLE STRICT
SET search_path = pg_catalog, pg_temp
AS $uuid_at$
    SELECT (lpad(to_hex((extract(epoch FROM p_time) * 1000)::bigint), 12, '0')
            || '00000000000000000000')::uuid
$uuid_at$;

-- The first day of the partition that holds the keys of a day. Each holds ten (decision 0005).
CREATE OR REPLACE FUNCTION picopay.first_day_of_keys(p_day date) RETURNS date
LANGUAGE sql IMMUTABLE STRICT
SET search_path = pg_catalog, pg_temp
AS $first_day_of_keys$
    SELECT date_bin('10 days', p_day::timestamp, '2000-01-01')::date
$first_day_of_keys$;

-- Whether the default partition of keys holds rows, and none of a day from the given one on.
CREATE OR REPLACE FUNCTION picopay.only_old_keys_slipped_through(p_oldest_day date) RETURNS boolean
LANGUAGE sql STABLE STRICT
SET search_path = pg_catalog, pg_temp
AS $only_old_keys_slipped_through$
    SELECT EXISTS (SELECT FROM picopay.idempotency_key_default)
       AND NOT EXISTS (SELECT FROM picopay.idempotency_key_default WHERE day >= p_oldest_day)
$only_old_keys_slipped_through$;

CREATE OR REPLACE FUNCTION picopay.maintain_partitions(p_retention_days integer)
RETURNS TABLE (action text, partition_name text)
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $maintain_partitions$
DECLARE
    c_months_ahead CONSTANT integer := 3;
    c_days_ahead CONSTANT integer := 7;
    c_days_of_keys CONSTANT integer := 10;  -- in a partition, as first_day_of_keys has it
    v_today CONSTANT date := (clock_timestamp() AT TIME ZONE 'UTC')::date;
    v_month CONSTANT date := date_trunc('month', v_today)::date;
    -- Keys younger than the retention stay, whatever is asked for: a key forgotten early pays twice.
    v_oldest_day CONSTANT date := v_today - greatest(p_retention_days, 1);
    -- A partition goes when its last day is too old. What slipped through goes by whole partitions as well,
    -- so that none is made for days whose keys are gone: to the auditor, a day with a partition is kept.
    v_kept_from CONSTANT date := picopay.first_day_of_keys(v_oldest_day);
    v_keys_from CONSTANT date := picopay.first_day_of_keys(v_today - 1);
    r record;
BEGIN
    FOR r IN
        WITH months AS (
            SELECT (v_month + make_interval(months => n))::date AS first,
                   (v_month + make_interval(months => n + 1))::date AS next
              FROM generate_series(0, c_months_ahead) AS n),
        keys AS (
            SELECT v_keys_from + n AS first, v_keys_from + n + c_days_of_keys AS next
              FROM generate_series(0, v_today + c_days_ahead - v_keys_from, c_days_of_keys) AS n)
        SELECT 'journal' AS parent, format('journal_%s', to_char(first, 'YYYYMM')) AS name,
               picopay.uuid_at(first::timestamp AT TIME ZONE 'UTC')::text AS lower,
               picopay.uuid_at(next::timestamp AT TIME ZONE 'UTC')::text AS upper FROM months
        UNION ALL
        SELECT 'entry', format('entry_%s', to_char(first, 'YYYYMM')),
               (first::timestamp AT TIME ZONE 'UTC')::text, (next::timestamp AT TIME ZONE 'UTC')::text
          FROM months
        UNION ALL
        SELECT 'idempotency_key', format('idempotency_key_%s', to_char(first, 'YYYYMMDD')),
               first::text, next::text FROM keys
    LOOP
        CONTINUE WHEN to_regclass(format('picopay.%I', r.name)) IS NOT NULL;
        BEGIN
            EXECUTE format('CREATE TABLE picopay.%I PARTITION OF picopay.%I FOR VALUES FROM (%L) TO (%L)',
                           r.name, r.parent, r.lower, r.upper);
            IF r.parent IN ('journal', 'entry') THEN
                -- Triggers on statements, unlike those on rows, are not those of the parent.
                EXECUTE format('CREATE TRIGGER refuse_truncate BEFORE TRUNCATE ON picopay.%I '
                               'FOR EACH STATEMENT EXECUTE FUNCTION picopay.refuse_change()', r.name);
            END IF;
            action := 'created';
        EXCEPTION WHEN check_violation OR invalid_object_definition THEN
            -- The default partition holds rows of this range, or a partition with other bounds overlaps it.
            -- Rows are safe there, and found.
            action := 'blocked';
        END;
        partition_name := r.name;
        RETURN NEXT;
    END LOOP;
    FOR r IN
        SELECT c.relname AS name
          FROM pg_catalog.pg_inherits AS i
          JOIN pg_catalog.pg_class AS c ON c.oid = i.inhrelid
         WHERE i.inhparent = 'picopay.idempotency_key'::regclass
           AND c.relname ~ '^idempotency_key_[0-9]{8}$'
           AND to_date(right(c.relname, 8), 'YYYYMMDD') < v_kept_from
    LOOP
        EXECUTE format('DROP TABLE picopay.%I', r.name);
        action := 'dropped';
        partition_name := r.name;
        RETURN NEXT;
    END LOOP;
    -- Keys that slipped through go when all would have been dropped; looked at again under the lock.
    IF picopay.only_old_keys_slipped_through(v_kept_from) THEN
        LOCK TABLE picopay.idempotency_key_default IN ACCESS EXCLUSIVE MODE;
        IF picopay.only_old_keys_slipped_through(v_kept_from) THEN
            TRUNCATE picopay.idempotency_key_default;
            action := 'dropped';
            partition_name := 'idempotency_key_default';
            RETURN NEXT;
        END IF;
    END IF;
END
$maintain_partitions$;
