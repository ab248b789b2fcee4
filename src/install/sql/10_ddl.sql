-- DDL as events, one per command, and triggers kept in step with altered tables. All of it runs inside of
-- other people's DDL: whatever fails here is swallowed, and what costs depends on the objects of the command
-- alone. Under enable_nestloop = off and the like the server compiles the smallest query (jit), which takes a
-- hundred times as long: each of our event triggers sets that off.
--
-- ddl_command_end runs for every command, for a drop after sql_drop: there its one event is sent. What
-- sql_drop and table_rewrite learnt before is kept with the command, if anybody asks for its event.

-- Whether anybody has asked for the event of such a command. Where nobody has asked for any it is not called:
-- most commands are of that kind.
CREATE OR REPLACE FUNCTION pgwake.is_wanted(tag text) RETURNS bool LANGUAGE plpgsql STABLE AS $pgwake$
BEGIN
  RETURN EXISTS (SELECT FROM pgwake.ddl_watch w
    WHERE 'after' = ANY (w.phases) AND (w.tags IS NULL OR is_wanted.tag = ANY (w.tags)));
END $pgwake$;

-- Sends an event to those who asked for it. A notification if it fits; else one that names the outbox row.
-- Whether what it touches is temporary is not known where nobody knows what it touches.
CREATE OR REPLACE FUNCTION pgwake.send_ddl(tag text, targets jsonb, depth int, phase text DEFAULT 'after')
    RETURNS void LANGUAGE plpgsql SECURITY DEFINER AS $pgwake$
DECLARE
  is_temp bool := CASE WHEN phase = 'after' OR targets <> '[]' THEN jsonb_array_length(targets) > 0 END
    AND NOT EXISTS (SELECT FROM jsonb_array_elements(targets) t
      WHERE NOT coalesce((t ->> 'temp')::bool, false));
  is_nested bool := depth > 1
    OR EXISTS (SELECT FROM jsonb_array_elements(targets) t WHERE (t ->> 'in_extension')::bool);
  event text;
  d pgwake.ddl_watch;
BEGIN
  FOR d IN SELECT * FROM pgwake.ddl_watch w WHERE (tag = ANY (w.tags) OR w.tags IS NULL AND tag <> 'login')
      AND (w.temp OR is_temp IS NOT TRUE) AND (w.nested OR NOT is_nested)
      AND phase = ANY (w.phases) LOOP
    -- After the command it has a number, for equal notifications of a transaction would become one. There is
    -- one login in each, which may be read-only and take no number.
    event := (CASE WHEN phase = 'after' AND tag <> 'login'
        THEN jsonb_build_object('id', nextval('pgwake.outbox_id')) ELSE '{}' END
      || jsonb_build_object('phase', phase, 'tag', tag, 'targets', targets, 'depth', depth, 'temp', is_temp,
        'xid', pg_current_xact_id_if_assigned()::text::bigint, 'user', session_user,
        'app', current_setting('application_name')))::text;
    IF octet_length(event) > 7999 THEN
      PERFORM nextval('pgwake.spilled');
      event := jsonb_build_object('phase', phase, 'tag', tag, 'depth', depth, 'temp', is_temp, 'reference',
        pgwake.append(NULL, NULL, 'spilled', format('[%s]', event)),
        'objects', jsonb_array_length(targets))::text;
    END IF;
    PERFORM pgwake.notify(d.channel, event);
  END LOOP;
END $pgwake$;

-- Watched tables that were altered, attached or inherited from get the triggers that they need now: those of
-- the command, their ancestors, and those whose triggers they still have. What an extension's script makes
-- would belong to the extension: there it waits for the end of the script. A lock is not waited for long:
-- rebuild() gets it later, and check() says so.
CREATE OR REPLACE FUNCTION pgwake.follow(rels oid[], is_in_extension bool) RETURNS void
  LANGUAGE plpgsql SET lock_timeout = '500ms' AS $pgwake$
DECLARE
  waiting oid[] := coalesce(nullif(current_setting('pgwake.to_follow', true), ''), '{}')::oid[];
  watches int[];
BEGIN
  IF is_in_extension THEN
    PERFORM set_config('pgwake.to_follow', (waiting || rels)::text, true);
    RETURN;
  END IF;
  WITH RECURSIVE above AS (
    SELECT unnest(waiting || rels) AS rel
    UNION SELECT i.inhparent FROM above a JOIN pg_inherits i ON i.inhrelid = a.rel
  )
  SELECT array_agg(w.id) INTO watches FROM pgwake.watched w WHERE NOT w.ended
    AND (w.relid IN (SELECT rel FROM above)
      OR w.id IN (SELECT o.watch FROM pgwake.own_trigger o WHERE o.rel IN (SELECT rel FROM above)));
  PERFORM set_config('pgwake.to_follow', '', true);
  IF watches IS NOT NULL THEN
    PERFORM pgwake.rebuild(watches);
  END IF;
