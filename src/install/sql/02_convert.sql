-- Generates the SQL that turns changed rows into JSON text. What it generates runs with our rights in other
-- people's transactions: so it calls nothing but functions of pg_catalog and the output functions of types,
-- which are C. A cast would call what the owner of a type may have written.

-- The type below domains.
CREATE OR REPLACE FUNCTION pgwake.base_type(typ oid) RETURNS oid LANGUAGE sql STABLE AS $pgwake$
  WITH RECURSIVE below AS (
    SELECT t.oid, t.typtype, t.typbasetype FROM pg_type t WHERE t.oid = typ
    UNION ALL
    SELECT t.oid, t.typtype, t.typbasetype FROM below b JOIN pg_type t ON t.oid = b.typbasetype
      WHERE b.typtype = 'd'
  )
  SELECT oid FROM below WHERE typtype <> 'd'
$pgwake$;

-- The index that makes a table's key: of the primary key, or the replica identity.
CREATE OR REPLACE FUNCTION pgwake.key_index(rel oid) RETURNS oid LANGUAGE sql STABLE AS $pgwake$
  SELECT i.indexrelid FROM pg_index i WHERE i.indrelid = rel AND i.indisvalid AND i.indpred IS NULL
    AND (i.indisprimary OR i.indisreplident) ORDER BY i.indisprimary DESC LIMIT 1
$pgwake$;

-- A table's columns, as columns of the row `alias`.
CREATE OR REPLACE FUNCTION pgwake.columns_of(rel oid, alias text) RETURNS TABLE (num int2, col name, typ oid,
    base oid, ref text, in_key bool, generated "char") LANGUAGE sql STABLE AS $pgwake$
  SELECT a.attnum, a.attname, a.atttypid,
    CASE t.typtype WHEN 'd' THEN pgwake.base_type(t.oid) ELSE t.oid END,
    -- A virtual generated column is NULL in NEW and in transition tables: its expression is not.
    CASE a.attgenerated WHEN 'v' THEN format('(SELECT %s FROM (SELECT %s.*) v)', (SELECT pg_get_expr(
        d.adbin, d.adrelid) FROM pg_attrdef d WHERE d.adrelid = rel AND d.adnum = a.attnum), alias)
      ELSE format('%s.%I', alias, a.attname) END,
    coalesce(a.attnum = ANY (k.indkey::int2[]), false), a.attgenerated
  FROM pg_attribute a JOIN pg_type t ON t.oid = a.atttypid
    LEFT JOIN pg_index k ON k.indexrelid = pgwake.key_index(rel)
  WHERE a.attrelid = rel AND a.attnum > 0 AND NOT a.attisdropped
$pgwake$;

-- A value as JSON: a number, a boolean, JSON, or a string with PostgreSQL's text form.
CREATE OR REPLACE FUNCTION pgwake.value_expression(base oid, ref text) RETURNS text
  LANGUAGE sql STABLE AS $pgwake$
  SELECT format(CASE
    WHEN base = ANY ('{int2,int4,json,jsonb}'::regtype[]) THEN '(%1$s)::pg_catalog.%2$I'
    -- Beyond 2^53 a JSON number is not exact everywhere.
    WHEN base = 'int8'::regtype THEN
      'CASE WHEN pg_catalog.int8abs(pg_catalog.int8larger((%1$s)::pg_catalog.int8, -9007199254740993))'
        || ' OPERATOR(pg_catalog.<=) 9007199254740992 THEN pg_catalog.to_json((%1$s)::pg_catalog.int8)'
        || ' ELSE pg_catalog.to_json((%1$s)::pg_catalog.text) END'
    WHEN base = ANY ('{bool,float4,float8,text}'::regtype[]) THEN
      'pg_catalog.to_json((%1$s)::pg_catalog.%2$I)'
    WHEN base = ANY ('{varchar,name}'::regtype[]) THEN 'pg_catalog.to_json((%1$s)::pg_catalog.text)'
    -- format calls the output function of the type and nothing else. A row of nulls is a value, too.
    ELSE 'CASE WHEN (%1$s) IS DISTINCT FROM NULL'
      || ' THEN pg_catalog.to_json(pg_catalog.format(''%%s'', %1$s)) END' END,
    ref, (SELECT typname FROM pg_type WHERE oid = base))
$pgwake$;

-- Pieces of text as one expression. A piece that begins with = is a constant, others are expressions;
-- neighbours that are constants become one, and since a call takes 100 arguments at most, there is a call of
-- calls.
CREATE OR REPLACE FUNCTION pgwake.concat_expression(pieces text[]) RETURNS text
  LANGUAGE plpgsql IMMUTABLE AS $pgwake$
DECLARE
  arguments text[] := '{}';
  calls text[] := '{}';
  constant text := '';
  piece text;
BEGIN
  FOREACH piece IN ARRAY pieces LOOP
    IF starts_with(piece, '=') THEN
      constant := constant || substr(piece, 2);
    ELSE
      arguments := arguments || quote_literal(constant) || piece;
      constant := '';
    END IF;
    IF cardinality(arguments) = 98 THEN
      calls := calls || format('pg_catalog.concat(%s)', array_to_string(arguments, ', '));
      arguments := '{}';
    END IF;
  END LOOP;
  arguments := arguments || quote_literal(constant);
  arguments := calls || format('pg_catalog.concat(%s)', array_to_string(arguments, ', '));
  RETURN CASE cardinality(calls) WHEN 0 THEN arguments[1]
    ELSE format('pg_catalog.concat(%s)', array_to_string(arguments, ', ')) END;
END $pgwake$;

