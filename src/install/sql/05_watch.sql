-- Starts and stops watching a table: checks what was asked for, and puts the triggers on.

-- How a relation can be watched; raises a sentence that says what to do where it cannot.
CREATE OR REPLACE FUNCTION pgwake.mode_for(rel regclass, always bool, timing text) RETURNS text
  LANGUAGE plpgsql STABLE AS $pgwake$
DECLARE
  c pg_class;
  base text;
BEGIN
  SELECT * INTO c FROM pg_class WHERE oid = rel;
  IF c.relnamespace = 'pgwake'::regnamespace OR c.oid < 16384 THEN
    RAISE EXCEPTION '% belongs to the system or to pgwake and cannot be watched', rel
      USING ERRCODE = 'wrong_object_type';
  ELSIF c.relpersistence = 't' THEN
    RAISE EXCEPTION '% is temporary: only its own session sees it', rel USING ERRCODE = 'wrong_object_type';
  ELSIF c.relkind = 'm' THEN
    RAISE EXCEPTION '% is a materialized view: no trigger fires for it', rel
      USING ERRCODE = 'wrong_object_type',
      HINT = 'pgwake.watch_ddl(channel, ''{REFRESH MATERIALIZED VIEW}'') tells of each refresh.';
  ELSIF c.relkind = 'v' THEN
    IF EXISTS (SELECT FROM pg_trigger WHERE tgrelid = rel AND (tgtype & 64) <> 0
        AND tgname NOT LIKE '~pgwake%') THEN
      IF timing = 'before' THEN
        RAISE EXCEPTION 'the view % has INSTEAD OF triggers, and no BEFORE triggers for rows', rel
          USING ERRCODE = 'wrong_object_type', HINT = 'Watch it with timing => ''after''.';
      END IF;
      RETURN 'instead';
    END IF;
    SELECT string_agg(DISTINCT d.refobjid::regclass::text, ', ') INTO base
      FROM pg_rewrite r JOIN pg_depend d ON d.classid = 'pg_rewrite'::regclass AND d.objid = r.oid
        AND d.refclassid = 'pg_class'::regclass AND d.refobjid <> rel WHERE r.ev_class = rel;
    RAISE EXCEPTION 'the view % has no INSTEAD OF trigger of its own, so a trigger on it would replace its '
      'automatic update', rel
      USING ERRCODE = 'wrong_object_type',
        HINT = 'Watch what is below it: ' || coalesce(base, 'its tables') || '.';
  ELSIF c.relkind NOT IN ('r', 'p', 'f') THEN
    RAISE EXCEPTION '% is no table', rel USING ERRCODE = 'wrong_object_type';
  END IF;
  IF timing = 'before' THEN
    RETURN 'before';
  END IF;
  -- A statement's trigger does not fire for what is written through a parent or straight to a partition, nor
  -- while logical replication applies changes.
  IF c.relkind <> 'r' OR c.relispartition OR always
     OR EXISTS (SELECT FROM pg_inherits WHERE inhrelid = rel OR inhparent = rel) THEN
    RETURN 'row';
  END IF;
  RETURN 'statement';
END $pgwake$;

-- The numbers of columns by their names, which must be there, and the other way round.
CREATE OR REPLACE FUNCTION pgwake.column_numbers(rel regclass, names name[]) RETURNS int2[]
  LANGUAGE plpgsql STABLE AS $pgwake$
DECLARE
  numbers int2[] := ARRAY(SELECT num FROM pgwake.columns_of(rel, 'r') WHERE col = ANY (names) ORDER BY num);
BEGIN
  IF cardinality(numbers) < (SELECT count(DISTINCT n) FROM unnest(names) n) THEN
    RAISE EXCEPTION '% has no column %', rel, (SELECT string_agg(quote_ident(n), ', ') FROM unnest(names) n
        WHERE n NOT IN (SELECT col FROM pgwake.columns_of(rel, 'r')))
      USING ERRCODE = 'undefined_column';
  END IF;
  RETURN CASE WHEN names IS NOT NULL THEN numbers END;
