-- Knows a database that was restored from a dump, or copied, and makes a new beginning there: what its outbox
-- holds and where its consumers stood are the original's, in numbers that mean other transactions here.

-- Whether what we keep was written here. Restored rows were written by the restore; a copied database has
-- another number; an upgrade by pg_upgrade keeps all of it.
CREATE OR REPLACE FUNCTION pgwake.is_home() RETURNS bool LANGUAGE sql VOLATILE
  SET search_path = pg_catalog, pg_temp AS $pgwake$
  SELECT count(*) = 2 AND coalesce(bool_or(h.relation = 'pgwake.home'::regclass::oid
    AND h.database = (SELECT d.oid FROM pg_database d WHERE d.datname = current_database())
    AND EXISTS (SELECT FROM pgwake.home e WHERE e.database IS NULL AND e.xmin = h.written)), false)
  FROM pgwake.home h
$pgwake$;

CREATE OR REPLACE FUNCTION pgwake.make_home() RETURNS void LANGUAGE sql
  SET search_path = pg_catalog, pg_temp AS $pgwake$
  DELETE FROM pgwake.home;
  INSERT INTO pgwake.home DEFAULT VALUES;
  INSERT INTO pgwake.home SELECT d.oid, 'pgwake.home'::regclass::oid, h.xmin
    FROM pgwake.home h, pg_database d WHERE d.datname = current_database();
$pgwake$;

-- Where a consumer begins that begins now: this transaction is still to come, also where others have ended
-- since it got its number.
CREATE OR REPLACE FUNCTION pgwake.position_now() RETURNS text LANGUAGE sql VOLATILE
  SET search_path = pg_catalog, pg_temp AS $pgwake$
  SELECT format('%s:%s:%s||', least(pg_snapshot_xmin(s), own), pg_snapshot_xmax(s),
    (SELECT string_agg(x::text, ',' ORDER BY x) FROM (
      SELECT x FROM pg_snapshot_xip(s) AS x UNION SELECT own WHERE own < pg_snapshot_xmax(s)) x))
  FROM (SELECT pg_current_snapshot() AS s, pg_current_xact_id_if_assigned() AS own) now
$pgwake$;

-- Recovery empties it: after a crash, in a copy of the files of a running server, on a standby that takes
-- over. Numbers of transactions that had not reached the disk, as those of rollbacks and of asynchronous
-- commits, are then given again, from `xid_next` on. The first reader that comes finds that in the checkpoint
-- which recovery ended with; a later one gives a greater number.
CREATE UNLOGGED TABLE IF NOT EXISTS pgwake.recovered (token text, xid_next bigint);

-- In which numbers of transactions a position counts: which database, which timeline of its cluster, and
-- since which recovery. A standby that takes over without the last transactions gives their numbers again,
-- on a timeline of its own.
CREATE OR REPLACE FUNCTION pgwake.place() RETURNS text LANGUAGE plpgsql
  SET search_path = pg_catalog, pg_temp AS $pgwake$
BEGIN
  IF NOT EXISTS (SELECT FROM pgwake.recovered) THEN
    INSERT INTO pgwake.recovered SELECT gen_random_uuid(),
      (split_part(next_xid, ':', 1)::bigint << 32) + split_part(next_xid, ':', 2)::bigint
      FROM pg_control_checkpoint();
  END IF;
  RETURN (SELECT format('%s.%s.%s.%s.%s', h.database, h.written,
      left(pg_walfile_name(pg_current_wal_insert_lsn()), 8), r.token, r.xid_next)
    FROM pgwake.home h, pgwake.recovered r WHERE h.database IS NOT NULL LIMIT 1);
END $pgwake$;

-- For readers when they begin, for installers, and for whoever watches something: makes this the home. Each
-- consumer is told, by a row of the outbox, that there is a gap.
CREATE OR REPLACE FUNCTION pgwake.settle() RETURNS void LANGUAGE plpgsql
  SET search_path = pg_catalog, pg_temp AS $pgwake$
DECLARE
  told text;
BEGIN
  IF pgwake.is_home() THEN
    RETURN;
  END IF;
  PERFORM pg_advisory_xact_lock(1885828971, 4);
  IF pgwake.is_home() THEN
    RETURN;
  END IF;
  DELETE FROM pgwake.consumer WHERE holder IS NOT NULL;
  UPDATE pgwake.consumer SET "position" = pgwake.position_now(), relids = '{}', ear = NULL,
    acknowledged_at = clock_timestamp();
  FOR box IN 0..2 LOOP
    BEGIN
      EXECUTE format('LOCK TABLE pgwake.outbox_%s IN ACCESS EXCLUSIVE MODE NOWAIT', box);
      EXECUTE format('TRUNCATE pgwake.outbox_%s', box);
    EXCEPTION WHEN lock_not_available OR object_in_use THEN
      EXECUTE format('DELETE FROM pgwake.outbox_%s', box);
    END;
  END LOOP;
  -- A dump without data leaves them at their beginnings, but the triggers of its watches are there.
  IF pg_sequence_last_value('pgwake.state') IS NULL THEN
    PERFORM pgwake.set_state(0, false);
  END IF;
  PERFORM setval(pg_get_serial_sequence('pgwake.watched', 'id'), greatest(
      max(split_part(p.proname, '_', 2)::int),
      pg_sequence_last_value(pg_get_serial_sequence('pgwake.watched', 'id')::regclass)))
    FROM pg_proc p WHERE p.pronamespace = 'pgwake'::regnamespace AND p.proname ~ '^change_[0-9]+_'
    HAVING count(*) > 0;
  -- No row tells of them any more. A table that was gone unnoticed has left a number, which may be another's.
  DELETE FROM pgwake.watched WHERE ended;
  -- Where the library is missing its triggers are, too, and the name is what is left to go by.
  UPDATE pgwake.watched w SET ended = true WHERE mode <> 'instead' AND NOT EXISTS (
      SELECT FROM pgwake.own_trigger t WHERE t.function_name ~ format('^change_%s_', w.id))
    AND NOT EXISTS (SELECT FROM pg_class c WHERE c.oid = w.relid AND c.relname = w.table_name
      AND c.relnamespace = to_regnamespace(quote_ident(w.schema_name)));
  SELECT json_object_agg(c.name, 'replaced') INTO told FROM pgwake.consumer c;
  IF told IS NOT NULL THEN
    PERFORM pgwake.append(0, '!', NULL, ARRAY[told]);
  END IF;
  PERFORM pgwake.make_home();
END $pgwake$;

-- What has none is new, or an earlier version left it, and it is taken for written here unless it cannot be.
SELECT pgwake.make_home() WHERE NOT EXISTS (SELECT FROM pgwake.home)
  AND NOT EXISTS (SELECT FROM pgwake.consumer c
    WHERE pg_catalog.pg_snapshot_xmax(split_part(split_part(c."position", '|', 1), ';', 1)::pg_snapshot)
      > pg_catalog.pg_snapshot_xmax(pg_catalog.pg_current_snapshot()));
