//! `pgwake publish` and `subscribe`: what goes in as lines comes out as lines, and a slot goes on where the
//! last run ended.
#![cfg(feature = "command")]

use crate::common::command::{Running, complaint, pgwake, run, succeed};
use crate::common::error_table::hold;
use crate::common::log::{database, has, until_free};
use crate::common::{fresh_channel, server};
use std::io::Write;
use std::process::Stdio;

/// Publishes what is on stdin, and ends well.
fn piped(dsn: &str, arguments: &[&str], stdin: &[u8]) {
    let mut command = pgwake(&[&["-d", dsn, "publish"], arguments].concat());
    let mut child = command.stdin(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(stdin).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(output.stdout.is_empty() && output.stderr.is_empty());
}

#[test]
fn standbys_keep_the_slot_when_that_is_asked_for() {
    if !has(17, "slots that standbys keep") {
        return;
    }
    let (dsn, mut sql) = database("");
    let slot = fresh_channel();
    let mut reader = Running::start(&["-d", &dsn, "subscribe", "jobs", "--slot", &slot, "--failover"]);
    assert!(reader.line().contains("listening"));
    let is_kept = format!("SELECT failover FROM pg_replication_slots WHERE slot_name = '{slot}'");
    assert_eq!(sql.value(&is_kept), "t");
    drop(reader);
    until_free(&mut sql, &slot);
    succeed(&["-d", &dsn, "subscribe", "--slot", &slot, "--drop-slot"]);
}

#[test]
fn what_is_published_is_printed_and_acknowledged_once_it_is_written() {
    let (dsn, mut sql) = database("");
    let slot = fresh_channel();
    let arguments = ["-d", &dsn, "-f", "json", "subscribe", "jobs", "other jobs", "--slot", &slot];
    let mut first = Running::start(&[&arguments[..], &["--count", "3"]].concat());
    assert_eq!(first.json()["event"], "listening");
    succeed(&["-d", &dsn, "publish", "jobs", "hello"]);
    succeed(&["-d", &dsn, "publish", "Jobs", "for nobody"]);
    succeed(&["-d", &dsn, "publish", "other jobs"]);
    piped(&dsn, &["jobs", "-"], b"all\nof \xff it\n");
    let line = first.json();
    assert_eq!((&line["event"], &line["channel"]), (&"message".into(), &"jobs".into()));
    assert_eq!((&line["payload"], &line["transactional"]), (&"hello".into(), &true.into()));
    assert!(["position", "lsn", "at"].iter().all(|name| line[name].is_string()), "{line}");
    assert!(line["xid"].is_u64(), "{line}");
    let line = first.json();
    assert_eq!((&line["channel"], &line["payload"]), (&"other jobs".into(), &"".into()));
    assert_eq!(first.json()["payload_base64"], "YWxsCm9mIP8gaXQK");
    assert_eq!(first.status(), 0);

    let numbers: String = (1..=1000).map(|n| format!("{n}\n")).collect();
    piped(&dsn, &["jobs", "--lines"], numbers.as_bytes());
    let mut second = Running::start(&[&arguments[..], &["--count", "1000"]].concat());
    assert_eq!(second.json()["event"], "listening");
    for n in 1..=1000 {
        assert_eq!(second.json()["payload"], n.to_string(), "what came while nobody read, and nothing again");
    }
    assert_eq!(second.status(), 0);
    let mut third = Running::start(&["-d", &dsn, "subscribe", "jobs", "--slot", &slot, "--count", "1"]);
    assert!(third.line().contains("listening"));
    piped(&dsn, &["jobs", "as people\nsee it"], b"");
    let line = third.line();
    assert!(line.contains("message") && line.ends_with("jobs  as people\\x0asee it\n"), "{line}");
    assert_eq!(third.status(), 0);
    until_free(&mut sql, &slot);
    let drop = ["-d", &dsn, "subscribe", "--slot", &slot, "--drop-slot"];
    succeed(&drop);
    let (said, status) = complaint(&drop);
    assert!(said.contains("has no replication slot") && status == 1, "{said}");
}

#[test]
fn without_a_slot_nothing_is_left_behind() {
    let (dsn, mut sql) = database("");
    let mut subscribe = Running::start(&["-d", &dsn, "-f", "json", "subscribe", "jobs", "--count", "1"]);
    assert_eq!(subscribe.json()["event"], "listening");
    piped(&dsn, &["jobs", "hello"], b"");
    assert_eq!(subscribe.json()["payload"], "hello");
    assert_eq!(subscribe.status(), 0);
    let slots = "SELECT count(*) FROM pg_replication_slots WHERE database = current_database()";
    while sql.value(slots) != "0" {}
    assert_eq!(sql.value("SELECT string_agg(pubname, ' ') FROM pg_publication"), "pgwake_messages");
}

#[test]
fn each_reason_not_to_begin_has_its_sentence() {
    let (dsn, mut sql) = database("");
    let plain = sql.value("SELECT 'plain_' || current_database()");
    let reader = sql.value("SELECT 'reader_' || current_database()");
    sql.run(&format!("CREATE ROLE {plain} LOGIN; CREATE ROLE {reader} LOGIN REPLICATION"));
    let of = |role: &str| dsn.replace("user=postgres", &format!("user={role}"));
    let run = |dsn: &str, arguments: &[&str]| run(&[&["-d", dsn], arguments].concat());
    let long = "x".repeat(64);
    hold(
        "Messages",
        vec![
            ("no channel is named", run(&dsn, &["subscribe"])),
            ("the channel's name is too long", run(&dsn, &["publish", &long, "x"])),
            ("the same, for `subscribe`", run(&dsn, &["subscribe", &long])),
            ("the role may not make the publication", run(&of(&reader), &["subscribe", "jobs"])),
            ("the role has no REPLICATION", run(&of(&plain), &["subscribe", "jobs"])),
            ("the log cannot be read", run(&server().conninfo(), &["subscribe", "jobs"])),
            (
                "`--drop-slot` of one that is not there",
                run(&dsn, &["subscribe", "--slot", "nowhere", "--drop-slot"]),
            ),
        ],
    );
    // Once the publication is there, who may replicate can subscribe, and who may connect can publish.
    sql.run("CREATE PUBLICATION pgwake_messages");
    let mut subscribe = Running::start(&["-d", &of(&reader), "subscribe", "jobs", "--count", "1"]);
    assert!(subscribe.line().contains("listening"));
    piped(&of(&plain), &["jobs", "hello"], b"");
    assert!(subscribe.line().contains("jobs  hello"));
    assert_eq!(subscribe.status(), 0);
    sql.run(&format!("DROP ROLE {plain}, {reader}"));
}
