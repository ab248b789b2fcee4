-- What a command is about to drop, while it is still there. The server itself says so: the command runs in a
-- subtransaction, sql_drop lists what went, and all of it is rolled back. Where the text of the command is
-- not known for certain, or does more than drop, nothing is rehearsed, and 13_before_drop.sql sees to that.
--
-- With the extension pgwake_ddl, which does the same in C and needs no text, the list is its own.

-- Whether this is a command of a rehearsal: the contexts of all of its triggers show it. Only a rehearsal
-- sets the setting; what somebody else sets it to means nothing.
CREATE OR REPLACE FUNCTION pgwake.is_rehearsal() RETURNS bool LANGUAGE sql AS $pgwake$
  SELECT CASE WHEN pg_catalog.current_setting('pgwake.rehearsal', true) OPERATOR(pg_catalog.<>) ''
    THEN pg_catalog.strpos(pgwake.context(), ' pgwake.rehearse_drop(text,text) ') OPERATOR(pg_catalog.>) 0
    ELSE false END
$pgwake$;

-- Whether anybody has asked for what this command will drop, or, with the extension, touch; NULL where nobody
-- has asked for anything. Where that cannot be read, it is looked for in vain, and says so.
CREATE OR REPLACE FUNCTION pgwake.asked(tag text) RETURNS bool
  LANGUAGE plpgsql STABLE SECURITY DEFINER AS $pgwake$
DECLARE
  is_drop bool := starts_with(tag, 'DROP ') OR starts_with(tag, 'ALTER ');
BEGIN
  IF EXISTS (SELECT FROM pgwake.drop_handler) THEN
    IF is_drop THEN
      RETURN true;
    END IF;
  ELSIF NOT EXISTS (SELECT FROM pgwake.ddl_watch) THEN
    RETURN NULL;
  END IF;
  RETURN (is_drop OR pgwake.has_extension()) AND EXISTS (SELECT FROM pgwake.ddl_watch w
    WHERE w.phases @> '{before}' AND (w.tags IS NULL OR asked.tag = ANY (w.tags)));
EXCEPTION WHEN OTHERS THEN
  RETURN is_drop;
END $pgwake$;

-- A statement without comments and quoted names, in capitals, each space one.
CREATE OR REPLACE FUNCTION pgwake.words_of(statement text) RETURNS text LANGUAGE plpgsql IMMUTABLE AS $pgwake$
DECLARE
  -- One that has no other in it.
  comment constant text := '/[*]([^*/]|[*](?!/)|/(?![*]))*[*]/';
  words text := regexp_replace(regexp_replace(statement, format('("[^"]*")|--[^%s%s]*|%s', chr(10), chr(13),
    comment), chr(92) || '1 ', 'g'), '("[^"]*" )+', ' _ ', 'g');
BEGIN
  WHILE words ~ comment LOOP
    words := regexp_replace(words, comment, ' ', 'g');
  END LOOP;
  words := regexp_replace(words, '[[:space:]]+', ' ', 'g');
  RETURN upper(btrim(regexp_replace(words, ' ?([.,]) ?', chr(92) || '1', 'g'), ' ;'));
END $pgwake$;

-- Whether a text is this one command, as the server parses it: it opens no cursor of a command that has no
-- result, and says of which.
CREATE OR REPLACE FUNCTION pgwake.is_alone(statement text, tag text) RETURNS bool LANGUAGE plpgsql
    SET client_min_messages = error AS $pgwake$
DECLARE
  length_max constant int := 1000000;
  opened refcursor;
BEGIN
  IF length(statement) <= length_max THEN
    OPEN opened FOR EXECUTE statement;
    CLOSE opened;
  END IF;
  RETURN false;
EXCEPTION WHEN invalid_cursor_definition THEN
  RETURN strpos(SQLERRM, tag) > 0;
WHEN OTHERS THEN
  RETURN false;
END $pgwake$;

-- The DROP that is running, or the ALTER that does nothing but drop: its text and its words. `tail` is the
-- context of the trigger that asks without the line of its own. Refuses where any of it is not certain.
CREATE OR REPLACE FUNCTION pgwake.running_drop(tag text, tail text, OUT statement text, OUT words text)
    LANGUAGE plpgsql AS $pgwake$
DECLARE
  before constant text := 'SQL statement "';
  behind constant text := '"' || chr(10) || 'PL/';
  parts text[];
  candidates text[];
BEGIN
  IF pgwake.is_in_extension() THEN
    RAISE EXCEPTION 'the command runs in the script of an extension, and its text is not known'
      USING ERRCODE = 'feature_not_supported', HINT = 'Drop it before, by a command of its own.';
  ELSIF tail = '' THEN
    candidates := ARRAY(SELECT s FROM current_query() s WHERE pgwake.is_alone(s, tag));
  ELSIF starts_with(tail, before) THEN
    -- What follows may look like the end of the text, and so may what is in it.
    parts := string_to_array(substr(tail, length(before) + 1), behind);
    candidates := ARRAY(SELECT s FROM generate_series(1, cardinality(parts) - 1) n,
      array_to_string(parts[:n], behind) s WHERE pgwake.is_alone(s, tag));
  ELSE
    RAISE EXCEPTION 'the command runs in a function in SQL, and its text is not known'
      USING ERRCODE = 'feature_not_supported', HINT = 'Run it by itself, or in a function in PL/pgSQL. If it '
        'does, the server does not speak English: let lc_messages be C.';
  END IF;
  statement := candidates[1];
  words := pgwake.words_of(statement);
  IF cardinality(candidates) <> 1 THEN
    RAISE EXCEPTION 'the command was not sent by itself: which part of the text runs is not certain'
      USING ERRCODE = 'feature_not_supported', HINT = 'Send each command by itself.';
  ELSIF words NOT LIKE 'DROP %' AND words !~ ('^ALTER (FOREIGN )?(TABLE|TYPE|DOMAIN|VIEW|MATERIALIZED VIEW) '
      '(IF EXISTS )?(ONLY )?[^ ]+( [*])? DROP [^,(]+(,DROP [^,(]+)*$') THEN
    RAISE EXCEPTION 'the command does more than drop'
      USING ERRCODE = 'feature_not_supported', HINT = 'Put what it drops into a command of its own.';
  END IF;
