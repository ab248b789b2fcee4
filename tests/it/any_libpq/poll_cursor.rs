//! Polls with a cursor: every row of a table that only grows comes, whatever the order of the commits, and
//! whoever is killed meanwhile.
#![cfg(feature = "command")]

use crate::common::command::{Running, pgwake, run, succeed};
use crate::common::outbox::database;
use crate::common::random::Random;
use crate::common::{PATIENCE, Seen, Sql, assert_silent, next, refusal, say_loudly};
use crate::polls::{MS, connected, rows, texts, with_rows};
use pgwake::{ErrorKind, Event, EventLoop, PollOptions, SessionId};
use serde_json::Value;
use std::collections::BTreeSet;
use std::io::{BufRead, BufReader};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

const LOG: &str = "CREATE TABLE log (id bigserial PRIMARY KEY, v text, xid xid8 NOT NULL DEFAULT \
    pg_current_xact_id()); CREATE INDEX ON log (xid)";
const SELECT: &str = "SELECT id, v, xid FROM log";

fn of(name: &str) -> PollOptions {
    PollOptions::new().cursor(name).from_start(true).order_by("id").every(20 * MS)
}

/// The values of the first column of the next rows.
fn ids(events: &mut EventLoop) -> Vec<i64> {
    rows(events).iter().map(|row| row[0].parse().unwrap()).collect()
}

/// A poll of the log, in a database of its own.
fn polling(options: PollOptions) -> (String, Sql, EventLoop, SessionId) {
    let (conninfo, mut sql) = database("");
    sql.run(LOG);
    let (mut events, session) = connected(&conninfo);
    events.poll(session, SELECT, options).unwrap();
    (conninfo, sql, events, session)
}

#[test]
fn a_row_that_commits_late_comes_and_holds_up_no_other() {
    let (conninfo, mut sql, mut events, _) = polling(of("c"));
    let mut late = Sql::connect(&conninfo);
    late.run("BEGIN; INSERT INTO log (v) VALUES ('late')");
    sql.run("INSERT INTO log (v) VALUES ('a'), ('b')");
    assert_eq!(ids(&mut events), [2, 3]);
    sql.run("BEGIN; INSERT INTO log (v) VALUES ('none'); ROLLBACK");
    sql.run("INSERT INTO log (v) VALUES ('c')");
    assert_eq!(ids(&mut events), [5]);
    assert_silent(&mut events, 100 * MS);
    late.run("COMMIT");
    assert_eq!(ids(&mut events), [1]);
    assert_silent(&mut events, 100 * MS);
}

#[test]
fn a_backlog_comes_in_pages_and_a_transaction_in_one() {
    let (conninfo, mut sql) = database("");
    sql.run(LOG);
    for _ in 0..10 {
        sql.run("INSERT INTO log (v) SELECT 'x' FROM generate_series(1, 3)");
    }
    sql.run("INSERT INTO log (v) SELECT 'x' FROM generate_series(1, 500)");
    sql.run("INSERT INTO log (v) VALUES ('last')");
    let (mut events, session) = connected(&conninfo);
    let hour = Duration::from_secs(3600);
    let binary = of("c").page_rows(7).every(hour).binary(true);
    events.poll(session, "SELECT v, id::text AS id, xid FROM log -- all", binary).unwrap();
    let mut pages: Vec<usize> = Vec::new();
    let mut count = 0;
    while count < 531 {
        pages.push(with_rows(&mut events, |rows| {
            assert_eq!(rows.columns(), ["v", "id", "xid"], "ours are hidden");
            assert!(rows.iter().all(|row| row.get("xid").unwrap().len() == 8), "in binary");
            assert_eq!(rows.row(0).unwrap().get("pgwake_xid"), None);
            rows.len()
        }));
        count += pages.last().unwrap();
    }
    assert_eq!(pages, [9, 9, 9, 503, 1], "three rows a transaction");
    // The database hears of the last one, too.
    assert_silent(&mut events, 100 * MS);
    let position = sql.value("SELECT position FROM pgwake.poll_cursor WHERE name = 'c'");
    assert!(position.ends_with("||"), "{position}");
}

