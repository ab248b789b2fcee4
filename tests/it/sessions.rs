//! A session is the server's, whatever stands between, and lasts: behind a pooler in session mode it knows
//! its own notifications, and no time-out of the role ends it.

use crate::common::outbox::database;
use crate::common::pgbouncer::PgBouncer;
use crate::common::relay::relay;
use crate::common::{PATIENCE, Seen, Sql, fresh_channel, listening, next, server};
use pgwake::{Event, EventLoop, SessionOptions, WatchOptions};
use std::time::{Duration, Instant};

/// The PID that the relay makes up.
const MADE_UP: i32 = 1_188_859_644;

/// A pooler in session mode. Its port.
fn session_pooler() -> u16 {
    relay(server().port(), |kind, content| {
        if kind == b'K' {
            content[..4].copy_from_slice(&MADE_UP.to_be_bytes());
        }
        true
    })
}

/// What a session hears of its own notification and of another's, and the PID that it reports.
fn own_and_others(conninfo: &str, skip_own: bool) -> (Vec<(String, bool)>, i32) {
    let channel = fresh_channel();
    let mut events = EventLoop::new().unwrap();
    let session = events.connect_with(conninfo, SessionOptions::new().skip_own(skip_own)).unwrap();
    events.listen(session, &channel).unwrap();
    let pid = match events.next(Some(PATIENCE)).unwrap() {
        Some(Event::Listening(listening)) => listening.backend_pid,
        other => panic!("{other:?}"),
    };
    events.notify(session, &channel, "own").unwrap();
    let (mut heard, mut sql) = (Vec::new(), None);
    loop {
        match Seen::of(events.next(Some(PATIENCE)).unwrap().expect("an event")) {
            // Once the own one is sent and heard or not, the other's comes behind it.
            Seen::Sent(1) => {
                sql.get_or_insert_with(|| Sql::connect(&server().conninfo())).notify(&channel, "other")
            }
            Seen::Notification { payload, own, .. } => {
                let is_last = payload == "other";
                heard.push((payload, own));
                if is_last {
                    return (heard, pid);
                }
            }
            other => panic!("{other:?}"),
        }
    }
}

fn assert_knows_its_own(conninfo: &str) {
    let other = ("other".to_string(), false);
    let (heard, pid) = own_and_others(conninfo, false);
    assert_eq!(heard, [("own".to_string(), true), other.clone()], "{conninfo}");
    assert_ne!(pid, MADE_UP);
    assert_eq!(own_and_others(conninfo, true).0, [other], "{conninfo}");
}

#[test]
fn a_session_behind_a_pooler_knows_its_own_notifications() {
    let tcp = "host=127.0.0.1 user=postgres dbname=postgres sslmode=disable gssencmode=disable port";
    assert_knows_its_own(&format!("{tcp}={}", server().port()));
    let pooler = session_pooler();
    assert_knows_its_own(&format!("{tcp}={pooler}"));
    // Also one that began to listen later.
    let (mut events, session) = listening(&format!("{tcp}={pooler}"), &[]);
    let channel = fresh_channel();
    events.listen(session, &channel).unwrap();
    match events.next(Some(PATIENCE)).unwrap() {
        Some(Event::Listening(listening)) => assert_ne!(listening.backend_pid, MADE_UP),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_session_behind_pgbouncer_itself_knows_its_own_notifications() {
    let Some(pooler) = PgBouncer::start(server().port(), "pool_mode = session") else { return };
    assert_knows_its_own(&pooler.conninfo("postgres"));
}

/// A role whose idle sessions end soon, and a conninfo for it.
fn role(name: &str) -> (String, Sql) {
    let mut sql = Sql::connect(&server().conninfo());
    sql.run(&format!("CREATE ROLE {name} LOGIN; ALTER ROLE {name} SET idle_session_timeout = '1s'"));
    (server().conninfo().replace("user=postgres", &format!("user={name}")), sql)
}

#[test]
fn no_time_out_of_the_role_ends_a_listener() {
    // When it listens from the beginning, and when it begins to later.
    for (name, listens_at_once) in [("hurried", true), ("hurried_later", false)] {
        let (conninfo, mut sql) = role(name);
        let channel = fresh_channel();
        let mut events = EventLoop::new().unwrap();
        let options = SessionOptions::new().heartbeat(Duration::ZERO);
        let session = events.connect_with(&conninfo, options).unwrap();
        if !listens_at_once {
            assert_eq!(next(&mut events), Seen::listening(&[]));
        }
        events.listen(session, &channel).unwrap();
        assert_eq!(next(&mut events), Seen::listening(&[&channel]));
        let started = Instant::now();
        let waits = "SELECT count(*) FROM pg_stat_activity WHERE clock_timestamp() - state_change > '1500ms'";
        while sql.value(&format!("{waits} AND usename = '{name}'")) != "1" {
            assert!(started.elapsed() < PATIENCE, "{name} did not stay");
            assert_eq!(events.next(Some(Duration::from_millis(10))).unwrap().map(Seen::of), None);
        }
        sql.notify(&channel, "still here");
        assert_eq!(next(&mut events), Seen::notification(&channel, "still here"));
    }
}

#[test]
fn a_session_that_only_notifies_leaves_the_time_outs_alone() {
    let (conninfo, _) = role("sender");
    let (mut events, _session) = listening(&conninfo, &[]);
    assert_eq!(next(&mut events), Seen::Disconnected("57P05".into()));
}

#[test]
fn a_reader_waits_for_a_lock_longer_than_its_role_may() {
    let (conninfo, mut sql) = database("");
    sql.run("CREATE ROLE reader LOGIN SUPERUSER; ALTER ROLE reader SET statement_timeout = '100ms'");
    sql.run("CREATE TABLE t (id int PRIMARY KEY)");
    let conninfo = conninfo.replace("user=postgres", "user=reader");
    let mut events = EventLoop::new().unwrap();
    let options = SessionOptions::new().heartbeat(Duration::ZERO);
    let session = events.connect_with(&conninfo, options).unwrap();
    events.watch_with(session, WatchOptions::new().table("t")).unwrap();
    while !matches!(next(&mut events), Seen::Listening(channels) if channels == ["pgwake"]) {}
    let mut holder = Sql::connect(&conninfo.replace("user=reader", "user=postgres"));
    holder.run("BEGIN; LOCK TABLE pgwake.outbox_0, pgwake.outbox_1, pgwake.outbox_2");
    sql.notify("pgwake", "");
    let mut stays = |condition: &str| {
        let started = Instant::now();
        let asks = format!(
            "SELECT count(*) FROM pg_stat_activity WHERE usename = 'reader' AND wait_event_type = 'Lock' \
             AND {condition}"
        );
        while sql.value(&asks) != "1" {
            assert!(started.elapsed() < PATIENCE);
            let event = events.next(Some(Duration::from_millis(10))).unwrap();
            assert!(event.is_none(), "{event:?}");
        }
    };
    stays("clock_timestamp() - query_start > '400ms'");
    holder.run("COMMIT");
    sql.run("INSERT INTO t VALUES (1)");
    match next(&mut events) {
        Seen::Other(change) => assert!(change.starts_with("Change"), "{change}"),
        other => panic!("{other:?}"),
    }
}
