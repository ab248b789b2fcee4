//! What `check` and `status` say of the server and of its log: slots, senders, rights, published tables.
#![cfg(feature = "command")]

use crate::common::command::{Running, run};
use crate::common::log::{SETTINGS, database, major, until_free};
use crate::common::{Sql, make_standby, say_loudly, signal, start_with_settings};
use rustix::process::Signal;
use serde_json::Value;

/// What `check` finds of an object: severity, problem, remedy.
fn found(dsn: &str, object: &str) -> Vec<[String; 3]> {
    let output = run(&["-d", dsn, "-f", "json", "check"]);
    let text = String::from_utf8(output.stdout).unwrap();
    let all: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let is_harmful = all.iter().any(|finding| finding["severity"] != "info");
    assert_eq!(output.status.code(), Some(i32::from(is_harmful)), "{text}");
    let fields = |finding: &Value| {
        ["severity", "problem", "remedy"].map(|name| finding[name].as_str().unwrap().to_string())
    };
    all.iter().filter(|finding| finding["object"] == object).map(fields).collect()
}

/// There is one such finding; its remedy.
#[track_caller]
fn finds(dsn: &str, object: &str, severity: &str, problem: &str) -> String {
    let all = found(dsn, object);
    let [[found_severity, found_problem, remedy]] = &all[..] else { panic!("{object}: {all:?}") };
    assert!(found_severity == severity && found_problem.contains(problem), "{object}: {all:?}");
    remedy.clone()
}

#[test]
fn a_slot_that_nobody_reads_is_found_and_what_it_may_cost() {
    let (dsn, mut sql) = database("");
    let slot = sql.value("SELECT 'idle_' || current_database()");
    let object = format!("slot {slot}");
    assert!(found(&dsn, &object).is_empty());
    sql.run(&format!("SELECT pg_create_logical_replication_slot('{slot}', 'pgoutput')"));
    let keeps = finds(&dsn, "max_slot_wal_keep_size", "warning", "until the disk is full");
    assert!(keeps.contains("ALTER SYSTEM SET max_slot_wal_keep_size"), "{keeps}");
    match major() {
        18.. => _ = finds(&dsn, "idle_replication_slot_timeout", "info", "kept for ever"),
        _ => assert!(found(&dsn, "idle_replication_slot_timeout").is_empty()),
    }
    let remedy = finds(&dsn, &object, "warning", "nobody reads it");
    sql.run(remedy.split_once(", or ").unwrap().1);
    assert!(found(&dsn, &object).is_empty());
}

#[test]
fn a_slot_that_is_read_is_in_order_and_in_the_status() {
    let (dsn, mut sql) = database("");
    let slot = sql.value("SELECT 'read_' || current_database()");
    sql.run("CREATE TABLE t (id int PRIMARY KEY)");
    let arguments = ["-d", &dsn, "-f", "json", "stream", "--table", "t", "--slot", &slot];
    let mut stream = Running::start(&arguments);
    let first = stream.json();
    assert!(found(&dsn, &format!("slot {slot}")).is_empty());
    let output = run(&["-d", &dsn, "-f", "json", "status"]);
    let status: Value = serde_json::from_slice(&output.stdout).unwrap();
    let shown =
        status["slots"].as_array().unwrap().iter().find(|shown| shown["name"] == slot.as_str()).unwrap();
    assert_eq!((&shown["plugin"], &shown["wal_status"]), (&"pgoutput".into(), &"reserved".into()));
    assert_eq!((&shown["active_pid"], &shown["active"]), (&first["backend_pid"], &true.into()));
    assert!(shown["lag_bytes"].is_number() && shown["confirmed_flush_lsn"].is_string(), "{shown}");
    assert_eq!(status["server"]["wal_level"], "logical");
    let text = String::from_utf8(run(&["-d", &dsn, "status"]).stdout).unwrap();
    assert!(text.contains(&format!("name {slot}  plugin pgoutput")), "{text}");
    stream.child.kill().unwrap();
    stream.child.wait().unwrap();
    until_free(&mut sql, &slot);
    sql.run(&format!("SELECT pg_drop_replication_slot('{slot}')"));
}

