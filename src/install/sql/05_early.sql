-- Tells a change together with the ring for it: a reader that has all that came before need not ask first.
--
-- Whoever may connect may listen, so a change goes to nobody but a reader's own channel, its ear, whose name
-- nobody else knows. The reader takes only the change that follows the last one that it knows of without a
-- gap, and reads the outbox as it would have without: what is told early is told sooner, and that is all.

-- For a consumer that this session has open. Its ear is another each time.
CREATE OR REPLACE FUNCTION pgwake.lend_ear(consumer text) RETURNS text LANGUAGE plpgsql SECURITY DEFINER
  SET search_path = pg_catalog, pg_temp AS $pgwake$
DECLARE
  channel text := 'pgwake_' || replace(gen_random_uuid()::text, '-', '');
BEGIN
  UPDATE pgwake.consumer AS c SET ear = channel,
      ear_role = (SELECT r.oid FROM pg_roles r WHERE r.rolname = session_user)
    WHERE c.name = lend_ear.consumer AND EXISTS (SELECT FROM pg_locks l WHERE l.locktype = 'advisory'
      AND l.classid = 1885828971 AND l.objid = 1000 + c.id AND l.pid = pg_backend_pid() AND l.granted);
  IF NOT FOUND THEN
    RAISE EXCEPTION 'this session has no consumer "%" open', consumer
      USING ERRCODE = 'object_not_in_prerequisite_state', HINT = 'Call pgwake.open_consumer first.';
  END IF;
  EXECUTE format('LISTEN %I', channel);
  RETURN channel;
END $pgwake$;

-- For whoever is about to ring, who pays for the readers' haste: so only up to eight statements that changed
-- one row each are told, by queries that look at one table each, since each new session plans them anew; and
-- only of the first ids from `first` on, for what comes later than others' is not what a reader waits for. It
-- gives what `read` would.
DROP FUNCTION IF EXISTS pgwake.tell_early();
CREATE OR REPLACE FUNCTION pgwake.tell_early(first bigint) RETURNS void LANGUAGE plpgsql
  SET search_path = pg_catalog, pg_temp SET enable_seqscan = off SET jit = off AS $pgwake$
DECLARE
  this xid8 := pg_current_xact_id();
  turn bigint := pg_sequence_last_value('pgwake.state'::regclass) >> 60;
  rows refcursor;
  o record;
  rel oid;
  named record;
  change text;
  opening text;
  old text;
  -- What does not fit into the server's queue fails its transaction, and the queue may be small.
  room int := 32768;
  told bigint;
BEGIN
  -- Where transactions are serializable, what is read here counts as read by the writer, and fails others.
  IF current_setting('transaction_isolation') = 'serializable'
     OR pg_notification_queue_usage() > 0.9::float8 THEN
    RETURN;
  ELSIF turn = 0 THEN
    OPEN rows FOR SELECT * FROM pgwake.outbox_0 WHERE id >= first AND id < first + 64 AND xid = this
      ORDER BY id LIMIT 8;
  ELSIF turn = 1 THEN
    OPEN rows FOR SELECT * FROM pgwake.outbox_1 WHERE id >= first AND id < first + 64 AND xid = this
      ORDER BY id LIMIT 8;
  ELSE
    OPEN rows FOR SELECT * FROM pgwake.outbox_2 WHERE id >= first AND id < first + 64 AND xid = this
      ORDER BY id LIMIT 8;
  END IF;
  LOOP
    FETCH rows INTO o;
    -- What follows one that is not told is not what a reader waits for.
    EXIT WHEN NOT FOUND OR strpos(o.changes, E'\x1e') > 0;
    SELECT relid INTO rel FROM pgwake.watched WHERE id = o.what / 128;
    named := pg_identify_object('pg_class'::regclass, rel, 0);
    EXIT WHEN named.name IS NULL;
    change := split_part(o.changes, E'\x1d', 2);
    IF change <> '' THEN
      opening := split_part(o.changes, E'\x1d', 1);
      old := nullif(split_part(o.changes, E'\x1d', 3), '');
      IF right(opening, 1) = E'\x1f' THEN
        opening := rtrim(opening, E'\x1f');
        -- Beyond 2^53 a JSON number is not exact everywhere.
        IF length(change) > 15 OR length(old) > 15 THEN
          change := CASE WHEN abs(change::numeric) > 9007199254740992 THEN concat('"', change, '"')
            ELSE change END;
          old := CASE WHEN abs(old::numeric) > 9007199254740992 THEN concat('"', old, '"') ELSE old END;
        END IF;
      END IF;
      change := concat(',"key":', opening, change,
        CASE WHEN old <> change THEN concat('},"old":', opening, old) END, '}');
    ELSIF ascii(o.changes) BETWEEN 48 AND 57 THEN
      change := concat(',"partition":', to_json(split_part(o.changes, E'\x1c', 1)::oid::regclass::text),
        ',' || nullif(split_part(o.changes, E'\x1c', 2), ''));
    ELSE
      change := ',' || nullif(o.changes, '');
    END IF;
    change := concat('{"op":"', CASE mod(o.what, 128) WHEN 105 THEN 'insert' WHEN 117 THEN 'update'
        WHEN 100 THEN 'delete' WHEN 116 THEN 'truncate' END, '","schema":',
      to_json((parse_ident(named.schema))[1]), ',"table":', to_json((parse_ident(named.name))[1]), change,
      ',"xid":', this, ',"id":', o.id * 4096, ',"transport":"outbox"}');
    EXIT WHEN octet_length(change) > least(7999, room);
    PERFORM pg_notify(c.ear, change) FROM pgwake.consumer c WHERE c.name > '' AND c.ear IS NOT NULL
      AND (c.relids IS NULL OR rel = ANY (c.relids)) AND has_table_privilege(c.ear_role, rel, 'SELECT')
      LIMIT room / octet_length(change);
    GET DIAGNOSTICS told = ROW_COUNT;
    room := room - told * octet_length(change);
  END LOOP;
-- The ring comes in any case, and no transaction fails because a reader is in haste.
EXCEPTION WHEN OTHERS THEN
  RETURN;
END $pgwake$;
