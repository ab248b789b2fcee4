//! The self-test of a session: where notifications do not arrive although LISTEN is taken, it says so.

use crate::common::relay::swallower;
use crate::common::{PATIENCE, Seen, Sql, assert_silent, fresh_channel, next, server};
use pgwake::{EventLoop, SessionOptions};
use std::time::Duration;

/// A test whose notification could not be sent within one is none, and is said to be none.
const HEARTBEAT: Duration = Duration::from_secs(1);

fn connect(port: u16, channel: &str) -> EventLoop {
    let conninfo = format!(
        "host=127.0.0.1 port={port} user=postgres dbname=postgres sslmode=disable gssencmode=disable \
         application_name={channel}"
    );
    let mut events = EventLoop::new().unwrap();
    let options = SessionOptions::new().heartbeat(HEARTBEAT).self_test(true);
    let session = events.connect_with(&conninfo, options).unwrap();
    events.listen(session, channel).unwrap();
    events
}

#[test]
fn where_notifications_do_not_arrive_the_session_fails_and_says_why() {
    let mut events = connect(swallower(server().port()), &fresh_channel());
    // It never says that it listens.
    assert_eq!(next(&mut events), Seen::Disconnected("0A000".into()));
    match events.next(Some(PATIENCE)).unwrap() {
        Some(pgwake::Event::Failed(failed)) => {
            assert_eq!(failed.sqlstate.unwrap().as_str(), "0A000");
            assert!(failed.message.contains("pooler"), "{}", failed.message);
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_caller_that_is_away_meanwhile_fails_no_test() {
    let channel = fresh_channel();
    let mut events = connect(server().port(), &channel);
    // Some turns, until the notification is on its way; then none, until the time for it is over.
    for _ in 0..5 {
        assert!(
            events
                .next(Some(Duration::from_millis(1)))
                .unwrap()
                .is_none_or(|event| matches!(event, pgwake::Event::Listening(_)))
        );
    }
    std::thread::sleep(5 * HEARTBEAT / 2);
    let mut seen = Vec::new();
    while let Some(event) = events.next(Some(Duration::from_millis(500))).unwrap() {
        seen.push(Seen::of(event));
    }
    assert!(seen.iter().all(|event| *event == Seen::listening(&[&channel])), "{seen:?}");
}

#[test]
fn a_test_that_is_interrupted_is_made_anew() {
    let channel = fresh_channel();
    let mut sql = Sql::connect(&server().conninfo());
    for delay in [0, 5, 20, 100] {
        let mut events = connect(server().port(), &channel);
        let kill = format!(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = '{channel}'"
        );
        let _ = events.next(Some(Duration::from_millis(delay))).unwrap();
        sql.run(&kill);
        sql.notify(&channel, "until it is heard");
        loop {
            match events.next(Some(Duration::from_millis(200))).unwrap().map(Seen::of) {
                Some(Seen::Notification { .. }) => break,
                None => sql.notify(&channel, "until it is heard"),
                Some(Seen::Failed(why)) => panic!("{why}"),
                Some(_) => {}
            }
        }
    }
}

#[test]
fn where_they_do_nothing_is_seen_of_the_test() {
    let channel = fresh_channel();
    let mut events = connect(server().port(), &channel);
    assert_eq!(next(&mut events), Seen::listening(&[&channel]));
    assert_silent(&mut events, 2 * HEARTBEAT);
    Sql::connect(&server().conninfo()).notify(&channel, "as ever");
    assert_eq!(next(&mut events), Seen::notification(&channel, "as ever"));
}