END $pgwake$;

CREATE OR REPLACE FUNCTION pgwake.column_names(rel oid, numbers int2[]) RETURNS name[]
  LANGUAGE sql STABLE AS $pgwake$
  SELECT CASE WHEN numbers IS NOT NULL THEN ARRAY(
    SELECT col FROM pgwake.columns_of(rel, 'r') WHERE num = ANY (numbers) ORDER BY num) END
$pgwake$;

-- `pgwake.following` tells our event triggers that the DDL is our own.
CREATE OR REPLACE FUNCTION pgwake.watch_table(rel regclass, ops text[] DEFAULT
    '{insert,update,delete,truncate}', payload text DEFAULT 'key', transport text DEFAULT 'outbox', columns
    name[] DEFAULT NULL, when_changed name[] DEFAULT NULL, always bool DEFAULT false, channel text DEFAULT
    NULL, timing text DEFAULT 'after') RETURNS void LANGUAGE plpgsql AS $pgwake$
DECLARE
  w pgwake.watched;
BEGIN
  IF ops IS NULL OR ops = '{}' OR NOT ops <@ '{insert,update,delete,truncate}' THEN
    RAISE EXCEPTION 'ops holds insert, update, delete, truncate; not %', ops USING ERRCODE = '22023';
  ELSIF payload IS NULL OR NOT payload = ANY ('{wake,key,changed,row}') THEN
    RAISE EXCEPTION 'payload is wake, key, changed or row; not %', payload USING ERRCODE = '22023';
  ELSIF transport = 'wal' THEN
    RAISE EXCEPTION 'the transport wal reads the log itself, and needs no watch: pgwake stream'
      USING ERRCODE = 'feature_not_supported', HINT = 'Otherwise take outbox or notify.';
  ELSIF transport IS NULL OR NOT transport = ANY ('{outbox,notify}') THEN
    RAISE EXCEPTION 'transport is outbox or notify; not %', transport USING ERRCODE = '22023';
  ELSIF timing IS NULL OR NOT timing = ANY ('{after,before}') THEN
    RAISE EXCEPTION 'timing is after or before; not %', timing USING ERRCODE = '22023';
  ELSIF octet_length(channel) NOT BETWEEN 1 AND 63 THEN
    RAISE EXCEPTION 'the name of a channel has 1 to 63 bytes' USING ERRCODE = '22023';
  ELSIF timing = 'before' AND EXISTS (SELECT FROM pgwake.columns_of(rel, 'r')
      WHERE generated = 's' AND col = ANY (when_changed)) THEN
    RAISE EXCEPTION 'before a change nobody knows what it makes of the generated columns of %', rel
      USING ERRCODE = '22023', HINT = 'Name the columns that they are computed from in when_changed.';
  END IF;
  PERFORM set_config('pgwake.following', 'on', true), pgwake.mode_for(rel, always, timing), pgwake.settle();
  -- What waits of it in the outbox is delivered under the number that it had.
  UPDATE pgwake.watched SET ended = false WHERE id = (SELECT max(id) FROM pgwake.watched WHERE relid = rel)
    AND NOT EXISTS (SELECT FROM pgwake.watched WHERE relid = rel AND NOT ended);
  INSERT INTO pgwake.watched (relid, schema_name, table_name, ops, payload, transport, columns, when_changed,
      column_numbers, when_changed_numbers, always, channel, timing, mode)
    SELECT rel, n.nspname, c.relname, watch_table.ops, watch_table.payload, watch_table.transport,
      watch_table.columns, watch_table.when_changed, pgwake.column_numbers(rel, watch_table.columns),
      pgwake.column_numbers(rel, watch_table.when_changed), coalesce(watch_table.always, false),
      watch_table.channel, watch_table.timing, ''
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.oid = rel
    ON CONFLICT (relid) WHERE NOT ended DO UPDATE SET ops = excluded.ops, payload = excluded.payload,
      transport = excluded.transport, columns = excluded.columns, when_changed = excluded.when_changed,
      column_numbers = excluded.column_numbers, when_changed_numbers = excluded.when_changed_numbers,
      always = excluded.always, channel = excluded.channel, timing = excluded.timing
    RETURNING * INTO w;
  IF payload = 'wake' THEN
    PERFORM pgwake.make_counter(coalesce(channel, 'pgwake'));
  END IF;
  PERFORM pgwake.attach(w), pgwake.wake_readers(), set_config('pgwake.following', '', true);
