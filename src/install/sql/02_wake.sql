-- Wakes readers: a deferred trigger on the outbox, in which one committing transaction rings for all others.
--
-- The advisory locks of class 1885828971 ("pgwk"), key 1: whoever has it rings, or is awake and looks by
-- itself; the others need not, and do not queue for the lock that NOTIFY takes until the commit is done. Key
-- 2: held in share mode by every reader, so that nobody rings when there is none. Key 1000 + id: a consumer.

-- Without a search_path of its own: that alone would cost as much as the rest. Every name is qualified.
CREATE OR REPLACE FUNCTION pgwake.wake() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $pgwake$
BEGIN
  -- A prepared transaction would keep the locks until it is committed, and must not notify: its changes are
  -- found later.
  IF pg_catalog.current_setting('max_prepared_transactions') OPERATOR(pg_catalog.<>) '0'
     AND pg_catalog.current_query() OPERATOR(pg_catalog.~*) 'prepare\s+transaction' THEN
    RETURN NULL;
  END IF;
  IF (CASE WHEN pg_catalog.pg_try_advisory_xact_lock(1885828971, 1) THEN
        NOT pg_catalog.pg_try_advisory_xact_lock(1885828971, 2)
        OR pg_catalog.mod(NEW.id, 8192) OPERATOR(pg_catalog.=) 0 END) THEN
    PERFORM pgwake.ring_and_rotate(NEW.id);
  END IF;
  RETURN NULL;
END $pgwake$;

-- Readers keep house; where there are none, writers do, now and then.
CREATE OR REPLACE FUNCTION pgwake.ring_and_rotate(id bigint) RETURNS void LANGUAGE plpgsql
  SET search_path = pg_catalog, pg_temp AS $pgwake$
BEGIN
  PERFORM pgwake.ring('pgwake', '');
  IF mod(id, 8192) = 0 THEN
    PERFORM pgwake.rotate_quietly();
  END IF;
END $pgwake$;

-- Sends a notification unless that would fail the transaction, because the queue is full. Then readers come
-- by themselves, later.
CREATE OR REPLACE FUNCTION pgwake.ring(channel text, payload text) RETURNS bool LANGUAGE plpgsql
  SET search_path = pg_catalog, pg_temp AS $pgwake$
BEGIN
  IF pg_notification_queue_usage() > 0.9 THEN
    RETURN false;
  END IF;
  PERFORM pg_notify(channel, payload);
  RETURN true;
END $pgwake$;

DO $pgwake$
DECLARE
  box text;
BEGIN
  FOREACH box IN ARRAY '{outbox_0,outbox_1,outbox_2}'::text[] LOOP
    IF NOT EXISTS (SELECT FROM pg_catalog.pg_trigger
                   WHERE tgrelid = ('pgwake.' || box)::regclass AND tgname = 'pgwake_wake') THEN
      EXECUTE format('CREATE CONSTRAINT TRIGGER pgwake_wake AFTER INSERT ON pgwake.%I
        DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION pgwake.wake()', box);
    END IF;
    EXECUTE format('ALTER TABLE pgwake.%I ENABLE ALWAYS TRIGGER pgwake_wake', box);
  END LOOP;
END $pgwake$;
