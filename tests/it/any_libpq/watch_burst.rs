//! No change is lost and none waits: bursts of commits at once, and readers that are killed at any moment.
#![cfg(feature = "command")]

use crate::common::command::Running;
use crate::common::outbox::database;
use crate::common::random::Random;
use crate::common::{PATIENCE, Seen, Sql, next, say_loudly, signal};
use pgwake::json::JsonValue;
use pgwake::{Event, EventLoop, SessionOptions, WatchOptions};
use rustix::process::Signal;
use serde_json::Value;
use std::collections::{HashMap, HashSet};
use std::io::BufRead;
use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

const WRITERS: u64 = 24;
const BURSTS: u64 = 125;

/// Each writer's commit in a burst: the key, and when the server had confirmed it; every tenth is rolled
/// back.
fn write_bursts(conninfo: &str, writer: u64, barrier: &Barrier) -> Vec<(u64, Instant)> {
    let mut sql = Sql::connect(conninfo);
    let mut committed = Vec::new();
    for burst in 0..BURSTS {
        let key = burst * WRITERS + writer;
        sql.run(&format!("BEGIN; INSERT INTO t VALUES ({key})"));
        barrier.wait();
        if (key + burst).is_multiple_of(10) {
            sql.run("ROLLBACK");
        } else {
            sql.run("COMMIT");
            committed.push((key, Instant::now()));
        }
        // The reader has all of this burst.
        barrier.wait();
    }
    committed
}

#[test]
fn a_burst_of_commits_needs_no_second_one_to_be_seen() {
    let (conninfo, mut sql) = database("");
    sql.run("CREATE TABLE t (id int PRIMARY KEY); SELECT pgwake.watch_table('t')");
    let mut events = EventLoop::new().unwrap();
    let session = SessionOptions::new().heartbeat(Duration::ZERO);
    let session = events.connect_with(&conninfo, session).unwrap();
    // Nothing but being woken makes it look.
    events.watch_with(session, WatchOptions::new().table("t").fallback_poll(Duration::ZERO)).unwrap();
    assert_eq!(next(&mut events), Seen::listening(&[]));
    assert_eq!(next(&mut events), Seen::listening(&["pgwake"]));
    let mut long = Sql::connect(&conninfo);
    long.run("BEGIN; INSERT INTO t VALUES (-1)");
    let barrier = Barrier::new(WRITERS as usize + 1);
    let mut seen: HashMap<u64, Instant> = HashMap::new();
    let committed: Vec<(u64, Instant)> = std::thread::scope(|scope| {
        let write = |writer| {
            let (conninfo, barrier) = (&conninfo, &barrier);
            scope.spawn(move || write_bursts(conninfo, writer, barrier))
        };
        let writers: Vec<_> = (0..WRITERS).map(write).collect();
        for burst in 0..BURSTS {
            barrier.wait();
            let expected =
                (0..WRITERS).filter(|writer| !(burst * WRITERS + writer + burst).is_multiple_of(10)).count();
            for _ in 0..expected {
                match events.next(Some(PATIENCE)).unwrap() {
                    Some(Event::Change(change)) => {
                        let key: HashMap<String, u64> = change.key_as().unwrap();
                        let earlier = seen.insert(key["id"], Instant::now());
                        assert_eq!(earlier, None, "told twice");
                    }
                    Some(other) => panic!("{other:?}"),
                    None => panic!("burst {burst}: a change was lost, or its wake-up"),
                }
            }
            barrier.wait();
        }
        writers.into_iter().flat_map(|writer| writer.join().unwrap()).collect()
    });
    assert!(committed.len() >= 2_600, "{}", committed.len());
    assert_eq!(seen.len(), committed.len(), "what was rolled back is not told");
    let late = |(key, at): &(u64, Instant)| seen[key].saturating_duration_since(*at);
    let mut lateness: Vec<Duration> = committed.iter().map(late).collect();
    lateness.sort();
    let [median, worst] = [lateness[lateness.len() / 2], lateness[lateness.len() - 1]];
    say_loudly(&format!(
        "{} changes in bursts of {WRITERS}: median {median:.1?}, worst {worst:.1?}",
        seen.len()
    ));
    // On a quiet machine it is 10 to 20 ms.
    assert!(worst < Duration::from_secs(1), "{worst:?}");
    long.run("COMMIT");
    match events.next(Some(PATIENCE)).unwrap() {
        Some(Event::Change(change)) => assert_eq!(change.key_as::<JsonValue>().unwrap()["id"], -1),
        other => panic!("{other:?}"),
    }
}

const ROWS: u64 = 16;
const KILLS: u32 = 50;