#[test]
fn a_position_is_kept_once_rows_were_gone_on_from_or_acknowledged() {
    let (conninfo, mut sql, mut events, _) = polling(of("c"));
    sql.run("INSERT INTO log (v) VALUES ('a')");
    assert_eq!(ids(&mut events), [1]);
    drop(events);
    // Nobody asked for more: it comes again.
    let (mut events, session) = connected(&conninfo);
    let task = events.poll(session, SELECT, of("c")).unwrap();
    while next_id(&mut events).is_none() {}
    assert_silent(&mut events, 50 * MS);
    events.cancel(task).unwrap();
    events.poll(session, SELECT, of("c").manual_ack(true)).unwrap();
    sql.run("INSERT INTO log (v) VALUES ('b')");
    let number = with_rows(&mut events, |rows| {
        assert_eq!(texts(&rows)[0][0], "2");
        rows.id
    });
    sql.run("INSERT INTO log (v) VALUES ('c')");
    assert_silent(&mut events, 100 * MS);
    let error = events.ack(session, number + 1).unwrap_err();
    assert!(error.message.contains("no rows with the id"), "{error}");
    events.ack(session, number).unwrap();
    let acknowledged = format!("id: {number} ");
    assert!(matches!(next(&mut events), Seen::Other(event) if event.contains(&acknowledged)));
    assert_eq!(ids(&mut events), [3]);
    drop(events);
    let (mut events, session) = connected(&conninfo);
    events.poll(session, SELECT, of("c")).unwrap();
    while next_id(&mut events) != Some(3) {}
}

