//! What a session has done can be asked for: counts, the heartbeat's round trip, and how long things took.

use crate::common::{PATIENCE, Seen, Sql, assert_silent, fresh_channel, next, server};
use pgwake::{Event, EventLoop, EventLoopOptions, Overflow, SessionOptions};
use std::time::Duration;

#[test]
fn notifications_turns_and_gaps_are_counted() {
    let channel = fresh_channel();
    let conninfo = format!("{} application_name={channel}", server().conninfo());
    let mut events = EventLoop::new().unwrap();
    let session = events.connect_with(&conninfo, SessionOptions::new().count_bytes(true)).unwrap();
    events.listen(session, &channel).unwrap();
    assert_eq!(next(&mut events), Seen::listening(&[&channel]));
    let mut sql = Sql::connect(&server().conninfo());
    for payload in ["", "four", "eleven byte"] {
        sql.notify(&channel, payload);
        assert_eq!(next(&mut events), Seen::notification(&channel, payload));
    }
    sql.run(&format!(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = '{channel}'"
    ));
    assert_eq!(next(&mut events), Seen::Disconnected("57P01".into()));
    assert!(matches!(next(&mut events), Seen::Gap { .. }));

    let metrics = events.metrics(session).unwrap();
    assert_eq!((metrics.notifications, metrics.gaps, metrics.reconnects), (3, 1, 1));
    assert_eq!(metrics.bytes, Some(3 * channel.len() as u64 + 15));
    assert_eq!((metrics.folded, metrics.dropped, metrics.stalls), (0, 0, 0));
    // Each notification was waited for, so each had a turn of its own, and a time of its own.
    assert_eq!(metrics.delivery.count(), 3);
    assert!(metrics.turns >= 3, "{}", metrics.turns);
    assert!(metrics.delivery.max() > Duration::ZERO && metrics.delivery.max() <= metrics.longest_turn);
    assert_eq!(metrics.last_probe, None);

    events.disconnect(session).unwrap();
    assert_eq!(events.metrics(session).unwrap_err().kind, pgwake::ErrorKind::UnknownSession);
}

#[test]
fn the_last_probe_and_its_round_trip_are_known() {
    let mut events = EventLoop::new().unwrap();
    let options = SessionOptions::new().heartbeat(Duration::from_millis(50));
    let session = events.connect_with(&server().conninfo(), options).unwrap();
    assert!(matches!(next(&mut events), Seen::Listening(_)));
    assert_silent(&mut events, Duration::from_millis(300));
    let metrics = events.metrics(session).unwrap();
    assert!(metrics.last_probe.unwrap().elapsed().unwrap() < PATIENCE);
    assert!(metrics.probe_round_trip.unwrap() > Duration::ZERO);
    assert_eq!(metrics.stalls, 0);
    assert_eq!(metrics.bytes, None, "nobody asked for it");
}

#[test]
fn a_caller_that_stays_away_while_events_wait_is_a_stall() {
    let channel = fresh_channel();
    let options = EventLoopOptions::new().stall_warning(Duration::from_millis(200));
    let mut events = EventLoop::with_options(options).unwrap();
    let session = events.connect(&server().conninfo()).unwrap();
    events.listen(session, &channel).unwrap();
    assert_eq!(next(&mut events), Seen::listening(&[&channel]));
    assert_silent(&mut events, Duration::from_millis(1));
    // Nothing waits: to be elsewhere, or to sleep in `next`, is no stall.
    std::thread::sleep(Duration::from_millis(300));
    events.listen(session, "another").unwrap();
    assert_eq!(next(&mut events), Seen::listening(&["another"]));
    assert_silent(&mut events, Duration::from_millis(300));
    assert_eq!(events.metrics(session).unwrap().stalls, 0);

    Sql::connect(&server().conninfo()).notify(&channel, "slow work");
    assert_eq!(next(&mut events), Seen::notification(&channel, "slow work"));
    std::thread::sleep(Duration::from_millis(300));
    assert_silent(&mut events, Duration::from_millis(1));
    let metrics = events.metrics(session).unwrap();
    assert_eq!(metrics.stalls, 1);
    assert!(metrics.longest_stall >= Duration::from_millis(300));
    assert_eq!(metrics.longest_turn, metrics.longest_stall);
}

#[test]
fn a_host_that_comes_too_late_for_a_timer_is_a_stall() {
    let options = EventLoopOptions::new().stall_warning(Duration::from_millis(200));
    let mut events = EventLoop::with_options(options).unwrap();
    let session_options = SessionOptions::new().heartbeat(Duration::from_millis(100));
    let session = events.connect_with(&server().conninfo(), session_options).unwrap();
    assert!(matches!(next(&mut events), Seen::Listening(_)));
    assert_silent(&mut events, Duration::from_millis(10));
    std::thread::sleep(Duration::from_millis(500));
    assert_silent(&mut events, Duration::from_millis(50));
    let metrics = events.metrics(session).unwrap();
    assert_eq!(metrics.stalls, 1, "{metrics:?}");
    assert!(metrics.longest_stall >= Duration::from_millis(200));
}

#[test]
fn what_was_folded_or_dropped_is_counted() {
    for (overflow, is_folding) in [(Overflow::Coalesce, true), (Overflow::DropOldest(1), false)] {
        let channel = fresh_channel();
        let mut events = EventLoop::new().unwrap();
        let options = SessionOptions::new().overflow(overflow).count_bytes(true);
        let session = events.connect_with(&server().conninfo(), options).unwrap();
        events.listen(session, &channel).unwrap();
        assert_eq!(next(&mut events), Seen::listening(&[&channel]));
        let mut sql = Sql::connect(&server().conninfo());
        sql.run(&format!("SELECT count(pg_notify('{channel}', i::text)) FROM generate_series(1, 100) i"));
        let (mut bytes, mut is_over) = (0, false);
        while !is_over {
            let event = events.next(Some(PATIENCE)).unwrap().expect("silence");
            let Event::Notification(n) = event else { continue };
            bytes += (n.channel.len() + n.payload.len()) as u64;
            is_over = n.payload == b"100";
        }
        let metrics = events.metrics(session).unwrap();
        let others = if is_folding { metrics.folded } else { metrics.dropped };
        assert_eq!(metrics.notifications + others, 100, "{metrics:?}");
        assert!(others > 0, "{metrics:?}");
        assert_eq!(metrics.bytes, Some(bytes), "of what was told");
    }
}
