//! Queries that are run again and again: their rows by name and position, wake-ups, errors, outages.

use crate::common::{
    PATIENCE, Seen, Sql, assert_silent, fresh_channel, listening, next, refusal, server, start_server,
};
use pgwake::{Event, EventLoop, PollOptions, Rows, ScheduleOptions, SessionOptions, TaskId};
use std::time::{Duration, Instant};

pub(crate) const MS: Duration = Duration::from_millis(1);
const HOUR: Duration = Duration::from_secs(3600);

/// A session that is connected.
pub(crate) fn connected(conninfo: &str) -> (EventLoop, pgwake::SessionId) {
    listening(conninfo, &[])
}

/// The next rows, which must come before anything else, as text.
pub(crate) fn rows(events: &mut EventLoop) -> Vec<Vec<String>> {
    with_rows(events, |rows| texts(&rows))
}

pub(crate) fn with_rows<T>(events: &mut EventLoop, look: impl FnOnce(Rows<'_>) -> T) -> T {
    match events.next(Some(PATIENCE)).unwrap().expect("rows were expected, and none came") {
        Event::Rows(rows) => look(rows),
        other => panic!("{other:?}"),
    }
}

pub(crate) fn texts(rows: &Rows<'_>) -> Vec<Vec<String>> {
    let columns = rows.columns().len();
    let text = |value: Option<&str>| value.unwrap_or("NULL").to_string();
    rows.iter().map(|row| (0..columns).map(|column| text(row.get_str(column))).collect()).collect()
}

/// A table of its own for a test.
fn table(sql: &mut Sql, columns: &str) -> String {
    let name = fresh_channel();
    sql.run(&format!("CREATE TABLE {name} ({columns})"));
    name
}

#[test]
fn rows_come_as_one_event_by_name_and_position_in_both_formats() {
    for binary in [false, true] {
        let (mut events, session) = connected(&server().conninfo());
        let sql = "SELECT g AS id, $2::text AS note, NULL::int AS nothing, $1::bool AS id, ARRAY[g, NULL] AS \
                   a FROM generate_series(1, 2) g;";
        let options = PollOptions::new().name("two").binary(binary).parameter("t").parameter("caf\u{e9}");
        let task = events.poll(session, sql, options.every(HOUR)).unwrap();
        with_rows(&mut events, |rows| {
            assert_eq!((rows.task, rows.poll, rows.id, rows.len()), (task, "two", 0, 2));
            assert_eq!((rows.session, rows.db, rows.is_empty()), (session, "postgres", false));
            assert_eq!(rows.columns(), ["id", "note", "nothing", "id", "a"]);
            assert_eq!((rows.type_oid(0), rows.type_oid(4), rows.type_oid(5)), (23, 1007, 0));
            let row = rows.row(1).unwrap();
            assert!(rows.row(2).is_none());
            let expected: &[u8] = if binary { &[0, 0, 0, 2] } else { b"2" };
            assert_eq!((row.get(0), row.get("id")), (Some(expected), Some(expected)));
            assert_eq!((row.get_str("note"), row.get_str(1)), (Some("caf\u{e9}"), Some("caf\u{e9}")));
            assert_eq!((row.get("nothing"), row.get("other"), row.get(5)), (None, None, None));
            let mut json = String::new();
            row.write_json_array(&mut json);
            assert_eq!(json, "[2,\"caf\u{e9}\",null,true,[2,null]]");
        });
        assert_silent(&mut events, 20 * MS);
        assert_eq!(events.metrics(session).unwrap().polls, 1);
    }
}

#[test]
fn the_next_query_waits_for_its_interval_and_for_the_caller() {
    let mut sql = Sql::connect(&server().conninfo());
    let table = table(&mut sql, "at timestamptz");
    let (mut events, session) = connected(&server().conninfo());
    let insert = format!("INSERT INTO {table} VALUES (clock_timestamp()) RETURNING at");
    events.poll(session, &insert, PollOptions::new().every(50 * MS)).unwrap();
    for _ in 0..3 {
        assert_eq!(rows(&mut events).len(), 1);
        std::thread::sleep(120 * MS);
        // Two intervals are over, and the caller did not ask for more.
    }
    let count = sql.value(&format!("SELECT count(*) FROM {table}"));
    assert_eq!(count, "3");
    let gaps = format!(
        "SELECT min(at - before) >= '0.1' FROM (SELECT at, lag(at) OVER (ORDER BY at) AS before FROM \
        {table}) g"
    );
    assert_eq!(sql.value(&gaps), "t");
    let nothing = format!("SELECT * FROM {table} WHERE false");
    events.poll(session, &nothing, PollOptions::new().every(MS)).unwrap();
    while events.metrics(session).unwrap().polls < 50 {
        with_rows(&mut events, |rows| assert_eq!(rows.poll, insert));
    }
}

#[test]
fn a_wake_up_beats_the_interval_and_is_not_delivered_unless_the_caller_listens() {
    let channel = fresh_channel();
    let mut sql = Sql::connect(&server().conninfo());
    let table = table(&mut sql, "id int");
    let (mut events, session) = connected(&server().conninfo());
    let take = format!("DELETE FROM {table} RETURNING id");
    let options = PollOptions::new().every(HOUR).adaptive(2 * HOUR).wake_on(&channel);
    let task = events.poll(session, &take, options.clone()).unwrap();
    assert_eq!(next(&mut events), Seen::listening(&[&channel]));
    while events.metrics(session).unwrap().polls == 0 {
        assert!(events.next(Some(MS)).unwrap().is_none());
    }
    let started = Instant::now();
    sql.run(&format!("INSERT INTO {table} VALUES (1); NOTIFY {channel}"));
    assert_eq!(rows(&mut events), [["1"]]);
    assert!(started.elapsed() < PATIENCE, "it would have been an hour");
    // The caller listens, too: the notification comes, and the rows.
    events.listen(session, &channel).unwrap();
    sql.run(&format!("INSERT INTO {table} VALUES (2); NOTIFY {channel}, 'x'"));
    assert_eq!(next(&mut events), Seen::notification(&channel, "x"));
    assert_eq!(rows(&mut events), [["2"]]);
    events.unlisten(session, &channel).unwrap();
    sql.run(&format!("INSERT INTO {table} VALUES (3); NOTIFY {channel}, 'y'"));
    assert_eq!(rows(&mut events), [["3"]]);
    // Nobody hears the channel once the poll has ended.
    events.cancel(task).unwrap();
    assert!(events.cancel(task).is_err());
    // What is asked behind that is answered once the server does not listen any more.
    let once = events.poll(session, "SELECT 1", PollOptions::new().every(HOUR)).unwrap();
    assert_eq!(rows(&mut events), [["1"]]);
    events.cancel(once).unwrap();
    sql.run(&format!("INSERT INTO {table} VALUES (4); NOTIFY {channel}"));
    assert_silent(&mut events, 50 * MS);
    // A caller that listened before goes on to hear it.
    events.listen(session, &channel).unwrap();
    assert_eq!(next(&mut events), Seen::listening(&[&channel]));
    let task = events.poll(session, &take, options).unwrap();
    assert_eq!(rows(&mut events), [["4"]]);
    events.cancel(task).unwrap();
    sql.notify(&channel, "z");
    assert_eq!(next(&mut events), Seen::notification(&channel, "z"));
}

#[test]
fn a_lost_session_polls_at_once_when_it_is_back_and_then_by_its_interval() {
    let mut sql = Sql::connect(&server().conninfo());
    let table = table(&mut sql, "id int");
    let channel = fresh_channel();
    let conninfo = format!("{} application_name={channel}", server().conninfo());
    let (mut events, session) = connected(&conninfo);
    let take = format!("DELETE FROM {table} RETURNING id");
    let options = PollOptions::new().every(100 * MS).wake_on(&channel);
    events.poll(session, &take, options).unwrap();
    assert_eq!(next(&mut events), Seen::listening(&[&channel]));
    let end = format!(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = '{channel}'"
    );
    for round in 0..3 {
        sql.run(&end);
        sql.run(&format!("INSERT INTO {table} VALUES ({round})"));
        let mut seen = Vec::new();
        while !matches!(seen.last(), Some(Seen::Other(_))) {
            seen.push(next(&mut events));
        }
        assert_eq!(seen[0], Seen::Disconnected("57P01".into()), "{seen:?}");
        // What was asked meanwhile has no answer.
        seen.retain(|event| !matches!(event, Seen::CommandFailed { .. }));
        assert!(matches!(&seen[..], [_, Seen::Gap { .. }, Seen::Other(_)]), "{seen:?}");
        // Nobody wakes it.
        sql.run(&format!("INSERT INTO {table} VALUES (7)"));
        assert_eq!(rows(&mut events), [["7"]]);
    }
}

#[test]
fn an_error_is_reported_once_with_the_polls_name_and_the_poll_goes_on() {
    let mut sql = Sql::connect(&server().conninfo());
    let table = fresh_channel();
    let (mut events, session) = connected(&server().conninfo());
    let select = format!("SELECT id FROM {table}");
    events.poll(session, &select, PollOptions::new().every(MS).name("orders")).unwrap();
    let (code, message) = refusal(&mut events, "poll");
    assert_eq!(code, "42P01");
    assert!(message.starts_with(&format!("the poll \"orders\": relation \"{table}\" does")), "{message}");
    assert_silent(&mut events, 200 * MS);
    sql.run(&format!("CREATE TABLE {table} (id int); INSERT INTO {table} VALUES (5)"));
    assert_eq!(rows(&mut events), [["5"]]);
    // Another error, and the same as before: it was mended meanwhile.
    sql.run(&format!("ALTER TABLE {table} RENAME id TO i"));
    loop {
        match next(&mut events) {
            Seen::Other(_) => {}
            Seen::CommandFailed { sqlstate, .. } => break assert_eq!(sqlstate, "42703"),
            other => panic!("{other:?}"),
        }
    }
    sql.run(&format!("ALTER TABLE {table} RENAME i TO id"));
    assert_eq!(rows(&mut events), [["5"]]);
    sql.run(&format!("ALTER TABLE {table} RENAME id TO i"));
    while !matches!(next(&mut events), Seen::CommandFailed { .. }) {}
}

#[test]
fn a_query_that_takes_too_long_is_ended_and_one_that_may_is_not_taken_for_a_dead_server() {
    let mut events = EventLoop::new().unwrap();
    let session =
        events.connect_with(&server().conninfo(), SessionOptions::new().heartbeat(100 * MS)).unwrap();
    assert!(matches!(next(&mut events), Seen::Listening(_)));
    let quick = PollOptions::new().name("quick").statement_timeout(50 * MS).every(HOUR);
    events.poll(session, "SELECT pg_sleep(60)", quick).unwrap();
    let (code, message) = refusal(&mut events, "poll");
    assert_eq!(code, "57014");
    assert!(
        message.starts_with("the poll \"quick\": ") && message.contains("let it take longer"),
        "{message}"
    );
    // Five heartbeats.
    events.poll(session, "SELECT 1 FROM pg_sleep(0.5)", PollOptions::new().every(HOUR)).unwrap();
    assert_eq!(rows(&mut events), [["1"]]);
    let (sql, forever) =
        ("SELECT 2 FROM pg_sleep(0.5)", PollOptions::new().statement_timeout(Duration::ZERO));
    events.poll(session, sql, forever.every(HOUR)).unwrap();
    assert_eq!(rows(&mut events), [["2"]]);
    let longest = PollOptions::new().every(HOUR).statement_timeout(Duration::MAX);
    events.poll(session, "SHOW statement_timeout", longest).unwrap();
    assert_eq!(rows(&mut events), [["2147483647ms"]]);
    // What holds for a poll does not hold for the session.
    assert_eq!(timeout_of(&mut events, session), "0");
}

#[test]
fn a_poll_that_waits_for_its_turn_behind_others_is_not_taken_for_one_without_an_answer() {
    let (mut events, session) = connected(&server().conninfo());
    let options = || PollOptions::new().every(HOUR).statement_timeout(4000 * MS);
    for _ in 0..4 {
        events.poll(session, "SELECT 1 FROM pg_sleep(2.6)", options()).unwrap();
    }
    for _ in 0..4 {
        assert_eq!(rows(&mut events), [["1"]]);
    }
}

#[test]
fn a_server_may_take_its_time_for_a_schedule_also_when_a_poll_is_answered_meanwhile() {
    let mut events = EventLoop::new().unwrap();
    let session =
        events.connect_with(&server().conninfo(), SessionOptions::new().heartbeat(200 * MS)).unwrap();
    assert!(matches!(next(&mut events), Seen::Listening(_)));
    events.poll(session, "SELECT 1 FROM pg_sleep(1)", PollOptions::new().every(HOUR)).unwrap();
    let job = ScheduleOptions::new().sql(session, "SELECT pg_sleep(1.5)");
    let task = events.every_with(500 * MS, job).unwrap();
    assert!(matches!(next(&mut events), Seen::Other(_)), "it is due");
    assert_eq!(rows(&mut events), [["1"]]);
    events.cancel(task).unwrap();
    while events.is_under_way(task) {
        if let Some(event) = events.next(Some(MS)).unwrap() {
            panic!("{event:?}");
        }
    }
}

fn timeout_of(events: &mut EventLoop, session: pgwake::SessionId) -> String {
    let options = PollOptions::new().every(HOUR).statement_timeout(Duration::ZERO);
    events.poll(session, "SHOW statement_timeout", options).unwrap();
    rows(events)[0][0].clone()
}

#[test]
fn a_server_that_freezes_while_it_is_polled_is_noticed() {
    let server = start_server();
    let (mut events, session) = connected(&server.conninfo());
    let pid = Sql::connect(&server.conninfo()).value(
        "SELECT pid FROM pg_stat_activity WHERE query LIKE '%pg_backend_pid()%' AND pid <> pg_backend_pid()",
    );
    let options = PollOptions::new().every(10 * MS).statement_timeout(100 * MS);
    events.poll(session, "SELECT 1", options).unwrap();
    assert_eq!(rows(&mut events), [["1"]]);
    let pid: i32 = pid.parse().unwrap();
    crate::common::signal(pid, rustix::process::Signal::STOP);
    let started = Instant::now();
    loop {
        match next(&mut events) {
            Seen::Other(_) => {}
            Seen::Disconnected(code) => break assert_eq!(code, "08006"),
            other => panic!("{other:?}"),
        }
    }
    assert!(started.elapsed() > 5 * Duration::from_secs(1), "there was no time to answer");
    crate::common::signal(pid, rustix::process::Signal::CONT);
}

#[test]
fn rows_that_are_too_many_are_named_and_do_not_stop_the_others() {
    let (mut events, session) = connected(&server().conninfo());
    events.poll(session, "SELECT 1", PollOptions::new().every(10 * MS).bytes_max(17 << 20)).unwrap();
    assert_eq!(rows(&mut events), [["1"]]);
    let huge = "SELECT repeat('x', 1000) FROM generate_series(1, 30000)";
    let options = PollOptions::new().every(HOUR).name("huge").bytes_max(17 << 20);
    events.poll(session, huge, options).unwrap();
    let mut seen: Vec<(String, String)> = Vec::new();
    // The others were asked behind it, and have no answer either.
    while !seen.iter().any(|(_, message)| message.contains("the poll \"huge\"")) {
        match events.next(Some(PATIENCE)).unwrap().unwrap() {
            Event::Disconnected(e) => seen.push((e.sqlstate.unwrap().to_string(), e.message.to_string())),
            Event::CommandFailed(e) => seen.push((e.sqlstate.unwrap().to_string(), e.message.to_string())),
            Event::Rows(_) => {}
            other => panic!("{other:?}"),
        }
    }
    assert!(seen[0].0 == "54000" && seen[0].1.contains("more than 17 MB"), "{seen:?}");
    let (code, message) = seen.last().unwrap();
    assert!(code == "54000" && message.contains("more than 17 MB: let it have more"), "{seen:?}");
    assert!(message.contains("bytes_max") && message.contains("LIMIT"), "{seen:?}");
    loop {
        match next(&mut events) {
            Seen::Gap { .. } => break,
            Seen::CommandFailed { sqlstate, .. } => assert_eq!(sqlstate, "08007"),
            other => panic!("{other:?}"),
        }
    }
    for _ in 0..5 {
        assert_eq!(rows(&mut events), [["1"]]);
    }
}

/// An hour of a poll at 1 s that may wait a minute, a thousand times as fast, counted by the server.
#[test]
fn an_idle_poll_asks_seldom() {
    let mut sql = Sql::connect(&server().conninfo());
    let sequence = fresh_channel();
    sql.run(&format!("CREATE SEQUENCE {sequence}"));
    let (mut events, session) = connected(&server().conninfo());
    let options = PollOptions::new().every(MS).adaptive(60 * MS);
    events.poll(session, &format!("SELECT 1 WHERE nextval('{sequence}') < 0"), options).unwrap();
    assert_silent(&mut events, 3600 * MS);
    let count: u64 = sql.value(&format!("SELECT last_value FROM {sequence}")).parse().unwrap();
    println!("{count} queries");
    assert!((2..=70).contains(&count), "{count} queries");
}

#[test]
fn a_standby_is_polled_as_long_as_nothing_is_to_be_heard_or_written() {
    let mut standby = start_server();
    crate::common::make_standby(&mut standby);
    let mut events = EventLoop::new().unwrap();
    let session = events.connect(&format!("{} target_session_attrs=any", standby.conninfo())).unwrap();
    events.poll(session, "SELECT pg_is_in_recovery()", PollOptions::new().every(10 * MS)).unwrap();
    assert!(matches!(next(&mut events), Seen::Listening(_)));
    for _ in 0..3 {
        assert_eq!(rows(&mut events), [["t"]]);
    }
}

#[test]
fn a_session_that_reads_ahead_polls_and_is_woken_like_any_other() {
    let channel = fresh_channel();
    let mut events = EventLoop::new().unwrap();
    let options = SessionOptions::new().overflow(pgwake::Overflow::Coalesce);
    let session = events.connect_with(&server().conninfo(), options).unwrap();
    events.listen(session, "other").unwrap();
    let options = PollOptions::new().every(HOUR).wake_on(&channel);
    events.poll(session, "SELECT clock_timestamp()", options).unwrap();
    assert!(matches!(next(&mut events), Seen::Listening(_)));
    assert_eq!(rows(&mut events).len(), 1);
    let mut sql = Sql::connect(&server().conninfo());
    for _ in 0..3 {
        sql.notify(&channel, "");
        assert_eq!(rows(&mut events).len(), 1);
    }
    sql.notify("other", "x");
    assert_eq!(next(&mut events), Seen::notification("other", "x"));
}

#[test]
fn several_polls_of_a_session_have_their_turn_each() {
    let (mut events, session) = connected(&server().conninfo());
    let poll = |events: &mut EventLoop, number: usize| -> TaskId {
        events.poll(session, &format!("SELECT {number}"), PollOptions::new().every(MS)).unwrap()
    };
    let tasks: Vec<TaskId> = (0..4).map(|number| poll(&mut events, number)).collect();
    let mut counts = [0; 4];
    while counts.iter().any(|count| *count < 20) {
        let task = with_rows(&mut events, |rows| rows.task);
        counts[tasks.iter().position(|known| *known == task).unwrap()] += 1;
    }
    assert!(counts.iter().all(|count| *count < 60), "{counts:?}");
    tasks.iter().for_each(|task| events.cancel(*task).unwrap());
    assert_silent(&mut events, 50 * MS);
}

#[test]
fn a_poll_that_is_cancelled_while_it_runs_leaves_a_session_that_hears_its_server() {
    let mut events = EventLoop::new().unwrap();
    let options = SessionOptions::new().heartbeat(100 * MS);
    let session = events.connect_with(&server().conninfo(), options).unwrap();
    assert!(matches!(next(&mut events), Seen::Listening(_)));
    let task = events.poll(session, "SELECT 1 FROM pg_sleep(0.5)", PollOptions::new().every(MS)).unwrap();
    assert_silent(&mut events, 50 * MS);
    events.cancel(task).unwrap();
    // Five heartbeats: it is not taken for dead. And then it is asked for signs of life again.
    assert_silent(&mut events, 700 * MS);
    let probed = events.metrics(session).unwrap().last_probe;
    assert_silent(&mut events, 300 * MS);
    assert!(events.metrics(session).unwrap().last_probe > probed);
    let channel = fresh_channel();
    events.listen(session, &channel).unwrap();
    assert_eq!(next(&mut events), Seen::listening(&[&channel]));
    Sql::connect(&server().conninfo()).notify(&channel, "heard");
    assert_eq!(next(&mut events), Seen::notification(&channel, "heard"));
}

#[test]
fn queries_and_rows_are_utf8_in_databases_of_other_encodings() {
    let latin1 = "ENCODING 'LATIN1' LC_COLLATE 'C' LC_CTYPE 'C' TEMPLATE template0";
    let (conninfo, mut sql) = crate::common::outbox::database(latin1);
    sql.run("SET client_encoding TO UTF8");
    sql.run(
        "CREATE TABLE caf\u{e9} (\u{e9}t\u{e9} text, xid xid8 NOT NULL \
         DEFAULT pg_current_xact_id()); INSERT INTO caf\u{e9} VALUES ('\u{fc}')",
    );
    let channel = "caf\u{e9}";
    let (mut events, session) = connected(&conninfo);
    let select = "SELECT \u{e9}t\u{e9}, xid FROM caf\u{e9} WHERE \u{e9}t\u{e9} = $1";
    let options = PollOptions::new().cursor("na\u{ef}ve").from_start(true).parameter("\u{fc}").every(10 * MS);
    events.poll(session, select, options).unwrap();
    with_rows(&mut events, |rows| {
        assert_eq!(rows.columns()[0], "\u{e9}t\u{e9}");
        assert_eq!(rows.row(0).unwrap().get_str("\u{e9}t\u{e9}"), Some("\u{fc}"));
    });
    // What is heard is in the server's encoding still.
    events.listen(session, b"caf\xe9").unwrap();
    assert!(matches!(next(&mut events), Seen::Listening(_)));
    sql.notify(channel, "\u{fc}");
    match events.next(Some(PATIENCE)).unwrap() {
        Some(Event::Notification(n)) => {
            assert_eq!((&n.channel[..], &n.payload[..]), (&b"caf\xe9"[..], &b"\xfc"[..]))
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(sql.value("SELECT name FROM pgwake.poll_cursor"), "na\u{ef}ve");
}

#[test]
fn what_cannot_be_polled_is_refused_at_once() {
    let (mut events, session) = connected(&server().conninfo());
    for (sql, words) in [
        ("", "not empty"),
        ("COPY t TO STDOUT", "COPY"),
        ("/* x */ begin", "BEGIN"),
        (";", "nothing to run"),
        ("SELECT '\0'", "NUL"),
    ] {
        let error = events.poll(session, sql, PollOptions::new()).unwrap_err();
        assert!(error.message.contains(words), "{error}");
    }
    assert!(events.poll(session, "SELECT 1", PollOptions::new().wake_on("x".repeat(64))).is_err());
    events.disconnect(session).unwrap();
    assert!(events.poll(session, "SELECT 1", PollOptions::new()).is_err());
}