/// The id of the first of the next rows, if these are next and nothing is refused because the old session has
/// not ended yet.
fn next_id(events: &mut EventLoop) -> Option<i64> {
    match events.next(Some(PATIENCE)).unwrap().unwrap() {
        Event::Rows(rows) => Some(rows.row(0)?.get_str(0)?.parse().unwrap()),
        Event::CommandFailed(failed) => {
            assert_eq!(failed.sqlstate.unwrap().as_str(), "55006", "{failed:?}");
            None
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn one_session_at_a_time_reads_under_a_name() {
    let (conninfo, mut sql, mut first, session) = polling(of("c"));
    sql.run("INSERT INTO log (v) VALUES ('a')");
    assert_eq!(ids(&mut first), [1]);
    assert_silent(&mut first, 50 * MS);
    let (mut second, other) = connected(&conninfo);
    second.poll(other, SELECT, of("c").name("second")).unwrap();
    let (code, message) = refusal(&mut second, "poll");
    assert!(code == "55006" && message.contains("in use by backend"), "{message}");
    first.disconnect(session).unwrap();
    sql.run("INSERT INTO log (v) VALUES ('b')");
    assert_eq!(ids(&mut second), [2]);
}

/// The server gives its lock to the session that has it once more: both polls would read, and one would keep
/// a position behind what the other has not delivered.
#[test]
fn a_session_has_one_poll_under_a_name() {
    let (conninfo, mut sql) = database("");
    sql.run(LOG);
    let (mut events, session) = connected(&conninfo);
    let first = events.poll(session, SELECT, of("c")).unwrap();
    let refused = events.poll(session, "SELECT id, xid FROM log", of("c")).unwrap_err();
    assert!(
        refused.kind == ErrorKind::InvalidArgument && refused.message.contains("this cursor"),
        "{refused}"
    );
    sql.run("INSERT INTO log (v) VALUES ('a')");
    assert_eq!(ids(&mut events), [1]);
    assert_silent(&mut events, 50 * MS);
    events.cancel(first).unwrap();
    events.poll(session, SELECT, of("c")).unwrap();
    sql.run("INSERT INTO log (v) VALUES ('b')");
    assert_eq!(ids(&mut events), [2]);
}

#[test]
fn a_new_cursor_begins_with_what_is_written_from_then_on() {
    let (_, mut sql, mut events, session) = polling(of("unused"));
    sql.run("INSERT INTO log (v) VALUES ('before')");
    assert_eq!(ids(&mut events), [1]);
    events.poll(session, SELECT, of("c").from_start(false)).unwrap();
    while sql.value("SELECT count(*) FROM pgwake.poll_cursor") != "2" {
        assert!(events.next(Some(MS)).unwrap().is_none());
    }
    sql.run("INSERT INTO log (v) VALUES ('after')");
    assert_eq!((ids(&mut events), ids(&mut events)), (vec![2], vec![2]));
}

#[test]
fn a_cursor_that_was_dropped_is_opened_anew_and_one_of_a_copy_begins_anew_with_a_gap() {
    let (_, mut sql, mut events, session) = polling(of("c"));
    sql.run("INSERT INTO log (v) VALUES ('a')");
    assert_eq!(ids(&mut events), [1]);
    assert_silent(&mut events, 50 * MS);
    sql.run("SELECT pgwake.drop_cursor('c'); INSERT INTO log (v) VALUES ('b')");
    assert_eq!(ids(&mut events), [2]);
    let (code, message) = refusal(&mut events, "poll");
    assert!(code == "42704" && message.contains("there is no cursor \"c\""), "{message}");
    assert_eq!(ids(&mut events), [1, 2], "from the start");
    events.disconnect(session).unwrap();
    sql.run("UPDATE pgwake.poll_cursor SET identity = 'elsewhere/1/1/1'; INSERT INTO log (v) VALUES ('c')");
    let session = events.connect(&sql_conninfo(&mut sql)).unwrap();
    events.poll(session, SELECT, of("c")).unwrap();
    assert!(matches!(next(&mut events), Seen::Listening(_)));
    loop {
        match next(&mut events) {
            Seen::Gap { channels, .. } => break assert_eq!(channels, [""; 0]),
            Seen::CommandFailed { sqlstate, .. } => assert_eq!(sqlstate, "55006"),
            other => panic!("{other:?}"),
        }
    }
    sql.run("INSERT INTO log (v) VALUES ('d')");
    assert_eq!(ids(&mut events), [4]);
}

fn sql_conninfo(sql: &mut Sql) -> String {
    let database = sql.value("SELECT current_database()");
    crate::common::server().conninfo().replace("dbname=postgres", &format!("dbname={database}"))
}

/// Inserts in transactions of all kinds until it is to stop; the ids that were committed.
fn write(conninfo: &str, mut random: Random, stop: &AtomicBool) -> Vec<i64> {
    let (mut sql, mut committed) = (Sql::connect(conninfo), Vec::new());
    while !stop.load(Ordering::Relaxed) {
        sql.run("BEGIN");
        let mut ids: Vec<i64> = Vec::new();
        for _ in 0..=random.below(4) {
            ids.push(sql.value("INSERT INTO log (v) VALUES ('x') RETURNING id").parse().unwrap());
            std::thread::sleep(Duration::from_micros(random.below(3000)));
        }
        if random.below(10) == 0 {
            sql.run("ROLLBACK");
        } else {
            sql.run("COMMIT");
            committed.extend(ids);
        }
    }
    committed
}

/// The command, whose lines are read until it is killed.
struct Consumer {
    child: std::process::Child,
    reader: std::thread::JoinHandle<()>,
}

impl Consumer {
    fn start(conninfo: &str, seen: &Arc<Mutex<Vec<i64>>>) -> Self {
        let arguments = ["-f", "json", "-d", conninfo, "poll", SELECT, "--cursor", "c", "--from-start"];
        let more = ["--every", "10ms", "--page-rows", "50", "--no-install"];
        let mut child = pgwake(&[&arguments[..], &more].concat()).spawn().unwrap();
        let (lines, seen) = (BufReader::new(child.stdout.take().unwrap()).lines(), seen.clone());
        let reader = std::thread::spawn(move || {
            // Half a line is none.
            for line in lines.map_while(Result::ok) {
                let Ok(event) = serde_json::from_str::<Value>(&line) else { continue };
                assert!(event["event"] == "rows" || event["sqlstate"] == "55006", "{event}");
                let rows = event["rows"].as_array().into_iter().flatten();
                seen.lock().unwrap().extend(rows.map(|row| row[0].as_i64().unwrap()));
            }
        });
        Consumer { child, reader }
    }

    fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        self.reader.join().unwrap();
    }
}

/// In full with PGWAKE_TEST_POLL_KILLS=50.
#[test]
fn sixteen_writers_and_a_consumer_that_is_killed_again_and_again_lose_no_row() {
    let kills = std::env::var("PGWAKE_TEST_POLL_KILLS").map_or(6, |kills| kills.parse().unwrap());
    let mut random = Random::seeded();
    let (conninfo, mut sql) = database("");
    sql.run(LOG);
    let (stop, seen) = (AtomicBool::new(false), Arc::default());
    let committed: BTreeSet<i64> = std::thread::scope(|scope| {
        let (conninfo, stop) = (&conninfo, &stop);
        let writers: Vec<_> =
            (0..16).map(|_| random.branch()).map(|r| scope.spawn(move || write(conninfo, r, stop))).collect();
        for kill in 0..kills {
            let consumer = Consumer::start(conninfo, &seen);
            std::thread::sleep(Duration::from_millis(50 + random.below(400)));
            // Every other one is killed while it acknowledges what it wrote.
            let written = seen.lock().unwrap().len();
            while kill % 2 == 1 && seen.lock().unwrap().len() == written {
                std::hint::spin_loop();
            }
            consumer.kill();
        }
        stop.store(true, Ordering::Relaxed);
        writers.into_iter().flat_map(|writer| writer.join().unwrap()).collect()
    });
    let last = Consumer::start(&conninfo, &seen);
    let started = Instant::now();
    let delivered = || seen.lock().unwrap().iter().copied().collect::<BTreeSet<i64>>();
    while !committed.is_subset(&delivered()) {
        let lost = || committed.difference(&delivered()).count();
        assert!(started.elapsed() < PATIENCE, "{} of {} rows are lost", lost(), committed.len());
        std::thread::sleep(20 * MS);
    }
    last.kill();
    let events = seen.lock().unwrap().len();
    say_loudly(&format!(
        "{} rows of 16 writers, {kills} kills: 0 lost, {} came again",
        committed.len(),
        events - delivered().len()
    ));
    assert_eq!(delivered(), committed, "what was rolled back came");
    assert!(committed.len() > 100, "too few to show anything");
}

#[test]
fn the_command_goes_on_where_the_last_run_ended() {
    let (conninfo, mut sql) = database("");
    sql.run(LOG);
    sql.run("INSERT INTO log (v) VALUES ('a')");
    sql.run("INSERT INTO log (v) VALUES ('b')");
    let run = |count: &str| {
        let arguments = ["-f", "json", "-d", &conninfo, "poll", SELECT, "--cursor", "c", "--from-start"];
        let mut running = Running::start(
            &[&arguments[..], &["--page-rows", "1", "--count", count, "--every", "10ms"]].concat(),
        );
        let event = running.json();
        assert_eq!((&event["poll"], &event["columns"]), (&SELECT.into(), &["id", "v", "xid"][..].into()));
        let value = (event["rows"][0][0].as_i64().unwrap(), event["rows"][0][1].clone());
        assert_eq!(running.status(), 0);
        value
    };
    assert_eq!(run("1"), (1, "a".into()));
    assert_eq!(run("1"), (2, "b".into()));
    sql.run("INSERT INTO log (v) VALUES (NULL)");
    assert_eq!(run("1"), (3, Value::Null));
}

fn poll<'a>(conninfo: &'a str, sql: &'a str, more: &[&'a str]) -> Vec<&'a str> {
    let fixed = ["-f", "json", "-d", conninfo, "poll", sql, "--cursor", "c", "--name", "log", "--count", "1"];
    [&fixed[..], more].concat()
}

