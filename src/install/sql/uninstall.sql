-- Takes everything out again. What others built on it stops this, by name; nothing of theirs is dropped.

DO $pgwake$
DECLARE
  item record;
  names text;
BEGIN
  IF NOT EXISTS (SELECT FROM pg_catalog.pg_namespace n WHERE n.nspname = 'pgwake'
                   AND pg_catalog.obj_description(n.oid, 'pg_namespace') LIKE 'pgwake, version %') THEN
    RETURN;
  END IF;
  FOR item IN SELECT e.evtname FROM pg_catalog.pg_event_trigger e
      JOIN pg_catalog.pg_proc p ON p.oid = e.evtfoid WHERE p.pronamespace = 'pgwake'::regnamespace LOOP
    EXECUTE format('DROP EVENT TRIGGER %I', item.evtname);
  END LOOP;
  FOR item IN SELECT t.tgname, t.tgrelid::regclass AS rel FROM pg_catalog.pg_trigger t
      JOIN pg_catalog.pg_proc p ON p.oid = t.tgfoid
      WHERE p.pronamespace = 'pgwake'::regnamespace AND t.tgparentid = 0 AND t.tgname ~ '^~?pgwake_' LOOP
    EXECUTE format('DROP TRIGGER %I ON %s', item.tgname, item.rel);
  END LOOP;
  -- Each kind in one command, so that what depends on each other goes together.
  DROP VIEW IF EXISTS pgwake.live, pgwake.own_trigger;
  SELECT string_agg(p.oid::regprocedure::text, ', ') INTO names FROM pg_catalog.pg_proc p
    WHERE p.pronamespace = 'pgwake'::regnamespace;
  IF names IS NOT NULL THEN EXECUTE 'DROP FUNCTION ' || names; END IF;
  SELECT string_agg(c.oid::regclass::text, ', ') INTO names FROM pg_catalog.pg_class c
    WHERE c.relnamespace = 'pgwake'::regnamespace AND c.relkind = 'r';
  IF names IS NOT NULL THEN EXECUTE 'DROP TABLE ' || names; END IF;
  SELECT string_agg(c.oid::regclass::text, ', ') INTO names FROM pg_catalog.pg_class c
    WHERE c.relnamespace = 'pgwake'::regnamespace AND c.relkind = 'S';
  IF names IS NOT NULL THEN EXECUTE 'DROP SEQUENCE ' || names; END IF;
  DROP SCHEMA pgwake;
END $pgwake$;
