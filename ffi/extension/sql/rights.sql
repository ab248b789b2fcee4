-- With whose rights and names the rehearsal runs: those of the command.
SET client_min_messages = warning;
\set SHOW_CONTEXT never
CREATE SCHEMA r;
GRANT USAGE, CREATE ON SCHEMA r TO PUBLIC;
SET ROLE regress_pgwake_owner;
CREATE TABLE r.t (i int);
RESET ROLE;

-- A handler with more rights does not lend them, nor its search_path.
CREATE FUNCTION show.mighty() RETURNS event_trigger LANGUAGE plpgsql SECURITY DEFINER
  SET search_path = pg_catalog AS $$
DECLARE
  target record;
BEGIN
  FOR target IN SELECT * FROM pgwake_ddl.targets() WHERE object_type = 'table' LOOP
    RAISE INFO 'as %: %', current_user = session_user, target.identity;
  END LOOP;
  RAISE INFO 'search_path: %', current_setting('search_path');
END $$;
CREATE EVENT TRIGGER mighty ON ddl_command_start WHEN TAG IN ('DROP TABLE') EXECUTE FUNCTION show.mighty();
SET ROLE regress_pgwake_other;
DROP TABLE r.t;
SET search_path = r;
DROP TABLE t;
DROP TABLE IF EXISTS t, nothing;
ALTER TABLE t DROP COLUMN i;
DROP SCHEMA r CASCADE;
RESET ROLE;
CREATE FUNCTION r.lend() RETURNS void LANGUAGE sql SECURITY DEFINER AS 'DROP TABLE r.t';
SET ROLE regress_pgwake_other;
SELECT r.lend();
SELECT count(*) FROM pg_class WHERE oid = to_regclass('r.t');
RESET ROLE;
RESET search_path;
DROP EVENT TRIGGER mighty;

-- A member of the owning role.
CREATE TABLE r.t (i int);
ALTER TABLE r.t OWNER TO regress_pgwake_owner;
GRANT regress_pgwake_owner TO regress_pgwake_other;
SET ROLE regress_pgwake_other;
DROP TABLE r.t;
RESET ROLE;
REVOKE regress_pgwake_owner FROM regress_pgwake_other;

-- Triggers that fire on a replica can ask, too.
ALTER EVENT TRIGGER show ENABLE REPLICA;
SET session_replication_role = replica;
CREATE TABLE r.t (i int);
DROP TABLE r.t;
RESET session_replication_role;
ALTER EVENT TRIGGER show ENABLE;

-- The list of the rehearsal is not that of the server's own events.
CREATE FUNCTION show.dropped() RETURNS event_trigger LANGUAGE plpgsql AS $$
DECLARE
  dropped record;
BEGIN
  FOR dropped IN SELECT * FROM pg_event_trigger_dropped_objects() LOOP
    RAISE INFO '% %', tg_event, dropped.object_identity;
  END LOOP;
END $$;
CREATE EVENT TRIGGER dropped ON sql_drop EXECUTE FUNCTION show.dropped();
CREATE SEQUENCE r.s;
DROP SEQUENCE r.s;
DROP EVENT TRIGGER dropped;
DROP SCHEMA r CASCADE;

-- Without the event trigger of the extension.
ALTER EVENT TRIGGER "!pgwake_ddl" DISABLE;
CREATE TABLE public.t (i int);
ALTER EVENT TRIGGER "!pgwake_ddl" ENABLE ALWAYS;

DROP EVENT TRIGGER show;
DROP SCHEMA show CASCADE;
DROP EXTENSION pgwake_ddl;
DROP SCHEMA pgwake_ddl;
DROP ROLE regress_pgwake_owner;
DROP ROLE regress_pgwake_other;
