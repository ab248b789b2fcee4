-- What any role may know of a server: one JSON object.
SELECT json_build_object(
  'server', json_build_object(
    'version', current_setting('server_version'), 'database', current_database(), 'role', current_user,
    'address', coalesce(host(inet_server_addr()) || ':' || inet_server_port(), 'unix socket'),
    'standby', pg_is_in_recovery(), 'encoding', current_setting('server_encoding'),
    'wal_level', coalesce(current_setting('effective_wal_level', true), current_setting('wal_level')),
    'started', pg_postmaster_start_time()),
  'notifications', json_build_object(
    'queue_usage_percent', round((pg_notification_queue_usage() * 100)::numeric, 3),
    'sessions_that_listened_last', (SELECT count(*) FROM pg_stat_activity WHERE query ~* '^\s*listen\s'),
    'sessions_that_do_not_read', (SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'ClientWrite')),
  'slots', (SELECT coalesce(json_agg(json_build_object('name', s.slot_name, 'plugin', s.plugin,
      'database', s.database, 'active', s.active, 'active_pid', s.active_pid, 'wal_status', s.wal_status,
      'confirmed_flush_lsn', s.confirmed_flush_lsn, 'lag_bytes',
      pg_wal_lsn_diff(
        CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn() ELSE pg_current_wal_lsn() END,
        coalesce(s.confirmed_flush_lsn, s.restart_lsn)),
      'lag_seconds', round(extract(epoch FROM r.flush_lag)::numeric, 3), 'safe_wal_size', s.safe_wal_size)
      ORDER BY s.slot_name), '[]')
    FROM pg_replication_slots s LEFT JOIN pg_stat_replication r ON r.pid = s.active_pid))
