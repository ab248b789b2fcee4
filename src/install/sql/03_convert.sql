-- Generates the SQL that turns changed rows into JSON text. What it generates runs with our rights in other
-- people's transactions: so it calls nothing but pg_catalog's functions and types' output functions, which
-- are C. `to_json` of a whole row would call casts that the owner of a type may have written.

-- The type below domains.
CREATE OR REPLACE FUNCTION pgwake.base_type(typ oid) RETURNS oid LANGUAGE sql STABLE
  SET search_path = pg_catalog, pg_temp AS $pgwake$
  WITH RECURSIVE below AS (
    SELECT t.oid, t.typtype, t.typbasetype FROM pg_type t WHERE t.oid = typ
    UNION ALL
    SELECT t.oid, t.typtype, t.typbasetype FROM below b JOIN pg_type t ON t.oid = b.typbasetype
      WHERE b.typtype = 'd'
  )
  SELECT oid FROM below WHERE typtype <> 'd'
$pgwake$;

-- An expression for a value: a number, a boolean, JSON, or PostgreSQL's text form.
CREATE OR REPLACE FUNCTION pgwake.value_expression(typ oid, ref text) RETURNS text LANGUAGE sql STABLE
  SET search_path = pg_catalog, pg_temp AS $pgwake$
  SELECT CASE
    WHEN base = ANY ('{bool,int2,int4,float4,float8,json,jsonb,text}'::regtype[]) THEN
      format('(%s)::pg_catalog.%I', ref, (SELECT typname FROM pg_type WHERE oid = base))
    WHEN base = 'int8'::regtype THEN
      -- Beyond 2^53 a JSON number is not exact everywhere.
      format('CASE WHEN pg_catalog.int8abs(pg_catalog.int8larger(%1$s, -9007199254740993))'
        || ' OPERATOR(pg_catalog.<=) 9007199254740992 THEN pg_catalog.to_json((%1$s)::pg_catalog.int8)'
        || ' ELSE pg_catalog.to_json((%1$s)::pg_catalog.text) END', ref)
    WHEN base IN ('varchar'::regtype, 'name'::regtype) THEN format('(%s)::pg_catalog.text', ref)
    -- format calls the type's output function and nothing else. A row of nulls is a value, too.
    ELSE format('CASE WHEN (%1$s) IS DISTINCT FROM NULL THEN pg_catalog.format(''%%s'', %1$s) END', ref)
  END
  FROM (SELECT pgwake.base_type(typ) AS base) b
$pgwake$;

-- A table's columns: how each is named in SQL, in JSON, and as an expression over the alias `row`.
CREATE OR REPLACE FUNCTION pgwake.columns_of(rel oid, "row" text)
  RETURNS TABLE (num int, col name, json_name text, ref text, value text, in_key bool)
  LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $pgwake$
  WITH key AS (
    SELECT i.indkey FROM pg_index i WHERE i.indrelid = rel AND i.indisvalid AND i.indpred IS NULL
      AND (i.indisprimary OR i.indisreplident) ORDER BY i.indisprimary DESC LIMIT 1
  ), cols AS (
    SELECT a.attnum, a.attname, a.atttypid, CASE
      -- A virtual generated column is NULL in NEW and in transition tables: its expression is not.
      WHEN a.attgenerated = 'v' THEN format('(SELECT %s FROM (SELECT %s.*) v)',
        (SELECT pg_get_expr(d.adbin, d.adrelid) FROM pg_attrdef d
         WHERE d.adrelid = rel AND d.adnum = a.attnum), "row")
      ELSE format('%s.%I', "row", a.attname) END AS ref
    FROM pg_attribute a WHERE a.attrelid = rel AND a.attnum > 0 AND NOT a.attisdropped
  )
  SELECT attnum::int, attname, to_json(attname::text)::text, ref, pgwake.value_expression(atttypid, ref),
    coalesce(attnum = ANY ((SELECT indkey FROM key)::int2[]), false)
  FROM cols
