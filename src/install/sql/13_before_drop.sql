-- Handlers: functions of users that run before a drop, once for each object that is about to go.
--
-- Before a command, on_ddl_start() asks what it will drop, calls the handlers that are due, with the rights
-- of who drops, and notes which objects they have seen. When the objects have gone, on_dropped() refuses the
-- command if one of them has a handler that has not seen it. So what could not be rehearsed goes on, unless a
-- handler was due.

-- Whether a handler is registered for such an object. A schema counts as in itself. What is temporary must be
-- asked for, as pg_temp: the server itself drops such tables, for REFRESH MATERIALIZED VIEW CONCURRENTLY.
CREATE OR REPLACE FUNCTION pgwake.is_due(h pgwake.drop_handler, object_type text, schema_name text,
    object_name text) RETURNS bool LANGUAGE sql IMMUTABLE AS $pgwake$
  SELECT object_type OPERATOR(pg_catalog.=) ANY (h.types) AND CASE
    WHEN h.schemas IS NULL THEN coalesce(schema_name, '') OPERATOR(pg_catalog.<>) 'pg_temp'
    WHEN object_type OPERATOR(pg_catalog.=) 'schema' THEN object_name OPERATOR(pg_catalog.=) ANY (h.schemas)
    ELSE schema_name OPERATOR(pg_catalog.=) ANY (h.schemas) END
$pgwake$;

-- What a command names and does not drop has no behavior.
CREATE OR REPLACE FUNCTION pgwake.is_due(h pgwake.drop_handler, t pgwake.ddl_target) RETURNS bool
  LANGUAGE sql IMMUTABLE AS $pgwake$
  SELECT t.behavior IS NOT NULL AND pgwake.is_due(h, t.object_type, t.schema_name, t.object_name)
$pgwake$;

-- By whom a handler could be made another function, if it is somebody who could not do all anyway: it would
-- run with the rights of who drops.
CREATE OR REPLACE FUNCTION pgwake.untrusted(handler oid) RETURNS TABLE (object text, owner regrole)
  LANGUAGE sql STABLE AS $pgwake$
  SELECT o.object, r.oid::regrole FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace
    JOIN pg_database d ON d.datname = current_database()
    CROSS JOIN LATERAL (VALUES (format('function %s', p.oid::regprocedure), p.proowner), (format('schema %I',
      n.nspname), CASE n.nspowner WHEN 'pg_database_owner'::regrole THEN d.datdba ELSE n.nspowner END))
      o (object, owner)
    JOIN pg_roles r ON r.oid = o.owner
    WHERE p.oid = untrusted.handler AND NOT r.rolsuper
      AND NOT EXISTS (SELECT FROM pg_event_trigger
        WHERE evtname = '!pgwake_ddl_command_start' AND evtowner = r.oid)
$pgwake$;

CREATE OR REPLACE FUNCTION pgwake.must_be_trusted(handler oid) RETURNS void
  LANGUAGE plpgsql STABLE AS $pgwake$
DECLARE
  u record;
BEGIN
  SELECT * INTO u FROM pgwake.untrusted(handler);
  IF FOUND THEN
    RAISE EXCEPTION 'the % belongs to %, who is not to run in the transactions of others', u.object, u.owner
      USING ERRCODE = 'insufficient_privilege', HINT = format('ALTER %s OWNER TO a superuser, or SELECT '
        'pgwake.remove_before_drop(%L)', u.object, handler::regprocedure);
  END IF;
END $pgwake$;

-- The calls that are due.
CREATE OR REPLACE FUNCTION pgwake.due_calls(targets pgwake.ddl_target[]) RETURNS TABLE (name text, target
    pgwake.ddl_target) LANGUAGE plpgsql STABLE SECURITY DEFINER AS $pgwake$
DECLARE
  h pgwake.drop_handler;
  p pg_proc;
BEGIN
  FOR h IN SELECT * FROM pgwake.drop_handler d
      WHERE EXISTS (SELECT FROM unnest(targets) t WHERE pgwake.is_due(d, t)) ORDER BY d.handler LOOP
    SELECT f.* INTO p FROM pg_proc f WHERE f.oid = to_regprocedure(h.handler);
    IF NOT FOUND THEN
      RAISE EXCEPTION 'the function of a handler of pgwake.before_drop is gone, or was renamed: %', h.handler
        USING ERRCODE = 'undefined_function', HINT = format('SELECT pgwake.remove_before_drop(%L), and '
          'register it again if it is there again', h.handler);
    END IF;
    PERFORM pgwake.must_be_trusted(p.oid);
    RETURN QUERY SELECT format('%s.%I', p.pronamespace::regnamespace, p.proname), t::pgwake.ddl_target
      FROM unnest(targets) t WHERE pgwake.is_due(h, t) ORDER BY t.ord;
  END LOOP;
