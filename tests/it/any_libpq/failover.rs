//! A server that takes over without the last transactions of its predecessor gives their numbers to others.
//! A reader of changes takes none of those for read, goes on from what the new server knows, and is delivered
//! one gap when that has another timeline.

use crate::common::{PATIENCE, PrivateServer, Sql, start_server};
use pgwake::{Event, EventLoop, GapReason, WatchOptions};
use std::os::unix::fs::{MetadataExt, chown};
use std::process::Command;
use std::time::{Duration, Instant};

/// A copy of the cluster's files, as a snapshot of the storage would be.
fn snapshot(server: &PrivateServer, sql: &mut Sql) {
    sql.run("CHECKPOINT");
    let directory = server.directory();
    let copied =
        Command::new("cp").arg("-a").args([directory.join("data"), directory.join("saved")]).status();
    assert!(copied.unwrap().success());
    std::fs::remove_file(directory.join("saved/postmaster.pid")).unwrap();
}

/// The snapshot takes over, on a timeline of its own if it is promoted as a standby would be. The old server
/// still runs, in a directory of another name, until it is stopped.
fn take_over(server: &mut PrivateServer, is_promoted: bool) {
    let directory = server.directory().to_path_buf();
    let saved = directory.join("saved");
    if is_promoted {
        let owner = std::fs::metadata(&directory).unwrap();
        let write = |name: &str, text: &str| {
            std::fs::write(saved.join(name), text).unwrap();
            chown(saved.join(name), Some(owner.uid()), Some(owner.gid())).unwrap();
        };
        write("recovery.signal", "");
        write("postgresql.auto.conf", "restore_command = 'false'");
    }
    std::fs::rename(directory.join("data"), directory.join("lost")).unwrap();
    std::fs::rename(saved, directory.join("data")).unwrap();
    server.restart("immediate").unwrap();
    let started = Instant::now();
    while Sql::connect(&server.conninfo()).value("SELECT pg_is_in_recovery()") == "t" {
        assert!(started.elapsed() < PATIENCE, "it is still in recovery");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// What was told: the keys of the changes, and after how many of them each gap.
#[derive(Debug, Default, PartialEq)]
struct Told {
    changes: Vec<i64>,
    gaps: Vec<usize>,
}

impl Told {
    /// Runs the loop for a moment.
    fn take(&mut self, events: &mut EventLoop) {
        match events.next(Some(Duration::from_millis(20))).unwrap() {
            Some(Event::Change(change)) => {
                let key = change.key.unwrap();
                let id = key.trim_start_matches(r#"{"id":"#).trim_end_matches('}');
                self.changes.push(id.parse().unwrap());
            }
            Some(Event::Gap(gap)) if gap.reason == GapReason::Replaced => self.gaps.push(self.changes.len()),
            _ => {}
        }
    }

    /// Runs the loop until a change has come.
    fn take_until(&mut self, events: &mut EventLoop, id: i64) {
        let started = Instant::now();
        while self.changes.last() != Some(&id) {
            assert!(started.elapsed() < PATIENCE, "{id} has not come: {self:?}");
            self.take(events);
        }
    }

    /// Runs the loop until a number is none of 0.
    fn take_while_none(&mut self, events: &mut EventLoop, sql: &mut Sql, number: &str) {
        let started = Instant::now();
        while sql.value(number) == "0" {
            assert!(started.elapsed() < PATIENCE, "{number}");
            self.take(events);
        }
    }
}

const OPEN: &str = "SELECT count(*) FROM pgwake.consumer WHERE EXISTS (SELECT FROM pg_locks
    WHERE locktype = 'advisory' AND classid = 1885828971 AND objid = 1000 + id)";

const ACKNOWLEDGED: &str = "SELECT count(*) FROM pgwake.consumer c, pgwake.outbox_0 o
    WHERE pg_visible_in_snapshot(o.xid, split_part(split_part(c.position, '|', 1), ';', 1)::pg_snapshot)";

/// What a reader is told that has read 20 transactions more than the server that takes over has, which does
/// `before` of its own until the reader is back.
fn told_after(name: Option<&str>, is_promoted: bool, before: i64) -> Told {
    let mut server = start_server();
    let mut sql = Sql::connect(&server.conninfo());
    sql.run(&pgwake::install::install());
    sql.run("CREATE TABLE t (id int PRIMARY KEY); SELECT pgwake.watch_table('t')");
    let (mut events, mut told) = (EventLoop::new().unwrap(), Told::default());
    let session = events.connect(&server.conninfo()).unwrap();
    let options = name.iter().fold(WatchOptions::new().table("t"), |o, name| o.consumer(*name));
    events.watch_with(session, options).unwrap();
    told.take_while_none(&mut events, &mut sql, OPEN);
    sql.run("INSERT INTO t VALUES (0)");
    told.take_until(&mut events, 0);
    if name.is_some() {
        told.take_while_none(&mut events, &mut sql, ACKNOWLEDGED);
    }
    snapshot(&server, &mut sql);
    for id in 1..=20 {
        sql.run(&format!("INSERT INTO t VALUES ({id})"));
        told.take_until(&mut events, id);
    }
    drop(sql);
    told = Told::default();
    take_over(&mut server, is_promoted);
    let mut sql = Sql::connect(&server.conninfo());
    for id in 101..=100 + before {
        sql.run(&format!("INSERT INTO t VALUES ({id})"));
    }
    told.take_while_none(&mut events, &mut sql, OPEN);
    for id in 201..=205 {
        sql.run(&format!("INSERT INTO t VALUES ({id})"));
    }
    told.take_until(&mut events, 205);
    told
}

#[test]
fn a_reader_goes_on_from_what_the_new_server_knows_and_is_told_of_its_timeline() {
    for name in [None, Some("a")] {
        for (is_promoted, before) in [(false, 10), (true, 10), (false, 40), (true, 40)] {
            let mut told = told_after(name, is_promoted, before);
            // What was read before and not acknowledged yet comes again.
            told.changes.retain(|id| *id != 0);
            let gaps = if is_promoted { vec![0] } else { vec![] };
            assert_eq!(told, Told { changes: (101..=100 + before).chain(201..=205).collect(), gaps });
        }
    }
}

/// What a reader without a name is told when its server crashes after it has read twenty transactions.
fn told_after_a_crash(begin: &str) -> Told {
    let mut server = start_server();
    let mut sql = Sql::connect(&server.conninfo());
    sql.run(&pgwake::install::install());
    sql.run("CREATE TABLE t (id int PRIMARY KEY); SELECT pgwake.watch_table('t')");
    sql.run("ALTER SYSTEM SET wal_writer_delay = '10s'");
    sql.run("SELECT pg_reload_conf()");
    let (mut events, mut told) = (EventLoop::new().unwrap(), Told::default());
    let session = events.connect(&server.conninfo()).unwrap();
    events.watch_with(session, WatchOptions::new().table("t")).unwrap();
    told.take_while_none(&mut events, &mut sql, OPEN);
    for id in 1..=20 {
        sql.run(&format!("BEGIN; {begin}; INSERT INTO t VALUES ({id}); COMMIT"));
        told.take_until(&mut events, id);
    }
    // It has read all of them, and stands behind them.
    for _ in 0..20 {
        told.take(&mut events);
    }
    drop(sql);
    told = Told::default();
    server.restart("immediate").unwrap();
    let mut sql = Sql::connect(&server.conninfo());
    for id in 101..=140 {
        sql.run(&format!("INSERT INTO t VALUES ({id})"));
    }
    told.take_while_none(&mut events, &mut sql, OPEN);
    sql.run("INSERT INTO t VALUES (205)");
    told.take_until(&mut events, 205);
    told
}

#[test]
fn a_crash_costs_no_change_even_if_it_loses_what_was_read() {
    for begin in ["SET LOCAL synchronous_commit = off", "SELECT 1"] {
        let mut told = told_after_a_crash(begin);
        told.changes.retain(|id| *id > 100);
        assert_eq!(told, Told { changes: (101..=140).chain([205]).collect(), gaps: vec![] });
    }
}
