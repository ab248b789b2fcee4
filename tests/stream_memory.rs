//! A stream takes little memory, whatever the server has for it: in a process of its own, where nothing else
//! does. A caller who pauses, and a large transaction.

#[path = "it/common/mod.rs"]
mod common;

use common::log::SETTINGS;
use common::{PATIENCE, Sql, start_with_settings, transports};
use pgwake::{Event, EventLoop, SessionId, StreamOptions, Streaming};
use std::time::{Duration, Instant};

fn from_environment(variable: &str, otherwise: u64) -> u64 {
    std::env::var(variable).map_or(otherwise, |number| number.parse().expect("a whole number"))
}

/// A line of this process's status, in MB.
fn memory_mb(name: &str) -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
    let kb: u64 = line.trim_start_matches(':').trim().trim_end_matches(" kB").parse().unwrap();
    kb / 1024
}

/// A stream of `t` as these options say.
fn stream(conninfo: &str, options: StreamOptions) -> (EventLoop, SessionId) {
    let mut events = EventLoop::new().unwrap();
    let session = events.stream(conninfo, options.table("t").heartbeat(Duration::from_secs(1))).unwrap();
    assert!(matches!(events.next(Some(PATIENCE)).unwrap(), Some(Event::Listening(_))));
    (events, session)
}

/// Reads changes with these ids, in this order, and nothing else but the description of their table.
fn read(events: &mut EventLoop, ids: std::ops::RangeInclusive<u64>) {
    for id in ids {
        let key = format!("{{\"id\":{id}}}");
        loop {
            match events.next(Some(10 * PATIENCE)).unwrap().expect("a change was expected, and none came") {
                Event::Change(change) => break assert_eq!(change.key, Some(&*key)),
                Event::Schema(_) => {}
                other => panic!("{other:?}"),
            }
        }
    }
}

/// The server's own patience is a second or two, and three are over before it is read again.
fn pause(conninfo: &str, sql: &mut Sql) {
    let megabytes = from_environment("PGWAKE_TEST_PAUSE_MB", 50);
    let (mut events, _) = stream(conninfo, StreamOptions::new());
    sql.run("INSERT INTO t VALUES (0)");
    read(&mut events, 0..=0);
    let before = memory_mb("VmRSS");
    sql.run(&format!(
        "INSERT INTO t SELECT i, repeat('x', 1000) FROM generate_series(1, {}) AS i",
        megabytes * 1000
    ));
    std::thread::sleep(Duration::from_millis(3500));
    assert!(memory_mb("VmRSS") <= before + 4, "nothing is read meanwhile");
    read(&mut events, 1..=megabytes * 1000);
    let grown = memory_mb("VmRSS") - before;
    println!("{megabytes} MB waited for a caller who paused: {grown} MB more in memory");
    assert!(grown <= 16, "{grown} MB");
    assert!(events.next(Some(Duration::ZERO)).unwrap().is_none());
}

fn large(conninfo: &str, sql: &mut Sql) {
    let rows = from_environment("PGWAKE_TEST_ROWS", 200_000);
    let cap_mb = from_environment("PGWAKE_TEST_MEMORY_MB", 8);
    let options = StreamOptions::new().streaming(Streaming::On).memory_max((cap_mb << 20) as usize);
    let (mut events, session) = stream(conninfo, options);
    let (started, mut held_mb) = (Instant::now(), 0);
    let insert = format!("INSERT INTO t SELECT i, repeat('x', 100) FROM generate_series(1, {rows}) AS i");
    sql.run("BEGIN");
    std::thread::scope(|scope| {
        let writes = scope.spawn(|| sql.run(&insert));
        // What does not fit into memory must come before the commit does.
        while !writes.is_finished() || held_mb <= cap_mb {
            assert!(started.elapsed() < 10 * PATIENCE, "{held_mb} MB are held back");
            assert!(events.next(Some(Duration::from_millis(1))).unwrap().is_none(), "it is not committed");
            held_mb = held_mb.max(events.metrics(session).unwrap().held_back_bytes >> 20);
        }
    });
    sql.run("COMMIT");
    read(&mut events, 1..=rows);
    let (peak, took) = (memory_mb("VmHWM"), started.elapsed());
    println!("{rows} rows, {held_mb} MB held back with a cap of {cap_mb}: at most {peak} MB, in {took:.1?}");
    assert!(peak <= cap_mb + 36, "{peak} MB");
}

#[test]
fn memory_stays_flat_while_the_caller_pauses_and_while_a_large_transaction_is_held_back() {
    // Linux ends a connection after its user timeout also when its other end takes nothing for so long.
    let patience = ["wal_sender_timeout = 1s", "tcp_user_timeout = 2s"];
    let server = start_with_settings(&[&SETTINGS[..], &patience].concat());
    let mut sql = Sql::connect(&server.conninfo());
    sql.run("CREATE TABLE t (id int PRIMARY KEY, v text)");
    for (transport, conninfo) in transports(&server) {
        println!("{transport}:");
        pause(&conninfo, &mut sql);
        sql.run("TRUNCATE t");
    }
    large(&server.conninfo(), &mut sql);
}
