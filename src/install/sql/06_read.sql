-- Reads the outbox. README.md beside this directory has the protocol.
--
-- A position is `before|upto|last`. What is visible in the snapshot `before` has been read. When `upto` is
-- not empty, what is visible in it and not in `before` is being read in the order of the ids, page by page,
-- up to and including the change `last`. The difference of two snapshots loses nothing and repeats nothing,
-- whatever the order in which transactions commit.

-- How many rows of an outbox table a consumer has not acknowledged, of its own tables; no more than `most`.
CREATE OR REPLACE FUNCTION pgwake.unread(c pgwake.consumer, box int, most bigint DEFAULT NULL) RETURNS bigint
  LANGUAGE plpgsql STABLE SET enable_seqscan = off SET jit = off AS $pgwake$
DECLARE
  before pg_snapshot := split_part(c."position", '|', 1);
  result bigint;
BEGIN
  EXECUTE format('SELECT coalesce(sum(CASE op WHEN ''gap'' THEN
        coalesce(substring(changes::json ->> $5 FROM ''^[0-9]+$'')::bigint, 1) ELSE 1 END), 0)
      FROM (SELECT op, changes FROM pgwake.outbox_%s
      WHERE (xid >= pg_snapshot_xmax($1) OR xid = ANY ($2))
      AND NOT (id + 255 <= $3 AND pg_visible_in_snapshot(xid, $4)) AND CASE op
        WHEN ''gap'' THEN changes::json ->> $5 IS NOT NULL WHEN ''spilled'' THEN false
        ELSE $6 IS NULL OR watch IN (SELECT w.id FROM pgwake.watched w WHERE w.relid = ANY ($6)) END
      LIMIT $7) r', box)
    INTO result USING before, ARRAY(SELECT pg_snapshot_xip(before)),
      coalesce(nullif(split_part(c."position", '|', 3), ''), '0')::bigint,
      coalesce(nullif(split_part(c."position", '|', 2), '')::pg_snapshot, before), c.name, c.relids, most;
  RETURN result;
END $pgwake$;

-- Whether policies of row-level security hide rows of a table from a role. They are for queries, and changes
-- are of all rows.
CREATE OR REPLACE FUNCTION pgwake.hides_rows(rel oid, role name) RETURNS bool LANGUAGE sql STABLE AS $pgwake$
  SELECT c.relrowsecurity AND NOT r.rolsuper AND NOT r.rolbypassrls
    AND (c.relforcerowsecurity OR NOT pg_has_role(r.oid, c.relowner, 'USAGE'))
  FROM pg_class c, pg_roles r WHERE c.oid = rel AND r.rolname = role
$pgwake$;

-- A consumer without a name is given one, under which it may come back after an outage.
CREATE OR REPLACE FUNCTION pgwake.open_consumer(consumer text DEFAULT NULL, rels regclass[] DEFAULT NULL,
    from_start bool DEFAULT false, OUT consumer_name text, OUT "position" text)
  LANGUAGE plpgsql SECURITY DEFINER SET lock_timeout = '5s' AS $pgwake$
DECLARE
  caller name := pgwake.caller();
  denied text;
  secured text;
  number int;
