//! Polls in batches: rows are locked for one caller until they are acknowledged, and then done with.

use crate::common::{Seen, Sql, assert_silent, fresh_channel, next, refusal, server};
use crate::polls::{MS, connected, rows, with_rows};
use pgwake::{EventLoop, PollOptions, SessionId};
use std::collections::BTreeSet;
use std::time::Duration;

/// Jobs from 1 on, in a table of their own.
fn jobs(count: u32) -> (Sql, String) {
    let (mut sql, table) = (Sql::connect(&server().conninfo()), fresh_channel());
    sql.run(&format!("CREATE TABLE {table} (id int PRIMARY KEY, name text)"));
    sql.run(&format!("INSERT INTO {table} SELECT i, 'job ' || i FROM generate_series(1, {count}) i"));
    (sql, table)
}

fn of(table: &str, rows: u32) -> PollOptions {
    let done = format!("DELETE FROM {table} WHERE id = ANY ($1)");
    PollOptions::new().name("jobs").every(10 * MS).batch_rows(rows).done(done)
}

fn polling(table: &str, options: PollOptions) -> (EventLoop, SessionId) {
    let (mut events, session) = connected(&server().conninfo());
    events.poll(session, &format!("SELECT id, name FROM {table} ORDER BY id;"), options).unwrap();
    (events, session)
}

fn ids(events: &mut EventLoop) -> Vec<i32> {
    rows(events).iter().map(|row| row[0].parse().unwrap()).collect()
}

/// Waits for a moment in which no batch is open: one ends only while its caller asks for events.
fn alter(events: &mut EventLoop, sql: &mut Sql, statement: &str) {
    while sql.try_run(&format!("SET lock_timeout = '20ms'; {statement}")).is_err() {
        assert_silent(events, MS);
    }
}

fn left(sql: &mut Sql, table: &str) -> String {
    sql.value(&format!("SELECT string_agg(id::text, ' ' ORDER BY id) FROM {table}"))
}

#[test]
fn two_callers_never_have_the_same_row_and_what_is_acknowledged_is_done_with() {
    let (mut sql, table) = jobs(40);
    let mut callers: Vec<_> = (0..2).map(|_| polling(&table, of(&table, 3))).collect();
    let first: Vec<Vec<i32>> = callers.iter_mut().map(|(events, _)| ids(events)).collect();
    assert_eq!(first, [[1, 2, 3], [4, 5, 6]], "both have them at once");
    assert!(left(&mut sql, &table).starts_with("1 2 3"), "nothing is done with yet");
    let mut seen: Vec<i32> = first.concat();
    while seen.len() < 40 {
        for (events, _) in &mut callers {
            if seen.len() < 40 {
                seen.extend(ids(events));
            }
        }
    }
    assert_eq!(seen.iter().copied().collect::<BTreeSet<_>>(), (1..=40).collect(), "each once: {seen:?}");
    callers.iter_mut().for_each(|(events, _)| assert_silent(events, 50 * MS));
    assert_eq!(left(&mut sql, &table), "");
    // Nothing stays open without rows.
    let idle = "SELECT count(*) FROM pg_stat_activity WHERE state = 'idle in transaction' AND query LIKE ";
    while sql.value(&format!("{idle} '%{table}%'")) != "0" {
        callers.iter_mut().for_each(|(events, _)| assert_silent(events, MS));
    }
}

#[test]
fn rows_stay_locked_until_the_caller_acknowledges_them_and_a_wake_up_brings_the_next() {
    let (mut sql, table) = jobs(2);
    let channel = fresh_channel();
    let options = of(&table, 2).every(Duration::from_secs(3600)).wake_on(&channel).manual_ack(true);
    let (mut events, session) = polling(&table, options);
    let number = loop {
        match next(&mut events) {
            Seen::Listening(_) => {}
            Seen::Other(event) => {
                let (_, rest) = event.split_once(" id: ").unwrap();
                break rest.split(|c: char| !c.is_ascii_digit()).next().unwrap().parse().unwrap();
            }
            other => panic!("{other:?}"),
        }
    };
    assert_silent(&mut events, 50 * MS);
    let free = format!("SELECT count(*) FROM (SELECT FROM {table} FOR UPDATE SKIP LOCKED) f");
    assert_eq!(sql.value(&free), "0");
    events.ack(session, number).unwrap();
    assert!(matches!(next(&mut events), Seen::Other(event) if event.starts_with("Acknowledged")));
    assert_eq!(left(&mut sql, &table), "");
    sql.run(&format!("INSERT INTO {table} VALUES (3, 'three'); NOTIFY {channel}"));
    with_rows(&mut events, |rows| assert_eq!(rows.row(0).unwrap().get_str("name"), Some("three")));
}

