//! On the hot path nothing is allocated in Rust: what libpq does is its own.
mod common;

use common::{PATIENCE, Sql, fresh_channel, listening, server, transports};
use pgwake::{Event, EventLoop};
use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

thread_local! {
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
}

/// Counts what this thread allocates.
struct Counting;

// SAFETY: everything is passed on to the system's allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.with(|count| count.set(count.get() + 1));
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

fn take(events: &mut EventLoop, count: usize) {
    for _ in 0..count {
        assert!(matches!(events.next(Some(PATIENCE)).unwrap(), Some(Event::Notification(_))));
    }
}

#[test]
fn a_notification_costs_no_allocation() {
    for (transport, conninfo) in transports(server()) {
        let channel = fresh_channel();
        let (mut events, _) = listening(&conninfo, &[&channel]);
        let mut sql = Sql::connect(&server().conninfo());
        let mut flood = |events: &mut EventLoop| {
            sql.run(&format!(
                "SELECT count(pg_notify('{channel}', i::text)) FROM generate_series(1, 20000) i"
            ));
            for i in 0..100 {
                sql.notify(&channel, &format!("single {i}"));
            }
            let before = allocations();
            take(events, 20_100);
            allocations() - before
        };
        // The first time the queues find their size.
        flood(&mut events);
        assert_eq!(flood(&mut events), 0, "{transport}");
    }
    let before = allocations();
    drop(Box::new(1));
    assert!(allocations() > before, "the counter counts");
}
