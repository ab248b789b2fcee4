-- Handlers: functions of users that run before a drop, once for each object that is about to go.
--
-- Three event triggers see to it. on_before_drop() has the rights and the search_path of who drops: it
-- rehearses the command, and runs the handlers that run with those rights. on_ddl_start() has ours: it runs
-- the SECURITY DEFINER handlers, so that nobody else needs the right to call them, and notes which objects
-- handlers have seen. on_dropped() runs when the objects have gone, and refuses the command if one of them
-- has a handler that has not seen it. So what could not be rehearsed goes on, unless a handler was due.

-- Whether a handler is registered for such an object. A schema counts as in itself.
CREATE OR REPLACE FUNCTION pgwake.is_due(h pgwake.drop_handler, object_type text, schema_name text,
    object_name text) RETURNS bool LANGUAGE sql IMMUTABLE AS $pgwake$
  SELECT object_type OPERATOR(pg_catalog.=) ANY (h.types) AND (h.schemas IS NULL OR
    CASE WHEN object_type OPERATOR(pg_catalog.=) 'schema' THEN object_name ELSE schema_name END
      OPERATOR(pg_catalog.=) ANY (h.schemas))
$pgwake$;

-- What a command names and does not drop has no behavior.
CREATE OR REPLACE FUNCTION pgwake.is_due(h pgwake.drop_handler, t pgwake.ddl_target) RETURNS bool
  LANGUAGE sql IMMUTABLE AS $pgwake$
  SELECT t.behavior IS NOT NULL AND pgwake.is_due(h, t.object_type, t.schema_name, t.object_name)
$pgwake$;

-- Proves that a list of what is dropped was made with our rights, in this transaction: it passes through the
-- hands of who drops, and what a SECURITY DEFINER handler does with it must not be theirs to choose.
INSERT INTO pgwake.setting SELECT 'seal', ('x' || pg_catalog.right(pg_catalog.md5(
    pg_catalog.gen_random_uuid()::text), 16))::bit(64)::bigint
  WHERE NOT EXISTS (SELECT FROM pgwake.setting WHERE name = 'seal');

CREATE OR REPLACE FUNCTION pgwake.seal(list text) RETURNS text LANGUAGE plpgsql STABLE AS $pgwake$
BEGIN
  RETURN encode(sha256(convert_to(concat_ws(' ', pgwake.setting_of('seal'), pg_backend_pid(), now(), list),
    getdatabaseencoding())), 'hex');
END $pgwake$;

-- The extension knows the command, and who runs it, whoever asks.
CREATE OR REPLACE FUNCTION pgwake.sealed_targets(OUT list text, OUT seal text)
  LANGUAGE plpgsql SECURITY DEFINER AS $pgwake$
BEGIN
  IF NOT pgwake.has_extension() THEN
    -- Without it the command would be rehearsed with our rights.
    RAISE EXCEPTION 'only the extension pgwake_ddl knows who runs a command'
      USING ERRCODE = 'insufficient_privilege';
  END IF;
  list := coalesce((SELECT json_agg(t ORDER BY t.ord)::text FROM pgwake.ddl_targets() t), '[]');
  seal := pgwake.seal(list);
END $pgwake$;

-- The calls that are due, of handlers that run with the rights of their owner, or of the others. The rows of
-- their functions are locked: a call goes by the name, and who owns the schema of a function may drop it and
-- make another of that name. Only a superuser can lock them; elsewhere there are no such rights to be gained.
CREATE OR REPLACE FUNCTION pgwake.due_calls(targets pgwake.ddl_target[], as_owner bool) RETURNS TABLE (name
    text, target pgwake.ddl_target) LANGUAGE plpgsql SECURITY DEFINER AS $pgwake$
DECLARE
  may_lock bool := (SELECT rolsuper FROM pg_roles WHERE rolname = current_user);
  h pgwake.drop_handler;
  p pg_proc;
