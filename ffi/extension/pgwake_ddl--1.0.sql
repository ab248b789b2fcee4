-- pgwake_ddl 1.0: the function that an event trigger function asks, and the event trigger that lets it
-- answer.
\echo Use "CREATE EXTENSION pgwake_ddl" to load this file. \quit

-- Keeps what command starts, and who sent it with which search_path. Without options of its own, as those of
-- a function hide exactly that.
CREATE FUNCTION pgwake_ddl.on_ddl_start() RETURNS event_trigger
  LANGUAGE c AS 'MODULE_PATHNAME', 'pgwake_ddl_on_ddl_start';

CREATE FUNCTION pgwake_ddl.targets(
    exact boolean DEFAULT true,
    OUT ord integer, OUT command_tag text, OUT role text, OUT object_type text, OUT schema_name text,
    OUT object_name text, OUT column_name text, OUT identity text, OUT "exists" boolean,
    OUT if_exists boolean, OUT behavior text, OUT classid oid, OUT objid oid, OUT objsubid integer,
    OUT relkind "char", OUT is_temp boolean, OUT depth integer)
  RETURNS SETOF record VOLATILE PARALLEL UNSAFE ROWS 10
  LANGUAGE c AS 'MODULE_PATHNAME', 'pgwake_ddl_targets';

COMMENT ON FUNCTION pgwake_ddl.targets(boolean) IS
  'in a ddl_command_start function: the objects that the command will drop, or that it names';

-- Event triggers run in the order of their names. Functions of a trigger that sorts before this one cannot
-- ask for targets.
CREATE EVENT TRIGGER "!pgwake_ddl" ON ddl_command_start EXECUTE FUNCTION pgwake_ddl.on_ddl_start();
ALTER EVENT TRIGGER "!pgwake_ddl" ENABLE ALWAYS;

COMMENT ON EVENT TRIGGER "!pgwake_ddl" IS 'lets pgwake_ddl.targets() know the command: must sort first';

GRANT USAGE ON SCHEMA pgwake_ddl TO PUBLIC;
