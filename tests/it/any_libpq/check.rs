//! `pgwake.check()`: each problem has its line, its remedy takes it away, and a healthy database has none.

use crate::common::outbox::database;
use crate::common::{Sql, start_with_settings};

const LINES: &str =
    "SELECT string_agg(concat_ws('|', severity, object, problem, remedy), E'\\n') FROM pgwake.check()
     WHERE object <> 'two-phase commit'";

/// The one line that there is.
#[track_caller]
fn only_line(sql: &mut Sql) -> [String; 4] {
    let lines = sql.value(LINES);
    let fields: Vec<String> = lines.split('|').map(String::from).collect();
    fields.try_into().unwrap_or_else(|_| panic!("one line was expected: {lines}"))
}

/// A problem has its line, and nothing else is wrong. Returns the remedy.
#[track_caller]
fn finds(sql: &mut Sql, severity: &str, object: &str, problem: &str) -> String {
    let line = only_line(sql);
    assert_eq!((line[0].as_str(), line[1].as_str()), (severity, object), "{line:?}");
    assert!(line[2].contains(problem), "{line:?}");
    line[3].clone()
}

/// The same, and the remedy is SQL that mends it.
#[track_caller]
fn finds_and_mends(sql: &mut Sql, severity: &str, object: &str, problem: &str) {
    let remedy = finds(sql, severity, object, problem);
    sql.run(&remedy);
    assert_eq!(sql.value(LINES), "", "after {remedy}");
}

/// DDL that our event triggers do not see, as on a server that has none.
fn unseen(sql: &mut Sql, ddl: &str) {
    sql.run(&format!("SET session_replication_role = replica; {ddl}; RESET session_replication_role"));
}

#[test]
fn triggers_that_are_missing_disabled_or_altered() {
    let (_, mut sql) = database("");
    sql.run(
        "CREATE TABLE t (id int PRIMARY KEY); CREATE TABLE p (id int PRIMARY KEY) PARTITION BY LIST (id);
         CREATE TABLE p_1 PARTITION OF p FOR VALUES IN (1);
         SELECT pgwake.watch_table('t'), pgwake.watch_table('p', timing => 'before')",
    );
    assert_eq!(sql.value(LINES), "");
    unseen(&mut sql, "DROP TRIGGER pgwake_1_insert ON t");
    finds_and_mends(&mut sql, "error", "public.t", "for insert is missing");
    sql.run("ALTER TABLE t DISABLE TRIGGER pgwake_1_update");
    finds_and_mends(&mut sql, "error", "public.t", "pgwake_1_update does not fire");
    sql.run("ALTER TABLE p_1 DISABLE TRIGGER \"~pgwake_2_delete\"");
    finds_and_mends(&mut sql, "error", "public.p_1", "pgwake_2_delete does not fire");
    sql.run("ALTER TABLE t ENABLE REPLICA TRIGGER pgwake_1_update");
    finds_and_mends(&mut sql, "error", "public.t", "pgwake_1_update does not fire");
    unseen(
        &mut sql,
        "DROP TRIGGER pgwake_1_truncate ON t; CREATE TRIGGER pgwake_1_truncate BEFORE TRUNCATE ON t
           EXECUTE FUNCTION pgwake.change_1_truncate()",
    );
    finds_and_mends(&mut sql, "error", "public.t", "pgwake_1_truncate was altered");
    sql.run("ALTER FUNCTION pgwake.change_1_insert() SET work_mem = '1MB'");
    finds_and_mends(&mut sql, "error", "public.t", "not those that they were made for");
    unseen(&mut sql, "ALTER TABLE p DETACH PARTITION p_1");
    finds_and_mends(&mut sql, "warning", "public.p_1", "pgwake_2_truncate was left behind");
    unseen(&mut sql, "ALTER TABLE p ATTACH PARTITION p_1 FOR VALUES IN (1)");
    finds_and_mends(&mut sql, "error", "public.p_1", "for truncate is missing");
}

