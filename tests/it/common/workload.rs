//! A workload on a database, read by several streams at once: at its end, the shadow copy that each has made
//! is compared with what the server says of its tables, value by value.

use super::Sql;
use super::log::{Stream, database, major};
use super::shadow::{Row, Shadow};
use pgwake::pq::ResultStatus;
use pgwake::{StreamOptions, Streaming};
use serde_json::Value;

/// The types whose binary form the stream turns into text: all that it says are told as in text.
const KNOWN_IN_BINARY: [u32; 38] = [
    16, 17, 18, 19, 20, 21, 22, 23, 25, 26, 28, 29, 30, 114, 142, 650, 700, 701, 705, 774, 829, 869, 1042,
    1043, 1082, 1083, 1114, 1184, 1186, 1266, 1560, 1562, 1700, 1790, 2950, 3220, 3802, 5069,
];

/// What is set where values are compared as text, as streams set it.
const TEXT_SETTINGS: &str = "SELECT set_config('client_encoding', CASE current_setting('server_encoding')
      WHEN 'SQL_ASCII' THEN 'SQL_ASCII' ELSE 'UTF8' END, false); SET datestyle = ISO;
      SET intervalstyle = postgres;
    SET extra_float_digits = 3; SET bytea_output = hex; SET timezone = UTC";

struct Reader {
    stream: Stream,
    shadow: Shadow,
    binary: bool,
    has_snapshot: bool,
    streaming: Streaming,
}

pub(crate) struct Workload {
    pub(crate) sql: Sql,
    pub(crate) conninfo: String,
    options: StreamOptions,
    readers: Vec<Reader>,
    fences: u64,
}

/// One row of what the server says of a column of a published table.
struct Column {
    name: String,
    /// The type, or that below a domain.
    type_oid: u32,
    element: u32,
    is_array: bool,
    /// What gives its binary form, of a type that has one.
    send: Option<String>,
}

impl Workload {
    /// A database with a publication `p` of all tables, unless the setup makes another one.
    pub(crate) fn new(setup: &str) -> Self {
        Workload::in_database("", setup)
    }

    pub(crate) fn in_database(encoding: &str, setup: &str) -> Self {
        let (conninfo, mut sql) = database(encoding);
        sql.run("SET client_encoding = UTF8; CREATE TABLE fence (id int PRIMARY KEY)");
        sql.run("CREATE TABLE filler (id serial PRIMARY KEY, v text)");
        sql.run("CREATE TABLE ddl (id serial PRIMARY KEY, command json)");
        sql.run(setup);
        if sql.value("SELECT count(*) FROM pg_publication") == "0" {
            sql.run("CREATE PUBLICATION p FOR ALL TABLES");
        }
        if major() >= 16 {
            // Each change of a transaction is sent by itself, where it is streamed at all.
            let database = sql.value("SELECT current_database()");
            sql.run(&format!(
                "ALTER DATABASE {database} SET debug_logical_replication_streaming = immediate"
            ));
        }
        let options = StreamOptions::new().publication("p").messages(true).transactions(true);
        Workload { sql, conninfo, options, readers: Vec::new(), fences: 0 }
    }

    /// Has transactions streamed once they are large, not change by change: in that way, PostgreSQL 17 and 18
    /// may fail where DDL was rolled back ("pg_attribute catalog is missing 1 attribute(s)").
    pub(crate) fn in_large_parts(mut self) -> Self {
        let database = self.sql.value("SELECT current_database()");
        self.sql.run(&format!("ALTER DATABASE {database} RESET ALL"));
        self
    }

    /// What all streams are asked for besides.
    pub(crate) fn with(mut self, options: impl Fn(StreamOptions) -> StreamOptions) -> Self {
        self.options = options(self.options.clone());
        self
    }

    /// Opens streams of each kind.
    pub(crate) fn open(&mut self) {
        for streaming in [Streaming::Off, Streaming::On, Streaming::Early] {
            for binary in [false, true] {
                self.open_one(streaming, binary, false);
            }
        }
    }

