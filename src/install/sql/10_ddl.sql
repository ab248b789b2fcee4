-- DDL as events, one per command, and triggers kept in step with altered tables. All of it runs inside of
-- other people's DDL: whatever fails here is swallowed.
--
-- ddl_command_end runs for every command, for a drop after sql_drop: there its one event is sent. What
-- sql_drop and table_rewrite learnt before waits in a setting of the transaction.

-- The depth of the command: 1 for what a client sent, more for what functions, triggers and the scripts of
-- extensions run.
CREATE OR REPLACE FUNCTION pgwake.ddl_depth(context text) RETURNS int LANGUAGE sql STABLE
  SET search_path = pg_catalog, pg_temp AS $pgwake$
  SELECT greatest(1, (length(context) - length(replace(context, 'PL/pgSQL function', '')))
    / length('PL/pgSQL function')) + (coalesce(current_setting('pgwake.in_extension', true), '') = 'on')::int
$pgwake$;

CREATE OR REPLACE FUNCTION pgwake.remember_ddl(more jsonb) RETURNS void LANGUAGE sql
  SET search_path = pg_catalog, pg_temp AS $pgwake$
  SELECT set_config('pgwake.ddl',
    (coalesce(nullif(current_setting('pgwake.ddl', true), '')::jsonb, '[]') || more)::text, true)
$pgwake$;

-- Sends an event to whoever asked for it. A notification if it fits; else one that names the outbox row.
-- Before a command nobody knows what it touches, so neither whether that is temporary.
CREATE OR REPLACE FUNCTION pgwake.send_ddl(tag text, targets jsonb, depth int, phase text DEFAULT 'after')
  RETURNS void LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $pgwake$
DECLARE
  is_temp bool := CASE phase WHEN 'after' THEN jsonb_array_length(targets) > 0 END
    AND NOT EXISTS (SELECT FROM jsonb_array_elements(targets) t
      WHERE NOT coalesce((t ->> 'temp')::bool, false));
  is_nested bool := depth > 1
    OR EXISTS (SELECT FROM jsonb_array_elements(targets) t WHERE (t ->> 'in_extension')::bool);
  event text;
  d pgwake.ddl_watch;
BEGIN
  FOR d IN SELECT * FROM pgwake.ddl_watch w WHERE (tag = ANY (w.tags) OR w.tags IS NULL AND tag <> 'login')
      AND (w.temp OR is_temp IS NOT TRUE) AND (w.nested OR NOT is_nested)
      AND (w.before OR phase = 'after') LOOP
    event := jsonb_build_object('phase', phase, 'tag', tag, 'targets', targets, 'depth', depth,
      'temp', is_temp, 'xid', pg_current_xact_id_if_assigned()::text::bigint, 'user', session_user,
      'app', current_setting('application_name'))::text;
    IF octet_length(event) > 7999 THEN
      PERFORM nextval('pgwake.spilled');
      event := jsonb_build_object('phase', phase, 'tag', tag, 'depth', depth, 'temp', is_temp, 'reference',
        pgwake.append(0, 'D', NULL, ARRAY[event]), 'objects', jsonb_array_length(targets))::text;
    END IF;
    PERFORM pgwake.ring(d.channel, event);
  END LOOP;
END $pgwake$;

CREATE OR REPLACE FUNCTION pgwake.on_ddl_end() RETURNS event_trigger LANGUAGE plpgsql SECURITY DEFINER
  SET search_path = pg_catalog, pg_temp AS $pgwake$
DECLARE
  context text;
  targets jsonb;
  dropped jsonb;
BEGIN
  GET DIAGNOSTICS context = PG_CONTEXT;
  SELECT jsonb_agg(DISTINCT jsonb_build_object('role', 'target', 'type', c.object_type,
      'schema', c.schema_name, 'identity', c.object_identity, 'oid', c.objid, 'subid', c.objsubid,
      'temp', c.schema_name LIKE 'pg_temp%', 'exists', true, 'in_extension', c.in_extension)
      || CASE WHEN r.oid IS NULL THEN '{}' ELSE jsonb_build_object('name', r.relname) END)
    INTO targets FROM pg_event_trigger_ddl_commands() c
    LEFT JOIN pg_class r ON c.classid = 'pg_class'::regclass AND r.oid = c.objid;
  dropped := nullif(current_setting('pgwake.ddl', true), '')::jsonb;
  PERFORM set_config('pgwake.ddl', '', true);
  IF tg_tag IN ('CREATE EXTENSION', 'ALTER EXTENSION') THEN
    PERFORM set_config('pgwake.in_extension', '', true);
  END IF;
  IF current_setting('pgwake.following', true) = 'on' THEN
    RETURN;
  END IF;
  targets := coalesce(targets, '[]') || coalesce(dropped, '[]');
  IF jsonb_array_length(targets) > 0 THEN
    PERFORM pgwake.send_ddl(tg_tag, targets, pgwake.ddl_depth(context));
  END IF;
  IF tg_tag LIKE 'ALTER %' OR tg_tag LIKE 'CREATE %TABLE%' OR tg_tag = 'CREATE VIEW'
     OR dropped IS NOT NULL THEN
    PERFORM pgwake.follow_ddl(tg_tag, targets);
  END IF;
