//! What NOTIFY means, as its manual page has it since 6.4, through the loop.

use crate::common::{
    PATIENCE, Seen, Sql, assert_silent, fresh_channel, listening, next, processor_time, server,
};
use pgwake::{ErrorKind, Event, EventLoop, SessionOptions};
use std::time::Duration;

#[test]
fn the_session_of_the_manual_page() {
    let (mut events, session) = listening(&server().conninfo(), &["virtual"]);
    events.notify(session, "virtual", "").unwrap();
    assert_eq!(
        next(&mut events),
        Seen::Notification { channel: "virtual".into(), payload: String::new(), own: true }
    );
    assert_eq!(next(&mut events), Seen::Sent(1));
}

#[test]
fn a_notification_carries_channel_payload_and_pid() {
    let channel = fresh_channel();
    let (mut events, session) = listening(&server().conninfo(), &[&channel]);
    let mut sql = Sql::connect(&server().conninfo());
    sql.notify(&channel, r#"{"id": 7}"#);
    let Some(Event::Notification(n)) = events.next(Some(PATIENCE)).unwrap() else {
        panic!("no notification")
    };
    assert_eq!((n.session, n.db, n.pid, n.own), (session, "postgres", sql.pid(), false));
    assert_eq!((n.channel_str(), n.payload_str()), (Some(&*channel), Some(r#"{"id": 7}"#)));
    assert_eq!(n.json::<std::collections::HashMap<&str, i32>>().unwrap()["id"], 7);
}

#[test]
fn a_channel_is_exact_bytes_of_any_content() {
    let names =
        ["Foo", "foo", "two words", "a\"b", "'; DROP TABLE t; --", "日本語 ☃", "select", "\\", "\u{1}\n"];
    let (mut events, session) = listening(&server().conninfo(), &names);
    let mut sql = Sql::connect(&server().conninfo());
    for name in names {
        // By way of SQL, and by way of pgwake.
        sql.notify(name, "sql");
        assert_eq!(next(&mut events), Seen::notification(name, "sql"));
        events.notify(session, name, "own").unwrap();
        assert_eq!(
            next(&mut events),
            Seen::Notification { channel: name.into(), payload: "own".into(), own: true }
        );
        assert_eq!(next(&mut events), Seen::Sent(1));
    }
}

#[test]
fn the_longest_channel_and_the_longest_payload_pass() {
    let channel = "é".repeat(31) + "x";
    let (mut events, session) = listening(&server().conninfo(), &[&channel]);
    let payload = "p".repeat(7999);
    events.notify(session, &channel, &payload).unwrap();
    assert_eq!(next(&mut events), Seen::Notification { channel: channel.clone(), payload, own: true });
    assert_eq!(next(&mut events), Seen::Sent(1));
}

#[test]
fn what_postgres_would_cut_or_refuse_is_refused_before_anything_is_sent() {
    let (mut events, session) = listening(&server().conninfo(), &[]);
    let long = "x".repeat(64);
    for channel in ["", &long, "a\0b"] {
        assert_eq!(events.listen(session, channel).unwrap_err().kind, ErrorKind::InvalidArgument);
        assert_eq!(events.notify(session, channel, "").unwrap_err().kind, ErrorKind::InvalidArgument);
    }
    for payload in ["p".repeat(8000), "a\0b".into()] {
        assert_eq!(events.notify(session, "c", payload).unwrap_err().kind, ErrorKind::InvalidArgument);
    }
    assert_silent(&mut events, Duration::from_millis(100));
}

#[test]
fn equal_notifications_of_one_transaction_fold_and_those_of_several_do_not() {
    let channel = fresh_channel();
    let (mut events, session) = listening(&server().conninfo(), &[&channel]);
    let mut sql = Sql::connect(&server().conninfo());
    sql.run(&format!("BEGIN; NOTIFY {channel}, 'a'; NOTIFY {channel}, 'a'; NOTIFY {channel}, 'b'; COMMIT"));
    assert_eq!(next(&mut events), Seen::notification(&channel, "a"));
    assert_eq!(next(&mut events), Seen::notification(&channel, "b"));
    // Each `notify` of ours is a transaction of its own.
    for _ in 0..3 {
        events.notify(session, &channel, "same").unwrap();
    }
    let mut own = 0;
    loop {
        match next(&mut events) {
            Seen::Notification { own: true, .. } => own += 1,
            Seen::Sent(count) => break assert_eq!(count, 3),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(own, 3);
}

#[test]
fn what_is_rolled_back_is_never_told_and_order_is_that_of_commits() {
    let channel = fresh_channel();
    let (mut events, _) = listening(&server().conninfo(), &[&channel]);
    let (mut first, mut second) = (Sql::connect(&server().conninfo()), Sql::connect(&server().conninfo()));
    first.run(&format!("BEGIN; NOTIFY {channel}, 'begun first'"));
    second.run(&format!("BEGIN; NOTIFY {channel}, 'rolled back'; ROLLBACK"));
    second.run(&format!("NOTIFY {channel}, 'committed first'"));
    first.run("COMMIT");
    assert_eq!(next(&mut events), Seen::notification(&channel, "committed first"));
    assert_eq!(next(&mut events), Seen::notification(&channel, "begun first"));
}

#[test]
fn own_notifications_are_left_out_when_asked() {
    let channel = fresh_channel();
    let mut events = EventLoop::new().unwrap();
    let options = SessionOptions::new().skip_own(true);
    let session = events.connect_with(&server().conninfo(), options).unwrap();
    events.listen(session, &channel).unwrap();
    events.notify(session, &channel, "own").unwrap();
    assert_eq!(next(&mut events), Seen::listening(&[&channel]));
    assert_eq!(next(&mut events), Seen::Sent(1));
    Sql::connect(&server().conninfo()).notify(&channel, "other");
    assert_eq!(next(&mut events), Seen::notification(&channel, "other"));
}

#[test]
fn listen_and_unlisten_work_on_a_running_session() {
    let (a, b) = (fresh_channel(), fresh_channel());
    let (mut events, session) = listening(&server().conninfo(), &[&a]);
    let mut sql = Sql::connect(&server().conninfo());
    events.listen(session, &b).unwrap();
    events.listen(session, &b).unwrap();
    assert_eq!(next(&mut events), Seen::listening(&[&b]));
    sql.notify(&b, "1");
    assert_eq!(next(&mut events), Seen::notification(&b, "1"));
    events.unlisten(session, &b).unwrap();
    // The answer to a later command says that UNLISTEN is done.
    events.notify(session, "elsewhere", "").unwrap();
    assert_eq!(next(&mut events), Seen::Sent(1));
    sql.notify(&b, "2");
    sql.notify(&a, "3");
    assert_eq!(next(&mut events), Seen::notification(&a, "3"));
}

/// What it costs to listen on so many channels, all of them asked for at once on a running session.
fn time_to_listen(count: usize) -> Duration {
    let (mut events, session) = listening(&server().conninfo(), &[]);
    let before = processor_time();
    (0..count).for_each(|i| events.listen(session, format!("channel {i}")).unwrap());
    assert!(matches!(next(&mut events), Seen::Listening(channels) if channels.len() == count));
    processor_time() - before
}

#[test]
fn ten_times_as_many_channels_cost_about_ten_times_as_much() {
    time_to_listen(100);
    let (few, many) = (time_to_listen(1000), time_to_listen(10_000));
    assert!(many < 30 * few, "{few:?}, {many:?}");
}

#[test]
fn a_notification_queued_before_the_connection_is_sent_after_it() {
    let channel = fresh_channel();
    let (mut hearer, _) = listening(&server().conninfo(), &[&channel]);
    let mut events = EventLoop::new().unwrap();
    let session = events.connect(&server().conninfo()).unwrap();
    events.notify(session, &channel, "early").unwrap();
    assert_eq!(next(&mut events), Seen::listening(&[]));
    assert_eq!(next(&mut events), Seen::Sent(1));
    assert_eq!(next(&mut hearer), Seen::notification(&channel, "early"));
}

#[test]
fn a_payload_that_the_server_refuses_is_told_and_harms_no_other() {
    let channel = fresh_channel();
    let (mut events, session) = listening(&server().conninfo(), &[&channel]);
    events.notify(session, &channel, b"not \xff UTF-8").unwrap();
    events.notify(session, &channel, "fine").unwrap();
    let refused =
        Seen::CommandFailed { command: "notify".into(), channel: channel.clone(), sqlstate: "22021".into() };
    assert_eq!(next(&mut events), refused);
    assert_eq!(next(&mut events), Seen::Notification { channel, payload: "fine".into(), own: true });
    assert_eq!(next(&mut events), Seen::Sent(1));
}

#[test]
fn payloads_are_bytes_whatever_the_encodings() {
    let mut admin = Sql::connect(&server().conninfo());
    for (encoding, payload) in
        [("SQL_ASCII", b"\xff\xfe".as_slice()), ("LATIN1", b"caf\xe9"), ("EUC_JP", b"\xb0\xa1")]
    {
        let db = format!("in_{}", encoding.to_lowercase());
        admin.run(&format!("CREATE DATABASE {db} TEMPLATE template0 ENCODING '{encoding}' LOCALE 'C'"));
        let conninfo =
            server().conninfo().replace("dbname=postgres", &format!("dbname={db} client_encoding=UTF8"));
        let (mut events, session) = listening(&conninfo, &["c"]);
        events.notify(session, "c", payload).unwrap();
        match events.next(Some(PATIENCE)).unwrap() {
            Some(Event::Notification(n)) => assert_eq!((&*n.payload, n.db), (payload, &*db), "{encoding}"),
            other => panic!("{encoding}: {other:?}"),
        }
    }
}

#[test]
fn ten_thousand_notifications_are_sent_in_order_through_a_bounded_queue() {
    let channel = fresh_channel();
    let (mut hearer, _) = listening(&server().conninfo(), &[&channel]);
    let mut events = EventLoop::new().unwrap();
    let session = events.connect(&server().conninfo()).unwrap();
    for i in 0..10_000 {
        events.notify(session, &channel, i.to_string()).unwrap();
    }
    assert_eq!(next(&mut events), Seen::listening(&[]));
    assert_eq!(next(&mut events), Seen::Sent(10_000));
    for i in 0..10_000 {
        assert_eq!(next(&mut hearer), Seen::notification(&channel, &i.to_string()));
    }
    let full = std::iter::repeat_with(|| events.notify(session, &channel, "")).find_map(Result::err);
    assert_eq!(full.unwrap().kind, ErrorKind::QueueFull);
}

#[test]
fn a_channel_that_the_server_refuses_harms_no_other() {
    let (good, bad) = (fresh_channel(), b"bad \xff".as_slice());
    // Before the connection there is one, and after.
    let mut events = EventLoop::new().unwrap();
    let session = events.connect(&server().conninfo()).unwrap();
    for channel in [good.as_bytes(), bad] {
        events.listen(session, channel).unwrap();
    }
    let refused = |seen| match seen {
        Seen::CommandFailed { command, sqlstate, .. } => command == "listen" && sqlstate == "22021",
        _ => false,
    };
    assert!(refused(next(&mut events)));
    assert_eq!(next(&mut events), Seen::listening(&[&good]));
    let other = fresh_channel();
    for channel in [other.as_bytes(), bad] {
        events.listen(session, channel).unwrap();
    }
    events.unlisten(session, &good).unwrap();
    events.listen(session, &good).unwrap();
    assert!(refused(next(&mut events)));
    let mut both = vec![other.as_str(), good.as_str()];
    both.sort();
    assert_eq!(next(&mut events), Seen::listening(&both));
    let mut sql = Sql::connect(&server().conninfo());
    for channel in [&good, &other] {
        sql.notify(channel, "x");
        assert_eq!(next(&mut events), Seen::notification(channel, "x"));
    }
}
