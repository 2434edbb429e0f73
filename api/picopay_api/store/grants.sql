-- The role of the API and the worker, and its rights: it owns nothing and cannot change history.
--
-- Run with every migration (decision 0004), so that a role that an administrator makes later gets its
-- rights by the next one. Where the migrating role may not make roles, an administrator makes
-- picopay_app; a role that is not there, or not lent, leaves everything to the owner.
DO $grants$
DECLARE
    r record;
BEGIN
    BEGIN
        IF to_regrole('picopay_app') IS NULL THEN
            CREATE ROLE picopay_app NOLOGIN;
        END IF;
        GRANT picopay_app TO CURRENT_USER;
    EXCEPTION
        WHEN duplicate_object OR unique_violation THEN
            GRANT picopay_app TO CURRENT_USER;  -- made by another migration at the same moment
        WHEN insufficient_privilege THEN
            NULL;
    END;
    IF to_regrole('picopay_app') IS NULL THEN
        RETURN;
    END IF;
    -- What an earlier release gave, or somebody by hand, is not kept.
    REVOKE ALL ON ALL TABLES IN SCHEMA picopay FROM picopay_app;
    GRANT USAGE ON SCHEMA picopay TO picopay_app;
    GRANT SELECT ON ALL TABLES IN SCHEMA picopay TO picopay_app;
    FOR r IN
        SELECT * FROM (VALUES
            ('ledger', 'INSERT'),
            ('api_key', 'INSERT, UPDATE (retires_at, revoked_at)'),
            ('account', 'INSERT, UPDATE (metadata)'),
            ('balance', 'INSERT, UPDATE (state, posted_minor, held_minor, sequence, changed_at)'),
            ('journal', 'INSERT'),
            ('entry', 'INSERT'),
            ('idempotency_key', 'INSERT'),
            ('reference', 'INSERT'),
            ('reversal', 'INSERT'),
            ('metadata_item', 'INSERT, DELETE'),
            ('commit', 'INSERT'),
            ('block', 'INSERT'),
            ('audit', 'INSERT, UPDATE'),
            ('audit_finding', 'INSERT')) AS granted(relation, rights)
    LOOP
        CONTINUE WHEN to_regclass(format('picopay.%I', r.relation)) IS NULL;  -- a later migration's
        EXECUTE format('GRANT %s ON picopay.%I TO picopay_app', r.rights, r.relation);
    END LOOP;
END
$grants$;