/// Counts a row of one's own up, until told to stop; every tenth time the transaction is rolled back. The
/// last number that was committed.
fn count_up(conninfo: &str, row: u64, stop: &AtomicBool) -> u64 {
    let mut sql = Sql::connect(conninfo);
    let (mut number, mut attempt) = (0, row);
    while !stop.load(Ordering::Relaxed) {
        attempt += 1;
        let end = if attempt.is_multiple_of(10) { "ROLLBACK" } else { "COMMIT" };
        sql.run(&format!("BEGIN; UPDATE t SET n = n + 1 WHERE id = {row}; {end}"));
        number += u64::from(end == "COMMIT");
        std::thread::sleep(Duration::from_millis(4));
    }
    number
}

/// What one consumer was told, in order, over all of its runs. Only the first time counts.
#[derive(Default)]
struct Ledger {
    ids: HashSet<u64>,
    rows: HashMap<u64, Vec<u64>>,
    repeated: usize,
}

impl Ledger {
    fn take(&mut self, line: &str) {
        // A process that is killed may leave half a line.
        let Ok(change) = serde_json::from_str::<Value>(line) else { return };
        if change["event"] != "change" {
            return;
        }
        if !self.ids.insert(change["id"].as_u64().unwrap()) {
            self.repeated += 1;
            return;
        }
        let row = |name: &str| change["new"][name].as_u64().unwrap();
        self.rows.entry(row("id")).or_default().push(row("n"));
    }

    /// Takes lines for so long, and kills the reader in the middle of whatever it does.
    fn follow_and_kill(&mut self, arguments: &[&str], time: Duration) {
        let mut watch = Running::start(arguments);
        let id = watch.child.id() as i32;
        std::thread::scope(|scope| {
            scope.spawn(|| {
                std::thread::sleep(time);
                signal(id, Signal::KILL);
            });
            let mut line = String::new();
            while watch.lines.read_line(&mut line).unwrap() > 0 {
                self.take(&line);
                line.clear();
            }
        });
        watch.child.wait().unwrap();
    }

    /// Takes lines until each row has got so far.
    fn finish(&mut self, arguments: &[&str], written: &HashMap<u64, u64>) {
        let mut watch = Running::start(arguments);
        assert_eq!(watch.json()["event"], "listening");
        while written.iter().any(|(row, last)| self.rows.get(row).and_then(|seen| seen.last()) != Some(last))
        {
            let line = watch.line();
            assert!(!line.is_empty(), "the reader ended by itself");
            self.take(&line);
        }
        signal(watch.child.id() as i32, Signal::TERM);
        assert_eq!(watch.status(), 0);
    }
}

#[test]
fn a_reader_that_is_killed_again_and_again_misses_nothing() {
    let (conninfo, mut sql) = database("");
    sql.run(&format!(
        "CREATE TABLE t (id int PRIMARY KEY, n int);
         INSERT INTO t SELECT i, 0 FROM generate_series(1, {ROWS}) i;
         SELECT pgwake.watch_table('t', payload => 'row');
         SELECT pgwake.open_consumer('killed', '{{t}}'), pgwake.open_consumer('steady', '{{t}}')"
    ));
    drop(sql);
    let watch = |name| ["-d", &conninfo, "-f", "json", "watch", "t", "--name", name];
    let (killed, steady) = (watch("killed"), watch("steady"));
    let mut random = Random::seeded();
    let stop = AtomicBool::new(false);
    let mut ledgers = [Ledger::default(), Ledger::default()];
    let written: HashMap<u64, u64> = std::thread::scope(|scope| {
        let write = |row| {
            let (conninfo, stop) = (&conninfo, &stop);
            (row, scope.spawn(move || count_up(conninfo, row, stop)))
        };
        let writers: Vec<_> = (1..=ROWS).map(write).collect();
        let [first, second] = &mut ledgers;
        let times: Vec<Duration> =
            (0..KILLS).map(|_| random.duration_below(Duration::from_millis(400))).collect();
        let (stop, steady) = (&stop, &steady);
        let reading = scope.spawn(move || {
            while !stop.load(Ordering::Relaxed) {
                second.follow_and_kill(steady, Duration::from_secs(4));
            }
        });
        times.iter().for_each(|time| first.follow_and_kill(&killed, *time));
        stop.store(true, Ordering::Relaxed);
        let written = writers.into_iter().map(|(row, writer)| (row, writer.join().unwrap())).collect();
        reading.join().unwrap();
        written
    });
    for (ledger, arguments) in ledgers.iter_mut().zip([&killed, &steady]) {
        ledger.finish(arguments, &written);
        for (row, last) in &written {
            assert_eq!(ledger.rows[row], (1..=*last).collect::<Vec<_>>(), "row {row}: each, in order");
        }
    }
    let [killed, steady] = &ledgers;
    say_loudly(&format!(
        "{} changes; told again: {} after {KILLS} kills, {} after a few",
        killed.ids.len(),
        killed.repeated,
        steady.repeated
    ));
}
