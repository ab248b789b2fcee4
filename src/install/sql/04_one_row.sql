-- Generates the fast path: the statement that changed one row, by far the most frequent. One INSERT, or one
-- message, made from the transition tables: no loop, no array to compare, no subtransaction. For the outbox
-- another INSERT does the same for up to 256 rows.
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

-- Whether it may be called.
CREATE OR REPLACE FUNCTION pgwake.is_expected(typ oid, ref text) RETURNS text LANGUAGE sql STABLE
  SET search_path = pg_catalog, pg_temp AS $pgwake$
  SELECT CASE
    WHEN base NOT IN ('bool'::regtype, 'int2'::regtype, 'int4'::regtype, 'int8'::regtype) THEN
      format('%s IS NOT NULL', ref)
    ELSE format('pg_catalog.oideq(pg_catalog.pg_typeof(%s), %s::pg_catalog.oid)', ref, typ) END
  FROM (SELECT pgwake.base_type(typ) AS base) b
$pgwake$;

-- The columns of a key, and where they go: `alias` is none that the table has. An int8 of 16 or 17
-- characters may be beyond 2^53 or not: that is for the slow path to find out, but for the reader where it is
-- a whole key in the outbox, `is_number`.
CREATE OR REPLACE FUNCTION pgwake.key_parts(w pgwake.watched)
  RETURNS TABLE (num int, typ oid, col text, alias text, name text, is_expected text, is_number bool)
  LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $pgwake$
  SELECT num, atttypid, col, 'pgwake_' || num, concat(CASE WHEN place > 1 THEN ',' END, json_name, ':'),
    pgwake.is_expected(atttypid, col) || CASE WHEN is_int8 AND NOT is_alone THEN format(
      ' AND pg_catalog.octet_length(pg_catalog.concat(%s)) OPERATOR(pg_catalog.<>) ALL (ARRAY[16, 17])', col)
      ELSE '' END,
    is_int8 AND is_alone
  FROM (
    SELECT c.num, a.atttypid, quote_ident(c.col) AS col, c.json_name,
      row_number() OVER (ORDER BY c.num) AS place,
      pgwake.base_type(a.atttypid) = 'int8'::regtype AS is_int8,
      w.transport = 'outbox' AND count(*) OVER () = 1 AS is_alone
    FROM pgwake.columns_of(w.relid, 'r') c JOIN pg_attribute a ON a.attrelid = w.relid AND a.attnum = c.num
    WHERE c.in_key) k
$pgwake$;

-- What the outbox keeps of a row's key: all that follows its beginning.
CREATE OR REPLACE FUNCTION pgwake.key_rest(w pgwake.watched, "row" text) RETURNS text LANGUAGE sql STABLE
  SET search_path = pg_catalog, pg_temp AS $pgwake$
  SELECT string_agg(concat(CASE WHEN name LIKE ',%' THEN format('%L::pg_catalog.text, ', name) END,
    CASE WHEN is_number THEN ref ELSE pgwake.any_expression(typ, ref) END), ', ' ORDER BY num)
  FROM pgwake.key_parts(w), LATERAL concat("row", '.', alias) AS ref
$pgwake$;

-- The beginning of a key.
CREATE OR REPLACE FUNCTION pgwake.key_opening(w pgwake.watched) RETURNS text LANGUAGE sql STABLE
  SET search_path = pg_catalog, pg_temp AS $pgwake$
  SELECT format('%L::pg_catalog.text', concat('{', name, CASE WHEN is_number THEN chr(31) END, chr(29)))
  FROM pgwake.key_parts(w) WHERE name NOT LIKE ',%'
$pgwake$;

CREATE OR REPLACE FUNCTION pgwake.has_fast_path(w pgwake.watched, op text) RETURNS bool LANGUAGE sql STABLE
  SET search_path = pg_catalog, pg_temp AS $pgwake$
  SELECT w.mode = 'statement' AND w.payload = 'key' AND w.when_changed IS NULL AND op <> 'truncate'
    AND (SELECT bool_and(pgwake.always_converts(typ)) FROM pgwake.key_parts(w)) IS TRUE
$pgwake$;

-- Whether a key before an UPDATE is surely told right, too: its types are those of the key after it. NULL: it
-- always is.
CREATE OR REPLACE FUNCTION pgwake.is_certain(w pgwake.watched, "row" text) RETURNS text LANGUAGE sql STABLE
  SET search_path = pg_catalog, pg_temp AS $pgwake$
  SELECT string_agg(format('pg_catalog.octet_length(pg_catalog.concat(%s.%s))'
    || ' OPERATOR(pg_catalog.<>) ALL (ARRAY[16, 17])', "row", alias), ' AND ' ORDER BY num)
  FROM pgwake.key_parts(w) WHERE pgwake.base_type(typ) = 'int8'::regtype AND NOT is_number
$pgwake$;

