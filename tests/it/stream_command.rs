//! `pgwake stream` and `watch --transport wal`: changes from the log as lines, slots that go on where the
//! last run ended, and what is left behind.
#![cfg(feature = "command")]

use crate::common::command::{Running, complaint, pgwake, run, succeed};
use crate::common::log::{database, until_free};
use crate::common::{Sql, say_loudly, signal};
use rustix::process::Signal;
use serde_json::{Value, json};
use std::process::Command;

/// A table in a database of its own, and the name of a slot that no other test has.
fn orders() -> (String, Sql, String) {
    let (conninfo, mut sql) = database("");
    sql.run("CREATE TABLE orders (id int PRIMARY KEY, note text)");
    let slot = sql.value("SELECT 'command_' || current_database()");
    (conninfo, sql, slot)
}

/// A running command that streams already.
fn streaming(arguments: &[&str]) -> Running {
    let mut stream = Running::start(&[&["-f", "json"], arguments].concat());
    let first = stream.json();
    assert_eq!(first["event"], "listening", "{first}");
    stream
}

/// The next change, behind the description of its table.
fn change(stream: &mut Running) -> Value {
    let line = stream.json();
    let line = if line["event"] == "schema" { stream.json() } else { line };
    assert_eq!(line["event"], "change", "{line}");
    line
}

