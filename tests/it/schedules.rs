//! Schedules on the loop: what comes when, and what does not.

use pgwake::{ErrorKind, Event, EventLoop};
use std::time::{Duration, Instant, SystemTime};

const MS: Duration = Duration::from_millis(1);

#[test]
fn an_interval_ticks_again_and_again_until_it_is_cancelled() {
    let mut events = EventLoop::new().unwrap();
    let began_at = Instant::now();
    let task = events.every(20 * MS).unwrap();
    for n in 1..=3 {
        let Some(Event::Tick(tick)) = events.next(None).unwrap() else { panic!("no tick") };
        assert_eq!((tick.task, tick.schedule, tick.missed), (task, "every 20ms", 0));
        assert!(began_at.elapsed() >= n * 20 * MS, "it comes no sooner");
        let since_due = SystemTime::now().duration_since(tick.due).unwrap();
        assert!(since_due >= tick.late && since_due < tick.late + 10 * MS, "{tick:?}");
    }
    events.cancel(task).unwrap();
    assert!(events.next(None).unwrap().is_none(), "there is nothing left to wait for");
    assert_eq!(events.cancel(task).unwrap_err().kind, ErrorKind::UnknownTask);
}
