-- Starts and stops watching a table: checks what was asked for, and puts the triggers on.

-- How a relation can be watched; raises a sentence that says what to do where it cannot.
CREATE OR REPLACE FUNCTION pgwake.mode_for(rel regclass, always bool, timing text) RETURNS text
  LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $pgwake$
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

-- `pgwake.following` tells our event triggers that this DDL is our own. Returns what it was.
CREATE OR REPLACE FUNCTION pgwake.following(setting text) RETURNS text LANGUAGE plpgsql
  SET search_path = pg_catalog, pg_temp AS $pgwake$
DECLARE
  was text := coalesce(current_setting('pgwake.following', true), '');
BEGIN
  PERFORM set_config('pgwake.following', setting, true);
  RETURN was;
END $pgwake$;

CREATE OR REPLACE FUNCTION pgwake.watch_table(rel regclass,
    ops text[] DEFAULT '{insert,update,delete,truncate}', payload text DEFAULT 'key',
    transport text DEFAULT 'outbox', columns name[] DEFAULT NULL, when_changed name[] DEFAULT NULL,
    always bool DEFAULT false, channel text DEFAULT NULL, timing text DEFAULT 'after') RETURNS void
  LANGUAGE plpgsql
  SET search_path = pg_catalog, pg_temp AS $pgwake$
DECLARE
  w pgwake.watched;
  unknown text;
  was text := pgwake.following('on');
BEGIN
  IF ops IS NULL OR ops = '{}' OR NOT ops <@ '{insert,update,delete,truncate}' THEN
    RAISE EXCEPTION 'ops holds insert, update, delete, truncate; not %', ops USING ERRCODE = '22023';
  ELSIF payload IS NULL OR NOT payload = ANY ('{wake,key,changed,row}') THEN
    RAISE EXCEPTION 'payload is wake, key, changed or row; not %', payload USING ERRCODE = '22023';
  ELSIF transport IS NULL OR NOT transport = ANY ('{outbox,notify,wal}') THEN
    RAISE EXCEPTION 'transport is outbox, notify or wal; not %', transport USING ERRCODE = '22023';
  ELSIF timing IS NULL OR NOT timing = ANY ('{after,before}') THEN
    RAISE EXCEPTION 'timing is after or before; not %', timing USING ERRCODE = '22023';
  ELSIF octet_length(channel) NOT BETWEEN 1 AND 63 THEN
    RAISE EXCEPTION 'the name of a channel has 1 to 63 bytes' USING ERRCODE = '22023';
  END IF;
  SELECT string_agg(quote_ident(u), ', ') INTO unknown FROM unnest(columns || when_changed) u
    WHERE NOT EXISTS (SELECT FROM pg_attribute
      WHERE attrelid = rel AND attname = u AND attnum > 0 AND NOT attisdropped);
  IF unknown IS NOT NULL THEN
    RAISE EXCEPTION '% has no column %', rel, unknown USING ERRCODE = 'undefined_column';
  ELSIF timing = 'before' AND when_changed && pgwake.computed_later(rel) THEN
    RAISE EXCEPTION 'before a change nobody knows what it makes of the generated columns of %', rel
      USING ERRCODE = '22023', HINT = 'Name the columns that they are computed from in when_changed.';
  END IF;
  PERFORM pgwake.mode_for(rel, always, timing);
  PERFORM pgwake.settle();
  -- What waits of it in the outbox is told under the number that it had.
  UPDATE pgwake.watched SET ended = false WHERE id = (SELECT max(id) FROM pgwake.watched WHERE relid = rel)
    AND NOT EXISTS (SELECT FROM pgwake.watched WHERE relid = rel AND NOT ended);
  INSERT INTO pgwake.watched (relid, schema_name, table_name, ops, payload, transport, columns, when_changed,
      always, channel, timing, mode, shape)
    SELECT rel, n.nspname, c.relname, watch_table.ops, watch_table.payload, watch_table.transport,
      watch_table.columns, watch_table.when_changed, coalesce(watch_table.always, false),
      watch_table.channel, watch_table.timing, '', ''
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.oid = rel
    ON CONFLICT (relid) WHERE NOT ended DO UPDATE SET schema_name = excluded.schema_name,
      table_name = excluded.table_name, ops = excluded.ops, payload = excluded.payload,
      transport = excluded.transport, columns = excluded.columns, when_changed = excluded.when_changed,
      always = excluded.always, channel = excluded.channel, timing = excluded.timing
    RETURNING * INTO w;
  IF payload = 'wake' THEN
    PERFORM pgwake.make_counter(coalesce(channel, 'pgwake'));
  END IF;
  PERFORM pgwake.attach(w);
  PERFORM pgwake.tell_readers();
  PERFORM pgwake.following(was);
