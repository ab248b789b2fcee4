//! A database with the schema `pgwake` in it, and a reader of its outbox in plain SQL.

use super::{PATIENCE, Sql, server};
use serde_json::Value;
use std::sync::Once;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Instant;

/// A database of its own, with the schema in it.
pub(crate) fn database(options: &str) -> (String, Sql) {
    static COUNTER: AtomicU32 = AtomicU32::new(0);
    static TEMPLATE: Once = Once::new();
    let name = format!("outbox_{}", COUNTER.fetch_add(1, Ordering::Relaxed));
    if !options.is_empty() {
        return installed(&name, options);
    }
    TEMPLATE.call_once(|| drop(installed("has_schema", "")));
    let (conninfo, mut sql) = created(&name, "TEMPLATE has_schema");
    // As if it were no copy, which makes a new beginning.
    sql.run("UPDATE pgwake.installation SET identity = pgwake.identity()");
    (conninfo, sql)
}

fn installed(name: &str, options: &str) -> (String, Sql) {
    let (conninfo, mut sql) = created(name, options);
    sql.run(&pgwake::install::install());
    (conninfo, sql)
}

fn created(name: &str, options: &str) -> (String, Sql) {
    Sql::connect(&server().conninfo()).run(&format!("CREATE DATABASE {name} {options}"));
    let conninfo = server().conninfo().replace("dbname=postgres", &format!("dbname={name}"));
    let sql = Sql::connect(&conninfo);
    (conninfo, sql)
}

/// A role of this database, and a session of its own; it owns a schema of its name.
pub(crate) fn role(conninfo: &str, sql: &mut Sql, kind: &str) -> (String, Sql) {
    let name = sql.value(&format!("SELECT '{kind}_' || current_database()"));
    sql.run(&format!("CREATE ROLE {name} LOGIN; CREATE SCHEMA {name} AUTHORIZATION {name}"));
    let session = Sql::connect(&conninfo.replace("user=postgres", &format!("user={name}")));
    (name, session)
}

/// Reads the outbox as README.md beside the scripts says.
pub(crate) struct Reader {
    pub(crate) sql: Sql,
    name: String,
    position: String,
    pub(crate) state: u64,
    pub(crate) gaps: Vec<String>,
}

impl Reader {
    pub(crate) fn open(conninfo: &str, name: &str) -> Self {
        let mut sql = Sql::connect(conninfo);
        let opened = format!("SELECT position FROM pgwake.open_consumer('{name}')");
        // The backend of a reader that was dropped may not have ended yet.
        let started = Instant::now();
        while sql.try_run(&opened).is_err_and(|error| error.message.contains("in use by backend")) {
            assert!(started.elapsed() < PATIENCE, "{name} stays in use");
        }
        let position = sql.value(&opened);
        Reader { sql, name: name.into(), position, state: 0, gaps: Vec::new() }
    }

    /// One page, acknowledged.
    pub(crate) fn page(&mut self, rows_max: usize) -> Vec<Value> {
        let page = self.sql.value(&format!(
            "WITH page AS MATERIALIZED (SELECT * FROM pgwake.read('{}', '{}', {rows_max}))
             SELECT json_build_object('changes', (SELECT coalesce(json_agg(body::json ORDER BY number), '[]')
                 FROM page WHERE kind = 'change'),
               'gaps', (SELECT coalesce(json_agg(body), '[]') FROM page WHERE kind = 'gap'),
               'position', (SELECT body FROM page WHERE kind = 'end'),
               'state', (SELECT number FROM page WHERE kind = 'end'))",
            self.name, self.position
        ));
        let page: Value = serde_json::from_str(&page).unwrap();
        self.position = page["position"].as_str().unwrap().into();
        self.state = page["state"].as_u64().unwrap();
        self.gaps.extend(page["gaps"].as_array().unwrap().iter().map(|gap| gap.as_str().unwrap().into()));
        self.sql.run(&format!("SELECT pgwake.acknowledge('{}', '{}')", self.name, self.position));
        page["changes"].as_array().unwrap().clone()
    }

    /// All that is there, without what differs from run to run.
    pub(crate) fn all(&mut self) -> Vec<Value> {
        let mut changes = self.all_raw();
        for change in &mut changes {
            let fields = change.as_object_mut().unwrap();
            assert!(fields.remove("xid").unwrap().as_u64().is_some());
            assert!(fields.remove("id").unwrap().as_u64().is_some());
            assert_eq!(fields.remove("transport").unwrap(), "outbox");
            assert_eq!(fields.remove("schema").unwrap(), "public");
        }
        changes
    }

    /// All that is there.
    pub(crate) fn all_raw(&mut self) -> Vec<Value> {
        let mut changes = self.page(1000);
        while self.state == 1 {
            changes.extend(self.page(1000));
        }
        changes
    }

    /// Where it stands.
    pub(crate) fn position(&self) -> &str {
        &self.position
    }
}
