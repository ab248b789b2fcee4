-- Hands changes on, into the outbox or as notifications, and wakes the readers. All of it runs in a user's
-- statement or commit, which nothing here may fail.
--
-- The advisory locks of class 1885828971 ("pgwk"), key 1: the leader, who wakes the readers for all that
-- commit together, so that nobody queues for the lock that NOTIFY takes until its commit is done. Key 2:
-- every reader has it in share mode, so that who commits alone wakes nobody when there is none. Key 3: who
-- rotates. Key 1000 + id: who reads as that consumer. From 1073741824 on: readers of DDL events.

-- Deferred to the commit, for each outbox row. Those who find a leader are found by the reader, which asks
-- again as long as writers of that moment are at work. A transaction that notifies cannot be prepared, and
-- nobody knows which will be: where transactions can be, readers look by themselves. Readers rotate, too;
-- where there are none, so do writers: one in 8192, and of longer rows than 8 KB one for each 64 MB.
CREATE OR REPLACE FUNCTION pgwake.wake() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $pgwake$
BEGIN
  IF pg_catalog.pg_try_advisory_lock(1885828971, 2) AND pg_catalog.pg_advisory_unlock(1885828971, 2) THEN
    -- By the hash of the id, whatever else draws ids; random() would move the seed of the writer's session.
    IF (pg_catalog.hashint8(NEW.id) OPERATOR(pg_catalog.&) 67108863)
        OPERATOR(pg_catalog.<) greatest(8192, pg_catalog.octet_length(NEW.changes))
        AND NOT pgwake.may_be_prepared() THEN
      BEGIN
        PERFORM pgwake.rotate_tables();
      EXCEPTION WHEN OTHERS THEN
        RETURN NULL;
      END;
    END IF;
  ELSIF pg_catalog.pg_try_advisory_xact_lock(1885828971, 1) AND NOT pgwake.may_be_prepared()
      AND pg_catalog.pg_notification_queue_usage() OPERATOR(pg_catalog.<) 0.9 THEN
    PERFORM pg_catalog.pg_notify('pgwake', '');
  END IF;
  RETURN NULL;
END $pgwake$;

CREATE OR REPLACE FUNCTION pgwake.may_be_prepared() RETURNS bool LANGUAGE sql STABLE AS $pgwake$
  SELECT pg_catalog.current_setting('max_prepared_transactions') OPERATOR(pg_catalog.<>) '0'
$pgwake$;

DO $pgwake$
DECLARE
  box regclass;
BEGIN
  FOREACH box IN ARRAY '{pgwake.outbox_0,pgwake.outbox_1,pgwake.outbox_2}'::regclass[] LOOP
    IF NOT EXISTS (SELECT FROM pg_trigger WHERE tgrelid = box AND tgname = 'pgwake_wake') THEN
      EXECUTE format('CREATE CONSTRAINT TRIGGER pgwake_wake AFTER INSERT ON %s DEFERRABLE INITIALLY DEFERRED'
        ' FOR EACH ROW EXECUTE FUNCTION pgwake.wake()', box);
      EXECUTE format('ALTER TABLE %s ENABLE ALWAYS TRIGGER pgwake_wake', box);
    END IF;
  END LOOP;
END $pgwake$;

-- Sends a notification unless that would fail the transaction, because the queue is full.
CREATE OR REPLACE FUNCTION pgwake.notify(channel text, payload text) RETURNS void LANGUAGE sql AS $pgwake$
  SELECT pg_notify(channel, payload) WHERE pg_notification_queue_usage() < 0.9
$pgwake$;

-- Writes an outbox row.
CREATE OR REPLACE FUNCTION pgwake.append(watch int, part oid, op text, changes text, row_id bigint DEFAULT
    nextval('pgwake.outbox_id')) RETURNS bigint LANGUAGE plpgsql AS $pgwake$