EXCEPTION WHEN OTHERS THEN
  RAISE LOG 'pgwake: a DDL event was lost: %', SQLERRM;
END $pgwake$;

-- Watched tables that were altered, attached, inherited from or dropped get the triggers that they need now.
-- Only those are looked at that the command touched: most DDL is about other tables. What a dropped index or
-- trigger was on is not told, unless the command was about its table.
CREATE OR REPLACE FUNCTION pgwake.follow_ddl(tag text, targets jsonb) RETURNS void LANGUAGE plpgsql
  SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $pgwake$
DECLARE
  is_anything bool := tag NOT LIKE '% TABLE' AND EXISTS (SELECT FROM jsonb_array_elements(targets) t
    WHERE NOT (t ->> 'exists')::bool AND t ->> 'type' IN ('index', 'table constraint', 'trigger'));
BEGIN
  IF EXISTS (SELECT FROM pgwake.watched WHERE NOT ended) THEN
    PERFORM pgwake.rebuild(true, CASE WHEN NOT is_anything THEN ARRAY(
      SELECT (t ->> 'oid')::oid FROM jsonb_array_elements(targets) t) END);
  END IF;
END $pgwake$;

CREATE OR REPLACE FUNCTION pgwake.on_sql_drop() RETURNS event_trigger LANGUAGE plpgsql SECURITY DEFINER
  SET search_path = pg_catalog, pg_temp AS $pgwake$
BEGIN
  PERFORM pgwake.remember_ddl(jsonb_agg(jsonb_build_object(
      'role', CASE WHEN o.original THEN 'target' ELSE 'cascade' END, 'type', o.object_type,
      'schema', o.schema_name, 'name', o.object_name,
      'column', CASE WHEN o.objsubid > 0 THEN o.address_names[3] END,
      'identity', o.object_identity, 'oid', o.objid, 'subid', o.objsubid, 'temp', o.is_temporary,
      'exists', false)))
    FROM pg_event_trigger_dropped_objects() o WHERE o.original OR o.normal OR o.object_type = 'table';
EXCEPTION WHEN OTHERS THEN
  RAISE LOG 'pgwake: a DDL event was lost: %', SQLERRM;
END $pgwake$;

CREATE OR REPLACE FUNCTION pgwake.on_table_rewrite() RETURNS event_trigger LANGUAGE plpgsql SECURITY DEFINER
  SET search_path = pg_catalog, pg_temp AS $pgwake$
BEGIN
  PERFORM pgwake.remember_ddl(jsonb_build_array(jsonb_build_object('role', 'rewrite', 'type', 'table',
    'schema', n.nspname, 'name', c.relname, 'identity', c.oid::regclass::text, 'oid', c.oid, 'subid', 0,
    'temp', c.relpersistence = 't', 'reason', pg_event_trigger_table_rewrite_reason())))
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE c.oid = pg_event_trigger_table_rewrite_oid();
EXCEPTION WHEN OTHERS THEN
  RAISE LOG 'pgwake: a DDL event was lost: %', SQLERRM;
END $pgwake$;

-- What is known before a command is its tag. Nobody hears of a command that fails: the notification goes
-- with its transaction. Nothing is written here: DROP INDEX CONCURRENTLY must be the first to write.
CREATE OR REPLACE FUNCTION pgwake.on_ddl_start() RETURNS event_trigger LANGUAGE plpgsql SECURITY DEFINER
  SET search_path = pg_catalog, pg_temp AS $pgwake$
DECLARE
  context text;
BEGIN
  GET DIAGNOSTICS context = PG_CONTEXT;
  PERFORM set_config('pgwake.ddl', '', true);
  IF current_setting('pgwake.following', true) = 'on' THEN
    RETURN;
  END IF;
  PERFORM pgwake.send_ddl(tg_tag, '[]', pgwake.ddl_depth(context), 'before');
  IF tg_tag IN ('CREATE EXTENSION', 'ALTER EXTENSION') THEN
    PERFORM set_config('pgwake.in_extension', 'on', true);
  END IF;
EXCEPTION WHEN OTHERS THEN
  RAISE LOG 'pgwake: a DDL event was lost: %', SQLERRM;
END $pgwake$;

-- Whatever happens, the session begins: a lock that somebody holds on our tables is not waited for, and the
-- commit, which gives a transaction that notifies its number, must not find that there are none left.
CREATE OR REPLACE FUNCTION pgwake.on_login() RETURNS event_trigger LANGUAGE plpgsql SECURITY DEFINER
  SET search_path = pg_catalog, pg_temp SET lock_timeout = '500ms' AS $pgwake$
