//! A connection that ends at any byte: no panic, no descriptor lost, one gap for each outage, and afterwards
//! all is as before.
//!
//! Descriptors are counted, so these tests take turns, and no others may be in this binary.

#[path = "it/common/mod.rs"]
mod common;

use common::proxy::{Direction, Ending, Fault, Proxy, Upstream};
use common::{PATIENCE, Sql, server};
use pgwake::{Event, EventLoop, SessionId, SessionOptions};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::os::fd::AsRawFd;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// So many cuts are under way at once, each on a loop of its own: most of their time is waiting.
const WORKERS: usize = 8;

/// A sample of the bytes of a TLS connection, whose records are cut no differently at any other.
const TLS_SAMPLES: u64 = 120;

/// By how many bytes TLS connections differ: the length of a signature varies.
const TLS_VARIATION_BYTES: u64 = 8;

fn take_turns() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

fn descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}

/// A session behind a proxy of its own, and somebody who notifies it past that.
struct Bench {
    proxy: Proxy,
    sslmode: &'static str,
    events: EventLoop,
    sql: Sql,
    channel: String,
}

impl Bench {
    fn new(sslmode: &'static str, worker: usize) -> Self {
        let proxy = Proxy::new(Upstream::Tcp(server().port()));
        let sql = Sql::connect(&server().conninfo());
        // As long for each worker, so that all say the same number of bytes.
        Bench { proxy, sslmode, events: EventLoop::new().unwrap(), sql, channel: format!("cut_{worker}") }
    }

    /// A session that listens. It has no heartbeat, whose bytes would come at any time.
    fn listen(&mut self) -> SessionId {
        let options = SessionOptions::new().heartbeat(Duration::ZERO);
        let session = self.events.connect_with(&self.proxy.conninfo(self.sslmode), options).unwrap();
        self.events.listen(session, &self.channel).unwrap();
        match self.events.next(Some(PATIENCE)).unwrap() {
            Some(Event::Listening(_)) => session,
            other => panic!("{other:?}"),
        }
    }

    /// How many bytes flow until a session listens, and until it has heard a notification.
    fn measure(&mut self, direction: Direction) -> (u64, u64) {
        let session = self.listen();
        let listening = self.settled_flow(direction);
        self.sql.notify(&self.channel, "cut");
        assert!(matches!(self.events.next(Some(PATIENCE)).unwrap(), Some(Event::Notification(_))));
        let heard = self.settled_flow(direction);
        self.events.disconnect(session).unwrap();
        (listening, heard)
    }

    /// The proxy counts what it has handed on, a moment after the other side has it.
    fn settled_flow(&self, direction: Direction) -> u64 {
        std::thread::sleep(Duration::from_millis(100));
        self.proxy.flowed(direction)
    }

    /// Cuts a session that listens, and what it connects anew, at this byte; a later one than it takes to
    /// listen is one of a notification. Then lets it be, and hears it.
    fn cut(&mut self, fault: Fault, is_in_notification: bool) {
        let session = self.listen();
        self.proxy.set(fault);
        if is_in_notification {
            self.sql.notify(&self.channel, "cut");
        }
        let (mut losses_left, mut is_out) = (if is_in_notification { 1 } else { 2 }, false);
        while losses_left > 0 || is_out {
            match self.events.next(Some(PATIENCE)).unwrap() {
                Some(Event::Disconnected(lost)) => {
                    let sqlstate = lost.sqlstate.unwrap();
                    assert!(sqlstate.as_str().starts_with("08"), "{fault:?}: {lost:?}");
                    (losses_left, is_out) = (losses_left - 1, true);
                    if losses_left == 0 {
                        self.proxy.set(Fault::Nothing);
                    }
                }
                Some(Event::Gap(_)) => {
                    assert!(is_out, "{fault:?}: a gap without an outage");
                    is_out = false;
                }
                // The last byte of it came through.
                Some(Event::Notification(n)) if n.payload == b"cut" && !is_out => {}
                other => panic!("{fault:?}: {other:?}"),
            }
        }
        self.sql.notify(&self.channel, "after");
        match self.events.next(Some(PATIENCE)).unwrap() {
            Some(Event::Notification(n)) => assert_eq!(n.payload_str(), Some("after"), "{fault:?}"),
            other => panic!("{fault:?}: {other:?}"),
        }
        self.events.disconnect(session).unwrap();
    }
}

