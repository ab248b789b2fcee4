//! A caller that is too slow: nothing is lost, or what is folded or dropped is counted; memory stays bounded.

mod common;

use common::{PATIENCE, Sql, fresh_channel, server};
use pgwake::{Event, EventLoop, GapReason, Overflow, SessionOptions};

const SENT: u64 = 50_000;

/// A loop that listens as `overflow` says, and finds `SENT` numbered notifications waiting for it.
fn flooded(overflow: Overflow) -> (EventLoop, String) {
    let channel = fresh_channel();
    let mut events = EventLoop::new().unwrap();
    let options = SessionOptions::new().overflow(overflow);
    let session = events.connect_with(&server().conninfo(), options).unwrap();
    events.listen(session, &channel).unwrap();
    assert!(matches!(events.next(Some(PATIENCE)).unwrap(), Some(Event::Listening(_))));
    let mut sql = Sql::connect(&server().conninfo());
    sql.run(&format!("SELECT count(pg_notify('{channel}', i::text)) FROM generate_series(1, {SENT}) i"));
    sql.notify(&channel, "end");
    (events, channel)
}

#[test]
fn by_default_nothing_is_lost() {
    let (mut events, _) = flooded(Overflow::Block);
    for i in 1..=SENT {
        let Some(Event::Notification(n)) = events.next(Some(PATIENCE)).unwrap() else {
            panic!("{i} is lost")
        };
        assert_eq!((n.payload_str(), n.folded), (Some(&*i.to_string()), 0));
    }
}

#[test]
fn folded_notifications_are_counted() {
    let (mut events, _) = flooded(Overflow::Coalesce);
    let (mut events_told, mut stands_for) = (0, 0);
    loop {
        let Some(Event::Notification(n)) = events.next(Some(PATIENCE)).unwrap() else { panic!("silence") };
        (events_told, stands_for) = (events_told + 1, stands_for + 1 + n.folded);
        if n.payload == b"end" {
            break;
        }
    }
    assert_eq!(stands_for, SENT + 1);
    assert!(events_told < SENT / 10, "{events_told} events for {SENT} notifications");
}

#[test]
fn folding_keeps_channels_apart_and_in_order() {
    let (mut events, first) = flooded(Overflow::Coalesce);
    let second = fresh_channel();
    let mut sql = Sql::connect(&server().conninfo());
    let session = match events.next(Some(PATIENCE)).unwrap() {
        Some(Event::Notification(n)) => n.session,
        other => panic!("{other:?}"),
    };
    events.listen(session, &second).unwrap();
    while !matches!(events.next(Some(PATIENCE)).unwrap(), Some(Event::Listening(_))) {}
    while events.next(Some(std::time::Duration::from_millis(100))).unwrap().is_some() {}
    let both = format!("NOTIFY {second}, '1'; NOTIFY {first}, '2'; NOTIFY {second}, '3'");
    sql.run(&both);
    let mut heard = Vec::new();
    while heard.len() < 2 {
        let Some(Event::Notification(n)) = events.next(Some(PATIENCE)).unwrap() else { panic!("silence") };
        heard.push((n.channel_str().unwrap().to_string(), n.payload_str().unwrap().to_string(), n.folded));
    }
    assert_eq!(heard, [(second, "3".to_string(), 1), (first, "2".to_string(), 0)]);
}

#[test]
fn dropped_notifications_are_told_as_a_gap_that_counts_them() {
    let (mut events, _) = flooded(Overflow::DropOldest(100));
    let (mut told, mut dropped, mut gaps) = (0, 0, 0);
    loop {
        match events.next(Some(PATIENCE)).unwrap() {
            Some(Event::Gap(gap)) => {
                assert_eq!(gap.reason, GapReason::Overflow);
                (dropped, gaps) = (dropped + gap.dropped, gaps + 1);
            }
            Some(Event::Notification(n)) if n.payload == b"end" => break,
            Some(Event::Notification(n)) => {
                told += 1;
                let number: u64 = n.payload_str().unwrap().parse().unwrap();
                assert_eq!(number, told + dropped, "each hole is told before what follows it");
            }
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(told + dropped, SENT);
    assert!(gaps > 0 && dropped > SENT / 2, "{gaps} gaps, {dropped} dropped");
}