BEGIN
  FOR h IN SELECT * FROM pgwake.drop_handler d
      WHERE EXISTS (SELECT FROM unnest(targets) t WHERE pgwake.is_due(d, t)) ORDER BY d.handler LOOP
    IF may_lock THEN
      PERFORM FROM pg_proc f JOIN pg_namespace n ON n.oid = f.pronamespace
        WHERE f.oid = to_regprocedure(h.handler) FOR SHARE OF f, n;
    END IF;
    SELECT f.* INTO p FROM pg_proc f WHERE f.oid = to_regprocedure(h.handler);
    IF NOT FOUND THEN
      RAISE EXCEPTION 'the function of a handler of pgwake.before_drop is gone, or was renamed: %', h.handler
        USING ERRCODE = 'undefined_function', HINT = format('SELECT pgwake.remove_before_drop(%L), and '
          'register it again if it is there again', h.handler);
    ELSIF NOT pgwake.is_trusted(p) THEN
      RAISE EXCEPTION 'the handler % belongs to %, who is not to run in the transactions of others',
          h.handler, p.proowner::regrole
        USING ERRCODE = 'insufficient_privilege', HINT = format('Let a superuser own it, or SELECT '
          'pgwake.remove_before_drop(%L)', h.handler);
    ELSIF p.prosecdef = as_owner THEN
      RETURN QUERY SELECT format('%s.%I', p.pronamespace::regnamespace, p.proname), t::pgwake.ddl_target
        FROM unnest(targets) t WHERE pgwake.is_due(h, t) ORDER BY t.ord;
    END IF;
  END LOOP;
END $pgwake$;

-- Whether its owner could do all anyway. That of a SECURITY DEFINER function must be trusted, too: it can
-- leave a search_path of its own to the session, and before version 18 deferred triggers, which run at the
-- commit with the rights of who drops.
CREATE OR REPLACE FUNCTION pgwake.is_trusted(handler pg_proc) RETURNS bool
  LANGUAGE plpgsql STABLE AS $pgwake$
BEGIN
  RETURN EXISTS (SELECT FROM pg_roles r WHERE r.oid = handler.proowner AND (r.rolsuper
    OR EXISTS (SELECT FROM pg_event_trigger WHERE evtname = 'pgwake_before_drop' AND evtowner = r.oid)));
END $pgwake$;

-- The search_path of this function is theirs, too, unless they have one of their own.
CREATE OR REPLACE FUNCTION pgwake.run_handlers(targets pgwake.ddl_target[], as_owner bool) RETURNS void
  LANGUAGE plpgsql AS $pgwake$
DECLARE
  call record;
  code text;
  detail text;
  hint text;
BEGIN
  FOR call IN SELECT * FROM pgwake.due_calls(targets, as_owner) LOOP
    EXECUTE format('SELECT %s($1)', call.name) USING call.target;
  END LOOP;
EXCEPTION WHEN OTHERS THEN
  IF call IS NULL THEN
    RAISE;
  END IF;
  GET STACKED DIAGNOSTICS code = RETURNED_SQLSTATE, detail = PG_EXCEPTION_DETAIL, hint = PG_EXCEPTION_HINT;
  RAISE EXCEPTION USING ERRCODE = code,
    MESSAGE = format('%s is not dropped, because its handler %s failed: %s', (call.target).identity,
      call.name, SQLERRM),
    DETAIL = coalesce(nullif(detail, ''), 'Nothing of what the handler did is kept.'),
    HINT = coalesce(nullif(hint, ''), format('Mend the handler, or SELECT pgwake.remove_before_drop(%L).',
      call.name || '(pgwake.ddl_target)'));
END $pgwake$;

-- DROP INDEX CONCURRENTLY commits in between, so it is refused before it begins.
CREATE OR REPLACE FUNCTION pgwake.refuse_concurrently() RETURNS void
  LANGUAGE plpgsql STABLE SECURITY DEFINER AS $pgwake$
DECLARE
  handler text := (SELECT h.handler FROM pgwake.drop_handler h WHERE 'index' = ANY (h.types) LIMIT 1);
BEGIN
  IF handler IS NOT NULL AND EXISTS (SELECT FROM pgwake.statements_of(current_query()) s
      WHERE s.words LIKE 'DROP INDEX CONCURRENTLY %') THEN
    RAISE EXCEPTION 'DROP INDEX CONCURRENTLY commits before it drops, so its handler % cannot run', handler
      USING ERRCODE = 'feature_not_supported', HINT = 'Drop the index without CONCURRENTLY.';
  END IF;
