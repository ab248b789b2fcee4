"""A random schema that has something of everything that can be dropped, and random commands that drop it."""

import random

ROLES = ("pgwake_a", "pgwake_b", "pgwake_c")
SCHEMAS = ("s0", "s1", "s2", "s3")


class Schema:
    """Makes the statements that build it. Each is run by itself, and may fail."""

    def __init__(self, chance: random.Random, extensions):
        self.chance, self.extensions, self.number = chance, extensions, 0
        self.statements, self.tables, self.functions, self.types, self.views = [], [], [], [], []

    def name(self, letter):
        self.number += 1
        return f"{self.chance.choice(SCHEMAS)}.{letter}{self.number}"

    def say(self, *statements):
        self.statements += statements

    def build(self):
        for schema in SCHEMAS:
            self.say(f"CREATE SCHEMA {schema} AUTHORIZATION {self.chance.choice(ROLES)}")
            self.say(f"GRANT ALL ON SCHEMA {schema} TO PUBLIC")
        makers = [self.type, self.domain, self.function, self.table, self.table, self.table, self.partitioned,
                  self.inheriting, self.view, self.view, self.matview, self.trigger, self.rule, self.policy,
                  self.sequence, self.statistics, self.foreign, self.operator, self.text_search, self.publication,
                  self.extension, self.child, self.default]
        for maker in makers[:6] + self.chance.choices(makers, k=70):
            maker()
        return self.statements

    def owned(self, kind, name):
        self.say(f"ALTER {kind} {name} OWNER TO {self.chance.choice(ROLES)}")

    def type(self):
        name = self.name("y")
        body = self.chance.choice(("(a int, b text)", "ENUM ('x', 'y')", "RANGE (SUBTYPE = float8)"))
        self.say(f"CREATE TYPE {name} AS {body}")
        self.owned("TYPE", name)
        self.types.append(name)

    def domain(self):
        name = self.name("d")
        base = self.chance.choice(["int"] + self.types)
        self.say(f"CREATE DOMAIN {name} AS {base} CONSTRAINT filled CHECK (VALUE IS NOT NULL)")
        self.types.append(name)

    def function(self):
        name = self.name("f")
        argument = self.chance.choice(["int"] + self.types + self.tables)
        self.say(f"CREATE FUNCTION {name}(int) RETURNS int IMMUTABLE LANGUAGE sql AS 'SELECT $1'",
                 f"CREATE FUNCTION {name}_of({argument}) RETURNS int LANGUAGE sql AS 'SELECT 1'",
                 f"CREATE PROCEDURE {name}_do(int) LANGUAGE sql AS 'SELECT $1'",
                 f"CREATE AGGREGATE {name}_sum(int) (SFUNC = int4pl, STYPE = int)",
                 f"CREATE FUNCTION {name}_tg() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END'")
        self.owned("FUNCTION", f"{name}(int)")
        self.functions.append(name)

    def table(self):
        name = self.name("t")
        key = self.chance.choice(("serial PRIMARY KEY", "int PRIMARY KEY", "int GENERATED ALWAYS AS IDENTITY UNIQUE"))
        parts = [f"id {key}", "a int NOT NULL", "b text DEFAULT 'b'"]
        kinds = self.chance.sample(self.types, min(2, len(self.types)))
        parts += [f"c{number} {kind}" for number, kind in enumerate(kinds)]
        if self.functions and self.chance.random() < .4:
            parts.append(f"CONSTRAINT positive CHECK ({self.chance.choice(self.functions)}(a) > 0)")
            parts.append(f"g int GENERATED ALWAYS AS ({self.chance.choice(self.functions)}(a)) STORED")
        if self.tables and self.chance.random() < .6:
            parts.append(f"r int REFERENCES {self.chance.choice(self.tables)}")
        persistence = self.chance.choice(("", "", "", "UNLOGGED "))
        self.say(f"CREATE {persistence}TABLE {name} ({', '.join(parts)})",
                 f"CREATE INDEX ON {name} (a)",
                 f"CREATE INDEX {name.split('.')[1]}_ab ON {name} (lower(b), a)")
        self.owned("TABLE", name)
        self.tables.append(name)

    def child(self):
        if self.tables:
            self.say(f"CREATE TABLE {self.name('k')} (LIKE {self.chance.choice(self.tables)} INCLUDING ALL)")

    def inheriting(self):
        if self.tables:
            name = self.name("h")
            self.say(f"CREATE TABLE {name} (own int DEFAULT 3) INHERITS ({self.chance.choice(self.tables)})")
            self.tables.append(name)

    def partitioned(self):
        name = self.name("p")
        self.say(f"CREATE TABLE {name} (id int, a int, b text, PRIMARY KEY (id, a)) PARTITION BY RANGE (id)",
                 f"CREATE INDEX ON {name} (b)")
        for part in range(self.chance.randint(1, 3)):
            bounds = f"PARTITION OF {name} FOR VALUES FROM ({part}) TO ({part + 1})"
            self.say(f"CREATE TABLE {name}_{part} {bounds} PARTITION BY LIST (a)",
                     f"CREATE TABLE {name}_{part}_x PARTITION OF {name}_{part} DEFAULT")
        self.owned("TABLE", name)
        self.say(f"CREATE TABLE {name}_ref (i int, j int, FOREIGN KEY (i, j) REFERENCES {name})")
        self.tables.append(name)

    def view(self):
        if self.tables:
            name = self.name("v")
            source = self.chance.choice(self.tables + self.views)
            self.say(f"CREATE VIEW {name} AS SELECT x.a, x.b, x.id FROM {source} x")
            self.owned("VIEW", name)
            self.views.append(name)

    def matview(self):
        if self.tables:
            name = self.name("m")
            self.say(f"CREATE MATERIALIZED VIEW {name} AS SELECT x.id, x.a, x.b FROM "
                     f"{self.chance.choice(self.tables + self.views)} x", f"CREATE UNIQUE INDEX ON {name} (id)")
            self.views.append(name)

    def trigger(self):
        if self.tables and self.functions:
            self.say(f"CREATE TRIGGER g{self.number} AFTER INSERT ON {self.chance.choice(self.tables)} FOR EACH ROW "
                     f"EXECUTE FUNCTION {self.chance.choice(self.functions)}_tg()")

    def rule(self):
        if len(self.tables) > 1:
            one, other = self.chance.sample(self.tables, 2)
            self.say(f"CREATE RULE u{self.number} AS ON DELETE TO {one} DO ALSO DELETE FROM {other} WHERE a = old.a")

    def policy(self):
        if len(self.tables) > 1:
            one, other = self.chance.sample(self.tables, 2)
            self.say(f"CREATE POLICY o{self.number} ON {one} TO {self.chance.choice(ROLES)} "
                     f"USING (a IN (SELECT a FROM {other}))")

    def sequence(self):
        name = self.name("q")
        self.say(f"CREATE SEQUENCE {name}")
        if self.tables:
            table = self.chance.choice(self.tables)
            self.say(f"ALTER SEQUENCE {name} OWNED BY {table}.a",
                     f"ALTER TABLE {table} ALTER a SET DEFAULT nextval('{name}')")

    def default(self):
        if self.tables and self.functions:
            self.say(f"ALTER TABLE {self.chance.choice(self.tables)} ALTER a SET DEFAULT "
                     f"{self.chance.choice(self.functions)}(4)")

    def statistics(self):
        if self.tables:
            self.say(f"CREATE STATISTICS {self.name('x')} ON a, b FROM {self.chance.choice(self.tables)}")

    def foreign(self):
        wrapper, server = f"fw{self.number}", f"fs{self.number}"
        self.say(f"CREATE FOREIGN DATA WRAPPER {wrapper}", f"CREATE SERVER {server} FOREIGN DATA WRAPPER {wrapper}",
                 f"CREATE USER MAPPING FOR {self.chance.choice(ROLES)} SERVER {server}",
                 f"CREATE FOREIGN TABLE {self.name('e')} (a int, b text DEFAULT 'z') SERVER {server}")

    def operator(self):
        name = self.name("f")
        schema, plain = name.split(".")
        self.say(f"CREATE FUNCTION {name}(int, int) RETURNS int IMMUTABLE LANGUAGE sql AS 'SELECT $1 - $2'",
                 f"CREATE OPERATOR {schema}.<-+-> (LEFTARG = int, RIGHTARG = int, FUNCTION = {name})",
                 f"CREATE OPERATOR CLASS {schema}.{plain}_c FOR TYPE int USING btree AS FUNCTION 1 {name}(int, int)",
                 f"CREATE COLLATION {schema}.{plain}_l FROM \"C\"",
                 f"CREATE TYPE {schema}.{plain}_y AS (i int)",
                 f"CREATE FUNCTION {name}_k({schema}.{plain}_y) RETURNS int LANGUAGE sql AS 'SELECT 1'",
                 f"CREATE CAST ({schema}.{plain}_y AS int) WITH FUNCTION {name}_k({schema}.{plain}_y)")

    def text_search(self):
        name = self.name("w")
        self.say(f"CREATE TEXT SEARCH DICTIONARY {name} (TEMPLATE = simple)",
                 f"CREATE TEXT SEARCH CONFIGURATION {name}_c (COPY = simple)",
                 f"ALTER TEXT SEARCH CONFIGURATION {name}_c ALTER MAPPING FOR word WITH {name}")

    def publication(self):
        if self.tables:
            self.say(f"CREATE PUBLICATION pub{self.number} FOR TABLE {self.chance.choice(self.tables)}")

    def extension(self):
        if self.extensions:
            name = self.extensions.pop()
            schema = self.chance.choice(SCHEMAS)
            self.say(f"CREATE EXTENSION {name} SCHEMA {schema}",
                     f"CREATE TABLE {self.name('z')} (id int PRIMARY KEY, a {schema}.{name})",
                     f"CREATE FUNCTION {self.name('z')}({schema}.{name}) RETURNS int LANGUAGE sql AS 'SELECT 1'")


