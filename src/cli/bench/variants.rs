//! Tables that differ in nothing but their triggers, in a schema of their own: made on a server that may be
//! somebody's, and taken away from it without a trace.

use super::super::advice::When;
use super::super::{Failure, query};
use super::arguments::{TABLE_ROWS, Variant, name};
use super::target::own_session;
use pgwake::Error;
use pgwake::install;
use pgwake::pq::Connection;

impl Variant {
    /// What puts its triggers on `$TABLE`.
    fn setup(self) -> &'static str {
        match self {
            Variant::None => "",
            Variant::Naive => {
                "CREATE FUNCTION $TABLE_notify() RETURNS trigger LANGUAGE plpgsql AS
                   'BEGIN PERFORM pg_notify(''$CHANNEL'', row_to_json(NEW)::text); RETURN NULL; END';
                 CREATE TRIGGER naive AFTER UPDATE ON $TABLE FOR EACH ROW EXECUTE FUNCTION $TABLE_notify()"
            }
            Variant::Outbox => "SELECT pgwake.watch_table('$TABLE')",
            Variant::Notify => {
                "SELECT pgwake.watch_table('$TABLE', transport => 'notify', channel => '$CHANNEL')"
            }
        }
    }

    fn needs_pgwake(self) -> bool {
        !matches!(self, Variant::None | Variant::Naive)
    }
}

/// A table for each variant, as far as they have been made.
pub(super) struct Variants {
    pub(super) all: Vec<Variant>,
    /// What an earlier run had left, and what could not be taken away, and why.
    pub(super) notes: Vec<String>,
    conninfo: String,
    /// Where the tables are; their channel has the same name.
    schema: String,
    /// The schema pgwake was not there, and is ours to take away.
    has_installed: bool,
}

impl Variants {
    /// Nothing is made yet. The schema must be one that nobody else has.
    pub(super) fn new(conninfo: String, schema: &str, all: Vec<Variant>) -> Self {
        Variants { all, notes: Vec::new(), conninfo, schema: schema.into(), has_installed: false }
    }

    pub(super) fn table(&self, variant: Variant) -> String {
        format!("{}.{}_table", self.schema, name(variant))
    }

    /// Installs the schema pgwake where it is needed and missing, and makes the tables.
    pub(super) fn make(&mut self) -> Result<(), Failure> {
        let mut connection = own_session(&self.conninfo)?;
        self.remove_earlier(&mut connection)?;
        if self.needs_pgwake() && !has_pgwake(&mut connection)? {
            self.has_installed = true;
            super::super::install::execute(&mut connection, &install::install(), When::Installing)?;
        }
        let mut script = format!("CREATE SCHEMA {};", self.schema);
        for variant in &self.all {
            let table = self.table(*variant);
            let setup = variant.setup().replace("$TABLE", &table).replace("$CHANNEL", &self.schema);
            script.push_str(&format!(
                "CREATE TABLE {table} (id int PRIMARY KEY, n int, filler text) WITH (fillfactor = 50);
                 INSERT INTO {table} SELECT i, 0, repeat('x', 60) FROM generate_series(1, {TABLE_ROWS}) i;
                 {setup};"
            ));
        }
        query::script(&mut connection, &script)?;
        self.vacuum()
    }

    /// Each table alone: what else there is in the database is not ours to burden.
    pub(super) fn vacuum(&self) -> Result<(), Failure> {
        let mut connection = own_session(&self.conninfo)?;
        for variant in &self.all {
            query::script(&mut connection, &format!("VACUUM ANALYZE {}", self.table(*variant)))?;
        }
        Ok(())
    }

    /// Takes away what was made, over a connection of its own: another may have been lost.
    pub(super) fn remove(&mut self) -> Result<(), Failure> {
        let also = if self.has_installed { " and the schema pgwake" } else { "" };
        let all = format!("the schema {}{also}", self.schema);
        let mut connection = own_session(&self.conninfo).map_err(|failure| remains(&all, failure))?;
        let has_pgwake = has_pgwake(&mut connection).map_err(|failure| remains(&all, failure))?;
        let is_watched = has_pgwake && self.needs_pgwake();
        drop_schema(&mut connection, &self.schema, is_watched)
            .map_err(|error| remains(&all, error.into()))?;
        if !has_pgwake || !self.has_installed {
            return Ok(());
        }
        if is_used(&mut connection).map_err(|failure| remains("the schema pgwake", failure))? {
            self.notes.push("the schema pgwake stays, for somebody uses it by now".into());
            return Ok(());
        }
        query::script(&mut connection, &install::uninstall())
            .map_err(|error| remains("the schema pgwake", error.into()))
    }

    /// Whoever was killed could not do so: only one of us is at work in a database, so that all else that is
    /// named like ours is of nobody.
    fn remove_earlier(&mut self, connection: &mut Connection) -> Result<(), Failure> {
        const EARLIER: &str =
            "SELECT nspname FROM pg_namespace WHERE nspname ~ '^pgwake_bench_[0-9a-f]{16}$'";
        let earlier = query::rows(connection, EARLIER, &[])?;
        let has_pgwake = !earlier.is_empty() && has_pgwake(connection)?;
        for schema in earlier.iter().flatten() {
            self.notes.push(match drop_schema(connection, schema, has_pgwake) {
                Ok(()) => format!("the schema {schema}, which a run that was killed had left, is taken away"),
                Err(error) => {
                    format!(
                        "the schema {schema}, which a run that was killed had left, stays ({error}): drop it"
                    )
                }
            });
        }
        if has_pgwake && is_used(connection).is_ok_and(|is_used| !is_used) {
            let note =
                "the schema pgwake may be of the run that was killed, too: pgwake uninstall removes it";
            self.notes.push(note.into());
        }
        Ok(())
    }

    fn needs_pgwake(&self) -> bool {
        self.all.iter().any(|variant| variant.needs_pgwake())
    }
}

fn remains(what: &str, failure: Failure) -> Failure {
    match failure {
        Failure::Running(reason) | Failure::Usage(reason) => {
            Failure::Running(format!("{what} is left behind ({reason}): drop it"))
        }
        other => other,
    }
}

/// A schema of ours with its tables, whose watches end, if they can have any.
fn drop_schema(connection: &mut Connection, schema: &str, is_watched: bool) -> Result<(), Error> {
    let unwatch = format!(
        "SELECT pgwake.unwatch_table(relid) FROM pgwake.watched JOIN pg_class c ON c.oid = relid \
         WHERE schema_name = '{schema}' AND NOT ended;"
    );
    let unwatch = if is_watched { &unwatch } else { "" };
    let drop = format!("SET client_min_messages = warning; {unwatch} DROP SCHEMA IF EXISTS {schema} CASCADE");
    query::script(connection, &drop)
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