END $pgwake$;

-- Running readers look whether what they read is still watched, and how. They do so now and then in any case:
-- a transaction that is to be prepared must not notify.
CREATE OR REPLACE FUNCTION pgwake.tell_readers() RETURNS void LANGUAGE plpgsql
  SET search_path = pg_catalog, pg_temp AS $pgwake$
BEGIN
  IF current_setting('max_prepared_transactions') = '0' THEN
    PERFORM pgwake.ring('pgwake', 'watched');
  END IF;
END $pgwake$;

-- Makes the functions and triggers of a watched table as they should be now.
CREATE OR REPLACE FUNCTION pgwake.attach(w pgwake.watched) RETURNS void LANGUAGE plpgsql
  SET search_path = pg_catalog, pg_temp AS $pgwake$
DECLARE
  op text;
  member oid;
BEGIN
  PERFORM pgwake.detach(w.relid);
  w.mode := pgwake.mode_for(w.relid, w.always, w.timing);
  w.shape := pgwake.shape_of(w.relid);
  UPDATE pgwake.watched SET mode = w.mode, shape = w.shape WHERE id = w.id;
  FOREACH op IN ARRAY w.ops LOOP
    CONTINUE WHEN op = 'truncate' AND w.mode = 'instead';
    CONTINUE WHEN w.mode = 'instead' AND NOT EXISTS (SELECT FROM pg_trigger WHERE tgrelid = w.relid
      AND pgwake.is_instead_of(tgname, tgtype, op));
    PERFORM pgwake.generate(w, op);
    FOR member IN SELECT pgwake.members_for(w, op) LOOP
      PERFORM pgwake.make_trigger(w, op, member);
    END LOOP;
  END LOOP;
  UPDATE pgwake.watched SET made = pgwake.made_of(w.id) WHERE id = w.id;
END $pgwake$;

-- When this differs, somebody else has altered our functions.
CREATE OR REPLACE FUNCTION pgwake.made_of(watch int) RETURNS text LANGUAGE sql STABLE
  SET search_path = pg_catalog, pg_temp AS $pgwake$
  SELECT md5(concat(string_agg(format('%s %s %s %s', proname, prosecdef, proconfig, prosrc), ','
      ORDER BY proname),
    -- What the library is told is part of it.
    (SELECT string_agg(encode(tgargs, 'escape'), ',' ORDER BY tgname) FROM pgwake.own_trigger
      WHERE is_by_library AND function_name ~ format('^change_%s_', watch))))
  FROM pg_proc WHERE pronamespace = 'pgwake'::regnamespace AND proname ~ format('^change_%s_', watch)
$pgwake$;

-- The relations that need a trigger of their own. The server clones a partitioned table's row triggers.
CREATE OR REPLACE FUNCTION pgwake.members_for(w pgwake.watched, op text) RETURNS SETOF oid LANGUAGE sql STABLE
  SET search_path = pg_catalog, pg_temp AS $pgwake$
  SELECT c.oid FROM pgwake.family(w.relid) AS f (member) JOIN pg_class c ON c.oid = f.member
  WHERE CASE
    WHEN c.relkind = 'f' AND op = 'truncate' THEN current_setting('server_version_num')::int >= 160000
    WHEN c.oid = w.relid OR op = 'truncate' THEN true
    ELSE NOT EXISTS (SELECT FROM pg_inherits i JOIN pg_class p ON p.oid = i.inhparent
      WHERE i.inhrelid = c.oid AND p.relkind = 'p') END
$pgwake$;

CREATE OR REPLACE FUNCTION pgwake.make_trigger(w pgwake.watched, op text, member oid) RETURNS void
  LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $pgwake$
DECLARE
  -- Triggers fire in the order of their names, and ours is to see what the others made of the row.
  name text := CASE WHEN w.mode IN ('instead', 'before') THEN '~' ELSE '' END
    || format('pgwake_%s_%s', w.id, op);
  owner oid := (SELECT relowner FROM pg_class WHERE oid = member);
