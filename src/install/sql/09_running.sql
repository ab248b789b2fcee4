-- Which DDL commands run now, one within the other, and what became known of each. That lies in settings of
-- the transaction, which go back with a savepoint as the commands do, and which a command that commits in
-- between loses: `pgwake.level` says how many they are, and `pgwake.command_1`, `pgwake.gone_1` and
-- `pgwake.handled_1` are the outermost one's. Until a command ends its triggers use its own alone, however
-- large those of the others are.

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

-- How many commands are noted. A level that was set in another transaction counts as none.
CREATE OR REPLACE FUNCTION pgwake.level() RETURNS int LANGUAGE plpgsql STABLE AS $pgwake$
DECLARE
  level text := current_setting('pgwake.level', true);
BEGIN
  RETURN CASE WHEN split_part(level, ' ', 2) = extract(epoch FROM now())::text
    THEN split_part(level, ' ', 1)::int ELSE 0 END;
END $pgwake$;

CREATE OR REPLACE FUNCTION pgwake.set_level(level int) RETURNS void LANGUAGE plpgsql AS $pgwake$
BEGIN
  PERFORM set_config('pgwake.level',
    CASE WHEN level > 0 THEN level || ' ' || extract(epoch FROM now()) ELSE '' END, true);
END $pgwake$;

-- What is kept of a command.
CREATE OR REPLACE FUNCTION pgwake.kept(what text, level int) RETURNS text LANGUAGE plpgsql STABLE AS $pgwake$
BEGIN
  RETURN nullif(current_setting(format('pgwake.%s_%s', what, level), true), '');
END $pgwake$;

CREATE OR REPLACE FUNCTION pgwake.keep(what text, level int, value text) RETURNS void
  LANGUAGE plpgsql AS $pgwake$
BEGIN
  PERFORM set_config(format('pgwake.%s_%s', what, level), coalesce(value, ''), true);
END $pgwake$;

-- The innermost command, if it is known: `tag`, `tail`, `path`, `user`, `depth`, `in_extension`.
CREATE OR REPLACE FUNCTION pgwake.running() RETURNS jsonb LANGUAGE plpgsql STABLE AS $pgwake$
BEGIN
  RETURN pgwake.kept('command', pgwake.level());
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
DECLARE
  level int := pgwake.level() + 1;
  command jsonb := jsonb_build_object('tag', tag, 'path', path, 'user', current_user,
    'tail', pgwake.tail(context), 'depth', pgwake.ddl_depth(context),
    'in_extension', pgwake.is_in_extension());
BEGIN
  PERFORM pgwake.set_level(level), pgwake.keep('command', level, command::text),
    pgwake.keep('gone', level, ''), pgwake.keep('handled', level, '');
END $pgwake$;

-- Keeps elements of an array for the event at the end of the command. A command that has committed in between
-- is noted anew, without its tag.
CREATE OR REPLACE FUNCTION pgwake.remember_gone(more jsonb) RETURNS void LANGUAGE plpgsql AS $pgwake$
DECLARE
  level int := greatest(pgwake.level(), 1);
BEGIN
  IF pgwake.level() = 0 THEN
    PERFORM pgwake.set_level(1), pgwake.keep('command', 1, ''), pgwake.keep('gone', 1, ''),
      pgwake.keep('handled', 1, '');
  END IF;
  PERFORM pgwake.keep('gone', level, concat_ws(',', pgwake.kept('gone', level),
    substr(more::text, 2, length(more::text) - 2)));
END $pgwake$;

-- The command that ends, and what was kept of it. Nothing where it was not noted. Those within it that have
-- not ended although they are over go with it: somebody has switched a trigger or the role in between.
CREATE OR REPLACE FUNCTION pgwake.pop_command(tag text, context text, OUT command jsonb, OUT gone text,
    OUT handled jsonb) LANGUAGE plpgsql AS $pgwake$
DECLARE
  tail text := pgwake.tail(context);
BEGIN
  FOR level IN REVERSE pgwake.level()..1 LOOP
    command := pgwake.kept('command', level);
    gone := nullif(concat_ws(',', pgwake.kept('gone', level), gone), '');
    IF command IS NULL OR command ->> 'tag' = tag AND command ->> 'tail' = tail THEN
      handled := pgwake.kept('handled', level);
      PERFORM pgwake.set_level(level - 1);
      RETURN;
    END IF;
  END LOOP;
  command := NULL;
  gone := NULL;
END $pgwake$;