BEGIN
  EXECUTE format('INSERT INTO pgwake.outbox_%s (id, watch, part, op, changes) VALUES ($1, $2, $3, $4, $5)',
    pg_sequence_last_value('pgwake.current_table')) USING row_id, watch, part, op, changes;
  RETURN row_id;
END $pgwake$;

-- How a change begins as a JSON object: what all changes of an outbox row have in common. The table may have
-- another name by now. In PL/pgSQL, which keeps the plan.
CREATE OR REPLACE FUNCTION pgwake.change_head(w pgwake.watched, part oid, op text) RETURNS text
  LANGUAGE plpgsql STABLE AS $pgwake$
BEGIN
  RETURN (SELECT concat('{"op":"', op, '","schema":', to_json(coalesce(n.nspname, w.schema_name)::text),
      ',"table":', to_json(coalesce(c.relname, w.table_name)::text),
      ',"partition":' || to_json(part::regclass::text)::text, ',"transport":"', w.transport, '"')
    FROM (SELECT) one LEFT JOIN pg_class c ON c.oid = w.relid
      LEFT JOIN pg_namespace n ON n.oid = c.relnamespace);
END $pgwake$;

-- A change as a JSON object: its head, its id, and what the outbox has of the row.
CREATE OR REPLACE FUNCTION pgwake.change_json(head text, xid xid8, id bigint, change text) RETURNS text
  LANGUAGE sql IMMUTABLE AS $pgwake$
  SELECT pg_catalog.concat(head, ',"xid":', xid, ',"id":', id, CASE change WHEN '{}' THEN '}'
    ELSE pg_catalog.overlay(change, ',', 1, 1) END)
$pgwake$;

-- For what the trigger functions do not write themselves.
CREATE OR REPLACE FUNCTION pgwake.deliver(watch int, part oid, op text, changes text) RETURNS void
  LANGUAGE plpgsql AS $pgwake$
DECLARE
  w pgwake.watched;
BEGIN
  SELECT * INTO w FROM pgwake.watched WHERE id = watch;
  IF NOT FOUND THEN
    RETURN;
  ELSIF w.payload = 'wake' THEN
    PERFORM nextval(to_regclass('pgwake.counter_' || md5(coalesce(w.channel, 'pgwake'))));
  END IF;
  IF w.transport = 'notify' AND w.payload <> 'wake' THEN
    PERFORM pgwake.notify_changes(w, part, op, changes);
  ELSIF w.transport = 'outbox' THEN
    PERFORM pgwake.append(watch, part, op, changes);
  END IF;
  -- A channel of one's own may have listeners that do not read the outbox.
  IF w.transport = 'outbox' AND w.channel IS NOT NULL OR w.transport = 'notify' AND w.payload = 'wake' THEN
    PERFORM pgwake.notify(coalesce(w.channel, 'pgwake'), '');
  END IF;
END $pgwake$;

-- One notification per change, each with an id, for equal ones of a transaction would become one. Where one
-- is too large, the statement's changes go into the outbox and the notification refers to them.
CREATE OR REPLACE FUNCTION pgwake.notify_changes(w pgwake.watched, part oid, op text, changes text) RETURNS
    void LANGUAGE plpgsql AS $pgwake$
DECLARE
  head text := pgwake.change_head(w, part, op);
  this xid8 := pg_current_xact_id();
  first_id bigint := nextval('pgwake.outbox_id');
  payloads text[] := ARRAY(SELECT pgwake.change_json(head, this, first_id + place - 1, change)
    FROM json_array_elements(changes::json) WITH ORDINALITY c (value, place), CAST(value AS text) change
    ORDER BY place);
BEGIN
  IF (SELECT max(octet_length(p)) FROM unnest(payloads) p) > 7999 THEN
    PERFORM nextval('pgwake.spilled');
    payloads := ARRAY[pgwake.change_json(head, this, first_id, format('{"reference":%s,"changes":%s}',
      pgwake.append(w.id, part, 'spilled', format('[%s]', array_to_string(payloads, ','))),
      cardinality(payloads)))];
  END IF;
  PERFORM pgwake.notify(coalesce(w.channel, 'pgwake'), p) FROM unnest(payloads) p;