BEGIN
  -- The server asks whoever attaches a partition for this right.
  EXECUTE format('GRANT EXECUTE ON FUNCTION %s() TO %s', pgwake.function_for(w, op), owner::regrole);
  EXECUTE format('CREATE TRIGGER %I %s %s ON %s %s %s EXECUTE FUNCTION %s', name,
    CASE w.mode WHEN 'instead' THEN 'INSTEAD OF' WHEN 'before' THEN 'BEFORE' ELSE 'AFTER' END, op,
    member::regclass,
    CASE WHEN op = 'truncate' OR w.mode <> 'statement' THEN ''
      WHEN op = 'insert' THEN 'REFERENCING NEW TABLE AS pgwake_new'
      WHEN op = 'delete' THEN 'REFERENCING OLD TABLE AS pgwake_old'
      ELSE 'REFERENCING OLD TABLE AS pgwake_old NEW TABLE AS pgwake_new' END,
    CASE WHEN op = 'truncate' OR w.mode = 'statement' THEN 'FOR EACH STATEMENT' ELSE 'FOR EACH ROW' END,
    pgwake.call_for(w, op));
  IF w.always THEN
    EXECUTE format('ALTER TABLE %s ENABLE ALWAYS TRIGGER %I', member::regclass, name);
  END IF;
END $pgwake$;

-- Takes the triggers off, and drops their functions; those of no watch, where `rel` is NULL.
CREATE OR REPLACE FUNCTION pgwake.detach(rel oid) RETURNS void LANGUAGE plpgsql
  SET search_path = pg_catalog, pg_temp AS $pgwake$
DECLARE
  trigger record;
  function regprocedure;
BEGIN
  FOR function IN SELECT p.oid FROM pg_proc p LEFT JOIN pgwake.watched w
        ON w.id::text = split_part(p.proname, '_', 2)
      WHERE w.relid IS NOT DISTINCT FROM rel AND p.pronamespace = 'pgwake'::regnamespace
        AND p.proname ~ '^change_[0-9]+_' LOOP
    FOR trigger IN SELECT tgrelid::regclass AS member, tgname FROM pgwake.own_trigger
        JOIN pg_proc p ON p.oid = function AND p.proname = function_name WHERE tgparentid = 0 LOOP
      EXECUTE format('DROP TRIGGER %I ON %s', trigger.tgname, trigger.member);
    END LOOP;
    EXECUTE format('DROP FUNCTION %s', function);
  END LOOP;
END $pgwake$;

CREATE OR REPLACE FUNCTION pgwake.unwatch_table(rel regclass) RETURNS void LANGUAGE plpgsql
  SET search_path = pg_catalog, pg_temp AS $pgwake$
DECLARE
  was text := pgwake.following('on');
BEGIN
  PERFORM pgwake.detach(rel);
  -- Rows of it may still wait in the outbox: they need to know their table.
  UPDATE pgwake.watched SET ended = true WHERE relid = rel;
  PERFORM pgwake.tell_readers();
  PERFORM pgwake.following(was);
END $pgwake$;

-- Makes every trigger anew: after an upgrade, or after tables were altered. A table that cannot be watched
-- any longer stops nobody.
CREATE OR REPLACE FUNCTION pgwake.rebuild(only_stale bool DEFAULT false, touched oid[] DEFAULT NULL)
  RETURNS void LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET jit = off AS $pgwake$
DECLARE
  w pgwake.watched;
  was text := pgwake.following('on');
BEGIN
  IF NOT only_stale THEN
    PERFORM pgwake.settle();
    PERFORM pgwake.detach(NULL);
  END IF;
  FOR w IN SELECT * FROM pgwake.concerned(touched) ORDER BY id LOOP
    BEGIN
      IF NOT EXISTS (SELECT FROM pg_class WHERE oid = w.relid) THEN
        PERFORM pgwake.detach(w.relid);
        UPDATE pgwake.watched SET ended = true WHERE id = w.id AND NOT ended;
        IF FOUND THEN
          PERFORM pgwake.tell_readers();
        END IF;
      ELSIF NOT w.ended AND (NOT only_stale OR pgwake.is_stale(w)) THEN
        PERFORM pgwake.attach(w);
      END IF;
    EXCEPTION WHEN OTHERS THEN
      RAISE WARNING 'pgwake: the triggers of %.% could not be made: %', w.schema_name, w.table_name, SQLERRM;
    END;
  END LOOP;
  PERFORM pgwake.following(was);
END $pgwake$;

-- A watch's triggers, wherever they are, and how they should be; the bits are pg_trigger.h's.
CREATE OR REPLACE FUNCTION pgwake.triggers_of(w pgwake.watched)
  RETURNS TABLE (op text, function oid, rel oid, tgname name, tgenabled "char", parent oid, is_as_made bool)
  LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $pgwake$
  SELECT o.op, p.oid, t.tgrelid, t.tgname, t.tgenabled, t.tgparentid,
    t.tgqual IS NULL AND t.tgattr::text = '' AND t.tgtype =
      CASE o.op WHEN 'insert' THEN 4 WHEN 'delete' THEN 8 WHEN 'update' THEN 16 ELSE 32 END
      + CASE WHEN o.op = 'truncate' OR w.mode = 'statement' THEN 0 ELSE 1 END
      + CASE w.mode WHEN 'before' THEN 2 WHEN 'instead' THEN 64 ELSE 0 END
  FROM unnest(w.ops) AS o (op)
    JOIN pg_proc p ON p.pronamespace = 'pgwake'::regnamespace
      AND p.proname = format('change_%s_%s', w.id, o.op)::name
    JOIN pgwake.own_trigger t ON t.function_name = p.proname