END $pgwake$;

-- Whether anybody wants to know what this command will drop, or, with the extension, touch. Where that cannot
-- be read, what needs to be known is asked for in vain, and says so.
CREATE OR REPLACE FUNCTION pgwake.wants_targets(tag text, is_drop bool) RETURNS bool
  LANGUAGE plpgsql STABLE SECURITY DEFINER AS $pgwake$
BEGIN
  RETURN is_drop AND EXISTS (SELECT FROM pgwake.drop_handler)
    OR EXISTS (SELECT FROM pgwake.ddl_watch w WHERE w.phases @> '{before}'
      AND (w.tags IS NULL OR wants_targets.tag = ANY (w.tags)));
EXCEPTION WHEN OTHERS THEN
  RETURN is_drop;
END $pgwake$;

-- Notes the command for ddl_targets().
CREATE OR REPLACE FUNCTION pgwake.note_command(tag text, context text, path text) RETURNS jsonb
  LANGUAGE plpgsql AS $pgwake$
DECLARE
  before jsonb := nullif(current_setting('pgwake.command', true), '')::jsonb;
  tail text := substr(context, strpos(context || chr(10), chr(10)) + 1);
  is_sent text := statement_timestamp()::text;
  seen jsonb := CASE before ->> 'sent_at' WHEN is_sent THEN before -> 'seen' ELSE '{}' END;
BEGIN
  IF tail = '' THEN
    seen := jsonb_set(coalesce(seen, '{}'), ARRAY[tag], to_jsonb(coalesce((seen ->> tag)::int, 0) + 1));
  END IF;
  before := jsonb_build_object('tag', tag, 'tail', tail, 'path', path, 'depth', pgwake.ddl_depth(context),
    'user', current_user,
    'sent_at', is_sent, 'seen', seen, 'nth', CASE tail WHEN '' THEN (seen ->> tag)::int ELSE 1 END);
  PERFORM set_config('pgwake.command', before::text, true);
  RETURN before;
END $pgwake$;

-- What on_before_drop() does where somebody wants to know, as who drops. What fails here is left to the
-- command itself: it fails in the same way, with the server's own words; and if it does not, on_dropped()
-- sees what was missed.
CREATE OR REPLACE FUNCTION pgwake.before_drop_of(tag text, command jsonb) RETURNS void
  LANGUAGE plpgsql AS $pgwake$
DECLARE
  targets pgwake.ddl_target[];
  noted jsonb;
  d record;
  hint text;
BEGIN
  IF tag = 'DROP INDEX' THEN
    PERFORM pgwake.refuse_concurrently();
  END IF;
  BEGIN
    IF pgwake.has_extension() THEN
      SELECT t.*, NULL::text AS words INTO d FROM pgwake.sealed_targets() t;
    ELSE
      SELECT r.*, x.words INTO d
        FROM pgwake.running_drop(tag, command ->> 'tail', (command ->> 'nth')::int) x,
          pgwake.rehearse_drop(x.statement, command ->> 'path') r;
    END IF;
    targets := ARRAY(SELECT t FROM pgwake.targets_of(d.list, tag, d.words, (command ->> 'depth')::int) t);
    noted := jsonb_build_object('list', d.list, 'seal', d.seal, 'words', d.words);
  EXCEPTION WHEN OTHERS THEN
    GET STACKED DIAGNOSTICS hint = PG_EXCEPTION_HINT;
    noted := jsonb_build_object('why', SQLERRM, 'hint', hint);
  END;
  PERFORM set_config('pgwake.rehearsed', noted::text, true), pgwake.run_handlers(targets, false),
    -- A handler may have run DDL, which has noted its own.
    set_config('pgwake.command', command::text, true), set_config('pgwake.rehearsed', noted::text, true);
END $pgwake$;

