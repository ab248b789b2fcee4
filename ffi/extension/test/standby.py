#!/usr/bin/env python3
"""Does a standby hold the lock of a drop that was rehearsed, as it does without the extension?

usage: PG_CONFIG=… standby.py

Otherwise a query there could read a table whose files go away. Ends with 1 where a lock is missing.
"""

import sys
import time

from throwaway import Server

SETUP = """
CREATE EXTENSION pgwake_ddl;
CREATE FUNCTION ask() RETURNS event_trigger LANGUAGE plpgsql AS
  'BEGIN PERFORM pgwake_ddl.targets(); PERFORM pgwake_ddl.targets(); END';
CREATE TABLE t (id int, a int, b int);
CREATE TABLE part (id int) PARTITION BY LIST (id);
CREATE TABLE part_1 PARTITION OF part FOR VALUES IN (1);
CREATE VIEW v AS SELECT * FROM t;
"""
COMMANDS = (
    "DROP TABLE t CASCADE", "ALTER TABLE t DROP COLUMN a CASCADE", "DROP TABLE part_1", "DROP VIEW v",
    "LOCK TABLE t IN ACCESS SHARE MODE; DROP TABLE t CASCADE", "LOCK TABLE t; DROP TABLE t CASCADE",
    "SAVEPOINT a; DROP TABLE t CASCADE", "SAVEPOINT a; DROP TABLE t CASCADE; RELEASE a",
    "SAVEPOINT a; DROP TABLE t CASCADE; ROLLBACK TO a; DROP TABLE part")
LOCKS = """
SELECT relation FROM pg_locks WHERE locktype = 'relation' AND mode = 'AccessExclusiveLock' AND granted
ORDER BY 1"""


def locks_there(primary, watcher, session, command):
    """The relations that the standby holds once it has seen all that the primary has done."""
    session.run(f"BEGIN; {command}")
    position = primary.run("SELECT pg_switch_wal(), pg_current_wal_lsn()")[0][1]
    while watcher.run(f"SELECT pg_last_wal_replay_lsn() >= '{position}'") != [("t",)]:
        time.sleep(.01)
    here, there = primary.run(LOCKS), watcher.run(LOCKS)
    session.run("ROLLBACK")
    return here, there


def main():
    wrong = 0
    with Server("wal_level = replica") as server:
        server.session().run(SETUP)
        with server.standby() as standby:
            primary, watcher, session = server.session(), standby.session(), server.session()
            for asked in (False, True):
                if asked:
                    primary.run("CREATE EVENT TRIGGER ask ON ddl_command_start EXECUTE FUNCTION ask()")
                for command in COMMANDS:
                    here, there = locks_there(primary, watcher, session, command)
                    # There are locks on what a rehearsal has looked at as well as on what the command takes.
                    if here != there or not there:
                        wrong += 1
                        print(f"asked {asked}: {command}: here {here}, there {there}")
            while watcher.run(LOCKS):
                time.sleep(.01)
    print(f"{server.version}: {len(COMMANDS)} commands, {wrong} with a lock missing on the standby")
    sys.exit(bool(wrong))


if __name__ == "__main__":
    main()