END $pgwake$;

-- Running readers, of changes or of DDL on a channel of the loop, look whether what they read still comes.
-- They do so now and then in any case: a transaction that is to be prepared must not notify.
CREATE OR REPLACE FUNCTION pgwake.wake_readers(channel text DEFAULT 'pgwake') RETURNS void
  LANGUAGE sql AS $pgwake$
  SELECT pgwake.notify(channel, 'watched') WHERE NOT pgwake.may_be_prepared()
    AND (channel = 'pgwake' OR starts_with(channel, 'pgwake_ddl'))
$pgwake$;

-- The triggers that a watch should have. The server clones a partitioned table's row triggers; triggers fire
-- in the order of their names, and ours is to see what the others made of the row; the bits are
-- pg_trigger.h's.
CREATE OR REPLACE FUNCTION pgwake.wanted_triggers(w pgwake.watched) RETURNS TABLE (op text, rel oid, name
    name, bits int) LANGUAGE sql STABLE AS $pgwake$
  SELECT o.op, c.oid,
    format('%spgwake_%s_%s', CASE WHEN w.mode IN ('instead', 'before') THEN '~' END, w.id, o.op)::name,
    CASE o.op WHEN 'insert' THEN 4 WHEN 'delete' THEN 8 WHEN 'update' THEN 16 ELSE 32 END
      + CASE WHEN o.op = 'truncate' OR w.mode = 'statement' THEN 0 ELSE 1 END
      + CASE w.mode WHEN 'before' THEN 2 WHEN 'instead' THEN 64 ELSE 0 END
  FROM unnest(w.ops) o (op), pgwake.family(w.relid) AS f (member) JOIN pg_class c ON c.oid = f.member
  WHERE CASE
    WHEN w.mode = 'instead' THEN EXISTS (SELECT FROM pg_trigger t
      WHERE t.tgrelid = w.relid AND pgwake.is_instead_of(t.tgname, t.tgtype, o.op))
    WHEN c.relkind = 'f' AND o.op = 'truncate' THEN current_setting('server_version_num')::int >= 160000
    WHEN c.oid = w.relid OR o.op = 'truncate' THEN true
    ELSE NOT EXISTS (SELECT FROM pg_inherits i JOIN pg_class p ON p.oid = i.inhparent
      WHERE i.inhrelid = c.oid AND p.relkind = 'p') END
$pgwake$;

-- The triggers that there are, of all watches, with the name of the function that each runs.
CREATE OR REPLACE VIEW pgwake.own_trigger AS
  SELECT t.tgrelid AS rel, t.tgname AS name, t.tgenabled AS enabled, t.tgparentid AS parent,
    t.tgfoid AS function, t.tgtype::int AS bits,
    t.tgqual IS NULL AND t.tgattr::text OPERATOR(pg_catalog.=) '' AS is_plain,
    pg_catalog.split_part(p.proname, '_', 2)::int AS watch, pg_catalog.split_part(p.proname, '_', 3) AS op
  FROM pg_catalog.pg_proc p JOIN pg_catalog.pg_trigger t ON t.tgfoid OPERATOR(pg_catalog.=) p.oid
  WHERE p.pronamespace OPERATOR(pg_catalog.=) 'pgwake'::pg_catalog.regnamespace
    AND p.proname OPERATOR(pg_catalog.~) '^change_[0-9]+_';

