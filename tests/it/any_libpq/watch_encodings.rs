//! Readers in databases of other encodings: names of the caller's, what goes through the outbox, what is only
//! notified, and DDL, value by value.
#![cfg(feature = "command")]

use crate::common::command::{Running, run};
use crate::common::outbox::database;
use crate::common::{PATIENCE, Seen, Sql, next};
use pgwake::json::JsonValue;
use pgwake::{
    ChangePayload, DdlOptions, Event, EventLoop, Overflow, SessionOptions, Transport, WatchOptions,
};
use serde_json::json;
use std::time::Duration;

const LATIN1: &str = "TEMPLATE template0 ENCODING LATIN1 LC_COLLATE 'C' LC_CTYPE 'C'";

fn latin1() -> (String, Sql) {
    let (conninfo, mut sql) = database(LATIN1);
    sql.run("SET client_encoding = UTF8");
    sql.run("CREATE TABLE \"bücher\" (\"schlüssel\" text PRIMARY KEY, t text)");
    (conninfo, sql)
}

fn watching(conninfo: &str, options: WatchOptions) -> EventLoop {
    let mut events = EventLoop::new().unwrap();
    let session = events.connect(conninfo).unwrap();
    events.watch_with(session, options).unwrap();
    assert_eq!(next(&mut events), Seen::listening(&[]));
    assert!(matches!(next(&mut events), Seen::Listening(_)));
    events
}

/// Table, key and new row.
fn change(events: &mut EventLoop) -> (String, JsonValue, JsonValue) {
    match events.next(Some(PATIENCE)).unwrap().expect("a change was expected, and nothing came") {
        Event::Change(change) => {
            let [key, new] = [change.key_as().unwrap(), change.new_as().unwrap()];
            (change.table.into(), key, new)
        }
        other => panic!("{other:?}"),
    }
}

/// All letters that LATIN1 has besides those of ASCII.
fn letters() -> String {
    ('\u{a0}'..='\u{ff}').collect()
}

#[test]
fn what_is_watched_in_latin1_has_its_names_and_values_whatever_brings_it() {
    let (conninfo, mut sql) = latin1();
    for transport in [Transport::Outbox, Transport::Notify] {
        let options = WatchOptions::new()
            .table("\"bücher\"")
            .payload(ChangePayload::Row)
            .columns(["schlüssel", "t"])
            .consumer("leser für bücher")
            .transport(transport);
        let mut events = watching(&conninfo, options);
        let letters = letters();
        sql.run(&format!(
            "INSERT INTO \"bücher\" VALUES ('ä', '{letters}'), ('Ã©', 'plain'), ('z', 'ASCII')"
        ));
        for (key, text) in [("ä", letters.as_str()), ("Ã©", "plain"), ("z", "ASCII")] {
            let row = json!({"schlüssel": key, "t": text});
            let expected = ("bücher".to_string(), json!({"schlüssel": key}), row);
            assert_eq!(change(&mut events), expected, "by {transport:?}");
        }
        // Too large for a notification: then it comes by reference.
        sql.run("UPDATE \"bücher\" SET t = repeat('é', 9000) WHERE t = 'plain'; NOTIFY pgwake");
        assert_eq!(change(&mut events).2["t"], "é".repeat(9000), "by {transport:?}");
        sql.run("TRUNCATE \"bücher\"");
        assert_eq!(change(&mut events).0, "bücher");
        drop(events);
        sql.run("SELECT pgwake.unwatch_table('\"bücher\"')");
        while sql.try_run("SELECT pgwake.open_consumer('leser für bücher')").is_err() {}
        sql.run("SELECT pg_advisory_unlock_all(); SELECT pgwake.drop_consumer('leser für bücher')");
    }
}

#[test]
fn notifications_keep_their_order_around_those_that_are_converted() {
    let (conninfo, mut sql) = latin1();
    let options = WatchOptions::new().table("\"bücher\"").transport(Transport::Notify);
    let mut events = watching(&conninfo, options);
    sql.run(
        "INSERT INTO \"bücher\"
         SELECT CASE i % 3 WHEN 0 THEN 'ü' ELSE 'u' END || i FROM generate_series(1, 300) i",
    );
    for i in 1..=300 {
        let key = format!("{}{i}", if i % 3 == 0 { "ü" } else { "u" });
        assert_eq!(change(&mut events).1, json!({"schlüssel": key}));
    }
}

