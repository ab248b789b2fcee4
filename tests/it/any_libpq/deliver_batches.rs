//! `--batch`: a run of a command for each batch, whose exit status is the answer. And the figures.
#![cfg(feature = "command")]

use crate::common::command::{Running, pgwake};
use crate::common::{Sql, fresh_channel, server, signal};
use rustix::process::Signal;

/// Listens with a script for each batch, hears so many notifications, and ends. What it said, its status, and
/// the text of the file whose name the script has in `$OUT`.
fn batches(options: &[&str], size: &str, script: &str, notifications: u64) -> (String, i32, String) {
    let (dsn, channel) = (server().conninfo(), fresh_channel());
    let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let out = directory.path().join("out");
    let count = notifications.to_string();
    let listen = ["-d", &dsn, "listen", &channel, "--count", &count];
    let arguments = [&listen[..], options, &["--batch", size, "sh", "-c", script]].concat();
    let mut running = Running::of(pgwake(&arguments).env("OUT", &out));
    assert!(running.stderr_line().contains("listening"));
    let mut sql = Sql::connect(&dsn);
    sql.run(&format!("SELECT pg_notify('{channel}', i::text) FROM generate_series(1, {notifications}) i"));
    let said = running.rest_of_stderr();
    (said, running.status(), std::fs::read_to_string(&out).unwrap_or_default())
}

/// A batch as one line: how many, and their payloads.
const STORE: &str = "grep -o '\"payload\":\"[0-9]*' | tr -dc '0-9\\n' | tr '\\n' ' ' \
    | { read -r all; echo \"$PGWAKE_COUNT: $all\" >>$OUT; }; ";

fn store(then: &str) -> String {
    // At the end of a line without its end, read says that there is one.
    STORE.replace("read -r all;", "read -r all || true;") + then
}

#[test]
fn a_batch_is_full_or_the_last() {
    let script = store("[ $((PGWAKE_LAST - PGWAKE_FIRST + 1)) = $PGWAKE_COUNT ]");
    let (said, status, stored) = batches(&[], "4,1h", &script, 10);
    assert_eq!((status, stored.as_str()), (0, "4: 1 2 3 4\n4: 5 6 7 8\n2: 9 10\n"), "{said}");
}

#[test]
fn what_is_to_come_again_later_comes_again() {
    let script = store("[ -e $OUT.again ] && exit 0; touch $OUT.again; exit 75");
    let (said, status, stored) = batches(&[], "3,1h", &script, 3);
    assert_eq!((status, stored.as_str()), (0, "3: 1 2 3\n3: 1 2 3\n"), "{said}");
    assert!(said.contains("sh wants the batch again; it is run again in "), "{said}");
}

#[test]
fn a_batch_that_is_refused_comes_one_by_one_and_the_bad_one_is_a_dead_letter() {
    let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let file = directory.path().join("dead").display().to_string();
    let script = store("tail -n 1 $OUT | grep -q ' 2' && exit 65; exit 0");
    let (said, status, stored) = batches(&["--dead-letters", &file], "3,1h", &script, 3);
    assert_eq!((status, stored.as_str()), (0, "3: 1 2 3\n1: 1\n1: 2\n1: 3\n"), "{said}");
    let letter: serde_json::Value = serde_json::from_str(&std::fs::read_to_string(&file).unwrap()).unwrap();
    assert_eq!((&letter["payload"], &letter["reason"]), (&"2".into(), &"sh ended with status 65".into()));
}

