//! How long a row change takes from its commit to the caller, beside a bare NOTIFY of the same size: one
//! writer, one change at a time. `cargo bench --bench changes`.

#[allow(dead_code, reason = "the command uses all of it")]
#[path = "../src/cli/server.rs"]
mod server;

use pgwake::pq::{Connection, Conninfo, ResultStatus};
use pgwake::{Event, EventLoop, WatchOptions};
use server::{PrivateServer, ServerOptions};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

const ROUNDS: usize = 5;
const CHANGES: usize = 400;
const PACE: Duration = Duration::from_millis(5);
const PATIENCE: Duration = Duration::from_secs(10);

fn main() {
    let server = PrivateServer::start(&ServerOptions::default()).expect("a private server");
    let conninfo = server.conninfo();
    let mut writer = connect(&conninfo);
    run(&mut writer, &pgwake::install::install());
    run(&mut writer, "CREATE TABLE t (id int PRIMARY KEY, n int); INSERT INTO t VALUES (1, 0)");
    run(&mut writer, "SELECT pgwake.watch_table('t')");
    let (mut notify_us, mut change_us, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        let one =
            median_us(&conninfo, "SELECT pg_notify('bare', '{\"op\":\"update\",\"key\":{\"id\":1}}')", false);
        let other = median_us(&conninfo, "UPDATE t SET n = n + 1 WHERE id = 1", true);
        notify_us.push(one);
        change_us.push(other);
        ratios.push(other / one);
    }
    println!("commit to caller, p50 of {CHANGES}, median of {ROUNDS} rounds:");
    println!("  NOTIFY   {:8.1} us", middle(&mut notify_us));
    println!("  change   {:8.1} us   {:.2} of NOTIFY", middle(&mut change_us), middle(&mut ratios));
}

/// Writes one by one, and takes the time from the writer's answer to the event.
fn median_us(conninfo: &str, sql: &str, is_change: bool) -> f64 {
    let mut events = EventLoop::new().expect("a loop");
    let session = events.connect(conninfo).expect("a conninfo");
    if is_change {
        events.watch_with(session, WatchOptions::new().table("t")).expect("a table");
    } else {
        events.listen(session, "bare").expect("a channel");
    }
    while !matches!(take(&mut events), Some(Event::Listening(listening)) if !listening.channels.is_empty()) {}
    let (ask, asked): (Sender<()>, Receiver<()>) = channel();
    let (committed, commits) = channel();
    let (conninfo, sql) = (conninfo.to_string(), sql.to_string());
    let writer = std::thread::spawn(move || {
        let mut writer = connect(&conninfo);
        for () in asked {
            std::thread::sleep(PACE);
            run(&mut writer, &sql);
            committed.send(Instant::now()).expect("somebody measures");
        }
    });
    let mut us = Vec::with_capacity(CHANGES);
    for _ in 0..CHANGES {
        ask.send(()).expect("somebody writes");
        loop {
            match take(&mut events) {
                Some(Event::Change(_) | Event::Notification(_)) => break,
                Some(_) => {}
                None => panic!("nothing came"),
            }
        }
        let arrived_at = Instant::now();
        let committed_at = commits.recv().expect("somebody writes");
        // It may be here before the writer has its answer.
        us.push(arrived_at.saturating_duration_since(committed_at).as_nanos() as f64 / 1e3);
    }
    drop(ask);
    writer.join().expect("the writer");
    middle(&mut us)
}

fn take(events: &mut EventLoop) -> Option<Event<'_>> {
    events.next(Some(PATIENCE)).expect("an event")
}

fn connect(conninfo: &str) -> Connection {
    Connection::connect(&Conninfo::parse(conninfo).expect("a conninfo")).expect("a connection")
}

fn run(connection: &mut Connection, sql: &str) {
    connection.send_query(sql).expect("a query");
    while let Some(result) = connection.result() {
        assert_ne!(result.status(), ResultStatus::Failed, "{}", result.error());
    }
}

fn middle(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
