//! When the outbox is read next: at once when somebody rang, soon while writers are at work, now and then in
//! any case.

use std::time::{Duration, Instant};

/// How soon it is looked again while writers are at work; doubled until something comes.
const WAIT_MIN: Duration = Duration::from_millis(2);
const WAIT_MAX: Duration = Duration::from_secs(1);

/// The same for as long after the last change: a transaction that let another ring may be stuck in its commit
/// for want of a processor, and what it wrote is not to be late by much.
const WAIT_SOON_MAX: Duration = Duration::from_millis(32);
const SOON: Duration = Duration::from_secs(5);

/// From so many changes in one page on, the reader stays awake, and writers need not ring.
const BUSY_CHANGES: usize = 16;

/// A caller that takes longer for a page is too slow to be relied on.
const QUICK_TIME_MAX: Duration = Duration::from_millis(50);

/// Whoever rings, there is a rest between two reads as long as they take, but no longer than this.
const REST_MAX: Duration = Duration::from_millis(50);

#[derive(Debug)]
pub(super) struct Pace {
    /// Zero: never by itself.
    fallback: Duration,
    next: Option<Instant>,
    is_rung: bool,
    wait: Duration,
    /// When the last change came.
    came_at: Option<Instant>,
    asked_at: Option<Instant>,
    answered_at: Option<Instant>,
    /// How long the last two answers took. The shorter one says how long to rest: the other may have waited
    /// for a caller that was away.
    took: [Duration; 2],
    is_busy: bool,
    /// The last read took the duty to ring from the writers.
    was_awake: bool,
}

impl Pace {
    pub(super) fn new(fallback: Duration) -> Self {
        Pace {
            fallback,
            next: None,
            is_rung: false,
            wait: WAIT_MIN,
            came_at: None,
            asked_at: None,
            answered_at: None,
            took: [Duration::ZERO; 2],
            is_busy: false,
            was_awake: false,
        }
    }

    /// A consumer was opened: the first look.
    pub(super) fn begin(&mut self, now: Instant) {
        *self = Pace { next: Some(now), ..Pace::new(self.fallback) };
    }

    /// Somebody rang.
    pub(super) fn ring(&mut self) {
        self.is_rung = true;
    }

    /// When to read.
    pub(super) fn next(&self) -> Option<Instant> {
        let rest = self.took[0].min(self.took[1]).min(REST_MAX);
        let rung = self.answered_at.filter(|_| self.is_rung).map(|at| at + rest);
        [self.next, rung].into_iter().flatten().min()
    }

    /// A page is being asked for. Whether the reader will ask again within a few milliseconds, so that nobody
    /// need ring.
    pub(super) fn asked(&mut self, now: Instant) -> bool {
        (self.next, self.is_rung, self.asked_at) = (None, false, Some(now));
        self.was_awake = self.is_busy;
        self.was_awake
    }

    pub(super) fn answered(&mut self, now: Instant) {
        let took = self.asked_at.map_or(Duration::ZERO, |at| now.saturating_duration_since(at));
        self.took = [self.took[1], took];
        self.answered_at = Some(now);
    }

    /// All of a page was told, which had that many changes and ended with this advice (`install/README.md`).
    pub(super) fn told(&mut self, now: Instant, advice: u64, changes: usize) {
        let is_quick = self.answered_at.is_none_or(|at| now.saturating_duration_since(at) < QUICK_TIME_MAX);
        self.is_busy = is_quick && changes >= BUSY_CHANGES;
        if changes > 0 {
            self.came_at = Some(now);
        }
        let is_soon = self.came_at.is_some_and(|at| now.saturating_duration_since(at) < SOON);
        let longest = if is_soon { WAIT_SOON_MAX } else { WAIT_MAX };
        self.wait = if changes > 0 { WAIT_MIN } else { (self.wait * 2).min(longest) };
        self.next = match advice {
            1 => Some(now),
            2 => Some(now + self.wait),
            // To sleep, the duty to ring must have been given back before the last look.
            _ if self.was_awake => Some(now),
            _ => (!self.fallback.is_zero()).then(|| now + self.fallback),
        };
    }

