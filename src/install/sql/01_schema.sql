-- The schema, the tables of the outbox, and who watches and reads what. Re-running keeps what they hold.

DO $pgwake$
BEGIN
  IF pg_catalog.current_setting('server_version_num')::int < 140000 THEN
    RAISE EXCEPTION 'pgwake needs PostgreSQL 14 or later'
      USING HINT = 'Upgrade the server.';
  END IF;
  IF EXISTS (SELECT FROM pg_catalog.pg_namespace n WHERE n.nspname = 'pgwake'
      AND coalesce(pg_catalog.obj_description(n.oid, 'pg_namespace'), '') NOT LIKE 'pgwake, version %') THEN
    RAISE EXCEPTION 'there is a schema "pgwake" that is not ours'
      USING HINT = 'Rename it: pgwake installs nothing into a schema of somebody else.';
  END IF;
END $pgwake$;

CREATE SCHEMA IF NOT EXISTS pgwake;
COMMENT ON SCHEMA pgwake IS 'pgwake, version 4';

-- Each row of an outbox table is what one statement did to one table. The primary order is `id`: a row is
-- locked from its change to the commit, and the id is drawn in between, so the ids of one row's changes are
-- in their order.
CREATE SEQUENCE IF NOT EXISTS pgwake.outbox_id;

-- What a writer must know, in one number: see 02_wake.sql. A sequence, because it must be read without a
-- query, and because its change must be seen at once.
CREATE SEQUENCE IF NOT EXISTS pgwake.state MINVALUE 0;
SELECT pg_catalog.setval('pgwake.state', 0)
  WHERE pg_catalog.pg_sequence_last_value('pgwake.state'::regclass) IS NULL;

-- Statements whose rows could not be converted (told without values), and what did not fit into a NOTIFY.
CREATE SEQUENCE IF NOT EXISTS pgwake.unconvertible;
CREATE SEQUENCE IF NOT EXISTS pgwake.spilled;

-- A writer locks his table first and the outbox next: in this order nobody waits for the other.
DO $pgwake$
DECLARE
  watched regclass;
BEGIN
  FOR watched IN SELECT DISTINCT t.tgrelid::regclass FROM pg_catalog.pg_trigger t
      JOIN pg_catalog.pg_proc p ON p.oid = t.tgfoid JOIN pg_catalog.pg_class c ON c.oid = t.tgrelid
      WHERE p.pronamespace = pg_catalog.to_regnamespace('pgwake') AND p.proname ~ '^change_'
        AND c.relkind IN ('r', 'p') ORDER BY 1 LOOP
    EXECUTE format('LOCK TABLE %s IN ACCESS EXCLUSIVE MODE', watched);
  END LOOP;
END $pgwake$;

-- One id after the other, in all sessions: readers rely on the last one drawn.
DO $pgwake$
BEGIN
  IF EXISTS (SELECT FROM pg_catalog.pg_sequence WHERE seqrelid = 'pgwake.outbox_id'::regclass
      AND (seqcache, seqincrement, seqcycle) <> (1, 1, false)) THEN
    ALTER SEQUENCE pgwake.outbox_id INCREMENT 1 NO CYCLE CACHE 1;
  END IF;
END $pgwake$;

-- An earlier version's outbox has other columns: its rows are moved.
DO $pgwake$
BEGIN
  IF EXISTS (SELECT FROM pg_catalog.pg_attribute WHERE attname = 'part'
      AND attrelid = pg_catalog.to_regclass('pgwake.outbox_0')) THEN
    FOR box IN 0..2 LOOP
      EXECUTE format('ALTER TABLE pgwake.outbox_%1$s RENAME TO earlier_%1$s', box);
      EXECUTE format('DROP INDEX pgwake.outbox_%1$s_xid, pgwake.outbox_%1$s_id', box);
    END LOOP;
  END IF;
END $pgwake$;

-- `what` is the watch's id * 128 + the code of a letter: i u d t, ! lost rows; in capitals: only fetched by
-- its id. `changes` is one text, since an array costs the writer more, with separators that no JSON holds:
--   the inside of a JSON object for each changed row, \x1e between them; or
--   the beginning of a key, \x1d, what follows in each row's key, \x1e between them, and after an UPDATE
--   another \x1d and the same for the keys before, which the reader compares. A beginning that ends in \x1f
--   says that each key is one int8, which in JSON may have to be a string.
-- It begins with an oid and \x1c where a partition or child was changed that is not the table watched.
CREATE TABLE IF NOT EXISTS pgwake.outbox_0 (
  id bigint NOT NULL DEFAULT pg_catalog.nextval('pgwake.outbox_id'),
  xid xid8 NOT NULL DEFAULT pg_catalog.pg_current_xact_id(),
  what bigint NOT NULL,
  changes text NOT NULL
);
CREATE TABLE IF NOT EXISTS pgwake.outbox_1 (LIKE pgwake.outbox_0 INCLUDING DEFAULTS);
CREATE TABLE IF NOT EXISTS pgwake.outbox_2 (LIKE pgwake.outbox_0 INCLUDING DEFAULTS);

