-- Generates the trigger functions of a watched table, one per operation. They run in the writer's statement
-- with the rights of the owner of pgwake, so every name and operator is qualified; they hold no number of a
-- relation, which a dump would take along.

-- The columns of a table's key; none if it has none that is known when the trigger fires.
CREATE OR REPLACE FUNCTION pgwake.key_columns(rel oid, mode text) RETURNS int2[]
  LANGUAGE sql STABLE AS $pgwake$
  SELECT CASE WHEN mode = 'before' AND bool_or(generated = 's') THEN '{}'
    ELSE coalesce(array_agg(num ORDER BY num), '{}') END
  FROM pgwake.columns_of(rel, 'r') WHERE in_key
$pgwake$;

-- A changed row `n`, and what it was, `o`, as a JSON object. NULL if the columns have other types by now.
CREATE OR REPLACE FUNCTION pgwake.change_expression(w pgwake.watched, op text) RETURNS text
  LANGUAGE plpgsql STABLE AS $pgwake$
DECLARE
  this text := CASE op WHEN 'delete' THEN 'o' ELSE 'n' END;
  key int2[] := pgwake.key_columns(w.relid, w.mode);
  payload text := CASE WHEN w.payload = 'key' AND key = '{}' THEN 'row' ELSE w.payload END;
  -- Before a change nobody knows what it makes of the generated columns, and to compute them here would run
  -- functions of the table's owner with our rights.
  wanted int2[] := CASE w.mode WHEN 'before' THEN ARRAY(SELECT num FROM pgwake.columns_of(w.relid, 'r')
    WHERE generated <> 's' AND (w.column_numbers IS NULL OR num = ANY (w.column_numbers)))
    ELSE w.column_numbers END;
  pieces text[] := '={"key":'::text || CASE key WHEN '{}' THEN ARRAY['=null']
    ELSE pgwake.object_pieces(w.relid, this, key) END;
BEGIN
  IF payload = 'wake' THEN
    RETURN quote_literal('{}');
  ELSIF op = 'update' AND payload = 'key' THEN
    pieces := pieces || format('CASE WHEN %s THEN %s END', pgwake.differs_expression(w.relid, key),
      pgwake.concat_expression('=,"old":'::text || pgwake.object_pieces(w.relid, 'o', key)));
  ELSIF op = 'update' THEN
    pieces := pieces || ARRAY['=,"changed":', pgwake.changed_expression(w.relid, NULL, wanted)];
  END IF;
  IF op = 'update' AND payload = 'changed' THEN
    pieces := pieces || ARRAY['=,"old":', pgwake.changed_expression(w.relid, 'o', wanted),
      '=,"new":', pgwake.changed_expression(w.relid, 'n', wanted)];
  ELSIF payload IN ('row', 'changed') THEN
    IF op <> 'insert' THEN
      pieces := pieces || '=,"old":'::text || pgwake.object_pieces(w.relid, 'o', w.column_numbers);
    END IF;
    IF op <> 'delete' THEN
      pieces := pieces || '=,"new":'::text || pgwake.object_pieces(w.relid, 'n', wanted);
    END IF;
  END IF;
  RETURN format('CASE WHEN %s THEN %s END', pgwake.types_expression(w, this,
      CASE WHEN payload = 'key' THEN key WHEN w.column_numbers IS NOT NULL THEN w.column_numbers || key END),
    pgwake.concat_expression(pieces || '=}'::text));
END $pgwake$;

-- Which of the changed rows are delivered; NULL: all.
CREATE OR REPLACE FUNCTION pgwake.filter_expression(w pgwake.watched, op text) RETURNS text
  LANGUAGE sql STABLE AS $pgwake$
  SELECT CASE WHEN op = 'update' AND w.when_changed_numbers IS NOT NULL
    THEN pgwake.differs_expression(w.relid, w.when_changed_numbers) END
$pgwake$;

-- A query that gives one object per changed row. Old and new rows come into the transition tables together,
-- so their numbers pair them.
CREATE OR REPLACE FUNCTION pgwake.changes_query(w pgwake.watched, op text, change text) RETURNS text
  LANGUAGE sql STABLE AS $pgwake$
  SELECT format('SELECT %s AS change FROM %s WHERE %s', change, CASE
      WHEN w.mode <> 'statement' THEN '(SELECT ($1).*) n, (SELECT ($2).*) o'
      WHEN op = 'insert' THEN 'pgwake_new n' WHEN op = 'delete' THEN 'pgwake_old o'
      ELSE '(SELECT pg_catalog.row_number() OVER () AS "pgwake #", t.* FROM pgwake_new t) n JOIN'
        || ' (SELECT pg_catalog.row_number() OVER () AS "pgwake #", t.* FROM pgwake_old t) o'
        || ' ON n."pgwake #" OPERATOR(pg_catalog.=) o."pgwake #"' END,
    coalesce(pgwake.filter_expression(w, op), 'true'))
