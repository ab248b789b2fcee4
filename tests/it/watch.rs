//! Row changes through the loop: watched, told, acknowledged, and told again where that was promised.

use crate::common::outbox::database;
use crate::common::{PATIENCE, Seen, Sql, assert_silent, next};
use pgwake::json::JsonValue;
use pgwake::{
    Change, ChangeOp, ChangePayload, Event, EventLoop, SessionId, SessionOptions, Transport, WatchOptions,
};
use std::time::Duration;

/// A change that owns its data.
#[derive(Debug, Clone, PartialEq)]
struct Owned {
    op: ChangeOp,
    table: String,
    key: JsonValue,
    old: JsonValue,
    new: JsonValue,
    id: Option<u64>,
    json: String,
}

impl Owned {
    fn of(change: &Change<'_>) -> Self {
        Owned {
            op: change.op,
            table: change.table.into(),
            key: change.key_as().unwrap(),
            old: change.old_as().unwrap(),
            new: change.new_as().unwrap(),
            id: change.id,
            json: change.json.into(),
        }
    }
}

fn change(events: &mut EventLoop) -> Owned {
    match events.next(Some(PATIENCE)).unwrap().expect("a change was expected, and nothing came") {
        Event::Change(change) => Owned::of(&change),
        other => panic!("{other:?}"),
    }
}

fn number(n: u64) -> JsonValue {
    serde_json::json!({ "id": n })
}

/// A loop that watches, without heartbeat and fallback, which could cover up a wake-up that was lost.
fn watching(conninfo: &str, options: WatchOptions) -> (EventLoop, SessionId) {
    let mut events = EventLoop::new().unwrap();
    let session = SessionOptions::new().heartbeat(Duration::ZERO);
    let session = events.connect_with(conninfo, session).unwrap();
    events.watch_with(session, options.fallback_poll(Duration::ZERO)).unwrap();
    assert_eq!(next(&mut events), Seen::listening(&[]));
    // A reader that ended a moment ago may still have the name.
    let mut seen = next(&mut events);
    while matches!(&seen, Seen::CommandFailed { sqlstate, .. } if sqlstate == "55006") {
        seen = next(&mut events);
    }
    let is_ours = |names: &[String]| names.len() == 1 && names[0].starts_with("pgwake");
    assert!(matches!(&seen, Seen::Listening(names) if is_ours(names)), "{seen:?}");
    (events, session)
}

fn orders(options: &str) -> (String, Sql) {
    let (conninfo, mut sql) = database(options);
    sql.run("CREATE TABLE orders (id int PRIMARY KEY, note text)");
    (conninfo, sql)
}

#[test]
fn a_watched_table_tells_each_change_of_a_row() {
    let (conninfo, mut sql) = orders("");
    let options = WatchOptions::new().table("orders").payload(ChangePayload::Row);
    let (mut events, session) = watching(&conninfo, options);
    sql.run("INSERT INTO orders VALUES (1, 'a'), (2, NULL)");
    let (first, second) = (change(&mut events), change(&mut events));
    assert_eq!((first.op, first.table.as_str()), (ChangeOp::Insert, "orders"));
    assert_eq!((first.key, first.old), (number(1), JsonValue::Null));
    assert_eq!(first.new, serde_json::json!({"id": 1, "note": "a"}));
    assert_eq!(second.new, serde_json::json!({"id": 2, "note": null}));
    assert!(first.id < second.id && first.id.is_some());
    sql.run("UPDATE orders SET note = 'b' WHERE id = 1");
    let updated = change(&mut events);
    assert_eq!((updated.op, updated.key), (ChangeOp::Update, number(1)));
    assert_eq!((&updated.old["note"], &updated.new["note"]), (&"a".into(), &"b".into()));
    sql.run("DELETE FROM orders WHERE id = 2; TRUNCATE orders");
    assert_eq!(change(&mut events).op, ChangeOp::Delete);
    assert_eq!(change(&mut events).op, ChangeOp::Truncate);
    sql.run("BEGIN; INSERT INTO orders VALUES (9); ROLLBACK");
    assert_silent(&mut events, Duration::from_millis(100));
    assert_eq!(events.metrics(session).unwrap().changes, 5);
}

