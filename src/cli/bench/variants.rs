//! Tables that differ in nothing but their triggers.

use super::super::{Failure, query};
use super::arguments::{TABLE_ROWS, Variant, name};
use super::target::own_session;

impl Variant {
    /// What puts its triggers on `$TABLE`.
    fn setup(self) -> &'static str {
        match self {
            Variant::None => "",
            Variant::Wal | Variant::Recvlogical => "ALTER PUBLICATION $CHANNEL ADD TABLE $TABLE",
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

    pub(super) fn table(self, schema: &str) -> String {
        format!("{schema}.{}_table", name(self))
    }

    pub(super) fn needs_pgwake(self) -> bool {
        matches!(self, Variant::Outbox | Variant::Notify)
    }

    /// Somebody reads the log while the table is written.
    pub(super) fn is_read_from_log(self) -> bool {
        matches!(self, Variant::Wal | Variant::Recvlogical)
    }
}

/// A table for each variant, in the schema of this name, which their channel and their publication have, too.
pub(super) fn make(conninfo: &str, schema: &str, all: &[Variant]) -> Result<(), Failure> {
    let mut script = format!("CREATE SCHEMA {schema};");
    if all.iter().any(|variant| variant.is_read_from_log()) {
        script.push_str(&format!("CREATE PUBLICATION {schema};"));
    }
    for variant in all {
        let table = variant.table(schema);
        let setup = variant.setup().replace("$TABLE", &table).replace("$CHANNEL", schema);
        script.push_str(&format!(
            "CREATE TABLE {table} (id int PRIMARY KEY, n int, filler text) WITH (fillfactor = 50);
             INSERT INTO {table} SELECT i, 0, repeat('x', 60) FROM generate_series(1, {TABLE_ROWS}) i;
             {setup};"
        ));
    }
    query::script(&mut own_session(conninfo)?, &script)?;
    vacuum(conninfo, schema, all)
}

/// Each table alone: what else there is in the database is not ours to burden.
pub(super) fn vacuum(conninfo: &str, schema: &str, all: &[Variant]) -> Result<(), Failure> {
    let mut connection = own_session(conninfo)?;
    for variant in all {
        query::script(&mut connection, &format!("VACUUM ANALYZE {}", variant.table(schema)))?;
    }
    Ok(())
}