#[test]
fn triggers_that_replicated_changes_do_not_fire() {
    let (_, mut sql) = database("");
    sql.run(
        "CREATE TABLE t (id int PRIMARY KEY); CREATE TABLE p (id int PRIMARY KEY) PARTITION BY LIST (id);
         SELECT pgwake.watch_table('t', always => true), pgwake.watch_table('p', always => true)",
    );
    sql.run("CREATE TABLE p_1 PARTITION OF p FOR VALUES IN (1)");
    sql.run("ALTER TABLE t DISABLE TRIGGER ALL");
    sql.run("ALTER TABLE t ENABLE TRIGGER ALL");
    assert_eq!(sql.value(LINES), "", "it is followed");
    unseen(&mut sql, "ALTER TABLE t ENABLE TRIGGER pgwake_1_insert");
    finds_and_mends(&mut sql, "error", "public.t", "pgwake_1_insert does not fire for replicated changes");
    sql.run("CREATE TABLE u (id int PRIMARY KEY); SELECT pgwake.watch_table('u')");
    let role = sql.value("SELECT 'replica_' || current_database()");
    let database = sql.value("SELECT current_database()");
    sql.run(&format!("CREATE ROLE {role}"));
    sql.run(&format!("ALTER ROLE {role} IN DATABASE {database} SET session_replication_role = replica"));
    finds_and_mends(&mut sql, "warning", &format!("{role} in {database}"), "no trigger fires");
    sql.run(
        "ALTER TABLE t ADD UNIQUE (id); CREATE SUBSCRIPTION s CONNECTION '' PUBLICATION p
        WITH (connect = false, slot_name = NONE)",
    );
    sql.run("INSERT INTO pg_subscription_rel SELECT oid, 'u'::regclass, 'r', NULL FROM pg_subscription");
    finds_and_mends(&mut sql, "warning", "public.u", "logical replication writes to it");
    sql.run("DROP SUBSCRIPTION s");
}

#[test]
fn tables_that_changed_or_have_no_key() {
    let (_, mut sql) = database("");
    sql.run("CREATE TABLE t (id int PRIMARY KEY); SELECT pgwake.watch_table('t')");
    unseen(&mut sql, "ALTER TABLE t ADD v int");
    assert_eq!(sql.value(LINES), "", "the key is what it was");
    sql.run("SELECT pgwake.watch_table('t', payload => 'row')");
    unseen(&mut sql, "ALTER TABLE t ADD w int");
    finds_and_mends(&mut sql, "error", "public.t", "not those that they were made for");
    unseen(&mut sql, "ALTER TABLE t DROP w");
    unseen(&mut sql, "CREATE TABLE child () INHERITS (t)");
    let lines = sql.value(LINES);
    assert!(lines.contains("error|public.t|it became a partition, a parent or a child"), "{lines}");
    assert!(lines.contains("error|public.child|its trigger for delete is missing"), "{lines}");
    sql.run("SELECT pgwake.rebuild()");
    assert_eq!(sql.value(LINES), "");
    unseen(&mut sql, "DROP TABLE t CASCADE");
    finds_and_mends(&mut sql, "warning", "public.t", "was dropped while watched");
    sql.run("CREATE TABLE keyless (id int); SELECT pgwake.watch_table('keyless')");
    finds(&mut sql, "info", "public.keyless", "no primary key");
    sql.run("DROP TABLE keyless");
    sql.run(
        "CREATE TABLE k (a int, b int GENERATED ALWAYS AS (a + 1) STORED PRIMARY KEY);
         SELECT pgwake.watch_table('k', timing => 'before')",
    );
    finds_and_mends(&mut sql, "info", "public.k", "its key is computed");
    sql.run(
        "CREATE VIEW v AS SELECT 1 AS id;
         CREATE FUNCTION put() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END';
         CREATE TRIGGER put INSTEAD OF INSERT ON v FOR EACH ROW EXECUTE FUNCTION put();
         SELECT pgwake.watch_table('v')",
    );
    assert_eq!(sql.value(LINES), "");
    sql.run("DROP TRIGGER put ON v");
    finds_and_mends(&mut sql, "error", "public.v", "INSERT is refused");
}