-- Whether this is a command of a rehearsal: the contexts of all of its triggers show it. Only a rehearsal
-- sets the setting; what somebody else sets it to means nothing.
CREATE OR REPLACE FUNCTION pgwake.is_rehearsal() RETURNS bool LANGUAGE sql AS $pgwake$
  SELECT CASE WHEN pg_catalog.current_setting('pgwake.rehearsal', true) OPERATOR(pg_catalog.<>) ''
    THEN pg_catalog.strpos(pgwake.context(), 'rehearse_drop(text,text) line ') OPERATOR(pg_catalog.>) 0
    ELSE false END
$pgwake$;

-- The only function of ours that has the search_path of who drops: it reads it. The command is noted where
-- somebody may ask for its targets: we ourselves, or an event trigger of somebody else.
CREATE OR REPLACE FUNCTION pgwake.on_before_drop() RETURNS event_trigger LANGUAGE plpgsql AS $pgwake$
DECLARE
  is_drop bool := pg_catalog.starts_with(tg_tag, 'DROP ') OR pg_catalog.starts_with(tg_tag, 'ALTER ');
  is_wanted bool := (is_drop OR pgwake.has_extension()) AND pgwake.wants_targets(tg_tag, is_drop);
  command jsonb;
BEGIN
  PERFORM pg_catalog.set_config('pgwake.rehearsed', '', true);
  IF (is_wanted OR EXISTS (SELECT FROM pg_catalog.pg_event_trigger
        WHERE evtevent OPERATOR(pg_catalog.=) 'ddl_command_start'
        AND evtname OPERATOR(pg_catalog.<>) 'pgwake_before_drop'
        AND evtname OPERATOR(pg_catalog.<>) 'pgwake_ddl_command_start'))
      AND NOT pgwake.is_rehearsal() THEN
    command := pgwake.note_command(tg_tag, pgwake.context(), pg_catalog.current_setting('search_path'));
    IF is_wanted THEN
      PERFORM pgwake.before_drop_of(tg_tag, command);
    END IF;
  END IF;
END $pgwake$;

-- The targets of a command that is about to run, for what runs with our rights: once, for nested commands
-- have their own.
CREATE OR REPLACE FUNCTION pgwake.known_targets(tag text, OUT targets pgwake.ddl_target[], OUT why text, OUT
    hint text) LANGUAGE plpgsql AS $pgwake$
DECLARE
  noted jsonb := nullif(current_setting('pgwake.rehearsed', true), '')::jsonb;
BEGIN
  targets := '{}';
  PERFORM set_config('pgwake.rehearsed', '', true);
  why := coalesce(noted ->> 'why', CASE WHEN noted IS NULL THEN 'the command was not rehearsed' END);
  hint := coalesce(noted ->> 'hint', '');
  IF why IS NOT NULL THEN
    RETURN;
  ELSIF noted ->> 'list' = '[]' OR noted ->> 'seal' = pgwake.seal(noted ->> 'list') THEN
    targets := ARRAY(SELECT t FROM pgwake.targets_of(noted ->> 'list', tag, noted ->> 'words',
      pgwake.ddl_depth(pgwake.context()) - 1) t);
  ELSE
    why := 'somebody has altered what is known of it';
  END IF;
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

CREATE OR REPLACE FUNCTION pgwake.object_key(classid oid, objid oid, objsubid int) RETURNS text
  LANGUAGE sql IMMUTABLE AS $pgwake$
  SELECT classid || '/' || objid || '/' || objsubid
$pgwake$;

-- Which objects handlers have seen, one entry for each command that runs: nested ones lie on top.
CREATE OR REPLACE FUNCTION pgwake.note_handled(targets pgwake.ddl_target[], why text, hint text) RETURNS void
  LANGUAGE sql AS $pgwake$
  SELECT set_config('pgwake.handled', (jsonb_build_array(jsonb_build_object('why', why, 'hint', hint,
      'objects', (SELECT coalesce(jsonb_object_agg(pgwake.object_key(t.classid, t.objid, t.objsubid),
          t.identity), '{}') FROM unnest(targets) t WHERE EXISTS (SELECT FROM pgwake.drop_handler h
          WHERE pgwake.is_due(h, t)))))
    || coalesce(nullif(current_setting('pgwake.handled', true), ''), '[]')::jsonb)::text, true)
$pgwake$;

