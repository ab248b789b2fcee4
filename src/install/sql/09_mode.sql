-- What this server lets pgwake do.

CREATE OR REPLACE FUNCTION pgwake.mode() RETURNS text LANGUAGE sql STABLE AS $pgwake$
  SELECT CASE
    WHEN NOT EXISTS (SELECT FROM pg_event_trigger e JOIN pg_proc p ON p.oid = e.evtfoid
      WHERE p.pronamespace = 'pgwake'::regnamespace AND e.evtenabled <> 'D') THEN 'sql, no event triggers'
    WHEN EXISTS (SELECT FROM pg_extension WHERE extname = 'pgwake_ddl') THEN 'extension'
    ELSE 'sql' END
$pgwake$;