END $pgwake$;

-- The search_path of this function is theirs, too, unless they have one of their own.
CREATE OR REPLACE FUNCTION pgwake.run_handlers(targets pgwake.ddl_target[]) RETURNS void
  LANGUAGE plpgsql SET quote_all_identifiers = off AS $pgwake$
DECLARE
  within_max constant int := 32;
  within int;
  call record;
  code text;
  detail text;
  hint text;
BEGIN
  FOR call IN SELECT * FROM pgwake.due_calls(targets) LOOP
    within := coalesce(within, cardinality(string_to_array(pgwake.context(),
      chr(10) || 'PL/pgSQL function pgwake.run_handlers(')) - 1);
    IF within > within_max THEN
      call := NULL;  -- The one to be named is the handler that runs this command.
      RAISE EXCEPTION 'handlers run within one another % deep', within_max
        USING ERRCODE = 'statement_too_complex',
          HINT = 'Does it drop what its command drops? The command does so itself, behind it.';
    END IF;
    -- Another handler may have dropped it, as a side table that goes along: then it had its own.
    CONTINUE WHEN pg_describe_object((call.target).classid, (call.target).objid, (call.target).objsubid)
      IS NULL;
    EXECUTE format('SELECT %s($1)', call.name) USING call.target;
  END LOOP;
EXCEPTION WHEN OTHERS THEN
  IF call IS NULL OR SQLSTATE = '54001' AND SQLERRM LIKE '% is not dropped, because its handler %' THEN
    RAISE;  -- Of those that run within one another the innermost is named.
  END IF;
  GET STACKED DIAGNOSTICS code = RETURNED_SQLSTATE, detail = PG_EXCEPTION_DETAIL, hint = PG_EXCEPTION_HINT;
  RAISE EXCEPTION USING ERRCODE = code,
    MESSAGE = format('%s is not dropped, because its handler %s failed: %s', (call.target).identity,
      call.name, SQLERRM),
    DETAIL = coalesce(nullif(detail, ''), 'Nothing of what the handler did is kept.'),
    HINT = coalesce(nullif(hint, ''), format('Mend the handler, or SELECT pgwake.remove_before_drop(%L).',
      call.name || '(pgwake.ddl_target)'));
END $pgwake$;

CREATE OR REPLACE FUNCTION pgwake.object_key(classid oid, objid oid, objsubid int) RETURNS text
  LANGUAGE sql IMMUTABLE AS $pgwake$
  SELECT classid || '/' || objid || '/' || objsubid
$pgwake$;

-- Keeps with the command which objects handlers have seen. DROP INDEX CONCURRENTLY commits before it drops:
-- it is refused before it begins.
CREATE OR REPLACE FUNCTION pgwake.note_handled(tag text, targets pgwake.ddl_target[], why text, hint text)
    RETURNS void LANGUAGE plpgsql AS $pgwake$
DECLARE
  for_indexes text;
BEGIN
  IF tag = 'DROP INDEX' AND pgwake.words_of(current_query()) LIKE 'DROP INDEX CONCURRENTLY %' THEN
    SELECT h.handler INTO for_indexes FROM pgwake.drop_handler h WHERE 'index' = ANY (h.types);
    IF FOUND THEN
      RAISE EXCEPTION 'DROP INDEX CONCURRENTLY commits before it drops, so its handler % cannot run',
          for_indexes
        USING ERRCODE = 'feature_not_supported', HINT = 'Drop the index without CONCURRENTLY.';
    END IF;
  END IF;
  PERFORM pgwake.keep('handled', pgwake.level(), jsonb_build_object('why', why, 'hint', hint,
    'objects', (SELECT coalesce(jsonb_object_agg(pgwake.object_key(t.classid, t.objid, t.objsubid),
        t.identity), '{}') FROM unnest(targets) t WHERE t.objid IS NOT NULL
        AND EXISTS (SELECT FROM pgwake.drop_handler h WHERE pgwake.is_due(h, t))))::text);
END $pgwake$;

-- The command is over. What a handler has seen must be gone: else it has done its work for nothing.
CREATE OR REPLACE FUNCTION pgwake.end_handled(handled jsonb) RETURNS void LANGUAGE plpgsql AS $pgwake$
DECLARE
  stays text;
BEGIN
  SELECT o.value INTO stays FROM jsonb_each_text(handled -> 'objects') o,
      string_to_array(o.key, '/') k
    WHERE CASE k[3] WHEN '0' THEN pg_describe_object(k[1]::oid, k[2]::oid, 0) IS NOT NULL
      ELSE EXISTS (SELECT FROM pg_attribute WHERE attrelid = k[2]::oid AND attnum = k[3]::int
        AND NOT attisdropped) END LIMIT 1;
  IF FOUND THEN
    RAISE EXCEPTION '% has had its handler run, and was not dropped', stays
      USING ERRCODE = 'triggered_action_exception', HINT = 'Run the command again, by itself.';
  END IF;
