-- What would go wrong with the server and with reading its log: severity, object, problem, remedy. What
-- would go wrong with the schema, and with what is watched, is in pgwake.check().
WITH slot AS (
  SELECT slot_name, active, wal_status, database = current_database() AS is_here,
    pg_wal_lsn_diff(CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn() ELSE pg_current_wal_lsn() END,
      restart_lsn) AS kept,
    format('SELECT pg_drop_replication_slot(%L)', slot_name) AS dropped,
    to_jsonb(s) ->> 'failover' = 'true' AS is_failover
  FROM pg_replication_slots s WHERE slot_type = 'logical' AND NOT temporary
), setting AS (
  -- From PostgreSQL 19 on a slot raises the level by itself, unless it is minimal.
  SELECT CASE WHEN current_setting('effective_wal_level', true) IS NULL
      THEN current_setting('wal_level') = 'logical' ELSE current_setting('wal_level') <> 'minimal' END
      AS is_logical,
    current_setting('max_slot_wal_keep_size') = '-1' AS is_unlimited,
    current_setting('idle_replication_slot_timeout', true) = '0' AS is_kept_when_idle,
    current_setting('max_wal_senders')::int AS senders,
    current_setting('max_replication_slots')::int AS slots,
    EXISTS (SELECT FROM slot) AS has_slots
), published AS (
  SELECT DISTINCT coalesce(leaf.relid, c.oid) AS oid
  FROM pg_publication p JOIN pg_publication_tables t ON t.pubname = p.pubname
    JOIN pg_namespace n ON n.nspname = t.schemaname
    JOIN pg_class c ON c.relnamespace = n.oid AND c.relname = t.tablename
    LEFT JOIN LATERAL pg_partition_tree(c.oid) leaf ON c.relkind = 'p' AND leaf.isleaf
  WHERE p.pubupdate OR p.pubdelete
)
SELECT 'error', 'server', 'it is a standby, which cannot LISTEN',
  'connect to the primary, or add target_session_attrs=read-write' WHERE pg_is_in_recovery()
UNION ALL SELECT 'info', 'default_transaction_read_only',
  'it is on for this role, so what writes fails: watch and ddl, poll with a cursor, cron with a leader, and '
    'stream and subscribe where they are to make a publication',
  format('ALTER ROLE %I SET default_transaction_read_only = off', current_user)
  WHERE current_setting('default_transaction_read_only')::bool AND NOT pg_is_in_recovery()
UNION ALL SELECT 'warning', current_database()::text,
  format('its encoding is %s: what is delivered may be no text', getdatabaseencoding()),
  'payloads come as bytes; a database in UTF8 has no such trouble'
  WHERE getdatabaseencoding() IN ('SQL_ASCII', 'MULE_INTERNAL')
UNION ALL SELECT CASE WHEN pg_notification_queue_usage() > 0.9 THEN 'error' ELSE 'warning' END,
  'notification queue',
  format('it is %s %% full: a listener does not read, or has not ended its transaction, and soon every NOTIFY '
    'fails', round((pg_notification_queue_usage() * 100)::numeric)),
  'the server''s log has its PID: SELECT pid, state, wait_event, xact_start FROM pg_stat_activity '
    'ORDER BY xact_start; then SELECT pg_terminate_backend(pid)'
  WHERE pg_notification_queue_usage() > 0.5
UNION ALL SELECT 'info', 'wal_level',
  format('it is %s: nothing can be read from the log', current_setting('wal_level')),
  'ALTER SYSTEM SET wal_level = logical, then restart' FROM setting WHERE NOT is_logical
UNION ALL SELECT 'info', format('role %s', rolname), 'it may not read the log: it has no REPLICATION',
  format('let a superuser ALTER ROLE %I REPLICATION', rolname) FROM setting, pg_roles
  WHERE is_logical AND rolname = current_user AND NOT rolreplication AND NOT rolsuper