END $pgwake$;

-- What there is to do after a command: whatever fails of it is nobody's trouble.
CREATE OR REPLACE FUNCTION pgwake.follow_command(tag text, depth int, gone text) RETURNS void
  LANGUAGE plpgsql AS $pgwake$
DECLARE
  rels oid[];
  is_in_extension bool;
  targets jsonb;
BEGIN
  IF current_setting('pgwake.following', true) = 'on' THEN
    RETURN;
  END IF;
  IF EXISTS (SELECT FROM pgwake.ddl_watch) AND pgwake.is_wanted(tag) THEN
    SELECT jsonb_agg(DISTINCT jsonb_build_object('role', 'target', 'type', c.object_type,
        'schema', c.schema_name, 'identity', c.object_identity, 'oid', c.objid, 'subid', c.objsubid,
        'temp', c.schema_name LIKE 'pg_temp%', 'exists', true, 'in_extension', c.in_extension)
        || CASE WHEN r.oid IS NULL THEN '{}' ELSE jsonb_build_object('name', r.relname) END)
      INTO targets FROM pg_event_trigger_ddl_commands() c
      LEFT JOIN pg_class r ON c.classid = 'pg_class'::regclass AND r.oid = c.objid;
    targets := coalesce(targets, '[]') || format('[%s]', gone)::jsonb;
    IF targets <> '[]' THEN
      PERFORM pgwake.send_ddl(tag, targets, coalesce(depth, pgwake.ddl_depth(pgwake.context())));
    END IF;
  END IF;
  IF tag LIKE 'ALTER %' OR tag = ANY ('{CREATE TABLE,CREATE FOREIGN TABLE,CREATE VIEW,CREATE SCHEMA,
      CREATE EXTENSION}') THEN
    SELECT array_agg(objid), bool_or(in_extension) INTO rels, is_in_extension
      FROM pg_event_trigger_ddl_commands()
      WHERE classid = 'pg_class'::regclass AND schema_name <> 'pg_temp' OR tag LIKE '% EXTENSION';
    IF rels IS NOT NULL THEN
      PERFORM pgwake.follow(rels, is_in_extension);
    END IF;
  END IF;
EXCEPTION WHEN OTHERS THEN
  RAISE LOG 'pgwake: a DDL event was lost: %', SQLERRM;
END $pgwake$;

CREATE OR REPLACE FUNCTION pgwake.on_ddl_end() RETURNS event_trigger
  LANGUAGE plpgsql SECURITY DEFINER SET jit = off AS $pgwake$
DECLARE
  context text;
  command jsonb;
  gone text;
  handled jsonb;
BEGIN
  IF pgwake.is_rehearsal() THEN
    RETURN;
  ELSIF coalesce(current_setting('pgwake.level', true), '') <> '' THEN
    context := pgwake.context();
    SELECT p.* INTO command, gone, handled FROM pgwake.pop_command(tg_tag, context) p;
    PERFORM pgwake.end_handled(handled);
  END IF;
  PERFORM pgwake.follow_command(tg_tag, (command ->> 'depth')::int, gone);
END $pgwake$;

-- A watch ends with its table. One whose key's index, or whose trigger, was dropped by itself gets new
-- triggers.
CREATE OR REPLACE FUNCTION pgwake.on_sql_drop() RETURNS event_trigger
  LANGUAGE plpgsql SECURITY DEFINER SET jit = off AS $pgwake$
DECLARE
  is_dropped bool;
  rels oid[];