DO $pgwake$
BEGIN
  FOR box IN 0..2 LOOP
    IF pg_catalog.to_regclass('pgwake.earlier_' || box) IS NOT NULL THEN
      EXECUTE format('INSERT INTO pgwake.outbox_%1$s SELECT id, xid, watch::bigint * 128 + ascii(op::text),'
        || ' concat(CASE WHEN part IS NOT NULL THEN concat(part, E''\x1c'') END,'
        || ' array_to_string(changes, E''\x1e'')) FROM pgwake.earlier_%1$s', box);
      EXECUTE format('DROP TABLE pgwake.earlier_%s', box);
    END IF;
  END LOOP;
END $pgwake$;

-- One index, for each costs the writer a tenth of all that pgwake costs it: 07_read.sql finds by `id` what is
-- of a transaction, too. An earlier version had another.
DROP INDEX IF EXISTS pgwake.outbox_0_xid, pgwake.outbox_1_xid, pgwake.outbox_2_xid;
CREATE INDEX IF NOT EXISTS outbox_0_id ON pgwake.outbox_0 (id);
CREATE INDEX IF NOT EXISTS outbox_1_id ON pgwake.outbox_1 (id);
CREATE INDEX IF NOT EXISTS outbox_2_id ON pgwake.outbox_2 (id);

-- Compressing costs the writer more than the space that it saves for the minute that a row lives.
ALTER TABLE pgwake.outbox_0 ALTER changes SET STORAGE EXTERNAL;
ALTER TABLE pgwake.outbox_1 ALTER changes SET STORAGE EXTERNAL;
ALTER TABLE pgwake.outbox_2 ALTER changes SET STORAGE EXTERNAL;

-- An earlier version's list has numbers, which a dump takes along and which are other relations' elsewhere:
-- of a regclass it takes the name.
DO $pgwake$
BEGIN
  IF EXISTS (SELECT FROM pg_catalog.pg_attribute WHERE attname = 'relid' AND atttypid = 'oid'::regtype
      AND attrelid = pg_catalog.to_regclass('pgwake.watched')) THEN
    DROP VIEW IF EXISTS pgwake.live;
    ALTER TABLE pgwake.watched DROP CONSTRAINT watched_relid_key, ALTER relid TYPE regclass;
  END IF;
END $pgwake$;

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
  always bool NOT NULL,
  channel text,
  timing text NOT NULL,           -- after, before
  mode text NOT NULL,             -- statement, row, before, instead
  shape text NOT NULL,            -- the columns that the triggers were generated for
  made text,                      -- a digest of their functions
  ended bool NOT NULL DEFAULT false
);

-- Of a table that was dropped and made again there are two, and a dump has the same name for both.
CREATE UNIQUE INDEX IF NOT EXISTS watched_relid ON pgwake.watched (relid) WHERE NOT ended;

-- Where this was written: see 08_home.sql. An empty row, and one with the number of the database, that of
-- this table, and that of the transaction that wrote the empty row.
CREATE TABLE IF NOT EXISTS pgwake.home (
  database oid,
  relation oid,
  written xid
);

CREATE TABLE IF NOT EXISTS pgwake.consumer (
  id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  name text NOT NULL UNIQUE,
  relids oid[],                   -- NULL: every watched table; given anew by each open
  "position" text NOT NULL,       -- see 07_position.sql
  holder int,                     -- the backend of a consumer that goes with its session
  ear text,                       -- see 05_early.sql
  ear_role oid,
  acknowledged_at timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp()
);

ALTER TABLE pgwake.consumer ADD COLUMN IF NOT EXISTS ear text, ADD COLUMN IF NOT EXISTS ear_role oid;

CREATE TABLE IF NOT EXISTS pgwake.channel (
  id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  name text NOT NULL UNIQUE
);

CREATE TABLE IF NOT EXISTS pgwake.ddl_watch (
  channel text PRIMARY KEY,
  tags text[],
  temp bool NOT NULL,
  nested bool NOT NULL,
  before bool NOT NULL
);

-- rotate_bytes: from this size on another table is written. cap_bytes: what the outbox may take at all; then
-- the oldest rows are dropped, and each consumer that had not read them is told how many. The others are for
-- check(): what has been at rest for so long, or a slot that nobody reads and that keeps so much, is told.
CREATE TABLE IF NOT EXISTS pgwake.setting (
  name text PRIMARY KEY,
  value bigint NOT NULL
);
INSERT INTO pgwake.setting VALUES ('rotate_bytes', 16777216), ('cap_bytes', 1073741824), ('late_seconds', 60),
    ('slot_bytes', 1073741824)
  ON CONFLICT DO NOTHING;

CREATE OR REPLACE FUNCTION pgwake.what(watch int, op text) RETURNS bigint LANGUAGE sql IMMUTABLE
  SET search_path = pg_catalog, pg_temp AS 'SELECT watch::bigint * 128 + ascii(op)';

CREATE OR REPLACE FUNCTION pgwake.version() RETURNS int LANGUAGE sql IMMUTABLE
  SET search_path = pg_catalog, pg_temp AS 'SELECT 4';