#[test]
fn what_came_before_a_loss_is_told_although_nobody_converts_it_any_more() {
    for overflow in [Overflow::Block, Overflow::Coalesce] {
        let (conninfo, mut sql) = latin1();
        let mut events = EventLoop::new().unwrap();
        let session = events.connect_with(&conninfo, SessionOptions::new().overflow(overflow)).unwrap();
        let options = WatchOptions::new().table("\"bücher\"").payload(ChangePayload::Row);
        events.watch_with(session, options.transport(Transport::Notify)).unwrap();
        events.watch_ddl(session, DdlOptions::new()).unwrap();
        let mut heard = Vec::new();
        while !heard.contains(&"pgwake_ddl".to_string()) {
            match next(&mut events) {
                Seen::Listening(names) => heard.extend(names),
                other => panic!("{other:?}"),
            }
        }
        events.listen(session, "plain").unwrap();
        assert_eq!(next(&mut events), Seen::listening(&["plain"]));
        sql.run("INSERT INTO \"bücher\" VALUES ('ü'), ('b')");
        sql.run("CREATE TABLE \"größe\" (id int)");
        sql.run("INSERT INTO \"bücher\" SELECT i FROM generate_series(1, 9) i");
        sql.run("UPDATE \"bücher\" SET t = repeat('é', 9000) WHERE \"schlüssel\" = 'b'");
        sql.run("NOTIFY plain");
        // The server passes them on before it ends the session.
        std::thread::sleep(Duration::from_millis(500));
        sql.end_others();
        std::thread::sleep(Duration::from_millis(500));
        let mut seen = Vec::new();
        while !matches!(seen.last(), Some(Seen::Disconnected(_))) {
            seen.push(next(&mut events));
        }
        let count = |is: fn(&Seen) -> bool| seen.iter().filter(|seen| is(seen)).count();
        assert_eq!(count(|s| matches!(s, Seen::Other(c) if c.starts_with("Change"))), 11, "{seen:#?}");
        assert_eq!(count(|s| matches!(s, Seen::Other(c) if c.starts_with("Ddl"))), 1, "{seen:#?}");
        let is_missed = |s: &Seen| matches!(s, Seen::CommandFailed { sqlstate, .. } if sqlstate == "08006");
        assert_eq!(count(is_missed), 1, "what was too large for a notification: {seen:#?}");
        assert_eq!(count(|s| matches!(s, Seen::Notification { .. })), 1, "{seen:#?}");
    }
}

#[test]
fn what_has_no_place_in_utf8_harms_only_its_page() {
    // Row 94 of EUC_KR is for characters of the user's own.
    let (conninfo, mut sql) = database("TEMPLATE template0 ENCODING EUC_KR LC_COLLATE 'C' LC_CTYPE 'C'");
    sql.run("SET client_encoding = UTF8; CREATE TABLE t (k text PRIMARY KEY)");
    let mut events = watching(&conninfo, WatchOptions::new().table("t"));
    for round in 0..3 {
        sql.run(&format!("INSERT INTO t VALUES ('{round}가')"));
        assert_eq!(change(&mut events).1, json!({"k": format!("{round}가")}));
        sql.run(&format!("INSERT INTO t VALUES ('{round}' || convert_from('\\xfea1', 'EUC_KR'))"));
        let key = change(&mut events).1;
        assert!(key["k"].as_str().unwrap().contains('\u{fffd}'), "{key}");
    }
}

#[test]
fn a_name_that_the_database_cannot_write_is_refused() {
    let (conninfo, _sql) = latin1();
    let mut events = EventLoop::new().unwrap();
    let session = events.connect(&conninfo).unwrap();
    events.watch(session, "\"книги\"").unwrap();
    assert_eq!(next(&mut events), Seen::listening(&[]));
    match next(&mut events) {
        Seen::CommandFailed { sqlstate, .. } => assert_eq!(sqlstate, "22P05"),
        other => panic!("{other:?}"),
    }
}

#[test]
fn ddl_in_latin1_has_its_names() {
    let (conninfo, mut sql) = latin1();
    let mut events = EventLoop::new().unwrap();
    let session = events.connect(&conninfo).unwrap();
    events.watch_ddl(session, DdlOptions::new().tags(["CREATE TABLE", "DROP TABLE"])).unwrap();
    assert_eq!(next(&mut events), Seen::listening(&[]));
    assert!(matches!(next(&mut events), Seen::Listening(_)));
    let many: Vec<String> = (0..40).map(|i| format!("CREATE TABLE \"größe_{i}\" (id int)")).collect();
    sql.run("CREATE TABLE \"größe\" (id int)");
    sql.run(&many.join(";"));
    let all: Vec<String> = (0..40).map(|i| format!("\"größe_{i}\"")).collect();
    sql.run(&format!("DROP TABLE {}", all.join(", ")));
    let mut names = || match events.next(Some(PATIENCE)).unwrap() {
        Some(Event::Ddl(ddl)) => ddl.targets.iter().map(|t| t.name.clone().unwrap_or_default()).collect(),
        other => panic!("{other:?}"),
    };
    let first: Vec<String> = names();
    assert_eq!(first, ["größe"]);
    let created: Vec<String> = (0..40).flat_map(|_| names()).collect();
    assert!(created.contains(&"größe_39".to_string()), "{created:?}");
    let dropped: Vec<String> = names();
    assert!(dropped.contains(&"größe_0".to_string()) && dropped.len() >= 40, "{dropped:?}");
}

#[test]
fn the_command_watches_and_unwatches_such_a_table() {
    let (conninfo, mut sql) = latin1();
    let arguments = ["-d", &conninfo, "-f", "json", "watch", "\"bücher\"", "--count", "1"];
    let mut watch = Running::start(&arguments);
    while watch.json()["channels"] != json!(["pgwake"]) {}
    sql.run("INSERT INTO \"bücher\" VALUES ('ß')");
    let change = watch.json();
    assert_eq!((&change["table"], &change["key"]), (&"bücher".into(), &json!({"schlüssel": "ß"})));
    assert_eq!(watch.status(), 0);
    let output = run(&["-d", &conninfo, "unwatch", "\"bücher\""]);
    assert!(output.status.success(), "{output:?}");
    assert_eq!(sql.value("SELECT count(*) FROM pgwake.watched WHERE NOT ended"), "0");
}