BEGIN
  IF current_setting('pgwake.following', true) = 'on' THEN
    RETURN;
  END IF;
  SELECT bool_or(w.relid = o.objid AND o.objsubid = 0), array_agg(w.relid) INTO is_dropped, rels
    FROM pg_event_trigger_dropped_objects() o JOIN pgwake.watched w ON NOT w.ended AND NOT o.is_temporary
      AND CASE o.object_type WHEN 'index' THEN o.objid = w.key_index
        WHEN 'trigger' THEN o.object_identity ~ format('^"?~?pgwake_%s_', w.id)
        ELSE o.classid = 'pg_class'::regclass AND o.objid = w.relid END;
  IF is_dropped THEN
    PERFORM pgwake.end_dropped();
  ELSIF rels IS NOT NULL THEN
    PERFORM pgwake.follow(rels, pgwake.is_in_extension());
  END IF;
  IF EXISTS (SELECT FROM pgwake.ddl_watch) AND pgwake.is_wanted(tg_tag) THEN
    PERFORM pgwake.remember_gone(jsonb_agg(jsonb_build_object(
        'role', CASE WHEN o.original THEN 'target' ELSE 'cascade' END, 'type', o.object_type,
        'schema', o.schema_name, 'name', o.object_name,
        'column', CASE WHEN o.objsubid > 0 THEN o.address_names[3] END,
        'identity', o.object_identity, 'oid', o.objid, 'subid', o.objsubid, 'temp', o.is_temporary,
        'exists', false)))
      FROM pg_event_trigger_dropped_objects() o WHERE o.original OR o.normal OR o.object_type = 'table';
  END IF;
EXCEPTION WHEN OTHERS THEN
  RAISE LOG 'pgwake: a DDL event was lost: %', SQLERRM;
END $pgwake$;

CREATE OR REPLACE FUNCTION pgwake.on_table_rewrite() RETURNS event_trigger
  LANGUAGE plpgsql SECURITY DEFINER SET jit = off AS $pgwake$
BEGIN
  IF NOT pgwake.is_wanted(tg_tag) THEN
    RETURN;
  END IF;
  PERFORM pgwake.remember_gone(jsonb_build_array(jsonb_build_object('role', 'rewrite', 'type', 'table',
    'schema', n.nspname, 'name', c.relname, 'identity', c.oid::regclass::text, 'oid', c.oid, 'subid', 0,
    'temp', c.relpersistence = 't', 'reason', pg_event_trigger_table_rewrite_reason())))
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE c.oid = pg_event_trigger_table_rewrite_oid();
EXCEPTION WHEN OTHERS THEN
  RAISE LOG 'pgwake: a DDL event was lost: %', SQLERRM;
END $pgwake$;

-- As events have them: what the command names, tables, and what depends on something of that by itself, not
-- as a part of it. A view does so by its rule, which is a part of the view.
CREATE OR REPLACE FUNCTION pgwake.targets_told(targets pgwake.ddl_target[]) RETURNS jsonb
  LANGUAGE sql STABLE AS $pgwake$
  WITH listed AS MATERIALIZED (
    SELECT * FROM unnest(targets)
  ), dependent AS MATERIALIZED (
    SELECT d.classid, d.objid FROM listed t
      JOIN pg_depend d ON d.refclassid = t.classid AND d.refobjid = t.objid AND d.deptype = 'n'
  )
  SELECT coalesce(jsonb_agg(jsonb_build_object('role', t.role, 'type', t.object_type, 'schema', t.schema_name,
      'name', t.object_name, 'column', t.column_name, 'identity', t.identity, 'oid', t.objid,
      'subid', t.objsubid, 'temp', t.is_temp, 'exists', t."exists") ORDER BY t.ord), '[]')
  FROM listed t WHERE t.role = 'target' OR t.object_type = 'table' OR (t.classid, t.objid) IN (
    SELECT * FROM dependent UNION SELECT p.refclassid, p.refobjid FROM dependent d
      JOIN pg_depend p ON p.classid = d.classid AND p.objid = d.objid AND p.deptype = 'i')
$pgwake$;

-- A command begins, and these are its targets, if anybody wants to know them and they are known: otherwise
-- `why` says why not. Nobody hears of a command that fails: the notification goes with its transaction.
-- Nothing is written here: DROP INDEX CONCURRENTLY must be the first to write.
CREATE OR REPLACE FUNCTION pgwake.command_begins(tag text, targets pgwake.ddl_target[], why text, hint text)
    RETURNS void LANGUAGE plpgsql SECURITY DEFINER AS $pgwake$
BEGIN
  BEGIN
    IF EXISTS (SELECT FROM pgwake.ddl_watch)
       AND current_setting('pgwake.following', true) IS DISTINCT FROM 'on' THEN
      PERFORM pgwake.send_ddl(tag, pgwake.targets_told(targets), (pgwake.running() ->> 'depth')::int,
        'before');
    END IF;
  EXCEPTION WHEN OTHERS THEN
    RAISE LOG 'pgwake: a DDL event was lost: %', SQLERRM;
  END;
  IF EXISTS (SELECT FROM pgwake.drop_handler) THEN
    PERFORM pgwake.note_handled(tag, targets, why, hint);
  END IF;
END $pgwake$;

