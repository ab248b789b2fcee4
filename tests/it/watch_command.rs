//! `pgwake watch`, `unwatch`, `ddl`, `check` and `status`, as their users meet them.
#![cfg(feature = "command")]

use crate::common::command::{Running, complaint, run, succeed};
use crate::common::{Sql, server, signal};
use rustix::process::Signal;
use serde_json::{Value, json};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

/// A database without the schema, with a table to watch.
fn database() -> (String, Sql) {
    static COUNTER: AtomicU32 = AtomicU32::new(0);
    let name = format!("watched_{}", COUNTER.fetch_add(1, Ordering::Relaxed));
    Sql::connect(&server().conninfo()).run(&format!("CREATE DATABASE {name}"));
    let dsn = server().conninfo().replace("dbname=postgres", &format!("dbname={name}"));
    let mut sql = Sql::connect(&dsn);
    sql.run("CREATE TABLE orders (id int PRIMARY KEY, note text)");
    (dsn, sql)
}

/// A running `watch` that watches already.
fn watching(arguments: &[&str]) -> Running {
    let mut watch = Running::start(arguments);
    while watch.json()["channels"] != json!(["pgwake"]) {}
    watch
}

#[test]
fn watch_installs_what_it_needs_and_prints_changes() {
    let (dsn, mut sql) = database();
    let arguments = ["-d", &dsn, "-f", "json", "watch", "orders", "--payload", "row", "--count", "3"];
    let mut watch = watching(&arguments);
    sql.run("INSERT INTO orders VALUES (1, E'a\\nb')");
    sql.run("UPDATE orders SET note = 'c'");
    sql.run("DELETE FROM orders");
    let [insert, update, delete] = [watch.json(), watch.json(), watch.json()];
    assert_eq!(watch.status(), 0);
    let common = json!({"event": "change", "schema": "public", "table": "orders", "key": {"id": 1}});
    for (line, op) in [(&insert, "insert"), (&update, "update"), (&delete, "delete")] {
        let has = |(name, value): (&String, &Value)| line[name] == *value;
        assert!(common.as_object().unwrap().iter().all(has), "{line}");
        assert_eq!((&line["op"], &line["transport"]), (&op.into(), &"outbox".into()));
        assert!(line["id"].is_u64() && line["xid"].is_u64() && line["at"].is_string(), "{line}");
    }
    assert_eq!(insert["new"], json!({"id": 1, "note": "a\nb"}));
    assert_eq!((&update["old"]["note"], &update["new"]["note"]), (&"a\nb".into(), &"c".into()));
    assert_eq!((&update["changed"], &delete["old"]["note"]), (&json!(["note"]), &"c".into()));
    assert!(insert.get("old").is_none() && delete.get("new").is_none());
}

#[test]
fn a_name_goes_on_where_the_last_run_ended_also_when_that_was_killed() {
    let (dsn, mut sql) = database();
    let arguments = ["-d", &dsn, "-f", "json", "watch", "orders", "--name", "me"];
    let mut watch = watching(&arguments);
    sql.run("INSERT INTO orders SELECT generate_series(1, 3)");
    let first: Vec<Value> = (0..3).map(|_| watch.json()).collect();
    signal(watch.child.id() as i32, Signal::INT);
    assert_eq!(watch.status(), 0);
    sql.run("INSERT INTO orders VALUES (4)");
    let mut watch = watching(&arguments);
    assert_eq!(watch.json()["key"], json!({"id": 4}), "what was written before was acknowledged: {first:?}");
    signal(watch.child.id() as i32, Signal::KILL);
    watch.child.wait().unwrap();
    sql.run("INSERT INTO orders VALUES (5)");
    let mut watch = watching(&[&arguments[..], &["--count", "1"]].concat());
    let next = watch.json()["key"]["id"].as_u64().unwrap();
    assert!(next == 5 || next == 4, "what was written may come again, and nothing is left out: {next}");
    assert_eq!(watch.status(), 0);
    let mut from_start =
        watching(&["-d", &dsn, "-f", "json", "watch", "orders", "--name", "new", "--from-start"]);
    assert_eq!(from_start.json()["key"], json!({"id": 1}));
}

