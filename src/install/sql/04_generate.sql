-- Generates the trigger functions of a watched table, one per operation.

-- A query that gives one text per changed row. `source`: 'statement' reads transition tables, 'row' reads NEW
-- and OLD, 'parameters' reads them as $1 and $2.
CREATE OR REPLACE FUNCTION pgwake.changes_query(w pgwake.watched, op text, source text) RETURNS text
  LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $pgwake$
DECLARE
  rel oid := w.relid;
  is_row bool := source <> 'statement';
  rows_new text := CASE source WHEN 'row' THEN '(SELECT NEW.*)' WHEN 'parameters' THEN '(SELECT ($1).*)'
    ELSE 'pgwake_new' END;
  rows_old text := CASE source WHEN 'row' THEN '(SELECT OLD.*)' WHEN 'parameters' THEN '(SELECT ($2).*)'
    ELSE 'pgwake_old' END;
  this text := CASE op WHEN 'delete' THEN 'o' ELSE 'n' END;
  computed_later name[] := CASE w.mode WHEN 'before' THEN pgwake.computed_later(rel) ELSE '{}' END;
  columns_new name[] := w.columns;
  key text := CASE WHEN NOT EXISTS (SELECT FROM pgwake.columns_of(rel, this) c
    WHERE c.in_key AND c.col = ANY (computed_later)) THEN pgwake.key_expression(rel, this) END;
  payload text := CASE WHEN w.payload = 'key' AND key IS NULL THEN 'row' ELSE w.payload END;
  is_paired bool := op = 'update' AND (payload <> 'wake' OR w.when_changed IS NOT NULL);
  parts text[] := '{}';
  source_rows text;
  filter text := '';
