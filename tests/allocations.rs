//! On the hot path nothing is allocated in Rust: what libpq does is its own.
#[path = "it/common/mod.rs"]
mod common;

use common::proxy::{Fault, Proxy, Upstream};
use common::{PATIENCE, Sql, fresh_channel, listening, server, transports};
#[cfg(feature = "json")]
use pgwake::StreamOptions;
use pgwake::{ErrorKind, Event, EventLoop, PollOptions, SessionOptions};
use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::time::Duration;

const SESSIONS: usize = 9;

thread_local! {
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
    /// There is no memory for as much as this.
    static TOO_LARGE: Cell<usize> = const { Cell::new(usize::MAX) };
}

/// Counts what this thread allocates, and refuses what is too large.
struct Counting;

// SAFETY: everything is passed on to the system's allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.with(|count| count.set(count.get() + 1));
        if layout.size() >= TOO_LARGE.get() {
            return std::ptr::null_mut();
        }
        // SAFETY: as the caller promises.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: as the caller promises.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        ALLOCATIONS.with(|count| count.set(count.get() + 1));
        // SAFETY: as the caller promises.
        unsafe { System.realloc(pointer, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn allocations() -> u64 {
    ALLOCATIONS.with(Cell::get)
}

/// What it allocates to take so many notifications.
fn take(events: &mut EventLoop, count: usize) -> u64 {
    let before = allocations();
    for _ in 0..count {
        assert!(matches!(events.next(Some(PATIENCE)).unwrap(), Some(Event::Notification(_))));
    }
    allocations() - before
}

#[test]
fn a_notification_costs_no_allocation() {
    for (transport, conninfo) in transports(server()) {
        let channel = fresh_channel();
        let (mut events, _) = listening(&conninfo, &[&channel]);
        let mut sql = Sql::connect(&server().conninfo());
        // From the first on.
        sql.notify(&channel, "first");
        assert_eq!(take(&mut events, 1), 0, "{transport}");
        sql.run(&format!("SELECT count(pg_notify('{channel}', i::text)) FROM generate_series(1, 20000) i"));
        for i in 0..100 {
            sql.notify(&channel, &format!("single {i}"));
        }
        assert_eq!(take(&mut events, 20_100), 0, "{transport}");
    }
    let before = allocations();
    drop(Box::new(1));
    assert!(allocations() > before, "the counter counts");
}

#[test]
fn a_payload_for_which_there_is_no_memory_is_refused_and_nothing_else() {
    let channel = fresh_channel();
    let (mut events, session) = listening(&server().conninfo(), &[&channel]);
    let large = vec![b'x'; 1 << 20];
    TOO_LARGE.set(large.len());
    let error = events.publish(session, &channel, &large).unwrap_err();
    TOO_LARGE.set(usize::MAX);
    assert_eq!(error.kind, ErrorKind::System, "{error}");
    events.notify(session, &channel, "small").unwrap();
    take(&mut events, 1);
}

/// A busy network, or a busy machine: libpq reads before the rest is there.
#[test]
fn one_that_comes_in_pieces_costs_none_either() {
    for sslmode in ["disable", "require"] {
        let proxy = Proxy::new(Upstream::Tcp(server().port()));
        let channel = fresh_channel();
        let (mut events, session) = listening(&proxy.conninfo(sslmode), &[&channel]);
        proxy.set(Fault::Trickle { bytes: 50, pause: Duration::from_millis(1) });
        let mut sql = Sql::connect(&server().conninfo());
        // On a machine that is too busy all may be there before this looks.
        let is_in_pieces = (0..20).any(|_| {
            let before = events.metrics(session).unwrap().turns;
            sql.notify(&channel, &"x".repeat(7000));
            assert_eq!(take(&mut events, 1), 0, "{sslmode}");
            events.metrics(session).unwrap().turns - before > 10
        });
        assert!(is_in_pieces);
    }
}

#[test]
fn those_of_many_sessions_at_once_cost_none() {
    for (transport, conninfo) in transports(server()) {
        let channel = fresh_channel();
        let mut events = EventLoop::new().unwrap();
        for _ in 0..SESSIONS {
            let session =
                events.connect_with(&conninfo, SessionOptions::new().heartbeat(Duration::ZERO)).unwrap();
            events.listen(session, &channel).unwrap();
            assert!(matches!(events.next(Some(PATIENCE)).unwrap(), Some(Event::Listening(_))));
        }
        let mut sql = Sql::connect(&server().conninfo());
        for i in 0..20 {
            sql.notify(&channel, &i.to_string());
            // All of them have it before the first is looked at.
            std::thread::sleep(Duration::from_millis(10));
            assert_eq!(take(&mut events, SESSIONS), 0, "{transport}, {i}");
            let before = allocations();
            assert!(events.next(Some(Duration::ZERO)).unwrap().is_none());
            assert_eq!(allocations(), before, "{transport}, {i}");
        }
    }
}

/// Rows of the log, in one transaction and each in its own, once the texts have grown to their size.
#[cfg(feature = "json")]
#[test]
fn nor_does_a_row_of_the_log_once_there_was_one_like_it() {
    let (conninfo, mut sql) = common::log::database("");
    sql.run("CREATE TABLE t (id bigint PRIMARY KEY, n numeric, v text, a int[], b bytea, j jsonb)");
    let insert = |from: i32, to: i32| {
        format!(
            "INSERT INTO t SELECT i, i / 7.0, repeat(E'x\n', 20), ARRAY[i, NULL], '\\x00ff', '{{\"a\": 1}}' \
             FROM generate_series({from}, {to}) AS i"
        )
    };
    for binary in [false, true] {
        let mut events = EventLoop::new().unwrap();
        let options = StreamOptions::new().table("t").binary(binary).transactions(true);
        events.stream(&conninfo, options.heartbeat(Duration::ZERO)).unwrap();
        assert!(matches!(events.next(Some(PATIENCE)).unwrap(), Some(Event::Listening(_))));
        sql.run(&insert(99_000, 99_999));
        while !matches!(events.next(Some(PATIENCE)).unwrap(), Some(Event::Commit(_))) {}
        sql.run(&insert(10_000, 29_999));
        for id in 30_000..30_100 {
            sql.run(&insert(id, id));
        }
        let before = allocations();
        for _ in 0..20_000 + 2 + 3 * 100 {
            let event = events.next(Some(PATIENCE)).unwrap();
            assert!(matches!(event, Some(Event::Change(_) | Event::Begin(_) | Event::Commit(_))));
        }
        assert_eq!(allocations() - before, 0, "binary: {binary}");
        sql.run("TRUNCATE t");
    }
}

/// Whatever an answer costs, its rows cost nothing.
#[test]
fn nor_does_a_row_of_a_poll() {
    for binary in [false, true] {
        let (mut events, session) = listening(&server().conninfo(), &[]);
        let mut of = |rows: u64| {
            let options = PollOptions::new().every(Duration::from_secs(3600)).binary(binary);
            let sql = format!("SELECT g AS id, g::text AS note FROM generate_series(1, {rows}) g");
            let task = events.poll(session, &sql, options.name("p")).unwrap();
            let before = allocations();
            let (mut values, mut bytes) = (0, 0);
            match events.next(Some(PATIENCE)).unwrap() {
                Some(Event::Rows(found)) => {
                    for row in found.iter() {
                        bytes += row.get("id").map_or(0, <[u8]>::len) + row.get(1).map_or(0, <[u8]>::len);
                        values += 1;
                    }
                }
                other => panic!("{other:?}"),
            }
            assert!(values == rows && bytes > 0);
            let allocated = allocations() - before;
            events.cancel(task).unwrap();
            assert!(events.next(Some(Duration::from_millis(20))).unwrap().is_none());
            allocated
        };
        let (few, many) = (of(10), of(20_000));
        println!("an answer costs {few} allocations");
        assert_eq!(few, many, "binary: {binary}");
    }
}

#[test]
fn nor_where_a_libpq_says_that_it_is_old() {
    common::repeat_with_old_libpq(&[
        "costs_no_allocation",
        "one_that_comes_in_pieces",
        "those_of_many_sessions",
    ]);
}
