//! `listen --exec`: a command is run for each event, in order, and at the end nothing is waited for longer
//! than was said.
#![cfg(feature = "command")]

use crate::common::command::{Running, pgwake};
use crate::common::{PATIENCE, Sql, fresh_channel, server, signal};
use rustix::process::Signal;

/// Started, and it listens already, which it says on stderr.
fn listening(arguments: &[&str]) -> Running {
    let mut running = Running::start(arguments);
    let line = running.stderr_line();
    assert!(line.contains("listening"), "{line}");
    running
}

/// A listener whose first run has begun, and goes on until it gets a signal; two events wait behind it.
fn busy(options: &[&str], script: &str) -> Running {
    let (dsn, channel, last) = (server().conninfo(), fresh_channel(), fresh_channel());
    // Events come in order, so when this is run for the last all others wait.
    let script = format!("if [ $PGWAKE_CHANNEL = {last} ]; then echo all; else echo began; {script}; fi");
    let listen = ["-d", &dsn, "listen", &channel, &last, "--jobs", "2"];
    let mut running = listening(&[&listen, options, &["--exec", "sh", "-c", &script]].concat());
    let mut sql = Sql::connect(&dsn);
    sql.run(&format!("SELECT pg_notify('{channel}', i::text) FROM generate_series(1, 3) i; NOTIFY {last}"));
    let mut lines = [running.line(), running.line()];
    lines.sort();
    assert_eq!(lines, ["all\n", "began\n"]);
    running
}

const UNTIL_A_SIGNAL: &str = "exec sleep 1000";
const WHATEVER_THE_SIGNAL: &str = "trap '' TERM; while :; do sleep 0.1; done";

#[test]
fn when_the_time_is_over_what_waits_is_dropped_and_what_runs_is_ended() {
    let mut running = busy(&["--for", "3s", "--grace", "50ms"], UNTIL_A_SIGNAL);
    assert_eq!(running.stderr_line(), "dropped 2 events that waited for a run of sh");
    let ended = running.stderr_line();
    assert!(ended.contains("sh: signal: 15"), "{ended}");
    assert_eq!((running.line().as_str(), running.status()), ("", 0));
}

#[test]
fn a_signal_ends_runs_too_also_those_that_do_not_hear_sigterm() {
    for (script, number) in [(UNTIL_A_SIGNAL, "15"), (WHATEVER_THE_SIGNAL, "9")] {
        let mut running = busy(&["--grace", "50ms"], script);
        signal(running.child.id() as i32, Signal::TERM);
        assert_eq!(running.stderr_line(), "dropped 2 events that waited for a run of sh");
        let ended = running.stderr_line();
        assert!(ended.contains(&format!("sh: signal: {number} ")), "{ended}");
        assert_eq!(running.status(), 0);
    }
}

#[test]
fn a_run_that_ends_in_time_is_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let gate = folder.path().join("gate");
    let script = format!("while ! [ -e {} ]; do sleep 0.01; done; echo ended", gate.display());
    let mut running = busy(&["--grace", "1h"], &script);
    signal(running.child.id() as i32, Signal::TERM);
    assert_eq!(running.stderr_line(), "dropped 2 events that waited for a run of sh");
    std::fs::write(&gate, "").unwrap();
    assert_eq!(running.line(), "ended\n");
    assert_eq!((running.stderr_line().as_str(), running.status()), ("", 0));
}

