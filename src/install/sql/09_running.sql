-- Which DDL commands run now, one within the other, and what became known of each: kept in a setting of the
-- transaction, which goes back with a savepoint, as the commands do.

-- In which functions and statements the caller runs: in English, if the server speaks it or lets our owner, a
-- superuser, ask it to.
CREATE OR REPLACE FUNCTION pgwake.context() RETURNS text LANGUAGE plpgsql SECURITY DEFINER AS $pgwake$
DECLARE
  context text;
  spoken text := current_setting('lc_messages');
BEGIN
  GET DIAGNOSTICS context = PG_CONTEXT;
  IF NOT starts_with(context, 'PL/pgSQL function ')
     AND (SELECT rolsuper FROM pg_roles WHERE rolname = current_user) THEN
    PERFORM set_config('lc_messages', 'C', true);
    GET DIAGNOSTICS context = PG_CONTEXT;
    PERFORM set_config('lc_messages', spoken, true);
  END IF;
  RETURN substr(context, strpos(context, chr(10)) + 1);
END $pgwake$;

-- The innermost command; those around it lie below.
CREATE OR REPLACE FUNCTION pgwake.running() RETURNS jsonb LANGUAGE plpgsql STABLE AS $pgwake$
BEGIN
  RETURN nullif(current_setting('pgwake.running', true), '');
END $pgwake$;

-- Whether the script of an extension runs.
CREATE OR REPLACE FUNCTION pgwake.is_in_extension() RETURNS bool LANGUAGE sql STABLE AS $pgwake$
  SELECT coalesce((c ->> 'in_extension')::bool OR c ->> 'tag' IN ('CREATE EXTENSION', 'ALTER EXTENSION'),
    false) FROM pgwake.running() c
$pgwake$;

-- The depth of the command, by the context of what a trigger of ours runs: 1 for what a client sent, more for
-- what functions, triggers and the scripts of extensions run.
CREATE OR REPLACE FUNCTION pgwake.ddl_depth(context text) RETURNS int LANGUAGE sql STABLE AS $pgwake$
  SELECT 1 + (length(t) - length(replace(t, 'PL/pgSQL function', ''))) / length('PL/pgSQL function')
      + pgwake.is_in_extension()::int
    FROM substr(context, strpos(context, 'on_ddl_')) t
$pgwake$;

-- Where the command runs: without the line of the trigger itself the contexts of all its triggers are one.
CREATE OR REPLACE FUNCTION pgwake.tail(context text) RETURNS text LANGUAGE sql IMMUTABLE AS $pgwake$
  SELECT substr(context, strpos(context || chr(10), chr(10)) + 1)
$pgwake$;

CREATE OR REPLACE FUNCTION pgwake.push_command(tag text, context text, path text) RETURNS void
  LANGUAGE plpgsql AS $pgwake$
BEGIN
  PERFORM set_config('pgwake.running', jsonb_build_object('tag', tag, 'path', path, 'user', current_user,
    'tail', pgwake.tail(context), 'depth', pgwake.ddl_depth(context), 'in_extension',
    pgwake.is_in_extension(), 'level', coalesce((pgwake.running() ->> 'level')::int, 0) + 1, 'below',
    pgwake.running())::text, true);
END $pgwake$;

-- More of what became known of the innermost.
CREATE OR REPLACE FUNCTION pgwake.add_to_command(more jsonb) RETURNS void LANGUAGE sql AS $pgwake$
  SELECT set_config('pgwake.running', (coalesce(pgwake.running(), '{}') || more)::text, true)
$pgwake$;

-- The innermost, if it is the one that ends: not each command is pushed.
CREATE OR REPLACE FUNCTION pgwake.pop_command(tag text, context text) RETURNS jsonb
  LANGUAGE plpgsql AS $pgwake$
DECLARE
  command jsonb := pgwake.running();
BEGIN
  IF command ->> 'tag' <> tag OR command ->> 'tail' <> pgwake.tail(context) THEN
    RETURN NULL;
  END IF;
  PERFORM set_config('pgwake.running', coalesce(nullif(command -> 'below', 'null')::text, ''), true);
  RETURN command;
END $pgwake$;