#[test]
fn what_keeps_a_reader_from_beginning_for_now_is_waited_for() {
    let (dsn, mut sql) = database();
    assert!(run(&["-d", &dsn, "install"]).status.success());
    let name = sql.value("SELECT current_database()");
    sql.run(&format!("ALTER DATABASE {name} SET lock_timeout = '20ms'"));
    sql.run("BEGIN; LOCK TABLE orders; LOCK TABLE pgwake.ddl_watch");
    let refused = "SELECT pg_stat_clear_snapshot(); SELECT xact_rollback FROM pg_stat_database
                   WHERE datname = current_database()";
    let mut other = Sql::connect(&dsn);
    for arguments in [&["watch", "orders"][..], &["ddl"][..]] {
        let before: u64 = other.value(refused).parse().unwrap();
        let mut reader = Running::start(&[&["-d", &dsn, "-f", "json"][..], arguments].concat());
        while other.value(refused).parse::<u64>().unwrap() < before + 2 {}
        sql.run("COMMIT");
        while reader.json()["channels"].as_array().unwrap().is_empty() {}
        sql.run("BEGIN; LOCK TABLE pgwake.ddl_watch");
    }
}

#[test]
fn what_takes_triggers_off_holds_up_no_writer_while_it_waits_for_another() {
    let (dsn, mut sql) = database();
    assert!(run(&["-d", &dsn, "install"]).status.success());
    let mut other = Sql::connect(&dsn);
    other.run("SET statement_timeout = '5s'");
    let waiting = "SELECT count(*) FROM pg_locks WHERE NOT granted AND relation = 'orders'::regclass";
    for arguments in [&["unwatch", "orders"][..], &["uninstall"][..]] {
        sql.run("SELECT pgwake.watch_table('orders')");
        sql.run("BEGIN; INSERT INTO orders VALUES (1)");
        assert!(run(&["-d", &dsn, "install"]).status.success(), "what is there already needs no lock");
        let mut command = Running::start(&[&["-d", &dsn][..], arguments].concat());
        while other.value(waiting) == "0" {}
        other.run("INSERT INTO orders VALUES (2)");
        let said = command.stderr_line();
        assert!(said.contains("a transaction holds a lock that this needs"), "{said}");
        sql.run("COMMIT; TRUNCATE orders");
        assert_eq!(command.status(), 0);
    }
    assert_eq!(sql.value("SELECT count(*) FROM pg_trigger"), "0");
}

#[test]
fn a_running_watch_says_that_its_table_is_unwatched_and_goes_on_when_it_is_watched_again() {
    let (dsn, mut sql) = database();
    let arguments = ["-d", &dsn, "-f", "json", "watch", "orders", "--before", "--count", "2"];
    let mut watch = watching(&arguments);
    assert_eq!(sql.value("SELECT timing FROM pgwake.watched"), "before");
    sql.run("INSERT INTO orders VALUES (1)");
    assert_eq!(watch.json()["op"], "insert");
    succeed(&["-d", &dsn, "unwatch", "orders"]);
    let told = watch.json();
    assert_eq!((&told["event"], &told["sqlstate"]), (&"command_failed".into(), &"55000".into()));
    assert!(told["message"].as_str().unwrap().contains("orders is not watched any more"), "{told}");
    sql.run("SELECT pgwake.watch_table('orders')");
    assert_eq!(watch.json()["channels"], json!(["pgwake"]));
    sql.run("INSERT INTO orders VALUES (2)");
    assert_eq!(watch.json()["key"], json!({"id": 2}));
    assert_eq!(watch.status(), 0);
}