END $pgwake$;

-- Sorts first of all triggers on sql_drop, so that the others do not run in a rehearsal.
CREATE OR REPLACE FUNCTION pgwake.on_dropped() RETURNS event_trigger
  LANGUAGE plpgsql SECURITY DEFINER SET jit = off AS $pgwake$
DECLARE
  context text;
  rehearsed text;
  list text;
  handled jsonb;
  missed record;
BEGIN
  IF pgwake.is_rehearsal() THEN
    context := pgwake.context();
    -- That of a command which another trigger runs meanwhile is undone, and not listed.
    rehearsed := current_setting('pgwake.rehearsal');
    IF strpos(left(pgwake.tail(context), length(rehearsed) + 50), rehearsed) > 0 THEN
      SELECT json_agg(json_build_object('role', CASE WHEN o.original THEN 'target' ELSE 'cascade' END,
          'object_type', o.object_type, 'schema_name', o.schema_name, 'object_name', o.object_name,
          'column_name', CASE WHEN o.objsubid <> 0 THEN o.address_names[3] END, 'identity', o.object_identity,
          'classid', o.classid, 'objid', o.objid, 'objsubid', o.objsubid, 'is_temp', o.is_temporary))
        INTO list FROM pg_event_trigger_dropped_objects() o;
      RAISE EXCEPTION USING ERRCODE = 'PGWAK', MESSAGE = list;
    END IF;
    RETURN;
  ELSIF NOT EXISTS (SELECT FROM pgwake.drop_handler) THEN
    RETURN;
  END IF;
  handled := pgwake.kept('handled', pgwake.level());
  IF handled IS NULL AND tg_tag IN ('DROP INDEX', 'ALTER TABLE') THEN
    -- CONCURRENTLY has committed in between, and an error would leave half an index or a partition.
    RETURN;
  END IF;
  SELECT o.object_type, o.object_identity, h.handler INTO missed
    FROM pg_event_trigger_dropped_objects() o JOIN pgwake.drop_handler h
      ON pgwake.is_due(h, o.object_type, o.schema_name, o.object_name)
    WHERE coalesce(handled -> 'objects' ? pgwake.object_key(o.classid, o.objid, o.objsubid), false) = false
    LIMIT 1;
  IF FOUND THEN
    RAISE EXCEPTION '% % is not dropped, because its handler % could not run before that: %',
        missed.object_type, missed.object_identity, missed.handler,
        coalesce(handled ->> 'why', CASE WHEN handled IS NULL THEN 'the command was not rehearsed'
          ELSE 'when the command was rehearsed it did not go' END)
      USING ERRCODE = 'feature_not_supported',
        HINT = coalesce(nullif(handled ->> 'hint', ''), 'Run it again, by itself.');
  END IF;
END $pgwake$;

CREATE OR REPLACE FUNCTION pgwake.before_drop(handler regprocedure, types text[] DEFAULT '{table}', schemas
    text[] DEFAULT NULL) RETURNS void LANGUAGE plpgsql SET quote_all_identifiers = off AS $pgwake$
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
  without_schema text[] := '{rule,extension,access method,cast,language,transform,server,foreign-data wrapper,
    user mapping,default acl,publication,publication relation,publication namespace,subscription,
    large object}';
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
  ELSIF schemas IS NOT NULL AND types && without_schema THEN
    RAISE EXCEPTION 'objects of the type % are in no schema', (SELECT t FROM unnest(types) t
        WHERE t = ANY (without_schema) LIMIT 1) USING ERRCODE = '22023', HINT = 'schemas => NULL';
  ELSIF NOT types <@ known THEN
    RAISE EXCEPTION 'there are no objects of the type %', (SELECT t FROM unnest(types) t
        WHERE t <> ALL (known) LIMIT 1) USING ERRCODE = '22023',
      HINT = 'Take the words that pg_event_trigger_dropped_objects() has: table, view, table column';
  END IF;
  PERFORM pgwake.must_be_trusted(handler);
  INSERT INTO pgwake.drop_handler AS h
    VALUES (before_drop.handler::text, before_drop.types, before_drop.schemas)
    ON CONFLICT ON CONSTRAINT drop_handler_pkey DO UPDATE SET types = excluded.types,
      schemas = excluded.schemas;
END $pgwake$;

-- By its name as the caller writes it, with or without its argument; the function may be gone. Whether it was
-- one. It has the search_path of the caller, as an argument of the type regprocedure would have.
CREATE OR REPLACE FUNCTION pgwake.remove_before_drop(handler text) RETURNS bool LANGUAGE sql
    SET quote_all_identifiers = off AS $pgwake$
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