#[test]
fn a_role_that_may_not_read_the_log_and_tables_whose_writers_fail_are_found() {
    let (dsn, mut sql) = database("");
    let role = sql.value("SELECT 'reader_' || current_database()");
    sql.run(&format!("CREATE ROLE {role} LOGIN"));
    let as_role = dsn.replace("user=postgres", &format!("user={role}"));
    let remedy = finds(&as_role, &format!("role {role}"), "info", "no REPLICATION");
    sql.run(remedy.strip_prefix("let a superuser ").unwrap());
    assert!(found(&as_role, &format!("role {role}")).is_empty());
    sql.run(
        "CREATE TABLE t (id int); CREATE TABLE p (id int PRIMARY KEY) PARTITION BY LIST (id);
         CREATE TABLE p_1 PARTITION OF p FOR VALUES IN (1); ALTER TABLE p_1 REPLICA IDENTITY NOTHING;
         CREATE PUBLICATION of_root FOR TABLE p WITH (publish_via_partition_root);
         CREATE PUBLICATION of_leaf FOR TABLE p, t; CREATE PUBLICATION harmless FOR TABLE t;
         CREATE TABLE child () INHERITS (t)",
    );
    for table in ["public.t", "public.p_1"] {
        let remedy = finds(&dsn, table, "error", "no replica identity");
        sql.run(remedy.split_once(", or ").unwrap().1);
        assert!(found(&dsn, table).is_empty());
    }
    // A later child is not published.
    sql.run("INSERT INTO child VALUES (1); DELETE FROM child; INSERT INTO t VALUES (1); DELETE FROM t");
    assert!(found(&dsn, "public.child").is_empty());
    sql.run("ALTER TABLE t REPLICA IDENTITY DEFAULT; DROP PUBLICATION of_leaf");
    sql.run("ALTER PUBLICATION harmless SET (publish = 'insert')");
    assert!(found(&dsn, "public.t").is_empty());
    sql.run(&pgwake::install::install());
    sql.run("CREATE PUBLICATION of_all FOR ALL TABLES");
    assert!(found(&dsn, "pgwake.outbox_0").is_empty(), "nothing is updated or deleted there");
}

#[test]
fn a_slot_whose_reader_is_stuck_is_found() {
    let settings: Vec<&str> = SETTINGS.iter().copied().chain(["max_wal_size = '32MB'"]).collect();
    let server = start_with_settings(&settings);
    let dsn = server.conninfo();
    let mut sql = Sql::connect(&dsn);
    sql.run("CREATE TABLE t (id int PRIMARY KEY)");
    let mut stream = Running::start(&["-d", &dsn, "stream", "--table", "t", "--slot", "s"]);
    assert!(stream.line().contains("listening"));
    signal(stream.child.id() as i32, Signal::STOP);
    for _ in 0..5 {
        sql.run("INSERT INTO t SELECT count(*) FROM t");
        sql.run("SELECT pg_switch_wal()");
    }
    finds(&dsn, "slot s", "warning", "slow or stuck");
    signal(stream.child.id() as i32, Signal::CONT);
    while !found(&dsn, "slot s").is_empty() {
        sql.run("CHECKPOINT");
    }
}

#[test]
fn a_slot_that_may_be_ahead_of_the_standbys_is_found() {
    if major() < 17 {
        return say_loudly("SKIPPED: slots that standbys keep came with PostgreSQL 17");
    }
    let server = start_with_settings(&SETTINGS);
    let dsn = server.conninfo();
    let mut sql = Sql::connect(&dsn);
    sql.run("SELECT pg_create_physical_replication_slot('standby')");
    assert!(found(&dsn, "synchronized_standby_slots").is_empty());
    sql.run("SELECT pg_create_logical_replication_slot('s', 'pgoutput', failover => true)");
    finds(&dsn, "synchronized_standby_slots", "warning", "what no standby has");
    sql.run("ALTER SYSTEM SET synchronized_standby_slots = 'standby'");
    sql.run("SELECT pg_reload_conf()");
    while !found(&dsn, "synchronized_standby_slots").is_empty() {}
}

