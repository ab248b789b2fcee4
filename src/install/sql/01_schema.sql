-- The schema and its tables: what is watched, what was changed, who reads it. Re-running keeps what they
-- hold.

DO $pgwake$
DECLARE
  installed text := (SELECT coalesce(pg_catalog.obj_description(n.oid, 'pg_namespace'), 'somebody''s')
    FROM pg_catalog.pg_namespace n WHERE n.nspname = 'pgwake');
  owner name := (SELECT pg_catalog.pg_get_userbyid(n.nspowner) FROM pg_catalog.pg_namespace n
    WHERE n.nspname = 'pgwake');
BEGIN
  IF pg_catalog.current_setting('server_version_num')::int < 140000 THEN
    RAISE EXCEPTION 'pgwake needs PostgreSQL 14 or later'
      USING HINT = 'Upgrade the server.';
  ELSIF installed NOT LIKE 'pgwake, version %' THEN
    RAISE EXCEPTION 'there is a schema "pgwake" that is not ours'
      USING HINT = 'Rename it: pgwake installs nothing into a schema of somebody else.';
  ELSIF installed <> 'pgwake, version 6' THEN
    RAISE EXCEPTION 'the schema is of %, and this pgwake needs version 6', installed
      USING HINT = 'Run pgwake uninstall first, then install, and watch the tables again.';
  END IF;
  -- All of it belongs to one role, the owner of the schema, also if another installs.
  PERFORM pg_catalog.set_config('pgwake.installer', pg_catalog.current_setting('role'), true);
  IF owner <> current_user THEN
    IF NOT pg_catalog.pg_has_role(owner, 'MEMBER') THEN
      RAISE EXCEPTION 'the schema pgwake belongs to %', owner USING ERRCODE = 'insufficient_privilege',
        HINT = pg_catalog.format('Install as %s, as a member of it, or as a superuser.', owner);
    END IF;
    PERFORM pg_catalog.set_config('role', owner, true);
  END IF;
END $pgwake$;

CREATE SCHEMA IF NOT EXISTS pgwake;
COMMENT ON SCHEMA pgwake IS 'pgwake, version 6';

CREATE OR REPLACE FUNCTION pgwake.version() RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT 6';

-- An outbox row has up to 256 changes, and their ids are its own and those that follow. A row of a table is
-- locked from its change to the commit, and the id is drawn in between: the ids of one row's changes are in
-- their order, as long as all sessions draw from the same end, so nothing is cached.
CREATE SEQUENCE IF NOT EXISTS pgwake.outbox_id INCREMENT 256 START 65536;
CREATE SEQUENCE IF NOT EXISTS pgwake.gap_id;

-- Which of the outbox tables is written: 0, 1 or 2. A sequence is read without a query, and its change is
-- seen at once.
CREATE SEQUENCE IF NOT EXISTS pgwake.current_table MINVALUE 0 MAXVALUE 2 START 0;
SELECT pg_catalog.setval('pgwake.current_table', 0)
  WHERE pg_catalog.pg_sequence_last_value('pgwake.current_table'::regclass) IS NULL;

-- Statements whose rows could not be converted (delivered without values), and what did not fit into a
-- NOTIFY.
CREATE SEQUENCE IF NOT EXISTS pgwake.unconvertible;
CREATE SEQUENCE IF NOT EXISTS pgwake.spilled;

-- What one statement did to one table. `changes` is a JSON array with one object for each changed row, as far
-- as the payload says: key, old, new, changed. `op` is insert, update, delete or truncate; or `gap`, with an
-- id before those of all changes: an object that says per consumer what it has missed; or `spilled`: what a
-- notification refers to.
CREATE TABLE IF NOT EXISTS pgwake.outbox_0 (
  id bigint NOT NULL DEFAULT pg_catalog.nextval('pgwake.outbox_id'),
  xid xid8 NOT NULL DEFAULT pg_catalog.pg_current_xact_id(),
  watch int,
  part oid,                       -- the partition or child that was changed, if that is not the watched table
  op text NOT NULL,
  changes text NOT NULL
);
CREATE TABLE IF NOT EXISTS pgwake.outbox_1 (LIKE pgwake.outbox_0 INCLUDING DEFAULTS);
CREATE TABLE IF NOT EXISTS pgwake.outbox_2 (LIKE pgwake.outbox_0 INCLUDING DEFAULTS);

-- Compressing costs the writer more than the space that it saves for the minute that a row lives. Where the
-- index is there and it is off no lock is taken, for writers would wait for it: CREATE INDEX IF NOT EXISTS
-- takes one before it looks.
DO $pgwake$
DECLARE
  box regclass;
