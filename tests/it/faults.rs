//! What networks do, between a session and a real server: nothing of it is silent, harms another session of
//! the loop, or changes a notification.

use crate::common::proxy::{Direction, Ending, Fault, Proxy, Upstream};
use crate::common::random::Random;
use crate::common::{PATIENCE, Seen, Sql, assert_silent, fresh_channel, next, server};
use pgwake::{Event, EventLoop, SessionId, SessionOptions};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime};

const HEARTBEAT: Duration = Duration::from_millis(500);

/// Two heartbeats, and half a one for a machine that is busy with other tests.
const NOTICED_MAX: Duration = Duration::from_millis(1250);

fn proxy() -> Proxy {
    Proxy::new(Upstream::Tcp(server().port()))
}

/// Adds a session to the loop, and waits until it listens. A host that is silent costs it a second only.
fn listen(events: &mut EventLoop, conninfo: &str, channel: &str, heartbeat: Duration) -> SessionId {
    let options = SessionOptions::new().heartbeat(heartbeat);
    let session = events.connect_with(&format!("{conninfo} connect_timeout=1"), options).unwrap();
    events.listen(session, channel).unwrap();
    assert_eq!(next(events), Seen::listening(&[channel]));
    session
}

/// The end of an outage: any number of vain attempts, one gap, and what is notified then is heard.
fn assert_back(events: &mut EventLoop, channel: &str) {
    loop {
        match next(events) {
            Seen::Disconnected(_) => {}
            Seen::Gap { channels, .. } => break assert_eq!(channels, [channel]),
            other => panic!("{other:?}"),
        }
    }
    Sql::connect(&server().conninfo()).notify(channel, "after");
    assert_eq!(next(events), Seen::notification(channel, "after"));
}

/// Notifies every few milliseconds, each time with the microseconds since `start`, until it is dropped.
struct Ticker(Arc<AtomicBool>, Option<std::thread::JoinHandle<()>>);

impl Ticker {
    fn start(channel: &str, start: Instant) -> Self {
        let (channel, is_over) = (channel.to_string(), Arc::new(AtomicBool::new(false)));
        let watched = is_over.clone();
        let thread = std::thread::spawn(move || {
            let mut sql = Sql::connect(&server().conninfo());
            while !watched.load(Ordering::Acquire) {
                sql.notify(&channel, &start.elapsed().as_micros().to_string());
                std::thread::sleep(Duration::from_millis(5));
            }
        });
        Ticker(is_over, Some(thread))
    }
}

impl Drop for Ticker {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Release);
        let _ = self.1.take().map(std::thread::JoinHandle::join);
    }
}

#[test]
fn a_black_hole_is_noticed_within_two_heartbeats_and_the_other_sessions_hear_on() {
    let (proxy, mut random) = (proxy(), Random::seeded());
    let (lost_in, heard_on) = (fresh_channel(), fresh_channel());
    let mut events = EventLoop::new().unwrap();
    let plain = listen(&mut events, &proxy.conninfo("disable"), &lost_in, HEARTBEAT);
    let tls = listen(&mut events, &proxy.conninfo("require"), &lost_in, HEARTBEAT);
    let direct = listen(&mut events, &server().conninfo(), &heard_on, Duration::ZERO);
    let start = Instant::now();
    let ticker = Ticker::start(&heard_on, start);
    // Several heartbeats pass first; the hole opens anywhere between two of them.
    let opens_at = 3 * HEARTBEAT + random.duration_below(HEARTBEAT);
    let (mut opened, mut noticed, mut back) = (None, Vec::new(), Vec::new());
    let mut first_noticed = None;
    let (mut heard, mut latest) = (0u32, Duration::ZERO);
    while back.len() < 2 {
        if opened.is_none() && start.elapsed() > opens_at {
            proxy.set(Fault::BlackHole);
            opened = Some(Instant::now());
        }
        match events.next(Some(PATIENCE)).unwrap().expect("silence") {
            Event::Notification(n) => {
                assert_eq!(n.session, direct);
                let sent = Duration::from_micros(n.payload_str().unwrap().parse().unwrap());
                (heard, latest) = (heard + 1, latest.max(start.elapsed() - sent));
            }
            Event::Disconnected(lost) if !noticed.iter().any(|(session, _)| *session == lost.session) => {
                assert_eq!(lost.sqlstate.unwrap().as_str(), "08006", "{}", lost.message);
                first_noticed.get_or_insert_with(SystemTime::now);
                noticed.push((lost.session, opened.expect("no reason to be lost").elapsed()));
            }
            // Later attempts fall into the hole, too, and cost their time; then it closes.
            Event::Disconnected(lost) => {
                assert_eq!(lost.sqlstate.unwrap().as_str(), "08001", "{}", lost.message);
                proxy.set(Fault::Nothing);
            }
            // All that fell into the hole is lost, long before that was noticed.
            Event::Gap(gap) => {
                let before = first_noticed.unwrap() - HEARTBEAT / 2;
                assert!(gap.lost_at < before, "{gap:?}, noticed {first_noticed:?}");
                back.push(gap.session);
            }
            other => panic!("{other:?}"),
        }
    }
    drop(ticker);
    println!("noticed after {noticed:?}; {heard} heard meanwhile, the latest after {latest:?}");
    assert!(noticed.iter().all(|(_, after)| *after < NOTICED_MAX), "{noticed:?}");
    assert!(latest < NOTICED_MAX, "another session was held up: {latest:?}");
    assert!(heard > 100, "the other session heard only {heard}");
    back.sort();
    assert_eq!(back, [plain, tls], "each outage is one gap");
}