# What a command calls it, by what pg_identify_object() calls it.
KINDS = {kind: kind.upper() for kind in (
    "table", "view", "materialized view", "sequence", "index", "foreign table", "type", "function", "procedure",
    "aggregate", "trigger", "rule", "policy", "schema", "collation", "operator", "operator class", "extension",
    "operator family", "publication", "server", "cast", "text search dictionary", "text search configuration")}
KINDS |= {"statistics object": "STATISTICS", "foreign-data wrapper": "FOREIGN DATA WRAPPER",
          "composite type": "TYPE"}

# Of which a command may name some at once.
SEVERAL = ("table", "view", "sequence", "index", "type", "function", "schema")

LIST = """
SELECT i.type, i.identity, i.schema, i.name FROM
  (SELECT DISTINCT classid, objid, objsubid FROM (
     SELECT classid, objid, objsubid FROM pg_depend UNION ALL
     SELECT refclassid, refobjid, refobjsubid FROM pg_depend) a
   WHERE objid >= 16384) d,
  pg_identify_object(d.classid, d.objid, d.objsubid) i
WHERE i.identity !~ 'probe|pgwake_ddl|pg_toast|_RETURN|information_schema|pg_catalog\\.'
  AND i.type <> 'event trigger'
ORDER BY 1, 2"""


