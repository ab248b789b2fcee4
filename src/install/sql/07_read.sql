-- Reads the outbox. README.md beside this directory has the protocol, 07_position.sql what a position is.

-- A reader looks at the locks and then at a snapshot from after that: one from before would miss for good
-- what ended in between.
CREATE OR REPLACE FUNCTION pgwake.expect_read_committed() RETURNS void LANGUAGE plpgsql
  SET search_path = pg_catalog, pg_temp AS $pgwake$
BEGIN
  IF current_setting('transaction_isolation') NOT IN ('read committed', 'read uncommitted') THEN
    RAISE EXCEPTION 'the outbox is read in transactions that are READ COMMITTED'
      USING ERRCODE = 'invalid_transaction_state',
        HINT = 'SET default_transaction_isolation = ''read committed''';
  END IF;
END $pgwake$;

-- Tables of which a role may see some rows only: policies are for queries, and changes are told of all rows.
CREATE OR REPLACE FUNCTION pgwake.has_hidden_rows(role name, rel oid) RETURNS bool LANGUAGE sql STABLE
  SET search_path = pg_catalog, pg_temp AS $pgwake$
  SELECT EXISTS (SELECT FROM pg_class c, pg_roles r
    WHERE c.oid = rel AND c.relrowsecurity AND r.rolname = role AND NOT r.rolsuper AND NOT r.rolbypassrls
    AND (c.relforcerowsecurity OR NOT pg_has_role(r.oid, c.relowner, 'USAGE')))
$pgwake$;

CREATE OR REPLACE FUNCTION pgwake.open_consumer(consumer text DEFAULT NULL, rels regclass[] DEFAULT NULL,
    from_start bool DEFAULT false, OUT consumer_name text, OUT "position" text)
  LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET lock_timeout = '5s' AS $pgwake$
DECLARE
  number int;
  -- Also one of this session that comes back under its name, after somebody has dropped it.
  is_temporary bool := consumer IS NULL OR starts_with(consumer, format('session %s of ', pg_backend_pid()));
  hidden text;
  -- Where nobody writes, all ids are of transactions that have ended.
  settled bigint := coalesce(pg_sequence_last_value('pgwake.outbox_id'), 0);
  marks text := CASE WHEN pg_current_xact_id_if_assigned() IS NULL AND NOT pgwake.has_writers()
    THEN concat(';0;', settled) END;
BEGIN
  PERFORM pgwake.expect_read_committed();
  PERFORM pgwake.settle();
  -- Whoever reads changes reads rows.
  SELECT string_agg(format('%I.%I', w.schema_name, w.table_name), ', ') INTO hidden FROM pgwake.watched w
    WHERE NOT w.ended AND (rels IS NULL OR w.relid = ANY (rels::oid[]))
      AND NOT has_table_privilege(session_user, w.relid, 'SELECT');
  IF hidden IS NOT NULL THEN
    RAISE EXCEPTION 'permission denied for the changes of %', hidden USING ERRCODE = 'insufficient_privilege',
      HINT = format('GRANT SELECT ON %s TO %I', hidden, session_user);
  END IF;
  SELECT string_agg(format('%I.%I', w.schema_name, w.table_name), ', ') INTO hidden FROM pgwake.watched w
    WHERE NOT w.ended AND (rels IS NULL OR w.relid = ANY (rels::oid[]))
      AND pgwake.has_hidden_rows(session_user, w.relid);
  IF hidden IS NOT NULL THEN
    RAISE EXCEPTION 'row-level security hides rows of %, and changes are told of all rows', hidden
      USING ERRCODE = 'insufficient_privilege',
      HINT = format('ALTER ROLE %I BYPASSRLS, or read as the owner of the tables', session_user);
  END IF;
  consumer_name := coalesce(consumer, format('session %s of %s', pg_backend_pid(), clock_timestamp()));
  INSERT INTO pgwake.consumer AS c (name, relids, "position", holder)
    VALUES (consumer_name, rels::oid[],
      CASE WHEN from_start THEN '1:1:||' ELSE concat(pg_current_snapshot(), marks, '||') END,
      CASE WHEN is_temporary THEN pg_backend_pid() END)
    ON CONFLICT (name) DO UPDATE SET relids = rels::oid[], ear = NULL
    RETURNING c.id, c."position" INTO number, "position";
  IF NOT pg_try_advisory_lock(1885828971, 1000 + number) THEN
    RAISE EXCEPTION 'the consumer "%" is in use by backend %', consumer_name,
        (SELECT l.pid FROM pg_locks l WHERE l.locktype = 'advisory' AND l.classid = 1885828971
           AND l.objid = 1000 + number AND l.granted
           AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database()))
      USING ERRCODE = 'object_in_use', HINT = 'Stop the other one, or take another name.';
  END IF;
  PERFORM pg_advisory_lock_shared(1885828971, 2);
  PERFORM pg_advisory_xact_lock(1885828971, 3);
  PERFORM pgwake.set_state(pgwake.turn(), true);
  -- A reader that comes again with a position of its own sees whether it is one of here.
  "position" := concat_ws('|', split_part("position", '|', 1), split_part("position", '|', 2),
    split_part("position", '|', 3), pgwake.place());
