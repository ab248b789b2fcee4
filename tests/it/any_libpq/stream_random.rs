//! Row changes from the log, under a random workload: several writers, transactions within transactions, DDL,
//! and streams that begin in the middle of it. Copies of the tables built from the events are as the tables
//! are.

use crate::common::Sql;
use crate::common::log::major;
use crate::common::random::Random;
use crate::common::workload::Workload;
use serde_json::json;

const SETUP: &str = "
    CREATE TABLE key (id int PRIMARY KEY, n int, v text, big text);
    CREATE TABLE whole (id int, n int, v text, big text); ALTER TABLE whole REPLICA IDENTITY FULL;
    CREATE TABLE by_index (id int, n int NOT NULL, v text, big text);
    CREATE UNIQUE INDEX by_index_n ON by_index (n);
    ALTER TABLE by_index REPLICA IDENTITY USING INDEX by_index_n;
    CREATE TABLE parts (id int PRIMARY KEY, n int, v text, big text) PARTITION BY RANGE (id);
    CREATE TABLE parts1 PARTITION OF parts FOR VALUES FROM (MINVALUE) TO (300);
    CREATE TABLE parts2 PARTITION OF parts DEFAULT; ALTER TABLE parts2 REPLICA IDENTITY FULL;
    ALTER TABLE key ALTER big SET STORAGE EXTERNAL; ALTER TABLE whole ALTER big SET STORAGE EXTERNAL;
    ALTER TABLE parts ALTER big SET STORAGE EXTERNAL;
    CREATE PUBLICATION p FOR ALL TABLES WITH (publish_via_partition_root)";

const TABLES: [&str; 4] = ["key", "whole", "by_index", "parts"];

struct Writer {
    sql: Sql,
    random: Random,
    number: u64,
    with_ddl: bool,
    columns: u32,
    /// How many savepoints are open.
    depth: u32,
}

impl Writer {
    fn run(mut self, transactions: u32) {
        self.sql.run("SET lock_timeout = '200ms'; SET deadlock_timeout = '50ms'");
        for number in 0..transactions {
            self.sql.run("BEGIN");
            self.depth = 0;
            for _ in 0..=self.random.below(8) {
                let step = self.step();
                if self.sql.try_run(&step).is_err() {
                    let undo = if self.depth > 0 {
                        format!("ROLLBACK TO s{}", self.depth)
                    } else {
                        "ROLLBACK; BEGIN".into()
                    };
                    self.sql.run(&undo);
                }
            }
            self.end(number);
        }
    }

    fn end(&mut self, number: u32) {
        match self.random.below(10) {
            0 => self.sql.run("ROLLBACK"),
            1 | 2 => {
                let gid = format!("{}_{}_{number}", self.sql.value("SELECT current_database()"), self.number);
                self.sql.run(&format!("PREPARE TRANSACTION '{gid}'"));
                let end = if self.random.below(3) == 0 { "ROLLBACK" } else { "COMMIT" };
                self.sql.run(&format!("{end} PREPARED '{gid}'"));
            }
            _ => self.sql.run("COMMIT"),
        }
    }

    fn step(&mut self) -> String {
        let table = TABLES[self.random.below(4) as usize];
        let [first, modulus, remainder] = [600, 12, 12].map(|below| self.random.below(below));
        let last = first + [5, 40, 250][self.random.below(3) as usize];
        let some = format!("id % ({modulus} + 1) = {remainder}");
        match self.random.below(16) {
            0..=3 => self.insert(table, first, last),
            4 => format!("UPDATE {table} SET v = v || 'u{first}' WHERE {some}"),
            5 => format!("UPDATE {table} SET n = -n, v = NULL WHERE {some} AND n % 5 = 0"),
            6 => format!(
                "UPDATE {table} SET id = id + 7 * {first} WHERE {some} AND id BETWEEN {first} AND {last}"
            ),
            7 => format!(
                "UPDATE {table} SET big = repeat('b{first}', 900) WHERE id BETWEEN {first} AND {first} + 3"
            ),
            8 => format!("DELETE FROM {table} WHERE {some}"),
            9 | 10 => {
                self.depth += 1;
                format!("SAVEPOINT s{}", self.depth)
            }
            11 if self.depth > 0 => {
                // Those that were made behind it go with what is rolled back.
                self.depth = 1 + self.random.below(self.depth.into()) as u32;
                format!("ROLLBACK TO s{}", self.depth)
            }
            12 if self.depth > 0 => {
                self.depth -= 1;
                format!("RELEASE s{}", self.depth + 1)
            }
            13 if self.with_ddl => self.change_columns(table),
            14 if self.with_ddl && remainder < 4 => format!("TRUNCATE {table}"),
            _ => format!("SELECT pg_logical_emit_message(false, 'other', 'm{first}')"),
        }
    }

