-- Empties what all consumers have read, by truncating whole tables, and keeps the outbox below its cap.

-- How many rows of an outbox table a consumer has not acknowledged.
CREATE OR REPLACE FUNCTION pgwake.unread(box regclass, "position" text) RETURNS bigint LANGUAGE plpgsql STABLE
  SET search_path = pg_catalog, pg_temp SET enable_seqscan = off SET jit = off AS $pgwake$
DECLARE
  before pg_snapshot := split_part(split_part("position", '|', 1), ';', 1)::pg_snapshot;
  result bigint;
BEGIN
  EXECUTE format('SELECT count(*) FROM %s WHERE id > $1 AND NOT pg_visible_in_snapshot(xid, $2)', box)
    INTO result USING pgwake.floor_of("position"), before;
  RETURN result;
END $pgwake$;

-- Whether there are any, for any consumer: nobody need count them to know that.
CREATE OR REPLACE FUNCTION pgwake.is_unread(box regclass) RETURNS bool LANGUAGE plpgsql STABLE
  SET search_path = pg_catalog, pg_temp SET enable_seqscan = off SET jit = off AS $pgwake$
DECLARE
  floor bigint;
  before pg_snapshot;
  result bool := false;
BEGIN
  FOR floor, before IN SELECT pgwake.floor_of("position"),
      split_part(split_part("position", '|', 1), ';', 1)::pg_snapshot FROM pgwake.consumer LOOP
    EXECUTE format('SELECT EXISTS (SELECT FROM %s WHERE id > $1 AND NOT pg_visible_in_snapshot(xid, $2))',
      box) INTO result USING floor, before;
    EXIT WHEN result;
  END LOOP;
  RETURN result;
END $pgwake$;

-- For readers, every few seconds. What has been rung for is rung for.
CREATE OR REPLACE FUNCTION pgwake.rotate() RETURNS text LANGUAGE plpgsql SECURITY DEFINER
  SET search_path = pg_catalog, pg_temp AS $pgwake$
BEGIN
  PERFORM pgwake.settle();
  DELETE FROM pgwake.rope WHERE ctid IN (SELECT ctid FROM pgwake.rope FOR UPDATE SKIP LOCKED);
  RETURN pgwake.turn_outbox();
END $pgwake$;

-- Turns to the next table when this one is large enough, if the next can be emptied. Never waits for a lock.
-- Returns what it did.
CREATE OR REPLACE FUNCTION pgwake.turn_outbox() RETURNS text LANGUAGE plpgsql
  SET search_path = pg_catalog, pg_temp AS $pgwake$
DECLARE
  turn int := pgwake.turn();
  box regclass := 'pgwake.outbox_' || turn;
  next regclass := 'pgwake.outbox_' || (turn + 1) % 3;
  total bigint := pg_total_relation_size('pgwake.outbox_0') + pg_total_relation_size('pgwake.outbox_1')
    + pg_total_relation_size('pgwake.outbox_2');
  is_over bool := total > (SELECT value FROM pgwake.setting WHERE name = 'cap_bytes');
  lost json;
BEGIN
  -- It looks again once it has the lock: with a snapshot from before it would see nothing new, and TRUNCATE
  -- asks for none.
  IF current_setting('transaction_isolation') NOT IN ('read committed', 'read uncommitted') THEN
    RETURN 'isolated';
  END IF;
  DELETE FROM pgwake.consumer WHERE holder IS NOT NULL AND holder NOT IN (SELECT pid FROM pg_stat_activity);
  UPDATE pgwake.consumer AS c SET ear = NULL WHERE ear IS NOT NULL AND NOT EXISTS (SELECT FROM pg_locks l
    WHERE l.locktype = 'advisory' AND l.classid = 1885828971 AND l.objid = 1000 + c.id
      AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database()));
  IF NOT is_over AND pg_relation_size(box) < (
      SELECT value FROM pgwake.setting WHERE name = 'rotate_bytes') THEN
    RETURN 'small';
  END IF;
  IF NOT is_over AND pgwake.is_unread(next) THEN
    RETURN 'unread';
  END IF;
  BEGIN
    EXECUTE format('LOCK TABLE %s IN ACCESS EXCLUSIVE MODE NOWAIT', next);
    -- Before the lock rows may have come.
    IF is_over THEN
      SELECT json_object_agg(name, count) INTO lost FROM (
        SELECT name, pgwake.unread(next, "position") AS count FROM pgwake.consumer) c WHERE count > 0;
    ELSIF pgwake.is_unread(next) THEN
      RETURN 'unread';
    END IF;
    -- Another may have turned to that table meanwhile.
    IF NOT pg_try_advisory_xact_lock(1885828971, 3) OR pgwake.turn() <> turn THEN
      RETURN 'busy';
    END IF;
    EXECUTE format('TRUNCATE %s', next);
  EXCEPTION WHEN lock_not_available OR object_in_use THEN
    RETURN 'busy';
  END;
  PERFORM pgwake.set_state((turn + 1) % 3, pgwake.is_bell_on());
  IF lost IS NOT NULL THEN
    PERFORM pgwake.append(0, '!', NULL, ARRAY[lost::text]);
    RETURN 'dropped';
  END IF;
  RETURN 'rotated';
END $pgwake$;

-- The same in a user's transaction, which it must not end.
CREATE OR REPLACE FUNCTION pgwake.rotate_quietly() RETURNS void LANGUAGE plpgsql
  SET search_path = pg_catalog, pg_temp AS $pgwake$
BEGIN
  PERFORM pgwake.turn_outbox();
EXCEPTION WHEN OTHERS THEN
  RETURN;
END $pgwake$;