END $pgwake$;

-- Runs the statement and rolls it back: what it dropped. The tables are locked again behind that, as the DROP
-- will: what others commit until then can be read, and nothing comes after it. Errors are those of the
-- statement, or that somebody may drop a table and not lock it. Contexts name it as is_rehearsal() knows it
-- only without quotation marks.
CREATE OR REPLACE FUNCTION pgwake.rehearse_drop(statement text, path text) RETURNS json
    LANGUAGE plpgsql SET quote_all_identifiers = off AS $pgwake$
DECLARE
  list json;
  tables text;
BEGIN
  BEGIN
    PERFORM set_config('client_min_messages', 'error', true),
      set_config('pgwake.rehearsal', statement, true), set_config('search_path', path, true);
    EXECUTE statement;
    RAISE EXCEPTION USING ERRCODE = 'PGWAK', MESSAGE = '[]';
  EXCEPTION WHEN SQLSTATE 'PGWAK' THEN
    list := SQLERRM;
  END;
  SELECT string_agg('ONLY ' || (o ->> 'identity'), ', ') INTO tables FROM json_array_elements(list) o
    WHERE o ->> 'object_type' = 'table' AND NOT (o ->> 'is_temp')::bool;
  IF tables IS NOT NULL THEN
    EXECUTE format('LOCK TABLE %s IN ACCESS EXCLUSIVE MODE', tables);
  END IF;
  RETURN list;
END $pgwake$;

-- What is noted of the running command serves all triggers behind ours.
CREATE OR REPLACE FUNCTION pgwake.ddl_targets(exact bool DEFAULT true) RETURNS SETOF pgwake.ddl_target
  LANGUAGE plpgsql AS $pgwake$
DECLARE
  command jsonb := pgwake.running();
  context text;
  s record;
BEGIN
  IF pgwake.has_extension() THEN
    RETURN QUERY EXECUTE 'SELECT ord, command_tag, role, object_type, schema_name, object_name, column_name,
      identity, "exists", if_exists, behavior, classid, objid, objsubid, relkind, is_temp,
      coalesce($2, depth + 1) FROM pgwake_ddl.targets($1)' USING exact, (command ->> 'depth')::int;
    RETURN;
  END IF;
  context := pgwake.context();
  IF pgwake.is_rehearsal() THEN
    -- What the trigger that asks does here is undone. It will ask again.
    RETURN;
  ELSIF command IS NULL OR right(context, length(command ->> 'tail')) <> command ->> 'tail' THEN
    RAISE EXCEPTION 'pgwake.ddl_targets() knows no command that is about to run'
      USING ERRCODE = 'object_not_in_prerequisite_state',
        HINT = 'Call it in the function of an event trigger on ddl_command_start.';
  ELSIF current_user <> command ->> 'user' THEN
    RAISE EXCEPTION 'pgwake.ddl_targets() runs the command as who calls it, and that is not who has sent it'
      USING ERRCODE = 'insufficient_privilege',
        HINT = 'Make the function that calls it SECURITY INVOKER, or install the extension pgwake_ddl.';
  ELSIF NOT exact OR command ->> 'tag' !~ '^(DROP|ALTER) ' THEN
    RAISE EXCEPTION 'without the extension pgwake_ddl the targets of % are known only of what it drops',
        command ->> 'tag'
      USING ERRCODE = 'feature_not_supported',
        HINT = 'Make the event trigger WHEN TAG IN (''DROP TABLE'', ...), or install the extension.';
  END IF;
  SELECT d.words, pgwake.rehearse_drop(d.statement, command ->> 'path') AS list INTO s
    FROM pgwake.running_drop(command ->> 'tag', command ->> 'tail') d;
  RETURN QUERY SELECT o.n::int, command ->> 'tag', o.role, o.object_type, o.schema_name, o.object_name,
      o.column_name, o.identity, true, s.words LIKE '% IF EXISTS %',
      CASE WHEN s.words ~ ' CASCADE(,|$)' THEN 'cascade' ELSE 'restrict' END,
      o.classid, o.objid, o.objsubid, c.relkind, o.is_temp, (command ->> 'depth')::int
    FROM ROWS FROM (json_to_recordset(s.list) AS (role text, object_type text, schema_name text, object_name
        text, column_name text, identity text, classid oid, objid oid, objsubid int, is_temp bool))
      WITH ORDINALITY o (role, object_type, schema_name, object_name, column_name, identity, classid, objid,
        objsubid, is_temp, n)
      LEFT JOIN pg_class c ON o.classid = 'pg_class'::regclass AND c.oid = o.objid
    ORDER BY o.n;
END $pgwake$;