    /// Opens streams that begin with the rows that are there.
    pub(crate) fn open_with_snapshot(&mut self) {
        self.open_one(Streaming::On, true, true);
        self.open_with_snapshot_in_text();
    }

    /// The same, but for values that are told in another way where changes come in binary.
    pub(crate) fn open_with_snapshot_in_text(&mut self) {
        self.open_one(Streaming::Off, false, true);
        self.open_one(Streaming::Early, false, true);
        // As long as rows are copied, a TRUNCATE would wait.
        self.catch_up();
    }

    fn open_one(&mut self, streaming: Streaming, binary: bool, has_snapshot: bool) {
        let form = if binary { "binary" } else { "text" };
        let snapshot = if has_snapshot { ", snapshot" } else { "" };
        let options = self.options.clone().streaming(streaming).binary(binary).snapshot(has_snapshot);
        let stream = Stream::open(&self.conninfo, options.memory_max(100_000));
        let shadow = Shadow::new(&format!("streaming {streaming:?}, {form}{snapshot}"));
        self.readers.push(Reader { stream, shadow, binary, has_snapshot, streaming });
    }

    pub(crate) fn run(&mut self, sql: &str) {
        self.sql.run(sql);
    }

    /// SQL that writes so much that the transaction is streamed.
    pub(crate) fn fill() -> String {
        "INSERT INTO filler (v) SELECT repeat('x', 200) FROM generate_series(1, 500); ".into()
    }

    /// SQL that tells shadows of a DDL command.
    pub(crate) fn ddl(command: &Value) -> String {
        let command = command.to_string().replace('\'', "''");
        format!("INSERT INTO ddl (command) VALUES ('{command}'); ")
    }

    /// All streams take what was committed so far.
    pub(crate) fn catch_up(&mut self) {
        self.fences += 1;
        self.sql.run(&format!("INSERT INTO fence VALUES ({})", self.fences));
        for Reader { stream, shadow, .. } in &mut self.readers {
            let is_there =
                |shadow: &Shadow| shadow.rows("public.fence").iter().any(|row| row["id"] == self.fences);
            let mut since = std::time::Instant::now();
            while !is_there(shadow) {
                let before = shadow.events.len();
                shadow.take(stream.next());
                if shadow.events.len() != before {
                    since = std::time::Instant::now();
                }
                assert!(since.elapsed() < super::PATIENCE, "nothing comes");
            }
        }
    }

    /// All shadows are as the tables are.
    pub(crate) fn check(&mut self) {
        self.catch_up();
        self.sql.run(TEXT_SETTINGS);
        for table in self.tables() {
            let [text, binary] = [false, true].map(|binary| self.rows(&table, binary));
            for reader in &self.readers {
                let [first, schema] =
                    [&self.readers[0], reader].map(|reader| reader.shadow.schema(&table.name));
                // A snapshot tells the columns of tables without a row, too.
                assert!(
                    first == schema || first.is_none() || schema.is_none(),
                    "{}: {schema:?}",
                    reader.shadow
                );
                let expected = if reader.binary { &binary } else { &text };
                assert_same(&reader.shadow, &table.name, expected);
            }
        }
        let is_whole = |reader: &&Reader| !reader.has_snapshot && reader.streaming != Streaming::Early;
        let changes = |binary| {
            self.readers
                .iter()
                .filter(is_whole)
                .filter(move |r| r.binary == binary)
                .map(|r| &r.shadow.changes)
        };
        for binary in [false, true] {
            let mut all = changes(binary);
            if let (Some(off), Some(on)) = (all.next(), all.next()) {
                for (off, on) in off.iter().zip(on) {
                    assert_eq!(off, on, "streamed, a change is told as otherwise");
                }
                assert_eq!(off.len(), on.len());
            }
        }
    }

