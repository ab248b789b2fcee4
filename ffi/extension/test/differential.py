#!/usr/bin/env python3
"""Compares what pgwake_ddl.targets() says before each of many random drops with what the server says after.

usage: PG_CONFIG=… differential.py [--drops 10000] [--seed N]

Ends when so many drops have been compared, with 1 where something differs or the server complains. A drop
that the server refuses must be refused in the same words as without the extension.
"""

import argparse
import collections
import random
import sys

from schema import LIST, ROLES, Drops, Schema
from throwaway import Failed, Server

PROBE = """
CREATE SCHEMA probe;
CREATE TABLE probe.before (ord int, object text);
CREATE TABLE probe.after (ord int, object text);
CREATE TABLE probe.result (tag text, same int, differ int, detail text);
-- The schema, but for objects for which only later minor releases tell it.
CREATE FUNCTION probe.told(type text, schema text) RETURNS text LANGUAGE sql IMMUTABLE AS $$
  SELECT CASE WHEN type NOT IN ('default value', 'trigger', 'policy') THEN schema END
$$;
CREATE FUNCTION probe.at_start() RETURNS event_trigger LANGUAGE plpgsql SET search_path = pg_catalog AS $$
BEGIN
  DELETE FROM probe.before;
  DELETE FROM probe.after;
  INSERT INTO probe.before
    SELECT ord,
      ROW(classid, objid, objsubid, object_type, probe.told(object_type, schema_name), object_name, identity)
    FROM pgwake_ddl.targets() WHERE behavior IS NOT NULL;
END $$;
CREATE FUNCTION probe.at_drop() RETURNS event_trigger LANGUAGE plpgsql AS $$
BEGIN
  INSERT INTO probe.after
    SELECT ordinality,
      ROW(classid, objid, objsubid, object_type, probe.told(object_type, schema_name), object_name,
        object_identity)
    FROM pg_event_trigger_dropped_objects() WITH ORDINALITY;
END $$;
CREATE FUNCTION probe.at_end() RETURNS event_trigger LANGUAGE plpgsql AS $$
BEGIN
  INSERT INTO probe.result
    SELECT tg_tag, count(*) FILTER (WHERE b.ord = a.ord),
      count(*) FILTER (WHERE b.ord IS DISTINCT FROM a.ord),
      string_agg(concat_ws(' ', 'before', b, 'after', a), '; ') FILTER (WHERE b.ord IS DISTINCT FROM a.ord)
    FROM probe.before b FULL JOIN probe.after a USING (object);
END $$;
CREATE PROCEDURE probe.in_procedure(command text) LANGUAGE plpgsql AS $$
BEGIN
  EXECUTE command;
  COMMIT;
  PERFORM 1;
END $$;
CREATE FUNCTION probe.in_function(command text) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
  BEGIN
    EXECUTE command;
  EXCEPTION WHEN division_by_zero THEN
    RAISE NOTICE 'never';
  END;
END $$;
CREATE EVENT TRIGGER probe_start ON ddl_command_start EXECUTE FUNCTION probe.at_start();
CREATE EVENT TRIGGER probe_drop ON sql_drop EXECUTE FUNCTION probe.at_drop();
CREATE EVENT TRIGGER probe_end ON ddl_command_end EXECUTE FUNCTION probe.at_end();
GRANT ALL ON SCHEMA probe, public TO PUBLIC;
GRANT ALL ON ALL TABLES IN SCHEMA probe TO PUBLIC;
"""
COMMITTED = .06


