#!/usr/bin/env python3
"""Random DDL in several sessions at once, with handlers that fail, savepoints, timeouts and cancels.

usage: PG_CONFIG=… stress.py [--seconds 60] [--sessions 6] [--seed N]

Ends with 1 where the server complains, a session cannot go on, a lock is left, or a table cannot be read.
"""

import argparse
import collections
import ctypes
import random
import re
import sys
import threading
import time

from schema import ROLES, SCHEMAS, Drops, Schema
from throwaway import PQ, Failed, Server

SETTINGS = "deadlock_timeout = 50ms\nlog_min_messages = warning\nautovacuum_naptime = 1s"
HANDLER = """
CREATE TABLE public.side (name text);
CREATE FUNCTION public.handle() RETURNS event_trigger LANGUAGE plpgsql SET search_path = pg_catalog AS $$
DECLARE
  target record;
  dice float8 := random();
BEGIN
  FOR target IN SELECT * FROM pgwake_ddl.targets(dice > .1) LOOP
    CONTINUE WHEN target.behavior IS NULL OR target.object_type <> 'table';
    INSERT INTO public.side VALUES (target.identity);
    IF dice BETWEEN .2 AND .6 THEN
      EXECUTE format('SELECT count(*) FROM %s', target.identity);
    END IF;
  END LOOP;
  IF dice > .95 THEN
    RAISE EXCEPTION 'the handler fails';
  ELSIF dice > .92 THEN
    PERFORM pg_sleep(.05);
  ELSIF dice > .89 AND tg_tag NOT IN ('CREATE TABLE', 'DROP TABLE') THEN
    CREATE TEMP TABLE IF NOT EXISTS of_handler (a int PRIMARY KEY, b text);
    DROP TABLE of_handler;
  ELSIF dice > .86 THEN
    BEGIN
      PERFORM count(*) FROM pgwake_ddl.targets();
      PERFORM 1 / 0;
    EXCEPTION WHEN division_by_zero THEN
      PERFORM count(*) FROM pgwake_ddl.targets();
    END;
  END IF;
END $$;
GRANT ALL ON SCHEMA public TO PUBLIC;
GRANT ALL ON public.side TO PUBLIC;
CREATE EVENT TRIGGER handle ON ddl_command_start EXECUTE FUNCTION public.handle();
"""


# Without pg_identify_object(), which brings PostgreSQL 17.0 down where a schema goes at the same moment.
LIST = """
SELECT CASE relkind WHEN 'v' THEN 'view' WHEN 'm' THEN 'materialized view' WHEN 'S' THEN 'sequence'
    WHEN 'i' THEN 'index' WHEN 'I' THEN 'index' WHEN 'f' THEN 'foreign table' ELSE 'table' END,
  format('%I.%I', nspname, relname), nspname, relname
FROM pg_class c JOIN pg_namespace n ON n.oid = relnamespace WHERE nspname ~ '^s[0-9]$' AND relkind <> 'c'
UNION ALL
SELECT CASE prokind WHEN 'p' THEN 'procedure' WHEN 'a' THEN 'aggregate' ELSE 'function' END,
  format('%I.%I(%s)', nspname, proname, pg_get_function_identity_arguments(p.oid)), nspname, proname
FROM pg_proc p JOIN pg_namespace n ON n.oid = pronamespace WHERE nspname ~ '^s[0-9]$'
UNION ALL
SELECT 'type', format('%I.%I', nspname, typname), nspname, typname
FROM pg_type t JOIN pg_namespace n ON n.oid = typnamespace
WHERE nspname ~ '^s[0-9]$' AND typtype IN ('e', 'd', 'r')
UNION ALL
SELECT 'table column', format('%I.%I.%I', nspname, relname, attname), nspname, attname
FROM pg_attribute a JOIN pg_class c ON attrelid = c.oid JOIN pg_namespace n ON n.oid = relnamespace
WHERE nspname ~ '^s[0-9]$' AND relkind = 'r' AND attnum > 0 AND NOT attisdropped
"""