UNION ALL SELECT 'warning', 'max_wal_senders',
  format('all %s are in use: nobody else can read the log', senders),
  'end one of those in pg_stat_replication, or raise it and restart' FROM setting
  WHERE is_logical AND (SELECT count(*) FROM pg_stat_replication) >= senders
UNION ALL SELECT 'warning', 'max_replication_slots',
  format('all %s are in use: no other slot can be made', slots),
  'drop a slot that nobody needs, or raise it and restart' FROM setting
  WHERE is_logical AND (SELECT count(*) FROM pg_replication_slots) >= slots
UNION ALL SELECT 'warning', 'max_slot_wal_keep_size',
  'it is not set: for a slot whose reader is away the server keeps its log until the disk is full',
  'ALTER SYSTEM SET max_slot_wal_keep_size = ''50GB''; SELECT pg_reload_conf()' FROM setting
  WHERE is_unlimited AND has_slots
UNION ALL SELECT 'info', 'idle_replication_slot_timeout',
  'it is off: a slot that nobody reads is kept for ever',
  'ALTER SYSTEM SET idle_replication_slot_timeout = ''3d''; SELECT pg_reload_conf()' FROM setting
  WHERE is_kept_when_idle AND has_slots
UNION ALL SELECT 'warning', 'synchronized_standby_slots',
  'it is empty: a reader of a failover slot may have read what no standby has, and what a failover loses',
  'name in it the physical slot that the standby reads from'
  WHERE current_setting('synchronized_standby_slots', true) = '' AND NOT pg_is_in_recovery()
    AND EXISTS (SELECT FROM slot WHERE is_failover)
UNION ALL SELECT 'warning', 'synchronous_standby_names',
  'it has *: commits wait for those who read the log, too, until they have acknowledged it',
  'name your standbys in it' FROM setting
  WHERE is_logical AND current_setting('synchronous_standby_names') LIKE '%*%'
UNION ALL SELECT 'error', format('slot %s', slot_name), 'the server has removed log that its reader needs',
  format('look at the tables afresh; %s', dropped) FROM slot WHERE is_here AND wal_status = 'lost'
UNION ALL SELECT 'warning', format('slot %s', slot_name),
  format('%s of log are kept for it, and the server is about to remove some', pg_size_pretty(kept)),
  'read it at once, or raise max_slot_wal_keep_size' FROM slot WHERE is_here AND wal_status = 'unreserved'
UNION ALL SELECT 'warning', format('slot %s', slot_name),
  format('%s of log are kept for it, more than max_wal_size: who reads it is slow or stuck, or a transaction '
    'has been open for long', pg_size_pretty(kept)),
  'see what its reader waits for, and SELECT pid, xact_start, query FROM pg_stat_activity ORDER BY xact_start'
  FROM slot WHERE is_here AND active AND wal_status = 'extended'
UNION ALL SELECT 'warning', format('slot %s', slot_name),
  format('nobody reads it, and %s of log are kept for it', pg_size_pretty(kept)),
  format('read it, or %s', dropped)
  FROM slot WHERE is_here AND NOT active AND wal_status NOT IN ('lost', 'unreserved')
UNION ALL SELECT 'error', c.oid::regclass::text,
  'it is published and has no replica identity: its UPDATEs and DELETEs fail',
  format('give it a primary key (not DEFERRABLE), or ALTER TABLE %s REPLICA IDENTITY FULL', c.oid::regclass)
  FROM published p JOIN pg_class c ON c.oid = p.oid AND c.relkind = 'r'
    -- Nothing is updated or deleted in the outbox.
    AND c.relnamespace IS DISTINCT FROM to_regnamespace('pgwake')
  WHERE c.relreplident = 'n' OR c.relreplident <> 'f' AND NOT EXISTS (
    SELECT FROM pg_index i WHERE i.indrelid = c.oid AND i.indisvalid
      AND CASE c.relreplident WHEN 'i' THEN i.indisreplident ELSE i.indisprimary AND i.indimmediate END)
