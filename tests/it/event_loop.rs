//! The loop as its host sees it: waiting, waking, several sessions, one descriptor.

use crate::common::{
    PATIENCE, Seen, Sql, assert_silent, fresh_channel, listening, next, server, wait_readable,
};
use pgwake::{ErrorKind, Event, EventLoop, ScheduleOptions, StreamOptions, Transport, WatchOptions};
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

#[test]
fn a_wait_ends_with_its_timeout_and_not_before() {
    let (mut events, _) = listening(&server().conninfo(), &[&fresh_channel()]);
    let started = Instant::now();
    assert!(events.next(Some(Duration::from_millis(120))).unwrap().is_none());
    assert!(started.elapsed() >= Duration::from_millis(120));
    assert!(events.next(Some(Duration::ZERO)).unwrap().is_none());
}

#[test]
fn an_empty_loop_has_nothing_to_wait_for() {
    assert!(EventLoop::new().unwrap().next(None).unwrap().is_none());
}

#[test]
fn every_wake_from_another_thread_ends_a_wait() {
    let mut events = EventLoop::new().unwrap();
    let waker = events.waker();
    let (go, gone) = std::sync::mpsc::sync_channel(0);
    let other = std::thread::spawn(move || {
        for _ in gone {
            waker.wake().unwrap();
        }
    });
    for _ in 0..20_000 {
        go.send(()).unwrap();
        assert!(events.next(None).unwrap().is_none());
    }
    drop(go);
    other.join().unwrap();
}

#[test]
fn a_wake_comes_on_top_of_events_and_takes_none_away() {
    let channel = fresh_channel();
    let (mut events, _) = listening(&server().conninfo(), &[&channel]);
    let waker = events.waker();
    for _ in 0..100 {
        waker.wake().unwrap();
        Sql::connect(&server().conninfo()).notify(&channel, "x");
        let (mut wakes, mut told) = (0, 0);
        while (wakes, told) != (1, 1) {
            match events.next(None).unwrap() {
                None => wakes += 1,
                Some(_) => told += 1,
            }
            assert!(wakes <= 1 && told <= 1);
        }
    }
}

#[test]
fn many_sessions_and_channels_share_one_loop() {
    let mut events = EventLoop::new().unwrap();
    let channels: Vec<String> = (0..20).map(|_| fresh_channel()).collect();
    let mut sessions = Vec::new();
    for pair in channels.chunks(2) {
        let session = events.connect(&server().conninfo()).unwrap();
        for channel in pair {
            events.listen(session, channel).unwrap();
        }
        sessions.push(session);
    }
    for _ in &sessions {
        assert!(matches!(next(&mut events), Seen::Listening(channels) if channels.len() == 2));
    }
    let mut sql = Sql::connect(&server().conninfo());
    for round in 0..50 {
        for channel in &channels {
            sql.notify(channel, &round.to_string());
        }
        let mut heard = std::collections::BTreeMap::new();
        for _ in &channels {
            let event = events.next(Some(PATIENCE)).unwrap().unwrap();
            let (session, Event::Notification(n)) = (event.session(), event) else { panic!("{event:?}") };
            heard.insert(n.channel_str().unwrap().to_string(), session);
            assert_eq!(n.payload_str(), Some(&*round.to_string()));
        }
        for (i, channel) in channels.iter().enumerate() {
            assert_eq!(heard[channel], Some(sessions[i / 2]));
        }
    }
}

#[test]
fn a_disconnected_session_is_silent_and_its_name_is_not_used_again() {
    let channel = fresh_channel();
    let (mut events, session) = listening(&server().conninfo(), &[&channel]);
    let mut sql = Sql::connect(&server().conninfo());
    sql.notify(&channel, "never seen");
    events.disconnect(session).unwrap();
    for error in [
        events.disconnect(session).unwrap_err(),
        events.listen(session, "c").unwrap_err(),
        events.unlisten(session, "c").unwrap_err(),
        events.notify(session, "c", "").unwrap_err(),
    ] {
        assert_eq!(error.kind, ErrorKind::UnknownSession);
    }
    let successor = events.connect(&server().conninfo()).unwrap();
    assert_ne!(successor, session);
    let pid = match events.next(Some(PATIENCE)).unwrap() {
        Some(Event::Listening(listening)) => listening.backend_pid,
        other => panic!("{other:?}"),
    };
    assert_silent(&mut events, Duration::from_millis(50));
    events.disconnect(successor).unwrap();
    // The server's process ends, too.
    while sql.value(&format!("SELECT count(*) FROM pg_stat_activity WHERE pid = {pid}")) != "0" {}
}