-- The command is over. What a handler has seen must be gone: else it has done its work for nothing.
CREATE OR REPLACE FUNCTION pgwake.end_handled() RETURNS void LANGUAGE plpgsql AS $pgwake$
DECLARE
  handled jsonb := current_setting('pgwake.handled')::jsonb;
  stays text;
BEGIN
  SELECT o.value INTO stays FROM jsonb_each_text(handled -> 0 -> 'objects') o,
      string_to_array(o.key, '/') k
    WHERE CASE k[3] WHEN '0' THEN pg_describe_object(k[1]::oid, k[2]::oid, 0) IS NOT NULL
      ELSE EXISTS (SELECT FROM pg_attribute WHERE attrelid = k[2]::oid AND attnum = k[3]::int
        AND NOT attisdropped) END LIMIT 1;
  IF FOUND THEN
    RAISE EXCEPTION '% has had its handler run, and was not dropped', stays
      USING ERRCODE = 'triggered_action_exception', HINT = 'Run the command again, by itself.';
  END IF;
  PERFORM set_config('pgwake.handled', (handled - 0)::text, true);
END $pgwake$;

-- Sorts first of all triggers on sql_drop, so that the others do not run in a rehearsal.
CREATE OR REPLACE FUNCTION pgwake.on_dropped() RETURNS event_trigger
  LANGUAGE plpgsql SECURITY DEFINER AS $pgwake$
DECLARE
  context text;
  list text;
  handled jsonb := nullif(current_setting('pgwake.handled', true), '')::jsonb -> 0;
  missed record;
  is_beside bool := false;
BEGIN
  IF pgwake.is_rehearsal() THEN
    context := pgwake.context();
    -- Not that of a command which another trigger runs meanwhile.
    IF starts_with(substr(context, strpos(context, chr(10)) + 1), format('SQL statement "%s"%sPL/pgSQL ',
        current_setting('pgwake.rehearsal', true), chr(10))) THEN
      SELECT json_agg(json_build_object('role', CASE WHEN o.original THEN 'target' ELSE 'cascade' END,
          'object_type', o.object_type, 'schema_name', o.schema_name, 'object_name', o.object_name,
          'column_name', CASE WHEN o.objsubid <> 0 THEN o.address_names[3] END, 'identity', o.object_identity,
          'classid', o.classid, 'objid', o.objid, 'objsubid', o.objsubid, 'is_temp', o.is_temporary))
        INTO list FROM pg_event_trigger_dropped_objects() o;
      RAISE EXCEPTION USING ERRCODE = 'PGWAK', MESSAGE = list, DETAIL = pgwake.seal(list);
    END IF;
    -- Nothing has seen what that drops; nor what is dropped where somebody makes the context look like this.
    handled := NULL;
    is_beside := true;
  ELSIF NOT EXISTS (SELECT FROM pgwake.drop_handler) THEN
    RETURN;
  ELSIF handled IS NULL AND tg_tag = 'DROP INDEX' THEN
    -- CONCURRENTLY has committed in between, and an error would leave half an index.
    RETURN;
  END IF;
  SELECT o.object_type, o.object_identity, h.handler INTO missed
    FROM pg_event_trigger_dropped_objects() o JOIN pgwake.drop_handler h
      ON pgwake.is_due(h, o.object_type, o.schema_name, o.object_name)
    WHERE coalesce(handled -> 'objects' ? pgwake.object_key(o.classid, o.objid, o.objsubid), false) = false
      AND NOT (is_beside AND o.is_temporary)
    LIMIT 1;
  IF FOUND THEN
    RAISE EXCEPTION '% % is not dropped, because its handler % could not run before that: %',
        missed.object_type, missed.object_identity, missed.handler,
        coalesce(handled ->> 'why', 'when the command was rehearsed it did not go')
      USING ERRCODE = 'feature_not_supported',
        HINT = coalesce(nullif(handled ->> 'hint', ''), 'Run it again, by itself.');
  END IF;
END $pgwake$;

CREATE OR REPLACE FUNCTION pgwake.before_drop(handler regprocedure, types text[] DEFAULT '{table}', schemas
    text[] DEFAULT NULL) RETURNS void LANGUAGE plpgsql AS $pgwake$