BEGIN
  PERFORM pgwake.settle();
  SELECT string_agg(w.name, ', ') FILTER (WHERE NOT has_table_privilege(caller, w.relid, 'SELECT')),
      string_agg(w.name, ', ') FILTER (WHERE pgwake.hides_rows(w.relid, caller))
    INTO denied, secured FROM pgwake.live w WHERE rels IS NULL OR w.relid = ANY (rels);
  IF denied IS NOT NULL THEN
    RAISE EXCEPTION 'permission denied for the changes of %', denied USING
      ERRCODE = 'insufficient_privilege', HINT = format('GRANT SELECT ON %s TO %I', denied, caller);
  ELSIF secured IS NOT NULL THEN
    RAISE EXCEPTION 'row-level security hides rows of %, and changes are of all rows', secured
      USING ERRCODE = 'insufficient_privilege',
        HINT = format('ALTER ROLE %I BYPASSRLS, or read as the owner of the tables', caller);
  END IF;
  consumer_name := coalesce(consumer, 'unnamed ' || gen_random_uuid());
  -- A table that is gone may be read on by who could read it before.
  INSERT INTO pgwake.consumer AS c (name, is_named, role, relids, "position")
    VALUES (consumer_name, consumer_name NOT LIKE 'unnamed %', caller,
      CASE WHEN rels IS NOT NULL THEN ARRAY(SELECT oid FROM pg_class WHERE oid = ANY (rels)) END,
      CASE WHEN from_start THEN '1:1:||' ELSE pg_current_snapshot() || '||' END)
    ON CONFLICT (name) DO UPDATE SET role = caller, seen_at = clock_timestamp(),
      relids = CASE WHEN rels IS NOT NULL THEN ARRAY(SELECT r FROM unnest(rels::oid[]) r
        WHERE r = ANY (excluded.relids) OR r = ANY (c.relids)) END
    RETURNING c.id, c."position" INTO number, "position";
  -- A generated name is known to one reader alone, whose earlier session the server may not have given up
  -- yet.
  IF consumer_name LIKE 'unnamed %' THEN
    PERFORM pg_advisory_lock_shared(1885828971, 1000 + number);
  ELSIF NOT pg_try_advisory_lock(1885828971, 1000 + number) THEN
    RAISE EXCEPTION 'the consumer "%" is in use by backend %', consumer_name, pgwake.backend_of(number)
      USING ERRCODE = 'object_in_use', HINT = 'Stop the other one, or take another name.';
  END IF;
  PERFORM pg_advisory_lock_shared(1885828971, 2);
END $pgwake$;

-- Who reads as a consumer now.
CREATE OR REPLACE FUNCTION pgwake.backend_of(consumer int) RETURNS int LANGUAGE sql STABLE AS $pgwake$
  SELECT l.pid FROM pg_locks l JOIN pg_database d ON d.oid = l.database
  WHERE d.datname = current_database() AND l.locktype = 'advisory' AND l.classid = 1885828971
    AND l.objid = 1000 + consumer AND l.granted LIMIT 1
$pgwake$;

-- Whether transactions that have written to the outbox are still at work: each holds a lock on it until after
-- its commit can be seen.
CREATE OR REPLACE FUNCTION pgwake.has_writers() RETURNS bool LANGUAGE plpgsql VOLATILE AS $pgwake$
BEGIN
  RETURN EXISTS (SELECT FROM pg_locks WHERE locktype = 'relation' AND mode = 'RowExclusiveLock'
    AND relation IN ('pgwake.outbox_0'::regclass, 'pgwake.outbox_1'::regclass, 'pgwake.outbox_2'::regclass)
    AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
    AND pid IS DISTINCT FROM pg_backend_pid());
END $pgwake$;

-- The next page after a position: `change` and `gap` rows, then one `end` row, whose body is the next
-- position, and whose number says what to do. A page ends after an outbox row, so it has one at least.
CREATE OR REPLACE FUNCTION pgwake.read(consumer text, "position" text, rows_max int DEFAULT 10000, bytes_max
    int DEFAULT 1048576) RETURNS TABLE (kind text, number bigint, body text)
  LANGUAGE plpgsql SECURITY DEFINER SET jit = off SET enable_seqscan = off
  SET plan_cache_mode = force_generic_plan AS $pgwake$