$pgwake$;

-- The same for a function that was generated before the table was altered.
CREATE OR REPLACE FUNCTION pgwake.changes_query(watch int, op text) RETURNS text
  LANGUAGE sql STABLE AS $pgwake$
  SELECT pgwake.changes_query(w, op, pgwake.change_expression(w, op)) FROM pgwake.watched w WHERE w.id = watch
$pgwake$;

-- The keys of changed rows alone, and the number and list of what a query gives, of 257 rows at most.
CREATE OR REPLACE FUNCTION pgwake.key_query(w pgwake.watched, alias text, source text, key int2[]) RETURNS
    text LANGUAGE sql STABLE AS $pgwake$
  SELECT format(CASE alias WHEN 'n' THEN 'SELECT CASE WHEN %1$s THEN %2$s END AS change FROM %3$s %4$s'
      ELSE 'SELECT %2$s AS change FROM %3$s %4$s' END, pgwake.types_expression(w, alias, key),
    pgwake.concat_expression('={"key":'::text || pgwake.object_pieces(w.relid, alias, key) || '=}'::text),
    source, alias)
$pgwake$;

CREATE OR REPLACE FUNCTION pgwake.list_query(query text, most int) RETURNS text
  LANGUAGE sql IMMUTABLE AS $pgwake$
  SELECT format('SELECT pg_catalog.count(*) AS many, pg_catalog.string_agg(change, '','') AS list'
    || ' FROM (%s LIMIT %s) c', query, most)
$pgwake$;

-- A query that gives the number of several changed rows, up to 257, and their objects as a list; NULL if
-- another look is needed. The usual UPDATE changes no key: then the keys are all there is to deliver, and no
-- row need be paired with what it was.
CREATE OR REPLACE FUNCTION pgwake.several_rows(w pgwake.watched, op text, change text) RETURNS text
  LANGUAGE sql STABLE AS $pgwake$
  SELECT CASE WHEN op = 'update' AND w.payload = 'key' AND w.when_changed IS NULL AND key <> '{}' THEN
      format('SELECT n.many, CASE WHEN n.list OPERATOR(pg_catalog.=) o.list THEN n.list END FROM'
        ' (%s) n, (%s) o',
        pgwake.list_query(pgwake.key_query(w, 'n', 'pgwake_new', key), 257),
        pgwake.list_query(pgwake.key_query(w, 'o', 'pgwake_old', key), 257))
    ELSE pgwake.list_query(pgwake.changes_query(w, op, change),
      CASE w.payload WHEN 'wake' THEN 1 ELSE 257 END) END
  FROM pgwake.key_columns(w.relid, w.mode) AS key
$pgwake$;

-- The table of a watch, for generated code. A plan asks this once.
CREATE OR REPLACE FUNCTION pgwake.relation_of(watch int) RETURNS oid LANGUAGE sql IMMUTABLE AS $pgwake$
  SELECT w.relid::oid FROM pgwake.watched w WHERE w.id = watch
$pgwake$;

-- How the changes in `list` are handed on: the outbox is written here, for every call costs.
CREATE OR REPLACE FUNCTION pgwake.delivery(w pgwake.watched, op text) RETURNS text
  LANGUAGE sql STABLE AS $pgwake$
  SELECT CASE WHEN w.payload = 'wake' OR w.transport <> 'outbox' OR w.channel IS NOT NULL THEN format($body$
    PERFORM pgwake.deliver(%s, part, %L, pg_catalog.concat('[', list, ']'));$body$, w.id, op)
  ELSE format($body$
    current := pg_catalog.pg_sequence_last_value('pgwake.current_table'::pg_catalog.regclass);
    IF current OPERATOR(pg_catalog.=) 0 THEN
      INSERT INTO pgwake.outbox_0 (watch, part, op, changes) VALUES %1$s;
    ELSIF current OPERATOR(pg_catalog.=) 1 THEN
      INSERT INTO pgwake.outbox_1 (watch, part, op, changes) VALUES %1$s;
    ELSE
      INSERT INTO pgwake.outbox_2 (watch, part, op, changes) VALUES %1$s;
    END IF;$body$, format('(%s, part, %L, pg_catalog.concat(''['', list, '']''))', w.id, op)) END