END $pgwake$;

-- A single reader that is awake looks by itself and turns the bell off: nobody pays for a NOTIFY. Any other
-- has it on before it looks for the last time.
CREATE OR REPLACE FUNCTION pgwake.turn_bell(stay_awake bool) RETURNS void LANGUAGE plpgsql
  SET search_path = pg_catalog, pg_temp AS $pgwake$
BEGIN
  -- Without a function of ours: this is asked at each call.
  IF (SELECT s.last_value & 8191 = 0 FROM pgwake.state s) <> (stay_awake IS TRUE) THEN
    RETURN;
  END IF;
  -- Whoever opens turns it on under this lock, and has been counted by then or turns it on later.
  PERFORM pg_advisory_xact_lock(1885828971, 3);
  IF NOT stay_awake OR (SELECT count(*) FROM (
      SELECT FROM pg_locks WHERE locktype = 'advisory' AND classid = 1885828971 AND objid = 2
        AND mode = 'ShareLock'
        AND database = (SELECT oid FROM pg_database WHERE datname = current_database()) LIMIT 2) l) = 1 THEN
    PERFORM pgwake.set_state(pgwake.turn(), stay_awake IS NOT TRUE);
  END IF;
END $pgwake$;

-- In doubt, that a transaction is still at work: who has looked whether to ring has a lock until its end. Who
-- has no number looked without writing, as a dump or a tool that shows sequences does.
CREATE OR REPLACE FUNCTION pgwake.has_writers() RETURNS bool LANGUAGE plpgsql VOLATILE
  SET search_path = pg_catalog, pg_temp AS $pgwake$
BEGIN
  RETURN EXISTS (SELECT FROM pg_locks WHERE pid IS DISTINCT FROM pg_backend_pid() AND granted
      AND (locktype = 'transactionid' AND mode = 'ExclusiveLock'
        OR locktype = 'relation' AND mode = 'RowExclusiveLock' AND relation = 'pgwake.state'::regclass
          AND database = (SELECT oid FROM pg_database WHERE datname = current_database()))
    GROUP BY virtualtransaction
    HAVING bool_or(locktype = 'relation') AND bool_or(locktype = 'transactionid'));
END $pgwake$;

-- The next page after a position: `change` and `gap` rows, then one `end` row. Its body is the next position,
-- its number 0: nothing is left, wait; 1: there is more, call again; 2: writers are at work, call again soon.
-- With 0 comes a `settled` row before it: no outbox row up to that id is still to come.
CREATE OR REPLACE FUNCTION pgwake.read(consumer text, "position" text, stay_awake bool DEFAULT false,
    rows_max int DEFAULT 1000, bytes_max int DEFAULT 1048576)
  RETURNS TABLE (kind text, number bigint, body text)
  LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
  SET jit = off SET enable_seqscan = off SET enable_bitmapscan = off SET enable_sort = off
  SET plan_cache_mode = force_generic_plan AS $pgwake$
