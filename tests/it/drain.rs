//! Nothing is left behind: bursts over every transport, in the loop's own wait and nested in others.

use crate::common::{
    PATIENCE, Seen, Sql, assert_silent, fresh_channel, listening, next, server, transports, wait_readable,
};
use mio::{Events, Interest, Poll, Token};
use pgwake::pq::{Connection, Conninfo};
use pgwake::{Event, EventLoop, Waker};
use rustix::event::{Timespec, epoll};
use std::time::{Duration, Instant};

const BURST: usize = 300;

/// Sends a burst to a channel.
type Load = fn(&mut Sql, &str);

/// A burst in one transaction, and one in as many as it has notifications.
const LOADS: [(&str, Load); 2] = [("300 × 4 KB at once", big_burst), ("300 transactions", many_rows)];

fn big_burst(sql: &mut Sql, channel: &str) {
    sql.run(&format!(
        "SELECT pg_notify('{channel}', rpad(i || ' ', 4000, 'x')) FROM generate_series(0, 299) i"
    ));
}

fn many_rows(sql: &mut Sql, channel: &str) {
    for i in 0..BURST {
        sql.run(&format!("NOTIFY {channel}, '{i} '"));
    }
}

/// The numbers at the start of the payloads, which must be 0, 1, 2 …
#[derive(Default)]
struct Count(usize);

impl Count {
    fn take(&mut self, payload: &[u8]) {
        let number = payload.split(|b| *b == b' ').next().unwrap();
        assert_eq!(number, self.0.to_string().as_bytes(), "out of order or lost");
        self.0 += 1;
    }

    /// Takes all that the loop gives without waiting.
    fn take_all(&mut self, events: &mut EventLoop) {
        while self.take_one(events) {}
    }

    /// `false`: there is none.
    fn take_one(&mut self, events: &mut EventLoop) -> bool {
        match events.next(Some(Duration::ZERO)).unwrap() {
            Some(Event::Notification(n)) => self.take(&n.payload),
            None => return false,
            other => panic!("{other:?}"),
        }
        true
    }
}

/// Runs `drain` against each load over each transport: while it comes, and once it is all there, after a
/// rest.
fn on_each_transport(drain: impl Fn(&mut EventLoop, &mut Count)) {
    for (transport, conninfo) in transports(server()) {
        for (load, send) in LOADS {
            for is_all_there in [false, true] {
                let channel = fresh_channel();
                let (mut events, _) = listening(&conninfo, &[&channel]);
                let (mut sql, mut count) = (Sql::connect(&server().conninfo()), Count::default());
                if is_all_there {
                    assert_silent(&mut events, Duration::from_millis(20));
                }
                let sender = std::thread::spawn(move || send(&mut sql, &channel));
                while is_all_there && !sender.is_finished() {
                    std::thread::yield_now();
                }
                let started = Instant::now();
                while count.0 < BURST {
                    drain(&mut events, &mut count);
                    assert!(started.elapsed() < PATIENCE, "{transport}, {load}: only {} of {BURST}", count.0);
                }
                sender.join().unwrap();
            }
        }
    }
}

#[test]
fn a_burst_arrives_whole_when_the_loop_itself_waits() {
    on_each_transport(|events, count| match events.next(Some(PATIENCE)).unwrap() {
        Some(Event::Notification(n)) => count.take(&n.payload),
        other => panic!("after {}: {other:?}", count.0),
    });
}

#[test]
fn a_burst_arrives_whole_while_spinning() {
    let channel = fresh_channel();
    let spin = pgwake::EventLoopOptions::new().spin(Duration::from_secs(1));
    let mut events = EventLoop::with_options(spin).unwrap();
    let session = events.connect(&transports(server())[2].1).unwrap();
    events.listen(session, &channel).unwrap();
    assert_eq!(next(&mut events), Seen::listening(&[&channel]));
    big_burst(&mut Sql::connect(&server().conninfo()), &channel);
    for i in 0..BURST {
        match events.next(Some(PATIENCE)).unwrap() {
            Some(Event::Notification(n)) => assert!(n.payload.starts_with(format!("{i} ").as_bytes())),
            other => panic!("{other:?}"),
        }
    }
}

