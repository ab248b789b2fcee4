//! Tables that differ in nothing but their triggers, in a schema of their own: made on a server that may be
//! somebody's, and taken away from it without a trace.

use super::super::advice::When;
use super::super::{Failure, query};
use super::arguments::{TABLE_ROWS, Variant, name};
use super::own_schema::{self, has_pgwake, is_used, remains};
use super::target::own_session;
use pgwake::install;

impl Variant {
    /// What puts its triggers on `$TABLE`.
    fn setup(self) -> &'static str {
        match self {
            Variant::None => "",
            // The publication has the name of the schema, as the channel has.
            Variant::Wal => "ALTER PUBLICATION $CHANNEL ADD TABLE $TABLE",
            Variant::Recvlogical => "ALTER PUBLICATION $CHANNEL ADD TABLE $TABLE",
            Variant::Naive => {
                "CREATE FUNCTION $TABLE_notify() RETURNS trigger LANGUAGE plpgsql AS
                   'BEGIN PERFORM pg_notify(''$CHANNEL'', row_to_json(NEW)::text); RETURN NULL; END';
                 CREATE TRIGGER naive AFTER UPDATE ON $TABLE FOR EACH ROW EXECUTE FUNCTION $TABLE_notify()"
            }
            Variant::Publish => {
                "CREATE FUNCTION $TABLE_publish() RETURNS trigger LANGUAGE plpgsql AS
                   'BEGIN PERFORM pg_logical_emit_message(true, ''$CHANNEL'', row_to_json(NEW)::text);
                   RETURN NULL; END';
                 CREATE TRIGGER publish AFTER UPDATE ON $TABLE FOR EACH ROW EXECUTE FUNCTION $TABLE_publish()"
            }
            Variant::Outbox => "SELECT pgwake.watch_table('$TABLE')",
            Variant::Notify => {
                "SELECT pgwake.watch_table('$TABLE', transport => 'notify', channel => '$CHANNEL')"
            }
        }
    }

    fn needs_pgwake(self) -> bool {
        matches!(self, Variant::Outbox | Variant::Notify)
    }

    /// Somebody reads the log while the table is written.
    pub(super) fn is_read_from_log(self) -> bool {
        matches!(self, Variant::Wal | Variant::Recvlogical)
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
        self.notes.append(&mut own_schema::remove_earlier(&mut connection)?);
        if self.needs_pgwake() && !has_pgwake(&mut connection)? {
            self.has_installed = true;
            super::super::install::execute(&mut connection, &install::install(), When::Installing)?;
        }
        let mut script = format!("CREATE SCHEMA {};", self.schema);
        if self.all.iter().any(|variant| variant.is_read_from_log()) {
            script.push_str(&format!("CREATE PUBLICATION {};", self.schema));
        }
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
        own_schema::remove(&mut connection, &self.schema, is_watched)
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

    fn needs_pgwake(&self) -> bool {
        self.all.iter().any(|variant| variant.needs_pgwake())
    }
}
