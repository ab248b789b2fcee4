//! Readers of changes on bad days: what they read is unwatched, dropped, refused; they tell it once, and go
//! on when they can.

use crate::common::outbox::database;
use crate::common::{PATIENCE, Seen, Sql, assert_silent, next, refusal};
use pgwake::json::JsonValue;
use pgwake::{ChangePayload, Event, EventLoop, SessionId, SessionOptions, Transport, WatchOptions};
use std::time::Duration;

const QUIET: Duration = Duration::from_millis(300);

fn orders() -> (String, Sql) {
    let (conninfo, mut sql) = database("");
    sql.run("CREATE TABLE orders (id int PRIMARY KEY, note text); CREATE TABLE other (id int PRIMARY KEY)");
    (conninfo, sql)
}

/// A loop that watches already, without fallback, which could cover up a wake-up that was lost.
fn watching(conninfo: &str, options: WatchOptions) -> (EventLoop, SessionId) {
    let mut events = EventLoop::new().unwrap();
    let session = events.connect_with(conninfo, SessionOptions::new().heartbeat(Duration::ZERO)).unwrap();
    events.watch_with(session, options.fallback_poll(Duration::ZERO)).unwrap();
    assert_eq!(next(&mut events), Seen::listening(&[]));
    let seen = next(&mut events);
    assert!(matches!(&seen, Seen::Listening(names) if names[0].starts_with("pgwake")), "{seen:?}");
    (events, session)
}

