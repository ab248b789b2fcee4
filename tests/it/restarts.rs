//! Servers that go and come back: backends that are killed, restarts, a standby that becomes the primary.
//! Every outage is one gap, and a session is back as soon as it can be.

use crate::common::random::Random;
use crate::common::{
    PATIENCE, PrivateServer, Seen, Sql, fresh_channel, make_standby, next, server, start_server,
};
use pgwake::{Event, EventLoop};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

const KILLS: u32 = 200;

const RESTARTS: u32 = 20;

/// How soon a session listens again after its server accepts connections again.
const BACK_MAX: Duration = Duration::from_secs(1);

/// Sends 0, 1, 2, … to a channel, one each millisecond, until the other end of `go_on` is gone.
fn number(channel: &str, go_on: &Receiver<()>) {
    let mut sql = Sql::connect(&server().conninfo());
    let started = Instant::now();
    for i in 0.. {
        sql.notify(channel, &i.to_string());
        // By the clock, so that a slow commit is made up for.
        let due = started + Duration::from_millis(i + 1);
        let pause = due.saturating_duration_since(Instant::now());
        if go_on.recv_timeout(pause) == Err(RecvTimeoutError::Disconnected) {
            return;
        }
    }
}

/// Kills the session's backend a random moment after each time that it hears of it being back.
fn kill(application: &str, is_back: &Receiver<()>, random: &mut Random) {
    let mut sql = Sql::connect(&server().conninfo());
    let kill = format!(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = '{application}'"
    );
    for () in is_back {
        std::thread::sleep(random.duration_below(Duration::from_millis(40)));
        sql.run(&kill);
    }
}

/// What of a numbered stream was heard and what not.
#[derive(Debug, Default)]
struct Stream {
    expected: u64,
    lost: u64,
    holes: u32,
    gaps: u32,
    gaps_since_a_number: u32,
    losses: u32,
}

impl Stream {
    fn take(&mut self, number: u64) {
        let lost = number.checked_sub(self.expected).expect("no number comes twice, nor out of order");
        assert!(lost == 0 || self.gaps_since_a_number == 1, "{lost} lost before {number}: {self:?}");
        self.holes += u32::from(lost > 0);
        self.lost += lost;
        (self.expected, self.gaps_since_a_number) = (number + 1, 0);
    }
}

#[test]
fn every_hole_in_a_numbered_stream_lies_in_exactly_one_gap() {
    let (name, mut random) = (fresh_channel(), Random::seeded());
    let mut events = EventLoop::new().unwrap();
    let session = events.connect(&format!("{} application_name={name}", server().conninfo())).unwrap();
    events.listen(session, &name).unwrap();
    assert_eq!(next(&mut events), Seen::listening(&[&name]));
    let ((back, is_back), (going_on, go_on)) = (channel(), channel());
    let mut stream = Stream::default();
    std::thread::scope(|scope| {
        let name = &name;
        scope.spawn(move || number(name, &go_on));
        scope.spawn(move || kill(name, &is_back, &mut random));
        // They go with this closure, and both threads end, also when it panics.
        let (back, _going_on) = (back, going_on);
        let (mut kills, mut is_killed, mut heard_at_last) = (0, false, 0);
        while heard_at_last < 100 {
            match events.next(Some(PATIENCE)).unwrap().expect("the stream stopped") {
                Event::Notification(n) => {
                    stream.take(n.payload_str().unwrap().parse().unwrap());
                    // Only a session that has heard something is killed anew, so that no hole is of two
                    // outages.
                    if !is_killed && kills < KILLS {
                        (kills, is_killed) = (kills + 1, true);
                        back.send(()).unwrap();
                    }
                    heard_at_last += u32::from(!is_killed);
                }
                Event::Disconnected(lost) => {
                    assert_eq!(lost.sqlstate.unwrap().as_str(), "57P01", "{}", lost.message);
                    stream.losses += 1;
                }
                Event::Gap(_) => {
                    (stream.gaps, is_killed) = (stream.gaps + 1, false);
                    stream.gaps_since_a_number += 1;
                }
                other => panic!("{other:?}"),
            }
        }
    });
    println!("{stream:?}");
    assert_eq!((stream.losses, stream.gaps), (KILLS, KILLS), "each outage is one gap, and there is no other");
}

/// Restarts a server and says when it accepts a connection again.
fn restart(server: &mut PrivateServer, mode: &str) -> Instant {
    server.restart(mode).unwrap();
    let conninfo = pgwake::pq::Conninfo::parse(&server.conninfo()).unwrap();
    while pgwake::pq::Connection::connect(&conninfo).is_err() {
        std::thread::sleep(Duration::from_millis(1));
    }
    Instant::now()
}

#[test]
fn a_session_is_back_within_a_second_after_each_restart() {
    let mut server = start_server();
    let conninfo = server.conninfo();
    let mut events = EventLoop::new().unwrap();
    let session = events.connect(&conninfo).unwrap();
    events.listen(session, "c").unwrap();
    assert_eq!(next(&mut events), Seen::listening(&["c"]));
    let mut delays = Vec::new();
    for round in 0..RESTARTS {
        let (mut attempts, mut back_at) = (0, None);
        let accepted_at = std::thread::scope(|scope| {
            let restarting = scope.spawn(|| restart(&mut server, "immediate"));
            while back_at.is_none() {
                match events.next(Some(PATIENCE)).unwrap() {
                    Some(Event::Disconnected(_)) => attempts += 1,
                    Some(Event::Gap(gap)) => {
                        assert_eq!(gap.attempts, attempts, "{gap:?}");
                        back_at = Some(Instant::now());
                    }
                    other => panic!("restart {round}: {other:?}"),
                }
            }
            restarting.join().unwrap()
        });
        delays.push(back_at.unwrap().saturating_duration_since(accepted_at));
        // A second gap would come before this.
        Sql::connect(&conninfo).notify("c", &round.to_string());
        assert_eq!(next(&mut events), Seen::notification("c", &round.to_string()));
    }
    println!("back after {delays:?}");
    assert!(delays.iter().all(|delay| *delay <= BACK_MAX), "{delays:?}");
}

#[test]
fn a_standby_is_named_and_listened_to_once_it_is_promoted() {
    let mut standby = start_server();
    make_standby(&mut standby);
    let mut events = EventLoop::new().unwrap();
    let session = events.connect(&standby.conninfo()).unwrap();
    events.listen(session, "c").unwrap();
    for _ in 0..3 {
        match events.next(Some(PATIENCE)).unwrap() {
            Some(Event::Disconnected(lost)) => {
                assert!(lost.message.contains("server is in hot standby mode"), "{lost:?}")
            }
            other => panic!("{other:?}"),
        }
    }
    Sql::connect(&standby.conninfo()).run("SELECT pg_promote()");
    let seen =
        std::iter::repeat_with(|| next(&mut events)).find(|seen| !matches!(seen, Seen::Disconnected(_)));
    assert_eq!(seen, Some(Seen::listening(&["c"])));
    Sql::connect(&standby.conninfo()).notify("c", "promoted");
    assert_eq!(next(&mut events), Seen::notification("c", "promoted"));
}
