-- Generates the fast path: the statement that changed one row, by far the most frequent. One INSERT, or one
-- message, made from the transition tables: no loop, no array to compare, no subtransaction.
--
-- What keeps it from failing the writer after the table was altered behind our back: each column is looked
-- up by its bare name, which is found in the row, or else in a stand-in that is NULL. A value is converted
-- only if it has the type that the code was made for, or in a way that takes any type and runs nothing but
-- its output function. If not, there is no row here, and the slow path tells the change.

-- Types whose values always convert: a key of them needs no subtransaction around it.
CREATE OR REPLACE FUNCTION pgwake.always_converts(typ oid) RETURNS bool LANGUAGE sql STABLE
  SET search_path = pg_catalog, pg_temp AS $pgwake$
  SELECT pgwake.base_type(typ) = ANY ('{bool,int2,int4,int8,numeric,text,varchar,bpchar,uuid,date,timestamp,
    timestamptz}'::regtype[])
$pgwake$;

-- A value as JSON, from functions that take any type.
CREATE OR REPLACE FUNCTION pgwake.any_expression(typ oid, ref text) RETURNS text LANGUAGE sql STABLE
  SET search_path = pg_catalog, pg_temp AS $pgwake$
  SELECT format(CASE
    WHEN base IN ('int2'::regtype, 'int4'::regtype) THEN '%1$s'
    WHEN base = 'int8'::regtype THEN 'CASE WHEN pg_catalog.octet_length(pg_catalog.concat(%1$s))'
      || ' OPERATOR(pg_catalog.<) 16 THEN pg_catalog.concat(%1$s)'
      || ' ELSE pg_catalog.concat(''"''::pg_catalog.text, %1$s, ''"''::pg_catalog.text) END'
    WHEN base = 'bool'::regtype THEN 'pg_catalog.to_json(%1$s)'
    ELSE 'pg_catalog.to_json(pg_catalog.concat(%1$s))' END, ref)
  FROM (SELECT pgwake.base_type(typ) AS base) b
$pgwake$;

-- Whether it may be called. An int8 of 16 or 17 characters may be beyond 2^53 or not: that is for the slow
-- path to find out.
CREATE OR REPLACE FUNCTION pgwake.is_expected(typ oid, ref text) RETURNS text LANGUAGE sql STABLE
  SET search_path = pg_catalog, pg_temp AS $pgwake$
  SELECT CASE
    WHEN base NOT IN ('bool'::regtype, 'int2'::regtype, 'int4'::regtype, 'int8'::regtype) THEN
      format('%s IS NOT NULL', ref)
    ELSE format('pg_catalog.pg_typeof(%s) OPERATOR(pg_catalog.=) %s::pg_catalog.oid', ref, typ) END
    || CASE WHEN base = 'int8'::regtype THEN format(' AND pg_catalog.octet_length(pg_catalog.concat(%s))'
      || ' OPERATOR(pg_catalog.<>) ALL (ARRAY[16, 17])', ref) ELSE '' END
  FROM (SELECT pgwake.base_type(typ) AS base) b
$pgwake$;