/// The table and the key of the next change.
fn change(events: &mut EventLoop) -> (String, u64) {
    match events.next(Some(PATIENCE)).unwrap().expect("a change was expected, and nothing came") {
        Event::Change(change) => {
            (change.table.into(), change.key_as::<JsonValue>().unwrap()["id"].as_u64().unwrap())
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_table_that_is_unwatched_is_told_and_goes_on_when_it_is_watched_again() {
    let (conninfo, mut sql) = orders();
    let (mut events, _) = watching(&conninfo, WatchOptions::new().table("orders").table("other"));
    sql.run("INSERT INTO orders VALUES (1); SELECT pgwake.unwatch_table('orders')");
    let mut seen = vec![next(&mut events), next(&mut events)];
    seen.sort_by_key(|seen| matches!(seen, Seen::CommandFailed { .. }));
    assert!(matches!(&seen[0], Seen::Other(change) if change.contains("orders")), "{seen:?}");
    let told = Seen::CommandFailed { command: "watch".into(), channel: "".into(), sqlstate: "55000".into() };
    assert_eq!(seen[1], told);
    sql.run("SELECT pgwake.unwatch_table('orders'); INSERT INTO orders VALUES (2)");
    sql.run("INSERT INTO other VALUES (1)");
    assert_eq!(change(&mut events), ("other".into(), 1), "the others go on, and nothing is told twice");
    sql.run("SELECT pgwake.watch_table('orders')");
    assert_eq!(next(&mut events), Seen::listening(&["pgwake"]));
    sql.run("INSERT INTO orders VALUES (3)");
    assert_eq!(change(&mut events), ("orders".into(), 3));
    assert_eq!(sql.value("SELECT count(*) FROM pgwake.consumer"), "1", "it is the same reader");
}

#[test]
fn a_table_that_is_dropped_is_told_and_its_successor_is_read_in_its_place() {
    let (conninfo, mut sql) = orders();
    let named = WatchOptions::new().table("orders").consumer("me").manual_ack(true);
    let (mut events, session) = watching(&conninfo, named);
    sql.run("INSERT INTO orders VALUES (1)");
    assert_eq!(change(&mut events), ("orders".into(), 1));
    sql.run("DROP TABLE orders");
    let (code, sentence) = refusal(&mut events, "watch");
    assert!(code == "42P01" && sentence.contains("table orders is gone"), "{sentence}");
    sql.run("CREATE TABLE orders (id int PRIMARY KEY); SELECT pgwake.watch_table('orders')");
    assert_eq!(next(&mut events), Seen::listening(&["pgwake"]));
    sql.run("INSERT INTO orders VALUES (2)");
    match events.next(Some(PATIENCE)).unwrap() {
        Some(Event::Change(change)) => {
            let id = change.id.unwrap();
            assert_eq!(change.key_as::<JsonValue>().unwrap(), serde_json::json!({"id": 2}));
            events.ack(session, id).unwrap();
        }
        other => panic!("{other:?}"),
    }
    assert!(matches!(next(&mut events), Seen::Other(seen) if seen.contains("Acknowledged")));
}

#[test]
fn a_table_that_has_another_name_is_the_same() {
    let (conninfo, mut sql) = orders();
    let (mut events, _) = watching(&conninfo, WatchOptions::new().table("orders"));
    sql.run("ALTER TABLE orders RENAME TO jobs; NOTIFY pgwake, 'watched'; INSERT INTO jobs VALUES (1)");
    assert_eq!(change(&mut events), ("jobs".into(), 1));
    assert_silent(&mut events, 2 * QUIET);
}

#[test]
fn a_table_that_takes_over_the_name_is_read_in_place_of_the_one_that_had_it() {
    let (conninfo, mut sql) = orders();
    let (mut events, _) = watching(&conninfo, WatchOptions::new().table("orders"));
    sql.run("CREATE TABLE orders_new (id int PRIMARY KEY); INSERT INTO orders VALUES (1)");
    assert_eq!(change(&mut events), ("orders".into(), 1));
    sql.run(
        "BEGIN; ALTER TABLE orders RENAME TO orders_old; ALTER TABLE orders_new RENAME TO orders;
         SELECT pgwake.watch_table('orders'); COMMIT",
    );
    let (code, sentence) = refusal(&mut events, "watch");
    assert!(code == "55000" && sentence.contains("in place of one"), "{sentence}");
    assert_eq!(next(&mut events), Seen::listening(&["pgwake"]));
    sql.run("INSERT INTO orders VALUES (2)");
    assert_eq!(change(&mut events), ("orders".into(), 2));
}

#[test]
fn a_table_that_is_watched_in_another_way_is_told_and_followed() {
    let (conninfo, mut sql) = orders();
    let (mut events, _) = watching(&conninfo, WatchOptions::new().table("orders"));
    sql.run("SELECT pgwake.watch_table('orders', transport => 'notify', channel => 'pgwake_orders')");
    let (code, sentence) = refusal(&mut events, "watch");
    assert!(code == "55000" && sentence.contains("orders was watched anew"), "{sentence}");
    let mut heard = Vec::new();
    while !heard.contains(&"pgwake_orders".to_string()) {
        match next(&mut events) {
            Seen::Listening(names) => heard.extend(names),
            other => panic!("{other:?}"),
        }
    }
    sql.run("INSERT INTO orders VALUES (1)");
    let mut seen = next(&mut events);
    while matches!(seen, Seen::Listening(_)) {
        seen = next(&mut events);
    }
    assert!(matches!(&seen, Seen::Other(change) if change.contains("Notify")), "{seen:?}");
}

#[test]
fn who_is_told_by_notifications_alone_finds_out_too() {
    let (conninfo, mut sql) = orders();
    let notify = || WatchOptions::new().table("orders").transport(Transport::Notify);
    let (mut events, _) = watching(&conninfo, notify());
    sql.run("SELECT pgwake.unwatch_table('orders')");
    let (code, sentence) = refusal(&mut events, "watch");
    assert!(code == "55000" && sentence.contains("orders is not watched any more"), "{sentence}");
    // Also what happens during an outage.
    sql.run("SELECT pgwake.watch_table('orders', transport => 'notify', channel => 'pgwake_2')");
    sql.end_others();
    assert_eq!(next(&mut events), Seen::Disconnected("57P01".into()));
    assert!(matches!(next(&mut events), Seen::Gap { .. }));
    let mut heard = Vec::new();
    while !heard.contains(&"pgwake_2".to_string()) {
        match next(&mut events) {
            Seen::Listening(names) => heard.extend(names),
            other => panic!("{other:?}"),
        }
    }
    sql.run("INSERT INTO orders VALUES (5)");
    assert_eq!(change(&mut events), ("orders".into(), 5));
}

/// A role that may do all that a reader does.
fn reader(conninfo: &str, sql: &mut Sql, name: &str) -> String {
    sql.run(&format!("CREATE ROLE {name} LOGIN; GRANT SELECT ON orders TO {name}"));
    let grants = "SELECT string_agg(remedy, ';') FROM pgwake.check() WHERE problem LIKE '%may not read%'";
    let conninfo = conninfo.replace("user=postgres", &format!("user={name}"));
    sql.run(&format!(
        "SELECT pgwake.watch_table('orders'); GRANT USAGE ON SCHEMA pgwake TO {name};
        GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA pgwake TO {name}"
    ));
    assert_eq!(sql.value(grants), "");
    conninfo
}

#[test]
fn a_refused_read_is_told_once_and_goes_on_when_it_is_granted() {
    let (conninfo, mut sql) = orders();
    let conninfo = reader(&conninfo, &mut sql, "reads_no_more");
    let (mut events, _) = watching(&conninfo, WatchOptions::new().table("orders").consumer("me"));
    // A read that has begun may see what is committed while it lasts.
    assert_silent(&mut events, QUIET);
    sql.run("REVOKE EXECUTE ON FUNCTION pgwake.read FROM reads_no_more; INSERT INTO orders VALUES (1)");
    let (code, sentence) = refusal(&mut events, "watch");
    assert!(code == "42501" && sentence.contains("grant this role"), "{sentence}");
    for id in 2..10 {
        sql.run(&format!("INSERT INTO orders VALUES ({id})"));
        assert_silent(&mut events, QUIET / 2);
    }
    sql.run("ALTER FUNCTION pgwake.read RENAME TO read_later");
    let (code, _) = refusal(&mut events, "watch");
    assert_eq!(code, "42883", "another reason is told");
    sql.run(
        "ALTER FUNCTION pgwake.read_later RENAME TO read; GRANT EXECUTE ON FUNCTION pgwake.read TO PUBLIC",
    );
    for id in 1..10 {
        let mut seen = events.next(Some(PATIENCE)).unwrap().map(Seen::of);
        while matches!(&seen, Some(Seen::CommandFailed { sqlstate, .. }) if sqlstate == "42501") {
            // Between the two commands it was refused once more for the first reason.
            seen = events.next(Some(PATIENCE)).unwrap().map(Seen::of);
        }
        assert!(
            matches!(&seen, Some(Seen::Other(c)) if c.contains(&format!("\"id\\\":{id}"))),
            "{id}: {seen:?}"
        );
    }
}

#[test]
fn a_table_that_may_not_be_read_stops_no_other() {
    let (conninfo, mut sql) = orders();
    let conninfo = reader(&conninfo, &mut sql, "reads_only_orders");
    sql.run("GRANT SELECT ON other TO reads_only_orders; SELECT pgwake.watch_table('other')");
    let (mut events, _) = watching(&conninfo, WatchOptions::new().table("orders").table("other"));
    sql.run("DROP TABLE other");
    assert_eq!(refusal(&mut events, "watch").0, "42P01");
    sql.run("CREATE TABLE other (id int PRIMARY KEY); SELECT pgwake.watch_table('other')");
    let (code, sentence) = refusal(&mut events, "watch");
    assert!(code == "42501" && sentence.contains("the changes of public.other"), "{sentence}");
    for id in 1..10 {
        sql.run(&format!("INSERT INTO orders VALUES ({id})"));
        assert_eq!(change(&mut events), ("orders".into(), id));
    }
    sql.run("GRANT SELECT ON other TO reads_only_orders");
    assert_eq!(next(&mut events), Seen::listening(&["pgwake"]));
    sql.run("INSERT INTO other VALUES (1)");
    assert_eq!(change(&mut events), ("other".into(), 1));
}

#[test]
fn a_refused_reader_asks_less_and_less_often() {
    let (conninfo, mut sql) = orders();
    let named = || WatchOptions::new().table("orders").consumer("one");
    let (first, _) = watching(&conninfo, named());
    let mut second = EventLoop::new().unwrap();
    let session = second.connect(&conninfo).unwrap();
    second.watch_with(session, named()).unwrap();
    assert_eq!(next(&mut second), Seen::listening(&[]));
    assert_eq!(refusal(&mut second, "watch").0, "55006");
    let failures = "SELECT pg_stat_clear_snapshot(); SELECT xact_rollback FROM pg_stat_database
                    WHERE datname = current_database()";
    assert_silent(&mut second, Duration::from_secs(12));
    let before: u64 = sql.value(failures).parse().unwrap();
    assert_silent(&mut second, Duration::from_secs(4));
    // Every 250 ms that would be 16; with up to a quarter of the time so far it is 3 or so.
    let asked = sql.value(failures).parse::<u64>().unwrap() - before;
    assert!(asked < 12, "{asked} attempts");
    drop(first);
    assert_eq!(next(&mut second), Seen::listening(&["pgwake"]));
}

#[test]
fn what_was_refused_for_good_leaves_the_session_free_to_watch_something_else() {
    let (conninfo, mut sql) = orders();
    let mut events = EventLoop::new().unwrap();
    let session = events.connect(&conninfo).unwrap();
    events.watch_with(session, WatchOptions::new().table("nowhere").table("orders").table("nil")).unwrap();
    assert_eq!(next(&mut events), Seen::listening(&[]));
    assert!(refusal(&mut events, "watch").1.contains("nowhere"));
    assert!(refusal(&mut events, "watch").1.contains("nil"), "each table that is refused is named");
    events.watch_with(session, WatchOptions::new().table("orders").payload(ChangePayload::Row)).unwrap();
    let (code, sentence) = refusal(&mut events, "watch");
    assert!(code == "55000" && sentence.contains("payload key, not row"), "{sentence}");
    events.watch_with(session, WatchOptions::new().table("orders").payload(ChangePayload::Key)).unwrap();
    assert_eq!(next(&mut events), Seen::listening(&["pgwake"]));
    sql.run("INSERT INTO orders VALUES (1)");
    assert_eq!(change(&mut events), ("orders".into(), 1));
}

#[test]
fn a_table_can_tell_before_it_is_changed() {
    let (conninfo, mut sql) = orders();
    sql.run("CREATE TABLE lines (id int PRIMARY KEY, of int REFERENCES orders ON DELETE CASCADE)");
    sql.run("INSERT INTO orders VALUES (1); INSERT INTO lines VALUES (11, 1)");
    let options = WatchOptions::new().table("lines").table("orders").before(true);
    let (mut events, _) = watching(&conninfo, options);
    sql.run("DELETE FROM orders");
    assert_eq!(change(&mut events), ("orders".into(), 1), "it comes before what it cascades to");
    assert_eq!(change(&mut events), ("lines".into(), 11));
}

#[test]
fn a_schema_that_is_taken_out_is_told_and_its_successor_is_read() {
    let (conninfo, mut sql) = orders();
    let (mut events, _) = watching(&conninfo, WatchOptions::new().table("orders").consumer("me"));
    sql.run(&pgwake::install::uninstall());
    sql.run("NOTIFY pgwake");
    // A read that is at work just then may lose its table first.
    while !refusal(&mut events, "watch").1.contains("run `pgwake install`") {}
    sql.run(&pgwake::install::install());
    sql.run("SELECT pgwake.watch_table('orders')");
    // It begins anew where the new outbox stands then.
    while sql.value("SELECT count(*) FROM pgwake.consumer") == "0" {
        let seen = events.next(Some(QUIET / 10)).unwrap().map(Seen::of);
        assert!(matches!(seen, None | Some(Seen::CommandFailed { .. })), "{seen:?}");
    }
    sql.run("INSERT INTO orders VALUES (1)");
    loop {
        match events.next(Some(PATIENCE)).unwrap().expect("a change was expected, and nothing came") {
            Event::Change(change) => break assert_eq!(change.table, "orders"),
            Event::CommandFailed(_) | Event::Listening(_) => {}
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn who_may_not_see_all_rows_is_told_of_none() {
    let (conninfo, mut sql) = database("");
    sql.run(
        "CREATE TABLE t (id int PRIMARY KEY); SELECT pgwake.watch_table('t'); CREATE ROLE sees_some LOGIN;
         GRANT USAGE ON SCHEMA pgwake TO sees_some; GRANT SELECT ON t TO sees_some;
         GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA pgwake TO sees_some;
         ALTER TABLE t ENABLE ROW LEVEL SECURITY",
    );
    let mut reader = Sql::connect(&conninfo.replace("user=postgres", "user=sees_some"));
    let refused = reader.try_run("SELECT pgwake.open_consumer('a')").unwrap_err();
    assert!(refused.message.contains("row-level security"), "{refused}");
    assert_eq!(refused.sqlstate.unwrap().as_str(), "42501");
    sql.run("ALTER ROLE sees_some BYPASSRLS");
    reader.run("SELECT pgwake.open_consumer('a')");
    sql.run("INSERT INTO t VALUES (1)");
    let id = sql.value("SELECT id FROM pgwake.outbox_0");
    let fetched = format!("SELECT count(*) FROM pgwake.fetch({id})");
    assert_eq!(reader.value(&fetched), "1");
    sql.run("ALTER ROLE sees_some NOBYPASSRLS; ALTER TABLE t OWNER TO sees_some");
    reader.run("SELECT pgwake.open_consumer('b')");
    sql.run("ALTER TABLE t FORCE ROW LEVEL SECURITY");
    reader.try_run("SELECT pgwake.open_consumer('c')").unwrap_err();
    assert_eq!(reader.value(&fetched), "0");
}

#[test]
fn changes_that_were_notified_before_a_loss_come_before_it() {
    let (conninfo, mut sql) = orders();
    let options = WatchOptions::new().table("orders").transport(Transport::Notify);
    let (mut events, _) = watching(&conninfo, options);
    // Short ones: more of them come with each read than are delivered in a turn.
    let channel = "(SELECT channel FROM pgwake.watch_of('orders'::regclass))";
    let text = r#"'{"op":"insert","schema":"","table":"orders","key":{"id":' || id || '}}'"#;
    sql.run(&format!("SELECT count(pg_notify({channel}, {text})) FROM generate_series(1, 1000) AS id"));
    // From the first on, the process that tells them looks at no signal before it has told the last.
    assert_eq!(change(&mut events), ("orders".into(), 1));
    let others = "FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()";
    sql.run(&format!("SELECT pg_terminate_backend(pid, 20000) {others}"));
    for id in 2..=1000 {
        assert_eq!(change(&mut events), ("orders".into(), id));
    }
    assert_eq!(next(&mut events), Seen::Disconnected("57P01".into()));
}