#[test]
fn a_named_consumer_misses_nothing_between_two_runs() {
    let (conninfo, mut sql) = orders("");
    let named = || WatchOptions::new().table("orders").consumer("billing").manual_ack(true);
    let (mut events, session) = watching(&conninfo, named());
    sql.run("INSERT INTO orders SELECT generate_series(1, 5)");
    let told: Vec<Owned> = (0..5).map(|_| change(&mut events)).collect();
    events.ack(session, told[2].id.unwrap()).unwrap();
    assert_eq!(acknowledged(&mut events), told[2].id.unwrap());
    assert!(events.ack(session, told[1].id.unwrap()).is_err(), "it was acknowledged with the third");
    drop(events);
    sql.run("INSERT INTO orders VALUES (6)");
    let (mut events, session) = watching(&conninfo, named());
    let again: Vec<Owned> = (0..3).map(|_| change(&mut events)).collect();
    assert_eq!(again[..2], told[3..], "the same changes, with the same ids");
    assert_eq!(again[2].key, number(6));
    events.ack(session, again[2].id.unwrap()).unwrap();
    assert_eq!(acknowledged(&mut events), again[2].id.unwrap());
    drop(events);
    let (mut events, _) = watching(&conninfo, named());
    assert_silent(&mut events, Duration::from_millis(100));
}

fn acknowledged(events: &mut EventLoop) -> u64 {
    match events.next(Some(PATIENCE)).unwrap() {
        Some(Event::Acknowledged(acknowledged)) => acknowledged.id,
        other => panic!("{other:?}"),
    }
}

#[test]
fn what_was_gone_on_from_is_acknowledged_by_itself() {
    let (conninfo, mut sql) = orders("");
    let named = || WatchOptions::new().table("orders").consumer("audit");
    let (mut events, _) = watching(&conninfo, named());
    sql.run("INSERT INTO orders SELECT generate_series(1, 3)");
    (0..3).for_each(|_| drop(change(&mut events)));
    let position = "SELECT \"position\" FROM pgwake.consumer";
    let before = sql.value(position);
    while sql.value(position) == before {
        assert_silent(&mut events, Duration::from_millis(20));
    }
    drop(events);
    let (mut events, _) = watching(&conninfo, named());
    assert_silent(&mut events, Duration::from_millis(100));
}

#[test]
fn an_outage_costs_no_change() {
    let (conninfo, mut sql) = orders("");
    for name in [Some("named"), None] {
        let options = name.iter().fold(WatchOptions::new().table("orders"), |o, name| o.consumer(*name));
        let (mut events, _) = watching(&conninfo, options);
        sql.run("INSERT INTO orders VALUES (1)");
        assert_eq!(change(&mut events).key, number(1));
        sql.end_others();
        sql.run("INSERT INTO orders VALUES (2)");
        assert_eq!(next(&mut events), Seen::Disconnected("57P01".into()));
        let gap = next(&mut events);
        assert!(matches!(&gap, Seen::Gap { channels, .. } if channels == &["pgwake"]), "{gap:?}");
        // The consumer is the dead backend's for a moment.
        let mut seen = next_change(&mut events);
        while seen.key == number(1) {
            seen = next_change(&mut events);
        }
        assert_eq!(seen.key, number(2));
        sql.run("DELETE FROM orders");
        assert_eq!((change(&mut events).op, change(&mut events).op), (ChangeOp::Delete, ChangeOp::Delete));
    }
}

