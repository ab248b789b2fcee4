-- Takes everything out again. What others built on it stops this, by name; nothing of theirs is dropped.

DO $pgwake$
DECLARE
  item record;
BEGIN
  IF NOT EXISTS (SELECT FROM pg_catalog.pg_namespace n WHERE n.nspname = 'pgwake'
                   AND pg_catalog.obj_description(n.oid, 'pg_namespace') LIKE 'pgwake, version %') THEN
    RETURN;
  END IF;
  FOR item IN SELECT e.evtname FROM pg_catalog.pg_event_trigger e
      JOIN pg_catalog.pg_proc p ON p.oid = e.evtfoid WHERE p.pronamespace = 'pgwake'::regnamespace LOOP
    EXECUTE format('DROP EVENT TRIGGER %I', item.evtname);
  END LOOP;
  -- In the order in which a writer locks them: first the table, then the outbox.
  FOR item IN SELECT t.tgname, t.tgrelid::regclass AS rel FROM pg_catalog.pg_trigger t
      JOIN pg_catalog.pg_proc p ON p.oid = t.tgfoid JOIN pg_catalog.pg_class c ON c.oid = t.tgrelid
      WHERE p.pronamespace = 'pgwake'::regnamespace AND t.tgparentid = 0 AND t.tgname ~ '^~?pgwake_'
      ORDER BY c.relnamespace = 'pgwake'::regnamespace, c.oid LOOP
    EXECUTE format('DROP TRIGGER %I ON %s', item.tgname, item.rel);
  END LOOP;
  -- Each kind in one command, so that what depends on each other goes together.
  FOR item IN SELECT k.kind, string_agg(o.name, ', ') AS names
      FROM (VALUES (1, 'VIEW', 'v'), (2, 'FUNCTION', 'f'), (3, 'TABLE', 'r'), (4, 'SEQUENCE', 'S'),
        (5, 'TYPE', 'c'))
        k (i, kind, c)
      JOIN (SELECT relkind::text, oid::regclass::text, relnamespace FROM pg_catalog.pg_class
        UNION ALL SELECT 'f', oid::regprocedure::text, pronamespace FROM pg_catalog.pg_proc)
        o (c, name, schema) USING (c) WHERE o.schema = 'pgwake'::regnamespace
        GROUP BY k.i, k.kind ORDER BY k.i LOOP
    EXECUTE format('DROP %s IF EXISTS %s', item.kind, item.names);
  END LOOP;
  -- The server leaves the schema that it has made for an extension.
  IF EXISTS (SELECT FROM pg_catalog.pg_extension WHERE extname = 'pgwake_ddl') THEN
    DROP EXTENSION pgwake_ddl;
    DROP SCHEMA IF EXISTS pgwake_ddl;
  END IF;
  DROP SCHEMA pgwake;
END $pgwake$;