END $pgwake$;

-- How often a wake-up channel was signalled: a sequence per channel, which nobody waits for.
CREATE OR REPLACE FUNCTION pgwake.counter(channel text) RETURNS bigint
  LANGUAGE sql STABLE SECURITY DEFINER AS $pgwake$
  SELECT coalesce(pg_sequence_last_value(to_regclass('pgwake.counter_' || md5(channel))), 0)
$pgwake$;

CREATE OR REPLACE FUNCTION pgwake.make_counter(channel text) RETURNS void LANGUAGE plpgsql AS $pgwake$
DECLARE
  counter text := 'pgwake.counter_' || md5(channel);
BEGIN
  EXECUTE format('CREATE SEQUENCE IF NOT EXISTS %s', counter);
  EXECUTE format('REVOKE ALL ON SEQUENCE %s FROM PUBLIC', counter);
  PERFORM pgwake.give_to_owner('SEQUENCE', counter);
END $pgwake$;

-- A truncated table takes its partitions with it, and all their triggers fire: the table's own comes first
-- and leaves the list of those that are to be silent in this command.
CREATE OR REPLACE FUNCTION pgwake.is_part_of_truncate(root oid, this oid) RETURNS bool
  LANGUAGE plpgsql AS $pgwake$
DECLARE
  silent text[] := coalesce(nullif(current_setting('pgwake.truncated', true), ''), '{}')::text[];
  command text := format('%s %s ', extract(epoch FROM statement_timestamp()), root);
BEGIN
  IF this = root THEN
    silent := silent || ARRAY(SELECT command || f FROM pgwake.family(root) f WHERE f <> root);
    PERFORM set_config('pgwake.truncated', silent::text, true);
    RETURN false;
  END IF;
  PERFORM set_config('pgwake.truncated', array_remove(silent, command || this)::text, true);
  RETURN command || this = ANY (silent);
EXCEPTION WHEN OTHERS THEN
  RETURN false;
END $pgwake$;

-- A table, its partitions and its children, at any depth.
CREATE OR REPLACE FUNCTION pgwake.family(root oid) RETURNS SETOF oid LANGUAGE sql STABLE AS $pgwake$
  WITH RECURSIVE family AS (
    SELECT root AS member UNION SELECT i.inhrelid FROM family f JOIN pg_inherits i ON i.inhparent = f.member
  )
  SELECT member FROM family
$pgwake$;

-- Whether a trigger is somebody else's INSTEAD OF trigger for an operation; the bits are pg_trigger.h's.
CREATE OR REPLACE FUNCTION pgwake.is_instead_of(tgname name, tgtype int2, op text) RETURNS bool
  LANGUAGE sql IMMUTABLE AS $pgwake$
  SELECT tgname NOT LIKE '~pgwake%' AND (tgtype & 64) <> 0
    AND (tgtype & CASE op WHEN 'insert' THEN 4 WHEN 'delete' THEN 8 ELSE 16 END) <> 0
$pgwake$;

-- Ours writes nothing: without another INSTEAD OF trigger a view must refuse the write, as it did before.
CREATE OR REPLACE FUNCTION pgwake.has_other_instead_of(view oid, op text) RETURNS bool
  LANGUAGE plpgsql AS $pgwake$
BEGIN
  IF EXISTS (SELECT FROM pg_trigger WHERE tgrelid = view AND tgenabled <> 'D'
      AND pgwake.is_instead_of(tgname, tgtype, lower(op))) THEN
    RETURN true;
  END IF;
  RAISE EXCEPTION 'the view % has no INSTEAD OF trigger for % but that of pgwake', view::regclass, op
    USING ERRCODE = 'object_not_in_prerequisite_state',
      HINT = format('SELECT pgwake.unwatch_table(%L)', view::regclass);
END $pgwake$;
