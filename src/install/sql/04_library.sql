-- The triggers of the usual statements in C, where the server has the library of ffi/extension: that is for
-- its administrator to decide, since a server without the library refuses the writes to tables whose triggers
-- need it. The function in C tells what has_fast_path is about, of up to 256 rows, and hands on all else to
-- the function in PL/pgSQL, which is generated in any case: what readers see is the same.

-- How the library is told what to write.
CREATE OR REPLACE FUNCTION pgwake.template_version() RETURNS int LANGUAGE sql IMMUTABLE
  SET search_path = pg_catalog, pg_temp AS 'SELECT 2';

-- Whether new triggers use it. The setting leaves single ones out.
CREATE OR REPLACE FUNCTION pgwake.uses_library() RETURNS bool LANGUAGE sql STABLE
  SET search_path = pg_catalog, pg_temp AS $pgwake$
  SELECT to_regprocedure('pgwake.change_by_library()') IS NOT NULL
    AND coalesce(current_setting('pgwake.library', true), '') <> 'off'
$pgwake$;

-- How the library writes a value; NULL if it does not: its text depends on settings, or its type is a domain,
-- of which only the system's catalogs would know whether it is still the same.
CREATE OR REPLACE FUNCTION pgwake.library_form(typ oid, is_number bool) RETURNS text LANGUAGE sql STABLE
  SET search_path = pg_catalog, pg_temp AS $pgwake$
  SELECT CASE
    WHEN typ IN ('int2'::regtype, 'int4'::regtype) OR is_number AND typ = 'int8'::regtype THEN 'raw'
    WHEN typ = 'int8'::regtype THEN 'number'
    WHEN typ = 'bool'::regtype THEN 'bool'
    WHEN typ = ANY ('{text,varchar,bpchar,uuid,numeric}'::regtype[]) THEN 'string' END
$pgwake$;

-- What the library needs to know, in lines, as template.c reads them; NULL: it cannot help. The texts are
-- those of fast_path in pieces.
CREATE OR REPLACE FUNCTION pgwake.library_template(w pgwake.watched, op text) RETURNS text
  LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $pgwake$
  SELECT string_agg(line || E'\n', '' ORDER BY i) FROM (
    SELECT ARRAY[pgwake.template_version()::text, w.transport] || CASE w.transport
        WHEN 'outbox' THEN ARRAY[pgwake.what(w.id, op)::text,
          concat('{', first, CASE WHEN is_number THEN chr(31) END, chr(29)), chr(30), chr(29), '']
        ELSE ARRAY['pgwake:' || coalesce(w.channel, 'pgwake'),
          format('{"op":%s,"schema":%s,"table":%s,"changes":[{"key":{%s', to_json(op),
            to_json(w.schema_name::text), to_json(w.table_name::text), first),
          '}},{"key":{' || first, '', '}}]}'] END || ARRAY(SELECT unnest(columns)) AS lines
    FROM (
      SELECT string_agg(name, '') FILTER (WHERE name NOT LIKE ',%') AS first,
        bool_or(is_number) AS is_number,
        bool_and(pgwake.library_form(typ, is_number) IS NOT NULL) AS is_known,
        array_agg(ARRAY[num::text, a.attname::text, t.typname::text, pgwake.library_form(typ, is_number),
          CASE WHEN name LIKE ',%' THEN name ELSE '' END] ORDER BY num) AS columns
      FROM pgwake.key_parts(w) JOIN pg_type t ON t.oid = typ
        JOIN pg_attribute a ON a.attrelid = w.relid AND a.attnum = num) k
    WHERE pgwake.has_fast_path(w, op) AND is_known
      AND (w.transport = 'wal' OR w.transport = 'outbox' AND w.channel IS NULL)
  ) t, unnest(lines) WITH ORDINALITY u (line, i)
  HAVING NOT bool_or(line LIKE E'%\n%')
$pgwake$;

-- What a trigger runs, as it stands behind EXECUTE FUNCTION.
CREATE OR REPLACE FUNCTION pgwake.call_for(w pgwake.watched, op text) RETURNS text LANGUAGE sql STABLE
  SET search_path = pg_catalog, pg_temp AS $pgwake$
  SELECT CASE WHEN pgwake.uses_library() AND template IS NOT NULL
      THEN format('pgwake.change_by_library(%L, %L)', format('change_%s_%s', w.id, op), template)
    ELSE pgwake.function_for(w, op) || '()' END
  FROM pgwake.library_template(w, op) AS template
$pgwake$;

-- Our triggers, and the generated function that each runs: by itself, or by way of the library, whose first
-- argument it is.
DROP VIEW IF EXISTS pgwake.own_trigger;
CREATE VIEW pgwake.own_trigger AS
  SELECT t.tgrelid, t.tgname, t.tgenabled, t.tgtype, t.tgparentid, t.tgqual, t.tgattr, t.tgargs,
    p.proname OPERATOR(pg_catalog.=) 'change_by_library' AS is_by_library,
    CASE WHEN p.proname OPERATOR(pg_catalog.=) 'change_by_library' THEN
      pg_catalog.split_part(pg_catalog.encode(t.tgargs, 'escape'), '\000', 1)::pg_catalog.name
    ELSE p.proname END AS function_name
  FROM pg_catalog.pg_trigger t JOIN pg_catalog.pg_proc p ON p.oid OPERATOR(pg_catalog.=) t.tgfoid
  WHERE p.pronamespace OPERATOR(pg_catalog.=) 'pgwake'::pg_catalog.regnamespace;