#[test]
fn a_query_that_cannot_be_run_keeps_no_position() {
    let (conninfo, mut sql) = database("");
    sql.run(LOG);
    sql.run("INSERT INTO log (v) VALUES ('a')");
    let role = sql.value("SELECT 'cursors_' || current_database()");
    sql.run(&format!("CREATE ROLE {role} LOGIN"));
    succeed(&["-d", &conninfo, "install"]);
    sql.run(&format!("GRANT USAGE ON SCHEMA pgwake TO {role}"));
    sql.run(&format!("GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA pgwake TO {role}"));
    let plain = conninfo.replace("user=postgres", &format!("user={role}"));
    for (conninfo, query, code) in [
        (&conninfo, "SELECT id, v FROM log", "42703"),
        (&conninfo, "SELECT id, xid FROM log WHERE id = $1", "08P01"),
        (&conninfo, "SELECT * FROM log LIMIT 1", "42601"),
        (&plain, "SELECT * FROM log", "42501"),
    ] {
        let output = run(&poll(conninfo, query, &["--no-install"]));
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.code() == Some(1) && said.contains(code), "{said}");
    }
    assert_eq!(sql.value("SELECT count(*) FROM pgwake.poll_cursor"), "0");
    let lines = succeed(&poll(&conninfo, SELECT, &["--from-start"]));
    assert!(lines.contains(r#"[1,"a","#), "{lines}");
}

#[test]
fn from_start_says_so_when_it_changes_nothing() {
    let (conninfo, mut sql) = database("");
    sql.run(LOG);
    sql.run("INSERT INTO log (v) VALUES ('a')");
    sql.run("INSERT INTO log (v) VALUES ('b')");
    for (value, is_there) in [("a", false), ("b", true)] {
        let output = run(&poll(&conninfo, SELECT, &["--from-start", "--page-rows", "1"]));
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(String::from_utf8(output.stdout).unwrap().contains(&format!("\"{value}\"")), "{said}");
        let warning = "the cursor \"c\" is there already: it goes on where it was read up to";
        assert_eq!(said.contains(warning), is_there, "{said}");
    }
}

#[test]
fn a_query_with_a_limit_of_its_own_would_lose_rows_and_is_refused() {
    let (_, mut sql, mut events, session) = polling(of("c"));
    for query in [
        format!("{SELECT} LIMIT 5"),
        format!("({SELECT} LIMIT 5)"),
        format!("{SELECT} ORDER BY id FETCH FIRST 5 ROWS ONLY"),
        format!("{SELECT} OFFSET 1"),
        format!("{SELECT} LIMIT 5 -- five"),
    ] {
        let task = events.poll(session, &query, of("limited").name("limited")).unwrap();
        let (code, message) = refusal(&mut events, "poll");
        assert!(code == "42601" && message.ends_with("neither LIMIT nor OFFSET: leave it out"), "{message}");
        events.cancel(task).unwrap();
    }
    assert_eq!(sql.value("SELECT string_agg(name, ' ') FROM pgwake.poll_cursor"), "c");
    let within = format!("SELECT * FROM ({SELECT} WHERE id = (SELECT id FROM log LIMIT 1) FOR UPDATE) l");
    events.poll(session, &within, of("within").name("within")).unwrap();
    sql.run("INSERT INTO log (v) VALUES ('a')");
    assert_eq!((ids(&mut events), ids(&mut events)), (vec![1], vec![1]));
}

#[test]
fn a_transaction_that_is_too_large_says_how_it_comes_all_the_same() {
    let (conninfo, mut sql) = database("");
    sql.run(LOG);
    sql.run("INSERT INTO log (v) SELECT repeat('x', 10000) FROM generate_series(1, 2000)");
    let output = run(&poll(&conninfo, SELECT, &["--from-start", "--bytes-max", "16MB"]));
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.code() == Some(1) && said.contains("(SQLSTATE 54000)"), "{said}");
    assert!(said.contains("page_rows") && said.contains("--bytes-max") && !said.contains("LIMIT"), "{said}");
    let lines = succeed(&poll(&conninfo, SELECT, &["--from-start", "--bytes-max", "64MB"]));
    let row = lines.lines().find(|line| line.contains("\"rows\"")).unwrap();
    let event: Value = serde_json::from_str(row).unwrap();
    assert_eq!(event["rows"].as_array().unwrap().len(), 2000);
}
