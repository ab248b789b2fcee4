-- Schedules that many processes have: one of them runs each due time, and what became of it is kept here.
--
-- Times are microseconds since 1970. Whoever has the lock of a key, on the session by which it asked, may run
-- what is due under that key. What is due up to `last_due` is done with.

CREATE TABLE IF NOT EXISTS pgwake.schedule (
  key text PRIMARY KEY,
  definition text NOT NULL,       -- the expression and its zone, or the interval
  last_due timestamptz NOT NULL
);

-- The key sees to it that no due time is run twice, whoever believes to have the lock.
CREATE TABLE IF NOT EXISTS pgwake.run (
  key text NOT NULL,
  due timestamptz NOT NULL,
  started timestamptz,
  ended timestamptz,
  outcome text NOT NULL           -- lost: the session that ran it ended before; missed: nobody ran it
    CHECK (outcome IN ('running', 'done', 'failed', 'lost', 'missed')),
  message text,                   -- why it failed
  backend_pid int,
  PRIMARY KEY (key, due)
);

INSERT INTO pgwake.setting VALUES ('run_days', 30) ON CONFLICT DO NOTHING;

CREATE OR REPLACE FUNCTION pgwake.time_of(us bigint) RETURNS timestamptz LANGUAGE sql IMMUTABLE AS $pgwake$
  SELECT timestamptz 'epoch' + time_of.us * interval '1 microsecond'
$pgwake$;

CREATE OR REPLACE FUNCTION pgwake.us_of("time" timestamptz) RETURNS bigint LANGUAGE sql IMMUTABLE AS $pgwake$
  SELECT (extract(epoch FROM us_of."time") * 1000000)::bigint
$pgwake$;

CREATE OR REPLACE FUNCTION pgwake.schedule_lock(key text) RETURNS bigint LANGUAGE sql IMMUTABLE AS $pgwake$
  SELECT hashtextextended(schedule_lock.key, 1885828971)
$pgwake$;

-- A process has this schedule from now on. Gives the due time up to which all is done with: `now` if the
-- schedule is new, was another one, or stands in the future because somebody's clock was wrong by days.
CREATE OR REPLACE FUNCTION pgwake.enter_schedule(key text, definition text, now_us bigint) RETURNS bigint
  LANGUAGE sql SECURITY DEFINER AS $pgwake$
  INSERT INTO pgwake.schedule AS s
    VALUES (enter_schedule.key, enter_schedule.definition, pgwake.time_of(enter_schedule.now_us))
    ON CONFLICT (key) DO UPDATE SET definition = excluded.definition,
      last_due = CASE
        WHEN s.definition = excluded.definition AND s.last_due < excluded.last_due + interval '1 day'
        THEN s.last_due ELSE excluded.last_due END
    RETURNING pgwake.us_of(s.last_due)
$pgwake$;

-- Whether this session gets the lock, and up to which due time all is done with then. What another has done
-- meanwhile is seen, because the lock comes first.
CREATE OR REPLACE FUNCTION pgwake.ask_to_run(key text, OUT leads bool, OUT last_due_us bigint)
  LANGUAGE plpgsql SECURITY DEFINER AS $pgwake$
BEGIN
  leads := pg_try_advisory_lock(pgwake.schedule_lock(ask_to_run.key));
  IF leads THEN
    SELECT pgwake.us_of(s.last_due) INTO last_due_us FROM pgwake.schedule s WHERE s.key = ask_to_run.key;
  END IF;
END $pgwake$;

-- Who has the lock takes a due time, and says which were missed before it; `false`: it was taken already. One
-- whose clock is wrong by days takes none: all others would wait until theirs are there, too.
CREATE OR REPLACE FUNCTION pgwake.begin_run(key text, due_us bigint, missed_us bigint[]) RETURNS bool
  LANGUAGE plpgsql SECURITY DEFINER AS $pgwake$
DECLARE
  due_time timestamptz := pgwake.time_of(begin_run.due_us);
BEGIN
  IF due_time > clock_timestamp() + interval '1 day' THEN
    RAISE EXCEPTION 'the clock of this machine is more than a day ahead of the server''s'
      USING ERRCODE = 'object_not_in_prerequisite_state', HINT = 'Set the one that is wrong.';
  END IF;
  UPDATE pgwake.schedule s SET last_due = due_time
    WHERE s.key = begin_run.key AND s.last_due < due_time;
  IF NOT FOUND THEN
    RETURN false;
  END IF;
  UPDATE pgwake.run r SET outcome = 'lost', ended = clock_timestamp()
    WHERE r.key = begin_run.key AND r.outcome = 'running';
  INSERT INTO pgwake.run (key, due, outcome)
    SELECT begin_run.key, pgwake.time_of(m.us), 'missed' FROM unnest(begin_run.missed_us) AS m (us)
    ON CONFLICT DO NOTHING;
  INSERT INTO pgwake.run (key, due, started, outcome, backend_pid)
    VALUES (begin_run.key, due_time, clock_timestamp(), 'running', pg_backend_pid());
  -- Some stay however old they are: of what is due once a year there would be none.
  DELETE FROM pgwake.run r WHERE r.key = begin_run.key
    AND r.due < due_time - pgwake.setting_of('run_days') * interval '1 day'
    AND r.due < (SELECT k.due FROM pgwake.run k WHERE k.key = begin_run.key
      ORDER BY k.due DESC OFFSET 100 LIMIT 1);
  RETURN true;
END $pgwake$;

-- The run has ended, and somebody else may have the lock. Where the lock was lost meanwhile, another has
-- written what became of the run.
CREATE OR REPLACE FUNCTION pgwake.end_run(key text, due_us bigint, failure text) RETURNS void
  LANGUAGE plpgsql SECURITY DEFINER AS $pgwake$
BEGIN
  UPDATE pgwake.run r SET ended = clock_timestamp(), message = end_run.failure,
      outcome = CASE WHEN end_run.failure IS NULL THEN 'done' ELSE 'failed' END
    WHERE r.key = end_run.key AND r.due = pgwake.time_of(end_run.due_us) AND r.outcome = 'running';
  PERFORM pg_advisory_unlock(pgwake.schedule_lock(end_run.key));
END $pgwake$;
