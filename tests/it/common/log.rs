//! A server whose log can be read, databases of their own, and a stream whose events are read as JSON.

use super::{PATIENCE, Sql, start_with_settings};
use pgwake::{EventLoop, SessionId, StreamOptions};
use serde_json::Value;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant, SystemTime};

use super::PrivateServer;

/// What a server needs for its log to be read.
pub(crate) const SETTINGS: [&str; 6] = [
    "wal_level = logical",
    "max_wal_senders = 200",
    "max_replication_slots = 200",
    "max_prepared_transactions = 50",
    "logical_decoding_work_mem = '64kB'",
    "max_connections = 200",
];

/// The server of these tests.
pub(crate) fn log_server() -> &'static PrivateServer {
    static SERVER: OnceLock<PrivateServer> = OnceLock::new();
    SERVER.get_or_init(|| start_with_settings(&SETTINGS))
}

pub(crate) fn major() -> u32 {
    let version = Sql::connect(&log_server().conninfo()).value("SHOW server_version_num");
    version.parse::<u32>().unwrap() / 10_000
}

/// Whether the server is at least this version; says so, if it is not.
pub(crate) fn has(version: u32, what: &str) -> bool {
    let is_there = major() >= version;
    if !is_there {
        super::say_loudly(&format!("SKIPPED: {what} came with PostgreSQL {version}"));
    }
    is_there
}

/// A database of its own on that server.
pub(crate) fn database(options: &str) -> (String, Sql) {
    static COUNTER: AtomicU32 = AtomicU32::new(0);
    let name = format!("log_{}", COUNTER.fetch_add(1, Ordering::Relaxed));
    Sql::connect(&log_server().conninfo()).run(&format!("CREATE DATABASE {name} {options}"));
    let conninfo = log_server().conninfo().replace("dbname=postgres", &format!("dbname={name}"));
    let sql = Sql::connect(&conninfo);
    (conninfo, sql)
}

/// Waits until the slot has no reader: the server may see the end of a reader later than the test.
pub(crate) fn until_free(sql: &mut Sql, slot: &str) {
    let deadline = Instant::now() + PATIENCE;
    let active = format!("SELECT active FROM pg_replication_slots WHERE slot_name = '{slot}'");
    while sql.value(&active) == "t" {
        assert!(Instant::now() < deadline, "the slot {slot} is in use");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// A loop with one stream.
pub(crate) struct Stream {
    pub(crate) events: EventLoop,
    pub(crate) id: SessionId,
}

impl Stream {
    /// As soon as it streams.
    pub(crate) fn open(conninfo: &str, options: StreamOptions) -> Self {
        let mut stream = Stream::start(conninfo, options);
        let first = stream.next();
        assert_eq!(first["event"], "listening", "{first}");
        stream
    }

    pub(crate) fn start(conninfo: &str, options: StreamOptions) -> Self {
        let mut events = EventLoop::new().unwrap();
        let id = events.stream(conninfo, options).unwrap();
        Stream { events, id }
    }

    /// The next event, which must come.
    pub(crate) fn next(&mut self) -> Value {
        self.within(PATIENCE).expect("an event was expected, and none came")
    }

    pub(crate) fn within(&mut self, time: Duration) -> Option<Value> {
        let event = self.events.next(Some(time)).unwrap()?;
        let mut line = Vec::new();
        pgwake::json::write_line(&mut line, &event, SystemTime::now()).unwrap();
        Some(serde_json::from_slice(&line).unwrap())
    }

    /// The next change, whatever comes before it but the descriptions of tables must not come.
    pub(crate) fn change(&mut self) -> Value {
        loop {
            let event = self.next();
            match event["event"].as_str().unwrap() {
                "schema" => {}
                "change" => return event,
                _ => panic!("a change was expected, and this came: {event}"),
            }
        }
    }

    /// All events up to the one that this says.
    pub(crate) fn until(&mut self, is_last: impl Fn(&Value) -> bool) -> Vec<Value> {
        let deadline = Instant::now() + PATIENCE;
        let mut all = Vec::new();
        loop {
            assert!(Instant::now() < deadline, "the last event did not come; {} did", all.len());
            let event = self.next();
            let is_over = is_last(&event);
            all.push(event);
            if is_over {
                return all;
            }
        }
    }
}