DECLARE
  begun text := split_part("position", '|', 1);
  before pg_snapshot := split_part(begun, ';', 1)::pg_snapshot;
  marks text := substr(begun, strpos(begun || ';', ';') + 1);
  upto pg_snapshot := nullif(split_part(split_part("position", '|', 2), ';', 1), '')::pg_snapshot;
  last bigint := coalesce(nullif(split_part("position", '|', 3), ''), '0')::bigint;
  first bigint := last / 4096;
  relids oid[];
  -- No reader has to take in one that is larger: pgwake.fetch(id / 4096) gives it. In UTF-8 and hexadecimal
  -- digits, as readers may ask for other encodings, it can be four times as long.
  largest int := CASE getdatabaseencoding() WHEN 'UTF8' THEN 8388608 ELSE 2097152 END;
  rows refcursor;
  o record;
  w pgwake.watched;
  -- At the end of a window that took several calls there may be more since.
  state int := CASE WHEN upto IS NULL THEN 0 ELSE 1 END;
  settled bigint;
  -- What this transaction has written is of none that has ended.
  is_writer bool := pg_current_xact_id_if_assigned() IS NOT NULL;
  drawn bigint;
  is_full bool := false;
  is_checked bool := false;
  is_new bool;
  rows_read int := 0;
  bytes_read bigint := 0;
  -- What the row read holds: see 01_schema.sql.
  opening text;
  news text;
  olds text;
  changes text[];
  keys text[];
  size int;
  place bigint;
  change text;
  key text;
  -- What it has in common with the one before.
  what bigint;
  headed text;
  op text;
  part oid;
  is_told bool;
  is_key bool;
  is_number bool;
  -- The beginnings of changes, by table, operation and partition.
  heads jsonb := '{}';
  head_key text;
  head text;
  old_head text;