-- Has the triggers of all watched tables run in the library, or in PL/pgSQL again. Also what is watched from
-- now on, and after an upgrade.
CREATE OR REPLACE FUNCTION pgwake.use_library(use bool DEFAULT true) RETURNS void LANGUAGE plpgsql
  SET search_path = pg_catalog, pg_temp AS $pgwake$
DECLARE
  was text := pgwake.following('on');
  owner regrole := (SELECT nspowner FROM pg_namespace WHERE nspname = 'pgwake');
BEGIN
  IF use AND NOT (SELECT rolsuper FROM pg_roles WHERE rolname = current_user) THEN
    RAISE EXCEPTION 'only a superuser may have the server load the library of pgwake'
      USING ERRCODE = 'insufficient_privilege', HINT = 'Let a superuser run SELECT pgwake.use_library(true).';
  END IF;
  PERFORM set_config('pgwake.library', CASE WHEN use THEN '' ELSE 'off' END, true);
  IF use THEN
    PERFORM pgwake.make_library_functions();
    EXECUTE format('ALTER FUNCTION pgwake.change_by_library() OWNER TO %s', owner);
    EXECUTE format('ALTER FUNCTION pgwake.library_version() OWNER TO %s', owner);
  END IF;
  PERFORM pgwake.rebuild();
  IF NOT use THEN
    DROP FUNCTION IF EXISTS pgwake.change_by_library();
    DROP FUNCTION IF EXISTS pgwake.library_version();
  END IF;
  PERFORM set_config('pgwake.library', '', true);
  PERFORM pgwake.following(was);
END $pgwake$;

-- The server looks for it where its dynamic_library_path says.
CREATE OR REPLACE FUNCTION pgwake.make_library_functions() RETURNS void LANGUAGE plpgsql
  SET search_path = pg_catalog, pg_temp AS $pgwake$
BEGIN
  CREATE OR REPLACE FUNCTION pgwake.change_by_library() RETURNS trigger
    LANGUAGE c SECURITY DEFINER AS 'pgwake', 'pgwake_change';
  CREATE OR REPLACE FUNCTION pgwake.library_version() RETURNS int
    LANGUAGE c STRICT AS 'pgwake', 'pgwake_library_version';
  REVOKE ALL ON FUNCTION pgwake.change_by_library(), pgwake.library_version() FROM PUBLIC;
  IF pgwake.library_version() <> pgwake.template_version() THEN
    RAISE EXCEPTION 'it is of version %, and the schema pgwake needs version %', pgwake.library_version(),
        pgwake.template_version()
      USING ERRCODE = 'object_not_in_prerequisite_state';
  END IF;
EXCEPTION WHEN undefined_file THEN
  RAISE EXCEPTION 'the server has no library pgwake in %', current_setting('dynamic_library_path')
    USING ERRCODE = 'undefined_file', DETAIL = SQLERRM,
      HINT = 'Build and install it on the server: make install in ffi/extension of the sources of pgwake.';
WHEN OTHERS THEN
  RAISE EXCEPTION 'the server cannot use its library pgwake: %', SQLERRM USING ERRCODE = SQLSTATE,
    HINT = 'Build it anew for this server: make install in ffi/extension of the sources of pgwake.';
END $pgwake$;

-- What check() has to say of it.
CREATE OR REPLACE FUNCTION pgwake.check_library()
  RETURNS TABLE (severity text, object text, problem text, remedy text) LANGUAGE plpgsql STABLE
  SET search_path = pg_catalog, pg_temp AS $pgwake$
DECLARE
  version int;
BEGIN
  object := 'library';
  IF NOT EXISTS (SELECT FROM pg_proc WHERE pronamespace = 'pgwake'::regnamespace
      AND proname = 'change_by_library') THEN
    RETURN;
  END IF;
  severity := 'error';
  remedy := 'build and install ffi/extension, then SELECT pgwake.use_library(true); or, on the primary,'
    ' SELECT pgwake.use_library(false)';
  BEGIN
    EXECUTE 'SELECT pgwake.library_version()' INTO version;
    -- A function in C is only looked for when it is called.
    IF version <> pgwake.template_version() THEN
      problem := format('it is of version %s, and the triggers are for version %s: they run PL/pgSQL',
        version, pgwake.template_version());
      RETURN NEXT;
    ELSE
      severity := 'info';
      problem := 'the triggers of watched tables use it: a server without it, such as a standby that takes'
        ' over or one with a restored backup, refuses writes to them';
      remedy := 'install ffi/extension there, too; or SELECT pgwake.use_library(false)';
      RETURN NEXT;
    END IF;
  EXCEPTION WHEN OTHERS THEN
    problem := 'the server cannot load it, and refuses writes to watched tables: ' || SQLERRM;
    RETURN NEXT;
  END;
  IF EXISTS (SELECT FROM pg_proc p JOIN pg_language l ON l.oid = p.prolang
      WHERE p.pronamespace = 'pgwake'::regnamespace AND p.proname = 'change_by_library'
        AND (l.lanname, p.prosrc, p.probin, p.prosecdef, p.proconfig IS NULL)
          IS DISTINCT FROM ('c', 'pgwake_change', 'pgwake', true, true)) THEN
    severity := 'error';
    problem := 'its function pgwake.change_by_library() was altered';
    remedy := 'SELECT pgwake.use_library(true)';
    RETURN NEXT;
  END IF;
END $pgwake$;