#[test]
fn unwatch_takes_the_triggers_off() {
    let (dsn, mut sql) = database();
    let mut watch = watching(&["-d", &dsn, "-f", "json", "watch", "orders", "--count", "1"]);
    let triggers = "SELECT count(*) FROM pg_trigger WHERE tgrelid = 'orders'::regclass AND NOT tgisinternal";
    assert_eq!(sql.value(triggers), "4");
    sql.run("INSERT INTO orders VALUES (1)");
    assert_eq!(watch.json()["op"], "insert");
    assert_eq!(watch.status(), 0);
    for told in ["orders is not watched any more", "orders was not watched"] {
        let (sentence, status) = complaint(&["-v", "-d", &dsn, "unwatch", "orders"]);
        assert!(status == 0 && sentence.trim_end().ends_with(told), "{sentence}");
        assert_eq!(sql.value(triggers), "0");
    }
    let (sentence, status) = complaint(&["-d", &dsn, "watch", "nowhere"]);
    assert!(status == 1 && sentence.contains("nowhere") && sentence.lines().count() == 1, "{sentence}");
}

#[test]
fn what_was_done_is_told_on_a_terminal_and_in_the_log() {
    let (dsn, _sql) = database();
    for (command, told) in
        [("install", "the schema pgwake is installed"), ("uninstall", "the schema pgwake is gone")]
    {
        assert_eq!(complaint(&["-d", &dsn, command]), (String::new(), 0), "a script has the exit status");
        let (sentence, status) = complaint(&["-v", "-d", &dsn, command]);
        assert!(status == 0 && sentence.trim_end().ends_with(told), "{sentence}");
        let words = format!("'{}' -d '{dsn}' {command}", env!("CARGO_BIN_EXE_pgwake"));
        let Ok(typed) = Command::new("script").args(["-qec", &words, "/dev/null"]).output() else {
            crate::common::say_loudly(
                "SKIPPED: what is told on a terminal: the program `script` is not installed",
            );
            continue;
        };
        assert_eq!(String::from_utf8_lossy(&typed.stdout).trim_end(), told);
    }
}

#[test]
fn what_cannot_be_watched_is_one_sentence() {
    let (dsn, mut sql) = database();
    for (arguments, status, word) in [
        (&["watch", "orders", "--no-install"][..], 1, "pgwake install"),
        (&["watch", "orders", "--transport", "wal", "--columns", "id"], 2, "pgwake stream --publication"),
        (&["watch", "orders", "--ops", "insert,merge"], 2, "truncate"),
        (&["unwatch", "orders"], 1, "pgwake"),
    ] {
        let (sentence, code) = complaint(&[&["-d", &dsn], arguments].concat());
        assert!(code == status && sentence.contains(word), "{arguments:?}: {code} {sentence}");
    }
    succeed(&["-d", &dsn, "install"]);
    let (sentence, code) = complaint(&["-d", &dsn, "watch", "orders", "--no-install"]);
    assert!(code == 1 && sentence.contains("not watched"), "{sentence}");
    sql.run("CREATE ROLE nobody_special LOGIN");
    let stranger = dsn.replace("user=postgres", "user=nobody_special");
    let (sentence, code) = complaint(&["-d", &stranger, "watch", "orders"]);
    assert!(code == 1 && sentence.contains("42501"), "{sentence}");
}

#[test]
fn ddl_prints_commands_and_those_that_were_asked_for() {
    let (dsn, mut sql) = database();
    let mut all = Running::start(&["-d", &dsn, "-f", "json", "ddl", "--count", "2"]);
    while all.json()["channels"] != json!(["pgwake_ddl"]) {}
    let mut drops =
        Running::start(&["-d", &dsn, "-f", "json", "ddl", "--tags", "DROP TABLE", "--count", "1"]);
    while drops.json()["channels"].as_array().unwrap().is_empty() {}
    sql.run("CREATE TABLE t (id int)");
    sql.run("CREATE TEMP TABLE hidden (id int)");
    sql.run("DROP TABLE t");
    let [create, drop] = [all.json(), all.json()];
    assert_eq!(
        (&create["event"], &create["tag"], &create["phase"]),
        (&"ddl".into(), &"CREATE TABLE".into(), &"after".into())
    );
    assert_eq!((&create["targets"][0]["identity"], &create["depth"]), (&"public.t".into(), &1.into()));
    assert_eq!((&drop["tag"], &drop["targets"][0]["exists"]), (&"DROP TABLE".into(), &false.into()));
    assert_eq!(drops.json()["targets"][0]["name"], "t");
    assert_eq!((all.status(), drops.status()), (0, 0));
    for arguments in [&["ddl", "--remove"][..], &["ddl", "--tags", "DROP TABLE", "--remove"]] {
        succeed(&[&["-d", &dsn], arguments].concat());
    }
    assert_eq!(sql.value("SELECT count(*) FROM pgwake.ddl_watch"), "0");
}