#[test]
fn rows_of_a_lost_connection_come_again() {
    let (mut sql, table) = jobs(1);
    let application = fresh_channel();
    let (mut events, session) = connected(&format!("{} application_name={application}", server().conninfo()));
    let select = format!("SELECT id FROM {table}");
    events.poll(session, &select, of(&table, 5).manual_ack(true)).unwrap();
    let number = with_rows(&mut events, |rows| rows.id);
    sql.run(&format!(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = '{application}'"
    ));
    assert_eq!(next(&mut events), Seen::Disconnected("57P01".into()));
    let (code, message) = refusal(&mut events, "poll");
    assert!(code == "08007" && message.contains("they come again"), "{message}");
    // Too late, and harmless.
    events.ack(session, number).unwrap();
    assert!(matches!(next(&mut events), Seen::Gap { .. }));
    let again = with_rows(&mut events, |rows| (rows.id, rows.row(0).unwrap().get_str(0).map(String::from)));
    assert_eq!(again, (number + 1, Some("1".into())));
    events.ack(session, number + 1).unwrap();
    assert!(matches!(next(&mut events), Seen::Other(_)));
    assert_eq!(left(&mut sql, &table), "");
}

#[test]
fn what_cannot_be_done_with_is_reported_and_comes_again() {
    let (mut sql, table) = jobs(2);
    sql.run(&format!(
        "CREATE TABLE of_{table} (id int REFERENCES {table}); INSERT INTO of_{table} VALUES (1)"
    ));
    let (mut events, _) = polling(&table, of(&table, 5));
    assert_eq!(ids(&mut events), [1, 2]);
    let (code, message) = refusal(&mut events, "poll");
    assert!(code == "23503" && message.starts_with("the poll \"jobs\": "), "{message}");
    assert_eq!(ids(&mut events), [1, 2]);
    // A lock on the table itself would wait for the batch.
    sql.run(&format!("DELETE FROM of_{table}"));
    while !left(&mut sql, &table).is_empty() {
        assert!(events.next(Some(10 * MS)).unwrap().is_none_or(|event| event.name() == "rows"));
    }
    // A query that is refused leaves no transaction behind.
    alter(&mut events, &mut sql, &format!("ALTER TABLE {table} RENAME id TO i"));
    loop {
        match next(&mut events) {
            Seen::CommandFailed { sqlstate, .. } => break assert_eq!(sqlstate, "42703"),
            other => assert!(matches!(other, Seen::Other(_)), "{other:?}"),
        }
    }
    alter(&mut events, &mut sql, &format!("ALTER TABLE {table} RENAME i TO id"));
    sql.run(&format!("INSERT INTO {table} VALUES (9)"));
    assert_eq!(ids(&mut events), [9]);
}

/// Otherwise the caller would not know of the second.
#[test]
fn each_acknowledgement_that_is_refused_has_its_answer() {
    let (_, table) = jobs(2);
    let options = of(&table, 2).done(format!("DELETE FROM no_{table}")).manual_ack(true);
    let (mut events, session) = polling(&table, options);
    for _ in 0..3 {
        let number = with_rows(&mut events, |rows| rows.id);
        events.ack(session, number).unwrap();
        let (code, message) = refusal(&mut events, "poll");
        assert!(code == "42P01" && message.contains(&format!("no_{table}")), "{message}");
    }
}

#[test]
fn a_batch_has_its_session_for_itself_and_gives_it_back() {
    let (mut sql, table) = jobs(3);
    let (mut events, session) = connected(&server().conninfo());
    let select = format!("SELECT id FROM {table} ORDER BY id");
    let task = events.poll(session, &select, of(&table, 1)).unwrap();
    assert_eq!(ids(&mut events), [1]);
    for refused in [
        events.listen(session, "c"),
        events.notify(session, "c", ""),
        events.watch(session, &table),
        events.watch_ddl(session, pgwake::DdlOptions::new()),
        events.poll(session, "SELECT 1", PollOptions::new()).map(drop),
    ] {
        assert!(refused.unwrap_err().message.contains("connect another one"));
    }
    // Ended before it was acknowledged: the rows are free, and the session is for others.
    events.cancel(task).unwrap();
    events.poll(session, "SELECT 'mine'", PollOptions::new().every(Duration::from_secs(3600))).unwrap();
    assert_eq!(rows(&mut events), [["mine"]]);
    assert_eq!(left(&mut sql, &table), "1 2 3");
    assert_eq!(
        sql.value(&format!("SELECT count(*) FROM (SELECT FROM {table} FOR UPDATE SKIP LOCKED) f")),
        "3"
    );
    let error = events.poll(session, &select, of(&table, 1)).unwrap_err();
    assert!(error.message.contains("a session of its own"), "{error}");
}
