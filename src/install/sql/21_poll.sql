-- How far polls with a cursor have read tables that only grow (docs/polls.md).
--
-- A position is `before|upto|last`, as that of a consumer of the outbox (06_read.sql), but that `last` is the
-- number of a transaction. Its snapshots mean nothing in another installation (07_installation.sql).

CREATE TABLE IF NOT EXISTS pgwake.poll_cursor (
  id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  name text NOT NULL UNIQUE,
  role name NOT NULL,             -- who has opened it, and alone keeps a position under this name
  identity text NOT NULL,         -- the installation that the position belongs to
  "position" text NOT NULL
    CHECK (num_nulls(split_part("position", '|', 1)::pg_snapshot, nullif(split_part("position", '|', 2), '')
      ::pg_snapshot, nullif(split_part("position", '|', 3), '')::xid8) < 3),
  kept_at timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp()
) WITH (fillfactor = 50);

-- One session at a time reads under a name. `replaced`: the database is another than that in which the
-- position was kept, and reading begins with what is written from now on; or another server took over, and it
-- goes on.
CREATE OR REPLACE FUNCTION pgwake.open_cursor(cursor_name text, from_start bool DEFAULT false,
    OUT "position" text, OUT replaced bool)
  LANGUAGE plpgsql SECURITY DEFINER SET lock_timeout = '5s' AS $pgwake$
DECLARE
  here text := pgwake.identity();
  c pgwake.poll_cursor;
BEGIN
  INSERT INTO pgwake.poll_cursor (name, role, identity, "position")
    VALUES (cursor_name, pgwake.caller(), here,
      CASE WHEN from_start THEN '1:1:||' ELSE pg_current_snapshot() || '||' END)
    ON CONFLICT (name) DO NOTHING;
  SELECT * INTO c FROM pgwake.poll_cursor p WHERE p.name = cursor_name;
  IF NOT pg_try_advisory_lock(1885828972, c.id) THEN
    RAISE EXCEPTION 'the cursor "%" is in use by backend %', cursor_name, (SELECT l.pid FROM pg_locks l
        JOIN pg_database d ON d.oid = l.database WHERE d.datname = current_database()
        AND l.locktype = 'advisory' AND l.classid = 1885828972 AND l.objid = c.id AND l.granted LIMIT 1)
      USING ERRCODE = 'object_in_use', HINT = 'Stop the other one, or take another name.';
  END IF;
  -- Who had the lock may have kept a position meanwhile.
  SELECT * INTO c FROM pgwake.poll_cursor p WHERE p.id = c.id FOR UPDATE;
  replaced := c.identity <> here;
  IF replaced AND regexp_replace(c.identity, '[0-9]+$', '') <> regexp_replace(here, '[0-9]+$', '') THEN
    c."position" := pg_current_snapshot() || '||';
  END IF;
  UPDATE pgwake.poll_cursor p SET role = pgwake.caller(), identity = here, "position" = c."position"
    WHERE p.id = c.id AND (p.role, p.identity) IS DISTINCT FROM (pgwake.caller(), here);
  "position" := c."position";
END $pgwake$;

-- What comes before this position has been taken care of, for good.
CREATE OR REPLACE FUNCTION pgwake.keep_cursor(cursor_name text, "position" text) RETURNS void
  LANGUAGE plpgsql SECURITY DEFINER AS $pgwake$
BEGIN
  UPDATE pgwake.poll_cursor AS c SET "position" = keep_cursor."position", kept_at = clock_timestamp()
    WHERE c.name = cursor_name AND c.role = pgwake.caller();
  IF NOT FOUND THEN
    RAISE EXCEPTION 'there is no cursor "%"', cursor_name USING ERRCODE = 'undefined_object',
      HINT = 'Somebody has dropped it, or opened it as another role.';
  END IF;
END $pgwake$;

-- Another session may read under this name.
CREATE OR REPLACE FUNCTION pgwake.close_cursor(cursor_name text) RETURNS void
  LANGUAGE sql SECURITY DEFINER AS $pgwake$
  SELECT pg_advisory_unlock(1885828972, c.id) FROM pgwake.poll_cursor AS c WHERE c.name = cursor_name
$pgwake$;

-- Forgets a cursor and its position.
CREATE OR REPLACE FUNCTION pgwake.drop_cursor(cursor_name text) RETURNS void
  LANGUAGE sql SECURITY DEFINER AS $pgwake$
  DELETE FROM pgwake.poll_cursor AS c WHERE c.name = cursor_name
$pgwake$;