-- Makes the functions and triggers of a watch as they should be now, and touches none that is: each takes a
-- lock. A trigger that somebody has disabled stays so.
CREATE OR REPLACE FUNCTION pgwake.attach(w pgwake.watched) RETURNS void LANGUAGE plpgsql AS $pgwake$
DECLARE
  t record;
BEGIN
  w.mode := pgwake.mode_for(w.relid, w.always, w.timing);
  w.key_index := pgwake.key_index(w.relid);
  w.columns := pgwake.column_names(w.relid, w.column_numbers);
  w.when_changed := pgwake.column_names(w.relid, w.when_changed_numbers);
  UPDATE pgwake.watched d
    SET mode = w.mode, key_index = w.key_index, columns = w.columns, when_changed = w.when_changed
    WHERE d.id = w.id AND d IS DISTINCT FROM w;
  FOR t IN SELECT o.rel::regclass, o.name FROM pgwake.own_trigger o
      WHERE o.watch = w.id AND o.parent = 0 AND NOT (o.is_plain
        AND (o.rel, o.name, o.bits) IN (SELECT x.rel, x.name, x.bits FROM pgwake.wanted_triggers(w) x)) LOOP
    EXECUTE format('DROP TRIGGER %I ON %s', t.name, t.rel);
  END LOOP;
  FOR t IN SELECT DISTINCT op FROM pgwake.wanted_triggers(w) LOOP
    PERFORM pgwake.make_function(w, t.op), pgwake.grant_to_owners(w, t.op);
  END LOOP;
  FOR t IN SELECT x.op, x.rel::regclass, x.name, o.name IS NULL AS is_missing, o.enabled
      FROM pgwake.wanted_triggers(w) x
        LEFT JOIN pgwake.own_trigger o ON o.watch = w.id AND o.rel = x.rel AND o.name = x.name LOOP
    IF t.is_missing THEN
      EXECUTE format('CREATE TRIGGER %I %s %s ON %s %s %s EXECUTE FUNCTION pgwake.%I()', t.name,
        CASE w.mode WHEN 'instead' THEN 'INSTEAD OF' WHEN 'before' THEN 'BEFORE' ELSE 'AFTER' END, t.op,
        t.rel, CASE WHEN t.op = 'truncate' OR w.mode <> 'statement' THEN ''
          WHEN t.op = 'insert' THEN 'REFERENCING NEW TABLE AS pgwake_new'
          WHEN t.op = 'delete' THEN 'REFERENCING OLD TABLE AS pgwake_old'
          ELSE 'REFERENCING OLD TABLE AS pgwake_old NEW TABLE AS pgwake_new' END,
        CASE WHEN t.op = 'truncate' OR w.mode = 'statement' THEN 'FOR EACH STATEMENT' ELSE 'FOR EACH ROW' END,
        pgwake.function_name(w, t.op));
    END IF;
    IF w.always <> (coalesce(t.enabled, 'O') = 'A') AND coalesce(t.enabled, 'O') IN ('O', 'A') THEN
      EXECUTE format('ALTER TABLE %s ENABLE %s TRIGGER %I',
        t.rel, CASE WHEN w.always THEN 'ALWAYS' END, t.name);
    END IF;
  END LOOP;
  PERFORM pgwake.drop_functions(ARRAY(SELECT p.oid FROM pg_proc p
    WHERE p.pronamespace = 'pgwake'::regnamespace AND p.proname ~ format('^change_%s_', w.id)
      AND NOT EXISTS (SELECT FROM pgwake.own_trigger o WHERE o.function = p.oid)));
END $pgwake$;

-- Who makes a partition makes its triggers, and the server asks for the right to run their functions. Others
-- lose it: a role that holds a right cannot be dropped.
CREATE OR REPLACE FUNCTION pgwake.grant_to_owners(w pgwake.watched, op text) RETURNS void
  LANGUAGE plpgsql AS $pgwake$