#[test]
fn the_descriptor_stays_the_same_and_tells_of_commands_and_timers() {
    let mut events = EventLoop::new().unwrap();
    let descriptor = events.as_raw_fd();
    // A host that does nothing but watch the descriptor and take what there is.
    let pump = |events: &mut EventLoop| loop {
        if let Some(event) = events.next(Some(Duration::ZERO)).unwrap() {
            return Seen::of(event);
        }
        wait_readable(events);
    };
    let session = events.connect(&server().conninfo()).unwrap();
    assert_eq!(pump(&mut events), Seen::listening(&[]));
    events.listen(session, "nested").unwrap();
    assert_eq!(pump(&mut events), Seen::listening(&["nested"]));
    events.notify(session, "nested", "1").unwrap();
    assert!(matches!(pump(&mut events), Seen::Notification { own: true, .. }));
    assert_eq!(pump(&mut events), Seen::Sent(1));
    // A refused connection is tried again by a timer inside.
    events.connect("host=/nonexistent").unwrap();
    assert_eq!(pump(&mut events), Seen::Disconnected("08001".into()));
    assert_eq!(pump(&mut events), Seen::Disconnected("08001".into()));
    assert_eq!(events.as_raw_fd(), descriptor);
}

#[test]
fn a_malformed_conninfo_is_refused_without_its_secret() {
    let mut events = EventLoop::new().unwrap();
    for conninfo in ["host", "postgresql://u:hunter2@[x/app", "password=hunter2 nonsense", "no_such_key=1"] {
        let error = events.connect(conninfo).unwrap_err();
        assert_eq!(error.kind, ErrorKind::InvalidArgument);
        assert!(!error.to_string().contains("hunter2"), "{error}");
    }
}

#[test]
fn what_the_server_would_cut_or_never_take_is_refused_at_once() {
    let mut events = EventLoop::new().unwrap();
    let slot = |name: &str| StreamOptions::new().table("t").slot(name).create_slot(true);
    let long = "s".repeat(64);
    for options in [slot(&long), slot("a\0b"), StreamOptions::new().table("a\0b")] {
        let error = events.stream(&server().conninfo(), options).unwrap_err();
        assert_eq!(error.kind, ErrorKind::InvalidArgument, "{error}");
    }
    events.stream(&server().conninfo(), slot(&long[1..])).unwrap();
    let session = events.connect(&server().conninfo()).unwrap();
    let every = ScheduleOptions::new().sql(session, "SELECT 1\0");
    let error = events.every_with(Duration::from_secs(60), every).unwrap_err();
    assert_eq!(error.kind, ErrorKind::InvalidArgument, "{error}");
}

#[test]
fn the_transport_wal_is_refused() {
    let mut events = EventLoop::new().unwrap();
    let session = events.connect("host=/nonexistent").unwrap();
    let options = WatchOptions::new().table("t").transport(Transport::Wal);
    let error = events.watch_with(session, options).unwrap_err();
    assert_eq!(error.kind, ErrorKind::InvalidArgument);
    assert_eq!(
        error.message,
        "the transport wal is read over a connection of its own: open a stream, or take outbox or notify"
    );
}

#[test]
fn no_duration_is_too_long() {
    let mut events = EventLoop::with_options(pgwake::EventLoopOptions::new().spin(Duration::MAX)).unwrap();
    let options = pgwake::SessionOptions::new().heartbeat(Duration::MAX);
    let conninfo = format!("{} connect_timeout=2147483647", server().conninfo());
    events.connect_with(&conninfo, options).unwrap();
    assert!(matches!(events.next(Some(Duration::MAX)).unwrap(), Some(Event::Listening(_))));
}

#[test]
fn what_a_disconnect_sets_in_motion_is_told_by_the_descriptor() {
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = silent.local_addr().unwrap().port();
    let mut events = EventLoop::new().unwrap();
    let mut first = None;
    for _ in 0..50 {
        let session = events.connect(&format!("host=127.0.0.1 port={port} connect_timeout=60")).unwrap();
        first.get_or_insert(session);
    }
    assert_silent(&mut events, Duration::from_millis(100));
    // No place is left for this one until another goes.
    events.connect(&server().conninfo()).unwrap();
    assert_silent(&mut events, Duration::from_millis(100));
    events.disconnect(first.unwrap()).unwrap();
    loop {
        wait_readable(&events);
        if let Some(event) = events.next(Some(Duration::ZERO)).unwrap() {
            return assert_eq!(Seen::of(event), Seen::listening(&[]));
        }
    }
}

#[test]
fn no_payload_is_shown_by_debug() {
    let mut events = EventLoop::new().unwrap();
    let session = events.connect(&format!("{} password=hunter2", server().conninfo())).unwrap();
    events.notify(session, "c", "a secret payload").unwrap();
    let shown = format!("{events:?}");
    assert!(
        shown.contains("16 bytes") && !shown.contains("secret") && !shown.contains("115, 101"),
        "{shown}"
    );
    assert!(!shown.contains("hunter2"), "{shown}");
}