fn in_an_outer_epoll(edge: epoll::EventFlags) {
    on_each_transport(|events, count| {
        let outer = epoll::create(epoll::CreateFlags::CLOEXEC).unwrap();
        epoll::add(&outer, &*events, epoll::EventData::new_u64(0), epoll::EventFlags::IN | edge).unwrap();
        // One registration for the whole burst: an edge that is lost is lost for good.
        while count.0 < BURST {
            let mut found =
                [epoll::Event { flags: epoll::EventFlags::empty(), data: epoll::EventData::new_u64(0) }];
            let patience = Timespec { tv_sec: PATIENCE.as_secs() as i64, tv_nsec: 0 };
            let woken = epoll::wait(&outer, &mut found, Some(&patience)).unwrap();
            assert_eq!(woken, 1, "no wake-up after {} of {BURST}", count.0);
            count.take_all(events);
        }
    });
}

#[test]
fn a_burst_arrives_whole_in_an_outer_level_triggered_epoll() {
    in_an_outer_epoll(epoll::EventFlags::empty());
}

#[test]
fn a_burst_arrives_whole_in_an_outer_edge_triggered_epoll() {
    in_an_outer_epoll(epoll::EventFlags::ET);
}

#[test]
fn a_burst_arrives_whole_in_an_outer_poll() {
    on_each_transport(|events, count| {
        wait_readable(events);
        count.take_all(events);
    });
}

/// The three steps bare, on a mio poll of one's own, which reports edges.
#[test]
fn a_burst_arrives_whole_on_a_bare_connection() {
    for (transport, conninfo) in transports(server()) {
        for (load, send) in LOADS {
            let channel = fresh_channel();
            let mut connection = Connection::connect(&Conninfo::parse(&conninfo).unwrap()).unwrap();
            connection.set_nonblocking().unwrap();
            connection.send_query(&format!("LISTEN {channel}")).unwrap();
            while connection.result().is_some() {}
            let mut poll = Poll::new().unwrap();
            poll.registry().register(&mut connection, Token(0), Interest::READABLE).unwrap();
            let (mut sql, mut count) = (Sql::connect(&server().conninfo()), Count::default());
            let sender = std::thread::spawn(move || send(&mut sql, &channel));
            let mut ready = Events::with_capacity(8);
            while count.0 < BURST {
                poll.poll(&mut ready, Some(PATIENCE)).unwrap();
                assert!(!ready.is_empty(), "{transport}, {load}: no wake-up after {} of {BURST}", count.0);
                loop {
                    connection.consume_input().unwrap();
                    while let Some(notification) = connection.notifies() {
                        count.take(notification.payload());
                    }
                    if !connection.has_unread_input().unwrap() {
                        break;
                    }
                }
            }
            sender.join().unwrap();
        }
    }
}

#[test]
fn notifications_that_come_with_an_answer_need_no_further_readiness() {
    let channel = fresh_channel();
    let (mut events, session) = listening(&server().conninfo(), &[&channel]);
    let mut sql = Sql::connect(&server().conninfo());
    for _ in 0..200 {
        // The other's notification travels together with the answer to ours.
        events.notify(session, "elsewhere", "").unwrap();
        sql.notify(&channel, "other");
        let (mut told, mut sent) = (0, 0);
        while (told, sent) != (1, 1) {
            match next(&mut events) {
                Seen::Sent(count) => sent += count,
                Seen::Notification { .. } => told += 1,
                other => panic!("{other:?}"),
            }
        }
    }
}

