//! A caller that is too slow: nothing is lost, or what is folded or dropped is counted; memory stays bounded.

#[path = "it/common/mod.rs"]
mod common;

use common::{PATIENCE, Sql, fresh_channel, server};
use pgwake::{Event, EventLoop, GapReason, Overflow, SessionOptions};
use std::time::{Duration, Instant};

const SENT: u64 = 50_000;

/// How long a caller is away while notifications come at this rate, committed this often.
const AWAY: Duration = Duration::from_secs(10);
const PER_SECOND: u64 = 50_000;
const COMMIT_EVERY: Duration = Duration::from_millis(100);

/// What the process may grow by meanwhile; what is sent is more.
const GROWTH_KB_MAX: u64 = 64 * 1024;
const PADDING_BYTES: u64 = 200;

/// A loop that listens as `overflow` says.
fn listening(overflow: Overflow, channel: &str) -> EventLoop {
    let mut events = EventLoop::new().unwrap();
    let options = SessionOptions::new().overflow(overflow);
    let session = events.connect_with(&server().conninfo(), options).unwrap();
    events.listen(session, channel).unwrap();
    assert!(matches!(events.next(Some(PATIENCE)).unwrap(), Some(Event::Listening(_))));
    events
}

/// The same, and it finds `SENT` numbered notifications waiting for it.
fn flooded(overflow: Overflow) -> (EventLoop, String) {
    let channel = fresh_channel();
    let events = listening(overflow, &channel);
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
    while events.next(Some(Duration::from_millis(100))).unwrap().is_some() {}
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

#[test]
fn a_busy_session_keeps_neither_another_nor_its_own_commands_waiting() {
    for overflow in [Overflow::Coalesce, Overflow::DropOldest(100)] {
        let (busy, quiet, late) = (fresh_channel(), fresh_channel(), fresh_channel());
        let mut events = listening(overflow, &busy);
        let other = events.connect(&server().conninfo()).unwrap();
        events.listen(other, &quiet).unwrap();
        assert!(matches!(events.next(Some(PATIENCE)).unwrap(), Some(Event::Listening(_))));
        let is_over = std::sync::atomic::AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let mut sql = Sql::connect(&server().conninfo());
                while !is_over.load(std::sync::atomic::Ordering::Acquire) {
                    sql.run(&format!(
                        "SELECT count(pg_notify('{busy}', i::text)) FROM generate_series(1, 500) i"
                    ));
                    sql.notify(&quiet, "meanwhile");
                    // More than is taken, and no more than can be read, by a slow build either.
                    std::thread::sleep(Duration::from_millis(5));
                }
            });
            let (mut of_the_busy, mut of_the_quiet, mut is_answered) = (0, 0, false);
            let started = Instant::now();
            while (of_the_quiet < 20 || !is_answered) && started.elapsed() < PATIENCE {
                match events.next(Some(PATIENCE)).unwrap() {
                    Some(Event::Notification(n)) if n.session == other => of_the_quiet += 1,
                    Some(Event::Notification(n)) => {
                        let session = n.session;
                        of_the_busy += 1;
                        // Again and again: that must not give it every turn.
                        if of_the_busy >= 20 {
                            events.listen(session, &late).unwrap();
                        }
                        std::thread::sleep(Duration::from_millis(1));
                    }
                    Some(Event::Listening(_)) => is_answered = true,
                    Some(Event::Gap(_)) => {}
                    other => panic!("{other:?}"),
                }
            }
            is_over.store(true, std::sync::atomic::Ordering::Release);
            assert!(
                is_answered && of_the_quiet >= 20,
                "{overflow:?}: {of_the_busy} busy, {of_the_quiet} quiet"
            );
        });
    }
}

/// Notifies at `PER_SECOND` for as long as the caller is away, and says how many that were.
fn flood(channel: &str) -> u64 {
    let mut sql = Sql::connect(&server().conninfo());
    let started = Instant::now();
    let batch = PER_SECOND * COMMIT_EVERY.as_millis() as u64 / 1000;
    let mut sent = 0;
    while started.elapsed() < AWAY {
        let (first, last) = (sent + 1, sent + batch);
        sql.run(&format!(
            "SELECT count(pg_notify('{channel}', i || repeat(' ', {PADDING_BYTES}))) \
             FROM generate_series({first}, {last}) i"
        ));
        sent = last;
        // By the clock, so that a slow commit is made up for.
        let due = started + COMMIT_EVERY * (sent / batch) as u32;
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
    }
    sql.notify(channel, "end");
    println!("{sent} sent in {:?}", started.elapsed());
    sent
}

/// What a caller that was away hears: events, what they stand for besides, and what gaps say was dropped.
fn come_back(mut events: EventLoop) -> (u64, u64, u64) {
    let (mut told, mut folded, mut dropped) = (0, 0, 0);
    loop {
        match events.next(Some(PATIENCE)).unwrap() {
            Some(Event::Notification(n)) if n.payload == b"end" => return (told, folded + n.folded, dropped),
            Some(Event::Notification(n)) => (told, folded) = (told + 1, folded + n.folded),
            Some(Event::Gap(gap)) if gap.reason == GapReason::Overflow => dropped += gap.dropped,
            other => panic!("{other:?}"),
        }
    }
}

/// The most memory that this process ever had at once.
fn peak_kb() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    peak.trim().trim_end_matches(" kB").parse().unwrap()
}

#[test]
fn a_caller_that_sleeps_in_a_flood_costs_no_memory_and_hears_how_much_it_missed() {
    let channel = fresh_channel();
    let dropping = listening(Overflow::DropOldest(1000), &channel);
    let folding = listening(Overflow::Coalesce, &channel);
    let before = peak_kb();
    // Both callers sleep for as long as this takes.
    let sent = flood(&channel);
    let (dropping, folding) = std::thread::scope(|scope| {
        let callers = [dropping, folding].map(|events| scope.spawn(|| come_back(events)));
        callers.map(|caller| caller.join().unwrap()).into()
    });
    let grown = peak_kb() - before;
    println!("(told, folded, dropped): {dropping:?} and {folding:?}; {grown} kB more");
    let (told, folded, dropped) = dropping;
    assert_eq!((told + dropped, folded), (sent, 0));
    assert!(dropped > 0, "the flood was not faster than the caller");
    let (told, folded, dropped) = folding;
    assert_eq!((told + folded, dropped), (sent, 0));
    assert!(told < sent / 10, "{told} events for {sent} notifications");
    assert!(sent * PADDING_BYTES > GROWTH_KB_MAX * 1024, "the flood would fit");
    assert!(grown < GROWTH_KB_MAX, "{grown} kB more");
}