$pgwake$;

-- The body of a trigger function. The usual statement changes one row; of several there is one outbox row up
-- to 256 and 1 MB. For more, and for a table that was altered behind our back, the query is made anew and
-- read in pieces. What cannot be converted at all is delivered once, without values, and counted.
--
-- `list` has the objects, or '!' where another look is needed. It is made in a subtransaction, for nothing
-- may fail the writer; what is written is written outside of it, so that no statement takes a number of its
-- own.
CREATE OR REPLACE FUNCTION pgwake.trigger_body(w pgwake.watched, op text) RETURNS text
  LANGUAGE plpgsql STABLE AS $pgwake$
DECLARE
  is_row bool := w.mode <> 'statement';
  result text := CASE WHEN op = 'truncate' OR w.mode NOT IN ('instead', 'before') THEN 'NULL'
    WHEN op = 'delete' THEN 'OLD' ELSE 'NEW' END;
  change text := CASE WHEN op <> 'truncate' THEN pgwake.change_expression(w, op) END;
  filter text := pgwake.filter_expression(w, op);
  source text := concat_ws(', ',
    CASE WHEN op <> 'delete' THEN CASE WHEN is_row THEN '(SELECT NEW.*) n' ELSE 'pgwake_new n' END END,
    CASE WHEN op <> 'insert' THEN CASE WHEN is_row THEN '(SELECT OLD.*) o' ELSE 'pgwake_old o' END END);
  part text := CASE WHEN is_row OR op = 'truncate' THEN format(
    ' := CASE WHEN TG_RELID OPERATOR(pg_catalog.<>) pgwake.relation_of(%s) THEN TG_RELID END', w.id) END;
BEGIN
  IF op = 'truncate' THEN
    RETURN format($body$
DECLARE
  current pg_catalog.int8;
  part pg_catalog.oid%s;
  list pg_catalog.text := '{}';
BEGIN
  IF NOT pgwake.is_part_of_truncate(pgwake.relation_of(%s), TG_RELID) THEN%s
  END IF;
  RETURN NULL;
END $body$, part, w.id, pgwake.delivery(w, op));
  END IF;
  RETURN format($body$
#variable_conflict use_column
DECLARE
  current pg_catalog.int8;
  part pg_catalog.oid%1$s;
  list pg_catalog.text;
  many pg_catalog.int8;
  rows pg_catalog.refcursor;
  problem pg_catalog.text;
BEGIN%2$s
  BEGIN
    SELECT %3$s INTO STRICT list FROM %4$s;
  EXCEPTION
    WHEN no_data_found THEN RETURN %5$s;%6$s
    WHEN OTHERS THEN list := '!';
  END;%7$s
  IF list OPERATOR(pg_catalog.<>) '!' THEN%8$s
    RETURN %5$s;
  END IF;
  LOOP
    BEGIN
      IF rows IS NULL THEN
        OPEN rows FOR EXECUTE pgwake.changes_query(%9$s, %10$L)%11$s;
      END IF;
      list := pgwake.fetch_list(rows);
    EXCEPTION WHEN OTHERS THEN
      problem := SQLSTATE;
      list := pg_catalog.concat('{"unconvertible":"', problem, '"}');
    END;
    EXIT WHEN list IS NULL;
    PERFORM pgwake.deliver(%9$s, part, %10$L, pg_catalog.concat('[', list, ']'));
    CONTINUE WHEN problem IS NULL;
    PERFORM pg_catalog.nextval('pgwake.unconvertible'::pg_catalog.regclass);
    EXIT;
  END LOOP;
  IF problem IS NULL THEN
    CLOSE rows;
  END IF;
  RETURN %5$s;
END $body$,
    part, CASE w.mode WHEN 'instead' THEN '
  PERFORM pgwake.has_other_instead_of(TG_RELID, TG_OP);' ELSE '' END,
    format(CASE WHEN filter IS NULL THEN 'coalesce(%s, ''!'')'
      ELSE 'CASE WHEN %2$s THEN coalesce(%1$s, ''!'') ELSE '''' END' END, change, filter), source, result,
    CASE WHEN NOT is_row THEN format($body$
    WHEN too_many_rows THEN
      BEGIN
        %s INTO many, list;
        IF many OPERATOR(pg_catalog.=) 0 THEN
          RETURN NULL;
        ELSIF list IS NULL OR many OPERATOR(pg_catalog.=) 257
            OR pg_catalog.octet_length(list) OPERATOR(pg_catalog.>) 1048576 THEN
          list := '!';
        END IF;
      EXCEPTION WHEN OTHERS THEN
        list := '!';
      END;$body$, pgwake.several_rows(w, op, change)) ELSE '' END,
    CASE WHEN filter IS NOT NULL THEN format('
  IF list OPERATOR(pg_catalog.=) '''' THEN RETURN %s; END IF;', result) ELSE '' END,
    pgwake.delivery(w, op), w.id, op,
    CASE WHEN NOT is_row THEN '' WHEN op = 'insert' THEN ' USING NEW, NEW'
      WHEN op = 'update' THEN ' USING NEW, OLD' ELSE ' USING OLD, OLD' END);