DECLARE
  p pg_proc;
  -- In the words of the server (getObjectTypeDescription, objectaddress.c).
  known text[] := '{table,table column,table constraint,foreign table,foreign table column,index,view,
    view column,materialized view,sequence,type,composite type,composite type column,domain constraint,
    function,procedure,aggregate,trigger,rule,policy,schema,extension,default value,statistics object,
    operator,operator class,operator family,access method,cast,collation,conversion,language,transform,
    server,foreign-data wrapper,user mapping,default acl,publication,publication relation,
    publication namespace,subscription,text search parser,text search dictionary,text search template,
    text search configuration,toast table,operator of access method,function of access method,large object}';
BEGIN
  SELECT * INTO p FROM pg_proc WHERE oid = handler;
  IF pgwake.mode() = 'sql, no event triggers' THEN
    RAISE EXCEPTION 'there are no event triggers of pgwake on this server, so nothing runs before a drop'
      USING ERRCODE = 'object_not_in_prerequisite_state', HINT = 'Let a superuser run pgwake install.';
  ELSIF p.prokind IS DISTINCT FROM 'f' OR p.proargtypes::text <> 'pgwake.ddl_target'::regtype::oid::text THEN
    RAISE EXCEPTION 'a handler is a function that takes one pgwake.ddl_target; not %', handler
      USING ERRCODE = 'invalid_function_definition';
  ELSIF types IS NULL OR types = '{}' OR array_position(types, NULL) > 0 OR schemas = '{}' THEN
    RAISE EXCEPTION 'types and schemas name what the handler is for, and are not empty' USING
      ERRCODE = '22023', HINT = 'types => ''{table,view}''; schemas => NULL for all';
  ELSIF NOT types <@ known THEN
    RAISE EXCEPTION 'there are no objects of the type %', (SELECT t FROM unnest(types) t
        WHERE t <> ALL (known) LIMIT 1) USING ERRCODE = '22023',
      HINT = 'Take the words that pg_event_trigger_dropped_objects() has: table, view, table column';
  ELSIF NOT pgwake.is_trusted(p) THEN
    RAISE EXCEPTION 'the handler % belongs to %, who is not to run in the transactions of others', handler,
        p.proowner::regrole
      USING ERRCODE = 'insufficient_privilege', HINT = 'Let a superuser own it.';
  ELSIF p.prosecdef AND has_function_privilege('public', p.oid, 'EXECUTE')
      AND has_schema_privilege('public', p.pronamespace, 'USAGE') THEN
    RAISE EXCEPTION 'anybody may call % as %, with a target of their own making', handler, p.proowner::regrole
      USING ERRCODE = 'insufficient_privilege', HINT = format('REVOKE EXECUTE ON FUNCTION %s FROM PUBLIC; '
        'before a drop it runs all the same', handler);
  END IF;
  INSERT INTO pgwake.drop_handler AS h
    VALUES (before_drop.handler::text, before_drop.types, before_drop.schemas)
    ON CONFLICT ON CONSTRAINT drop_handler_pkey DO UPDATE SET types = excluded.types,
      schemas = excluded.schemas;
END $pgwake$;

-- By its name as the caller writes it, with or without its argument; the function may be gone. Whether it was
-- one. It has the search_path of the caller, as an argument of the type regprocedure would have.
CREATE OR REPLACE FUNCTION pgwake.remove_before_drop(handler text) RETURNS bool LANGUAGE sql AS $pgwake$
  WITH asked AS (
    SELECT CASE WHEN handler LIKE '%)' THEN handler ELSE handler || '(pgwake.ddl_target)' END AS signature
  ), removed AS (
    DELETE FROM pgwake.drop_handler h USING asked a WHERE h.handler IN (a.signature, (
      SELECT pg_catalog.format('%I.%I(pgwake.ddl_target)', n.nspname, p.proname)
        FROM pg_catalog.pg_proc p JOIN pg_catalog.pg_namespace n ON n.oid = p.pronamespace
        WHERE p.oid = pg_catalog.to_regprocedure(a.signature))) RETURNING 1
  )
  SELECT EXISTS (SELECT FROM removed)
$pgwake$;