class Worker(threading.Thread):
    def __init__(self, server, seed, until):
        super().__init__()
        self.session, self.chance, self.until = server.session(), random.Random(seed), until
        self.counts, self.failure, self.schemas_gone = collections.Counter(), None, 0
        self.cancel = PQ.PQgetCancel(self.session.pq)
        self.makings, self.rows, self.internal = [], [], []

    def run(self):
        try:
            while time.monotonic() < self.until:
                self.transaction()
        except Exception as error:  # whatever it is, it is a finding
            self.failure = repr(error)

    def statement(self):
        if self.counts["3F000"] > self.schemas_gone:
            self.schemas_gone = self.counts["3F000"]
            self.make_schemas()
        if not self.makings:
            schema = Schema(self.chance, [])
            schema.number = self.chance.randrange(1 << 20)
            self.makings = [making for making in schema.build() if "SCHEMA s" not in making][::-1]
            self.rows = self.session.run(LIST)
        if self.chance.random() < .7 or not self.rows:
            return self.makings.pop()
        return Drops(self.chance, self.rows).one()

    def make_schemas(self):
        """Those that a session has dropped."""
        for name in SCHEMAS:
            self.session.run(f"CREATE SCHEMA IF NOT EXISTS {name}; GRANT ALL ON SCHEMA {name} TO PUBLIC")

    def transaction(self):
        """Whatever fails in it, the session must be able to go on after it."""
        try:
            statements = [self.statement() for _ in range(self.chance.randint(1, 4))]
            if self.chance.random() < .5:
                return self.attempt(statements[0])
            self.session.run("BEGIN")
            if self.chance.random() < .3:
                self.session.run(f"SET LOCAL statement_timeout = {self.chance.randint(1, 40)}")
            if self.chance.random() < .2:
                self.session.run(f"SET LOCAL ROLE {self.chance.choice(ROLES)}")
            for statement in statements:
                self.session.run("SAVEPOINT a")
                if not self.attempt(statement) or self.chance.random() < .2:
                    self.session.run("ROLLBACK TO a")
                elif self.chance.random() < .5:
                    self.session.run("RELEASE a")
            self.session.run(self.chance.choice(("COMMIT", "COMMIT", "ROLLBACK")))
        except Failed as failed:
            self.counts[failed.sqlstate] += 1
        if not self.session.is_alive():
            raise Failed("the session is gone", None)
        self.roll_back()

    def roll_back(self):
        try:
            self.session.run("ROLLBACK")
        except Failed as failed:
            # A cancel that came late.
            if failed.sqlstate != "57014":
                raise
            self.roll_back()

    def attempt(self, statement):
        self.counts["statements"] += 1
        if self.chance.random() < .2:
            statement = f"DO $do$ BEGIN {statement}; EXCEPTION WHEN division_by_zero THEN NULL; END $do$"
        try:
            self.session.run(statement)
            return True
        except Failed as failed:
            self.counts[failed.sqlstate] += 1
            if failed.sqlstate == "XX000":
                self.internal.append(failed.told.splitlines()[0])
            if not self.session.is_alive():
                raise
            return False


def cancel_now_and_then(workers, chance, until):
    buffer = ctypes.create_string_buffer(256)
    while time.monotonic() < until:
        time.sleep(chance.random() * .2)
        PQ.PQcancel(chance.choice(workers).cancel, buffer, 256)


def unreadable(session):
    """Tables whose files went with a drop that was undone, or whose catalog rows do not fit together."""
    found = []
    for name, in session.run("SELECT oid::regclass FROM pg_class WHERE relkind IN ('r', 'm', 'p')"):
        try:
            session.run(f"SELECT count(*) FROM {name}")
        except Failed as failed:
            if failed.sqlstate not in ("55000", "22012"):
                found.append(f"{name}: {failed.told}")
    return found


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--sessions", type=int, default=6)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1 << 31))
    options = parser.parse_args()
    chance = random.Random(options.seed)
    with Server(SETTINGS) as server:
        session = server.session()
        print(f"{server.version}: seed {options.seed}", flush=True)
        for role in ROLES:
            session.run(f"CREATE ROLE {role}")
        session.run("CREATE EXTENSION pgwake_ddl")
        session.run(HANDLER)
        until = time.monotonic() + options.seconds
        workers = [Worker(server, chance.randrange(1 << 31), until) for _ in range(options.sessions)]
        for worker in workers:
            worker.start()
        cancel_now_and_then(workers, chance, until)
        for worker in workers:
            worker.join(60)
        findings = [f"wedged: {worker.session.pq}" for worker in workers if worker.is_alive()]
        findings += [f"cannot go on: {worker.failure}" for worker in workers if worker.failure]
        findings += [f"lock left: {row}" for row in session.run(
            "SELECT l.*, query FROM pg_locks l JOIN pg_stat_activity USING (pid)"
            " WHERE pid <> pg_backend_pid() AND backend_type = 'client backend'")]
        counts = sum((worker.counts for worker in workers), collections.Counter())
        counts["handled"] = int(session.run("SELECT count(*) FROM public.side")[0][0])
        findings += unreadable(session) + server.complaints()
    print(dict(counts))
    print("internal errors:", collections.Counter(
        re.sub(r"[0-9]+", "N", told) for worker in workers for told in worker.internal))
    print(*findings[:30], f"{len(findings)} findings", sep="\n")
    sys.exit(bool(findings))


if __name__ == "__main__":
    main()
