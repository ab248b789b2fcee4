#!/usr/bin/env python3
"""A drop that meets a row inserted, but not yet committed: is what belongs to that row cleaned up?

usage: PG_CONFIG=… race.py [--times 200]

The handler deletes the side rows of a table from the table's own rows. Once with the rehearsal, which waits
for the insert before it lets the handler look; once with what the command names, which does not. Then with an
insert that comes after the handler has looked. Ends with 1 where the rehearsal leaves a side row, or where of
two sessions that drop the same table the second is not told that it is gone.
"""

import argparse
import sys
import threading

from throwaway import Failed, Server

SETUP = """
CREATE EXTENSION pgwake_ddl;
CREATE TABLE side (id int);
CREATE FUNCTION clean() RETURNS event_trigger LANGUAGE plpgsql AS $$
DECLARE
  target record;
BEGIN
  FOR target IN SELECT * FROM pgwake_ddl.targets(current_setting('race.exact')::bool)
    WHERE object_type = 'table' AND object_name = 'main' LOOP
    EXECUTE format('DELETE FROM public.side WHERE id IN (SELECT id FROM %s)', target.identity);
  END LOOP;
  -- Where a test wants something to happen before the drop.
  PERFORM pg_advisory_xact_lock_shared(1);
END $$;
CREATE EVENT TRIGGER clean ON ddl_command_start WHEN TAG IN ('DROP TABLE') EXECUTE FUNCTION clean();
"""
WAITING = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'"


def in_background(session, sql, failures):
    def run():
        try:
            session.run(sql)
        except Failed as failed:
            failures.append(failed.told)
    thread = threading.Thread(target=run)
    thread.start()
    return thread


def orphans(server, exact, times):
    """How many side rows are left of tables that are gone."""
    writer, dropper, watcher = server.session(), server.session(), server.session()
    dropper.run(f"SET race.exact = {exact}")
    failures = []
    for number in range(times):
        writer.run("CREATE TABLE main (id int)")
        writer.run(f"BEGIN; INSERT INTO main VALUES ({number}); INSERT INTO side VALUES ({number})")
        thread = in_background(dropper, "DROP TABLE main", failures)
        while watcher.run(WAITING) == [("0",)]:
            pass
        writer.run("COMMIT")
        thread.join()
    assert not failures, failures
    return int(watcher.run("SELECT count(*) FROM side")[0][0])


def late_orphans(server, times):
    """The same, of a row whose insert comes after the handler has looked."""
    holder, writer, dropper, watcher = (server.session() for _ in range(4))
    dropper.run("SET race.exact = on")
    for number in range(times):
        writer.run("CREATE TABLE main (id int)")
        holder.run("SELECT pg_advisory_lock(1)")
        dropping = in_background(dropper, "DROP TABLE main", [])
        while watcher.run(WAITING) != [("1",)]:
            pass
        inserts = f"INSERT INTO main VALUES ({number}); INSERT INTO side VALUES ({number})"
        inserting = in_background(writer, inserts, [])
        while inserting.is_alive() and watcher.run(WAITING) != [("2",)]:
            pass
        holder.run("SELECT pg_advisory_unlock(1)")
        dropping.join()
        inserting.join()
    return int(watcher.run("SELECT count(*) FROM side")[0][0])


def both_drop(server, times):
    """One drops, the other finds nothing: how often it is not so."""
    one, other, watcher = server.session(), server.session(), server.session()
    one.run("SET race.exact = on")
    other.run("SET race.exact = on")
    wrong = 0
    for _ in range(times):
        one.run("CREATE TABLE main (id int)")
        one.run("BEGIN; DROP TABLE main")
        failures = []
        thread = in_background(other, "DROP TABLE main", failures)
        while watcher.run(WAITING) == [("0",)]:
            pass
        one.run("COMMIT")
        thread.join()
        wrong += failures != ['ERROR:  table "main" does not exist\n']
    return wrong


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--times", type=int, default=200)
    options = parser.parse_args()
    with Server() as server:
        server.session().run(SETUP)
        rehearsed = orphans(server, "on", options.times)
        server.session().run("TRUNCATE side")
        named = orphans(server, "off", options.times)
        server.session().run("TRUNCATE side")
        late = late_orphans(server, options.times)
        wrong = both_drop(server, options.times)
        complaints = server.complaints()
    print(f"{server.version}: {options.times} races: {rehearsed} orphans with the rehearsal, {named} without, "
          f"{late} of inserts after the handler; "
          f"{wrong} of {options.times} double drops went wrong; {complaints}")
    sys.exit(bool(rehearsed or late or wrong or complaints))


if __name__ == "__main__":
    main()