-- `FROM` and all that follows, for a statement that changed one row, and what to select: `change` is JSON,
-- `parts` what the outbox takes, where the reader does the rest. NULL where there is no fast path.
DROP FUNCTION IF EXISTS pgwake.one_row(pgwake.watched, text);
CREATE OR REPLACE FUNCTION pgwake.one_row(w pgwake.watched, op text, OUT source text, OUT change text,
    OUT parts text) LANGUAGE sql STABLE
  SET search_path = pg_catalog, pg_temp AS $pgwake$
  SELECT format('FROM (SELECT %s) f, LATERAL (SELECT %s AS is_expected, %s FROM %s) n%s'
      || ' WHERE CASE WHEN n.is_expected%s THEN NOT EXISTS (SELECT FROM %4$s OFFSET 1) END',
    string_agg(format('NULL::pg_catalog.pg_node_tree AS %I', attname), ', ' ORDER BY num),
    string_agg(pgwake.is_expected(atttypid, quote_ident(attname)), ' AND ' ORDER BY num),
    string_agg(format('%I AS %I', attname, alias), ', ' ORDER BY num),
    CASE op WHEN 'delete' THEN 'pgwake_old' ELSE 'pgwake_new' END,
    CASE op WHEN 'update' THEN format(', LATERAL (SELECT %s FROM pgwake_old) o',
      string_agg(format('%I AS %I', attname, alias), ', ' ORDER BY num)) ELSE '' END,
    CASE WHEN op = 'update' AND w.transport <> 'outbox' THEN
      format(' AND pg_catalog.record_image_eq(ROW(%s), ROW(%s))',
        string_agg(format('n.%I', alias), ', ' ORDER BY num),
        string_agg(format('o.%I', alias), ', ' ORDER BY num)) ELSE '' END),
    format('pg_catalog.concat(''"key":{''::pg_catalog.text, %s, ''}''::pg_catalog.text)',
      string_agg(format('%L::pg_catalog.text, %s', comma || json_name || ':', new_value), ', ' ORDER BY num)),
    format('pg_catalog.concat(%L::pg_catalog.text, %s%s)',
      concat('{', max(json_name) FILTER (WHERE comma = ''), ':', chr(29)),
      string_agg(format('%s%s', rest, new_value), ', ' ORDER BY num),
      CASE op WHEN 'update' THEN
        ', E''\x1d''::pg_catalog.text, ' || string_agg(format('%s%s', rest, old_value), ', ' ORDER BY num)
        ELSE '' END)
  FROM (
    SELECT c.*,
      CASE comma WHEN '' THEN '' ELSE format('%L::pg_catalog.text, ', comma || json_name || ':') END AS rest,
      pgwake.any_expression(atttypid, 'n.' || alias) AS new_value,
      pgwake.any_expression(atttypid, 'o.' || alias) AS old_value
    FROM (
      SELECT c.num, a.attname, a.atttypid, c.json_name, 'pgwake_' || c.num AS alias,
        CASE WHEN row_number() OVER (ORDER BY c.num) > 1 THEN ',' ELSE '' END AS comma
      FROM pgwake.columns_of(w.relid, 'r') c JOIN pg_attribute a ON a.attrelid = w.relid AND a.attnum = c.num
      WHERE c.in_key) c) k
  WHERE w.mode = 'statement' AND w.payload = 'key' AND w.when_changed IS NULL AND op <> 'truncate'
  HAVING bool_and(pgwake.always_converts(atttypid))
$pgwake$;

-- The fast path of a trigger function. Statements that changed nothing end here, too.
CREATE OR REPLACE FUNCTION pgwake.fast_path(w pgwake.watched, op text) RETURNS text LANGUAGE sql STABLE
  SET search_path = pg_catalog, pg_temp AS $pgwake$
  SELECT CASE
    WHEN w.transport = 'wal' THEN format('
  PERFORM pg_catalog.pg_logical_emit_message(true, %L, %s) %s;', 'pgwake:' || coalesce(w.channel, 'pgwake'),
      pgwake.message_expression(w, op, NULL, change), source)
    WHEN w.transport = 'outbox' AND w.channel IS NULL THEN
      pgwake.into_the_outbox(format('SELECT %s, %s %s', pgwake.what(w.id, op), parts, source))
    END || format('
  -- Two conditions: one that holds a query is as expensive as a query.
  IF FOUND THEN%s
    RETURN NULL;
  ELSIF NOT EXISTS (SELECT FROM %s) THEN
    RETURN NULL;
  END IF;', CASE w.transport WHEN 'outbox' THEN pgwake.pull_rope() ELSE '' END,
    CASE op WHEN 'delete' THEN 'pgwake_old' ELSE 'pgwake_new' END)
  FROM pgwake.one_row(w, op) AS s WHERE source IS NOT NULL
$pgwake$;
