-- What the other files share: a handler that shows the targets of each command.
SET client_min_messages = warning;
CREATE EXTENSION pgwake_ddl;
CREATE ROLE regress_pgwake_owner;
CREATE ROLE regress_pgwake_other;
CREATE SCHEMA show;
GRANT USAGE ON SCHEMA show TO PUBLIC;
GRANT CREATE, USAGE ON SCHEMA public TO PUBLIC;

-- Without what differs from one version to the next: numbers in names, and NOT NULL as a constraint.
CREATE FUNCTION show.show() RETURNS event_trigger LANGUAGE plpgsql SET search_path = pg_catalog AS $$
DECLARE
  target record;
BEGIN
  FOR target IN
    SELECT * FROM pgwake_ddl.targets(current_setting('show.exact', true) IS DISTINCT FROM 'off')
    WHERE schema_name IS DISTINCT FROM 'pg_toast' AND object_type <> 'toast table'
      AND identity !~ '_not_null on '
    ORDER BY ord
  LOOP
    RAISE INFO '% %: % % %', repeat('  ', target.depth) || target.command_tag,
      coalesce(target.behavior, 'names') || CASE WHEN target.if_exists THEN ' if exists' ELSE '' END,
      target.role, target.object_type,
      regexp_replace(target.identity, '[0-9]{4,}', 'N') ||
        CASE WHEN target."exists" THEN '' ELSE ' (does not exist)' END;
  END LOOP;
END $$;
CREATE EVENT TRIGGER show ON ddl_command_start EXECUTE FUNCTION show.show();