-- `FROM` and all that follows, for a statement that changed one row: `n` is it, `o` what it was before an
-- UPDATE. The outbox takes both, and the reader compares them. The check is one of `n` alone and the join an
-- outer one, so that of many rows each is looked at once: in another order each would meet each.
CREATE OR REPLACE FUNCTION pgwake.one_row(w pgwake.watched, op text) RETURNS text LANGUAGE sql STABLE
  SET search_path = pg_catalog, pg_temp AS $pgwake$
  SELECT format('FROM (SELECT %s) f, LATERAL (SELECT %s AS is_expected, %s FROM %s) n%s'
      || ' WHERE CASE WHEN n.is_expected%7$s THEN NOT EXISTS (SELECT FROM %4$s OFFSET 1) END%6$s',
    string_agg(format('NULL::pg_catalog.pg_node_tree AS %s', col), ', ' ORDER BY num),
    string_agg(is_expected, ' AND ' ORDER BY num), string_agg(concat(col, ' AS ', alias), ', ' ORDER BY num),
    CASE op WHEN 'delete' THEN 'pgwake_old' ELSE 'pgwake_new' END,
    CASE op WHEN 'update' THEN format(' LEFT JOIN LATERAL (SELECT %s FROM pgwake_old) o ON true',
      string_agg(concat(col, ' AS ', alias), ', ' ORDER BY num)) ELSE '' END,
    CASE WHEN op = 'update' AND w.transport <> 'outbox' THEN
      format(' AND pg_catalog.record_image_eq(ROW(%s), ROW(%s))',
        string_agg('n.' || alias, ', ' ORDER BY num), string_agg('o.' || alias, ', ' ORDER BY num))
      ELSE '' END,
    CASE WHEN op = 'update' THEN ' AND ' || pgwake.is_certain(w, 'o') END)
  FROM pgwake.key_parts(w)
$pgwake$;

-- The keys of up to 256 rows as one text, `keys`; there is one row more in `count` if there are others.
CREATE OR REPLACE FUNCTION pgwake.keys_of(w pgwake.watched, rows text) RETURNS text LANGUAGE sql STABLE
  SET search_path = pg_catalog, pg_temp AS $pgwake$
  SELECT format('LATERAL (SELECT pg_catalog.bool_and(r.is_expected) AS is_expected,'
      || ' pg_catalog.count(*) AS count, pg_catalog.string_agg(CASE WHEN r.is_expected'
      || ' THEN pg_catalog.concat(%s) END, E''\x1e'') AS keys'
      || ' FROM (SELECT %s AS is_expected, %s FROM %s LIMIT 257) r)', pgwake.key_rest(w, 'r'),
    string_agg(is_expected, ' AND ' ORDER BY num),
    string_agg(concat(col, ' AS ', alias), ', ' ORDER BY num), rows)
  FROM pgwake.key_parts(w)
$pgwake$;

-- The same as one_row for 2 to 256 rows.
CREATE OR REPLACE FUNCTION pgwake.many_rows(w pgwake.watched, op text) RETURNS text LANGUAGE sql STABLE
  SET search_path = pg_catalog, pg_temp AS $pgwake$
  SELECT format('FROM (SELECT %s) f, %s n%s WHERE n.is_expected AND n.count OPERATOR(pg_catalog.<) 257%s',
    string_agg(format('NULL::pg_catalog.pg_node_tree AS %s', col), ', ' ORDER BY num),
    pgwake.keys_of(w, CASE op WHEN 'delete' THEN 'pgwake_old' ELSE 'pgwake_new' END),
    CASE op WHEN 'update' THEN format(', %s o', pgwake.keys_of(w, 'pgwake_old')) ELSE '' END,
    CASE op WHEN 'update' THEN ' AND o.is_expected' END)
  FROM pgwake.key_parts(w)
$pgwake$;

-- The fast path of a trigger function. Statements that changed nothing end here, too.
CREATE OR REPLACE FUNCTION pgwake.fast_path(w pgwake.watched, op text) RETURNS text LANGUAGE sql STABLE
  SET search_path = pg_catalog, pg_temp AS $pgwake$
  SELECT concat(CASE
    WHEN w.transport = 'wal' THEN format('
  PERFORM pg_catalog.pg_logical_emit_message(true, %L, %s) %s;', 'pgwake:' || coalesce(w.channel, 'pgwake'),
      pgwake.message_expression(w, op, NULL, (SELECT format('pg_catalog.concat(%s, ''}''::pg_catalog.text)',
        string_agg(format('%L::pg_catalog.text, %s', CASE WHEN name LIKE ',%' THEN '' ELSE '"key":{' END
          || name, pgwake.any_expression(typ, 'n.' || alias)), ', ' ORDER BY num))
        FROM pgwake.key_parts(w))), pgwake.one_row(w, op))
    ELSE pgwake.into_the_outbox(format('SELECT %s, pg_catalog.concat(%s, %s%s) %s', pgwake.what(w.id, op),
      pgwake.key_opening(w), pgwake.key_rest(w, 'n'),
      CASE op WHEN 'update' THEN ', E''\x1d''::pg_catalog.text, ' || pgwake.key_rest(w, 'o') ELSE '' END,
      pgwake.one_row(w, op))) END, format('
  -- Two conditions: one that holds a query is as expensive as a query.
  IF FOUND THEN%s
    RETURN NULL;
  ELSIF NOT EXISTS (SELECT FROM %s) THEN
    RETURN NULL;
  END IF;', ended, CASE op WHEN 'delete' THEN 'pgwake_old' ELSE 'pgwake_new' END),
    CASE w.transport WHEN 'outbox' THEN concat(
      pgwake.into_the_outbox(format('SELECT %s, pg_catalog.concat(%s, n.keys%s) %s', pgwake.what(w.id, op),
        pgwake.key_opening(w), CASE op WHEN 'update' THEN ', E''\x1d''::pg_catalog.text, o.keys' ELSE '' END,
        pgwake.many_rows(w, op))), format('
  IF FOUND THEN%s
    RETURN NULL;
  END IF;', ended)) END)
  FROM (SELECT CASE w.transport WHEN 'outbox' THEN pgwake.pull_rope() ELSE '' END) AS s (ended)
  WHERE pgwake.has_fast_path(w, op) AND (w.transport = 'wal' OR w.transport = 'outbox' AND w.channel IS NULL)
$pgwake$;