#[test]
fn a_slot_that_is_nearly_lost_and_one_that_is_and_a_server_with_no_room_are_found() {
    let mut settings: Vec<&str> = SETTINGS.iter().copied().filter(|line| !line.contains("max_")).collect();
    settings.extend(["max_wal_senders = 1", "max_replication_slots = 1", "max_slot_wal_keep_size = '1MB'"]);
    let server = start_with_settings(&settings);
    let dsn = server.conninfo();
    let mut sql = Sql::connect(&dsn);
    sql.run("CREATE TABLE t (id int PRIMARY KEY)");
    for setting in ["max_wal_senders", "max_replication_slots", "max_slot_wal_keep_size"] {
        assert!(found(&dsn, setting).is_empty());
    }
    let mut stream = Running::start(&["-d", &dsn, "stream", "--table", "t", "--slot", "s"]);
    assert!(stream.line().contains("listening"));
    finds(&dsn, "max_wal_senders", "warning", "all 1 are in use");
    finds(&dsn, "max_replication_slots", "warning", "all 1 are in use");
    stream.child.kill().unwrap();
    stream.child.wait().unwrap();
    until_free(&mut sql, "s");
    finds(&dsn, "slot s", "warning", "nobody reads it");
    for _ in 0..4 {
        sql.run("SELECT pg_logical_emit_message(true, 'a', 'b')");
        sql.run("SELECT pg_switch_wal()");
    }
    finds(&dsn, "slot s", "warning", "about to remove some");
    sql.run("CHECKPOINT");
    let remedy = finds(&dsn, "slot s", "error", "has removed log");
    sql.run(remedy.split_once("; ").unwrap().1);
    assert!(found(&dsn, "slot s").is_empty());
    // Nobody is there that would acknowledge what is committed meanwhile.
    let dsn = format!("{dsn} options='-c synchronous_commit=local'");
    assert!(found(&dsn, "synchronous_standby_names").is_empty());
    sql.run("ALTER SYSTEM SET synchronous_standby_names = 'ANY 1 (*)'");
    sql.run("SELECT pg_reload_conf()");
    while found(&dsn, "synchronous_standby_names").is_empty() {}
    finds(&dsn, "synchronous_standby_names", "warning", "those who read the log");
}

#[test]
fn a_server_that_is_a_standby_and_one_whose_notification_queue_is_full_are_found() {
    let mut server = match major() {
        17.. => start_with_settings(&["max_notify_queue_pages = 64"]),
        _ => start_with_settings(&[]),
    };
    let dsn = server.conninfo();
    if major() >= 17 {
        full_queue(&dsn);
    } else {
        say_loudly("SKIPPED: a full notification queue: before PostgreSQL 17 it has 8 GB");
    }
    make_standby(&mut server);
    finds(&dsn, "server", "error", "it is a standby");
}

fn full_queue(dsn: &str) {
    let [mut sql, mut sleeper] = [Sql::connect(dsn), Sql::connect(dsn)];
    sleeper.run("LISTEN c");
    sleeper.run("BEGIN");
    let fill = "SELECT count(pg_notify('c', repeat('x', 7000) || i)) FROM generate_series(1, 5) i";
    while sql.value("SELECT pg_notification_queue_usage() > 0.5") == "f" {
        sql.run(fill);
    }
    finds(dsn, "notification queue", "warning", "% full");
    while sql.try_run(fill).is_ok() {}
    finds(dsn, "notification queue", "error", "% full");
    sleeper.run("COMMIT");
}

#[test]
fn an_encoding_in_which_nothing_need_be_text_is_found() {
    let (dsn, mut sql) = database("ENCODING 'SQL_ASCII' TEMPLATE template0");
    let name = sql.value("SELECT current_database()");
    finds(&dsn, &name, "warning", "SQL_ASCII");
}