#[test]
fn a_full_queue_does_not_keep_it_from_ending() {
    let (dsn, channel) = (server().conninfo(), fresh_channel());
    let name = format!("{dsn} application_name={channel}");
    let command = ["--exec", "sh", "-c", "exec sleep 1000"];
    let running = listening(&[&["-d", &name, "listen", &channel, "--grace", "0s"][..], &command].concat());
    let mut sql = Sql::connect(&dsn);
    let payload = "rpad(i::text, 2000)";
    sql.run(&format!("SELECT count(pg_notify('{channel}', {payload})) FROM generate_series(1, 20000) i"));
    // Nothing is read any more.
    let waits = format!(
        "SELECT count(*) FROM pg_stat_activity \
         WHERE application_name = '{channel}' AND wait_event = 'ClientWrite'"
    );
    let mut seen = 0;
    while seen < 100 {
        seen = if sql.value(&waits) == "1" { seen + 1 } else { 0 };
    }
    signal(running.child.id() as i32, Signal::TERM);
    assert_eq!(running.status(), 0);
}

#[test]
fn what_nothing_is_run_for_is_told() {
    let (dsn, channel) = (server().conninfo(), fresh_channel());
    let script = "echo $PGWAKE_EVENT";
    let mut running = Running::start(&["-d", &dsn, "listen", &channel, "--exec", "sh", "-c", script]);
    let line = running.stderr_line();
    let pid = line.rsplit(' ').next().unwrap();
    Sql::connect(&dsn).run(&format!("SELECT pg_terminate_backend({pid})"));
    let line = running.stderr_line();
    assert!(line.contains("disconnected"), "{line}");
    assert_eq!(running.line(), "gap\n");
    signal(running.child.id() as i32, Signal::TERM);
    assert_eq!(running.status(), 0);
}

#[test]
fn exec_runs_a_command_for_each_event_in_order_and_several_channels_at_once() {
    let (dsn, slow, quick) = (server().conninfo(), fresh_channel(), fresh_channel());
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str| folder.path().join(name).display().to_string();
    let (gate, told) = (file("gate"), file("told"));
    // A run for the slow channel waits for the gate; a shell is only ever started because the test asks for
    // one.
    let script = format!(
        "if [ \"$PGWAKE_CHANNEL\" = {slow} ]; then while ! [ -e {gate} ]; do sleep 0.01; done; fi
         echo \"$PGWAKE_EVENT $PGWAKE_CHANNEL $PGWAKE_PID $(cat)\" >>{told}"
    );
    let listen =
        ["-d", &dsn, "listen", &slow, &quick, "--count", "6", "--jobs", "2", "--exec", "sh", "-c", &script];
    let running = listening(&listen);
    let mut sql = Sql::connect(&dsn);
    for i in 0..3 {
        sql.notify(&slow, &format!("$(touch x) {i}"));
    }
    for i in 0..3 {
        sql.notify(&quick, &i.to_string());
    }
    let read = || std::fs::read_to_string(&told).unwrap_or_default();
    // The quick channel is served while the slow one waits.
    let started = std::time::Instant::now();
    while read().lines().count() < 3 {
        assert!(started.elapsed() < PATIENCE, "only this was run: {}", read());
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    assert!(read().lines().all(|line| line.contains(&quick)), "{}", read());
    std::fs::write(&gate, "").unwrap();
    assert_eq!(running.status(), 0);
    let pid = sql.pid();
    let of = |channel: &str| -> Vec<String> {
        read().lines().filter(|line| line.contains(channel)).map(String::from).collect()
    };
    let expected = |channel: &str, payload: &str| -> Vec<String> {
        (0..3).map(|i| format!("notification {channel} {pid} {payload}{i}")).collect()
    };
    assert_eq!(of(&slow), expected(&slow, "$(touch x) "));
    assert_eq!(of(&quick), expected(&quick, ""));
}

#[test]
fn a_command_that_cannot_be_started_is_named() {
    let (dsn, channel) = (server().conninfo(), fresh_channel());
    let mut sql = Sql::connect(&dsn);
    let mut child = pgwake(&["-d", &dsn, "listen", &channel, "--exec", "/no/such/program"]).spawn().unwrap();
    while child.try_wait().unwrap().is_none() {
        sql.notify(&channel, "x");
    }
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8(output.stderr).unwrap().contains("/no/such/program cannot be started"));
}
