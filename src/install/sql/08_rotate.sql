-- Empties what all consumers have read, by truncating whole tables, and keeps the outbox below its cap. Never
-- waits for a lock.

-- Whether there is a consumer that has not read all of an outbox table.
CREATE OR REPLACE FUNCTION pgwake.is_unread(box int) RETURNS bool LANGUAGE sql VOLATILE AS $pgwake$
  SELECT EXISTS (SELECT FROM pgwake.consumer c WHERE pgwake.unread(c, box, 1) > 0)
$pgwake$;

-- What an outbox table takes, with its index and what is stored out of line; 0 when it has no rows.
CREATE OR REPLACE FUNCTION pgwake.bytes_of(box int) RETURNS bigint LANGUAGE sql VOLATILE AS $pgwake$
  SELECT CASE pg_relation_size(rel) WHEN 0 THEN 0 ELSE pg_total_relation_size(rel) END
  FROM CAST(format('pgwake.outbox_%s', box) AS regclass) AS rel
$pgwake$;

CREATE OR REPLACE FUNCTION pgwake.outbox_bytes() RETURNS bigint LANGUAGE sql VOLATILE AS $pgwake$
  SELECT pgwake.bytes_of(0) + pgwake.bytes_of(1) + pgwake.bytes_of(2)
$pgwake$;

-- For readers, every few seconds. Returns what it did.
CREATE OR REPLACE FUNCTION pgwake.rotate() RETURNS text LANGUAGE plpgsql SECURITY DEFINER AS $pgwake$
BEGIN
  PERFORM pgwake.settle();
  UPDATE pgwake.consumer SET seen_at = clock_timestamp()
    WHERE NOT is_named AND pgwake.backend_of(id) IS NOT NULL
      AND seen_at < clock_timestamp() - interval '1 minute';
  DELETE FROM pgwake.consumer WHERE NOT is_named AND pgwake.backend_of(id) IS NULL
    AND seen_at < clock_timestamp() - interval '3 minutes';
  RETURN pgwake.rotate_tables();
END $pgwake$;

-- Empties the tables that are not being written, and have not been for a while, since a notification may
-- refer to them; then writes another, when this one is large enough and there is an empty one.
CREATE OR REPLACE FUNCTION pgwake.rotate_tables() RETURNS text LANGUAGE plpgsql AS $pgwake$
DECLARE
  current int;
  next int;
  box int;
  is_rested bool := extract(epoch FROM clock_timestamp()) > pgwake.setting_of('rotated_at') + 10;
  done text := 'nothing';
BEGIN
  -- It looks again once it has a lock: with a snapshot from before it would see nothing new, and TRUNCATE
  -- asks for none.
  IF current_setting('transaction_isolation') NOT IN ('read committed', 'read uncommitted')
     OR NOT pg_try_advisory_xact_lock(1885828971, 3) THEN
    RETURN 'busy';
  END IF;
  current := pg_sequence_last_value('pgwake.current_table');
  next := (current + 1) % 3;
  FOREACH box IN ARRAY ARRAY[next, (current + 2) % 3] LOOP
    IF pgwake.bytes_of(box) = 0 THEN
      CONTINUE;
    ELSIF is_rested AND NOT pgwake.is_unread(box) THEN
      done := pgwake.empty(box, false);
    ELSIF pgwake.outbox_bytes() > pgwake.setting_of('cap_bytes') THEN
      done := pgwake.empty(box, true);
    END IF;
  END LOOP;
  -- A table that was emptied is locked until the commit: nobody is to write it before.
  IF done <> 'nothing' OR pgwake.bytes_of(current)
      < least(pgwake.setting_of('rotate_bytes'), pgwake.setting_of('cap_bytes')) THEN
    RETURN done;
  ELSIF pgwake.bytes_of(next) > 0 THEN
    RETURN 'unread';
  END IF;
  PERFORM setval('pgwake.current_table', next);
  UPDATE pgwake.setting SET value = extract(epoch FROM clock_timestamp()) WHERE name = 'rotated_at';
  RETURN 'rotated';
END $pgwake$;

CREATE OR REPLACE FUNCTION pgwake.empty(box int, is_forced bool) RETURNS text LANGUAGE plpgsql AS $pgwake$
DECLARE
  gaps json;
BEGIN
  BEGIN
    EXECUTE format('LOCK TABLE pgwake.outbox_%s IN ACCESS EXCLUSIVE MODE NOWAIT', box);
    -- Before the lock rows may have come.
    IF is_forced THEN
      SELECT json_object_agg(c.name, n) INTO gaps FROM pgwake.consumer c, pgwake.unread(c, box) n WHERE n > 0;
    ELSIF pgwake.is_unread(box) THEN
      RETURN 'unread';
    END IF;
    EXECUTE format('TRUNCATE pgwake.outbox_%s', box);
  EXCEPTION WHEN lock_not_available OR object_in_use THEN
    RETURN 'busy';
  END;
  IF gaps IS NOT NULL THEN
    PERFORM pgwake.append(NULL, NULL, 'gap', gaps::text, nextval('pgwake.gap_id'));
    RETURN 'dropped';
  END IF;
  RETURN 'emptied';
END $pgwake$;