BEGIN
  FOR n IN 0..2 LOOP
    IF to_regclass(format('pgwake.outbox_%s_xid', n)) IS NULL THEN
      EXECUTE format('CREATE INDEX outbox_%1$s_xid ON pgwake.outbox_%1$s (xid)', n);
    END IF;
  END LOOP;
  FOR box IN SELECT attrelid FROM pg_attribute WHERE attname = 'changes' AND attstorage <> 'e'
      AND attrelid = ANY ('{pgwake.outbox_0,pgwake.outbox_1,pgwake.outbox_2}'::regclass[]) LOOP
    EXECUTE format('ALTER TABLE %s ALTER changes SET STORAGE EXTERNAL', box);
  END LOOP;
END $pgwake$;

-- A dump takes the names along: of the table, because `relid` is a regclass, and of the columns. Here the
-- numbers of the columns count, which stay when a column is renamed.
CREATE TABLE IF NOT EXISTS pgwake.watched (
  id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  relid regclass NOT NULL,
  schema_name name NOT NULL,
  table_name name NOT NULL,
  ops text[] NOT NULL,
  payload text NOT NULL,
  transport text NOT NULL,
  columns name[],
  when_changed name[],
  column_numbers int2[],
  when_changed_numbers int2[],
  always bool NOT NULL,
  channel text,
  timing text NOT NULL,           -- after, before
  mode text NOT NULL,             -- statement, row, before, instead
  key_index oid,                  -- the index that makes the key
  ended bool NOT NULL DEFAULT false
);

-- Of a table that was dropped and made again there are two, and a dump has the same name for both.
CREATE UNIQUE INDEX IF NOT EXISTS watched_relid ON pgwake.watched (relid) WHERE NOT ended;

CREATE TABLE IF NOT EXISTS pgwake.consumer (
  id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  name text NOT NULL UNIQUE,
  is_named bool NOT NULL,         -- if not, it is forgotten some minutes after its session
  role name NOT NULL,             -- who has opened it, and alone reads and acknowledges as this consumer
  relids oid[],                   -- NULL: every watched table; given anew by each open
  "position" text NOT NULL        -- see 06_read.sql
    CHECK (num_nulls(split_part("position", '|', 1)::pg_snapshot, nullif(split_part("position", '|', 2), '')
      ::pg_snapshot, nullif(split_part("position", '|', 3), '')::bigint) < 3),
  acknowledged_at timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
  seen_at timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp()
);

CREATE TABLE IF NOT EXISTS pgwake.ddl_watch (
  channel text PRIMARY KEY,
  tags text[],
  temp bool NOT NULL,
  nested bool NOT NULL,
  phases text[] NOT NULL          -- before, after
);

-- What a command is about to drop. It begins with the command; the rest are the words of
-- pg_event_trigger_dropped_objects().
DO $pgwake$
BEGIN
  IF to_regtype('pgwake.ddl_target') IS NULL THEN
    CREATE TYPE pgwake.ddl_target AS (
      ord int, command_tag text, role text,             -- target: named by the command; cascade: goes along
      object_type text, schema_name text, object_name text, column_name text, identity text,
      "exists" bool, if_exists bool, behavior text,     -- cascade, restrict
      classid oid, objid oid, objsubid int, relkind "char", is_temp bool, depth int);
  END IF;
END $pgwake$;

-- Not regprocedure: pg_upgrade refuses a database that has a column of such a type.
CREATE TABLE IF NOT EXISTS pgwake.drop_handler (
  handler text PRIMARY KEY,       -- as regprocedure has it: app.clean_up(pgwake.ddl_target)
  types text[] NOT NULL,
  schemas text[]                  -- NULL: all
);

-- rotate_bytes: from this size on another table is written. cap_bytes: what the outbox may take at all; then
-- the oldest rows are dropped, and each consumer that had not read them is delivered a gap. rotated_at: when
-- another table became the current one, in seconds of the epoch. late_seconds: what has been at rest for so
-- long is a finding of check().
CREATE TABLE IF NOT EXISTS pgwake.setting (
  name text PRIMARY KEY,
  value bigint NOT NULL
);
INSERT INTO pgwake.setting VALUES ('rotate_bytes', 16777216), ('cap_bytes', 1073741824), ('rotated_at', 0),
    ('late_seconds', 60)
  ON CONFLICT DO NOTHING;

CREATE OR REPLACE FUNCTION pgwake.setting_of(name text) RETURNS bigint LANGUAGE sql STABLE AS $pgwake$
  SELECT s.value FROM pgwake.setting AS s WHERE s.name = setting_of.name
$pgwake$;

-- The role whose rights count, in a function that runs with those of the owner of pgwake. In PL/pgSQL, which
-- is quicker where it is called often.
CREATE OR REPLACE FUNCTION pgwake.caller() RETURNS name LANGUAGE plpgsql STABLE AS $pgwake$
BEGIN
  RETURN coalesce(nullif(current_setting('role'), 'none')::name, session_user);
END $pgwake$;
