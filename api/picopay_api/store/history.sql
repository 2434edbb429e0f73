-- History is only ever added to: the net under the grants, which give the runtime role no right to
-- change it in the first place. Attached to every table of history by the first migration.
CREATE OR REPLACE FUNCTION picopay.refuse_change() RETURNS trigger
LANGUAGE plpgsql
SET search_path = ''
AS $refuse_change$
BEGIN
    RAISE EXCEPTION 'picopay.% is history: rows are only inserted', TG_TABLE_NAME
        USING ERRCODE = 'PP002';
END
$refuse_change$;
