//! `pgwake bench` where the log is read: beside pg_recvlogical and NOTIFY, while somebody writes, and without
//! a trace afterwards.
#![cfg(feature = "command")]

use crate::common::bench::{bench, check_page, complaint, complaints, median, of_series, report, run};
use crate::common::log::database;
use crate::common::{PATIENCE, Sql, say_loudly, server, signal};
use rustix::process::Signal;
use std::process::Command;
use std::time::{Duration, Instant};

/// Whether there is something to compare with; says so when there is not.
fn has_recvlogical() -> bool {
    let found = Command::new("pg_recvlogical").arg("--version").output().is_ok();
    if !found {
        say_loudly("SKIPPED: the log beside pg_recvlogical, which is not installed");
    }
    found
}

/// What of a measurement that reads the log may be left behind.
fn remains_of_log(sql: &mut Sql) -> String {
    sql.value(
        "SELECT string_agg(name, ', ') FROM (SELECT nspname FROM pg_namespace
           UNION ALL SELECT pubname FROM pg_publication
           UNION ALL SELECT slot_name FROM pg_replication_slots WHERE database = current_database()) n (name)
         WHERE name LIKE 'pgwake%'",
    )
}

#[test]
fn the_log_is_read_beside_pg_recvlogical_and_notify_and_nothing_remains() {
    if !has_recvlogical() {
        return;
    }
    let ((dsn, mut sql), directory) = (database(""), tempfile::tempdir().unwrap());
    let [json, html] = ["a.json", "a.html"].map(|name| directory.path().join(name));
    let files = ["--json", json.to_str().unwrap(), "--html", html.to_str().unwrap()];
    let arguments = ["stream", "--transactions", "300", "--rows", "20000", "--count", "50", "--rounds", "2"];
    let table = run(&dsn, &[&arguments[..], &files[..]].concat());
    assert!(table.contains("ratio to pg_recvlogical or to NOTIFY in the same round"), "{table}");
    let report = report(&json);
    assert_eq!((&report["scenario"], &report["complete"]), (&"stream".into(), &true.into()));
    for (series, rows) in [
        ("many transactions", 300),
        ("one transaction", 20_000),
        ("one transaction, streaming", 20_000),
        ("one transaction, early", 20_000),
        ("one transaction, binary", 20_000),
    ] {
        let [beside, own] = &of_series(&report, series).collect::<Vec<_>>()[..] else { panic!("{report}") };
        assert_eq!((&beside["contender"], &own["contender"]), (&"pg_recvlogical".into(), &"pgwake".into()));
        assert_eq!(own["step"], rows);
        for figure in ["per_s", "cpu_ns_each"] {
            assert!(median(beside, figure) > 0.0 && median(own, figure) > 0.0, "{report}");
            assert_eq!(own["figures"][figure]["ratio_rounds"].as_array().unwrap().len(), 2, "{report}");
        }
    }
    let heard: Vec<_> = of_series(&report, "latency").map(|m| median(m, "notifications")).collect();
    assert_eq!(heard, [50.0; 3]);
    assert!(check_page(&html).contains("CPU per row"));
    assert_eq!(remains_of_log(&mut sql), "");
}

#[test]
fn writers_are_measured_while_somebody_reads_the_log() {
    if !has_recvlogical() {
        return;
    }
    let ((dsn, mut sql), directory) = (database(""), tempfile::tempdir().unwrap());
    let json = directory.path().join("a.json");
    let arguments = ["writers", "--clients", "2", "--seconds", "0.2", "--rounds", "2"];
    let only = ["--only", "wal,recvlogical", "--json", json.to_str().unwrap()];
    run(&dsn, &[&arguments[..], &only[..]].concat());
    let report = report(&json);
    let names: Vec<_> = of_series(&report, "rows 1").map(|m| m["contender"].as_str().unwrap()).collect();
    assert_eq!(names, ["none", "wal", "recvlogical"]);
    assert!(of_series(&report, "rows 1").all(|m| median(m, "per_s") > 0.0), "{report}");
    assert_eq!(remains_of_log(&mut sql), "");
}

#[test]
fn a_log_that_cannot_be_read_is_told() {
    let (sentence, status) = complaint(&bench(&server().conninfo(), &["stream"]).output().unwrap());
    assert!(status == Some(1) && sentence.contains("wal_level is replica"), "{sentence}");
    let arguments = ["writers", "--only", "wal", "--seconds", "0.1", "--rounds", "1", "--clients", "1"];
    let table = run(&server().conninfo(), &arguments);
    assert!(table.contains("left out: what is read from the log"), "{table}");
}

fn wait_for(sql: &mut Sql, query: &str, answer: &str) {
    let until = Instant::now() + PATIENCE;
    while sql.value(query) != answer {
        assert!(Instant::now() < until, "not {answer}: {query}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn slots_are_taken_away_after_a_signal_and_by_the_run_after_one_that_was_killed() {
    let (dsn, mut sql) = database("");
    let endless =
        ["stream", "--series", "latency,one", "--rows", "100", "--count", "900000", "--rounds", "1"];
    let has_begun = "SELECT count(*) FROM pg_stat_activity
                     WHERE query LIKE 'NOTIFY%' AND datname = current_database()";
    for is_killed in [true, false] {
        let mut child = bench(&dsn, &endless).spawn().unwrap();
        wait_for(&mut sql, has_begun, "1");
        if is_killed {
            child.kill().unwrap();
            child.wait().unwrap();
            wait_for(&mut sql, has_begun, "0");
            assert!(remains_of_log(&mut sql).contains("_one"));
        } else {
            signal(child.id() as i32, Signal::TERM);
            let output = child.wait_with_output().unwrap();
            assert_eq!((output.status.code(), &*complaints(&output)), (Some(0), ""));
            let table = String::from_utf8(output.stdout).unwrap();
            assert!(table.contains("which a run that was killed had left, is taken away"), "{table}");
        }
    }
    assert_eq!(remains_of_log(&mut sql), "");
}
