//! Tables that differ in nothing but their triggers, in a schema of their own: made on a server that may be
//! somebody's, and taken away from it without a trace.

use super::super::{Failure, query};
use super::target::connect;
use clap::ValueEnum;
use pgwake::install;
use pgwake::pq::Connection;

/// Each table's, so that statements of up to this many rows hit different ones.
pub(super) const TABLE_ROWS: u32 = 10_000;

/// How a table is watched.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Variant {
    /// Not at all: what the others are compared with
    None,
    /// By the trigger that everybody writes first: pg_notify of each row as JSON
    Naive,
    /// By `pgwake watch`
    Outbox,
    /// The same in the server's library pgwake, where it has it
    #[value(name = "outbox+library")]
    OutboxLibrary,
    /// By the transport of that name: one notification per row
    Notify,
    /// By the transport of that name: logical messages
    Wal,
    /// The same in the server's library pgwake, where it has it
    #[value(name = "wal+library")]
    WalLibrary,
}

impl Variant {
    pub(super) fn name(self) -> &'static str {
        match self {
            Variant::None => super::report::NO_TRIGGER.name,
            Variant::Naive => "naive",
            Variant::Outbox => "outbox",
            Variant::OutboxLibrary => "outbox+library",
            Variant::Notify => "notify",
            Variant::Wal => "wal",
            Variant::WalLibrary => "wal+library",
        }
    }

    /// What puts its triggers on `$TABLE`.
    fn setup(self) -> &'static str {
        match self {
            Variant::None => "",
            Variant::Naive => {
                "CREATE FUNCTION $TABLE_notify() RETURNS trigger LANGUAGE plpgsql AS
                   'BEGIN PERFORM pg_notify(''$CHANNEL'', row_to_json(NEW)::text); RETURN NULL; END';
                 CREATE TRIGGER naive AFTER UPDATE ON $TABLE FOR EACH ROW EXECUTE FUNCTION $TABLE_notify()"
            }
            Variant::Outbox | Variant::OutboxLibrary => "SELECT pgwake.watch_table('$TABLE')",
            Variant::Notify => {
                "SELECT pgwake.watch_table('$TABLE', transport => 'notify', channel => '$CHANNEL')"
            }
            Variant::Wal | Variant::WalLibrary => {
                "SELECT pgwake.watch_table('$TABLE', transport => 'wal', channel => '$CHANNEL')"
            }
        }
    }

    fn needs_pgwake(self) -> bool {
        !matches!(self, Variant::None | Variant::Naive)
    }

    pub(super) fn needs_library(self) -> bool {
        matches!(self, Variant::OutboxLibrary | Variant::WalLibrary)
    }
}

/// A table for each variant, as far as they have been made.
pub(super) struct Variants {
    pub(super) all: Vec<Variant>,
    /// What could not be taken away, and why.
    pub(super) left_behind: Option<String>,
    conninfo: String,
    /// Where the tables are; their channel has the same name.
    schema: String,
    /// The schema pgwake was not there, and is ours to take away.
    has_installed: bool,
    /// Holds a lock, for two of us in one database would take each other for somebody who uses it.
    lock: Option<Connection>,
}

impl Variants {
    /// Nothing is made yet. The schema must be one that nobody else has.
    pub(super) fn new(conninfo: String, schema: &str, all: Vec<Variant>) -> Self {
        Variants { all, left_behind: None, conninfo, schema: schema.into(), has_installed: false, lock: None }
    }

    pub(super) fn table(&self, variant: Variant) -> String {
        format!("{}.{}_table", self.schema, variant.name().replace('+', "_"))
    }

    /// Installs the schema pgwake where it is needed and missing, and makes the tables. What needs the
    /// library is left out where there is none, unless that was asked for.
    pub(super) fn make(&mut self, wants_library: bool) -> Result<(), Failure> {
        self.lock()?;
        let mut connection = connect(&self.conninfo)?;
        if self.all.iter().any(|variant| variant.needs_pgwake()) && !has_pgwake(&mut connection)? {
            self.has_installed = true;
            super::super::install::execute(&mut connection, &install::install())?;
        }
        if self.all.iter().any(|variant| variant.needs_library()) {
            match self.find_library(&mut connection) {
                Ok(()) => {}
                Err(failure) if wants_library => return Err(failure),
                Err(_) => self.all.retain(|variant| !variant.needs_library()),
            }
        }
        let mut script = format!("CREATE SCHEMA {};", self.schema);
        for variant in &self.all {
            let table = self.table(*variant);
            let setup = variant.setup().replace("$TABLE", &table).replace("$CHANNEL", &self.schema);
            let library = if variant.needs_library() { "" } else { "off" };
            script.push_str(&format!(
                "SET pgwake.library = '{library}';
                 CREATE TABLE {table} (id int PRIMARY KEY, n int, filler text) WITH (fillfactor = 50);
                 INSERT INTO {table} SELECT i, 0, repeat('x', 60) FROM generate_series(1, {TABLE_ROWS}) i;
                 {setup};"
            ));
        }
        query::script(&mut connection, &script)?;
        self.vacuum()
    }