BEGIN
  IF NOT pg_is_in_recovery() THEN
    PERFORM pg_current_xact_id();
    PERFORM pgwake.send_ddl('login', '[]', 1);
  END IF;
EXCEPTION WHEN OTHERS THEN
  RAISE LOG 'pgwake: a login event was lost: %', SQLERRM;
END $pgwake$;

-- Only a superuser may make event triggers; some managed servers let another role. Where nobody may, the rest
-- works, and pgwake.mode() says so.
CREATE OR REPLACE FUNCTION pgwake.make_event_triggers() RETURNS void LANGUAGE plpgsql
  SET search_path = pg_catalog, pg_temp AS $pgwake$
DECLARE
  kind text[];
BEGIN
  FOREACH kind SLICE 1 IN ARRAY '{{ddl_command_end,on_ddl_end},{sql_drop,on_sql_drop},
      {table_rewrite,on_table_rewrite},{ddl_command_start,on_ddl_start}}'::text[] LOOP
    IF NOT EXISTS (SELECT FROM pg_event_trigger WHERE evtname = 'pgwake_' || kind[1]) THEN
      EXECUTE format('CREATE EVENT TRIGGER %I ON %s EXECUTE FUNCTION pgwake.%s()', 'pgwake_' || kind[1],
        kind[1], kind[2]);
    END IF;
  END LOOP;
EXCEPTION WHEN insufficient_privilege THEN
  RAISE NOTICE 'pgwake: this role may not create event triggers, so there are no DDL events';
END $pgwake$;

CREATE OR REPLACE FUNCTION pgwake.watch_ddl(channel text, tags text[] DEFAULT NULL, temp bool DEFAULT false,
    nested bool DEFAULT false, before bool DEFAULT false) RETURNS void LANGUAGE plpgsql
  SET search_path = pg_catalog, pg_temp AS $pgwake$
BEGIN
  IF octet_length(channel) IS NULL OR octet_length(channel) NOT BETWEEN 1 AND 63 THEN
    RAISE EXCEPTION 'the name of a channel has 1 to 63 bytes' USING ERRCODE = '22023';
  ELSIF pgwake.mode() = 'sql, no event triggers' THEN
    RAISE EXCEPTION 'there are no event triggers of pgwake on this server, so DDL cannot be watched'
      USING ERRCODE = 'object_not_in_prerequisite_state', HINT = 'Let a superuser run pgwake install.';
  ELSIF tags @> '{login}' AND current_setting('server_version_num')::int < 170000 THEN
    RAISE EXCEPTION 'login events need PostgreSQL 17 or later' USING ERRCODE = 'feature_not_supported';
  END IF;
  INSERT INTO pgwake.ddl_watch AS w VALUES (watch_ddl.channel, watch_ddl.tags,
      coalesce(watch_ddl.temp, false), coalesce(watch_ddl.nested, false), coalesce(watch_ddl.before, false))
    ON CONFLICT ON CONSTRAINT ddl_watch_pkey DO UPDATE SET tags = excluded.tags, temp = excluded.temp,
      nested = excluded.nested, before = excluded.before;
  PERFORM pgwake.follow_login();
  PERFORM pgwake.tell_ddl_readers(watch_ddl.channel);
END $pgwake$;

-- Each session pays for a login trigger: there is one only while somebody wants to know.
CREATE OR REPLACE FUNCTION pgwake.follow_login() RETURNS void LANGUAGE plpgsql
  SET search_path = pg_catalog, pg_temp AS $pgwake$
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

CREATE OR REPLACE FUNCTION pgwake.unwatch_ddl(channel text) RETURNS void LANGUAGE plpgsql
  SET search_path = pg_catalog, pg_temp AS $pgwake$
BEGIN
  DELETE FROM pgwake.ddl_watch AS w WHERE w.channel = unwatch_ddl.channel;
  PERFORM pgwake.follow_login();
  PERFORM pgwake.tell_ddl_readers(unwatch_ddl.channel);
END $pgwake$;

-- Readers of the loop hold the advisory lock of class 1885828971 with this key, in share mode: nobody is to
-- give up by mistake what others read.
CREATE OR REPLACE FUNCTION pgwake.ddl_lock(channel text) RETURNS int LANGUAGE sql IMMUTABLE
  SET search_path = pg_catalog, pg_temp AS $pgwake$
  SELECT 1073741824 + (hashtext(channel) & 1073741823)
$pgwake$;

-- The loop's readers look whether they are still told. They do so now and then in any case: a transaction
-- that is to be prepared must not notify. On other channels nothing but events is expected.
CREATE OR REPLACE FUNCTION pgwake.tell_ddl_readers(channel text) RETURNS void LANGUAGE sql
  SET search_path = pg_catalog, pg_temp AS $pgwake$
  SELECT pgwake.ring(channel, 'watched')
    WHERE channel LIKE 'pgwake\_ddl%' AND current_setting('max_prepared_transactions') = '0'
$pgwake$;