/// The next change; a refusal that passes may come before it.
fn next_change(events: &mut EventLoop) -> Owned {
    loop {
        match events.next(Some(PATIENCE)).unwrap().expect("a change was expected, and nothing came") {
            Event::Change(change) => return Owned::of(&change),
            Event::CommandFailed(failed) => assert_eq!(failed.sqlstate.unwrap().as_str(), "55006"),
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn a_second_reader_of_a_name_waits_for_the_first() {
    let (conninfo, mut sql) = orders("");
    let named = || WatchOptions::new().table("orders").consumer("one");
    let (first, _) = watching(&conninfo, named());
    let mut second = EventLoop::new().unwrap();
    let session = second.connect(&conninfo).unwrap();
    second.watch_with(session, named()).unwrap();
    assert_eq!(next(&mut second), Seen::listening(&[]));
    match second.next(Some(PATIENCE)).unwrap() {
        Some(Event::CommandFailed(failed)) => {
            assert_eq!((failed.command, failed.sqlstate.unwrap().as_str()), ("watch", "55006"));
            assert!(failed.message.contains("goes on when that one ends"), "{}", failed.message);
        }
        other => panic!("{other:?}"),
    }
    sql.run("INSERT INTO orders VALUES (7)");
    drop(first);
    assert_eq!(next(&mut second), Seen::listening(&["pgwake"]));
    assert_eq!(change(&mut second).key, number(7));
}

#[test]
fn what_cannot_be_watched_is_refused_with_advice() {
    let (conninfo, mut sql) = orders("");
    sql.run("CREATE ROLE stranger LOGIN");
    sql.run("CREATE DATABASE bare");
    let bare = crate::common::server().conninfo().replace("dbname=postgres", "dbname=bare");
    let stranger = conninfo.replace("user=postgres", "user=stranger");
    let table = |name: &str| WatchOptions::new().table(name);
    for (conninfo, options, sqlstate, advice) in [
        (&conninfo, table("nowhere"), "42P01", "nowhere"),
        (&conninfo, table("orders").only_watched(true), "55000", "not watched"),
        (&conninfo, table("orders").columns(["nil"]), "42703", "nil"),
        (&conninfo, table("pg_catalog.pg_class"), "42809", "system"),
        (&stranger, table("orders"), "42501", "GRANT"),
        (&bare, table("pg_class"), "3F000", "pgwake install"),
    ] {
        let mut events = EventLoop::new().unwrap();
        let session = events.connect(conninfo).unwrap();
        events.listen(session, "other").unwrap();
        events.watch_with(session, options).unwrap();
        assert_eq!(next(&mut events), Seen::listening(&["other"]));
        match events.next(Some(PATIENCE)).unwrap() {
            Some(Event::CommandFailed(failed)) => {
                assert_eq!((failed.command, failed.sqlstate.unwrap().as_str()), ("watch", sqlstate));
                let is_helpful = failed.message.to_lowercase().contains(&advice.to_lowercase());
                assert!(is_helpful, "{}", failed.message);
            }
            other => panic!("{other:?}"),
        }
        // The session goes on for its channels.
        events.notify(session, "other", "still here").unwrap();
        let heard = Seen::Notification { channel: "other".into(), payload: "still here".into(), own: true };
        assert_eq!(next(&mut events), heard);
    }
    let mut events = EventLoop::new().unwrap();
    let session = events.connect(&conninfo).unwrap();
    assert!(events.watch_with(session, WatchOptions::new()).is_err(), "no table");
    assert!(events.watch_with(session, table("orders").consumer("")).is_err(), "no name");
    assert!(events.watch_with(session, table("orders").transport(Transport::Wal)).is_err(), "no reader");
    events.watch(session, "orders").unwrap();
    assert!(events.watch(session, "orders").is_err(), "twice");
    assert!(events.ack(session, 1).is_err(), "it acknowledges by itself");
}

#[test]
fn changes_come_as_notifications_where_that_was_asked_for() {
    let (conninfo, mut sql) = orders("");
    let options =
        WatchOptions::new().table("orders").transport(Transport::Notify).payload(ChangePayload::Row);
    let (mut events, session) = watching(&conninfo, options);
    events.listen(session, "other").unwrap();
    assert_eq!(next(&mut events), Seen::listening(&["other"]));
    sql.run("INSERT INTO orders VALUES (1, 'small'); NOTIFY other");
    let small = change(&mut events);
    assert_eq!(small.new, serde_json::json!({"id": 1, "note": "small"}));
    assert!(events.ack(session, small.id.unwrap()).is_err(), "it is not in the outbox");
    assert_eq!(next(&mut events), Seen::notification("other", ""));
    // What is too large for a notification comes by reference, and the reference is followed.
    sql.run("INSERT INTO orders SELECT i, repeat('x', 5000 * i) FROM generate_series(2, 4) i");
    for n in 2..=4 {
        let large = change(&mut events);
        assert_eq!(large.key, number(n));
        assert_eq!(large.new["note"].as_str().unwrap().len() as u64, 5000 * n);
    }
}

#[test]
fn nobody_can_pass_off_a_notification_as_a_change() {
    let (conninfo, mut sql) = orders("");
    let named = || WatchOptions::new().table("orders").consumer("me").manual_ack(true);
    let (mut events, session) = watching(&conninfo, named());
    events.listen(session, "other").unwrap();
    assert_eq!(next(&mut events), Seen::listening(&["other"]));
    let forged = r#"{"op":"delete","schema":"public","table":"orders","id":9000000000000000}"#;
    sql.run(&format!("SELECT pg_notify('pgwake', '{forged}'); INSERT INTO orders VALUES (1); NOTIFY other"));
    assert_eq!(next(&mut events), Seen::notification("other", ""), "it is not held up by what was forged");
    assert_eq!(change(&mut events).key, number(1));
    assert!(events.ack(session, 9_000_000_000_000_000).is_err());
}

#[test]
fn what_is_too_large_for_a_notification_keeps_its_place() {
    let (conninfo, mut sql) = orders("");
    let options =
        WatchOptions::new().table("orders").transport(Transport::Notify).payload(ChangePayload::Row);
    let (mut events, session) = watching(&conninfo, options);
    for _ in 0..2 {
        sql.run(
            "INSERT INTO orders VALUES (1, repeat('x', 9000)); UPDATE orders SET note = 'small';
             DELETE FROM orders; NOTIFY other",
        );
        let ops: Vec<ChangeOp> = (0..3).map(|_| change(&mut events).op).collect();
        assert_eq!(ops, [ChangeOp::Insert, ChangeOp::Update, ChangeOp::Delete]);
        sql.end_others();
        assert_eq!(next(&mut events), Seen::Disconnected("57P01".into()));
        assert!(matches!(next(&mut events), Seen::Gap { .. }));
        assert_eq!(sql.value("SELECT count(*) FROM pgwake.consumer"), "0", "nothing is read from the outbox");
    }
    assert_eq!(events.metrics(session).unwrap().changes, 6);
}

#[test]
fn what_was_queued_to_notify_is_told_as_sent_beside_a_watch() {
    let (conninfo, _sql) = orders("");
    let mut events = EventLoop::new().unwrap();
    let session = events.connect(&conninfo).unwrap();
    events.watch(session, "orders").unwrap();
    events.notify(session, "other", "1").unwrap();
    let mut seen: Vec<Seen> = (0..3).map(|_| next(&mut events)).collect();
    seen.sort_by_key(|seen| format!("{seen:?}"));
    assert_eq!(seen, [Seen::listening(&["pgwake"]), Seen::listening(&[]), Seen::Sent(1)]);
}

#[test]
fn a_large_backlog_is_read_in_pages_that_take_no_longer_than_their_size() {
    let (conninfo, mut sql) = orders("");
    sql.run("SELECT pgwake.watch_table('orders'); SELECT pgwake.open_consumer('late')");
    sql.run("DO $$ BEGIN FOR i IN 1..30000 LOOP INSERT INTO orders VALUES (i); END LOOP; END $$");
    drop(sql);
    let (mut events, _) = watching(&conninfo, WatchOptions::new().table("orders").consumer("late"));
    for expected in 1..=30_000 {
        assert_eq!(change(&mut events).key, number(expected));
    }
}

#[test]
fn a_row_of_any_size_passes_or_is_named() {
    let (conninfo, mut sql) = orders("");
    let (mut events, session) =
        watching(&conninfo, WatchOptions::new().table("orders").payload(ChangePayload::Row));
    let insert = |id, bytes| format!("INSERT INTO orders VALUES ({id}, repeat('x', {bytes}))");
    sql.run(&insert(1, 1 << 20));
    sql.run(&insert(2, 7 << 20));
    sql.run(&insert(3, 20 << 20));
    sql.run(&insert(4, 1));
    for bytes in [1 << 20, 7 << 20] {
        assert_eq!(change(&mut events).new["note"].as_str().unwrap().len(), bytes);
    }
    let oversize = match events.next(Some(PATIENCE)).unwrap() {
        Some(Event::Change(change)) => (change.oversize.unwrap(), change.id.unwrap()),
        other => panic!("{other:?}"),
    };
    assert!(oversize.0 > 20 << 20, "{oversize:?}");
    let fetched = sql.value(&format!("SELECT length(pgwake.fetch({}))", oversize.1));
    assert!(fetched.parse::<u64>().unwrap() > 20 << 20, "{fetched}");
    assert_eq!(change(&mut events).key, number(4));
    assert_eq!(events.metrics(session).unwrap().reconnects, 0);
}

#[test]
fn a_database_of_another_encoding_is_read_all_the_same() {
    let (conninfo, mut sql) = orders("TEMPLATE template0 ENCODING LATIN1 LC_COLLATE 'C' LC_CTYPE 'C'");
    sql.run("SET client_encoding = UTF8; CREATE TABLE \"caf\u{e9}\" (\"cl\u{e9}\" int PRIMARY KEY, t text)");
    let table = WatchOptions::new().table("orders").payload(ChangePayload::Row);
    let (mut events, _) = watching(&conninfo, table);
    sql.run("INSERT INTO orders VALUES (1, 'na\u{ef}ve \u{e9}')");
    assert_eq!(change(&mut events).new["note"], "naïve é");
    let (conninfo, mut sql) = orders("TEMPLATE template0 ENCODING SQL_ASCII LC_COLLATE 'C' LC_CTYPE 'C'");
    let table = WatchOptions::new().table("orders").payload(ChangePayload::Row);
    let (mut events, _) = watching(&conninfo, table);
    sql.run("INSERT INTO orders VALUES (1, E'caf\\xe9'), (2, 'plain')");
    assert_eq!(change(&mut events).new["note"], "caf\u{fffd}", "bytes that are no text are marked");
    assert_eq!(change(&mut events).new["note"], "plain");
}

#[test]
fn a_dropped_consumer_is_told_and_begins_anew() {
    let (conninfo, mut sql) = orders("");
    let (mut events, _) = watching(&conninfo, WatchOptions::new().table("orders").consumer("gone"));
    assert_silent(&mut events, Duration::from_millis(100));
    sql.run("SELECT pgwake.drop_consumer('gone'); INSERT INTO orders VALUES (1)");
    match next(&mut events) {
        Seen::CommandFailed { command, sqlstate, .. } => {
            assert_eq!((command.as_str(), sqlstate.as_str()), ("watch", "42704"));
        }
        other => panic!("{other:?}"),
    }
    // It is opened again after a second, where the outbox stands then.
    while sql.value("SELECT count(*) FROM pgwake.consumer") == "0" {
        assert_silent(&mut events, Duration::from_millis(20));
    }
    sql.run("INSERT INTO orders VALUES (2)");
    assert_eq!(change(&mut events).key, number(2));
}

#[test]
fn a_flood_of_changes_is_told_in_order_and_lets_others_speak() {
    let (conninfo, mut sql) = orders("");
    let (mut events, session) = watching(&conninfo, WatchOptions::new().table("orders"));
    let other = events.connect(&conninfo).unwrap();
    events.listen(other, "other").unwrap();
    assert_eq!(next(&mut events), Seen::listening(&["other"]));
    sql.run("INSERT INTO orders SELECT generate_series(1, 20000); NOTIFY other");
    let (mut told, mut heard_after) = (0, None);
    while told < 20_000 || heard_after.is_none() {
        match events.next(Some(PATIENCE)).unwrap().expect("nothing came") {
            Event::Change(change) => {
                told += 1;
                assert_eq!(change.key_as::<JsonValue>().unwrap(), number(told));
                assert_eq!(change.session, session);
            }
            Event::Notification(n) if n.session == other => heard_after = Some(told),
            other => panic!("{other:?}"),
        }
    }
    assert!(heard_after.unwrap() < 2000, "the other session was heard after {heard_after:?} changes");
}