#[test]
fn a_view_that_gained_columns_is_followed_and_a_broken_one_stops_no_other() {
    let (_, mut sql) = database("");
    sql.run(
        "CREATE FUNCTION put() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END';
         CREATE VIEW v AS SELECT 1 AS id; CREATE VIEW broken AS SELECT 1 AS id;
         CREATE TRIGGER put INSTEAD OF INSERT ON v FOR EACH ROW EXECUTE FUNCTION put();
         CREATE TRIGGER put INSTEAD OF INSERT ON broken FOR EACH ROW EXECUTE FUNCTION put();
         CREATE TABLE t (id int PRIMARY KEY);
         SELECT pgwake.watch_table('broken'), pgwake.watch_table('v'), pgwake.watch_table('t')",
    );
    sql.run("CREATE OR REPLACE VIEW v AS SELECT 1 AS id, 2 AS more");
    assert_eq!(sql.value(LINES), "");
    sql.run("DROP TRIGGER put ON broken; ALTER TABLE t ADD v int");
    finds(&mut sql, "error", "public.broken", "INSERT is refused");
    // A dropped type takes columns of tables with it that the command does not name.
    sql.run(
        "SELECT pgwake.unwatch_table('broken'); CREATE TYPE mood AS ENUM ('ok'); ALTER TABLE t ADD m mood",
    );
    sql.run("DROP TYPE mood CASCADE; DROP TRIGGER pgwake_3_insert ON t");
    assert_eq!(sql.value(LINES), "");
}

#[test]
fn event_triggers_that_are_missing_or_disabled() {
    let (_, mut sql) = database("");
    sql.run("CREATE TABLE t (id int PRIMARY KEY); SELECT pgwake.watch_table('t')");
    sql.run("ALTER EVENT TRIGGER pgwake_sql_drop DISABLE");
    finds_and_mends(&mut sql, "error", "event trigger pgwake_sql_drop", "is disabled");
    sql.run("DROP EVENT TRIGGER pgwake_table_rewrite");
    finds_and_mends(&mut sql, "error", "event trigger pgwake_table_rewrite", "is missing");
    if sql.value("SHOW server_version_num").parse::<u32>().unwrap() >= 170_000 {
        sql.run("SELECT pgwake.watch_ddl('d', tags => '{login}'); DROP EVENT TRIGGER pgwake_login");
        finds_and_mends(&mut sql, "error", "event trigger pgwake_login", "is missing");
    }
}

