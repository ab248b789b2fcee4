-- Takes from PUBLIC what it got by default, and makes the triggers of watched tables as they should be.

REVOKE ALL ON ALL FUNCTIONS IN SCHEMA pgwake FROM PUBLIC;
REVOKE ALL ON ALL TABLES IN SCHEMA pgwake FROM PUBLIC;
REVOKE ALL ON ALL SEQUENCES IN SCHEMA pgwake FROM PUBLIC;

-- Whoever runs DDL calls these, and nothing in them is more than that role may do anyway.
GRANT USAGE ON SCHEMA pgwake TO PUBLIC;
GRANT EXECUTE ON FUNCTION pgwake.ddl_targets, pgwake.mode, pgwake.has_extension, pgwake.context, pgwake.level,
  pgwake.set_level, pgwake.kept, pgwake.keep, pgwake.running, pgwake.is_in_extension, pgwake.ddl_depth,
  pgwake.tail, pgwake.push_command, pgwake.is_rehearsal, pgwake.asked, pgwake.before_command,
  pgwake.command_begins, pgwake.words_of, pgwake.is_alone, pgwake.running_drop, pgwake.rehearse_drop,
  pgwake.run_handlers, pgwake.due_calls TO PUBLIC;

-- Every function has a search_path of its own, but for those that are called for each statement, or become a
-- part of the query that calls them: in them each name is qualified, and generated ones see to it themselves
-- (03_generate.sql).
DO $pgwake$
DECLARE
  function regprocedure;
BEGIN
  FOR function IN SELECT p.oid FROM pg_catalog.pg_proc p WHERE p.pronamespace = 'pgwake'::regnamespace
      AND p.proname NOT IN ('wake', 'may_be_prepared', 'change_json', 'on_ddl_start', 'remove_before_drop',
        'is_due', 'is_rehearsal', 'has_extension') AND p.proname !~ '^change_[0-9]+_' LOOP
    EXECUTE format('ALTER FUNCTION %s SET search_path = pg_catalog, pg_temp', function);
  END LOOP;
END $pgwake$;

SELECT pgwake.rebuild();

-- Event triggers are made by who installs, if that is a superuser; all else is of the owner (01_schema.sql).
SELECT pg_catalog.set_config('role', pg_catalog.current_setting('pgwake.installer'), true);
SELECT pgwake.make_event_triggers();

-- The extension that does in C what 12_targets.sql does in SQL, where a superuser finds it on the server.
DO $pgwake$
BEGIN
  IF EXISTS (SELECT FROM pg_catalog.pg_available_extensions WHERE name = 'pgwake_ddl')
     AND (SELECT rolsuper FROM pg_catalog.pg_roles WHERE rolname = current_user) THEN
    CREATE EXTENSION IF NOT EXISTS pgwake_ddl;
    ALTER EXTENSION pgwake_ddl UPDATE;
  END IF;
END $pgwake$;
