#!/usr/bin/env python3
"""What a drop costs without the extension, with it, and with a handler that asks for the targets.

usage: PG_CONFIG=… cost.py [--tables 1000] [--rounds 7] [--singles 200]

Medians of runs in turns, in a database for each. The server writes to the disk as it does by default.
"""

import argparse
import statistics
import time

from throwaway import Server

HANDLER = """
CREATE FUNCTION handle() RETURNS event_trigger LANGUAGE plpgsql AS $$
BEGIN
  PERFORM FROM pgwake_ddl.targets() WHERE role = 'target';
END $$;
CREATE EVENT TRIGGER handle ON ddl_command_start EXECUTE FUNCTION handle();
"""
CREATED = "CREATE EXTENSION pgwake_ddl;"
SETUPS = {"without": "", "with": CREATED, "asked": CREATED + HANDLER}
TABLE = "(id serial PRIMARY KEY, a int, b text)"


def timed(session, sql):
    start = time.perf_counter()
    session.run(sql)
    return time.perf_counter() - start


def print_medians(title, times):
    base = statistics.median(times["without"])
    for name, values in times.items():
        median = statistics.median(values)
        print(f"  {title}, {name}: {median * 1000:.2f} ms, {median / base:.2f} times", flush=True)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--tables", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--singles", type=int, default=200)
    options = parser.parse_args()
    with Server("fsync = on\nmax_wal_size = 4GB\nautovacuum = off") as server:
        print(server.version, flush=True)
        sessions = {}
        for name, setup in SETUPS.items():
            server.session().run(f'CREATE DATABASE "{name}"')
            sessions[name] = server.session(f"dbname={name}")
            if setup:
                sessions[name].run(setup)
        single = {name: [] for name in SETUPS}
        for _ in range(options.singles):
            for name, session in sessions.items():
                session.run(f"CREATE TABLE t {TABLE}")
                single[name].append(timed(session, "DROP TABLE t"))
        print_medians("DROP TABLE", single)
        many = {name: [] for name in SETUPS}
        for _ in range(options.rounds):
            for name, session in sessions.items():
                tables = "".join(f"CREATE TABLE s.t{number} {TABLE};" for number in range(options.tables))
                session.run("SET client_min_messages = warning; CREATE SCHEMA s;" + tables)
                many[name].append(timed(session, "DROP SCHEMA s CASCADE"))
        print_medians(f"DROP SCHEMA of {options.tables} tables", many)


if __name__ == "__main__":
    main()
