//! `pgwake bench` on servers that are somebody's: it takes everything away again, whatever the settings, and
//! what it says of its ways and of its limits is so.
#![cfg(feature = "command")]

use crate::common::bench::{bench, complaints};
use crate::common::{PATIENCE, Sql, say_loudly, server, signal};
use rustix::process::Signal;
use serde_json::Value;
use std::ffi::OsStr;
use std::io::{BufRead, BufReader};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

const QUICK: [&str; 5] = ["writers", "--seconds", "0.1", "--rounds", "1"];

fn pgwake(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_pgwake"));
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// Runs it to its end, which must be a good one. Gives its report.
fn report(command: &mut Command) -> Value {
    let directory = tempfile::tempdir().unwrap();
    let json = directory.path().join("a.json");
    let output = command.arg("--json").arg(&json).output().unwrap();
    assert_eq!((output.status.code(), &*complaints(&output)), (Some(0), ""));
    serde_json::from_slice(&std::fs::read(json).unwrap()).unwrap()
}

/// The one sentence on stderr of what failed.
fn complaint(output: Output) -> String {
    let sentence = complaints(&output);
    assert!(output.status.code() == Some(1) && sentence.lines().count() == 1, "{sentence}");
    sentence
}

/// A database of one's own: its name is the role's that owns it, and that is no superuser.
fn database(name: &str) -> (String, Sql) {
    let mut sql = Sql::connect(&server().conninfo());
    sql.run(&format!("CREATE ROLE {name} LOGIN"));
    sql.run(&format!("CREATE DATABASE {name} OWNER {name}"));
    let dsn = server().conninfo().replace("dbname=postgres", &format!("dbname={name}"));
    let sql = Sql::connect(&dsn);
    (dsn, sql)
}

/// What a measurement of writers may leave behind.
fn remains(sql: &mut Sql) -> String {
    sql.value(
        "SELECT string_agg(name, ', ') FROM (SELECT nspname FROM pg_namespace
           UNION ALL SELECT evtname FROM pg_event_trigger) n (name) WHERE name LIKE 'pgwake%'",
    )
}

const WATCHED: &str = "SELECT string_agg(table_name, ', ') FROM pgwake.watched WHERE NOT ended";

const WRITERS: &str =
    "FROM pg_stat_activity WHERE query LIKE 'EXECUTE change%' AND datname = current_database()";

