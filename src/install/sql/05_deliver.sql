-- Hands changes on: into the outbox, as notifications, or as messages in the WAL. The caller is a generated
-- trigger function, inside of a user's statement: nothing here may fail.

CREATE OR REPLACE FUNCTION pgwake.append(watch int, op "char", part oid, changes text[]) RETURNS bigint
  LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $pgwake$
DECLARE
  row_id bigint;
  -- Before the id is drawn: see 07_position.sql.
  this bigint := txid_current();
  state bigint := pg_sequence_last_value('pgwake.state'::regclass);
  what bigint := pgwake.what(watch, op::text);
  body text := concat(CASE WHEN part IS NOT NULL THEN concat(part, E'\x1c') END,
    array_to_string(changes, E'\x1e'));
BEGIN
  CASE state >> 60
    WHEN 0 THEN INSERT INTO pgwake.outbox_0 VALUES (DEFAULT, DEFAULT, what, body) RETURNING id INTO row_id;
    WHEN 1 THEN INSERT INTO pgwake.outbox_1 VALUES (DEFAULT, DEFAULT, what, body) RETURNING id INTO row_id;
    ELSE INSERT INTO pgwake.outbox_2 VALUES (DEFAULT, DEFAULT, what, body) RETURNING id INTO row_id;
  END CASE;
  IF this & state = 0 THEN
    INSERT INTO pgwake.rope VALUES (row_id);
  END IF;
  RETURN row_id;
END $pgwake$;

CREATE OR REPLACE FUNCTION pgwake.op_name(op "char") RETURNS text LANGUAGE sql IMMUTABLE
  SET search_path = pg_catalog, pg_temp AS $pgwake$
  SELECT CASE lower(op::text) WHEN 'i' THEN 'insert' WHEN 'u' THEN 'update' WHEN 'd' THEN 'delete'
    WHEN 't' THEN 'truncate' END
$pgwake$;

-- How a change begins as a JSON object: what all changes of a table and an operation have in common. In
-- PL/pgSQL, as other functions that are called often: it keeps the plans of its queries.
CREATE OR REPLACE FUNCTION pgwake.change_head(w pgwake.watched, op "char", part oid) RETURNS text
  LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $pgwake$
DECLARE
  schema_name name;
  table_name name;
BEGIN
  -- It may have another name by now.
  SELECT n.nspname, c.relname INTO schema_name, table_name
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.oid = w.relid;
  RETURN concat('{"op":"', CASE lower(op::text) WHEN 'i' THEN 'insert' WHEN 'u' THEN 'update'
      WHEN 'd' THEN 'delete' ELSE 'truncate' END,
    '","schema":', to_json(coalesce(schema_name, w.schema_name)::text),
    ',"table":', to_json(coalesce(table_name, w.table_name)::text),
    CASE WHEN part IS NOT NULL THEN concat(',"partition":', to_json(part::regclass::text)) END);
END $pgwake$;

-- A change as a JSON object; `id` is NULL where there is none.
CREATE OR REPLACE FUNCTION pgwake.change_json(w pgwake.watched, op "char", part oid, change text, xid xid8,
    id bigint, transport text) RETURNS text LANGUAGE plpgsql STABLE
  SET search_path = pg_catalog, pg_temp AS $pgwake$
BEGIN
  RETURN concat(pgwake.change_head(w, op, part), CASE WHEN change <> '' THEN ',' END, change, ',"xid":', xid,
    CASE WHEN id IS NOT NULL THEN concat(',"id":', id) END, ',"transport":"', transport, '"}');
END $pgwake$;

CREATE OR REPLACE FUNCTION pgwake.deliver(watch int, op "char", part oid, changes text[]) RETURNS void
  LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $pgwake$
DECLARE
  w pgwake.watched;
  wake_channel text;
BEGIN
  SELECT * INTO w FROM pgwake.watched WHERE id = watch;
  IF NOT FOUND THEN
    RETURN;
  END IF;
  wake_channel := coalesce(w.channel, 'pgwake');
  CASE w.transport
    WHEN 'outbox' THEN
      PERFORM pgwake.append(watch, op, part, changes);
      -- A channel of one's own may have listeners that do not read the outbox.
      IF w.channel IS NOT NULL THEN
        PERFORM pgwake.ring(w.channel, '');
      END IF;
    WHEN 'notify' THEN
      PERFORM pgwake.notify_changes(w, op, part, changes, wake_channel);
    ELSE
      PERFORM pg_logical_emit_message(true, 'pgwake:' || wake_channel, concat(
        format('{"op":"%s","schema":%s,"table":%s', pgwake.op_name(op), to_json(w.schema_name::text),
          to_json(w.table_name::text)),
        CASE WHEN part IS NOT NULL THEN concat(',"partition":', to_json(part::regclass::text)) END,
        ',"changes":[{', array_to_string(changes, '},{'), '}]}'));
  END CASE;
  IF w.payload = 'wake' THEN
    PERFORM pgwake.count_signal(wake_channel);
  END IF;
END $pgwake$;

-- One notification per change. Where one is too large, or the queue is full, the statement's changes go into
-- the outbox and the notification refers to them.
CREATE OR REPLACE FUNCTION pgwake.notify_changes(w pgwake.watched, op "char", part oid, changes text[],
    channel text) RETURNS void LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $pgwake$
DECLARE
  payloads text[];
