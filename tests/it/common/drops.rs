//! Databases for what runs before a drop, in each mode that the server has: a handler that writes down what
//! it is given, and event triggers that write down the list before a drop and the server's own after it.

use super::outbox::database;
use super::{PATIENCE, Sql, say_loudly};
use std::time::Instant;

/// With the server's extension, and without.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    Extension,
    Sql,
}

/// What the handler was given, in `kept.seen`: role, type, identity, and who ran it.
const HANDLER: &str = "CREATE SCHEMA kept; GRANT USAGE ON SCHEMA kept TO PUBLIC;
    CREATE TABLE kept.seen (n int GENERATED ALWAYS AS IDENTITY, text text);
    GRANT SELECT, INSERT ON kept.seen TO PUBLIC;
    CREATE FUNCTION kept.handler(target pgwake.ddl_target) RETURNS void LANGUAGE plpgsql AS $$
    BEGIN
      INSERT INTO kept.seen (text)
        VALUES (format('%s %s %s', target.role, target.object_type, target.identity));
    END $$";

/// Both lists, as the server words them.
const LISTS: &str = "CREATE TABLE kept.list (phase text, text text); GRANT ALL ON kept.list TO PUBLIC;
    CREATE FUNCTION kept.before() RETURNS event_trigger LANGUAGE plpgsql AS $$
    BEGIN
      INSERT INTO kept.list SELECT 'before', format('%s/%s/%s %s %s %s %s %s', classid, objid, objsubid,
          object_type, schema_name, object_name, identity, is_temp) FROM pgwake.ddl_targets()
        WHERE behavior IS NOT NULL;
    END $$;
    CREATE FUNCTION kept.after() RETURNS event_trigger LANGUAGE plpgsql AS $$
    BEGIN
      INSERT INTO kept.list SELECT 'after', format('%s/%s/%s %s %s %s %s %s', classid, objid, objsubid,
          object_type, schema_name, object_name,
          object_identity, is_temporary) FROM pg_event_trigger_dropped_objects();
    END $$;
    CREATE EVENT TRIGGER zz_before ON ddl_command_start WHEN TAG IN (TAGS) EXECUTE FUNCTION kept.before();
    CREATE EVENT TRIGGER zz_after ON sql_drop WHEN TAG IN (TAGS) EXECUTE FUNCTION kept.after()";

/// What the lists are of.
const TAGS: [&str; 18] = [
    "DROP TABLE",
    "DROP VIEW",
    "DROP MATERIALIZED VIEW",
    "DROP SCHEMA",
    "DROP SEQUENCE",
    "DROP TYPE",
    "DROP DOMAIN",
    "DROP FUNCTION",
    "DROP PROCEDURE",
    "DROP INDEX",
    "DROP TRIGGER",
    "DROP RULE",
    "DROP EXTENSION",
    "DROP OWNED",
    "DROP OPERATOR",
    "DROP STATISTICS",
    "DROP FOREIGN TABLE",
    "DROP LANGUAGE",
];

/// Runs a test in each mode, with a database of its own.
pub(crate) fn in_each_mode(mut test: impl FnMut(Mode, &str, &mut Sql)) {
    for mode in [Mode::Sql, Mode::Extension] {
        let (conninfo, mut sql) = database("");
        let is_there = sql.value("SELECT pgwake.mode()") == "extension";
        match mode {
            Mode::Sql if is_there => sql.run("DROP EXTENSION pgwake_ddl"),
            Mode::Extension if !is_there => {
                say_loudly("SKIPPED: before a drop with the extension: this server does not have pgwake_ddl");
                return;
            }
            _ => {}
        }
        test(mode, &conninfo, &mut sql);
    }
}

/// Registers the handler that writes down what it is given.
pub(crate) fn keep_what_is_seen(sql: &mut Sql, types: &str) {
    sql.run(HANDLER);
    sql.run(&format!("SELECT pgwake.before_drop('kept.handler(pgwake.ddl_target)', '{{{types}}}')"));
}

/// What the handler has seen since the last time, and the transaction is not to be rolled back.
pub(crate) fn seen(sql: &mut Sql) -> Vec<String> {
    let seen = sql.value("SELECT coalesce(string_agg(text, E'\\n' ORDER BY n), '') FROM kept.seen");
    sql.run("SET session_replication_role = replica; DELETE FROM kept.seen; RESET session_replication_role");
    seen.lines().map(String::from).collect()
}

/// Keeps both lists from now on, of these commands, too. The handler's schema must be there.
pub(crate) fn keep_lists(sql: &mut Sql, more: &[&str]) {
    let tags: Vec<String> = TAGS.iter().chain(more).map(|tag| format!("'{tag}'")).collect();
    sql.run(&LISTS.replace("TAGS", &tags.join(", ")));
}

/// How many objects the two lists have had since the last time; they must be the same.
pub(crate) fn equal_lists(sql: &mut Sql, what: &str) -> usize {
    let list = |phase| {
        format!(
            "SELECT coalesce(string_agg(text, E'\\n' ORDER BY text), '') FROM kept.list
             WHERE phase = '{phase}'"
        )
    };
    let (before, after) = (sql.value(&list("before")), sql.value(&list("after")));
    assert!(before == after, "{what}\nbefore:\n{before}\nafter:\n{after}");
    sql.run("TRUNCATE kept.list");
    after.lines().count()
}

/// Waits until that many backends wait for a lock.
pub(crate) fn until_waiting(sql: &mut Sql, count: usize) {
    let waiting = "SELECT count(*) FROM pg_locks l JOIN pg_stat_activity a USING (pid)
        WHERE NOT granted AND datname = current_database()";
    let started = Instant::now();
    while sql.value(waiting) != count.to_string() {
        assert!(started.elapsed() < PATIENCE, "nobody waits");
        // In a transaction it would see the same again.
        sql.run("SELECT pg_stat_clear_snapshot()");
    }
}