BEGIN
  SELECT c.relids INTO relids FROM pgwake.consumer c WHERE c.name = consumer;
  IF NOT FOUND THEN
    RAISE EXCEPTION 'there is no consumer "%"', consumer USING ERRCODE = 'undefined_object',
      HINT = 'Open it again: somebody has dropped it.';
  END IF;
  PERFORM pgwake.expect_read_committed();
  PERFORM pgwake.turn_bell(stay_awake);
  LOOP
    is_new := upto IS NULL;
    IF is_new THEN
      upto := pg_current_snapshot();
      last := 0;
      drawn := coalesce(pg_sequence_last_value('pgwake.outbox_id'::regclass), 0);
      IF nullif(substring(marks FROM '[0-9]*$'), '')::bigint > drawn THEN
        marks := '';
      END IF;
      first := 1 + CASE WHEN marks LIKE '0;%' THEN substr(marks, 3)::bigint
        ELSE pgwake.floor_of("position", upto) END;
    END IF;
    -- The conditions stand outside, where they do not keep the planner from merging the tables by their ids.
    OPEN rows FOR SELECT r.* FROM (SELECT * FROM pgwake.outbox_0 UNION ALL SELECT * FROM pgwake.outbox_1
        UNION ALL SELECT * FROM pgwake.outbox_2) r
      WHERE r.id >= first AND pg_visible_in_snapshot(r.xid, upto)
        AND NOT pg_visible_in_snapshot(r.xid, before)
      ORDER BY r.id LIMIT rows_max + 2;
    LOOP
      FETCH rows INTO o;
      EXIT WHEN NOT FOUND;
      -- All in place, since a function would take as long as the rest; and arrays only where there are many.
      news := split_part(o.changes, E'\x1d', 2);
      IF news <> '' THEN
        opening := split_part(o.changes, E'\x1d', 1);
        olds := nullif(split_part(o.changes, E'\x1d', 3), '');
      ELSIF ascii(o.changes) BETWEEN 48 AND 57 THEN
        opening := split_part(o.changes, E'\x1c', 1);
        news := split_part(o.changes, E'\x1c', 2);
      ELSE
        opening := '';
        news := o.changes;
      END IF;
      IF strpos(news, E'\x1e') > 0 THEN
        changes := string_to_array(news, E'\x1e');
        keys := string_to_array(olds, E'\x1e');
        size := cardinality(changes);
      ELSE
        size := 1;
      END IF;
      -- The page before may have ended with this one.
      CONTINUE WHEN o.id * 4096 + size - 1 <= last;
      IF rows_read >= rows_max OR bytes_read >= bytes_max THEN
        is_full := true;
        EXIT;
      END IF;
      rows_read := rows_read + 1;
      -- What changes have in common is made when it is another: that takes longer than all the rest.
      IF o.what IS DISTINCT FROM what OR opening <> headed THEN
        what := o.what;
        headed := opening;
        op := chr((what % 128)::int);
        SELECT * INTO w FROM pgwake.watched d WHERE d.id = what / 128;
        -- A dump without data leaves triggers of no watch.
        is_told := FOUND AND op = lower(op) AND (relids IS NULL OR w.relid = ANY (relids));
        IF is_told AND NOT has_table_privilege(session_user, w.relid, 'SELECT') THEN
          RAISE EXCEPTION 'permission denied for the changes of %.%', w.schema_name, w.table_name
            USING ERRCODE = 'insufficient_privilege',
            HINT = format('GRANT SELECT ON %I.%I TO %I', w.schema_name, w.table_name, session_user);
        END IF;
        is_key := opening LIKE '{%';
        is_number := opening LIKE E'%\x1f';
        opening := rtrim(opening, E'\x1f');
        part := CASE WHEN NOT is_key THEN nullif(opening, '')::oid END;
        head_key := concat_ws(' ', what, part);
        IF is_told AND op <> '!' AND heads ->> head_key IS NULL THEN
          heads := heads || jsonb_build_object(head_key, pgwake.change_head(w, op::"char", part));
        END IF;
        head := concat(heads ->> head_key, CASE WHEN is_key THEN concat(',"key":', opening) END);
        old_head := concat('},"old":', opening);
      END IF;
      IF op = '!' THEN
        IF o.id * 4096 > last AND (o.changes::json ->> consumer) IS NOT NULL THEN
          RETURN QUERY SELECT 'gap', o.id * 4096, o.changes::json ->> consumer;
        END IF;
        last := greatest(last, o.id * 4096);
        CONTINUE;
      END IF;
      IF is_told THEN
        kind := 'change';
        FOR place IN greatest(last - o.id * 4096, -1) + 1 .. size - 1 LOOP
          IF bytes_read >= bytes_max THEN
            is_full := true;
            EXIT;
          END IF;
          number := o.id * 4096 + place;
          IF size = 1 THEN
            change := news;
            key := olds;
          ELSE
            change := changes[place + 1];
            key := keys[place + 1];
          END IF;
          IF is_key THEN
            IF is_number THEN
              -- Beyond 2^53 a JSON number is not exact everywhere.
              change := CASE WHEN change::bigint NOT BETWEEN -9007199254740992 AND 9007199254740992
                THEN concat('"', change, '"') ELSE change END;
              key := CASE WHEN key::bigint NOT BETWEEN -9007199254740992 AND 9007199254740992
                THEN concat('"', key, '"') ELSE key END;
            END IF;
            body := concat(head, change, CASE WHEN key <> change THEN concat(old_head, key) END, '},"xid":',
              o.xid, ',"id":', number, ',"transport":"outbox"}');
          ELSE
            IF octet_length(change) > largest THEN
              change := format('"oversize":%s', octet_length(change));
            END IF;
            body := concat(head, CASE WHEN change <> '' THEN ',' END, change, ',"xid":', o.xid,
              ',"id":', number, ',"transport":"outbox"}');
          END IF;
          bytes_read := bytes_read + octet_length(body);
          last := number;
          RETURN NEXT;
        END LOOP;
        EXIT WHEN is_full;
      END IF;
      last := greatest(last, o.id * 4096 + size - 1);
    END LOOP;
    CLOSE rows;
    EXIT WHEN is_checked OR NOT is_new OR rows_read > 0;
    -- Nothing is there yet. First who is at work, then another snapshot: who let another ring is in one of
    -- the two. The snapshot alone would not tell: the newest transactions at work are beyond its xmax. An id
    -- is drawn under the lock, so those drawn by now are of these, or can be seen.
    settled := coalesce(pg_sequence_last_value('pgwake.outbox_id'::regclass), 0);
    state := CASE WHEN pgwake.has_writers() THEN 2 ELSE 0 END;
    is_checked := true;
    upto := NULL;
  END LOOP;
  -- What was found costs no look at the locks on its way: the next call comes soon and has one.
  IF rows_read > 0 THEN
    state := greatest(state, CASE WHEN is_new THEN 2 ELSE 1 END);
  END IF;
  IF state = 0 AND settled IS NOT NULL AND NOT is_writer THEN
    marks := concat('0;', settled);
    kind := 'settled';
    number := settled;
    body := '';
    RETURN NEXT;
  ELSIF NOT is_full AND pg_sequence_last_value('pgwake.outbox_id'::regclass)
      >= coalesce(nullif(substring(marks FROM '[0-9]*$'), ''), '0')::bigint + 128 THEN
    -- Seldom, for it takes longer than to read as many rows once more.
    marks := pgwake.marks_after(marks, upto);
  END IF;
  kind := 'end';
  number := CASE WHEN is_full THEN 1 ELSE state END;
  body := CASE WHEN is_full THEN concat_ws('|', begun, upto, last) ELSE concat(upto, ';', marks, '||') END;
  RETURN NEXT;