    fn insert(&mut self, table: &str, first: u64, last: u64) -> String {
        let conflict = match table {
            "whole" => "",
            "by_index" => "ON CONFLICT (n) DO UPDATE SET v = by_index.v || '+', id = excluded.id",
            _ => "ON CONFLICT (id) DO UPDATE SET v = excluded.v || '+', n = excluded.n",
        };
        let big = if self.random.below(4) == 0 { "repeat(md5(i::text), 80)" } else { "NULL" };
        format!(
            "INSERT INTO {table} (id, n, v, big) SELECT i, i * 10 + {}, repeat('x', i % 300), {big}
             FROM generate_series({first}, {last}) AS i {conflict}",
            self.number
        )
    }

    /// A column more, or less, or of another name; shadows are told in the same transaction.
    fn change_columns(&mut self, table: &str) -> String {
        // Savepoints that came before keep their names.
        if self.sql.try_run(&format!("LOCK TABLE {table} IN ACCESS EXCLUSIVE MODE")).is_err() {
            return "SELECT 1/0".into();
        }
        self.columns += 1;
        let new = format!("x{}_{}_{}", self.number, self.columns, u8::from(self.with_ddl));
        let found = self.sql.value(&format!(
            "SELECT coalesce(min(attname::text), '') FROM pg_attribute
             WHERE attrelid = '{table}'::regclass AND attname LIKE 'x%' AND NOT attisdropped"
        ));
        let public = format!("public.{table}");
        let (ddl, told) = match (self.random.below(3), &*found) {
            (0, found) if !found.is_empty() => {
                (format!("DROP {found}"), json!({"table": public, "drop": found}))
            }
            (1, found) if !found.is_empty() => {
                (format!("RENAME {found} TO {new}"), json!({"table": public, "rename": [found, new]}))
            }
            _ => (format!("ADD {new} int DEFAULT 5"), json!({"table": public, "add": [new, 5]})),
        };
        format!("ALTER TABLE {table} {ddl}; {}", Workload::ddl(&told))
    }
}

fn write(load: &Workload, random: &mut Random, with_ddl: bool) -> Vec<std::thread::JoinHandle<()>> {
    static ROUND: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(0);
    let start = |_| {
        let sql = Sql::connect(&load.conninfo);
        let number = ROUND.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let random = random.branch();
        let writer = Writer { sql, random, number, with_ddl, columns: 0, depth: 0 };
        std::thread::spawn(move || writer.run(20))
    };
    (0..3).map(start).collect()
}

#[test]
fn whatever_is_written_shadows_are_as_the_tables_are() {
    let mut random = Random::seeded();
    let mut load = Workload::new(SETUP).in_large_parts().with(|options| options.two_phase(major() >= 15));
    load.open();
    let join =
        |writers: Vec<std::thread::JoinHandle<()>>| writers.into_iter().for_each(|w| w.join().unwrap());
    join(write(&load, &mut random, true));
    load.check();
    let writers = write(&load, &mut random, false);
    load.open_with_snapshot();
    join(writers);
    join(write(&load, &mut random, true));
    load.check_streamed();
}