#[test]
fn a_status_of_0_is_no_answer_when_it_was_asked_to_end_or_has_not_read_all() {
    let (dsn, channel) = (server().conninfo(), fresh_channel());
    let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let out = directory.path().join("out");
    let late = "trap 'exit 0' TERM; [ -e $OUT.late ] || { touch $OUT.late; cat >$OUT.none; \
        while :; do sleep 0.05; done; }; ";
    let script = late.to_string() + &store("exit 0");
    let listen = ["-d", &dsn, "listen", &channel, "--ack-timeout", "2s", "--batch", "2,1h"];
    let mut running = Running::of(pgwake(&[&listen[..], &["sh", "-c", &script]].concat()).env("OUT", &out));
    assert!(running.stderr_line().contains("listening"));
    Sql::connect(&dsn).run(&format!("SELECT pg_notify('{channel}', i::text) FROM generate_series(1, 2) i"));
    let said = running.stderr_line();
    let said = if said.contains("has not ended") { said } else { running.stderr_line() };
    assert!(said.contains("sh has not ended within 2s"), "{said}");
    while std::fs::read_to_string(&out).unwrap_or_default() != "2: 1 2\n" {
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    signal(running.child.id() as i32, Signal::TERM);
    assert_eq!(running.status(), 0);
    // More than a pipe holds.
    let script = "exec <&-; echo run >>$OUT";
    let (said, status, _) = batches(&["--ack-timeout", "1s"], "2000,1h", script, 2000);
    assert!(status == 1 && said.contains("ended before it had read all"), "{said}");
}

#[test]
fn an_event_on_which_each_run_fails_ends_it() {
    let script = store("tail -n 1 $OUT | grep -q ' 2' && exit 1; exit 0");
    let (said, status, stored) = batches(&[], "3,1h", &script, 3);
    assert!(status == 1 && said.contains("sh fails on the event at "), "{said}");
    assert!(stored.starts_with("3: 1 2 3\n3: 1 2 3\n1: 1\n1: 2\n1: 2\n"), "{stored}");
}

#[test]
fn a_command_that_is_away_for_a_moment_is_started_again() {
    let (dsn, channel) = (server().conninfo(), fresh_channel());
    let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let [script, away, out] = ["store", "away", "out"].map(|name| directory.path().join(name));
    std::fs::write(&script, format!("#!/bin/sh\ncat >>'{}'\n", out.display())).unwrap();
    std::fs::set_permissions(&script, std::os::unix::fs::PermissionsExt::from_mode(0o700)).unwrap();
    let arguments = ["-d", &dsn, "listen", &channel, "--count", "2", "--batch", "1"];
    let mut running = Running::start(&[&arguments[..], &[script.to_str().unwrap()]].concat());
    assert!(running.stderr_line().contains("listening"));
    let mut sql = Sql::connect(&dsn);
    sql.notify(&channel, "one");
    while !std::fs::read_to_string(&out).is_ok_and(|stored| stored.ends_with('\n')) {}
    std::fs::rename(&script, &away).unwrap();
    sql.notify(&channel, "two");
    let said = running.stderr_line();
    assert!(said.contains("cannot be started: No such file"), "{said}");
    std::fs::rename(&away, &script).unwrap();
    assert_eq!(running.status(), 0);
    assert_eq!(std::fs::read_to_string(&out).unwrap().lines().count(), 2);
}

#[test]
fn figures_are_told_on_stderr_and_in_a_file() {
    let (dsn, channel) = (server().conninfo(), fresh_channel());
    let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let file = directory.path().join("jobs.prom");
    let name = file.display().to_string();
    let arguments = ["-d", &dsn, "listen", &channel, "--stats", "50ms", "--metrics", &name];
    let mut running =
        Running::start(&[&arguments[..], &["--batch", "1", "sh", "-c", "cat >$0", "/dev/null"]].concat());
    while !running.stderr_line().contains("listening") {}
    Sql::connect(&dsn).notify(&channel, "x");
    while !running.stderr_line().starts_with("1 events, 1 stored, 0 under way ") {}
    let text = std::fs::read_to_string(&file).unwrap();
    for line in ["pgwake_stored_total{run=\"jobs\"} 1", "pgwake_restarts_total{run=\"jobs\"} 0"] {
        assert!(text.lines().any(|told| told == line), "{line}: {text}");
    }
    signal(running.child.id() as i32, Signal::TERM);
    let last = running.rest_of_stderr();
    assert!(last.trim_end().ends_with("0 restarts"), "{last}");
    assert_eq!(running.status(), 0);
}