-- These columns of a row as a JSON object, in pieces. NULL: all.
CREATE OR REPLACE FUNCTION pgwake.object_pieces(rel oid, alias text, wanted int2[]) RETURNS text[]
  LANGUAGE sql STABLE AS $pgwake$
  SELECT '={'::text || coalesce(array_agg(piece ORDER BY num, i), '{}') || '=}'::text
  FROM (
    SELECT c.*, row_number() OVER (ORDER BY c.num) AS place FROM pgwake.columns_of(rel, alias) c
    WHERE wanted IS NULL OR c.num = ANY (wanted)) c,
    unnest(ARRAY[
      concat('=', CASE WHEN place > 1 THEN ',' END, to_json(col::text), ':'),
      format('coalesce((%s)::pg_catalog.text, ''null'')', pgwake.value_expression(base, ref))])
      WITH ORDINALITY u (piece, i)
$pgwake$;

-- What an UPDATE changed, byte for byte, for types without equality, too: the names of the columns as a JSON
-- array, or their values in a row as an object.
CREATE OR REPLACE FUNCTION pgwake.changed_expression(rel oid, alias text, wanted int2[]) RETURNS text
  LANGUAGE sql STABLE AS $pgwake$
  SELECT format('pg_catalog.concat(%L::pg_catalog.text, pg_catalog.concat_ws('',''::pg_catalog.text,'
      || ' VARIADIC ARRAY[%s]::pg_catalog.text[]), %L::pg_catalog.text)',
    CASE WHEN alias IS NULL THEN '[' ELSE '{' END,
    string_agg(format('CASE WHEN pg_catalog.record_image_ne(ROW(%s), ROW(%s)) THEN %s END', o.ref, n.ref,
      CASE WHEN alias IS NULL THEN format('%L', to_json(n.col::text))
        ELSE format('pg_catalog.concat(%L::pg_catalog.text, coalesce((%s)::pg_catalog.text, ''null''))',
          concat(to_json(n.col::text), ':'), pgwake.value_expression(n.base,
            CASE alias WHEN 'n' THEN n.ref ELSE o.ref END)) END), ', ' ORDER BY n.num),
    CASE WHEN alias IS NULL THEN ']' ELSE '}' END)
  FROM pgwake.columns_of(rel, 'n') n JOIN pgwake.columns_of(rel, 'o') o USING (num)
  WHERE wanted IS NULL OR n.num = ANY (wanted)
$pgwake$;

-- Whether any of these columns differs.
CREATE OR REPLACE FUNCTION pgwake.differs_expression(rel oid, wanted int2[]) RETURNS text
  LANGUAGE sql STABLE AS $pgwake$
  SELECT CASE count(*) WHEN 0 THEN 'false' ELSE format('pg_catalog.record_image_ne(ROW(%s), ROW(%s))',
    string_agg(o.ref, ', ' ORDER BY num), string_agg(n.ref, ', ' ORDER BY num)) END
  FROM pgwake.columns_of(rel, 'n') n JOIN pgwake.columns_of(rel, 'o') o USING (num)
  WHERE n.num = ANY (wanted)
$pgwake$;

-- Whether the columns still have the types that these expressions were made for. If not, they are not
-- evaluated: they could be no JSON, and call a cast to a type that the table's owner has made since. Where
-- all columns are wanted, whether there is none of the next number.
CREATE OR REPLACE FUNCTION pgwake.types_expression(w pgwake.watched, alias text, wanted int2[]) RETURNS text
  LANGUAGE sql STABLE AS $pgwake$
  SELECT coalesce(string_agg(format('pg_catalog.oideq(pg_catalog.pg_typeof(%s), %s::pg_catalog.oid)',
      ref, typ), ' AND ' ORDER BY num), 'true') || CASE WHEN wanted IS NULL THEN format(
    ' AND (SELECT pg_catalog.has_column_privilege(pgwake.relation_of(%s), %s::pg_catalog.int2, ''SELECT'')'
      ' IS NULL)',
    w.id, (SELECT relnatts + 1 FROM pg_class WHERE oid = w.relid)) ELSE '' END
  FROM pgwake.columns_of(w.relid, alias)
  WHERE generated <> 'v' AND (wanted IS NULL OR num = ANY (wanted))
$pgwake$;

-- Settings on which the text form of these columns depends, for the function that converts them, as pg_proc
-- has them: each costs its statements some microseconds. Types of which nothing is known here may depend on
-- all.
CREATE OR REPLACE FUNCTION pgwake.settings_for(rel oid, wanted int2[]) RETURNS text[]
  LANGUAGE sql STABLE AS $pgwake$
  SELECT array_agg(DISTINCT concat(s.name, '=', s.value)) || 'search_path=pg_catalog, pg_temp'::text
  FROM pgwake.columns_of(rel, 'r') c JOIN pg_type t ON t.oid = c.base
    JOIN (VALUES ('DateStyle', 'ISO, YMD', '{date,timestamp,timestamptz}'::regtype[]),
        ('TimeZone', 'UTC', '{timestamptz}'),
        ('IntervalStyle', 'postgres', '{interval}'),
        ('extra_float_digits', '1', '{float4,float8}'),
        ('bytea_output', 'hex', '{bytea}'),
        ('lc_monetary', 'C', '{money}'),
        ('quote_all_identifiers', 'off', '{}')) s (name, value, types)
      ON c.base = ANY (s.types)
        OR t.typtype <> 'e' AND c.base <> ALL ('{date,timestamp,timestamptz,interval,float4,float8,bytea,
          money,bool,int2,int4,int8,oid,numeric,text,varchar,bpchar,name,uuid,json,jsonb,inet,cidr,macaddr,
          macaddr8,bit,varbit,xml,tsvector,tsquery,time,timetz,pg_lsn,xid,xid8}'::regtype[])
  WHERE wanted IS NULL OR c.num = ANY (wanted)
$pgwake$;