    /// The same, and transactions were streamed.
    pub(crate) fn check_streamed(&mut self) {
        self.check();
        for reader in &self.readers {
            let is_early = reader.streaming == Streaming::Early;
            assert_eq!(reader.shadow.early > 0, is_early, "no transaction was streamed");
            assert_eq!(reader.shadow.open_transactions(), 0, "{}", reader.shadow);
        }
    }

    /// The events of each stream.
    pub(crate) fn shadows(&self) -> impl Iterator<Item = &Shadow> {
        self.readers.iter().map(|reader| &reader.shadow)
    }
}

/// What was prepared holds up every slot that is made on the server.
impl Drop for Workload {
    fn drop(&mut self) {
        let open = "SELECT gid FROM pg_prepared_xacts WHERE database = current_database()";
        let mut sql = Sql::connect(&self.conninfo);
        for gid in query(&mut sql, open).into_iter().flatten().flatten() {
            sql.run(&format!("ROLLBACK PREPARED '{}'", gid.replace('\'', "''")));
        }
    }
}

struct Table {
    name: String,
    from: String,
    columns: Vec<Column>,
}

impl Workload {
    fn tables(&mut self) -> Vec<Table> {
        let (filter, columns) = match major() {
            ..15 => ("NULL", "a.attgenerated = ''"),
            15..18 => ("p.rowfilter", "a.attname = ANY (p.attnames) AND a.attgenerated = ''"),
            _ => ("p.rowfilter", "a.attname = ANY (p.attnames)"),
        };
        let sql = format!(
            "WITH RECURSIVE base (oid, base) AS (
               SELECT oid, oid FROM pg_type UNION ALL
               SELECT b.oid, t.typbasetype FROM base b JOIN pg_type t ON t.oid = b.base WHERE t.typtype = 'd')
             SELECT p.schemaname || '.' || p.tablename,
                    CASE c.relkind WHEN 'p' THEN '' ELSE 'ONLY ' END || c.oid::regclass
                      || coalesce(' WHERE ' || {filter}, ''),
                    a.attname, t.oid, t.typelem, t.typcategory = 'A' AND t.typelem <> 0,
                    quote_ident(ns.nspname) || '.' || quote_ident(s.proname)
             FROM pg_publication_tables p
             JOIN pg_namespace n ON n.nspname = p.schemaname
             JOIN pg_class c ON c.relnamespace = n.oid AND c.relname = p.tablename
             JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped AND {columns}
             JOIN base b ON b.oid = a.atttypid
             JOIN pg_type t ON t.oid = b.base AND t.typtype <> 'd'
             LEFT JOIN pg_type e ON e.oid = t.typelem
             LEFT JOIN pg_proc s ON s.oid = CASE
             WHEN t.typcategory = 'A' AND t.oid < 16384 AND e.oid IS NOT NULL
                                               THEN e.typsend ELSE t.typsend END
             LEFT JOIN pg_namespace ns ON ns.oid = s.pronamespace
             ORDER BY 1, a.attnum"
        );
        let mut tables: Vec<Table> = Vec::new();
        for row in query(&mut self.sql, &sql) {
            let text = |index: usize| row[index].clone().unwrap_or_default();
            if tables.last().is_none_or(|table| table.name != text(0)) {
                tables.push(Table { name: text(0), from: text(1), columns: Vec::new() });
            }
            tables.last_mut().unwrap().columns.push(Column {
                name: text(2),
                type_oid: text(3).parse().unwrap(),
                element: text(4).parse().unwrap(),
                is_array: text(5) == "t",
                send: row[6].clone(),
            });
        }
        tables
    }

    fn rows(&mut self, table: &Table, binary: bool) -> Vec<Row> {
        let columns: Vec<_> = table.columns.iter().map(|column| column.select(binary)).collect();
        let sql = format!("SELECT {} FROM {}", columns.join(", "), table.from);
        let rows = query(&mut self.sql, &sql);
        let value = |column: &Column, text: Option<String>| match text {
            None => Value::Null,
            Some(text) => column.value(&text),
        };
        rows.into_iter()
            .map(|row| {
                table.columns.iter().zip(row).map(|(c, text)| (c.name.clone(), value(c, text))).collect()
            })
            .collect()
    }
}

