-- Says what is wrong, or would go wrong, with what is watched here.

CREATE OR REPLACE FUNCTION pgwake.check()
  RETURNS TABLE (severity text, object text, problem text, remedy text) LANGUAGE plpgsql STABLE
  SET search_path = pg_catalog, pg_temp AS $pgwake$
BEGIN
  RETURN QUERY SELECT * FROM pgwake.check_triggers();
  RETURN QUERY SELECT * FROM pgwake.check_transports();
  RETURN QUERY SELECT * FROM pgwake.check_consumers();
END $pgwake$;

CREATE OR REPLACE VIEW pgwake.live AS
  SELECT w AS entry, w.*, w.relid::pg_catalog.regclass::text AS name FROM pgwake.watched w
  WHERE NOT w.ended AND EXISTS (SELECT FROM pg_catalog.pg_class c WHERE c.oid = w.relid);

-- Missing, disabled and stale triggers.
CREATE OR REPLACE FUNCTION pgwake.check_triggers()
  RETURNS TABLE (severity text, object text, problem text, remedy text) LANGUAGE sql STABLE
  SET search_path = pg_catalog, pg_temp AS $pgwake$
  WITH wanted AS (
    SELECT w.*, o.op, m.member, t.tgname, t.tgenabled FROM pgwake.live w CROSS JOIN unnest(w.ops) AS o (op)
      CROSS JOIN LATERAL pgwake.members_for(w.entry, o.op) AS m (member)
      LEFT JOIN (pg_trigger t JOIN pg_proc p ON p.oid = t.tgfoid AND p.pronamespace = 'pgwake'::regnamespace)
        ON t.tgrelid = m.member AND p.proname = format('change_%s_%s', w.id, o.op)
    WHERE w.mode <> 'instead'
  )
  SELECT 'error', member::regclass::text, format('its trigger for %s is missing', op),
    'SELECT pgwake.rebuild()' FROM wanted WHERE tgname IS NULL
  UNION ALL SELECT 'error', member::regclass::text, format('its trigger %s is disabled', tgname),
    format('ALTER TABLE %s ENABLE TRIGGER %I', member::regclass, tgname) FROM wanted WHERE tgenabled = 'D'
  UNION ALL SELECT 'warning', name, 'its columns are not those that the triggers were made for',
    'SELECT pgwake.rebuild()' FROM pgwake.live WHERE shape <> pgwake.shape_of(relid)
  UNION ALL SELECT 'error', name, 'it became a partition, a parent or a child, and its triggers miss changes',
    'SELECT pgwake.rebuild()' FROM pgwake.live
    WHERE mode = 'statement' AND pgwake.mode_for(relid, always, timing) <> 'statement'
  UNION ALL SELECT DISTINCT 'error', i.inhrelid::regclass::text, 'its owner may not run its triggers',
    'SELECT pgwake.rebuild()'
    FROM pgwake.live l CROSS JOIN LATERAL pgwake.family(l.relid) AS i (inhrelid)
      JOIN pg_class c ON c.oid = i.inhrelid CROSS JOIN unnest(l.ops) AS o (op)
      JOIN pg_proc p ON p.pronamespace = 'pgwake'::regnamespace
        AND p.proname = format('change_%s_%s', l.id, o.op)
    WHERE l.mode IN ('row', 'before') AND NOT has_function_privilege(c.relowner, p.oid, 'EXECUTE')
  UNION ALL SELECT 'warning', format('%I.%I', schema_name, table_name), 'it was dropped while watched',
    'SELECT pgwake.rebuild()' FROM pgwake.watched w
    WHERE NOT ended AND NOT EXISTS (SELECT FROM pg_class WHERE oid = w.relid)
  UNION ALL SELECT 'info', name, 'it has no primary key, so each change carries the whole row',
    'add one, or ALTER TABLE ... REPLICA IDENTITY USING INDEX' FROM pgwake.live
    WHERE payload = 'key' AND mode <> 'instead'
      AND NOT EXISTS (SELECT FROM pgwake.columns_of(relid, 'r') c WHERE c.in_key)
  UNION ALL SELECT 'warning', 'event triggers',
    'there are none: altered tables need pgwake.rebuild() by hand',
    'let a superuser run pgwake install'
    FROM (SELECT pgwake.mode() AS mode) m
    WHERE mode = 'sql, no event triggers' AND EXISTS (SELECT FROM pgwake.live)
$pgwake$;

-- What a transport needs or costs.
CREATE OR REPLACE FUNCTION pgwake.check_transports()
  RETURNS TABLE (severity text, object text, problem text, remedy text) LANGUAGE sql STABLE
  SET search_path = pg_catalog, pg_temp AS $pgwake$
  SELECT 'warning', name, 'transport notify makes PREPARE TRANSACTION fail for its writers',
    'use transport outbox, or max_prepared_transactions = 0' FROM pgwake.live
    WHERE transport = 'notify' AND current_setting('max_prepared_transactions') <> '0'
  UNION ALL SELECT 'warning', name, 'transport notify slows down every writer of the cluster',
    'use transport outbox' FROM pgwake.live WHERE transport = 'notify' AND payload <> 'wake'
  UNION ALL SELECT 'error', name, 'transport wal needs wal_level = logical to be read',
    'ALTER SYSTEM SET wal_level = logical, then restart' FROM pgwake.live
    WHERE transport = 'wal' AND current_setting('wal_level') <> 'logical'
  UNION ALL SELECT 'info', 'unconvertible', format('%s statements were told without their values', n),
    'look into the table''s types'
    FROM (SELECT pg_sequence_last_value('pgwake.unconvertible') AS n) s WHERE n > 0
  UNION ALL SELECT 'info', 'spilled', format('%s notifications were too large: they went by the outbox', n),
    'payload key, or transport outbox'
    FROM (SELECT pg_sequence_last_value('pgwake.spilled') AS n) s WHERE n > 0
  UNION ALL SELECT 'warning', format('prepared transaction %s', x.gid),
    'while it is open, the outbox may not be emptied', 'COMMIT PREPARED or ROLLBACK PREPARED'
    FROM pg_prepared_xacts x
    WHERE x.database = current_database() AND x.prepared < clock_timestamp() - interval '1 minute'
$pgwake$;

-- Consumers that lag, or whose position means nothing here.
CREATE OR REPLACE FUNCTION pgwake.check_consumers()
  RETURNS TABLE (severity text, object text, problem text, remedy text) LANGUAGE sql STABLE
  SET search_path = pg_catalog, pg_temp AS $pgwake$
  SELECT 'warning', c.name, format('it has not acknowledged since %s, and %s rows wait for it',
      c.acknowledged_at, n.unread), format('run it, or SELECT pgwake.drop_consumer(%L)', c.name)
    FROM pgwake.consumer c CROSS JOIN LATERAL (
      SELECT sum(pgwake.unread(box, c."position")) AS unread
      FROM unnest('{pgwake.outbox_0,pgwake.outbox_1,pgwake.outbox_2}'::regclass[]) box) n
    WHERE c.holder IS NULL AND n.unread > 0 AND c.acknowledged_at < clock_timestamp() - interval '1 minute'
  UNION ALL SELECT 'error', c.name, 'its position comes from another cluster',
    format('SELECT pgwake.drop_consumer(%L)', c.name) FROM pgwake.consumer c
    WHERE pg_snapshot_xmax(split_part(c."position", '|', 1)::pg_snapshot)
      > pg_snapshot_xmax(pg_current_snapshot())
$pgwake$;
