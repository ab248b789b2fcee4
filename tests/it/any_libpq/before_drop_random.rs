//! The list before a drop is the server's own list after it, for random drops on a random schema. By default
//! some hundred; `PGWAKE_TEST_DROPS` says how many.

use crate::common::drops::{equal_lists, in_each_mode, keep_lists, keep_what_is_seen, seen};
use crate::common::random::Random;
use crate::common::{Sql, say_loudly};

const SCHEMAS: u64 = 3;
const NAMES: u64 = 24;

/// What can be made, and what it is dropped as. `N` is the new name, `O` and `P` are others, `K` a number.
const MAKE: [(&str, &str); 22] = [
    ("TABLE", "CREATE TABLE N (id int PRIMARY KEY, a int, b text DEFAULT 'x' CHECK (b <> 'y'))"),
    ("TABLE", "CREATE TABLE N (id serial PRIMARY KEY, other int REFERENCES O, a int UNIQUE, b text)"),
    ("TABLE", "CREATE TABLE N (id int PRIMARY KEY, a int, b text) PARTITION BY RANGE (id)"),
    ("TABLE", "CREATE TABLE N PARTITION OF O FOR VALUES FROM (K) TO (K + 1)"),
    ("TABLE", "CREATE TABLE N PARTITION OF O DEFAULT PARTITION BY RANGE (id)"),
    ("TABLE", "CREATE TABLE N () INHERITS (O)"),
    ("TABLE", "CREATE TABLE N (id int GENERATED ALWAYS AS IDENTITY, a O, b O[])"),
    ("TABLE", "CREATE TEMP TABLE tK (id int, a int, b text)"),
    ("VIEW", "CREATE VIEW N AS SELECT x.id, y.a, y.b FROM O x, P y"),
    ("VIEW", "CREATE VIEW N AS SELECT * FROM O"),
    ("MATERIALIZED VIEW", "CREATE MATERIALIZED VIEW N AS SELECT id, a, b FROM O"),
    ("TYPE", "CREATE TYPE N AS (id int, a int, b text)"),
    ("TYPE", "CREATE TYPE N AS ENUM ('x')"),
    ("DOMAIN", "CREATE DOMAIN N AS text CHECK (value <> '')"),
    ("SEQUENCE", "CREATE SEQUENCE N OWNED BY O.a"),
    ("SEQUENCE", "CREATE SEQUENCE N"),
    ("INDEX", "CREATE INDEX N ON O (a, b)"),
    ("FUNCTION", "CREATE FUNCTION N(x O) RETURNS int LANGUAGE sql AS 'SELECT 1'"),
    ("FUNCTION", "CREATE FUNCTION N() RETURNS SETOF O LANGUAGE sql AS 'SELECT NULL'"),
    ("STATISTICS", "CREATE STATISTICS N ON a, b FROM O"),
    ("TABLE", "ALTER TABLE O ALTER a SET DEFAULT nextval('P')"),
    ("TABLE", "ALTER TABLE O ADD c P"),
];

/// What is dropped, besides objects by their names.
const DROP: [&str; 8] = [
    "DROP SCHEMA S CASCADE",
    "ALTER TABLE O DROP COLUMN a CASCADE",
    "ALTER TABLE O DROP b CASCADE, DROP COLUMN IF EXISTS c",
    "ALTER TABLE O DROP CONSTRAINT O_pkey CASCADE",
    "ALTER TYPE O DROP ATTRIBUTE a CASCADE",
    "DROP OWNED BY random_owner CASCADE",
    "DROP TABLE IF EXISTS tK, O CASCADE",
    "DROP RULE \"_RETURN\" ON O CASCADE",
];

struct Names<'a>(&'a mut Random);

impl Names<'_> {
    fn schema(&mut self) -> String {
        format!("s{}", self.0.below(SCHEMAS))
    }

    fn object(&mut self) -> String {
        let schema = self.schema();
        format!("{schema}.o{}", self.0.below(NAMES))
    }

    /// A template with names in it. A constraint is named after its table alone.
    fn fill(&mut self, template: &str) -> String {
        let other = self.object();
        let bare = other.split_once('.').map_or("", |(_, name)| name).to_string();
        let number = self.0.below(100).to_string();
        let template = template.replace("CONSTRAINT O_pkey", &format!("CONSTRAINT {bare}_pkey"));
        let mut filled = String::new();
        let is_word = |c: char| c.is_alphanumeric() || c == '_' || c == '"';
        for word in template.split_inclusive(|c| !is_word(c)) {
            let name = word.trim_end_matches(|c| !is_word(c));
            let value = match name {
                "N" | "P" => self.object(),
                "O" => other.clone(),
                "K" => number.clone(),
                "S" => self.schema(),
                "tK" => format!("t{}", number.len()),
                other => other.to_string(),
            };
            filled += &(value + &word[name.len()..]);
        }
        filled
    }

    /// A DROP of what is there, or of much at once.
    fn drop(&mut self, there: &str) -> String {
        let there: Vec<(&str, &str)> = there.lines().filter_map(|line| line.split_once(": ")).collect();
        if self.0.below(4) == 0 || there.is_empty() {
            let template = DROP[self.0.below(DROP.len() as u64) as usize];
            return self.fill(template);
        }
        let (kind, first) = there[self.0.below(there.len() as u64) as usize];
        let alike: Vec<&str> = there.iter().filter(|(k, _)| *k == kind).map(|(_, name)| *name).collect();
        let more = (0..self.0.below(3)).map(|_| alike[self.0.below(alike.len() as u64) as usize]);
        let mut names: Vec<&str> = std::iter::once(first).chain(more).collect();
        names.dedup();
        let exists = if self.0.below(2) == 0 { "IF EXISTS s0.nowhere, " } else { "" };
        let cascade = if self.0.below(4) == 0 { "" } else { " CASCADE" };
        format!("DROP {kind} {exists}{}{cascade}", names.join(", "))
    }
}

