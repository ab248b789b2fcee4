-- Durable messages in the WAL, and what this server lets pgwake do.

CREATE OR REPLACE FUNCTION pgwake.publish(channel text, payload text) RETURNS pg_lsn LANGUAGE sql AS $pgwake$
  SELECT pg_logical_emit_message(true, 'pgwake:' || publish.channel, publish.payload)
$pgwake$;

CREATE OR REPLACE FUNCTION pgwake.publish(channel text, payload bytea) RETURNS pg_lsn LANGUAGE sql AS $pgwake$
  SELECT pg_logical_emit_message(true, 'pgwake:' || publish.channel, publish.payload)
$pgwake$;

CREATE OR REPLACE FUNCTION pgwake.mode() RETURNS text LANGUAGE sql STABLE AS $pgwake$
  SELECT CASE
    WHEN NOT EXISTS (SELECT FROM pg_event_trigger e JOIN pg_proc p ON p.oid = e.evtfoid
      WHERE p.pronamespace = 'pgwake'::regnamespace AND e.evtenabled <> 'D') THEN 'sql, no event triggers'
    WHEN EXISTS (SELECT FROM pg_extension WHERE extname = 'pgwake_ddl') THEN 'extension'
    ELSE 'sql' END
$pgwake$;