$pgwake$;

-- What an INSERT or UPDATE computes after its BEFORE triggers. To compute it here would run functions of the
-- table's owner with our rights.
CREATE OR REPLACE FUNCTION pgwake.computed_later(rel oid) RETURNS name[] LANGUAGE sql STABLE
  SET search_path = pg_catalog, pg_temp AS $pgwake$
  SELECT ARRAY(SELECT attname FROM pg_attribute
    WHERE attrelid = rel AND attnum > 0 AND NOT attisdropped AND attgenerated = 's')
$pgwake$;

-- The columns as one text: when it differs, the triggers are stale.
CREATE OR REPLACE FUNCTION pgwake.shape_of(rel oid) RETURNS text LANGUAGE sql STABLE
  SET search_path = pg_catalog, pg_temp AS $pgwake$
  SELECT concat(string_agg(format('%s %s %s %s', num, col, value, in_key), ',' ORDER BY num),
    nullif(pgwake.computed_later(rel), '{}'), (SELECT string_agg(' ' || a.atttypid, '' ORDER BY a.attnum)
      FROM pg_attribute a WHERE a.attrelid = rel AND a.attnum > 0 AND a.atttypid >= 16384))
  FROM pgwake.columns_of(rel, 'r')
$pgwake$;

-- Settings on which the text form of these columns depends, for the function that converts them. Each costs
-- its statements some microseconds: a function that converts keys alone needs only theirs.
CREATE OR REPLACE FUNCTION pgwake.settings_for(rel oid, keys_only bool) RETURNS text LANGUAGE sql STABLE
  SET search_path = pg_catalog, pg_temp AS $pgwake$
  SELECT coalesce(string_agg(setting, ' ' ORDER BY setting), '') FROM (
    SELECT DISTINCT s.setting
    FROM pg_attribute a, LATERAL (SELECT pgwake.base_type(a.atttypid) AS base) b,
      LATERAL (SELECT typcategory AS category, typtype = 'b' AND oid >= 16384 AS is_custom
        FROM pg_type WHERE oid = b.base) t,
      LATERAL (VALUES
        ('SET DateStyle = ''ISO, YMD''', category IN ('D', 'A', 'C', 'R') OR is_custom),
        ('SET TimeZone = ''UTC''', category IN ('D', 'A', 'C', 'R') OR is_custom),
        ('SET IntervalStyle = ''postgres''', category IN ('T', 'A', 'C', 'R') OR is_custom),
        ('SET extra_float_digits = 1',
          base IN ('float4'::regtype, 'float8'::regtype) OR category IN ('A', 'C', 'R', 'G')),
        ('SET bytea_output = ''hex''', base = 'bytea'::regtype OR category IN ('A', 'C')),
        ('SET lc_monetary = ''C''', base = 'money'::regtype OR category IN ('A', 'C'))
      ) s (setting, wanted)
    WHERE a.attrelid = rel AND a.attnum > 0 AND NOT a.attisdropped AND s.wanted
      AND (a.attnum IN (SELECT c.num FROM pgwake.columns_of(rel, 'r') c WHERE c.in_key)
        OR NOT keys_only OR NOT EXISTS (SELECT FROM pgwake.columns_of(rel, 'r') c WHERE c.in_key))
  ) s
$pgwake$;

-- A key as JSON text, from parts: its columns are few and never NULL, and row_to_json costs more.
CREATE OR REPLACE FUNCTION pgwake.key_expression(rel oid, "row" text) RETURNS text LANGUAGE sql STABLE
  SET search_path = pg_catalog, pg_temp AS $pgwake$
  SELECT format('%L, %s, ''}''', '{', string_agg(format('%L, %s', comma || json_name || ':',
    CASE WHEN base IN ('int2'::regtype, 'int4'::regtype) THEN ref
      ELSE format('pg_catalog.to_json(%s)', value) END), ', ' ORDER BY num))
  FROM (SELECT c.*, CASE WHEN row_number() OVER (ORDER BY num) > 1 THEN ',' ELSE '' END AS comma,
      pgwake.base_type(a.atttypid) AS base
    FROM pgwake.columns_of(rel, "row") c JOIN pg_attribute a ON a.attrelid = rel AND a.attnum = c.num
    WHERE c.in_key) k
  HAVING count(*) > 0