impl Column {
    const BUILT_IN_BELOW: u32 = 16384;

    /// An array that the stream tells as one of JSON.
    fn is_json_array(&self) -> bool {
        self.is_array && self.type_oid < Self::BUILT_IN_BELOW && !matches!(self.type_oid, 22 | 30)
    }

    /// What gives its text: that of the type's output function, which is not always that of a cast.
    fn select(&self, binary: bool) -> String {
        let name = format!("\"{}\"", self.name.replace('"', "\"\""));
        let known = if self.is_json_array() { self.element } else { self.type_oid };
        let send = self.send.as_ref().filter(|_| binary && !KNOWN_IN_BINARY.contains(&known));
        match (self.is_json_array(), send) {
            (false, None) => name,
            (false, Some(send)) => format!("'\\x' || encode({send}({name}), 'hex')"),
            (true, None) => format!("to_json({name}::text[])"),
            (true, Some(send)) => format!(
                "CASE WHEN {name} IS NOT NULL THEN (
                   SELECT coalesce(json_agg('\\x' || encode({send}(e), 'hex')), '[]')
                   FROM unnest({name}) e) END"
            ),
        }
    }

    /// The JSON of a text that the server gave.
    fn value(&self, text: &str) -> Value {
        if self.is_json_array() {
            return elements(self.element, serde_json::from_str(text).unwrap());
        }
        scalar(self.type_oid, text)
    }
}

fn elements(oid: u32, value: Value) -> Value {
    match value {
        Value::Array(values) => values.into_iter().map(|value| elements(oid, value)).collect(),
        Value::String(text) => scalar(oid, &text),
        null => null,
    }
}

fn scalar(oid: u32, text: &str) -> Value {
    const EXACT_MAX: u64 = 1 << 53;
    let json = || serde_json::from_str::<Value>(text).ok();
    match oid {
        16 => (text == "t" || text == "true").into(),
        // Numbers of JSON, but for infinity and the like.
        21 | 23 | 700 | 701 => json().unwrap_or_else(|| text.into()),
        20 if text.parse::<i64>().unwrap().unsigned_abs() <= EXACT_MAX => json().unwrap(),
        114 | 3802 => json().unwrap(),
        _ => text.into(),
    }
}

/// All rows of an answer, as text. What is not UTF-8 is shown as streams show it.
pub(crate) fn query(sql: &mut Sql, command: &str) -> Vec<Vec<Option<String>>> {
    sql.0.send_query(command).unwrap();
    let mut rows = Vec::new();
    while let Some(result) = sql.0.result() {
        assert!(result.status() != ResultStatus::Failed, "{command}: {}", result.error());
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        for row in 0..result.rows() {
            rows.push((0..result.columns()).map(|column| result.value(row, column).map(text)).collect());
        }
    }
    rows
}

fn assert_same(shadow: &Shadow, table: &str, expected: &[Row]) {
    let sorted = |rows: Vec<&Row>| {
        let mut rows: Vec<_> = rows.iter().map(|row| serde_json::to_string(row).unwrap()).collect();
        rows.sort();
        rows
    };
    let [actual, expected] = [sorted(shadow.rows(table)), sorted(expected.iter().collect())];
    if actual != expected {
        let without = |rows: &[String], others: &[String]| -> Vec<String> {
            let missing = rows.iter().filter(|row| others.binary_search(row).is_err());
            missing
                .take(5)
                .map(|row| row.chars().rev().take(500).collect::<Vec<_>>().iter().rev().collect())
                .collect()
        };
        let [extra, missing] = [without(&actual, &expected), without(&expected, &actual)];
        let [has, should] = [actual.len(), expected.len()];
        panic!(
            "{shadow}: {table} has {has} rows instead of {should}, {extra:#?} too many, {missing:#?} missing"
        );
    }
}