END $pgwake$;

-- What came before this position has been taken care of, for good.
CREATE OR REPLACE FUNCTION pgwake.acknowledge(consumer text, "position" text) RETURNS void
  LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $pgwake$
  UPDATE pgwake.consumer AS c SET "position" = acknowledge."position", acknowledged_at = clock_timestamp()
    WHERE c.name = acknowledge.consumer
$pgwake$;

-- Forgets a consumer and its position.
CREATE OR REPLACE FUNCTION pgwake.drop_consumer(consumer text) RETURNS void
  LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $pgwake$
  DELETE FROM pgwake.consumer AS c WHERE c.name = drop_consumer.consumer
$pgwake$;

-- What a notification refers to that was too large for it. Once all of it together is longer than
-- `bytes_max`, the length instead of each further change.
DROP FUNCTION IF EXISTS pgwake.fetch(bigint);
CREATE OR REPLACE FUNCTION pgwake.fetch(reference bigint, bytes_max int DEFAULT NULL) RETURNS SETOF text
  LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $pgwake$
  SELECT CASE o.what / 128 WHEN 0 THEN u.c
    ELSE pgwake.change_json(w, chr((o.what % 128)::int)::"char", p.part,
    CASE WHEN u.total > bytes_max THEN format('"oversize":%s', octet_length(u.c)) ELSE u.c END,
    o.xid, o.id * 4096 + u.i - 1, 'outbox') END
  FROM (SELECT * FROM pgwake.outbox_0 WHERE id = reference UNION ALL
        SELECT * FROM pgwake.outbox_1 WHERE id = reference UNION ALL
        SELECT * FROM pgwake.outbox_2 WHERE id = reference) o
    LEFT JOIN pgwake.watched w ON w.id = o.what / 128,
    LATERAL (SELECT CASE WHEN ascii(o.changes) BETWEEN 48 AND 57
      THEN split_part(o.changes, E'\x1c', 1)::oid END AS part) p,
    LATERAL (SELECT t.c, t.i, sum(octet_length(t.c)) OVER (ORDER BY t.i) AS total FROM string_to_table(
      CASE WHEN p.part IS NULL THEN o.changes ELSE split_part(o.changes, E'\x1c', 2) END,
      E'\x1e') WITH ORDINALITY t (c, i)) u
  ORDER BY u.i
$pgwake$;
