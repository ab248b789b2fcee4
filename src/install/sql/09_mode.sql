-- What this server lets pgwake do.

CREATE OR REPLACE FUNCTION pgwake.has_extension() RETURNS bool LANGUAGE sql STABLE AS $pgwake$
  SELECT EXISTS (SELECT FROM pg_catalog.pg_extension WHERE extname OPERATOR(pg_catalog.=) 'pgwake_ddl')
$pgwake$;

CREATE OR REPLACE FUNCTION pgwake.mode() RETURNS text LANGUAGE sql STABLE AS $pgwake$
  SELECT CASE
    WHEN NOT EXISTS (SELECT FROM pg_event_trigger e JOIN pg_proc p ON p.oid = e.evtfoid
      WHERE p.pronamespace = 'pgwake'::regnamespace AND e.evtenabled <> 'D') THEN 'sql, no event triggers'
    WHEN pgwake.has_extension() THEN 'extension'
    ELSE 'sql' END
$pgwake$;