DECLARE
  function regprocedure := format('pgwake.%I()', pgwake.function_name(w, op));
  owners oid[] := ARRAY(SELECT relowner FROM pg_class
    WHERE oid IN (SELECT pgwake.family(w.relid)) AND relkind = 'p');
  role regrole;
BEGIN
  FOR role IN SELECT a.grantee FROM pg_proc p, aclexplode(p.proacl) a
      WHERE p.oid = function AND a.grantee <> p.proowner AND a.grantee <> ALL (owners) LOOP
    EXECUTE format('REVOKE ALL ON FUNCTION %s FROM %s', function, role);
  END LOOP;
  FOR role IN SELECT DISTINCT o FROM unnest(owners) o
      WHERE NOT has_function_privilege(o, function, 'EXECUTE') LOOP
    EXECUTE format('GRANT EXECUTE ON FUNCTION %s TO %s', function, role);
  END LOOP;
END $pgwake$;

-- Drops trigger functions, and the triggers that run them.
CREATE OR REPLACE FUNCTION pgwake.drop_functions(functions oid[]) RETURNS void LANGUAGE plpgsql AS $pgwake$
DECLARE
  t record;
BEGIN
  FOR t IN SELECT o.rel::regclass, o.name FROM pgwake.own_trigger o
      WHERE o.function = ANY (functions) AND o.parent = 0 LOOP
    EXECUTE format('DROP TRIGGER %I ON %s', t.name, t.rel);
  END LOOP;
  FOR t IN SELECT f::regprocedure AS function FROM unnest(functions) f LOOP
    EXECUTE format('DROP FUNCTION %s', t.function);
  END LOOP;
END $pgwake$;

-- Rows of it may still wait in the outbox: they need to know their table.
CREATE OR REPLACE FUNCTION pgwake.unwatch_table(rel regclass) RETURNS void LANGUAGE plpgsql AS $pgwake$
BEGIN
  UPDATE pgwake.watched SET ended = true WHERE relid = rel AND NOT ended;
  PERFORM set_config('pgwake.following', 'on', true), pgwake.drop_unwatched(), pgwake.wake_readers(),
    set_config('pgwake.following', '', true);
END $pgwake$;

-- Drops what is of no watch, or of one that has ended.
CREATE OR REPLACE FUNCTION pgwake.drop_unwatched() RETURNS void LANGUAGE sql AS $pgwake$
  SELECT pgwake.drop_functions(ARRAY(SELECT p.oid FROM pg_proc p
    WHERE p.pronamespace = 'pgwake'::regnamespace AND p.proname ~ '^change_[0-9]+_'
      AND split_part(p.proname, '_', 2)::int NOT IN (SELECT id FROM pgwake.watched WHERE NOT ended)))
$pgwake$;

-- Ends the watches whose table is gone.
CREATE OR REPLACE FUNCTION pgwake.end_dropped() RETURNS void LANGUAGE plpgsql AS $pgwake$
BEGIN
  UPDATE pgwake.watched w SET ended = true
    WHERE NOT ended AND NOT EXISTS (SELECT FROM pg_class c WHERE c.oid = w.relid);
  PERFORM set_config('pgwake.following', 'on', true), pgwake.drop_unwatched(), pgwake.wake_readers(),
    set_config('pgwake.following', '', true) WHERE FOUND;
END $pgwake$;

-- Makes the triggers of these watches, or of all, as they should be. A table that cannot be watched any
-- longer stops nobody.
CREATE OR REPLACE FUNCTION pgwake.rebuild(watches int[] DEFAULT NULL) RETURNS void
  LANGUAGE plpgsql SET jit = off AS $pgwake$
DECLARE
  w pgwake.watched;
