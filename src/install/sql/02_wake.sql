-- Wakes readers: a deferred trigger, in which one committing transaction rings for all others.
--
-- The advisory locks of class 1885828971 ("pgwk"), key 1: whoever has it rings; the others need not, and do
-- not queue for the lock that NOTIFY takes until the commit is done. Key 2: held in share mode by every
-- reader, so that nobody rings when there is none. Key 3: whoever changes `pgwake.state`. Key 1000 + id: a
-- consumer.
--
-- A trigger on the outbox itself would cost every writer a tenth of all that pgwake costs it, to find that
-- nobody sleeps. So a writer looks at the bell, and only if it is on puts a row here, with the id of its
-- outbox row. To look is to have a lock: pg_sequence_last_value() takes one on the sequence, and keeps it
-- until the transaction ends. A reader turns the bell on first and looks at those locks then: one of the two
-- sees the other. Readers look at the bell by a query, which takes another lock.
CREATE UNLOGGED TABLE IF NOT EXISTS pgwake.rope (id bigint);
ALTER TABLE pgwake.rope ADD COLUMN IF NOT EXISTS id bigint;

CREATE OR REPLACE FUNCTION pgwake.wake() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER
  SET search_path = pg_catalog, pg_temp AS $pgwake$
BEGIN
  -- Once is enough, however many statements there were.
  IF current_setting('pgwake.rung', true) IS DISTINCT FROM txid_current()::text THEN
    PERFORM set_config('pgwake.rung', txid_current()::text, true),
      pgwake.ring_or_rotate(mod(txid_current(), 8192) = 0, NEW.id);
  END IF;
  RETURN NULL;
END $pgwake$;

-- The state is 2^60 * the number of the table being written + a mask, which is what is cheapest to ask: a
-- transaction whose number has none of the mask's bits puts a row here. 0, the bell is on: that is each of
-- them. 8191, it is off, for nobody reads, or who does is awake: one in 8192 comes to keep house.
CREATE OR REPLACE FUNCTION pgwake.turn() RETURNS int LANGUAGE sql VOLATILE
  SET search_path = pg_catalog, pg_temp AS $pgwake$
  SELECT (last_value >> 60)::int FROM pgwake.state
$pgwake$;

CREATE OR REPLACE FUNCTION pgwake.is_bell_on() RETURNS bool LANGUAGE sql VOLATILE
  SET search_path = pg_catalog, pg_temp AS $pgwake$
  SELECT last_value & 8191 = 0 FROM pgwake.state
$pgwake$;

-- For whoever has key 3.
CREATE OR REPLACE FUNCTION pgwake.set_state(turn int, is_bell_on bool) RETURNS void LANGUAGE sql
  SET search_path = pg_catalog, pg_temp AS $pgwake$
  SELECT setval('pgwake.state', (turn::bigint << 60) + CASE WHEN is_bell_on THEN 0 ELSE 8191 END)
$pgwake$;

-- What a function of ours does after it wrote to the outbox, as text: `state` is what it read before.
CREATE OR REPLACE FUNCTION pgwake.pull_rope() RETURNS text LANGUAGE sql IMMUTABLE
  SET search_path = pg_catalog, pg_temp AS $pgwake$
  SELECT $body$
  IF pg_catalog.int8and(pg_catalog.txid_current(), state) OPERATOR(pg_catalog.=) 0 THEN
    INSERT INTO pgwake.rope VALUES (pg_catalog.currval('pgwake.outbox_id'::pg_catalog.regclass));
  END IF;$body$
$pgwake$;

-- Readers keep house; where there are none, writers do, now and then. `first` is the id of the
-- outbox row with which the transaction first pulled the rope.
DROP FUNCTION IF EXISTS pgwake.ring_or_rotate(bool);
CREATE OR REPLACE FUNCTION pgwake.ring_or_rotate(is_due bool, first bigint) RETURNS void LANGUAGE plpgsql
  SET search_path = pg_catalog, pg_temp AS $pgwake$
BEGIN
  -- A prepared transaction would keep the locks until it is committed, and must not notify: its changes are
  -- found later.
  IF current_setting('max_prepared_transactions') <> '0'
     AND current_query() ~* 'prepare\s+transaction' THEN
    RETURN;
  END IF;
  IF NOT pg_try_advisory_xact_lock(1885828971, 1) THEN
    RETURN;
  ELSIF NOT pg_try_advisory_xact_lock(1885828971, 2) THEN
    -- Many a session rings once: it is not to plan what is told early, for longer than a reader takes to ask.
    -- A setting that was ever made in a session is never null again.
    IF current_setting('pgwake.has_rung', true) IS NULL THEN
      PERFORM set_config('pgwake.has_rung', '', true);
    ELSE
      PERFORM pgwake.tell_early(first);
    END IF;
    PERFORM pgwake.ring('pgwake', '');
  ELSE
    -- A reader that opens now waits for this lock, and turns the bell on after that.
    IF pg_try_advisory_xact_lock(1885828971, 3) THEN
      PERFORM pgwake.set_state(pgwake.turn(), false);
    END IF;
  END IF;
  IF is_due THEN
    PERFORM pgwake.rotate_quietly();
  END IF;
END $pgwake$;

-- Sends a notification unless that would fail the transaction, because the queue is full. Then readers come
-- by themselves, later.
CREATE OR REPLACE FUNCTION pgwake.ring(channel text, payload text) RETURNS bool LANGUAGE plpgsql
  SET search_path = pg_catalog, pg_temp AS $pgwake$
BEGIN
  IF pg_notification_queue_usage() > 0.9::float8 THEN
    RETURN false;
  END IF;
  PERFORM pg_notify(channel, payload);
  RETURN true;
END $pgwake$;

DO $pgwake$
DECLARE
  box text;
BEGIN
  -- The first version had it there.
  FOREACH box IN ARRAY '{outbox_0,outbox_1,outbox_2}'::text[] LOOP
    EXECUTE format('DROP TRIGGER IF EXISTS pgwake_wake ON pgwake.%I', box);
  END LOOP;
  IF NOT EXISTS (SELECT FROM pg_catalog.pg_trigger
                 WHERE tgrelid = 'pgwake.rope'::regclass AND tgname = 'pgwake_wake') THEN
    CREATE CONSTRAINT TRIGGER pgwake_wake AFTER INSERT ON pgwake.rope
      DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION pgwake.wake();
  END IF;
  ALTER TABLE pgwake.rope ENABLE ALWAYS TRIGGER pgwake_wake;
END $pgwake$;