#[test]
fn rights_that_are_lacking() {
    let (conninfo, mut sql) = database("");
    let database = sql.value("SELECT current_database()");
    let role = |kind: &str| format!("{kind}_{database}");
    let (guest, manager, owner) = (role("guest"), role("manager"), role("owner"));
    sql.run(&format!(
        "CREATE ROLE {guest} LOGIN; CREATE ROLE {manager}; CREATE ROLE {owner};
         GRANT USAGE ON SCHEMA pgwake TO {guest}; GRANT EXECUTE ON FUNCTION pgwake.check() TO {guest};
         CREATE TABLE p (id int PRIMARY KEY) PARTITION BY LIST (id); ALTER TABLE p OWNER TO {owner};
         SELECT pgwake.watch_table('p')"
    ));
    assert_eq!(sql.value(LINES), "");
    sql.run(&format!("REVOKE EXECUTE ON FUNCTION pgwake.change_1_insert() FROM {owner}"));
    finds_and_mends(&mut sql, "error", "public.p", "cannot make its next partition");
    sql.run(&format!("ALTER TABLE p OWNER TO {guest}"));
    assert_eq!(sql.value(LINES), "", "it is followed");
    sql.run(&format!(
        "ALTER TABLE p OWNER TO {owner}; ALTER FUNCTION pgwake.change_1_insert() OWNER TO {guest}"
    ));
    finds_and_mends(&mut sql, "error", "pgwake.change_1_insert()", "may not write to the outbox");
    let mut as_guest = Sql::connect(&conninfo.replace("user=postgres", &format!("user={guest}")));
    for who in [&mut as_guest, &mut sql] {
        who.run(&format!("SET ROLE {guest}"));
        let lines = who.value(LINES);
        assert_eq!(lines.lines().count(), 2, "{lines}");
        assert!(lines.contains(&format!("info|{guest}|it may not read the outbox|GRANT")), "{lines}");
        assert!(lines.contains("it may not watch tables: that is for postgres"), "{lines}");
        who.run("RESET ROLE");
    }
    let reading = as_guest.value("SELECT remedy FROM pgwake.check() WHERE problem LIKE '%outbox'");
    sql.run(&reading);
    finds(&mut as_guest, "info", &guest, "may not watch tables");
    // All that a session of ours calls.
    as_guest.run("SELECT pgwake.ensure_watched('p', false, NULL, NULL, 'outbox', NULL, NULL)");
    let open = "SELECT position FROM pgwake.open_consumer('a')";
    let refused = as_guest.try_run(open).unwrap_err();
    assert!(refused.message.contains("changes of public.p"), "whoever reads changes reads rows: {refused}");
    sql.run(&format!("GRANT SELECT ON p TO {guest}"));
    let position = as_guest.value(open);
    as_guest.run(&format!("SELECT pgwake.read('a', '{position}'), pgwake.acknowledge('a', '{position}')"));
    as_guest.run("SELECT pgwake.rotate(), pgwake.fetch(1), pgwake.drop_consumer('a')");
    sql.run(&format!("ALTER SCHEMA pgwake OWNER TO {manager}; GRANT {manager} TO {guest}"));
    finds_and_mends(&mut sql, "warning", "public.p", "may not renew its triggers");
    sql.run(&format!("REVOKE CREATE ON SCHEMA pgwake FROM {manager}"));
    finds_and_mends(&mut sql, "error", &manager, "may create nothing");
}

#[test]
fn rights_that_were_taken_from_everybody_are_missed_and_fail_only_what_may_have_a_handler() {
    let (_, mut sql) = database("");
    let taken = ["USAGE ON SCHEMA pgwake", "EXECUTE ON ALL FUNCTIONS IN SCHEMA pgwake"];
    sql.run("CREATE SCHEMA theirs; CREATE ROLE without_rights; GRANT ALL ON SCHEMA theirs TO without_rights");
    for rights in taken {
        sql.run(&format!("REVOKE {rights} FROM PUBLIC"));
        let remedy = finds(&mut sql, "error", "schema pgwake", "its rights were taken from PUBLIC");
        assert_eq!(remedy, "pgwake install");
        sql.run("SET ROLE without_rights");
        sql.run("CREATE TABLE theirs.t (id int PRIMARY KEY, v text)");
        sql.run("CREATE INDEX CONCURRENTLY i ON theirs.t (v)");
        for refused in ["ALTER TABLE theirs.t DROP v", "DROP INDEX theirs.i", "DROP TABLE theirs.t"] {
            let error = sql.try_run(refused).expect_err("a handler may be for it");
            assert!(error.message.contains("let its owner run pgwake install"), "{refused}: {error}");
        }
        sql.run("RESET ROLE");
        sql.run(&pgwake::install::install());
        assert_eq!(sql.value(LINES), "");
        sql.run("DROP TABLE theirs.t");
    }
    sql.run("DROP SCHEMA theirs; DROP ROLE without_rights");
}

