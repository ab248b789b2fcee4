-- What any role may know of a server: one JSON object.
SELECT json_build_object(
  'server', json_build_object(
    'version', current_setting('server_version'), 'database', current_database(), 'role', current_user,
    'address', coalesce(host(inet_server_addr()) || ':' || inet_server_port(), 'unix socket'),
    'standby', pg_is_in_recovery(), 'encoding', current_setting('server_encoding'),
    'wal_level', current_setting('wal_level'), 'started', pg_postmaster_start_time()),
  'notifications', json_build_object(
    'queue_usage_percent', round((pg_notification_queue_usage() * 100)::numeric, 3),
    'sessions_that_listened_last', (SELECT count(*) FROM pg_stat_activity WHERE query ~* '^\s*listen\s'),
    'sessions_that_do_not_read', (SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'ClientWrite')),
  'slots', (SELECT coalesce(json_agg(json_build_object('name', slot_name, 'plugin', plugin,
      'active', active, 'wal_status', wal_status, 'lag_bytes',
      CASE WHEN NOT pg_is_in_recovery() THEN pg_wal_lsn_diff(pg_current_wal_lsn(),
        coalesce(confirmed_flush_lsn, restart_lsn)) END) ORDER BY slot_name), '[]')
    FROM pg_replication_slots))