END $pgwake$;

-- The next objects of a cursor, up to 256 or 1 MB and one more; NULL when there are none.
CREATE OR REPLACE FUNCTION pgwake.fetch_list(rows refcursor) RETURNS text LANGUAGE plpgsql AS $pgwake$
DECLARE
  change text;
  changes text[] := '{}';
  size bigint := 0;
BEGIN
  WHILE cardinality(changes) < 256 AND size < 1048576 LOOP
    FETCH rows INTO change;
    EXIT WHEN NOT FOUND;
    changes := array_append(changes, change);
    size := size + octet_length(change);
  END LOOP;
  RETURN nullif(array_to_string(changes, ','), '');
END $pgwake$;

CREATE OR REPLACE FUNCTION pgwake.function_name(w pgwake.watched, op text) RETURNS name
  LANGUAGE sql STABLE AS $pgwake$
  SELECT format('change_%s_%s', w.id, op)::name
$pgwake$;

-- The settings of a trigger function, as pg_proc has them: without a search_path of ours, `n.id` would be a
-- call of a function id() of the writer's where the column has another name by now.
CREATE OR REPLACE FUNCTION pgwake.trigger_settings(w pgwake.watched, op text) RETURNS text[]
  LANGUAGE sql STABLE AS $pgwake$
  SELECT CASE WHEN op = 'truncate' OR w.payload = 'wake' THEN '{"search_path=pg_catalog, pg_temp"}'
    ELSE pgwake.settings_for(w.relid, CASE WHEN w.payload = 'key' AND key <> '{}' THEN key END) END
  FROM pgwake.key_columns(w.relid, w.mode) AS key
$pgwake$;

-- Whether a trigger function is what would be made now: the table is as it was, and nobody altered it.
CREATE OR REPLACE FUNCTION pgwake.is_function(name name, body text, settings text[]) RETURNS bool
  LANGUAGE sql STABLE AS $pgwake$
  SELECT EXISTS (SELECT FROM pg_proc p
    WHERE p.pronamespace = 'pgwake'::regnamespace AND p.proname = is_function.name AND p.prosecdef
      AND p.prosrc = body AND coalesce(p.proconfig, '{}') = settings)
$pgwake$;

-- Makes a trigger function as it should be now, unless it is.
CREATE OR REPLACE FUNCTION pgwake.make_function(w pgwake.watched, op text) RETURNS void
  LANGUAGE plpgsql SET quote_all_identifiers = off AS $pgwake$
DECLARE
  name name := pgwake.function_name(w, op);
  body text := pgwake.trigger_body(w, op);
  settings text[] := pgwake.trigger_settings(w, op);
BEGIN
  IF pgwake.is_function(name, body, settings) THEN
    RETURN;
  END IF;
  EXECUTE format('CREATE OR REPLACE FUNCTION pgwake.%I() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER %s'
    ' AS %L', name, (SELECT string_agg(format('SET %s = %s', s[1], CASE s[1] WHEN 'search_path' THEN s[2]
      ELSE quote_literal(s[2]) END), ' ') FROM unnest(settings) u, string_to_array(u, '=') s), body);
  EXECUTE format('REVOKE ALL ON FUNCTION pgwake.%I() FROM PUBLIC', name);
  PERFORM pgwake.give_to_owner('FUNCTION', format('pgwake.%I()', name));
END $pgwake$;

-- What another role has made for us belongs to the owner of the schema all the same.
CREATE OR REPLACE FUNCTION pgwake.give_to_owner(kind text, name text) RETURNS void
  LANGUAGE plpgsql AS $pgwake$
DECLARE
  owner name := (SELECT pg_get_userbyid(nspowner) FROM pg_namespace WHERE nspname = 'pgwake');
BEGIN
  IF owner <> current_user THEN
    EXECUTE format('ALTER %s %s OWNER TO %I', kind, give_to_owner.name, owner);
  END IF;
END $pgwake$;