/// All lines of a run to its end, which must be a good one.
fn lines(arguments: &[&str]) -> Vec<Value> {
    let output = run(&[&["-f", "json"], arguments].concat());
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{arguments:?}: {said}");
    let text = String::from_utf8(output.stdout).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// The ids of the rows of all changes.
fn ids(lines: &[Value]) -> Vec<u64> {
    let changes = lines.iter().filter(|line| line["event"] == "change");
    changes.map(|line| line["key"]["id"].as_u64().unwrap()).collect()
}

#[test]
fn what_the_system_refuses_a_stream_has_a_sqlstate_and_advice() {
    let (dsn, mut sql, _) = orders();
    let held_back = ["--table", "orders", "--streaming", "on", "--memory", "64kB"];
    let mut stream = pgwake(&[&["-d", &dsn, "-f", "json", "stream"], &held_back[..]].concat());
    let mut stream = Running::of(stream.env("TMPDIR", "/nonexistent"));
    assert_eq!(stream.json()["event"], "listening");
    sql.run("INSERT INTO orders SELECT i, repeat('x', 100) FROM generate_series(1, 5000) AS i");
    let lost = stream.json();
    assert_eq!((&lost["event"], &lost["sqlstate"]), (&"disconnected".into(), &"58030".into()), "{lost}");
    assert!(lost["message"].as_str().unwrap().contains("TMPDIR names another"), "{lost}");
}

#[test]
fn a_slot_goes_on_where_the_last_run_ended() {
    let (dsn, mut sql, slot) = orders();
    let arguments = ["-d", &dsn, "stream", "--table", "orders", "--slot", &slot];
    let mut first = streaming(&[&arguments[..], &["--count", "2"]].concat());
    sql.run("INSERT INTO orders VALUES (1, 'a')");
    sql.run("INSERT INTO orders VALUES (2, 'b')");
    let insert = change(&mut first);
    assert_eq!((&insert["op"], &insert["transport"]), (&"insert".into(), &"wal".into()));
    assert_eq!((&insert["new"], &insert["schema"]), (&json!({"id": 1, "note": "a"}), &"public".into()));
    assert!(insert["position"].is_string() && insert["committed_at"].is_string(), "{insert}");
    assert_eq!(change(&mut first)["key"], json!({"id": 2}));
    assert_eq!(first.status(), 0);
    sql.run("INSERT INTO orders VALUES (3, 'c')");
    let mut second = streaming(&arguments);
    assert_eq!(change(&mut second)["key"], json!({"id": 3}), "what was written was acknowledged");
    signal(second.child.id() as i32, Signal::KILL);
    second.child.wait().unwrap();
    sql.run("INSERT INTO orders VALUES (4, 'd')");
    let mut third = streaming(&arguments);
    let next = change(&mut third);
    let next = if next["key"]["id"] == 3 { change(&mut third) } else { next };
    assert_eq!(next["key"], json!({"id": 4}), "what was written may come again, and nothing is left out");
    signal(third.child.id() as i32, Signal::INT);
    assert_eq!(third.status(), 0);
    until_free(&mut sql, &slot);
    succeed(&["-d", &dsn, "stream", "--slot", &slot, "--drop-slot"]);
}

#[test]
fn a_transaction_that_was_cut_off_comes_again_as_a_whole() {
    let (dsn, mut sql, slot) = orders();
    let arguments = ["-d", &dsn, "stream", "--table", "orders", "--slot", &slot];
    let mut first = streaming(&[&arguments[..], &["--count", "3"]].concat());
    sql.run("INSERT INTO orders VALUES (1)");
    sql.run("INSERT INTO orders SELECT generate_series(2, 5)");
    assert_eq!([1, 2, 3].map(|_| change(&mut first)["key"]["id"].as_u64().unwrap()), [1, 2, 3]);
    assert_eq!(first.status(), 0);
    let again = lines(&[&arguments[..], &["--count", "4"]].concat());
    assert_eq!(ids(&again), [2, 3, 4, 5]);
    let nothing = lines(&[&arguments[..], &["--for", "300ms"]].concat());
    assert!(ids(&nothing).is_empty(), "all of it was acknowledged");
    sql.run("INSERT INTO orders VALUES (6)");
    let with_commits = [&arguments[..], &["--transactions"]].concat();
    assert_eq!(ids(&lines(&[&with_commits[..], &["--count", "1"]].concat())), [6]);
    let nothing = lines(&[&with_commits[..], &["--for", "300ms"]].concat());
    assert!(ids(&nothing).is_empty(), "no more than the line of its commit was not written: {nothing:?}");
    until_free(&mut sql, &slot);
    succeed(&["-d", &dsn, "stream", "--slot", &slot, "--drop-slot"]);
}

#[test]
fn until_ends_behind_what_was_committed_by_then() {
    let (dsn, mut sql, slot) = orders();
    let table = ["-d", &dsn, "stream", "--table", "orders", "--slot", &slot];
    // An idle server says how far its log is when it is asked.
    let arguments = [&table[..], &["--heartbeat", "500ms"]].concat();
    sql.run("INSERT INTO orders SELECT generate_series(1, 3)");
    let here = sql.value("SELECT pg_current_wal_lsn()");
    let until = |lsn: &str, more: &[&str]| lines(&[&arguments[..], &["--until", lsn], more].concat());
    let snapshot = until(&here, &["--snapshot"]);
    assert_eq!(ids(&snapshot), [1, 2, 3]);
    assert!(snapshot.iter().filter(|line| line["event"] == "change").all(|line| line["snapshot"] == true));
    sql.run("INSERT INTO orders VALUES (4)");
    sql.run("INSERT INTO orders VALUES (5)");
    let here = sql.value("SELECT pg_current_wal_lsn()");
    sql.run("INSERT INTO orders VALUES (6)");
    assert_eq!(ids(&until(&here, &["--snapshot"])), [4, 5], "neither the rows again, nor what lies beyond");
    assert!(ids(&until(&here, &[])).is_empty(), "nothing is left up to there");
    let here = sql.value("SELECT pg_current_wal_lsn()");
    assert_eq!(ids(&until(&here, &[])), [6]);
    sql.run("CREATE TABLE other (id int); INSERT INTO other VALUES (1)");
    let here = sql.value("SELECT pg_current_wal_lsn()");
    assert!(ids(&until(&here, &[])).is_empty(), "an end that no change of the table has reached");
    until_free(&mut sql, &slot);
    succeed(&["-d", &dsn, "stream", "--slot", &slot, "--drop-slot"]);
}

#[test]
fn a_snapshot_that_was_cut_off_leaves_no_slot_and_one_whose_rows_were_all_written_does() {
    let (dsn, mut sql, slot) = orders();
    let arguments = ["-d", &dsn, "stream", "--table", "orders", "--slot", &slot, "--snapshot"];
    sql.run("INSERT INTO orders SELECT generate_series(1, 3)");
    for (count, slots) in [("2", "0"), ("3", "1")] {
        let some = lines(&[&arguments[..], &["--count", count]].concat());
        assert_eq!(ids(&some).len().to_string(), count);
        until_free(&mut sql, &slot);
        let lasting = format!("SELECT count(*) FROM pg_replication_slots WHERE slot_name = '{slot}'");
        assert_eq!(sql.value(&lasting), slots, "after {count} of 3 rows");
    }
    sql.run("INSERT INTO orders VALUES (4)");
    assert_eq!(ids(&lines(&[&arguments[..], &["--count", "1"]].concat())), [4], "the rows are done with");
    until_free(&mut sql, &slot);
    succeed(&["-d", &dsn, "stream", "--slot", &slot, "--drop-slot"]);
}

#[test]
fn transactions_and_messages_come_when_they_are_asked_for() {
    let (dsn, mut sql, _) = orders();
    let arguments =
        ["-d", &dsn, "stream", "--table", "orders", "--transactions", "--messages", "--count", "2"];
    let mut stream = streaming(&arguments);
    sql.run(
        "BEGIN; INSERT INTO orders VALUES (1); SELECT pg_logical_emit_message(true, 'c', 'hello'); COMMIT",
    );
    let names: Vec<_> = (0..4).map(|_| stream.json()).collect();
    let event = |line: &Value| line["event"].as_str().unwrap().to_string();
    assert_eq!(names.iter().map(event).collect::<Vec<_>>(), ["begin", "schema", "change", "message"]);
    assert_eq!((&names[3]["channel"], &names[3]["payload"]), (&"c".into(), &"hello".into()));
    assert_eq!(stream.status(), 0);
    // As people see them.
    let mut text = Running::start(&arguments);
    assert!(text.line().contains("listening"));
    sql.run(
        "BEGIN; INSERT INTO orders VALUES (2); SELECT pg_logical_emit_message(true, 'c', 'hello'); COMMIT",
    );
    let said: String = (0..4).map(|_| text.line()).collect();
    for part in ["begin", "public.orders  id integer (key), note text", "insert", "{\"id\":2}", "c  hello"] {
        assert!(said.contains(part), "{part}: {said}");
    }
    assert_eq!(text.status(), 0);
}

#[test]
fn a_stream_without_a_slot_leaves_none_behind() {
    let (dsn, mut sql, _) = orders();
    let slots = "SELECT count(*) FROM pg_replication_slots WHERE database = current_database()";
    let mut stream = streaming(&["-d", &dsn, "stream", "--table", "orders", "--count", "1"]);
    assert_eq!(sql.value(slots), "1");
    sql.run("INSERT INTO orders VALUES (1)");
    assert_eq!(change(&mut stream)["key"], json!({"id": 1}));
    assert_eq!(stream.status(), 0);
    while sql.value(slots) != "0" {}
}

#[test]
fn what_keeps_a_slot_from_being_made_is_said() {
    let (dsn, mut sql, slot) = orders();
    sql.run("BEGIN; SELECT pg_current_xact_id()");
    let arguments = ["-d", &dsn, "stream", "--table", "orders", "--slot", &slot, "--heartbeat", "200ms"];
    let mut stream = Running::start(&arguments);
    let said = stream.stderr_line();
    assert!(said.contains("the server waits for transactions to end"), "{said}");
    sql.run("COMMIT");
    assert!(stream.line().contains("listening"));
    signal(stream.child.id() as i32, Signal::INT);
    assert_eq!(stream.status(), 0);
}

#[test]
fn a_slot_is_dropped_on_request_and_a_missing_one_is_said_to_be() {
    let (dsn, mut sql, slot) = orders();
    let arguments = ["-d", &dsn, "stream", "--table", "orders", "--slot", &slot];
    let stream = streaming(&arguments);
    let (sentence, status) = complaint(&["-d", &dsn, "stream", "--slot", &slot, "--drop-slot"]);
    assert!(
        status == 1 && sentence.contains("55006") && sentence.contains("end that one first"),
        "{sentence}"
    );
    signal(stream.child.id() as i32, Signal::TERM);
    assert_eq!(stream.status(), 0);
    until_free(&mut sql, &slot);
    let (sentence, status) = complaint(&["-v", "-d", &dsn, "stream", "--slot", &slot, "--drop-slot"]);
    assert!(status == 0 && sentence.trim_end().ends_with(&format!("{slot} is dropped")), "{sentence}");
    let (sentence, status) = complaint(&["-d", &dsn, "stream", "--slot", &slot, "--drop-slot"]);
    assert!(status == 1 && sentence.contains(&format!("no replication slot {slot}")), "{sentence}");
}

#[test]
fn watch_reads_the_log_in_its_own_words_and_unwatch_takes_the_publication_away() {
    let (dsn, mut sql, _) = orders();
    let name = sql.value("SELECT current_database()");
    sql.run("CREATE TABLE parcels (id int PRIMARY KEY)");
    let watch = ["-d", &dsn, "watch", "orders", "parcels", "--transport", "wal", "--name", &name];
    let mut both = streaming(&[&watch[..], &["--ops", "insert,delete", "--count", "3"]].concat());
    let publications = "SELECT string_agg(tablename, ' ' ORDER BY tablename) FROM pg_publication_tables
        WHERE pubname ~ '^pgwake_[0-9a-f]{32}$'";
    assert_eq!(sql.value(publications), "orders parcels");
    sql.run("INSERT INTO orders VALUES (1, 'a'); UPDATE orders SET note = 'b'; DELETE FROM orders");
    sql.run("INSERT INTO parcels VALUES (1)");
    let ops = [1, 2, 3].map(|_| change(&mut both)["op"].as_str().unwrap().to_string());
    assert_eq!(ops, ["insert", "delete", "insert"]);
    assert_eq!(both.status(), 0);
    sql.run("INSERT INTO orders VALUES (2)");
    assert_eq!(ids(&lines(&[&watch[..], &["--count", "1"]].concat())), [2], "it goes on");
    succeed(&["-d", &dsn, "stream", "--slot", &format!("pgwake_{name}"), "--drop-slot"]);
    for (table, left) in [("orders", "parcels"), ("parcels", "")] {
        let (sentence, status) = complaint(&["-v", "-d", &dsn, "unwatch", table]);
        assert!(status == 0 && sentence.trim_end().ends_with("is not watched any more"), "{sentence}");
        assert_eq!(sql.value(publications), left);
    }
    assert_eq!(sql.value("SELECT count(*) FROM pg_publication"), "0");
    assert_eq!(
        sql.value("SELECT count(*) FROM pg_namespace WHERE nspname = 'pgwake'"),
        "0",
        "no schema is needed"
    );
}

#[test]
fn a_publication_that_lost_a_table_has_it_again_when_it_is_asked_for() {
    let (dsn, mut sql, _) = orders();
    sql.run("CREATE TABLE parcels (id int PRIMARY KEY)");
    let arguments = ["-d", &dsn, "stream", "--table", "orders", "parcels", "--count", "2", "--for", "60s"];
    for lose in ["SELECT 1", "DROP TABLE orders; CREATE TABLE orders (id int PRIMARY KEY)", "unwatch"] {
        match lose {
            "unwatch" => drop(succeed(&["-d", &dsn, "unwatch", "orders"])),
            lose => sql.run(lose),
        }
        let mut stream = streaming(&arguments);
        sql.run("DELETE FROM orders; DELETE FROM parcels");
        sql.run("INSERT INTO orders VALUES (1); INSERT INTO parcels VALUES (1)");
        let tables = [1, 2].map(|_| change(&mut stream)["table"].as_str().unwrap().to_string());
        assert_eq!(tables, ["orders", "parcels"], "after {lose}");
        assert_eq!(stream.status(), 0);
        sql.run("DELETE FROM orders; DELETE FROM parcels");
    }
}

#[test]
fn a_slot_is_not_read_on_without_a_word_once_its_publication_has_lost_a_table() {
    let (dsn, mut sql, slot) = orders();
    sql.run("CREATE TABLE parcels (id int PRIMARY KEY)");
    let arguments = ["-d", &dsn, "stream", "--table", "orders", "parcels", "--slot", &slot, "--count", "1"];
    let mut stream = streaming(&arguments);
    sql.run("INSERT INTO orders VALUES (1)");
    assert_eq!(change(&mut stream)["key"]["id"], 1);
    assert_eq!(stream.status(), 0);
    sql.run("DROP TABLE orders; CREATE TABLE orders (id int PRIMARY KEY); INSERT INTO orders VALUES (2)");
    let (sentence, status) = complaint(&arguments);
    assert!(status == 1 && sentence.contains("has lost one"), "{sentence}");
    let (_, command) = sentence.split_once("; run ").unwrap();
    sql.run(command.split_once(", then look").unwrap().0);
    let mut stream = streaming(&arguments);
    sql.run("INSERT INTO orders VALUES (3)");
    assert_eq!(change(&mut stream)["key"]["id"], 3);
    assert_eq!(stream.status(), 0);
}

#[test]
fn what_cannot_be_streamed_is_one_sentence_before_anything_is_connected() {
    let nowhere = "host=/nonexistent";
    let wal = ["watch", "orders", "--transport", "wal"];
    for (arguments, words) in [
        (vec!["stream"], "--table or --publication"),
        (vec!["stream", "--slot", "s"], "--table or --publication"),
        (vec!["stream", "--table", "t", "--streaming", "late"], "possible values: off, on, early"),
        (vec!["stream", "--table", "t", "--origin", "some"], "possible values: any, none"),
        (vec!["stream", "--table", "t", "--memory", "64"], "64MB"),
        (vec!["stream", "--table", "t", "--until", "16"], "as in 16/B374D848"),
        (vec!["stream", "--table", "t", "--temporary"], "--slot"),
        (vec!["stream", "--drop-slot"], "--slot"),
        (vec!["stream", "--table", "t", "--slot", "s", "--temporary", "--failover"], "cannot be used with"),
        ([&wal[..], &["--payload", "key"]].concat(), "take --payload row"),
        ([&wal[..], &["--columns", "id"]].concat(), "pgwake stream --publication"),
        ([&wal[..], &["--before"]].concat(), "leave --before out"),
        ([&wal[..], &["--from-start"]].concat(), "pgwake stream --snapshot"),
        ([&wal[..], &["--no-install"]].concat(), "leave --no-install out"),
        ([&wal[..], &["--name", "Big One"]].concat(), "lower-case letters"),
    ] {
        let (sentence, status) = complaint(&[&["-d", nowhere], &arguments[..]].concat());
        assert!(status == 2 && sentence.contains(words), "{arguments:?}: {status} {sentence}");
    }
    let (sentence, status) = complaint(&["-d", nowhere, "stream", "--table", "t"]);
    assert!(status == 1 && sentence.contains("08001") && sentence.lines().count() == 1, "{sentence}");
}

#[test]
fn what_the_server_refuses_is_one_sentence_that_says_what_to_do() {
    let (dsn, mut sql, slot) = orders();
    sql.run("CREATE TABLE bare (id int)");
    let role = sql.value("SELECT 'plain_' || current_database()");
    sql.run(&format!("CREATE ROLE {role} LOGIN"));
    let plain = dsn.replace("user=postgres", &format!("user={role}"));
    for (dsn, arguments, code, words) in [
        (&dsn, vec!["--publication", "nowhere"], "42704", "CREATE PUBLICATION"),
        (&dsn, vec!["--table", "nowhere"], "42P01", "as SQL does"),
        (&dsn, vec!["--table", "bare"], "55000", "REPLICA IDENTITY FULL"),
        (&plain, vec!["--table", "orders"], "42501", "REPLICATION"),
    ] {
        let arguments = [&["-d", dsn, "stream", "--slot", &slot, "--for", "60s"], &arguments[..]].concat();
        let output = run(&arguments);
        let sentence = String::from_utf8(output.stderr).unwrap();
        assert!(
            output.status.code() == Some(1) && sentence.lines().count() == 1,
            "{arguments:?}: {sentence}"
        );
        assert!(sentence.contains(code) && sentence.contains(words), "{arguments:?}: {sentence}");
    }
    assert_eq!(sql.value("SELECT count(*) FROM pg_publication"), "0");
}

#[test]
fn the_rows_of_a_snapshot_are_counted_on_a_terminal() {
    let (dsn, mut sql, _) = orders();
    sql.run("INSERT INTO orders SELECT generate_series(1, 20000)");
    let program = env!("CARGO_BIN_EXE_pgwake");
    let words = format!("'{program}' -d '{dsn}' stream --table orders --snapshot --count 20000 >/dev/null");
    let Ok(typed) = Command::new("script").args(["-qec", &words, "/dev/null"]).output() else {
        return say_loudly("SKIPPED: the progress of a snapshot: the program `script` is not installed");
    };
    let seen = String::from_utf8_lossy(&typed.stdout).into_owned();
    assert!(typed.status.success() && seen.contains('\r'), "{seen:?}");
    let last = seen.trim_end().rsplit('\r').next().unwrap();
    assert!(last.starts_with("snapshot: 20000 rows, ") && last.ends_with(" per second"), "{seen:?}");
}