BEGIN
  IF computed_later <> '{}' THEN
    columns_new := ARRAY(SELECT c.col FROM pgwake.columns_of(rel, this) c
      WHERE (w.columns IS NULL OR c.col = ANY (w.columns)) AND c.col <> ALL (computed_later));
  END IF;
  IF payload <> 'wake' THEN
    parts := parts || coalesce('''"key":'', ' || key, '''"key":null''');
  END IF;
  IF op = 'update' AND payload IN ('row', 'changed') THEN
    parts := parts || format(''',"changed":['', %s, '']''', pgwake.changed_expression(rel, '', columns_new));
  END IF;
  IF op = 'update' AND payload = 'key' THEN
    parts := parts || format('CASE WHEN %s THEN pg_catalog.concat('',"old":''::pg_catalog.text, %s) END',
      pgwake.differs_expression(rel, true, NULL), pgwake.key_expression(rel, 'o'));
  ELSIF op = 'update' AND payload = 'changed' THEN
    parts := parts || format(''',"old":{'', %s, ''},"new":{'', %s, ''}''',
      pgwake.changed_expression(rel, 'o', columns_new), pgwake.changed_expression(rel, 'n', columns_new));
  ELSIF payload IN ('row', 'changed') THEN
    IF op <> 'insert' THEN
      parts := parts || format(''',"old":'', %s', pgwake.object_expression(rel, 'o', w.columns));
    END IF;
    IF op <> 'delete' THEN
      parts := parts || format(''',"new":'', %s', pgwake.object_expression(rel, 'n', columns_new));
    END IF;
  END IF;
  IF op = 'update' AND w.when_changed IS NOT NULL THEN
    filter := ' WHERE ' || pgwake.differs_expression(rel, false, w.when_changed);
  END IF;
  IF is_paired AND NOT is_row THEN
    -- Old and new rows come into the transition tables together, so their numbers pair them.
    source_rows := '(SELECT pg_catalog.row_number() OVER () AS pgwake_i, t.* FROM pgwake_new t) n JOIN'
      || ' (SELECT pg_catalog.row_number() OVER () AS pgwake_i, t.* FROM pgwake_old t) o'
      || ' ON n.pgwake_i OPERATOR(pg_catalog.=) o.pgwake_i';
  ELSIF is_paired THEN
    source_rows := format('%s n CROSS JOIN %s o', rows_new, rows_old);
  ELSE
    source_rows := CASE op WHEN 'delete' THEN rows_old || ' o' ELSE rows_new || ' n' END;
  END IF;
  RETURN CASE WHEN parts = '{}' THEN 'SELECT ''''::pg_catalog.text'
    ELSE format('SELECT CASE WHEN %s THEN pg_catalog.concat(%s) END',
      pgwake.types_expression(rel, this, payload = 'key', w.columns), array_to_string(parts, ', ')) END
    || format(' FROM %s%s', source_rows, filter);
END $pgwake$;

-- The same for a function that was generated before the table was altered.
CREATE OR REPLACE FUNCTION pgwake.changes_query(watch int, op text, source text) RETURNS text
  LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $pgwake$
  SELECT pgwake.changes_query(w, op, source) FROM pgwake.watched w WHERE w.id = watch
$pgwake$;

-- The message of a statement in the WAL: what its changes have in common, and the list of them.
CREATE OR REPLACE FUNCTION pgwake.message_expression(w pgwake.watched, op text, part text, changes text)
  RETURNS text LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $pgwake$
  SELECT format('pg_catalog.concat(%L::pg_catalog.text, %s ''"changes":[{''::pg_catalog.text, %s, '
      || '''}]}''::pg_catalog.text)',
    format('{"op":%s,"schema":%s,"table":%s,', to_json(op), to_json(w.schema_name::text),
      to_json(w.table_name::text)),
    CASE WHEN part IS NULL THEN '' ELSE format('CASE WHEN %1$s IS NOT NULL THEN'
      || ' pg_catalog.concat(''"partition":''::pg_catalog.text,'
      || ' pg_catalog.to_json(%1$s::pg_catalog.regclass::pg_catalog.text), '',''::pg_catalog.text) END,',
      part) END, changes)
$pgwake$;

-- Writes to the table whose turn it is. No CASE of PL/pgSQL: that compares by whatever `=` the writer's
-- search_path finds first, and would run it with our rights.
CREATE OR REPLACE FUNCTION pgwake.into_the_outbox(rows text) RETURNS text LANGUAGE sql STABLE
  SET search_path = pg_catalog, pg_temp AS $pgwake$
  SELECT format($body$
  state := pg_catalog.pg_sequence_last_value('pgwake.state'::pg_catalog.regclass);
  IF state OPERATOR(pg_catalog.<) 1152921504606846976 THEN
    INSERT INTO pgwake.outbox_0 (what, changes) %1$s;
  ELSIF state OPERATOR(pg_catalog.<) 2305843009213693952 THEN
    INSERT INTO pgwake.outbox_1 (what, changes) %1$s;
  ELSE
    INSERT INTO pgwake.outbox_2 (what, changes) %1$s;
  END IF;$body$, rows)
$pgwake$;

-- The table of a watch, for generated code, which holds no numbers of relations: where a dump is restored
-- they are others'. Nor does it hold names, for the table may be given another. A plan asks this once.
CREATE OR REPLACE FUNCTION pgwake.relation_of(watch int) RETURNS oid LANGUAGE sql IMMUTABLE
  SET search_path = pg_catalog, pg_temp AS 'SELECT w.relid::oid FROM pgwake.watched w WHERE w.id = watch';

-- A writer has its number before it looks at the state and draws an id, for readers rely on it: after rows of
-- a table were changed it has; before that, or in a view or a foreign table, it may not.
CREATE OR REPLACE FUNCTION pgwake.number_first(w pgwake.watched, op text) RETURNS text LANGUAGE sql STABLE
  SET search_path = pg_catalog, pg_temp AS $pgwake$
  SELECT CASE WHEN w.transport <> 'outbox' OR w.mode = 'statement' AND op <> 'truncate'
      AND EXISTS (SELECT FROM pg_class c JOIN pg_am m ON m.oid = c.relam
        WHERE c.oid = w.relid AND m.amname = 'heap') THEN '' ELSE '
  state := pg_catalog.txid_current();' END
$pgwake$;

-- What a trigger function does with `changes`, without calls that cost: this is the hot path.
CREATE OR REPLACE FUNCTION pgwake.delivery(w pgwake.watched, op text) RETURNS text LANGUAGE sql STABLE
  SET search_path = pg_catalog, pg_temp AS $pgwake$
  SELECT CASE
    WHEN w.payload <> 'wake' AND w.transport = 'outbox' AND w.channel IS NULL THEN
      pgwake.into_the_outbox(format('VALUES (%s, %s)', pgwake.what(w.id, op), CASE
        WHEN w.mode = 'statement' AND op <> 'truncate' THEN
          'pg_catalog.array_to_string(changes, E''\x1e'')'
        ELSE 'pg_catalog.concat(CASE WHEN part IS NOT NULL THEN pg_catalog.concat(part,'
          || ' E''\x1c''::pg_catalog.text) END, pg_catalog.array_to_string(changes, E''\x1e''))' END))
        || pgwake.pull_rope()
    WHEN w.payload <> 'wake' AND w.transport = 'wal' THEN format($body$
  PERFORM pg_catalog.pg_logical_emit_message(true, %L, %s);$body$,
      'pgwake:' || coalesce(w.channel, 'pgwake'), pgwake.message_expression(w, op, 'part',
        'pg_catalog.array_to_string(changes, ''},{'')'))
    ELSE format('
  PERFORM pgwake.deliver(%s, %L, part, changes);', w.id, left(op, 1)) END
$pgwake$;

-- The usual UPDATE changes no key: then new and old rows need not be paired, which costs more than the rest.
CREATE OR REPLACE FUNCTION pgwake.keys_query(w pgwake.watched, op text, source text) RETURNS text
  LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $pgwake$
  SELECT format($body$
    SELECT ARRAY(SELECT CASE WHEN %s THEN pg_catalog.concat('"key":', %s) END FROM pgwake_new n LIMIT 257),
      ARRAY(SELECT pg_catalog.concat('"key":', %s) FROM pgwake_old o LIMIT 257) INTO changes, keys;
    IF changes OPERATOR(pg_catalog.<>) keys THEN changes := NULL; END IF;$body$,
    pgwake.types_expression(w.relid, 'n', true, NULL), pgwake.key_expression(w.relid, 'n'),
    pgwake.key_expression(w.relid, 'o'))
  WHERE op = 'update' AND source = 'statement' AND w.payload = 'key' AND w.when_changed IS NULL
    AND pgwake.key_expression(w.relid, 'n') IS NOT NULL
$pgwake$;

-- The loop for many rows, for an altered table, and for what cannot be converted.
CREATE OR REPLACE FUNCTION pgwake.slow_path(w pgwake.watched, op text, source text) RETURNS text
  LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $pgwake$
  SELECT format($body$
  -- None, too many for one row of the outbox, or not of the types expected%1$s.
  IF changes[1] IS NULL OR changes[257] IS NOT NULL%2$s THEN
    IF changes OPERATOR(pg_catalog.=) '{}' THEN RETURN result; END IF;
    BEGIN
      changes := '{}';
      FOR change IN EXECUTE pgwake.changes_query(%3$s, %4$L, %5$L)%6$s LOOP
        changes := pg_catalog.array_append(changes, change);
        size := size OPERATOR(pg_catalog.+) pg_catalog.octet_length(change);
        IF pg_catalog.cardinality(changes) OPERATOR(pg_catalog.>=) 256
           OR size OPERATOR(pg_catalog.>) 1048576 THEN
          PERFORM pgwake.deliver(%3$s, %7$L, part, changes);
          changes := '{}';
          size := 0;
        END IF;
      END LOOP;
    EXCEPTION WHEN OTHERS THEN
      PERFORM pg_catalog.nextval('pgwake.unconvertible'::pg_catalog.regclass);
      changes := ARRAY['"unconvertible":"' OPERATOR(pg_catalog.||) SQLSTATE OPERATOR(pg_catalog.||) '"'];
    END;
    IF pg_catalog.cardinality(changes) OPERATOR(pg_catalog.>) 0 THEN
      PERFORM pgwake.deliver(%3$s, %7$L, part, changes);
    END IF;
    RETURN result;
  END IF;$body$,
    CASE WHEN follows THEN ', or a column was added: NULL says that there is none of this number' ELSE '' END,
    CASE WHEN follows THEN format(
      ' OR pg_catalog.has_column_privilege(pgwake.relation_of(%s), %s::pg_catalog.int2, ''SELECT'')'
        || ' IS NOT NULL', w.id, (SELECT relnatts + 1 FROM pg_class WHERE oid = w.relid)) ELSE '' END,
    w.id, op,
    CASE source WHEN 'row' THEN 'parameters' ELSE source END,
    CASE WHEN source = 'row' THEN CASE op WHEN 'insert' THEN ' USING NEW' WHEN 'update' THEN ' USING NEW, OLD'
      ELSE ' USING OLD, OLD' END ELSE '' END,
    left(op, 1))
  FROM (SELECT w.payload NOT IN ('wake', 'key') AND w.columns IS NULL AS follows) f
$pgwake$;

CREATE OR REPLACE FUNCTION pgwake.function_for(w pgwake.watched, op text) RETURNS text LANGUAGE sql STABLE
  SET search_path = pg_catalog, pg_temp AS $pgwake$
  SELECT format('pgwake.%I', format('change_%s_%s', w.id, op))
$pgwake$;

-- Without a search_path of its own, unless it needs other settings, too: see pgwake.wake.
CREATE OR REPLACE FUNCTION pgwake.generate(w pgwake.watched, op text) RETURNS void LANGUAGE plpgsql
  SET search_path = pg_catalog, pg_temp AS $pgwake$
DECLARE
  source text := CASE w.mode WHEN 'statement' THEN 'statement' ELSE 'row' END;
  settings text := CASE WHEN op <> 'truncate' AND w.payload <> 'wake'
    THEN pgwake.settings_for(w.relid, w.payload = 'key') ELSE '' END;
  result text := CASE WHEN w.mode NOT IN ('instead', 'before') THEN 'NULL' WHEN op = 'delete' THEN 'OLD'
    ELSE 'NEW' END;
  part text;
  body text;
BEGIN
  part := CASE source WHEN 'row' THEN format(
    'CASE WHEN TG_RELID OPERATOR(pg_catalog.<>) pgwake.relation_of(%s) THEN TG_RELID END', w.id)
    ELSE 'NULL' END;
  IF op = 'truncate' THEN
    body := format('
  IF pgwake.is_part_of_truncate(pgwake.relation_of(%1$s), TG_RELID) THEN RETURN NULL; END IF;
  part := CASE WHEN TG_RELID OPERATOR(pg_catalog.<>) pgwake.relation_of(%1$s) THEN TG_RELID END;
  changes := ARRAY['''']::pg_catalog.text[];', w.id) || pgwake.delivery(w, op);
    result := 'NULL';
  ELSE
    body := CASE w.mode WHEN 'instead' THEN format('
  PERFORM pgwake.has_other_instead_of(TG_RELID, TG_OP);') ELSE '' END
      || format('
  BEGIN%s
  EXCEPTION WHEN OTHERS THEN
    changes := NULL;
  END;', coalesce(pgwake.keys_query(w, op, source), format('
    changes := ARRAY(%s LIMIT %s);', pgwake.changes_query(w, op, source),
        CASE w.payload WHEN 'wake' THEN 1 ELSE 257 END)))
      || pgwake.slow_path(w, op, source) || pgwake.delivery(w, op);
  END IF;
  body := format($body$
  DECLARE
    changes pg_catalog.text[];
    keys pg_catalog.text[];
    change pg_catalog.text;
    size pg_catalog.int8 := 0;
    part pg_catalog.oid := %s;
  BEGIN%s
  END;$body$, part, replace(body, 'RETURN result;', format('RETURN %s;', result)));
  EXECUTE format($body$CREATE OR REPLACE FUNCTION %s() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER %s
AS %L$body$, pgwake.function_for(w, op),
    CASE settings WHEN '' THEN '' ELSE settings || ' SET search_path = pg_catalog, pg_temp' END,
    format($body$
#variable_conflict use_column
DECLARE
  state pg_catalog.int8;
BEGIN%s%s%s
  RETURN %s;
END $body$, pgwake.number_first(w, op), pgwake.fast_path(w, op), body, result));
  EXECUTE format('REVOKE ALL ON FUNCTION %s() FROM PUBLIC', pgwake.function_for(w, op));
END $pgwake$;