    fn lock(&mut self) -> Result<(), Failure> {
        let mut connection = connect(&self.conninfo)?;
        if !is_true(&mut connection, "SELECT pg_try_advisory_lock(hashtext('pgwake bench writers'))")? {
            let reason = "another `bench writers` is at work in this database: wait until it has ended";
            return Err(Failure::Running(reason.into()));
        }
        self.lock = Some(connection);
        Ok(())
    }

    /// Schemas of ours that a run has left which was killed: nobody else is at work here.
    pub(super) fn leftovers(&mut self) -> Result<Vec<String>, Failure> {
        let Some(connection) = &mut self.lock else { return Ok(Vec::new()) };
        let of_others = format!(
            "SELECT nspname FROM pg_catalog.pg_namespace \
             WHERE nspname LIKE 'pgwake\\_bench\\_%' AND nspname <> '{}' ORDER BY 1",
            self.schema
        );
        Ok(query::rows(connection, &of_others, &[])?.into_iter().flatten().collect())
    }

    /// Whether what was written is in an outbox that was there before.
    pub(super) fn shares_outbox(&self) -> bool {
        let writes = |variant: &Variant| matches!(variant, Variant::Outbox | Variant::OutboxLibrary);
        !self.has_installed && self.all.iter().any(writes)
    }

    /// A schema that is somebody's stays as it is: in one of ours, triggers may run in the library.
    fn find_library(&self, connection: &mut Connection) -> Result<(), Failure> {
        match (is_true(connection, "SELECT pgwake.uses_library()")?, self.has_installed) {
            (true, _) => Ok(()),
            (false, true) => Ok(query::script(connection, "SELECT pgwake.use_library(true)")?),
            (false, false) => Err(Failure::Running(
                "the schema pgwake that is here does not use the library: run pgwake install --library"
                    .into(),
            )),
        }
    }

    /// Each table alone: what else there is in the database is not ours to burden.
    pub(super) fn vacuum(&self) -> Result<(), Failure> {
        let mut connection = connect(&self.conninfo)?;
        for variant in &self.all {
            query::script(&mut connection, &format!("VACUUM ANALYZE {}", self.table(*variant)))?;
        }
        Ok(())
    }

    /// Takes away what was made, over a connection of its own: another may have been lost.
    pub(super) fn remove(&mut self) -> Result<(), Failure> {
        let schema = &self.schema;
        let remains = |what: &str, failure: Failure| match failure {
            Failure::Running(reason) | Failure::Usage(reason) => {
                Failure::Running(format!("{what} is left behind ({reason}): drop it"))
            }
            other => other,
        };
        let all = format!("the schema {schema}");
        let mut connection = connect(&self.conninfo).map_err(|failure| remains(&all, failure))?;
        let watched: String = self
            .all
            .iter()
            .filter(|variant| variant.needs_pgwake())
            .map(|variant| self.table(*variant))
            .map(|table| {
                format!(
                    "SELECT pgwake.unwatch_table(rel) FROM to_regclass('{table}') rel WHERE rel IS NOT NULL;"
                )
            })
            .collect();
        let watched = if has_pgwake(&mut connection)? { watched } else { String::new() };
        let script =
            format!("SET client_min_messages = warning; {watched} DROP SCHEMA IF EXISTS {schema} CASCADE");
        query::script(&mut connection, &script).map_err(|error| remains(&all, error.into()))?;
        if self.has_installed && has_pgwake(&mut connection)? {
            if is_used(&mut connection)? {
                self.left_behind = Some("the schema pgwake stays, for somebody uses it by now".into());
            } else {
                query::script(&mut connection, &install::uninstall())
                    .map_err(|error| remains("the schema pgwake", error.into()))?;
            }
        }
        Ok(())
    }
}

fn has_pgwake(connection: &mut Connection) -> Result<bool, Failure> {
    is_true(connection, "SELECT to_regnamespace('pgwake') IS NOT NULL")
}

/// Whether somebody else has begun to watch or to read.
fn is_used(connection: &mut Connection) -> Result<bool, Failure> {
    let any = "SELECT EXISTS (SELECT FROM pgwake.watched WHERE NOT ended) \
        OR EXISTS (SELECT FROM pgwake.consumer) OR EXISTS (SELECT FROM pgwake.ddl_watch)";
    is_true(connection, any)
}

fn is_true(connection: &mut Connection, sql: &str) -> Result<bool, Failure> {
    let rows = query::rows(connection, sql, &[])?;
    Ok(rows.into_iter().flatten().next().is_some_and(|value| value == "t"))
}