BEGIN
  IF watches IS NULL THEN
    PERFORM pgwake.settle(), pgwake.end_dropped();
  END IF;
  PERFORM set_config('pgwake.following', 'on', true);
  IF watches IS NULL THEN
    PERFORM pgwake.drop_unwatched();
  END IF;
  FOR w IN SELECT * FROM pgwake.watched WHERE NOT ended AND (watches IS NULL OR id = ANY (watches))
      ORDER BY id LOOP
    BEGIN
      PERFORM pgwake.attach(w);
    EXCEPTION WHEN OTHERS THEN
      RAISE WARNING 'pgwake: the triggers of %.% could not be made: %', w.schema_name, w.table_name, SQLERRM;
    END;
  END LOOP;
  PERFORM set_config('pgwake.following', '', true);
END $pgwake$;

-- How a table is watched, for readers without a right to the list, and in what way that differs from what was
-- asked for; NULL is not asked for.
CREATE OR REPLACE FUNCTION pgwake.watch_of(rel regclass, ops text[] DEFAULT NULL, payload text DEFAULT NULL,
    wanted text DEFAULT NULL, columns name[] DEFAULT NULL, timing text DEFAULT NULL, OUT transport text,
    OUT channel text, OUT difference text) RETURNS SETOF record
  LANGUAGE sql STABLE SECURITY DEFINER AS $pgwake$
  SELECT w.transport, w.channel,
    (SELECT string_agg(format('%s %s, not %s', name, coalesce(now, 'all'), other), '; ') FROM (VALUES
      ('payload', w.payload, watch_of.payload), ('transport', w.transport, wanted),
      ('timing', w.timing, watch_of.timing),
      ('ops', (SELECT array_agg(o ORDER BY o) FROM unnest(w.ops) o)::text,
        (SELECT array_agg(o ORDER BY o) FROM unnest(watch_of.ops) o)::text),
      ('columns', (SELECT array_agg(c ORDER BY c) FROM unnest(w.columns) c)::text,
        (SELECT array_agg(c ORDER BY c) FROM unnest(watch_of.columns) c)::text)) d (name, now, other)
    WHERE other <> coalesce(now, ''))
  FROM pgwake.watched w WHERE w.relid = rel AND NOT w.ended
$pgwake$;

-- Makes sure that a table is watched, or refuses. One that is watched stays as it is, and is refused if
-- another way was asked for. A reader must not wait for long: it would be taken for a frozen one.
CREATE OR REPLACE FUNCTION pgwake.ensure_watched(rel regclass, make bool, ops text[], payload text, wanted
    text, columns name[], timing text, OUT transport text, OUT channel text) LANGUAGE plpgsql AS $pgwake$
DECLARE
  difference text;
BEGIN
  SELECT * INTO transport, channel, difference
    FROM pgwake.watch_of(rel, ops, payload, wanted, columns, timing);
  IF difference IS NOT NULL THEN
    RAISE EXCEPTION '% is watched already, with %', rel, difference
      USING ERRCODE = 'object_not_in_prerequisite_state', HINT = format('Leave that out to read it as it is,'
        ' or change it for all its readers with SELECT pgwake.watch_table(%L, ...)', rel);
  ELSIF transport IS NULL AND NOT make THEN
    RAISE EXCEPTION 'the table % is not watched', rel USING ERRCODE = 'object_not_in_prerequisite_state',
      HINT = format('SELECT pgwake.watch_table(%L)', rel);
  ELSIF transport IS NULL THEN
    PERFORM set_config('lock_timeout', '400ms', true);
    -- On a channel of its own a reader hears of no other table, nor of one in another database.
    PERFORM pgwake.watch_table(rel, coalesce(ops, '{insert,update,delete,truncate}'),
      coalesce(payload, 'key'), coalesce(wanted, 'outbox'), columns, timing => coalesce(timing, 'after'),
      channel => CASE wanted WHEN 'notify' THEN 'pgwake_' || nextval('pgwake.outbox_id') END);
    SELECT * INTO transport, channel, difference FROM pgwake.watch_of(rel);
  END IF;
END $pgwake$;