class Run:
    def __init__(self, session, chance):
        self.session, self.chance = session, chance
        self.counts = collections.Counter()
        self.findings = []
        self.tags = collections.Counter()
        self.states = collections.Counter()
        self.left = 0

    def rebuild(self):
        """Takes what is left away, and makes another schema. Neither is looked at."""
        run = self.session.run
        run("SET event_triggers = off" if self.has_switch() else "ALTER EVENT TRIGGER probe_start DISABLE")
        for row in run("SELECT format('DROP SCHEMA %I CASCADE', nspname) FROM pg_namespace"
                       " WHERE nspname ~ '^s[0-9]$' UNION ALL"
                       " SELECT format('DROP FOREIGN DATA WRAPPER %I CASCADE', fdwname) FROM"
                       " pg_foreign_data_wrapper UNION ALL SELECT format('DROP PUBLICATION %I', pubname) FROM"
                       " pg_publication"):
            run(row[0])
        for statement in Schema(self.chance, self.extensions()).build():
            try:
                run(statement)
                self.counts["objects made"] += 1
            except Failed:
                self.counts["makings refused"] += 1
        run("RESET event_triggers" if self.has_switch() else "ALTER EVENT TRIGGER probe_start ENABLE")
        self.list()
        self.made = len(self.drops.rows)

    def has_switch(self):
        return int(self.session.run("SHOW server_version_num")[0][0]) >= 170000

    def extensions(self):
        return [row[0] for row in self.session.run(
            "SELECT name FROM pg_available_extensions WHERE name IN ('hstore', 'citext', 'cube') ORDER BY 1")]

    def list(self):
        self.drops = Drops(self.chance, self.session.run(LIST))

    def step(self):
        command = self.drops.one()
        role = self.chance.choice(("postgres",) * 12 + ROLES)
        path = self.chance.choice(("s0, s1", "s1, s0", "public", "s1, s0, pg_temp"))
        before = [f"SET LOCAL search_path = {path}"]
        if self.chance.random() < .1:
            before.append("CREATE TEMP TABLE IF NOT EXISTS t9 (a int DEFAULT 4, b serial)")
            before.append("CREATE OR REPLACE TEMP VIEW v9 AS SELECT * FROM t9")
            command = self.chance.choice((
                command, "DROP TABLE t9 CASCADE", "DROP VIEW v9", "DROP SCHEMA pg_temp CASCADE",
                "ALTER TABLE t9 DROP a CASCADE", "DROP TABLE pg_temp.t9, s0.t9 CASCADE"))
        before.append(f"SET LOCAL ROLE {role}")
        how = self.chance.choice((self.plainly, self.plainly, self.prepared, self.in_do, self.in_function,
                                  self.in_savepoint, self.at_once))
        if self.chance.random() < COMMITTED / 2:
            return self.in_procedure(command, path)
        told = self.attempt(before, how, command)
        if told is not None:
            self.counts["refused"] += 1
            self.same_words(before, how, command, told)
        elif self.chance.random() < COMMITTED:
            self.session.run("RESET ROLE; COMMIT")
            self.counts["committed"] += 1
            self.list()
        else:
            self.session.run("ROLLBACK")

    def attempt(self, before, how, command):
        """Leaves the transaction open where it works; else what the server said."""
        try:
            self.session.run("BEGIN")
            for statement in before:
                self.session.run(statement)
            self.session.run("SET LOCAL client_min_messages = warning; DELETE FROM probe.result")
            how(command)
            self.look(command, how)
            return None
        except Failed as failed:
            self.session.run("ROLLBACK")
            self.states[failed.sqlstate] += 1
            return failed.told

    def look(self, command, how):
        rows = self.session.run("SELECT tag, same, differ, detail FROM probe.result")
        if not rows:
            self.findings.append(f"no event: {command}")
        for tag, same, differ, detail in rows:
            self.tags[tag] += 1
            self.counts["drops compared"] += not tag.startswith("CREATE")
            self.counts["objects equal"] += int(same)
            self.counts["with cascade"] += int(same) > 1
            if int(differ):
                self.findings.append(f"{how.__name__}: {command}: {differ} differ: {detail[:600]}")

    def same_words(self, before, how, command, told):
        unasked = ["ALTER EVENT TRIGGER probe_start DISABLE", "DELETE FROM probe.before"]
        without = self.attempt(unasked + before, how, command)
        self.session.run("ROLLBACK")
        if without != told:
            self.findings.append(f"{command}: refused with: {told} without: {without}")

    def in_procedure(self, command, path):
        self.session.run(f"SET search_path = {path}; TRUNCATE probe.result")
        try:
            self.session.run(f"CALL probe.in_procedure($q${command}$q$)")
            self.look(command, self.in_procedure)
            self.counts["committed"] += 1
        except Failed:
            self.counts["refused"] += 1
        self.session.run("RESET search_path")
        self.list()

    def plainly(self, command):
        self.session.run(command)

    def prepared(self, command):
        self.session.run(command, prepared=True)

    def in_do(self, command):
        self.session.run(f"DO $do$ BEGIN {command}; END $do$")

    def in_function(self, command):
        self.session.run(f"SELECT probe.in_function($q${command}$q$)")

    def in_savepoint(self, command):
        self.session.run("SAVEPOINT a")
        self.session.run(command)
        self.session.run("ROLLBACK TO a")
        self.session.run(f"SAVEPOINT b; {command}; RELEASE b")

    def at_once(self, command):
        self.session.run(f"CREATE TABLE public.one (i int); {command}; DROP TABLE public.one")


def any_seed():
    return random.SystemRandom().randrange(1 << 31)


def compare(server, drops, seed):
    """Returns the number of findings, and prints them."""
    print(f"{server.version}: seed {seed}", flush=True)
    session = server.session()
    for role in ROLES:
        session.run(f"CREATE ROLE {role}")
    session.run("CREATE EXTENSION pgwake_ddl")
    session.run(PROBE)
    run = Run(session, random.Random(seed))
    run.rebuild()
    while run.counts["drops compared"] < drops:
        run.step()
        if len(run.drops.rows) < .6 * run.made:
            run.rebuild()
    findings = run.findings + server.complaints()
    print(f"{dict(run.counts)}\n{dict(run.tags)}\nrefusals: {dict(run.states)}")
    print(*findings[:20], f"{len(findings)} findings", sep="\n", flush=True)
    return len(findings)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--drops", type=int, default=10000)
    parser.add_argument("--seed", type=int, default=any_seed())
    options = parser.parse_args()
    with Server() as server:
        findings = compare(server, options.drops, options.seed)
    sys.exit(bool(findings))


if __name__ == "__main__":
    main()