-- Looks for the targets of a command, and calls the handlers that are due, as who sends it. What fails here
-- is left to the command itself: it fails in the same way, with the server's own words; and if it does not,
-- on_dropped() sees what was missed.
CREATE OR REPLACE FUNCTION pgwake.before_command(tag text, are_wanted bool) RETURNS void
  LANGUAGE plpgsql AS $pgwake$
DECLARE
  targets pgwake.ddl_target[] := '{}';
  why text := 'the command was not rehearsed';
  hint text;
BEGIN
  IF are_wanted THEN
    BEGIN
      targets := ARRAY(SELECT t FROM pgwake.ddl_targets() t);
      why := NULL;
    EXCEPTION WHEN statement_too_complex THEN
      RAISE;  -- A trigger that calls itself would do so again at each level.
    WHEN OTHERS THEN
      GET STACKED DIAGNOSTICS why = MESSAGE_TEXT, hint = PG_EXCEPTION_HINT;
    END;
    PERFORM pgwake.run_handlers(targets);
  END IF;
  PERFORM pgwake.command_begins(tag, targets, why, hint);
END $pgwake$;

-- The only trigger of ours that has the rights and the search_path of who sends the command: it needs them.
-- It sorts before those of others, who may ask for the targets: for them, too, the command is noted. Each
-- name in it is qualified, also of types: another "bool" would run functions as who sends the command.
CREATE OR REPLACE FUNCTION pgwake.on_ddl_start() RETURNS event_trigger
  LANGUAGE plpgsql SET jit = off AS $pgwake$
DECLARE
  asked pg_catalog.bool;
  context pg_catalog.text;
BEGIN
  -- Somebody may have taken from PUBLIC what this needs, which check() says. Only what may drop something
  -- fails for that, because there may be a handler for it.
  BEGIN
    asked := pgwake.asked(tg_tag);
  EXCEPTION WHEN insufficient_privilege THEN
    IF pg_catalog.starts_with(tg_tag, 'DROP ') OR pg_catalog.starts_with(tg_tag, 'ALTER ') THEN
      RAISE insufficient_privilege USING MESSAGE = SQLERRM, HINT = 'What is dropped may have a handler, and '
        'rights on the schema pgwake were taken from PUBLIC: let its owner run pgwake install.';
    END IF;
    RETURN;
  END;
  IF asked IS NOT NULL OR tg_tag OPERATOR(pg_catalog.=) 'CREATE EXTENSION'
      OR tg_tag OPERATOR(pg_catalog.=) 'ALTER EXTENSION' OR EXISTS (SELECT FROM pg_catalog.pg_event_trigger
      WHERE evtevent OPERATOR(pg_catalog.=) 'ddl_command_start'
      AND evtname OPERATOR(pg_catalog.<>) '!pgwake_ddl_command_start'
      AND evtname OPERATOR(pg_catalog.<>) '!pgwake_ddl' AND evtenabled OPERATOR(pg_catalog.<>) 'D'
      AND (evttags IS NULL OR tg_tag OPERATOR(pg_catalog.=) ANY (evttags))) THEN
    IF pgwake.is_rehearsal() THEN
      RETURN;
    END IF;
    -- A PERFORM would be a part of it.
    context := pgwake.context();
    PERFORM pgwake.push_command(tg_tag, context, pg_catalog.current_setting('search_path')),
      CASE WHEN asked IS NOT NULL THEN pgwake.before_command(tg_tag, asked) END;
  END IF;
END $pgwake$;

-- Whatever happens, the session begins: a lock that somebody holds on our tables is not waited for, and the
-- commit, which gives a transaction that notifies its number, must not find that there are none left.
CREATE OR REPLACE FUNCTION pgwake.on_login() RETURNS event_trigger
  LANGUAGE plpgsql SECURITY DEFINER SET lock_timeout = '500ms' SET jit = off AS $pgwake$
BEGIN
  IF NOT pg_is_in_recovery() THEN
    PERFORM pg_current_xact_id();
    PERFORM pgwake.send_ddl('login', '[]', 1);
  END IF;
EXCEPTION WHEN OTHERS THEN
  RAISE LOG 'pgwake: a login event was lost: %', SQLERRM;
END $pgwake$;

-- Only a superuser may make event triggers; some managed servers let another role. Where nobody may, the rest
-- works, and pgwake.mode() says so. Those of one event fire in the order of their names.
CREATE OR REPLACE FUNCTION pgwake.event_triggers() RETURNS TABLE (name text, event text, function text)
  LANGUAGE sql IMMUTABLE AS $pgwake$
  VALUES ('!pgwake_ddl_command_start', 'ddl_command_start', 'on_ddl_start'),
    ('!pgwake_dropped', 'sql_drop', 'on_dropped'), ('pgwake_sql_drop', 'sql_drop', 'on_sql_drop'),
    ('pgwake_table_rewrite', 'table_rewrite', 'on_table_rewrite'),
    ('pgwake_ddl_command_end', 'ddl_command_end', 'on_ddl_end')
