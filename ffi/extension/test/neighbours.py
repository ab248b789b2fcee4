#!/usr/bin/env python3
"""Drops beside other extensions that hook into the same places, or that have many objects.

usage: PG_CONFIG=… neighbours.py

Takes PostGIS, pg_partman and pgaudit where the server has them, and says which it has. Ends with 1 where a
list before a drop is not the one after it.
"""

import os
import sys

import differential
from throwaway import Failed, Server, ask

SCRIPT = {
    "postgis": (
        "CREATE TABLE places (id serial PRIMARY KEY, place geometry(Point, 4326))",
        "CREATE INDEX ON places USING gist (place)",
        "CREATE VIEW near AS SELECT id, ST_Buffer(place, 1) AS around FROM places",
        "SELECT ST_AsText(place) FROM places",
        "DROP TABLE places CASCADE",
        "CREATE TABLE places (id int, place geometry)",
        "DROP TYPE geometry CASCADE",
        "DROP EXTENSION postgis CASCADE"),
    "pg_partman": (
        "CREATE TABLE measured (at timestamptz NOT NULL, value int) PARTITION BY RANGE (at)",
        "SELECT {schema}.create_parent('public.measured', 'at', 'native', 'daily')",
        "DROP TABLE measured CASCADE",
        "DROP EXTENSION pg_partman CASCADE"),
    "pgaudit": (
        "SET pgaudit.log = 'all'",
        "CREATE TABLE audited (id int)",
        "CREATE VIEW of_audited AS SELECT * FROM audited",
        "DROP TABLE audited",
        "DROP TABLE audited CASCADE",
        "DROP EXTENSION pgaudit"),
}
REFUSED = ("DROP TABLE audited", "DROP TYPE geometry CASCADE")


def run(session, name, findings):
    session.run(f"CREATE SCHEMA of_{name}; GRANT USAGE ON SCHEMA of_{name} TO PUBLIC; "
                f"CREATE EXTENSION {name} SCHEMA of_{name}; SET search_path = public, of_{name}")
    compared = 0
    for command in SCRIPT[name]:
        session.run("TRUNCATE probe.result")
        try:
            session.run(command.format(schema=f"of_{name}"))
        except Failed as failed:
            if command not in REFUSED:
                findings.append(f"{name}: {command}: {failed.told}")
        for _, same, differ, detail in session.run("SELECT * FROM probe.result"):
            compared += int(same)
            if int(differ):
                findings.append(f"{name}: {command}: {detail[:1000]}")
    session.run("RESET search_path; RESET ALL")
    print(f"{name}: {compared} objects equal", flush=True)


def main():
    findings = []
    there = os.listdir(f"{ask('--sharedir')}/extension")
    names = [name for name in SCRIPT if f"{name}.control" in there]
    preload = "shared_preload_libraries = 'pgaudit'" if "pgaudit" in names else ""
    with Server(preload) as server:
        session = server.session()
        session.run("CREATE EXTENSION pgwake_ddl")
        session.run(differential.PROBE)
        for name in names:
            run(session, name, findings)
        findings += server.complaints()
    print(f"{server.version}: with {', '.join(names) or 'none of them'}", *findings, sep="\n")
    sys.exit(bool(findings))


if __name__ == "__main__":
    main()