/// What `check` prints, and its status.
fn findings(dsn: &str) -> (Vec<Value>, i32) {
    let output = run(&["-d", dsn, "-f", "json", "check"]);
    let lines = String::from_utf8(output.stdout).unwrap();
    (lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect(), output.status.code().unwrap())
}

#[test]
fn check_finds_what_would_go_wrong() {
    let (dsn, mut sql) = database();
    let (bare, status) = findings(&dsn);
    assert!(status == 0 && bare.iter().any(|f| f["remedy"] == "pgwake install"), "{bare:?}");
    succeed(&["-d", &dsn, "install"]);
    sql.run("SELECT pgwake.watch_table('orders')");
    let (healthy, status) = findings(&dsn);
    assert!(status == 0 && healthy.iter().all(|f| f["severity"] == "info"), "{healthy:?}");
    // Otherwise the trigger would be made anew at once.
    sql.run("ALTER EVENT TRIGGER pgwake_ddl_command_end DISABLE; ALTER TABLE orders DISABLE TRIGGER USER");
    let (disabled, status) = findings(&dsn);
    assert_eq!(status, 1);
    let finding = disabled.iter().find(|f| f["object"] == "public.orders").unwrap();
    assert!(finding["severity"] == "error" && finding["problem"].as_str().unwrap().contains("disabled"));
    sql.run(finding["remedy"].as_str().unwrap());
    let (read_only, _) = findings(&format!("{dsn} options='-c default_transaction_read_only=on'"));
    let finding = read_only.iter().find(|f| f["object"] == "default_transaction_read_only").unwrap();
    assert_eq!(finding["remedy"], "ALTER ROLE postgres SET default_transaction_read_only = off");
    assert!(finding["problem"].as_str().unwrap().contains("make a publication"), "{finding}");
    assert!(!healthy.iter().any(|f| f["object"] == finding["object"]));
}

#[test]
fn status_shows_the_server_and_what_is_watched() {
    let (dsn, mut sql) = database();
    succeed(&["-d", &dsn, "install"]);
    sql.run("SELECT pgwake.watch_table('orders', payload => 'row'); SELECT pgwake.open_consumer('me')");
    let output = run(&["-d", &dsn, "-f", "json", "status"]);
    assert_eq!(output.status.code(), Some(0));
    let status: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((&status["event"], &status["server"]["standby"]), (&"status".into(), &false.into()));
    assert_eq!(
        (&status["watched"][0]["table"], &status["watched"][0]["payload"]),
        (&"public.orders".into(), &"row".into())
    );
    assert_eq!(
        (&status["consumers"][0]["name"], &status["consumers"][0]["unread_rows"]),
        (&"me".into(), &0.into())
    );
    let text = String::from_utf8(run(&["-d", &dsn, "status"]).stdout).unwrap();
    assert!(text.starts_with("server\n") && text.contains("table public.orders"), "{text}");
    let mut timed = Running::start(&["-d", &dsn, "status", "--watch"]);
    let at = timed.line();
    assert!(at.starts_with("at 20") && at.ends_with("Z\n"), "{at}");
    assert_eq!(timed.line(), "server\n");
    signal(timed.child.id() as i32, Signal::TERM);
    let mut again = Running::start(&["-d", &dsn, "-f", "json", "status", "--watch"]);
    assert_eq!((&again.json()["event"], &again.json()["event"]), (&"status".into(), &"status".into()));
    signal(again.child.id() as i32, Signal::TERM);
    assert_eq!(again.status(), 0);
}