$pgwake$;

-- Whether the columns still have the types that these expressions were made for. If not, they are not
-- evaluated: they could be no JSON, and call a cast to a type that the table's owner has made since.
CREATE OR REPLACE FUNCTION pgwake.types_expression(rel oid, "row" text, keys_only bool, wanted name[])
  RETURNS text LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $pgwake$
  SELECT coalesce(string_agg(format('pg_catalog.oideq(pg_catalog.pg_typeof(%s), %s::pg_catalog.oid)',
    c.ref, a.atttypid::oid), ' AND ' ORDER BY c.num), 'true')
  FROM pgwake.columns_of(rel, "row") c JOIN pg_attribute a ON a.attrelid = rel AND a.attnum = c.num
  WHERE a.attgenerated <> 'v' AND (c.in_key OR NOT keys_only AND (wanted IS NULL OR c.col = ANY (wanted)))
$pgwake$;

-- A whole row as JSON text.
CREATE OR REPLACE FUNCTION pgwake.object_expression(rel oid, "row" text, wanted name[])
  RETURNS text LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $pgwake$
  SELECT CASE count(*) WHEN 0 THEN '''{}''' ELSE
    format('(SELECT pg_catalog.row_to_json(pgwake_r) FROM (SELECT %s) pgwake_r)',
      string_agg(format('%s AS %I', value, col), ', ' ORDER BY num)) END
  FROM pgwake.columns_of(rel, "row")
  WHERE wanted IS NULL OR col = ANY (wanted)
$pgwake$;

-- Whether any of the columns differs, byte for byte: also types without equality can be compared so.
CREATE OR REPLACE FUNCTION pgwake.differs_expression(rel oid, is_key bool, wanted name[]) RETURNS text
  LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $pgwake$
  SELECT CASE count(*) WHEN 0 THEN 'false' ELSE format('pg_catalog.record_image_ne(ROW(%s), ROW(%s))',
    string_agg(o.ref, ', ' ORDER BY num), string_agg(n.ref, ', ' ORDER BY num)) END
  FROM pgwake.columns_of(rel, 'n') n JOIN pgwake.columns_of(rel, 'o') o USING (num)
  WHERE CASE WHEN is_key THEN n.in_key ELSE wanted IS NULL OR n.col = ANY (wanted) END
$pgwake$;

-- The columns that an UPDATE changed: their names, or an object of their values.
CREATE OR REPLACE FUNCTION pgwake.changed_expression(rel oid, "row" text, wanted name[]) RETURNS text
  LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $pgwake$
  SELECT format('pg_catalog.concat_ws('','', VARIADIC ARRAY[%s]::pg_catalog.text[])', string_agg(format(
    'CASE WHEN pg_catalog.record_image_ne(ROW(%s), ROW(%s)) THEN %s END', o.ref, n.ref, CASE "row"
      WHEN '' THEN quote_literal(n.json_name)
      ELSE format('pg_catalog.concat(%L::pg_catalog.text, coalesce(pg_catalog.to_json(%s)::pg_catalog.text,'
        || ' ''null''::pg_catalog.text))', n.json_name || ':',
        CASE "row" WHEN 'n' THEN n.value ELSE o.value END)
    END), ', ' ORDER BY num))
  FROM pgwake.columns_of(rel, 'n') n JOIN pgwake.columns_of(rel, 'o') o USING (num)
  WHERE wanted IS NULL OR n.col = ANY (wanted)
$pgwake$;