$pgwake$;

-- The watches that a change of these relations may concern: their own, their ancestors', those that have a
-- trigger on them, and those whose table is gone. NULL: all.
CREATE OR REPLACE FUNCTION pgwake.concerned(touched oid[]) RETURNS SETOF pgwake.watched LANGUAGE sql STABLE
  SET search_path = pg_catalog, pg_temp AS $pgwake$
  WITH RECURSIVE above AS (
    SELECT unnest(touched) AS rel
    UNION SELECT i.inhparent FROM above a JOIN pg_inherits i ON i.inhrelid = a.rel
  )
  SELECT w.* FROM pgwake.watched w
  WHERE touched IS NULL OR w.relid IN (SELECT rel FROM above)
    OR NOT w.ended AND NOT EXISTS (SELECT FROM pg_class c WHERE c.oid = w.relid)
    OR format('%s', w.id) IN (SELECT split_part(t.function_name, '_', 2) FROM pgwake.own_trigger t
      WHERE t.tgrelid = ANY (touched))
$pgwake$;

-- Whether the triggers are not as they would be made now. One that somebody has disabled stays so.
CREATE OR REPLACE FUNCTION pgwake.is_stale(w pgwake.watched) RETURNS bool LANGUAGE sql STABLE
  SET search_path = pg_catalog, pg_temp AS $pgwake$
  SELECT w.shape <> pgwake.shape_of(w.relid) OR w.mode <> pgwake.mode_for(w.relid, w.always, w.timing)
    OR EXISTS (SELECT FROM unnest(w.ops) o, pgwake.members_for(w, o) m
      WHERE w.mode <> 'instead' AND NOT EXISTS (SELECT FROM pgwake.triggers_of(w) t
        WHERE t.op = o AND t.rel = m))
    OR EXISTS (SELECT FROM pgwake.triggers_of(w) t JOIN pg_class c ON c.oid = t.rel
      WHERE t.parent = 0 AND t.rel NOT IN (SELECT pgwake.family(w.relid))
        OR w.always AND t.tgenabled = 'O'
        OR w.mode <> 'statement' AND NOT has_function_privilege(c.relowner, t.function, 'EXECUTE'))
$pgwake$;

-- How a table is watched, for readers without a right to the list.
CREATE OR REPLACE FUNCTION pgwake.watch_of(rel regclass, OUT transport text, OUT channel text)
  RETURNS SETOF record LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $pgwake$
  SELECT w.transport, w.channel FROM pgwake.watched w WHERE w.relid = rel AND NOT w.ended
$pgwake$;

-- The same; a table that is not watched is from now on, or is refused. What is watched already stays as it
-- is. A reader's connection must not wait for long: it would be taken for a frozen one.
DROP FUNCTION IF EXISTS pgwake.ensure_watched(regclass, bool, text[], text, text, name[]);
CREATE OR REPLACE FUNCTION pgwake.ensure_watched(rel regclass, make bool, ops text[], payload text,
    wanted text, columns name[], timing text DEFAULT 'after', OUT transport text, OUT channel text)
  LANGUAGE plpgsql
  SET search_path = pg_catalog, pg_temp AS $pgwake$
BEGIN
  SELECT * INTO transport, channel FROM pgwake.watch_of(rel);
  IF transport IS NULL AND NOT make THEN
    RAISE EXCEPTION 'the table % is not watched', rel USING ERRCODE = 'object_not_in_prerequisite_state',
      HINT = format('SELECT pgwake.watch_table(%L)', rel);
  ELSIF transport IS NULL THEN
    PERFORM set_config('lock_timeout', '400ms', true);
    -- On a channel of its own a reader hears of no other table, nor of one in another database.
    PERFORM pgwake.watch_table(rel, coalesce(ops, '{insert,update,delete,truncate}'),
      coalesce(payload, 'key'), wanted, columns,
      channel => CASE wanted WHEN 'notify' THEN 'pgwake_' || nextval('pgwake.outbox_id') END,
      timing => timing);
    SELECT * INTO transport, channel FROM pgwake.watch_of(rel);
  END IF;
END $pgwake$;
