//! A session that runs random transactions: statements of all kinds on few and on many rows, savepoints,
//! rollbacks, and now and then a DDL command.

use super::tables::{Column, PARTITIONS, Shape, Table};
use crate::common::Sql;
use crate::common::random::Random;
use std::sync::atomic::{AtomicBool, Ordering};

/// Keys of statements on few rows are below this number, so that they meet often.
const KEYS: u64 = 60;

/// What other writers may do to a statement: they had the key first, or moved its row to another partition,
/// or waited for one another, or altered the table since the statement was made.
const EXPECTED: [&str; 8] = ["23505", "40001", "40P01", "42703", "42804", "42701", "22P02", "42P10"];

/// Settings of a writer, on which the text of values depends.
const SETTINGS: [&str; 5] = [
    "SET DateStyle = 'German'",
    "SET TimeZone = 'Asia/Tokyo'",
    "SET IntervalStyle = 'iso_8601'",
    "SET bytea_output = 'escape'",
    "SET extra_float_digits = -5",
];

pub(crate) struct Writer<'a> {
    sql: Sql,
    random: Random,
    name: usize,
    tables: &'a [Table],
    columns: usize,
}

impl<'a> Writer<'a> {
    pub(crate) fn new(conninfo: &str, name: usize, mut random: Random, tables: &'a [Table]) -> Self {
        let mut sql = Sql::connect(conninfo);
        sql.run("SET deadlock_timeout = '20ms'");
        for setting in SETTINGS {
            if random.below(2) == 0 {
                sql.run(setting);
            }
        }
        Writer { sql, random, name, tables, columns: 0 }
    }

    /// Runs transactions until told to stop.
    pub(crate) fn run(&mut self, stop: &AtomicBool) {
        while !stop.load(Ordering::Relaxed) {
            if self.one_in(4) {
                self.statement();
            } else {
                self.transaction();
            }
        }
    }

    fn one_in(&mut self, many: u64) -> bool {
        self.random.below(many) == 0
    }

    /// Runs SQL; whether it was done.
    fn attempt(&mut self, sql: &str) -> bool {
        match self.sql.try_run(sql) {
            Ok(_) => true,
            Err(error) => {
                let code = error.sqlstate.map(|code| code.to_string()).unwrap_or_default();
                if !EXPECTED.contains(&&*code) {
                    // The others would wait for this transaction, and the test for them.
                    self.sql.run("ROLLBACK");
                    panic!("{error}: {sql}");
                }
                false
            }
        }
    }

    fn transaction(&mut self) {
        self.sql.run("BEGIN");
        let mut has_savepoint = false;
        for _ in 0..=self.random.below(6) {
            if self.one_in(4) {
                self.sql.run("SAVEPOINT s");
                has_savepoint = true;
            }
            let is_done = if self.one_in(30) { self.command() } else { self.statement() };
            if !is_done && !has_savepoint {
                break;
            }
            if !is_done || has_savepoint && self.one_in(4) {
                self.sql.run("ROLLBACK TO s");
            } else if has_savepoint && self.one_in(5) {
                self.sql.run("RELEASE s");
                has_savepoint = false;
            }
        }
        // After an error this is a rollback, too.
        let end = if self.one_in(8) { "ROLLBACK" } else { "COMMIT" };
        self.sql.run(end);
    }

