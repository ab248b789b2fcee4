-- What this server lets pgwake do.

-- Each command asks. A function in PL/pgSQL keeps its plan, one in SQL is planned anew in each transaction.
CREATE OR REPLACE FUNCTION pgwake.has_extension() RETURNS bool LANGUAGE plpgsql STABLE AS $pgwake$
BEGIN
  RETURN EXISTS (SELECT FROM pg_catalog.pg_extension WHERE extname OPERATOR(pg_catalog.=) 'pgwake_ddl');
END $pgwake$;

CREATE OR REPLACE FUNCTION pgwake.mode() RETURNS text LANGUAGE sql STABLE AS $pgwake$
  SELECT CASE
    WHEN NOT EXISTS (SELECT FROM pg_event_trigger e JOIN pg_proc p ON p.oid = e.evtfoid
      WHERE p.pronamespace = 'pgwake'::regnamespace AND e.evtenabled <> 'D') THEN 'sql, no event triggers'
    WHEN pgwake.has_extension() THEN 'extension'
    ELSE 'sql' END
$pgwake$;