/// What is there, as DROP takes it.
const THERE: &str =
    "SELECT coalesce(string_agg(format('%s: %s', kind, name), E'\\n' ORDER BY name, kind), '') FROM (
    SELECT CASE relkind WHEN 'v' THEN 'VIEW' WHEN 'm' THEN 'MATERIALIZED VIEW' WHEN 'S' THEN 'SEQUENCE'
      WHEN 'i' THEN 'INDEX' WHEN 'c' THEN 'TYPE' ELSE 'TABLE' END AS kind, oid::regclass::text AS name,
      relnamespace AS schema FROM pg_class WHERE relkind IN ('r', 'p', 'v', 'm', 'S', 'i', 'c')
    UNION ALL SELECT CASE typtype WHEN 'd' THEN 'DOMAIN' ELSE 'TYPE' END, oid::regtype::text, typnamespace
      FROM pg_type WHERE typtype IN ('d', 'e')
    UNION ALL SELECT 'FUNCTION', oid::regprocedure::text, pronamespace FROM pg_proc
    UNION ALL SELECT 'STATISTICS', format('%I.%I', stxnamespace::regnamespace, stxname), stxnamespace
      FROM pg_statistic_ext) o WHERE schema::regnamespace::text ~ '^s[0-9]$'";

/// Sometimes by another way than by itself.
fn wrapped(random: &mut Random, drop: &str) -> String {
    match random.below(5) {
        0 => format!("DO $do$ BEGIN {drop}; END $do$"),
        1 => format!("SELECT '; /*'; {drop} -- ;"),
        2 => format!("SAVEPOINT s; SELECT 1; {drop}; RELEASE s"),
        _ => drop.to_string(),
    }
}

fn make(sql: &mut Sql, names: &mut Names<'_>) {
    for _ in 0..4 {
        let (_, template) = MAKE[names.0.below(MAKE.len() as u64) as usize];
        // Much of it cannot be.
        let _ = sql.try_run(&names.fill(template));
    }
    if names.0.below(10) == 0 {
        let table = names.object();
        let _ = sql.try_run(&format!("ALTER TABLE {table} OWNER TO random_owner"));
    }
    for schema in 0..SCHEMAS {
        sql.run(&format!("CREATE SCHEMA IF NOT EXISTS s{schema}"));
    }
}

#[test]
fn the_list_before_a_random_drop_is_the_server_s_list_after_it() {
    let drops = std::env::var("PGWAKE_TEST_DROPS").map_or(100, |drops| drops.parse().unwrap());
    let mut random = Random::seeded();
    in_each_mode(|mode, _, sql| {
        let mut random = random.branch();
        keep_what_is_seen(sql, "table");
        keep_lists(sql, &["ALTER TABLE", "ALTER TYPE"]);
        sql.run("DO $$ BEGIN CREATE ROLE random_owner; EXCEPTION WHEN duplicate_object THEN END $$");
        sql.run("SET client_min_messages = error; GRANT USAGE ON SCHEMA kept TO random_owner");
        let (mut done, mut objects, mut tried) = (0, 0, 0);
        while done < drops {
            make(sql, &mut Names(&mut random));
            let there = sql.value(THERE);
            let drop = Names(&mut random).drop(&there);
            let command = wrapped(&mut random, &drop);
            tried += 1;
            assert!(tried < drops * 100, "hardly anything can be dropped");
            sql.run("BEGIN");
            let outcome = sql.try_run(&command);
            if let Err(error) = &outcome {
                let is_ours = error.message.contains("pgwake") || error.message.contains("handler");
                assert!(!is_ours, "{command}: {error}");
                sql.run("ROLLBACK");
                continue;
            }
            sql.run("COMMIT");
            let tables = sql.value(
                "SELECT coalesce(string_agg(split_part(text, ' ', 5), E'\\n'), '') FROM kept.list
                 WHERE phase = 'after' AND split_part(text, ' ', 2) = 'table'
                   AND split_part(text, ' ', 3) NOT IN ('column', 'constraint')",
            );
            let count = equal_lists(sql, &command);
            let mut handled: Vec<String> = seen(sql)
                .iter()
                .filter_map(|line| line.rsplit_once(' ').map(|(_, identity)| identity.into()))
                .collect();
            // Handlers are for what is temporary only where pg_temp is named.
            let dropped = tables.lines().filter(|identity| !identity.starts_with("pg_temp."));
            let mut dropped: Vec<String> = dropped.map(String::from).collect();
            handled.sort();
            dropped.sort();
            assert_eq!(handled, dropped, "{command}");
            objects += count;
            done += usize::from(count > 0);
        }
        say_loudly(&format!("{mode:?}: {done} random drops of {objects} objects, of {tried}: equal lists"));
    });
}