class Drops:
    """Random commands on what there is: rows of LIST."""

    def __init__(self, chance, rows):
        self.chance, self.rows = chance, rows
        self.by_type = {}
        for row in rows:
            self.by_type.setdefault(row[0], []).append(row)

    def one(self):
        if self.chance.random() < .04:
            return self.broad()
        kind, identity, schema, name = self.chance.choice(self.by_type[self.chance.choice(list(self.by_type))])
        how = self.chance.choice((" CASCADE",) * 5 + (" RESTRICT", ""))
        if_exists = self.chance.choice(("", "", "IF EXISTS "))
        if kind == "table column":
            table, _, column = identity.rpartition(".")
            return f"ALTER TABLE {table} DROP COLUMN {if_exists}{column}{how}"
        if kind in ("table constraint", "domain constraint"):
            constraint, _, owner = identity.partition(" on ")
            return f"ALTER {kind.split()[0].upper()} {owner} DROP CONSTRAINT {if_exists}{constraint}{how}"
        if kind == "default value":
            table, _, column = identity.removeprefix("for ").rpartition(".")
            what = self.chance.choice(("DEFAULT", "NOT NULL", "IDENTITY"))
            return f"ALTER TABLE {table} ALTER {column} DROP {what}"
        if kind == "user mapping":
            user, _, server = identity.partition(" on server ")
            return f"DROP USER MAPPING {if_exists}FOR {user} SERVER {server}"
        if kind not in KINDS:
            return self.one()
        names = [identity]
        if kind in SEVERAL and self.chance.random() < .3:
            names += [row[1] for row in self.chance.choices(self.by_type[kind], k=self.chance.randint(1, 3))]
        if self.chance.random() < .03:
            names.append("s0.nothing" + ("(int)" if kind in ("function", "procedure", "aggregate") else ""))
        return f"DROP {KINDS[kind]} {if_exists}{', '.join(self.spelled(name) for name in names)}{how}"

    def spelled(self, name):
        """Without its schema, at times, for the search_path."""
        return name.partition(".")[2] if name[:3] in ("s0.", "s1.") and self.chance.random() < .3 else name

    def broad(self):
        table = self.chance.choice(self.by_type.get("table", [("table", "s0.t")]))[1]
        return self.chance.choice((
            f"DROP OWNED BY {self.chance.choice(ROLES)} CASCADE",
            f"DROP OWNED BY {self.chance.choice(ROLES)}",
            f"ALTER TABLE {table} ALTER id DROP IDENTITY IF EXISTS, ALTER b DROP DEFAULT",
            f"ALTER TABLE {table} ALTER a DROP NOT NULL",
            f"DROP SCHEMA {', '.join(self.chance.sample(SCHEMAS, 2))} CASCADE",
            f"ALTER TABLE {table} DROP COLUMN a CASCADE, DROP COLUMN b, ADD COLUMN new int",
            f"ALTER TABLE {table} ADD COLUMN more int DEFAULT 1, DROP CONSTRAINT IF EXISTS positive"))