BEGIN
  IF w.payload = 'wake' THEN
    PERFORM pgwake.ring(channel, '');
    RETURN;
  END IF;
  SELECT array_agg(pgwake.change_json(w, op, part, c, pg_current_xact_id(), NULL, 'notify') ORDER BY i)
    INTO payloads FROM unnest(changes) WITH ORDINALITY u (c, i);
  IF (SELECT max(octet_length(p)) FROM unnest(payloads) p) > 7999 THEN
    PERFORM nextval('pgwake.spilled');
    payloads := ARRAY[pgwake.change_json(w, op, part, format('"reference":%s,"changes":%s',
      pgwake.append(w.id, upper(op::text)::"char", part, changes), cardinality(changes)),
      pg_current_xact_id(), NULL, 'notify')];
  END IF;
  PERFORM pgwake.ring(channel, p) FROM unnest(payloads) p;
END $pgwake$;

-- How often a wake-up channel was signalled: a sequence per channel, which nobody waits for.
CREATE OR REPLACE FUNCTION pgwake.counter_of(channel text) RETURNS regclass LANGUAGE sql STABLE
  SET search_path = pg_catalog, pg_temp AS $pgwake$
  SELECT to_regclass('pgwake.counter_' || c.id) FROM pgwake.channel AS c WHERE c.name = counter_of.channel
$pgwake$;

CREATE OR REPLACE FUNCTION pgwake.count_signal(channel text) RETURNS void LANGUAGE sql
  SET search_path = pg_catalog, pg_temp AS $pgwake$
  SELECT nextval(counter) FROM (SELECT pgwake.counter_of(count_signal.channel) AS counter) c
  WHERE counter IS NOT NULL
$pgwake$;

CREATE OR REPLACE FUNCTION pgwake.counter(channel text) RETURNS bigint LANGUAGE sql STABLE SECURITY DEFINER
  SET search_path = pg_catalog, pg_temp AS $pgwake$
  SELECT coalesce(pg_sequence_last_value(pgwake.counter_of(counter.channel)), 0)
$pgwake$;

CREATE OR REPLACE FUNCTION pgwake.make_counter(channel text) RETURNS void LANGUAGE plpgsql
  SET search_path = pg_catalog, pg_temp AS $pgwake$
DECLARE
  number int;
BEGIN
  INSERT INTO pgwake.channel (name) VALUES (make_counter.channel) ON CONFLICT DO NOTHING;
  SELECT c.id INTO number FROM pgwake.channel AS c WHERE c.name = make_counter.channel;
  EXECUTE format('CREATE SEQUENCE IF NOT EXISTS pgwake.%I', 'counter_' || number);
  EXECUTE format('REVOKE ALL ON SEQUENCE pgwake.%I FROM PUBLIC', 'counter_' || number);
END $pgwake$;

-- A truncated table takes its partitions with it, and all their triggers fire: the table's own comes first
-- and leaves the list of those that are to be silent.
CREATE OR REPLACE FUNCTION pgwake.is_part_of_truncate(root oid, this oid) RETURNS bool LANGUAGE plpgsql
  SET search_path = pg_catalog, pg_temp AS $pgwake$
DECLARE
  silent oid[] := coalesce(nullif(current_setting('pgwake.truncated', true), ''), '{}')::oid[];
BEGIN
  IF this = root THEN
    PERFORM set_config('pgwake.truncated', (silent || ARRAY(
      SELECT i.inhrelid FROM pgwake.family(root) AS i (inhrelid) WHERE i.inhrelid <> root))::text, true);
    RETURN false;
  END IF;
  PERFORM set_config('pgwake.truncated', array_remove(silent, this)::text, true);
  RETURN this = ANY (silent);
EXCEPTION WHEN OTHERS THEN
  RETURN false;
END $pgwake$;

-- A table, its partitions and its children, at any depth.
CREATE OR REPLACE FUNCTION pgwake.family(root oid) RETURNS SETOF oid LANGUAGE sql STABLE
  SET search_path = pg_catalog, pg_temp AS $pgwake$
  WITH RECURSIVE family AS (
    SELECT root AS member UNION SELECT i.inhrelid FROM family f JOIN pg_inherits i ON i.inhparent = f.member
  )
  SELECT member FROM family
$pgwake$;

-- Whether a trigger is somebody else's INSTEAD OF trigger for an operation; the bits are pg_trigger.h's.
CREATE OR REPLACE FUNCTION pgwake.is_instead_of(tgname name, tgtype int2, op text) RETURNS bool
  LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $pgwake$
  SELECT tgname NOT LIKE '~pgwake%' AND (tgtype & 64) <> 0
    AND (tgtype & CASE op WHEN 'insert' THEN 4 WHEN 'delete' THEN 8 ELSE 16 END) <> 0
$pgwake$;

-- Ours writes nothing: without another INSTEAD OF trigger a view must refuse the write, as it did before.
CREATE OR REPLACE FUNCTION pgwake.has_other_instead_of(view oid, op text) RETURNS bool LANGUAGE plpgsql
  SET search_path = pg_catalog, pg_temp AS $pgwake$
BEGIN
  IF EXISTS (SELECT FROM pg_trigger WHERE tgrelid = view AND tgenabled <> 'D'
      AND pgwake.is_instead_of(tgname, tgtype, lower(op))) THEN
    RETURN true;
  END IF;
  RAISE EXCEPTION 'the view % has no INSTEAD OF trigger for % but that of pgwake', view::regclass, op
    USING ERRCODE = 'object_not_in_prerequisite_state',
      HINT = format('SELECT pgwake.unwatch_table(%L)', view::regclass);
END $pgwake$;