$pgwake$;

CREATE OR REPLACE FUNCTION pgwake.make_event_triggers() RETURNS void LANGUAGE plpgsql AS $pgwake$
DECLARE
  t record;
BEGIN
  FOR t IN SELECT * FROM pgwake.event_triggers() e
      WHERE NOT EXISTS (SELECT FROM pg_event_trigger WHERE evtname = e.name) LOOP
    EXECUTE format('CREATE EVENT TRIGGER %I ON %I EXECUTE FUNCTION pgwake.%I()', t.name, t.event, t.function);
  END LOOP;
EXCEPTION WHEN insufficient_privilege THEN
  RAISE NOTICE 'pgwake: this role may not create event triggers, so there are no DDL events';
END $pgwake$;

CREATE OR REPLACE FUNCTION pgwake.watch_ddl(channel text, tags text[] DEFAULT NULL, temp bool DEFAULT false,
    nested bool DEFAULT false, phases text[] DEFAULT '{after}') RETURNS void LANGUAGE plpgsql AS $pgwake$
BEGIN
  IF phases IS NULL OR phases = '{}' OR NOT phases <@ '{before,after}' THEN
    RAISE EXCEPTION 'phases holds before, after; not %', phases USING ERRCODE = '22023';
  ELSIF octet_length(channel) IS NULL OR octet_length(channel) NOT BETWEEN 1 AND 63 THEN
    RAISE EXCEPTION 'the name of a channel has 1 to 63 bytes' USING ERRCODE = '22023';
  ELSIF pgwake.mode() = 'sql, no event triggers' THEN
    RAISE EXCEPTION 'there are no event triggers of pgwake on this server, so DDL cannot be watched'
      USING ERRCODE = 'object_not_in_prerequisite_state', HINT = 'Let a superuser run pgwake install.';
  ELSIF tags @> '{login}' AND current_setting('server_version_num')::int < 170000 THEN
    RAISE EXCEPTION 'login events need PostgreSQL 17 or later' USING ERRCODE = 'feature_not_supported';
  END IF;
  INSERT INTO pgwake.ddl_watch AS w VALUES (watch_ddl.channel, watch_ddl.tags,
      coalesce(watch_ddl.temp, false), coalesce(watch_ddl.nested, false), watch_ddl.phases)
    ON CONFLICT ON CONSTRAINT ddl_watch_pkey DO UPDATE SET tags = excluded.tags, temp = excluded.temp,
      nested = excluded.nested, phases = excluded.phases;
  PERFORM pgwake.follow_login(), pgwake.wake_readers(watch_ddl.channel);
END $pgwake$;

-- Each session pays for a login trigger: there is one only while somebody wants to know.
CREATE OR REPLACE FUNCTION pgwake.follow_login() RETURNS void LANGUAGE plpgsql AS $pgwake$
DECLARE
  is_wanted bool := EXISTS (SELECT FROM pgwake.ddl_watch w WHERE w.tags @> '{login}');
  is_there bool := EXISTS (SELECT FROM pg_event_trigger WHERE evtname = 'pgwake_login');
BEGIN
  IF is_wanted AND NOT is_there THEN
    CREATE EVENT TRIGGER pgwake_login ON login EXECUTE FUNCTION pgwake.on_login();
  ELSIF is_there AND NOT is_wanted THEN
    DROP EVENT TRIGGER pgwake_login;
  END IF;
END $pgwake$;

CREATE OR REPLACE FUNCTION pgwake.unwatch_ddl(channel text) RETURNS void LANGUAGE plpgsql AS $pgwake$
BEGIN
  DELETE FROM pgwake.ddl_watch AS w WHERE w.channel = unwatch_ddl.channel;
  PERFORM pgwake.follow_login(), pgwake.wake_readers(unwatch_ddl.channel);
END $pgwake$;

-- Readers of the loop hold the advisory lock of class 1885828971 with this key, in share mode: nobody is to
-- give up by mistake what others read.
CREATE OR REPLACE FUNCTION pgwake.ddl_lock(channel text) RETURNS int LANGUAGE sql IMMUTABLE AS $pgwake$
  SELECT 1073741824 + (hashtext(channel) & 1073741823)
$pgwake$;