    fn table(&mut self) -> &'a Table {
        &self.tables[self.random.below(self.tables.len() as u64) as usize]
    }

    /// A statement on a random table; whether it was done.
    fn statement(&mut self) -> bool {
        let table = self.table();
        let (key, others) = table.columns(&mut self.sql);
        let few = (self.random.below(KEYS), self.random.below(7));
        let few = (few.0, few.0 + few.1);
        let one = (few.0, few.0);
        let many = 300 + self.random.below(60);
        let sql = match self.random.below(1000) {
            0..3 => self.truncate(table),
            3..8 => self.insert(table, &key, &others, (0, many)),
            8..13 => self.update(table, &key, &others, (0, 1000)),
            13..20 => self.delete(table, &key, (0, 1000)),
            20..25 => self.change_keys(table, &key, (0, 250)),
            25..350 => self.insert(table, &key, &others, few),
            350..600 => self.update(table, &key, &others, one),
            600..700 => self.update(table, &key, &others, few),
            700..780 => self.delete(table, &key, few),
            780..860 => self.change_keys(table, &key, few),
            860..880 => {
                let deletion = self.delete(table, &key, (one.0 + 1, one.0 + 1));
                format!("WITH u AS ({}) {deletion}", self.update(table, &key, &others, one))
            }
            _ => self.upsert(table, &key, &others, few),
        };
        self.attempt(&sql)
    }

    fn truncate(&mut self, table: &Table) -> String {
        if table.shape == Shape::Partitioned && self.one_in(2) {
            return format!("TRUNCATE {}_{}", table.name, PARTITIONS[self.random.below(3) as usize]);
        }
        format!("TRUNCATE {}, {}", table.name, self.table().name)
    }

    /// New rows for those keys of a range that are free.
    fn insert(
        &mut self,
        table: &Table,
        key: &[Column],
        others: &[Column],
        (low, high): (u64, u64),
    ) -> String {
        let mut names: Vec<&str> = key.iter().map(|column| &*column.name).collect();
        let mut values = table.key_expressions("g");
        for column in others.iter().filter(|column| !column.is_generated) {
            names.push(&column.name);
            values.push(if column.name == "n" { "g".into() } else { self.value(&column.kind) });
        }
        format!(
            "INSERT INTO {name} ({}) SELECT {} FROM generate_series({low}, {high}) g
             WHERE NOT EXISTS (SELECT FROM {name} WHERE {})",
            names.join(", "),
            values.join(", "),
            equals(table, key, "g"),
            name = table.name,
        )
    }

    fn upsert(&mut self, table: &Table, key: &[Column], others: &[Column], range: (u64, u64)) -> String {
        if matches!(table.shape, Shape::Deferrable | Shape::Keyless) {
            return self.update(table, key, others, range);
        }
        let insert = self.insert(table, key, others, range);
        let (insert, _) = insert.split_once("WHERE NOT EXISTS").unwrap();
        let names: Vec<&str> = key.iter().map(|column| &*column.name).collect();
        let settable = others.iter().filter(|column| !column.is_generated);
        let set: Vec<String> = settable.map(|column| format!("{0} = excluded.{0}", column.name)).collect();
        format!("{insert} ON CONFLICT ({}) DO UPDATE SET {}", names.join(", "), set.join(", "))
    }

    /// Other values in some of the columns.
    fn update(&mut self, table: &Table, key: &[Column], others: &[Column], range: (u64, u64)) -> String {
        let mut set = Vec::new();
        for column in others.iter().filter(|column| !column.is_generated) {
            if self.one_in(3) {
                let value = if column.name == "n" { "n + 1".into() } else { self.value(&column.kind) };
                set.push(format!("{} = {value}", column.name));
            }
        }
        if set.is_empty() {
            set.push(format!("{0} = {0}", key[0].name));
        }
        format!("UPDATE {} SET {} WHERE {}", table.name, set.join(", "), within(table, key, range))
    }

    fn delete(&mut self, table: &Table, key: &[Column], range: (u64, u64)) -> String {
        format!("DELETE FROM {} WHERE {}", table.name, within(table, key, range))
    }

    /// Other keys for the rows of a range: free ones, or, where the constraint is checked at the end of the
    /// statement, the keys of one another.
    fn change_keys(&mut self, table: &Table, key: &[Column], (low, high): (u64, u64)) -> String {
        let (to, condition) = if table.shape == Shape::Deferrable && self.one_in(2) {
            (format!("{low} + {high} - g"), String::new())
        } else {
            let by = [1000, KEYS / 2][self.random.below(2) as usize];
            let to = if self.one_in(2) { format!("g + {by}") } else { format!("abs(g - {by})") };
            let condition =
                format!(" AND NOT EXISTS (SELECT FROM {} WHERE {})", table.name, equals(table, key, "s.b"));
            (to, condition)
        };
        let values = table.key_expressions("s.b");
        let set: Vec<String> =
            key.iter().zip(values).map(|(column, value)| format!("{} = {value}", column.name)).collect();
        let current: Vec<String> = key.iter().map(|column| format!("t.{}", column.name)).collect();
        format!(
            "UPDATE {} t SET {} FROM (SELECT g AS a, {to} AS b FROM generate_series({low}, {high}) g) s
             WHERE ({}) = ({}){condition}",
            table.name,
            set.join(", "),
            current.join(", "),
            table.key_expressions("s.a").join(", "),
        )
    }

    /// A DDL command, and its line in the log; whether it was done.
    fn command(&mut self) -> bool {
        let table = self.table();
        let (mut key, others) = table.columns(&mut self.sql);
        self.columns += 1;
        let fresh = format!("w{}_{}", self.name, self.columns);
        let is_free = |column: &Column| !column.is_generated && column.name != "n";
        let mut free: Vec<Column> = others.into_iter().filter(is_free).collect();
        let kind = self.random.below(6);
        // A key's columns are renamed and widened, too.
        if table.shape != Shape::Keyless && (kind == 1 || kind == 2 && table.shape != Shape::Partitioned) {
            free.append(&mut key);
        }
        let mut column = match free.len() as u64 {
            0 => None,
            many => Some(free.swap_remove(self.random.below(many) as usize)),
        };
        if matches!(kind, 2 | 3) {
            column = column.filter(|column| column.kind == "integer");
        }
        let (alter, command, name, argument) = match (kind, column) {
            (1, Some(c)) => {
                (format!("RENAME {} TO {fresh}", c.name), "rename", c.name, format!("\"{fresh}\""))
            }
            (2, Some(c)) => (format!("ALTER {} TYPE bigint", c.name), "bigint", c.name, "null".into()),
            (3, Some(c)) => (format!("ALTER {} TYPE text", c.name), "text", c.name, "null".into()),
            (4 | 5, Some(c)) => (format!("DROP {}", c.name), "drop", c.name, "null".into()),
            _ => {
                let (kind, default, argument) = match self.random.below(3) {
                    0 => ("int", "", "null"),
                    1 => ("int", "DEFAULT 7", "7"),
                    _ => ("text", "DEFAULT 'née'", "\"née\""),
                };
                (format!("ADD {fresh} {kind} {default}"), "add", fresh, argument.into())
            }
        };
        self.attempt(&format!(
            "ALTER TABLE {0} {alter};
             INSERT INTO ddl_log (relation, command, name, argument)
               VALUES ('{0}', '{command}', '{name}', '{argument}')",
            table.name
        ))
    }

    /// A value for a column of a type, as SQL.
    fn value(&mut self, kind: &str) -> String {
        if self.one_in(6) {
            return "NULL".into();
        }
        let (n, m) = (self.random.below(1000), self.random.below(28));
        let text = match kind {
            "integer" => format!("{}", n as i64 - 500),
            "bigint" => format!("{}", 9_007_199_254_740_492 + n),
            "text" if n < 60 => return LONG_TEXT.into(),
            "text" => format!("a''b\\\"{n}\té\n"),
            "numeric" if m == 0 => "NaN".into(),
            "numeric" => format!("123456789012345678901234567890.{n}0"),
            "timestamp with time zone" if m == 0 => "infinity".into(),
            "timestamp with time zone" => format!("2026-01-{} 12:00:00.{n}+05:30", m + 1),
            "date" => format!("2026-02-{}", m + 1),
            "json" | "jsonb" => format!("{{\"a\": [1, {n}, null], \"b\": \"\\\"\", \"c\": {m}.5}}"),
            "bytea" => format!("\\x00ff{n:04}"),
            "integer[]" => format!("{{1,NULL,{n}}}"),
            "text[]" => format!("{{a,\"b,{n}\",\"\\\"\",NULL}}"),
            "double precision" => ["0.1", "1e300", "-0", "NaN", "12345.678901234567"][n as usize % 5].into(),
            "boolean" => ["true", "false"][n as usize % 2].into(),
            "interval" => format!("{m} days 04:05:06.{n}"),
            other => panic!("no value for {other}"),
        };
        format!("'{text}'::{kind}")
    }
}

/// Too much for its row: it is stored beside it, and an update of other columns does not touch it.
const LONG_TEXT: &str = "(SELECT string_agg(md5(random()::text || i), '') FROM generate_series(1, 100) i)";

/// Whether the key of a row is that of a number.
fn equals(table: &Table, key: &[Column], number: &str) -> String {
    // Rows without a key may be there repeatedly.
    if table.shape == Shape::Keyless {
        return "false".into();
    }
    let names: Vec<&str> = key.iter().map(|column| &*column.name).collect();
    format!("({}) = ({})", names.join(", "), table.key_expressions(number).join(", "))
}

/// Whether the key of a row is in a range.
fn within(table: &Table, key: &[Column], (low, high): (u64, u64)) -> String {
    let names: Vec<&str> = key.iter().map(|column| &*column.name).collect();
    let keys = table.key_expressions("g").join(", ");
    format!("({}) IN (SELECT {keys} FROM generate_series({low}, {high}) g)", names.join(", "))
}