DECLARE
  before pg_snapshot := split_part("position", '|', 1);
  upto pg_snapshot := nullif(split_part("position", '|', 2), '')::pg_snapshot;
  last bigint := coalesce(nullif(split_part("position", '|', 3), ''), '0')::bigint;
  is_new bool := upto IS NULL;
  relids oid[];
  o pgwake.outbox_0;
  previous pgwake.outbox_0;
  w pgwake.watched;
  head text;
  is_busy bool;
  caller name := pgwake.caller();
  rows_read int := 0;
  bytes_read bigint := 0;
  -- No reader has to take in a change that is larger: pgwake.fetch(id) gives it. In UTF-8 it can be twice as
  -- long.
  largest int := CASE getdatabaseencoding() WHEN 'UTF8' THEN 8388608 ELSE 4194304 END;
BEGIN
  SELECT c.relids INTO relids FROM pgwake.consumer c WHERE c.name = consumer AND c.role = caller;
  IF NOT FOUND THEN
    RAISE EXCEPTION 'there is no consumer "%"', consumer USING ERRCODE = 'undefined_object',
      HINT = 'Open it again: somebody has dropped it, or opened it as another role.';
  ELSIF current_setting('transaction_isolation') NOT IN ('read committed', 'read uncommitted') THEN
    RAISE EXCEPTION 'the outbox is read in transactions that are READ COMMITTED'
      USING ERRCODE = 'invalid_transaction_state',
        HINT = 'SET default_transaction_isolation = ''read committed''';
  END IF;
  LOOP
    upto := coalesce(upto, pg_current_snapshot());
    FOR o IN SELECT * FROM
        (TABLE pgwake.outbox_0 UNION ALL TABLE pgwake.outbox_1 UNION ALL TABLE pgwake.outbox_2) r
        WHERE (r.xid >= pg_snapshot_xmax(before) OR r.xid = ANY (ARRAY(SELECT pg_snapshot_xip(before))))
          AND r.xid < pg_snapshot_xmax(upto) AND pg_visible_in_snapshot(r.xid, upto)
          AND r.id > last - 255 AND r.op <> 'spilled'
        ORDER BY r.id LIMIT rows_max + 2 LOOP
      IF rows_read >= rows_max OR bytes_read >= bytes_max THEN
        kind := 'end';
        number := 1;
        body := concat_ws('|', before, upto, last);
        RETURN NEXT;
        RETURN;
      END IF;
      -- What changes have in common is made when it is another.
      IF (o.watch, o.part, o.op) IS DISTINCT FROM (previous.watch, previous.part, previous.op) THEN
        SELECT * INTO w FROM pgwake.watched d WHERE d.id = o.watch;
        -- A dump without data leaves triggers of no watch.
        head := CASE WHEN FOUND AND (relids IS NULL OR w.relid = ANY (relids))
          THEN pgwake.change_head(w, o.part, o.op) END;
        IF relids IS NULL AND NOT EXISTS (SELECT FROM pg_class c WHERE c.oid = w.relid) THEN
          head := NULL;
        ELSIF head IS NOT NULL AND NOT has_table_privilege(caller, w.relid, 'SELECT') THEN
          RAISE EXCEPTION 'permission denied for the changes of %.%', w.schema_name, w.table_name
            USING ERRCODE = 'insufficient_privilege',
            HINT = format('GRANT SELECT ON %I.%I TO %I', w.schema_name, w.table_name, caller);
        END IF;
        previous := o;
      END IF;
      IF o.op = 'gap' THEN
        RETURN QUERY SELECT 'gap', o.id, o.changes::json ->> consumer
          WHERE o.id > last AND o.changes::json ->> consumer IS NOT NULL;
      ELSIF head IS NOT NULL THEN
        BEGIN
          RETURN QUERY SELECT 'change', o.id + place - 1, pgwake.change_json(head, o.xid, o.id + place - 1,
              CASE WHEN octet_length(v) > largest THEN format('{"oversize":%s}', octet_length(v)) ELSE v END)
            FROM json_array_elements(o.changes::json) WITH ORDINALITY c (value, place), CAST(value AS text) v
            WHERE o.id + place - 1 > last ORDER BY place;
        -- JSON that is nested too deep must not stop the reader.
        EXCEPTION WHEN OTHERS THEN
          RETURN QUERY SELECT 'change', o.id, pgwake.change_json(head, o.xid, o.id,
            format('{"unconvertible":"%s"}', SQLSTATE)) WHERE o.id > last;
        END;
        bytes_read := bytes_read + octet_length(o.changes);
      END IF;
      rows_read := rows_read + 1;
      last := greatest(last, CASE o.op WHEN 'gap' THEN o.id ELSE o.id + 255 END);
    END LOOP;
    EXIT WHEN rows_read > 0 OR NOT is_new OR is_busy IS NOT NULL;
    -- Nothing is there yet. First who is at work, then another snapshot: who found a leader is in one of the
    -- two.
    is_busy := pgwake.has_writers();
    upto := NULL;
  END LOOP;
  kind := 'end';
  number := CASE
    WHEN NOT is_new THEN 1
    WHEN rows_read > 0 THEN 2
    WHEN pgwake.may_be_prepared() THEN 3
    WHEN is_busy THEN 2
    ELSE 0 END;
  body := concat(upto, '||');
  RETURN NEXT;
