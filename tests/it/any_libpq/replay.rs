//! Random DML, savepoints and DDL on a schema of many tables, replayed from the changes alone: two readers
//! keep a copy each, in which every change must fit, and which in the end is as the tables are.

mod shadow;
mod tables;
mod writer;

use crate::common::outbox::{Reader, database};
use crate::common::random::Random;
use crate::common::{PATIENCE, Sql, say_loudly};
use pgwake::{Event, EventLoop, SessionOptions, WatchOptions};
use shadow::Shadow;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use tables::Table;
use writer::Writer;

const WRITERS: usize = 3;

/// How many changes the run takes, and after how many the copies are compared with the tables.
const CHANGES: usize = 10_000;
const CHANGES_PER_ROUND: usize = 2_000;

fn changes_wanted() -> usize {
    let given = std::env::var("PGWAKE_REPLAY_CHANGES").ok();
    given.map_or(CHANGES, |given| given.parse().expect("PGWAKE_REPLAY_CHANGES is a whole number"))
}

/// Reads the outbox in plain SQL.
struct Pages {
    reader: Reader,
    random: Random,
    shadow: Shadow,
    /// The last id of the window that is being read.
    last: u64,
    pages: usize,
}

impl Pages {
    fn page(&mut self) {
        let page = self.reader.page(1 + self.random.below(40) as usize);
        for change in page {
            let id = change["id"].as_u64().unwrap();
            assert!(id > self.last, "within a window ids increase: {} before {change}", self.last);
            self.last = id;
            self.shadow.take(change);
        }
        assert_eq!(self.reader.gaps, [""; 0]);
        // A position says what a window ends with, as long as there is more of it.
        if self.reader.position().split('|').nth(1) == Some("") {
            self.last = 0;
        }
        self.pages += 1;
        if self.pages.is_multiple_of(50) {
            self.reader.sql.run("UPDATE pgwake.setting SET value = 0 WHERE name = 'rotated_at'");
            self.reader.sql.run("SELECT pgwake.rotate()");
        }
    }

    fn read_to_fence(&mut self, fence: u64) {
        let started = Instant::now();
        while self.shadow.fence != Some(fence) {
            self.page();
            assert!(started.elapsed() < PATIENCE, "the fence did not come");
        }
    }
}

/// Reads with the event loop.
struct Loop {
    events: EventLoop,
    shadow: Shadow,
}

impl Loop {
    fn open(conninfo: &str, tables: &[Table]) -> Self {
        let mut events = EventLoop::new().unwrap();
        let session = SessionOptions::new().heartbeat(Duration::ZERO);
        let session = events.connect_with(conninfo, session).unwrap();
        let options = WatchOptions::new().consumer("loop").only_watched(true).fallback_poll(Duration::ZERO);
        let names = tables.iter().map(|table| table.name.as_str()).chain(["ddl_log"]);
        events.watch_with(session, names.fold(options, WatchOptions::table)).unwrap();
        assert_eq!(crate::common::next(&mut events), crate::common::Seen::listening(&[]));
        assert_eq!(crate::common::next(&mut events), crate::common::Seen::listening(&["pgwake"]));
        Loop { events, shadow: Shadow::new("loop", tables) }
    }

    fn read_to_fence(&mut self, fence: u64) {
        while self.shadow.fence != Some(fence) {
            match self.events.next(Some(PATIENCE)).unwrap().expect("a change was lost, or its wake-up") {
                Event::Change(change) => self.shadow.take(serde_json::from_str(change.json).unwrap()),
                other => panic!("{other:?}"),
            }
        }
    }
}

/// Stops the writers, also when the readers fail: otherwise these would be waited for in vain.
struct Stop<'a>(&'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Lets the writers write for a while, and ends with a fence, behind which is nothing that they wrote.
fn round(sql: &mut Sql, fence: u64, writers: &mut [Writer<'_>], pages: &mut Pages, events: &mut Loop) {
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let stop = &stop;
        let guard = Stop(stop);
        let writing: Vec<_> = writers.iter_mut().map(|writer| scope.spawn(|| writer.run(stop))).collect();
        let reading = scope.spawn(|| events.read_to_fence(fence));
        while pages.shadow.changes.len() < CHANGES_PER_ROUND && !writing.iter().any(|w| w.is_finished()) {
            pages.page();
            // The writers need the processor, too.
            std::thread::sleep(Duration::from_millis(2 * u64::from(pages.reader.state != 1)));
        }
        drop(guard);
        for writer in writing {
            writer.join().unwrap();
        }
        sql.run(&format!("INSERT INTO ddl_log (command, argument) VALUES ('fence', '{fence}')"));
        pages.read_to_fence(fence);
        reading.join().unwrap();
    });
}

#[test]
fn copies_that_are_kept_by_the_changes_alone_end_as_the_tables_are() {
    let (conninfo, mut sql) = database("");
    let (tables, mut random) = (tables::all(), Random::seeded());
    sql.run(
        "SET TimeZone = 'UTC'; UPDATE pgwake.setting SET value = 262144 WHERE name = 'rotate_bytes';
         CREATE TABLE ddl_log (id bigserial PRIMARY KEY, relation text, command text, name text,
           argument json);
         SELECT pgwake.watch_table('ddl_log', payload => 'row')",
    );
    tables.iter().for_each(|table| sql.run(&table.create()));
    let mut pages = Pages {
        reader: Reader::open(&conninfo, "pages"),
        random: random.branch(),
        shadow: Shadow::new("pages", &tables),
        last: 0,
        pages: 0,
    };
    let mut events = Loop::open(&conninfo, &tables);
    let mut writers: Vec<Writer<'_>> =
        (0..WRITERS).map(|name| Writer::new(&conninfo, name, random.branch(), &tables)).collect();
    let (mut fence, mut changes) = (0, 0);
    while changes < changes_wanted() {
        fence += 1;
        round(&mut sql, fence, &mut writers, &mut pages, &mut events);
        for table in &tables {
            let rows = table.rows(&mut sql);
            pages.shadow.assert_holds(table, rows.clone());
            events.shadow.assert_holds(table, rows);
        }
        let [one, other] = [&mut pages.shadow, &mut events.shadow].map(|s| std::mem::take(&mut s.changes));
        assert!(one == other, "both readers are given the same");
        changes += one.len();
    }
    assert_eq!(sql.value("SELECT pg_sequence_last_value('pgwake.unconvertible')"), "");
    let commands = pages.shadow.commands;
    say_loudly(&format!("{changes} changes and {commands} DDL commands, in {} pages", pages.pages));
}
