-- Knows a database that was restored from a dump, or copied, and makes a new beginning there: what its outbox
-- holds and where its consumers stood are the original's, in numbers that mean other transactions here.

CREATE TABLE IF NOT EXISTS pgwake.installation (
  identity text PRIMARY KEY
);

-- Which installation this is: the cluster, the database, the table above, and the timeline.
CREATE OR REPLACE FUNCTION pgwake.identity() RETURNS text LANGUAGE sql STABLE AS $pgwake$
  SELECT format('%s/%s/%s/%s', (SELECT system_identifier FROM pg_control_system()),
    (SELECT oid FROM pg_database WHERE datname = current_database()), 'pgwake.installation'::regclass::oid,
    CASE WHEN pg_is_in_recovery() THEN (SELECT timeline_id FROM pg_control_checkpoint())
      ELSE ('x' || left(pg_walfile_name(pg_current_wal_insert_lsn()), 8))::bit(32)::int END)
$pgwake$;

-- Whether all that we keep was written here.
CREATE OR REPLACE FUNCTION pgwake.is_original() RETURNS bool LANGUAGE sql STABLE AS $pgwake$
  SELECT EXISTS (SELECT FROM pgwake.installation WHERE identity = pgwake.identity())
$pgwake$;

-- When a reader begins, at an install and when a table is watched: each consumer is delivered one gap. Behind
-- a failover, which is another timeline of the same, it reads on from where it is. In a copy it begins here,
-- and the outbox is emptied.
CREATE OR REPLACE FUNCTION pgwake.settle() RETURNS void LANGUAGE plpgsql AS $pgwake$
DECLARE
  gaps json;
BEGIN
  IF pgwake.is_original() THEN
    RETURN;
  END IF;
  LOCK TABLE pgwake.installation IN SHARE ROW EXCLUSIVE MODE;
  IF pgwake.is_original() THEN
    RETURN;
  END IF;
  IF NOT EXISTS (SELECT FROM pgwake.installation
      WHERE regexp_replace(identity, '[0-9]+$', '') = regexp_replace(pgwake.identity(), '[0-9]+$', '')) THEN
    PERFORM pgwake.begin_anew();
  END IF;
  SELECT json_object_agg(c.name, 'replaced') INTO gaps FROM pgwake.consumer c;
  IF gaps IS NOT NULL THEN
    PERFORM pgwake.append(NULL, NULL, 'gap', gaps::text, nextval('pgwake.gap_id'));
  END IF;
  DELETE FROM pgwake.installation;
  INSERT INTO pgwake.installation VALUES (pgwake.identity());
END $pgwake$;

CREATE OR REPLACE FUNCTION pgwake.begin_anew() RETURNS void LANGUAGE plpgsql AS $pgwake$
DECLARE
  now pg_snapshot := pg_current_snapshot();
  this xid8 := pg_current_xact_id();
BEGIN
  DELETE FROM pgwake.consumer WHERE NOT is_named;
  -- What this transaction writes is still to come, also where others have ended since it got its number.
  UPDATE pgwake.consumer SET relids = '{}', acknowledged_at = clock_timestamp(),
    "position" = format('%s:%s:%s||', least(pg_snapshot_xmin(now), this), pg_snapshot_xmax(now),
      (SELECT string_agg(x::text, ',' ORDER BY x) FROM (SELECT pg_snapshot_xip(now) AS x
        UNION SELECT this WHERE this < pg_snapshot_xmax(now)) x));
  TRUNCATE pgwake.outbox_0, pgwake.outbox_1, pgwake.outbox_2;
  -- A dump without data has the triggers, whose numbers must not be given to other watches.
  IF pg_sequence_last_value('pgwake.current_table') IS NULL THEN
    PERFORM setval('pgwake.current_table', 0);
  END IF;
  PERFORM setval(pg_get_serial_sequence('pgwake.watched', 'id'), n)
    FROM (SELECT max(watch) AS n FROM pgwake.own_trigger) t
    WHERE n > coalesce((SELECT max(id) FROM pgwake.watched), 0);
  -- No row is of them any more. A table that was gone unnoticed has left a number, which may be another's.
  DELETE FROM pgwake.watched WHERE ended;
  UPDATE pgwake.watched w SET ended = true WHERE mode <> 'instead'
    AND NOT EXISTS (SELECT FROM pgwake.own_trigger t WHERE t.watch = w.id);
  -- Columns that were dropped are not in a dump, so the others may have other numbers.
  UPDATE pgwake.watched SET column_numbers = pgwake.column_numbers(relid, columns),
    when_changed_numbers = pgwake.column_numbers(relid, when_changed) WHERE NOT ended;
END $pgwake$;

INSERT INTO pgwake.installation SELECT pgwake.identity() WHERE NOT EXISTS (SELECT FROM pgwake.installation);