/// Cuts at every byte that flows until a notification is heard, or at so many samples, with the endings in
/// turn, and counts the descriptors before and after.
fn cut_at(sslmode: &'static str, direction: Direction, endings: &[Ending], samples: Option<u64>) {
    let _turn = take_turns();
    // Twice, so that what libraries open once and keep is open.
    Bench::new(sslmode, 0).measure(direction);
    let (listening, heard) = Bench::new(sslmode, 0).measure(direction);
    let before = descriptors();
    let variation = samples.map_or(0, |_| TLS_VARIATION_BYTES);
    let last = heard - variation;
    let bytes =
        (0..=samples.map_or(last, |samples| samples - 1)).map(|i| samples.map_or(i, |n| i * last / (n - 1)));
    // In the bytes that may or may not be the notification's, it is sent, and harmless where it is not.
    let is_in_notification = |at| heard > listening && at + variation > listening;
    let cut = |(at, ending): (u64, &Ending)| {
        (Fault::Cut { direction, at, ending: *ending }, is_in_notification(at))
    };
    let cuts: Vec<_> = bytes.zip(endings.iter().cycle()).map(cut).collect();
    std::thread::scope(|scope| {
        for worker in 0..WORKERS {
            let cuts = cuts.iter().skip(worker).step_by(WORKERS);
            scope.spawn(move || {
                let mut bench = Bench::new(sslmode, worker);
                cuts.for_each(|(fault, is_in_notification)| bench.cut(*fault, *is_in_notification));
            });
        }
    });
    println!("{} cuts: {listening} bytes to listen, {} of a notification", cuts.len(), heard - listening);
    assert_eq!(descriptors(), before, "descriptors are lost");
}

#[test]
fn a_fin_after_any_byte_of_the_server_is_survived() {
    cut_at("disable", Direction::Down, &[Ending::Fin], None);
}

#[test]
fn a_reset_after_any_byte_of_the_server_is_survived() {
    cut_at("disable", Direction::Down, &[Ending::Reset], None);
}

#[test]
fn an_end_after_any_byte_of_the_client_is_survived() {
    cut_at("disable", Direction::Up, &[Ending::Fin, Ending::Reset], None);
}

#[test]
fn an_end_within_tls_is_survived() {
    cut_at("require", Direction::Down, &[Ending::Fin, Ending::Reset], Some(TLS_SAMPLES));
}

/// What comes in pieces is read with descriptors of its own, if there are any.
#[test]
fn a_session_goes_on_while_there_is_no_descriptor_left() {
    let _turn = take_turns();
    let mut bench = Bench::new("disable", 0);
    bench.listen();
    bench.proxy.set(Fault::Trickle { bytes: 3, pause: Duration::from_millis(1) });
    let usual = getrlimit(Resource::Nofile);
    let next = rustix::io::dup(std::io::stderr()).unwrap();
    setrlimit(Resource::Nofile, Rlimit { current: Some(next.as_raw_fd() as u64), ..usual }).unwrap();
    drop(next);
    for payload in ["one", "two", "three"] {
        bench.sql.notify(&bench.channel, payload);
        match bench.events.next(Some(PATIENCE)) {
            Ok(Some(Event::Notification(n))) if n.payload == payload.as_bytes() => {}
            other => panic!("{other:?}"),
        }
    }
    bench.events.connect(&bench.proxy.conninfo("disable")).unwrap();
    let refused = match bench.events.next(Some(PATIENCE)) {
        Ok(Some(Event::Disconnected(lost))) => lost.message.to_string(),
        other => panic!("{other:?}"),
    };
    setrlimit(Resource::Nofile, usual).unwrap();
    // libpq 18 says nothing itself.
    assert!(refused.to_lowercase().contains("too many"), "{refused:?}");
}

#[test]
fn the_proxy_ends_connections_as_it_is_told() {
    let _turn = take_turns();
    let socket = server().directory().join(format!(".s.PGSQL.{}", server().port()));
    let before = descriptors();
    for (ending, expected) in [(Ending::Fin, Ok(0)), (Ending::Reset, Err(ErrorKind::ConnectionReset))] {
        let proxy = Proxy::new(Upstream::Unix(socket.clone()));
        let mut client = TcpStream::connect(("127.0.0.1", proxy.port())).unwrap();
        // The server's answer to a request for TLS is one byte.
        client.write_all(&[0, 0, 0, 8, 4, 210, 22, 47]).unwrap();
        let mut answer = [0; 64];
        assert_eq!(client.read(&mut answer).unwrap(), 1);
        proxy.set(Fault::Cut { direction: Direction::Down, at: 1, ending });
        assert_eq!(client.read(&mut answer).map_err(|error| error.kind()), expected, "{ending:?}");
    }
    assert_eq!(descriptors(), before, "the proxy keeps descriptors");
}