#[test]
fn consumers_that_lag_and_an_outbox_that_cannot_be_emptied() {
    let (conninfo, mut sql) = database("");
    sql.run("CREATE TABLE t (id int PRIMARY KEY); SELECT pgwake.watch_table('t')");
    sql.run("SELECT pgwake.open_consumer('a'); SELECT pg_advisory_unlock_all()");
    sql.run("INSERT INTO t VALUES (1)");
    assert_eq!(sql.value(LINES), "");
    sql.run("UPDATE pgwake.consumer SET acknowledged_at = acknowledged_at - interval '1 hour'");
    let remedy = finds(&mut sql, "warning", "a", "and 1 rows wait for it");
    assert_eq!(remedy, "run it, or SELECT pgwake.drop_consumer('a')");
    sql.run("SELECT pgwake.drop_consumer('a')");
    sql.run("UPDATE pgwake.setting SET value = 8192 WHERE name = 'cap_bytes'");
    finds(&mut sql, "warning", "outbox", "of 8192 bytes");
    sql.run("UPDATE pgwake.setting SET value = 1073741824 WHERE name = 'cap_bytes'");
    let mut long = Sql::connect(&conninfo);
    long.run("BEGIN; INSERT INTO t VALUES (2)");
    assert_eq!(sql.value(LINES), "");
    sql.run("UPDATE pgwake.setting SET value = 0 WHERE name = 'late_seconds'");
    let backend = format!("backend {}", long.pid());
    assert!(finds(&mut sql, "warning", &backend, "cannot be emptied").contains("pg_terminate_backend"));
    long.run("COMMIT");
    assert_eq!(sql.value(LINES), "");
}

#[test]
fn transports_that_cost_or_lose() {
    let (_, mut sql) = database("");
    sql.run("CREATE TABLE t (id int PRIMARY KEY)");
    sql.run("SELECT pgwake.watch_table('t', transport => 'notify')");
    finds_and_mends(&mut sql, "warning", "public.t", "slows down every writer");
    sql.run("SELECT nextval('pgwake.unconvertible')");
    assert!(finds(&mut sql, "info", "unconvertible", "1 statements").contains("setval"));
    sql.run("SELECT setval('pgwake.unconvertible', 1, false), nextval('pgwake.spilled')");
    finds(&mut sql, "info", "spilled", "1 notifications");
}

#[test]
fn a_publication_with_the_outbox() {
    let (_, mut sql) = database("");
    sql.run("CREATE PUBLICATION rest FOR ALL TABLES WITH (publish = 'insert')");
    finds(&mut sql, "warning", "publication rest", "publishes the outbox");
}

#[test]
fn two_phase_commit() {
    let server = start_with_settings(&["max_prepared_transactions = 5"]);
    let sql = &mut Sql::connect(&server.conninfo());
    sql.run(&pgwake::install::install());
    sql.run("CREATE TABLE t (id int PRIMARY KEY); SELECT pgwake.watch_table('t')");
    assert_eq!(sql.value(LINES), "");
    assert_eq!(sql.value("SELECT severity FROM pgwake.check() WHERE object = 'two-phase commit'"), "info");
    sql.run("SELECT pgwake.watch_table('t', channel => 'c')");
    finds(sql, "warning", "public.t", "PREPARE TRANSACTION");
    sql.run("SELECT pgwake.watch_table('t'); SELECT pgwake.watch_ddl('d')");
    finds(sql, "warning", "DDL", "PREPARE TRANSACTION");
    sql.run("SELECT pgwake.unwatch_ddl('d')");
    sql.run("BEGIN; INSERT INTO t VALUES (1); PREPARE TRANSACTION 'it''s'");
    sql.run("UPDATE pgwake.setting SET value = 0 WHERE name = 'late_seconds'");
    let remedy = finds(sql, "warning", "prepared transaction it's", "cannot be emptied");
    sql.run(remedy.split(", or ").next().unwrap());
    assert_eq!(sql.value(LINES), "");
}
