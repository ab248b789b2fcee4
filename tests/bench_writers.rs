//! What `pgwake bench writers` makes on a server that is somebody's, and takes away again whatever happens;
//! and what that server has set for its sessions.
#![cfg(feature = "command")]

mod common;

use common::bench::{bench, complaint};
use common::{PATIENCE, Sql, server, signal};
use rustix::process::Signal;
use std::process::Command;
use std::time::{Duration, Instant};

/// A database of one's own.
fn database(name: &str) -> (String, Sql) {
    Sql::connect(&server().conninfo()).run(&format!("CREATE DATABASE {name}"));
    let conninfo = server().conninfo().replace("dbname=postgres", &format!("dbname={name}"));
    let sql = Sql::connect(&conninfo);
    (conninfo, sql)
}

fn remains(sql: &mut Sql) -> String {
    sql.value(
        "SELECT concat_ws(' ', (SELECT string_agg(evtname, ' ') FROM pg_event_trigger),
         (SELECT string_agg(nspname, ' ') FROM pg_namespace WHERE nspname LIKE 'pgwake%'))",
    )
}

/// Waits until tables are there.
fn wait_for_tables(sql: &mut Sql) {
    let until = Instant::now() + PATIENCE;
    while sql.value("SELECT count(*) FROM pg_tables WHERE tablename LIKE '%outbox_table'") == "0" {
        assert!(Instant::now() < until, "it makes no table");
        std::thread::sleep(Duration::from_millis(5));
    }
}

const ONE: [&str; 7] = ["writers", "--rounds", "1", "--clients", "2", "--seconds", "0.2"];

#[test]
fn what_a_database_has_set_for_its_sessions_neither_ends_it_nor_keeps_it_from_taking_all_away() {
    let (conninfo, mut sql) = database("hasty");
    sql.run("ALTER DATABASE hasty SET default_transaction_isolation = 'serializable'");
    sql.run("ALTER DATABASE hasty SET statement_timeout = '50ms'");
    let output = bench(&conninfo, &[&ONE[..], &["--only", "outbox,notify"]].concat()).output().unwrap();
    assert_eq!((output.status.code(), &*String::from_utf8_lossy(&output.stderr)), (Some(0), ""));
    assert_eq!(remains(&mut sql), "");
}

#[test]
fn the_second_in_a_database_waits_for_the_first_and_a_lost_terminal_leaves_nothing() {
    let (conninfo, mut sql) = database("shared");
    let arguments = ["writers", "--rounds", "1", "--clients", "2", "--seconds", "60", "--only", "outbox"];
    let first = bench(&conninfo, &arguments).spawn().unwrap();
    wait_for_tables(&mut sql);
    let (sentence, status) = complaint(&bench(&conninfo, &ONE).output().unwrap());
    assert!(status == Some(1) && sentence.contains("another `bench writers` is at work"), "{sentence}");
    signal(first.id() as i32, Signal::HUP);
    let output = first.wait_with_output().unwrap();
    assert_eq!((output.status.code(), &*String::from_utf8_lossy(&output.stderr)), (Some(0), ""));
    assert_eq!(remains(&mut sql), "");
}

#[test]
fn what_stays_is_told() {
    let (conninfo, mut sql) = database("used");
    sql.run(&pgwake::install::install());
    sql.run("CREATE SCHEMA pgwake_bench_killed");
    let output = bench(&conninfo, &[&ONE[..], &["--only", "outbox"]].concat()).output().unwrap();
    let table = String::from_utf8_lossy(&output.stdout);
    for note in ["DROP SCHEMA pgwake_bench_killed CASCADE", "the outbox of the schema pgwake here keeps"] {
        assert!(table.contains(note), "{table}");
    }
}

#[test]
fn a_directory_in_which_nothing_can_be_preloaded_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let place = directory.path().join("a:b");
    std::fs::create_dir(&place).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_pgwake"));
    command.args(["bench", "writers", "--private", "--commit-delay", "50ms"]).env("TMPDIR", &place);
    let (sentence, status) = complaint(&command.output().unwrap());
    assert!(status == Some(1) && sentence.contains("set TMPDIR"), "{sentence}");
}
