//! `pgwake subscribe` while everything around it is killed: each message that was committed is in what it
//! wrote, in the order of the commits, and one that is there again has the same position.
#![cfg(feature = "command")]

use crate::common::command::{pgwake, succeed};
use crate::common::log::{database, until_free};
use crate::common::random::Random;
use crate::common::{PATIENCE, Sql, fresh_channel};
use serde_json::Value;
use std::collections::BTreeMap;
use std::fs::{File, read_to_string};
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

const WRITERS: u64 = 8;

/// How often the reader is killed, unless the environment says otherwise.
const KILLS: &str = "PGWAKE_TEST_SUBSCRIBER_KILLS";

/// No more than this lies between two kills.
const PAUSE_MAX: Duration = Duration::from_millis(300);

/// Publishes numbers, some to a transaction, until it is told to stop. A table says what was committed.
fn write(conninfo: &str, writer: u64, is_over: &AtomicBool, mut random: Random) {
    let mut sql = Sql::connect(conninfo);
    let mut next = 0;
    while !is_over.load(Ordering::SeqCst) {
        let last = next + random.below(4);
        let end = if random.below(5) == 0 { "ROLLBACK" } else { "COMMIT" };
        sql.run(&format!(
            "BEGIN; SELECT pg_logical_emit_message(true, 'other', 'x'); \
             WITH written AS (INSERT INTO committed \
               SELECT {writer}, n FROM generate_series({next}, {last}) n RETURNING writer, n) \
             SELECT pg_logical_emit_message(true, 'load', writer || ':' || n) FROM written ORDER BY n; {end}"
        ));
        next = last + 1;
        std::thread::sleep(random.duration_below(Duration::from_millis(4)));
    }
}

/// A run of the command, which writes into a file of its own.
fn subscribe(conninfo: &str, slot: &str, path: &Path) -> Child {
    let arguments = ["-d", conninfo, "-f", "json", "subscribe", "load", "--slot", slot];
    let mut command = pgwake(&arguments);
    command.stdout(File::create(path).unwrap()).stderr(Stdio::inherit()).spawn().unwrap()
}

/// The messages in what one run wrote. A line that a kill cut short is none.
fn messages(path: &Path) -> Vec<(String, String)> {
    let text = read_to_string(path).unwrap();
    let whole = text.rfind('\n').map_or("", |end| &text[..end]);
    let lines = whole.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let of = |line: &Value, name: &str| line[name].as_str().unwrap().to_string();
    let messages = lines.filter(|line| line["event"] == "message");
    messages.map(|line| (of(&line, "position"), of(&line, "payload"))).collect()
}

/// A position as what it is ordered by.
fn order(position: &str) -> (u64, u64) {
    let (lsn, ordinal) = position.rsplit_once('/').unwrap();
    (lsn.parse::<pgwake::Lsn>().unwrap().0, ordinal.parse().unwrap())
}

/// All that was written, run by run, against what was committed.
fn check(runs: &[PathBuf], sql: &mut Sql) -> String {
    let (mut payloads, mut lines, mut newest) = (BTreeMap::new(), 0, (0, 0));
    for (position, payload) in runs.iter().flat_map(|path| messages(path)) {
        let position = order(&position);
        let known = payloads.insert(position, payload.clone());
        assert!(known.as_ref().is_none_or(|known| *known == payload), "{payload} was {known:?} before");
        assert_eq!(known.is_none(), position > newest, "{payload} comes out of order, behind {newest:?}");
        newest = newest.max(position);
        lines += 1;
    }
    let mut came: Vec<_> = payloads.values().filter(|payload| *payload != "last").cloned().collect();
    let count = came.len();
    came.sort_unstable();
    came.dedup();
    assert_eq!(came.len(), count, "a message has two positions");
    let committed = sql.value(
        "SELECT string_agg(writer || ':' || n, ' ' ORDER BY (writer || ':' || n) COLLATE \"C\") \
         FROM committed",
    );
    let committed: Vec<_> = committed.split(' ').collect();
    let lost: Vec<_> = committed.iter().filter(|one| came.binary_search(&one.to_string()).is_err()).collect();
    assert!(lost.is_empty(), "lost: {lost:?}");
    assert_eq!(count, committed.len(), "what was rolled back came");
    format!("{count} messages, {} of them again", lines - payloads.len())
}

#[test]
fn a_subscriber_that_is_killed_loses_nothing() {
    let kills: u32 = std::env::var(KILLS).map_or(8, |kills| kills.parse().expect("a whole number"));
    let (mut random, (conninfo, mut sql)) = (Random::seeded(), database(""));
    sql.run("CREATE TABLE committed (writer int, n int)");
    let slot = fresh_channel();
    let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let mut runs: Vec<PathBuf> = Vec::new();
    let mut start = || {
        runs.push(directory.path().join(runs.len().to_string()));
        (subscribe(&conninfo, &slot, runs.last().unwrap()), runs.clone())
    };
    // The first run makes the slot: what is published before it listens is for nobody.
    let (mut child, mut all) = start();
    let deadline = Instant::now() + PATIENCE;
    while !read_to_string(&all[0]).unwrap().contains("listening") {
        assert!(Instant::now() < deadline, "the slot is not made");
        std::thread::sleep(Duration::from_millis(5));
    }
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for writer in 0..WRITERS {
            let (conninfo, is_over, random) = (&conninfo, &is_over, random.branch());
            scope.spawn(move || write(conninfo, writer, is_over, random));
        }
        for _ in 0..kills {
            // Some are killed on their way to the stream, most while they write.
            let deadline = Instant::now() + PATIENCE;
            let path = all.last().unwrap().clone();
            while random.below(10) > 0 && std::fs::metadata(&path).unwrap().len() < 1000 {
                assert!(Instant::now() < deadline, "the subscriber writes nothing");
                std::thread::sleep(Duration::from_millis(5));
            }
            std::thread::sleep(random.duration_below(PAUSE_MAX));
            if random.below(3) == 0 {
                // It goes on over another connection.
                sql.run(
                    "SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots \
                     WHERE active_pid IS NOT NULL AND database = current_database()",
                );
                continue;
            }
            child.kill().unwrap();
            child.wait().unwrap();
            (child, all) = start();
        }
        is_over.store(true, Ordering::SeqCst);
    });
    sql.run("SELECT pg_logical_emit_message(true, 'load', 'last')");
    let deadline = Instant::now() + PATIENCE;
    while messages(all.last().unwrap()).last().is_none_or(|(_, payload)| payload != "last") {
        assert!(Instant::now() < deadline, "the last message does not come");
        std::thread::sleep(Duration::from_millis(20));
    }
    crate::common::signal(child.id() as i32, rustix::process::Signal::TERM);
    assert!(child.wait().unwrap().success());
    println!("the subscriber was killed {kills} times: {}", check(&all, &mut sql));
    until_free(&mut sql, &slot);
    succeed(&["-d", &conninfo, "subscribe", "--slot", &slot, "--drop-slot"]);
}