END $pgwake$;

-- What came before this position has been taken care of, for good.
CREATE OR REPLACE FUNCTION pgwake.acknowledge(consumer text, "position" text) RETURNS void
  LANGUAGE sql SECURITY DEFINER AS $pgwake$
  UPDATE pgwake.consumer AS c
    SET "position" = acknowledge."position", acknowledged_at = clock_timestamp(), seen_at = clock_timestamp()
    WHERE c.name = acknowledge.consumer AND c.role = pgwake.caller()
$pgwake$;

-- Forgets a consumer and its position.
CREATE OR REPLACE FUNCTION pgwake.drop_consumer(consumer text) RETURNS void
  LANGUAGE sql SECURITY DEFINER AS $pgwake$
  DELETE FROM pgwake.consumer AS c WHERE c.name = drop_consumer.consumer
$pgwake$;

-- The changes of an outbox row: what a notification refers to, or what was too large to be read. Once all of
-- it together is longer than `bytes_max`, the length instead of each further change.
CREATE OR REPLACE FUNCTION pgwake.fetch(reference bigint, bytes_max int DEFAULT NULL) RETURNS SETOF text
  LANGUAGE sql STABLE SECURITY DEFINER AS $pgwake$
  SELECT CASE WHEN o.op <> 'spilled' THEN pgwake.change_json(pgwake.change_head(w, o.part, o.op), o.xid,
      o.id + c.place - 1, c.change)
    ELSE c.change END
  FROM (TABLE pgwake.outbox_0 UNION ALL TABLE pgwake.outbox_1 UNION ALL TABLE pgwake.outbox_2) o
    LEFT JOIN pgwake.watched w ON w.id = o.watch LEFT JOIN pg_class r ON r.oid = w.relid,
    LATERAL (SELECT place, CASE
        WHEN sum(octet_length(v)) OVER (ORDER BY place) <= coalesce(bytes_max, 2147483647) THEN v
        WHEN o.op = 'spilled' THEN (SELECT json_object_agg(k, coalesce(value -> k,
          to_json(octet_length(v)))) FROM unnest('{op,schema,table,oversize}'::text[]) k)::text
        ELSE format('{"oversize":%s}', octet_length(v)) END AS change
      FROM json_array_elements(o.changes::json) WITH ORDINALITY e (value, place), CAST(e.value AS text) v) c
  WHERE o.id = reference - reference % 256 AND o.op <> 'gap'
    AND CASE WHEN w.id IS NULL THEN o.op = 'spilled'
      WHEN r.oid IS NULL THEN pg_has_role(pgwake.caller(), 10, 'USAGE')
      ELSE has_table_privilege(pgwake.caller(), r.oid, 'SELECT')
        AND NOT pgwake.hides_rows(r.oid, pgwake.caller()) END
  ORDER BY c.place
$pgwake$;