#[test]
fn a_flood_on_one_session_does_not_starve_another() {
    let (flooded, quiet) = (fresh_channel(), fresh_channel());
    let conninfo = server().conninfo();
    let (mut events, busy) = listening(&conninfo, &[&flooded]);
    let other = events.connect(&conninfo).unwrap();
    events.listen(other, &quiet).unwrap();
    assert_eq!(next(&mut events), Seen::listening(&[&quiet]));
    let mut sql = Sql::connect(&conninfo);
    sql.run(&format!("SELECT count(pg_notify('{flooded}', i::text)) FROM generate_series(1, 100000) i"));
    sql.notify(&quiet, "now");
    let (mut flood, mut before_quiet) = (0, None);
    while flood < 100_000 || before_quiet.is_none() {
        let Some(Event::Notification(n)) = events.next(Some(PATIENCE)).unwrap() else { panic!("lost") };
        match n.session {
            s if s == busy => flood += 1,
            _ => before_quiet = Some(flood),
        }
    }
    assert!(before_quiet.unwrap() < 90_000, "the quiet session had to wait for {before_quiet:?} of 100000");
}

/// A second turn would be system calls for nothing. Over TLS a libpq may need it to hand on all that it took.
#[test]
fn a_notification_alone_has_one_turn() {
    for (transport, conninfo) in transports(server()) {
        let channel = fresh_channel();
        let (mut events, session) = listening(&conninfo, &[&channel]);
        let mut sql = Sql::connect(&server().conninfo());
        // What belongs to the beginning is over.
        assert_silent(&mut events, Duration::from_millis(20));
        let before = events.metrics(session).unwrap().turns;
        for i in 0..50 {
            sql.notify(&channel, &i.to_string());
            assert_eq!(next(&mut events), Seen::notification(&channel, &i.to_string()));
            assert_silent(&mut events, Duration::from_millis(2));
        }
        let turns = events.metrics(session).unwrap().turns - before;
        let takes_all = cfg!(feature = "bundled") || pgwake::pq::version() == "15.20";
        match transport {
            "tls" if crate::common::is_libpq_old() => assert!(turns >= 100, "the old way: {turns}"),
            "tls" if !takes_all => assert!(turns <= 110, "{turns}"),
            _ => assert!(turns <= 55, "{transport}: {turns}"),
        }
    }
}

/// The way that is right with any libpq, though this one may not need it.
#[test]
fn with_a_libpq_that_says_it_is_old_a_burst_arrives_whole_too() {
    crate::common::repeat_with_old_libpq(&["a_burst_arrives_whole", "a_notification_alone_has_one_turn"]);
}

/// The wake ends the wait only when the burst has been taken: an outer edge would not come again.
#[test]
fn a_wake_in_the_middle_of_a_burst_leaves_nothing_behind() {
    woken_in_the_middle(|_, count, events| count.take_all(events));
}

/// A host that is fair to what else it watches.
#[test]
fn a_wake_after_each_event_brings_the_next_one() {
    woken_in_the_middle(|waker, count, events| {
        if count.take_one(events) {
            waker.wake().unwrap();
        }
    });
}

/// A burst and a wake, and then a turn of the host's for each edge.
fn woken_in_the_middle(mut turn: impl FnMut(&Waker, &mut Count, &mut EventLoop)) {
    for (transport, conninfo) in transports(server()) {
        let channel = fresh_channel();
        let (mut events, _) = listening(&conninfo, &[&channel]);
        let (mut sql, mut count) = (Sql::connect(&server().conninfo()), Count::default());
        let waker = events.waker();
        let outer = epoll::create(epoll::CreateFlags::CLOEXEC).unwrap();
        let flags = epoll::EventFlags::IN | epoll::EventFlags::ET;
        epoll::add(&outer, &events, epoll::EventData::new_u64(0), flags).unwrap();
        big_burst(&mut sql, &channel);
        waker.wake().unwrap();
        while count.0 < BURST {
            let mut found = [epoll::Event { flags, data: epoll::EventData::new_u64(0) }];
            let patience = Timespec { tv_sec: PATIENCE.as_secs() as i64, tv_nsec: 0 };
            let woken = epoll::wait(&outer, &mut found, Some(&patience)).unwrap();
            assert_eq!(woken, 1, "{transport}: no wake-up after {} of {BURST}", count.0);
            turn(&waker, &mut count, &mut events);
        }
    }
}