#[test]
fn a_peer_that_reads_no_more_is_noticed_within_two_heartbeats() {
    let (proxy, channel) = (proxy(), fresh_channel());
    let mut events = EventLoop::new().unwrap();
    listen(&mut events, &proxy.conninfo("disable"), &channel, HEARTBEAT);
    proxy.set(Fault::Stall);
    let stalled = Instant::now();
    assert_eq!(next(&mut events), Seen::Disconnected("08006".into()));
    assert!(stalled.elapsed() < NOTICED_MAX, "noticed after {:?}", stalled.elapsed());
    proxy.set(Fault::Nothing);
    assert_back(&mut events, &channel);
}

#[test]
fn a_half_open_peer_is_noticed_within_two_heartbeats() {
    for refuses in [false, true] {
        let (proxy, channel) = (proxy(), fresh_channel());
        let mut events = EventLoop::new().unwrap();
        listen(&mut events, &proxy.conninfo("disable"), &channel, HEARTBEAT);
        proxy.set(Fault::HalfOpen { refuses });
        let opened = Instant::now();
        assert_eq!(next(&mut events), Seen::Disconnected("08006".into()));
        assert!(opened.elapsed() < NOTICED_MAX, "noticed after {:?}", opened.elapsed());
        // Who connects anew finds silence, or nobody.
        assert_eq!(next(&mut events), Seen::Disconnected("08001".into()));
        proxy.set(Fault::Nothing);
        assert_back(&mut events, &channel);
    }
}

#[test]
fn a_reset_while_idle_is_told_at_once() {
    for sslmode in ["disable", "require"] {
        let (proxy, channel) = (proxy(), fresh_channel());
        let mut events = EventLoop::new().unwrap();
        listen(&mut events, &proxy.conninfo(sslmode), &channel, Duration::ZERO);
        assert_silent(&mut events, Duration::from_millis(50));
        proxy.set(Fault::Cut { direction: Direction::Down, at: 0, ending: Ending::Reset });
        assert_eq!(next(&mut events), Seen::Disconnected("08006".into()), "{sslmode}");
        proxy.set(Fault::Nothing);
        assert_back(&mut events, &channel);
    }
}

#[test]
fn notifications_that_trickle_in_are_exact() {
    let proxy = proxy();
    proxy.set(Fault::Trickle { bytes: 1, pause: Duration::from_micros(20) });
    let mut sql = Sql::connect(&server().conninfo());
    for sslmode in ["disable", "require"] {
        let channel = fresh_channel();
        let mut events = EventLoop::new().unwrap();
        let options = SessionOptions::new().heartbeat(Duration::ZERO);
        let session = events.connect_with(&proxy.conninfo(sslmode), options).unwrap();
        events.listen(session, &channel).unwrap();
        assert_eq!(next(&mut events), Seen::listening(&[&channel]));
        let payloads = [0, 1, 2, 255, 256, 7999].map(|length| "x~".repeat(length)[..length].to_string());
        payloads.iter().for_each(|payload| sql.notify(&channel, payload));
        for payload in &payloads {
            assert_eq!(next(&mut events), Seen::notification(&channel, payload), "{sslmode}");
        }
    }
}

#[test]
fn a_slow_link_keeps_the_order_and_the_heartbeats() {
    // Long enough for a machine that does much else besides, too.
    const HEARTBEAT: Duration = Duration::from_secs(1);
    let (proxy, channel) = (proxy(), fresh_channel());
    proxy.set(Fault::Delay { up: Duration::from_millis(100), down: Duration::from_millis(100) });
    let mut events = EventLoop::new().unwrap();
    listen(&mut events, &proxy.conninfo("disable"), &channel, HEARTBEAT);
    let mut sql = Sql::connect(&server().conninfo());
    for round in 0..3 {
        // Heartbeats pass in the silence.
        assert_silent(&mut events, 3 * HEARTBEAT);
        let numbers: Vec<_> = (0..100).map(|i| format!("{round} {i}")).collect();
        numbers.iter().for_each(|number| sql.notify(&channel, number));
        for number in &numbers {
            assert_eq!(next(&mut events), Seen::notification(&channel, number));
        }
    }
}

#[test]
fn a_slow_link_loses_nothing_of_what_is_sent() {
    const COUNT: u64 = 600;
    for sslmode in ["disable", "require"] {
        let proxy = proxy();
        let mut events = EventLoop::new().unwrap();
        let session = events.connect(&proxy.conninfo(sslmode)).unwrap();
        assert_eq!(next(&mut events), Seen::listening(&[]));
        proxy.set(Fault::Delay { up: Duration::from_millis(5), down: Duration::from_millis(5) });
        let payload = "x".repeat(7999);
        (0..COUNT).for_each(|_| events.notify(session, "slow", &payload).unwrap());
        let mut sent = 0;
        while sent < COUNT {
            match next(&mut events) {
                Seen::Sent(count) => sent += count,
                other => panic!("{sslmode}, {sent} sent: {other:?}"),
            }
        }
    }
}
