//! Events handed over while everything is killed at random: the child, pgwake, the server's process. None is
//! lost, and the slot never stands ahead of what the sink has.
#![cfg(feature = "command")]

use crate::common::command::pgwake;
use crate::common::log::database;
use crate::common::random::Random;
use crate::common::sink::Sink;
use crate::common::{PATIENCE, Sql, signal};
use rustix::process::Signal;
use std::collections::BTreeMap;
use std::fs::File;
use std::process::{Child, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// No more than this lies between two kills.
const PAUSE_MAX: Duration = Duration::from_millis(400);

const WRITERS: u64 = 4;

fn start(dsn: &str, slot: &str, sink: &Sink) -> Child {
    let arguments =
        ["-d", dsn, "stream", "--publication", "p", "--slot", slot, "--snapshot", "--window", "200"];
    let said = File::options().create(true).append(true).open(sink.path("said")).unwrap();
    let mut command = pgwake(&[&arguments[..], &sink.to("good", 0)].concat());
    command.stdout(Stdio::null()).stderr(said).spawn().unwrap()
}

/// Where the slot stood, and how many bytes the sink had then at least.
type Sample = (u64, u64);

/// A place in the log as a number.
fn place(lsn: &str) -> u64 {
    lsn.parse::<pgwake::Lsn>().unwrap().0
}

/// The slot says that all is stored whose commit lies before it: so it must be.
fn check_samples(mut samples: Vec<Sample>, sink: &Sink) {
    let (mut stored_at, mut end) = (BTreeMap::new(), 0);
    for (position, key) in sink.lines() {
        end += (position.len() + key.len() + 2) as u64;
        if let Some((lsn, ordinal)) = position.rsplit_once('/').filter(|(lsn, _)| lsn.contains('/')) {
            stored_at.entry((place(lsn), ordinal.parse::<u64>().unwrap())).or_insert(end);
        }
    }
    samples.sort_unstable();
    let (mut stored_at, mut last) = (stored_at.into_iter().peekable(), (0, (0, 0)));
    for (slot, bytes) in samples {
        while let Some((position, end)) = stored_at.next_if(|((commit, _), _)| *commit < slot) {
            last = last.max((end, position));
        }
        let (end, (commit, ordinal)) = last;
        assert!(end <= bytes, "{commit:X}/{ordinal} was not stored when the slot stood at {slot:X}");
    }
}

/// Writes rows, some to a transaction, until it is over.
fn write(sql: &mut Sql, writer: u64, random: &mut Random, is_over: &AtomicBool) {
    let mut next = 0;
    while !is_over.load(Ordering::SeqCst) {
        let count = 1 + random.below(4);
        let numbers = format!("generate_series({next}, {})", next + count - 1);
        sql.run(&format!("INSERT INTO t SELECT n * {WRITERS} + {writer} FROM {numbers} n"));
        next += count;
        std::thread::sleep(random.duration_below(Duration::from_millis(8)));
    }
}

/// Looks at the slot, and then at the sink, until it is over.
fn sample(dsn: &str, slot: &str, sink: &Sink, is_over: &AtomicBool) -> Vec<Sample> {
    let (mut sql, mut samples) = (Sql::connect(dsn), Vec::new());
    let at = format!(
        "SELECT coalesce(max(confirmed_flush_lsn), '0/0') FROM pg_replication_slots
            WHERE slot_name = '{slot}'"
    );
    while !is_over.load(Ordering::SeqCst) {
        let slot = place(&sql.value(&at));
        samples.push((slot, sink.bytes()));
        std::thread::sleep(Duration::from_millis(1));
    }
    samples
}

/// Kills so often; gives who runs then.
fn kill(kills: u32, sql: &mut Sql, random: &mut Random, start: impl Fn() -> Child, sink: &Sink) -> Child {
    let mut running = start();
    let mut killed = [0; 3];
    while killed.iter().sum::<u32>() < kills {
        std::thread::sleep(random.duration_below(PAUSE_MAX));
        let which = random.below(3) as usize;
        let has_killed = match which {
            0 => {
                running.kill().unwrap();
                running.wait().unwrap();
                running = start();
                true
            }
            1 => sink.pids().pop().is_some_and(|child| {
                let child = rustix::process::Pid::from_raw(child as i32).unwrap();
                rustix::process::kill_process(child, Signal::KILL).is_ok()
            }),
            _ => {
                let end = "SELECT count(pg_terminate_backend(active_pid)) FROM pg_replication_slots
                    WHERE database = current_database()";
                sql.value(end) == "1"
            }
        };
        killed[which] += u32::from(has_killed);
    }
    println!("killed: pgwake {}, the child {}, the server's process {}", killed[0], killed[1], killed[2]);
    running
}

#[test]
fn nothing_is_lost_and_the_slot_is_never_ahead_of_the_sink() {
    let kills: u32 = std::env::var("PGWAKE_TEST_DELIVERY_KILLS").map_or(9, |kills| kills.parse().unwrap());
    let (mut random, (dsn, mut sql), sink) = (Random::seeded(), database(""), Sink::new());
    sql.run("CREATE TABLE t (id bigint PRIMARY KEY); CREATE PUBLICATION p FOR TABLE t");
    let slot = sql.value("SELECT 'kills_' || current_database()");
    // These are there when it begins: its slot lasts only from when they are stored.
    sql.run("INSERT INTO t SELECT n + 1000000000 FROM generate_series(1, 500) n");
    let is_over = AtomicBool::new(false);
    let samples = std::thread::scope(|scope| {
        for writer in 0..WRITERS {
            let (mut sql, mut random, is_over) = (Sql::connect(&dsn), random.branch(), &is_over);
            scope.spawn(move || write(&mut sql, writer, &mut random, is_over));
        }
        let sampler = scope.spawn(|| sample(&dsn, &slot, &sink, &is_over));
        let running = kill(kills, &mut sql, &mut random, || start(&dsn, &slot, &sink), &sink);
        is_over.store(true, Ordering::SeqCst);
        finish(&mut sql, &sink, running);
        sampler.join().unwrap()
    });
    let (stored, once, sampled) = (sink.changes().len(), sink.ids().len(), samples.len());
    check_samples(samples, &sink);
    println!("{once} rows, {} of them again, {sampled} samples of the slot", stored - once);
    sql.run(&format!("SELECT pg_drop_replication_slot('{slot}')"));
}

/// All that is in the table is in the sink, and nothing else.
fn finish(sql: &mut Sql, sink: &Sink, mut running: Child) {
    let deadline = Instant::now() + PATIENCE;
    // The writers end by themselves, and the last of their rows is on its way.
    let mut before = String::new();
    let table = loop {
        let now = sql.value("SELECT string_agg(id::text, ' ' ORDER BY id) FROM t");
        if now == before {
            break now;
        }
        before = now;
        std::thread::sleep(Duration::from_millis(200));
    };
    loop {
        let mut ids = sink.ids();
        ids.sort_unstable();
        let ids: Vec<_> = ids.iter().map(u64::to_string).collect();
        if ids.join(" ") == table {
            break;
        }
        let is_late = Instant::now() >= deadline || running.try_wait().unwrap().is_some();
        let said = if is_late { std::fs::read_to_string(sink.path("said")).unwrap() } else { String::new() };
        assert!(!is_late, "{} of {} rows: {said}", ids.len(), table.split(' ').count());
        std::thread::sleep(Duration::from_millis(50));
    }
    signal(running.id() as i32, Signal::TERM);
    assert!(running.wait().unwrap().success());
}