fn wait_for_writers(sql: &mut Sql) {
    let until = Instant::now() + PATIENCE;
    while sql.value(&format!("SELECT count(*) {WRITERS}")) == "0" {
        assert!(Instant::now() < until, "nobody writes");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// A measurement in which clients write until it is stopped.
fn writing(command: &mut Command, sql: &mut Sql) -> Child {
    let child = command.spawn().unwrap();
    wait_for_writers(sql);
    child
}

const ENDLESS: [&str; 9] =
    ["writers", "--clients", "2", "--seconds", "3000", "--only", "outbox", "--rounds", "1"];

#[test]
fn settings_of_a_database_neither_end_it_nor_keep_what_it_made() {
    let (dsn, mut sql) = database("strict");
    for setting in [
        "statement_timeout = '60ms'",
        "lock_timeout = '20ms'",
        "idle_in_transaction_session_timeout = '60ms'",
        "default_transaction_isolation = 'repeatable read'",
    ] {
        sql.run(&format!("ALTER DATABASE strict SET {setting}"));
    }
    if sql.value("SELECT count(*) FROM pg_settings WHERE name = 'idle_session_timeout'") == "1" {
        sql.run("ALTER DATABASE strict SET idle_session_timeout = '400ms'");
    }
    let arguments = ["writers", "--clients", "4", "--rows", "1,5000", "--only", "naive,outbox"];
    let report = report(&mut bench(&dsn, &[&arguments[..], &["--seconds", "0.6", "--rounds", "1"]].concat()));
    assert_eq!(report["complete"], true);
    assert_eq!(remains(&mut sql), "");
}

#[test]
fn a_second_one_in_the_same_database_does_not_begin() {
    let (dsn, mut sql) = database("crowded");
    let first = writing(&mut bench(&dsn, &ENDLESS), &mut sql);
    let sentence = complaint(bench(&dsn, &QUICK).output().unwrap());
    assert!(sentence.contains("another pgwake bench is at work"), "{sentence}");
    signal(first.id() as i32, Signal::TERM);
    assert_eq!(first.wait_with_output().unwrap().status.code(), Some(0));
    assert_eq!(remains(&mut sql), "");
    report(&mut bench(&dsn, &QUICK));
    assert_eq!(remains(&mut sql), "");
}

/// Under nohup what is started here is to outlive its terminal, too.
fn can_hang_up() -> bool {
    let (is_ignored, _) = hangup_of(std::process::id());
    if is_ignored {
        say_loudly("SKIPPED: the end of a terminal: SIGHUP is ignored here");
    }
    !is_ignored
}

#[test]
fn a_lost_terminal_ends_it_in_good_order_though_it_says_so_twice() {
    if !can_hang_up() {
        return;
    }
    let (dsn, mut sql) = database("hung_up");
    let child = writing(&mut bench(&dsn, &ENDLESS), &mut sql);
    for _ in 0..2 {
        signal(child.id() as i32, Signal::HUP);
    }
    assert_eq!(child.wait_with_output().unwrap().status.code(), Some(0));
    assert_eq!(remains(&mut sql), "");
}

#[test]
fn a_lost_terminal_ends_what_streams_in_good_order() {
    if !can_hang_up() {
        return;
    }
    let dsn = server().conninfo();
    let mut child = pgwake(&["-d", &dsn, "listen", "hangup"]).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    assert!(line.contains("listening"), "{line}");
    for _ in 0..2 {
        signal(child.id() as i32, Signal::HUP);
    }
    assert_eq!(child.wait().unwrap().code(), Some(0));
}

/// Whether a process ignores SIGHUP, and whether it waits for it (proc(5)).
fn hangup_of(pid: u32) -> (bool, bool) {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let has = |mask: &str| {
        let bits = status.lines().find_map(|line| line.strip_prefix(mask)).unwrap().trim();
        u64::from_str_radix(bits, 16).unwrap() & 1 != 0
    };
    (has("SigIgn:"), has("SigCgt:"))
}

#[test]
fn who_was_started_to_outlive_its_terminal_does() {
    if !can_hang_up() {
        return;
    }
    let (dsn, mut sql) = database("stubborn");
    for (trap, expected) in [("", (false, true)), ("trap '' HUP; ", (true, false))] {
        let mut command = Command::new("sh");
        command.args(["-c", &format!("{trap}exec \"$@\""), "sh", env!("CARGO_BIN_EXE_pgwake")]);
        command.args(["-d", &dsn, "bench"]).args(ENDLESS).stdout(Stdio::null());
        let mut child = writing(&mut command, &mut sql);
        assert_eq!(hangup_of(child.id()), expected);
        signal(child.id() as i32, Signal::TERM);
        assert_eq!(child.wait().unwrap().code(), Some(0));
    }
}

#[test]
fn what_a_killed_run_left_is_taken_away_by_the_next_and_told() {
    let (dsn, mut sql) = database("littered");
    let mut child = writing(&mut bench(&dsn, &ENDLESS), &mut sql);
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(remains(&mut sql).contains("pgwake_bench_"));
    let notes = report(&mut bench(&dsn, &QUICK))["notes"].to_string();
    assert!(notes.contains("which a run that was killed had left, is taken away"), "{notes}");
    assert!(notes.contains("pgwake uninstall"), "{notes}");
    assert!(!remains(&mut sql).contains("pgwake_bench_"));
    assert_eq!(sql.value(WATCHED), "");
}

#[test]
fn what_is_watched_already_stays_so_and_nothing_more_is_watched_afterwards() {
    let (dsn, mut sql) = database("inhabited");
    sql.run(&pgwake::install::install());
    sql.run("CREATE TABLE own (id int PRIMARY KEY); SELECT pgwake.watch_table('own')");
    let before = remains(&mut sql);
    report(&mut bench(&dsn, &[&QUICK[..], &["--only", "outbox,notify"]].concat()));
    assert_eq!((sql.value(WATCHED), remains(&mut sql)), ("own".into(), before));
}

#[test]
fn of_two_failures_the_one_that_leaves_something_behind_is_told_too() {
    let (dsn, mut sql) = database("forbidding");
    sql.run(
        "CREATE FUNCTION forbid() RETURNS event_trigger LANGUAGE plpgsql AS
           'BEGIN RAISE EXCEPTION ''nothing is dropped here''; END'",
    );
    sql.run(
        "CREATE EVENT TRIGGER forbid ON ddl_command_start WHEN tag IN ('DROP SCHEMA')
               EXECUTE FUNCTION forbid()",
    );
    let arguments = ["writers", "--clients", "2", "--seconds", "2", "--only", "naive", "--rounds", "1"];
    let child = writing(&mut bench(&dsn, &arguments), &mut sql);
    sql.run(&format!("SELECT pg_terminate_backend(pid) {WRITERS}"));
    let sentence = complaint(child.wait_with_output().unwrap());
    assert!(sentence.contains("; and the schema pgwake_bench_"), "{sentence}");
    assert!(sentence.contains("is left behind") && sentence.contains("nothing is dropped"), "{sentence}");
}

#[test]
fn a_limit_of_the_role_or_of_the_database_is_kept_and_named() {
    let (dsn, mut sql) = database("limited");
    let dsn = dsn.replace("user=postgres", "user=limited");
    let arguments = [&QUICK[..], &["--only", "none", "--clients", "1,50"]].concat();
    for (limited, of) in
        [("ROLE limited", "the role limited is 6"), ("DATABASE limited", "the database limited is 6")]
    {
        sql.run(&format!("ALTER {limited} CONNECTION LIMIT 6"));
        let notes = report(&mut bench(&dsn, &arguments))["notes"].to_string();
        assert!(notes.contains("left out: 50 clients") && notes.contains(of), "{notes}");
        sql.run(&format!("ALTER {limited} CONNECTION LIMIT -1"));
    }
    sql.run("ALTER ROLE limited CONNECTION LIMIT 2");
    let sentence = complaint(bench(&dsn, &arguments).output().unwrap());
    assert!(sentence.contains("the role limited is 2") && sentence.contains("ask for fewer"), "{sentence}");
}

#[test]
fn a_server_that_has_become_full_is_told() {
    let (dsn, mut sql) = database("crammed");
    let dsn = dsn.replace("user=postgres", "user=crammed");
    let arguments = ["writers", "--clients", "2", "--seconds", "2", "--only", "none,naive", "--rounds", "1"];
    let child = writing(&mut bench(&dsn, &arguments), &mut sql);
    sql.run("ALTER ROLE crammed CONNECTION LIMIT 4");
    let sentence = complaint(child.wait_with_output().unwrap());
    assert!(sentence.contains("room for 1 sessions and not for 2 (the CONNECTION LIMIT"), "{sentence}");
    assert_eq!(remains(&mut sql), "");
}

#[test]
fn an_address_in_the_environment_changes_neither_the_way_nor_its_name() {
    let (dsn, mut sql) = database("addressed");
    let mut tcp = bench(&format!("{dsn} sslmode=disable"), &[&QUICK[..], &["--only", "none"]].concat());
    let report = report(tcp.env("PGHOSTADDR", "127.0.0.1"));
    assert_eq!(report["measurements"][0]["transport"], "tcp");
    for (way, address) in [("unix", ""), ("tcp", "127.0.0.1"), ("tls", "127.0.0.1")] {
        let mut command = bench(&dsn, &[&ENDLESS[..], &["--transport", way]].concat());
        let child = writing(command.env("PGHOSTADDR", "127.0.0.1"), &mut sql);
        assert_eq!(sql.value(&format!("SELECT DISTINCT host(client_addr) {WRITERS}")), address);
        signal(child.id() as i32, Signal::TERM);
        assert_eq!(child.wait_with_output().unwrap().status.code(), Some(0));
    }
}

/// A directory that the user of a private server can enter.
fn directory(name: &str) -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    let all = PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(directory.path(), all).unwrap();
    std::fs::create_dir(directory.path().join(name)).unwrap();
    let open = PermissionsExt::from_mode(0o777);
    std::fs::set_permissions(directory.path().join(name), open).unwrap();
    directory
}

fn private(place: &Path, arguments: &[&str]) -> Command {
    let mut command = pgwake(&[&["bench"], &QUICK[..], &["--private", "--only", "none"], arguments].concat());
    command.env("TMPDIR", place);
    command
}

#[test]
fn a_private_server_can_be_anywhere_and_is_the_one_that_is_measured() {
    let name = "a b'c\\d";
    let place = directory(name);
    let services = place.path().join("services");
    std::fs::write(&services, "[other]\nhostaddr=127.0.0.9\nport=1\nuser=nobody\ndbname=none\n").unwrap();
    for (ways, service) in [("unix", false), ("unix,tcp", false), ("unix,tcp", true)] {
        let arguments = ["latency", "--private", "--count", "5", "--rounds", "1", "--transport", ways];
        let mut command = pgwake(&[&["bench"], &arguments[..]].concat());
        command.env("TMPDIR", place.path().join(name)).env("PGHOSTADDR", "127.0.0.9");
        if service {
            command.env("PGSERVICE", "other").env("PGSERVICEFILE", &services).env_remove("PGHOSTADDR");
        }
        let report = report(command.env("PGHOST", "nowhere.invalid"));
        let taken = report["measurements"].as_array().unwrap().iter().map(|m| m["transport"].as_str());
        let expected = ways.split(',').flat_map(|way| [Some(way), Some(way)]);
        assert!(taken.eq(expected), "{report}");
        // Reports of servers that write another log are not taken for alike.
        assert_eq!(report["environment"]["server_settings"]["wal_level"], "logical");
    }
    let name = "a,b";
    let place = directory(name);
    let sentence = complaint(private(&place.path().join(name), &[]).output().unwrap());
    assert!(sentence.contains("set TMPDIR"), "{sentence}");
}

#[test]
fn commits_that_cannot_be_made_slow_are_told() {
    for name in ["a:b", "a b"] {
        let place = directory(name);
        let mut command = private(&place.path().join(name), &["--commit-delay", "20ms"]);
        let sentence = complaint(command.output().unwrap());
        assert!(sentence.contains("set TMPDIR"), "{sentence}");
    }
    let mut command = private(&std::env::temp_dir(), &["--commit-delay", "200ms"]);
    let sentence = complaint(command.env("PGOPTIONS", "-c synchronous_commit=off").output().unwrap());
    assert!(sentence.contains("in spite of --commit-delay 200ms"), "{sentence}");
}

#[test]
fn a_report_may_have_a_name_that_is_no_text() {
    let directory = tempfile::tempdir().unwrap();
    let json = directory.path().join(OsStr::from_bytes(b"\xff.json"));
    let mut command = bench(&server().conninfo(), &["latency", "--count", "5", "--rounds", "1", "--json"]);
    let output = command.arg(&json).output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    let report: Value = serde_json::from_slice(&std::fs::read(json).unwrap()).unwrap();
    let line = report["environment"]["command_line"].as_str().unwrap();
    assert!(line.contains('\u{fffd}'), "{line}");
}