    /// The server refused to read: not before then, whoever rings.
    pub(super) fn put_off(&mut self, until: Instant) {
        (self.next, self.answered_at) = (Some(until), None);
        (self.is_rung, self.is_busy) = (false, false);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn a_ring_is_answered_at_once_but_not_all_of_the_time() {
        let start = Instant::now();
        let mut pace = Pace::new(Duration::ZERO);
        assert_eq!(pace.next(), None);
        pace.begin(start);
        assert_eq!(pace.next(), Some(start));
        assert!(!pace.asked(start));
        pace.answered(start + 3 * MS);
        pace.told(start + 3 * MS, 0, 0);
        assert_eq!(pace.next(), None, "no fallback was asked for");
        pace.ring();
        assert_eq!(pace.next(), Some(start + 3 * MS), "one answer says nothing");
        for (asked, answered, next) in [(3, 3000, 3003), (3003, 3007, 3011), (3011, 3311, 3315)] {
            pace.asked(start + asked * MS);
            pace.answered(start + answered * MS);
            pace.ring();
            assert_eq!(pace.next(), Some(start + next * MS), "the caller was away once");
        }
        pace.asked(start + 4000 * MS);
        pace.answered(start + 4200 * MS);
        pace.ring();
        assert_eq!(pace.next(), Some(start + 4250 * MS), "a slow server");
    }

    #[test]
    fn what_was_refused_is_not_asked_again_because_somebody_rings() {
        let start = Instant::now();
        let mut pace = Pace::new(5000 * MS);
        pace.begin(start);
        pace.asked(start);
        pace.put_off(start + 500 * MS);
        pace.ring();
        assert_eq!(pace.next(), Some(start + 500 * MS));
    }

    #[test]
    fn while_writers_are_at_work_it_looks_again_and_again() {
        let start = Instant::now();
        let mut pace = Pace::new(5000 * MS);
        pace.begin(start);
        let mut waits = Vec::new();
        for changes in [1, 0, 0, 1, 0] {
            pace.asked(start);
            pace.answered(start);
            pace.told(start, 2, changes);
            waits.push(pace.next().unwrap() - start);
        }
        assert_eq!(waits, [2 * MS, 4 * MS, 8 * MS, 2 * MS, 4 * MS]);
        for (after, longest) in [(4_900 * MS, WAIT_SOON_MAX), (5_000 * MS, WAIT_MAX)] {
            (0..10).for_each(|_| pace.told(start + after, 2, 0));
            assert_eq!(pace.next().unwrap() - (start + after), longest);
        }
        pace.told(start, 0, 0);
        assert_eq!(pace.next(), Some(start + 5000 * MS));
        pace.told(start, 1, 1000);
        assert_eq!(pace.next(), Some(start));
    }

    #[test]
    fn a_busy_reader_stays_awake_and_looks_once_more_before_it_sleeps() {
        let start = Instant::now();
        let mut pace = Pace::new(Duration::ZERO);
        pace.begin(start);
        assert!(!pace.asked(start));
        pace.answered(start);
        pace.told(start, 2, 100);
        assert!(pace.asked(start + 2 * MS), "much came, and was taken at once");
        pace.answered(start + 3 * MS);
        pace.told(start + 3 * MS, 0, 0);
        assert_eq!(pace.next(), Some(start + 3 * MS));
        assert!(!pace.asked(start + 3 * MS));
        pace.answered(start + 4 * MS);
        pace.told(start + 4 * MS, 0, 0);
        assert_eq!(pace.next(), None);
        pace.ring();
        pace.asked(start + 10 * MS);
        pace.answered(start + 10 * MS);
        pace.told(start + 100 * MS, 2, 100);
        assert!(!pace.asked(start + 102 * MS), "the caller is too slow");
    }
}
